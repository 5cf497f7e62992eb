"""Compiled programs: what they call, what goes wrong in them, and how others load them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export
from tests.bridges.jax import operators as ops

import polyop
from polyop.bridges.jax import ffi, lowering
from polyop.bridges.jax.forms import read, text_of
from polyop.bridges.jax.frames import ARRAY, frame_of
from polyop.errors import OperatorGoneError, PolyopWarning, UsageError

CHECKS = [export.DisabledSafetyCheck.custom_call("polyop")]


@pytest.fixture
def untested() -> Iterator[None]:
    """Let what was found out of the foreign function be found out anew."""
    found = lowering.tested
    found.cache_clear()
    jax.clear_caches()
    yield
    found.cache_clear()
    jax.clear_caches()


def unary(name, kernel, fake=lambda x: polyop.empty_like(x)):
    op = polyop.custom_op(
        f"jaxprog::{name}",
        lambda x: polyop.from_numpy(kernel(x.numpy())),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
        replace=True,
    )
    op.register_fake(fake)
    return op


# -- the foreign function -----------------------------------------------------------------------


def test_programs_call_one_foreign_function():
    """S66: a compiled call is XLA's own call of `polyop`, with the operator's name in it."""
    text = jax.jit(lambda x: ops.sin(x, 2.0)).lower(jnp.ones(2)).as_text()
    assert "@polyop(" in text
    assert "jaxtest::sin" in text
    assert ffi.VERSION in ffi.VERSIONS
    assert lowering.tested() == ""


@pytest.mark.parametrize(
    "dtype",
    "bool int8 int16 int32 uint8 uint16 uint32 float16 float32 complex64 bfloat16 "
    "float8_e5m2 float8_e4m3fn".split(),
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 2), (2, 3, 4)])
def test_buffers_of_every_dtype_and_shape(dtype, shape):
    """S66: memory of programs is seen as it is, also without elements and without axes."""
    double = unary("double", lambda a: np.asarray(a * a.dtype.type(1)))
    x = jnp.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    found = jax.jit(double)(x)
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(x))


def test_wide_dtypes():
    """S66: with 64 bits enabled, programs have them."""
    with jax.enable_x64(True):
        double = unary("wide", lambda a: a * 2)
        for dtype in (jnp.float64, jnp.int64, jnp.uint64, jnp.complex128):
            found = jax.jit(double)(jnp.arange(3, dtype=dtype))
            assert found.dtype == dtype
            np.testing.assert_array_equal(np.asarray(found), [0, 2, 4])


def test_results_of_any_strides_are_laid_in_order():
    """S66: what a kernel gives as a transposed view is right in a program."""
    turned = unary(
        "turned", lambda a: a.T.copy(order="K"), lambda x: x.new_empty([x.shape[1], x.shape[0]])
    )
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(jax.jit(turned)(x), x.T)
    np.testing.assert_array_equal(turned(x), x.T)


def raise_on_seven(a):
    if (a == 7).any():
        raise ZeroDivisionError("seven is not allowed")
    return a + 1


def test_errors_of_kernels_have_the_lines_of_their_authors():
    """S2: a kernel's error comes out of a program as JAX's, with the author's lines in it."""
    careful = jax.jit(unary("careful", raise_on_seven))
    np.testing.assert_array_equal(careful(jnp.ones(2)), 2.0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="seven is not allowed") as error:
        careful(jnp.full(2, 7.0)).block_until_ready()
    assert "raise_on_seven" in str(error.value)
    assert "test_programs.py" in str(error.value)
    np.testing.assert_array_equal(careful(jnp.zeros(2)), 1.0)


def test_a_wrong_dtype_in_a_program_is_found():
    """S66: a result of another dtype than the fake rule says is refused, with both."""
    wrong = unary("wrong_dtype", lambda a: a.astype(np.int8))
    with pytest.raises(jax.errors.JaxRuntimeError, match="dtype of result 0") as error:
        jax.jit(wrong)(jnp.ones(2)).block_until_ready()
    assert "float32" in str(error.value) and "int8" in str(error.value)


def test_a_new_kernel_runs_in_old_programs():
    """S34: a kernel that is registered anew is the one that calls and compiled programs run."""
    op = unary("renewed", lambda a: a + 1)
    run = jax.jit(op)
    for call in (run, op, op):
        np.testing.assert_array_equal(call(jnp.zeros(2)), 1.0)
    op.register_kernel("cpu", lambda x: polyop.from_numpy(x.numpy() + 5))
    for call in (run, op, op):
        np.testing.assert_array_equal(call(jnp.zeros(2)), 5.0)


def test_operators_of_one_name_are_not_mixed_up():
    """S15: a program means the operator that it was compiled with, not a later one of its name."""
    lib = polyop.library.Library("jaxsame", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: polyop.from_numpy(x.numpy() + 1), "CPU")
    polyop.library.register_fake("jaxsame::f", lambda x: polyop.empty_like(x), lib=lib)
    first = polyop.ops.jaxsame.f.default
    old = jax.jit(lambda x: first(x))
    np.testing.assert_array_equal(old(jnp.zeros(2)), 1.0)
    ahead = old.lower(jnp.zeros(2)).compile()
    lib._destroy()
    again = polyop.library.Library("jaxsame", "DEF")
    again.define("f(Tensor x) -> Tensor")
    again.impl("f", lambda x: polyop.from_numpy(x.numpy() + 2), "CPU")
    polyop.library.register_fake("jaxsame::f", lambda x: polyop.empty_like(x), lib=again)
    second = polyop.ops.jaxsame.f.default
    np.testing.assert_array_equal(jax.jit(lambda x: second(x))(jnp.zeros(2)), 2.0)
    with pytest.raises(OperatorGoneError, match="was removed"):
        old(jnp.zeros(2))  # traced anew
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="was removed"):
        ahead(jnp.zeros(2)).block_until_ready()
    again._destroy()


# -- without the foreign function ---------------------------------------------------------------


def test_an_unknown_version_is_answered_by_callbacks(monkeypatch, untested):
    """S66: what was not seen working is not relied on; the reason is named, results are right."""
    monkeypatch.setattr(ffi, "VERSION", (0, 99))
    with pytest.warns(PolyopWarning, match=r"foreign functions is 0\.99"):
        why = lowering.tested()
    assert "not seen working" in why
    text = jax.jit(lambda x: ops.sin(x, 2.5)).lower(jnp.ones(2)).as_text()
    assert "@polyop(" not in text
    np.testing.assert_allclose(jax.jit(lambda x: ops.sin(x, 2.5))(jnp.ones(2)), np.sin(2.5))
    with pytest.raises(UsageError, match="jaxtest::sin calls back") as error:
        export.export(jax.jit(ops.sin))(jnp.ones(2))
    assert "0.99" in error.value.seen


def test_a_failing_test_is_a_reason(monkeypatch, untested):
    """S66: the foreign function is used only after a program of three elements was right."""
    monkeypatch.setattr(ffi, "_test", lambda inputs, places: None)
    monkeypatch.setattr(lowering, "warn_once", lambda *_, **__: None)
    assert "wrong result" in lowering.tested()


def test_without_any_promise_pure_callback_serves(monkeypatch, untested):
    """S66: the last way is the documented one."""
    monkeypatch.setattr(lowering, "tested", lambda: "of a test")
    monkeypatch.delattr(lowering.mlir, "emit_python_callback")
    run = jax.jit(lambda x: ops.sin(x, 3.5))
    np.testing.assert_allclose(run(jnp.ones(3)), np.sin(np.float32(3.5)), rtol=1e-6)


# -- calls as text ------------------------------------------------------------------------------


@given(st.floats(), st.integers(-(2**60), 2**60), st.booleans(), st.text(), st.lists(st.floats()))
def test_calls_are_read_as_they_were_written(k, n, flag, text, row):
    """S214: numbers, texts and lists come out of a program as they went in, to the last bit."""
    frame = frame_of(ops.every._opoverload, [ARRAY, k, n, flag, text, row, None, complex(k, -0.0)])
    found, wide = read(text_of(frame, wide=True))
    assert found == frame and wide


@pytest.mark.parametrize("dtype", [polyop.float32, polyop.bfloat16, polyop.bool])
def test_dtypes_and_devices_as_text(dtype):
    """S214: dtypes and devices are arguments like any other."""
    op = ops.convert._opoverload
    frame = frame_of(op, [ARRAY, dtype, polyop.device("cpu")])
    assert read(text_of(frame, wide=False)) == (frame, False)
    found = jax.jit(lambda x: ops.convert(x, dtype, polyop.device("cpu")))(jnp.ones(2))
    assert found.dtype == dtype


# -- export -------------------------------------------------------------------------------------

LOADER = """
import sys, numpy as np, jax, jax.numpy as jnp
import {module}
from jax import export
program = export.deserialize(open(sys.argv[1], "rb").read())
for shape in ((2, 3), (4, 1)):
    x = jnp.linspace(-1.0, 1.0, shape[0] * shape[1]).reshape(shape)
    np.testing.assert_allclose(program.call(x), 3 * np.sin(2 * np.asarray(x)), rtol=1e-5)
    found = jax.grad(lambda x: program.call(x).sum())(x)
    np.testing.assert_allclose(found, 6 * np.cos(2 * np.asarray(x)), rtol=1e-5, atol=1e-6)
    rows = jax.jit(lambda x: program.call(x) + 1)(x)
print("right")
"""


def load(code, path, *more):
    return subprocess.run(
        [sys.executable, "-c", code, str(path), *more], capture_output=True, text=True, check=False
    )


def test_programs_with_symbolic_sizes_are_read_in_another_process(tmp_path):
    """S66: `jax.export` writes an operator by name; another process runs it, and its gradient."""
    rows, columns = export.symbolic_shape("a, b")
    program = export.export(jax.jit(lambda x: ops.sin(x, 2.0) * 3), disabled_checks=CHECKS)(
        jax.ShapeDtypeStruct((rows, columns), jnp.float32)
    )
    assert str(program.out_avals[0].shape) == "(a, b)"
    path = tmp_path / "program"
    path.write_bytes(program.serialize(vjp_order=1))
    # A module that defines other operators: the program's own is imported by the call.
    done = load(LOADER.format(module="tests.bridges.jax.others"), path)
    assert done.stdout.strip() == "right", done.stderr


def test_a_program_without_its_operator_is_an_error_by_name(tmp_path):
    """S66: where the module of an operator is not to be found, the call says which it was."""
    lost = unary("lost", lambda a: a + 1)
    program = export.export(jax.jit(lost), disabled_checks=CHECKS)(jnp.ones(2))
    path = tmp_path / "program"
    text = program.serialize().replace(
        b"tests.bridges.jax.test_programs", b"tests.bridges.jax.n_t_programs_"
    )
    path.write_bytes(text)
    code = """
import sys, jax, jax.numpy as jnp
import polyop.bridges.jax.ffi
from jax import export
export.deserialize(open(sys.argv[1], "rb").read()).call(jnp.ones(2))
"""
    done = load(code, path)
    assert "OperatorNotFoundError" in done.stderr
    assert "calls jaxprog::lost, which is not defined" in done.stderr


FAKES = {
    "slice": (lambda x: x[1:], lambda a: a[1:], "(a - 1, b)"),
    "cat": (lambda x: polyop.cat([x, x]), lambda a: np.concatenate([a, a]), "(2*a, b)"),
    "matmul": (lambda x: x @ x.transpose(0, 1), lambda a: a @ a.T, "(a, a)"),
    "flat": (lambda x: x.reshape(-1), lambda a: a.reshape(-1), "(a*b,)"),
    "sum": (lambda x: x.sum(0), lambda a: a.sum(0), "(b,)"),
    "halves": (
        lambda x: x.new_empty([2 * x.shape[0], x.shape[1] // 2]),
        lambda a: np.concatenate([a, a])[:, : a.shape[1] // 2],
        "(2*a, floordiv(b, 2))",
    ),
    "extremes": (
        lambda x: x.new_empty([polyop.sym_max(x.shape[1] - 2, 0)]),
        lambda a: a[0, 2:],
        "(max(b - 2, 0),)",
    ),
}


@pytest.mark.parametrize("name", FAKES)
def test_fake_rules_on_symbolic_sizes(name):
    """S143: the author's rule runs on JAX's symbols as on numbers."""
    fake, kernel, shape = FAKES[name]
    op = unary(f"symbolic_{name}", lambda a: np.array(kernel(a)), fake)
    a, b = export.symbolic_shape("a, b")
    program = export.export(jax.jit(op), disabled_checks=CHECKS)(
        jax.ShapeDtypeStruct((a, b), jnp.float32)
    )
    assert str(program.out_avals[0].shape) == shape
    for size in ((5, 6), (2, 4)):
        x = jnp.arange(float(np.prod(size))).reshape(size)
        np.testing.assert_allclose(program.call(x), kernel(np.asarray(x)))


def test_a_question_that_a_symbol_does_not_answer():
    """S2: a rule that decides by a symbol is refused by name, or answered by a constraint."""
    op = unary("asks", lambda a: a[:3].copy(), lambda x: x[:3] if x.shape[0] > 4 else x)
    jitted = jax.jit(op)
    with pytest.raises(UsageError, match="jaxprog::asks decides something") as error:
        (n,) = export.symbolic_shape("n")
        export.export(jitted, disabled_checks=CHECKS)(jax.ShapeDtypeStruct((n,), jnp.float32))
    assert "constraints" in error.value.fix
    (n,) = export.symbolic_shape("n", constraints=["n >= 5"])
    program = export.export(jitted, disabled_checks=CHECKS)(jax.ShapeDtypeStruct((n,), jnp.float32))
    assert program.call(jnp.arange(6.0)).shape == (3,)


def test_what_no_text_can_stand_for_stays_in_this_process():
    """S66: a call with a random generator is compiled all the same; exporting it is refused."""
    op = polyop.custom_op(
        "jaxprog::drawn", lambda x, gen=None: polyop.from_numpy(x.numpy() + 1), mutates_args=(),
        schema="(Tensor x, Generator? gen=None) -> Tensor",
    )  # fmt: skip
    op.register_fake(lambda x, gen=None: polyop.empty_like(x))
    gen = polyop.Generator()
    run = jax.jit(lambda x: op(x, gen))
    np.testing.assert_array_equal(run(jnp.ones(2)), 2.0)
    with pytest.raises(UsageError, match="jaxprog::drawn calls back") as error:
        export.export(run, disabled_checks=CHECKS)(jnp.ones(2))
    assert "Generator" in error.value.seen

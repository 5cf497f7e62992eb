"""Calls with JAX's arrays: what kernels get, what results own, what is compiled, and refused."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.bridges.jax import operators as ops

import polyop
from polyop.errors import (
    ArgumentError,
    DynamicOutputShapeError,
    MetadataMismatchError,
    MissingFakeError,
    MissingGradientError,
    UsageError,
)
from polyop.extend import DispatchMode


def test_polyop_imports_no_jax():
    """S66: JAX is never imported by polyop; an operator that is defined before serves it after."""
    code = """
import sys, numpy as np, polyop
from tests.bridges.jax.operators import sin
sin(np.ones(2))
assert "jax" not in sys.modules
import jax.numpy as jnp
print(type(sin(jnp.ones(2))).__module__.partition(".")[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"jax", "jaxlib"}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_results_are_jax_arrays_of_jax_dtypes(wrap):
    """S66: results are of the arguments' library, of half the width where 64 bits are off."""
    wide = polyop.custom_op(
        "jaxtest::wide", lambda x: polyop.from_numpy(x.numpy().astype(np.float64)),
        mutates_args=(), schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    wide.register_fake(lambda x: polyop.empty(x.shape, dtype=polyop.float64))
    found = wrap(wide)(jnp.arange(3.0))
    assert isinstance(found, jax.Array)
    assert found.dtype == jnp.float32
    with jax.enable_x64(True):
        assert wrap(lambda x: wide(x) + 0)(jnp.arange(3.0)).dtype == jnp.float64


def test_numpy_arrays_join():
    """S66: NumPy's arrays beside JAX's are converted."""
    found = ops.blend([jnp.ones(2), np.full(2, 2, np.float32)], None)[0]
    assert isinstance(found, jax.Array)
    np.testing.assert_allclose(found, 1.5)


def test_two_libraries_are_refused():
    """S66: arrays of two frameworks in one call are an error that names both."""
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match="two libraries") as error:
        ops.blend([jnp.ones(2), torch.ones(2)], None)
    assert "torch" in str(error.value) and "jax" in str(error.value)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_results_own_their_memory(wrap):
    """S66: a kernel that writes later to what it returned changes no result."""
    kept = []

    def kernel(x):
        kept.append(np.array(x.numpy()))
        return polyop.from_numpy(kept[-1])

    op = polyop.custom_op(
        "jaxtest::remembers", kernel, mutates_args=(), schema="(Tensor x) -> Tensor", replace=True
    )
    op.register_fake(lambda x: polyop.empty_like(x))
    found = wrap(op)(jnp.ones(64)).block_until_ready()
    kept[-1][...] = 7
    np.testing.assert_allclose(found, 1.0)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_declared_views_are_copies(wrap):
    """S66: JAX's arrays share nothing, so a declared view is an array of its own."""
    tail = polyop.custom_op(
        "jaxtest::tail", lambda x: x[1:], mutates_args=(), schema="(Tensor(a) x) -> Tensor(a)",
        replace=True,
    )  # fmt: skip
    tail.register_fake(lambda x: x[1:])
    np.testing.assert_allclose(wrap(tail)(jnp.arange(3.0)), [1.0, 2.0])


def test_static_values_of_different_types_are_different_calls():
    """S61: what is compiled for one value is never used for another that only compares equal."""
    text = polyop.custom_op(
        "jaxtest::text",
        lambda x, k: polyop.from_numpy(np.full(1, np.copysign(1.0, k), np.float32)),
        mutates_args=(),
        schema="(Tensor x, float k) -> Tensor",
    )
    text.register_fake(lambda x, k: x.new_empty([1]))
    run = jax.jit(text, static_argnums=1)
    x = jnp.zeros(1)
    assert float(jax.jit(lambda x: text(x, 0.0))(x)[0]) == 1.0
    assert float(jax.jit(lambda x: text(x, -0.0))(x)[0]) == -1.0
    assert float(run(x, 2.0)[0]) == 1.0


def test_equal_calls_compile_once():
    """S66: a call that is repeated traces and compiles nothing."""
    traces = []

    @jax.jit
    def f(x):
        traces.append(1)
        return ops.sin(x, 3.0) + ops.sin(x, 3.0)

    one = jax.make_jaxpr(lambda x: (ops.sin(x, 3.0), ops.sin(x, 3.0), ops.sin(x, 4.0)))(jnp.ones(2))
    a, b, c = (e.params["frame"] for e in one.jaxpr.eqns)
    assert a == b and hash(a) == hash(b) and a != c
    for _ in range(3):
        f(jnp.ones(3))
    assert len(traces) == 1


def test_threads_share_an_operator():
    """S66: eight threads that make the first call at once, in eager and compiled code, agree."""
    fresh = polyop.custom_op(
        "jaxtest::fresh", lambda x: polyop.from_numpy(x.numpy() * 2), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    fresh.register_fake(lambda x: polyop.empty_like(x))

    def work(i):
        x = jnp.full(4, float(i))
        return [float(f(x).sum()) for f in (fresh, jax.jit(fresh), fresh) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(work, range(8))):
            assert found == [8.0 * i] * 12


def test_sizes_that_depend_on_data():
    """S143: outside of a trace the size is that of the data; in one it is an error that says so."""
    x = jnp.array([0.0, 2.0, 3.0])
    np.testing.assert_array_equal(ops.nonzero(x), [1, 2])
    np.testing.assert_array_equal(jax.grad(lambda x: x[ops.nonzero(x)].sum())(x), [0, 1, 1])
    with pytest.raises(DynamicOutputShapeError, match="depends on data") as error:
        jax.jit(ops.nonzero)(x)
    assert "outside of jax.jit" in error.value.fix


def test_missing_rules_are_named():
    """S2: without a fake rule nothing is compiled; without a gradient nothing is differentiated."""
    bare = polyop.custom_op(
        "jaxtest::bare", lambda x: polyop.from_numpy(x.numpy() + 1), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    x = jnp.ones(2)
    np.testing.assert_allclose(bare(x), 2.0)
    with pytest.raises(MissingFakeError, match="jaxtest::bare has no fake rule"):
        jax.jit(bare)(x)
    with pytest.raises(MissingGradientError, match="jaxtest::bare has no backward rule"):
        jax.grad(lambda x: bare(x).sum())(x)
    with pytest.raises(MissingGradientError, match="jaxtest::bare has no backward rule"):
        jax.jvp(bare, (x,), (x,))


def test_a_black_box_in_backward_is_named_in_forward_mode():
    """S132: the transpose of a backward without a gradient of its own is an error, not zeros."""
    box = polyop.custom_op(
        "jaxtest::box", lambda g: polyop.from_numpy(g.numpy() * 2), mutates_args=(),
        schema="(Tensor g) -> Tensor",
    )  # fmt: skip
    box.register_fake(lambda g: polyop.empty_like(g))
    twice = polyop.custom_op(
        "jaxtest::twice", lambda x: polyop.from_numpy(x.numpy() * 2), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    twice.register_fake(lambda x: polyop.empty_like(x))
    twice.register_autograd(lambda ctx, g: box(g))
    x = jnp.ones(2)
    np.testing.assert_allclose(jax.grad(lambda x: twice(x).sum())(x), 2.0)
    with pytest.raises(MissingGradientError, match="jaxtest::box has no backward rule"):
        jax.jvp(twice, (x,), (x,))


def test_a_wrong_fake_rule_is_found_in_eager_code():
    """S66: a result that is not what the fake rule says is refused, with both shapes."""
    wrong = polyop.custom_op(
        "jaxtest::wrong", lambda x: polyop.from_numpy(x.numpy()[:1].copy()), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    wrong.register_fake(lambda x: polyop.empty_like(x))
    with pytest.raises(MetadataMismatchError, match="shape of result 0") as error:
        wrong(jnp.ones(3))
    assert (error.value.declared, error.value.seen) == ("(3,)", "(1,)")
    with pytest.raises(jax.errors.JaxRuntimeError, match="shape of result 0 of jaxtest::wrong"):
        jax.jit(wrong)(jnp.ones(3))


def test_a_kernel_that_keeps_memory_of_a_program_is_found():
    """S66: memory of a compiled program is used again, so a kernel that keeps it is refused."""
    kept = []

    def kernel(x):
        kept.append(x.numpy()[:1])
        return polyop.from_numpy(x.numpy() + 1)

    keeps = polyop.custom_op(
        "jaxtest::keeps", kernel, mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    keeps.register_fake(lambda x: polyop.empty_like(x))
    np.testing.assert_allclose(keeps(jnp.ones(2)), 2.0)  # here the array lives as long as its views
    with pytest.raises(jax.errors.JaxRuntimeError, match="keeps an argument"):
        jax.jit(keeps)(jnp.ones(2))
    kept.clear()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_an_undeclared_write_is_refused(wrap):
    """S66: memory of JAX is read-only to kernels, in eager and in compiled code."""

    def kernel(x):
        x.numpy()[0] = 5
        return polyop.from_numpy(x.numpy().copy())

    writes = polyop.custom_op(
        "jaxtest::writes", kernel, mutates_args=(), schema="(Tensor x) -> Tensor", replace=True
    )
    writes.register_fake(lambda x: polyop.empty_like(x))
    x = jnp.ones(2)
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="read-only"):
        wrap(writes)(x)
    np.testing.assert_allclose(x, 1.0)


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_writes_go_by_the_functional_twin():
    """S174: arrays are refused with the twin named; the twin works; a tensor is rebound."""
    x, out = jnp.ones(3), jnp.arange(3.0)
    with pytest.raises(ArgumentError, match="never written") as error:
        ops.add_to(x, out)
    assert "jaxtest::add_to.functional" in error.value.fix

    def on_tensors(x):
        t = polyop.from_array(jnp.arange(3.0))
        ops.add_to(polyop.from_array(x), t)
        return polyop.to_array(t)

    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(wrap(ops.add_to.functional)(x, out), [1, 2, 3])
        np.testing.assert_allclose(wrap(on_tensors)(x), [1, 2, 3])
    rows = jax.vmap(on_tensors)(jnp.array([[0.0, 0, 0], [1, 1, 1]]))
    np.testing.assert_allclose(rows, [[0, 1, 2], [1, 2, 3]])
    np.testing.assert_allclose(out, [0, 1, 2])


def test_traced_numbers_and_keys_are_refused():
    """S63: a number that JAX traces is no static argument, and a random key no array."""
    with pytest.raises(ArgumentError, match="argument 'k'"):
        jax.jit(lambda x, k: ops.sin(x, k))(jnp.ones(2), 2.0)
    with pytest.raises(ArgumentError, match="no dtype that stands for"):
        ops.sin(jax.random.key(0))


def test_effects_are_refused_where_jax_would_lose_them():
    """S188: a call with an effect runs in eager code, and is an error in what JAX traces."""
    says: list[float] = []

    def kernel(x):
        says.append(float(x.numpy().sum()))
        return polyop.from_numpy(x.numpy().copy())

    say = polyop.custom_op("jaxtest::say", kernel, mutates_args=(), schema="(Tensor x) -> Tensor")
    say.register_fake(lambda x: polyop.empty_like(x))
    say.register_effect(polyop.library.EffectType.ORDERED)
    assert isinstance(say(jnp.ones(2)), jax.Array)
    assert says == [2.0]
    with pytest.raises(UsageError, match="has an effect"):
        jax.jit(say)(jnp.ones(2))
    assert says == [2.0]


def test_results_that_are_no_tensors():
    """S66: a number as a result is answered in eager code, and refused in what JAX traces."""
    count = polyop.custom_op(
        "jaxtest::count", lambda x: int((x.numpy() > 0).sum()), mutates_args=(),
        schema="(Tensor x) -> int",
    )  # fmt: skip
    count.register_fake(lambda x: 0)
    assert count(jnp.array([1.0, 0.0, 2.0])) == 2
    with pytest.raises(polyop.errors.ReturnError, match="no tensor"):
        jax.jit(count)(jnp.ones(2))


def test_lists_of_results():
    """S66: a list of tensors comes back as a list, in eager and compiled code."""
    halves = polyop.custom_op(
        "jaxtest::halves", lambda x: [polyop.from_numpy(h.copy()) for h in np.split(x.numpy(), 2)],
        mutates_args=(), schema="(Tensor x) -> Tensor[]",
    )  # fmt: skip
    halves.register_fake(lambda x: [x.new_empty([x.shape[0] // 2]) for _ in range(2)])
    for wrap in (lambda f: f, jax.jit):
        found = wrap(halves)(jnp.arange(4.0))
        assert isinstance(found, list)
        np.testing.assert_allclose(jnp.stack(found), [[0, 1], [2, 3]])


def test_modes_see_calls_with_jax_arrays():
    """S66: a mode that is entered sees a call with JAX's arrays as any other."""
    seen = []

    class Watch(DispatchMode):
        def __dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    with Watch():
        found = ops.sin(jnp.zeros(2))
    assert isinstance(found, jax.Array)
    assert "jaxtest::sin" in seen


def test_an_operator_that_was_removed_is_gone():
    """S15: after its library is destroyed, calls and compiled programs raise; a new one is new."""
    lib = polyop.library.Library("jaxgone", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: polyop.from_numpy(x.numpy() + 1), "CPU")
    polyop.library.register_fake("jaxgone::f", lambda x: polyop.empty_like(x), lib=lib)
    f = polyop.ops.jaxgone.f.default
    run = jax.jit(lambda x: f(x))
    np.testing.assert_allclose(run(jnp.ones(2)), 2.0)
    ahead = run.lower(jnp.ones(2)).compile()
    lib._destroy()
    for call in (f, run):
        with pytest.raises(polyop.errors.OperatorGoneError):
            call(jnp.ones(2))
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="was removed"):
        ahead(jnp.ones(2))

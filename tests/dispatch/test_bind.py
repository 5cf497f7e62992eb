"""Binding: every way to give arguments, every way to get them wrong, conversions, overloads."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dispatch.registry_state import refused

import polyop.assembly  # noqa: F401
from polyop.devices import CPU, DTYPES
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.library import Library
from polyop.dispatch.namespaces import ops
from polyop.errors import ArgumentError
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)
LIB = Library("bind", "FRAGMENT")
SEEN: list[Any] = []


def x() -> Tensor:
    return of_array(np.ones(1))


def op(schema: str, result: Any = None) -> Any:
    """An operator that notes its arguments and returns `result`."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        SEEN.append((args, kwargs))
        return result

    name = f"f{len(ops.bind.__dict__)}_{len(SEEN)}_{len(list(ops.bind))}"
    LIB.define(f"{name}{schema}")
    LIB.impl(name, kernel, "CompositeExplicitAutograd")
    return getattr(ops.bind, name).default


def seen(call: Any) -> Any:
    SEEN.clear()
    call()
    return SEEN[-1]


# -- errors -------------------------------------------------------------------

FULL = "(Tensor a, int n, *, float k, str s='') -> ()"


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ("misses argument 'a'", "a (position 0)", "Tensor a")),
        ((x(),), {"k": 1.0}, ("misses argument 'n'", "n (position 1)", "int n")),
        ((x(), 1), {}, ("misses argument 'k'", "k (keyword-only)", "float k")),
        ((x(), 1, 2.0), {}, ("too many", "2 positional arguments", "3", "by name")),
        ((x(), 1), {"k": 1.0, "z": 5}, ("no argument 'z'", "z=5", "a, n, k, s")),
        ((x(), 1), {"k": 1.0, "kk": 2}, ("no argument 'kk'", "did you mean 'k'")),
        ((x(), 1), {"k": 1.0, "n": 3}, ("'n' twice", "n (position 1)", "position 1", "name 3")),
        (("t", 1), {"k": 1.0}, ("cannot take str as argument 'a'", "'t' (str)", "Tensor")),
        ((None, 1), {"k": 1.0}, ("cannot take NoneType as argument 'a'", "position 0")),
        ((x(), "1"), {"k": 1.0}, ("argument 'n'", "n (position 1)", "int", "'1' (str)")),
        ((x(), 1.5), {"k": 1.0}, ("argument 'n'", "1.5 (float)")),
        ((x(), 1), {"k": "k"}, ("argument 'k'", "k (keyword-only)", "float", "'k' (str)")),
        ((x(), 1), {"k": 1.0, "s": 3}, ("argument 's'", "3 (int)")),
        ((x(), 2**63), {"k": 1.0}, ("argument 'n'", str(2**63), "outside 64 bits")),
        ((x(), -(2**63) - 1), {"k": 1.0}, ("argument 'n'", "outside 64 bits")),
        ((x(), 1), {"k": 1.0, "a.b": 5}, ("no argument 'a.b'",)),
        ((x(), 1), {"k": 1.0, "_rest": 5}, ("no argument '_rest'",)),
        ((x(), 1), {"k": 1.0, "a0": 5}, ("no argument 'a0'",)),
        ((x(), 1), {"k": 1.0, "": 5}, ("no argument ''",)),
    ],
)
def test_bad_calls(args: Any, kwargs: Any, words: tuple[str, ...]) -> None:
    """S63: each wrong call names operator, argument, position, what was declared and seen."""
    f = op(FULL)
    with refused(ArgumentError, f.name(), str(f._schema), __file__, "fix:", *words) as caught:
        f(*args, **kwargs)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert SEEN == [] or SEEN[-1][0][:1] != args[:1]


def test_a_bad_call_comes_before_any_write() -> None:
    """S1: a refused call neither runs the kernel nor counts a write."""
    f = op("(Tensor(a!) t, int n) -> ()")
    t = x()
    SEEN.clear()
    with refused(ArgumentError):
        f(t, "no")
    assert t._version == 0 and SEEN == []


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ("(Tensor[] v) -> ()", [x(), 3], ("Tensor[]",)),
        ("(Tensor[] v) -> ()", x(), ("Tensor[]", "Tensor")),
        ("(Tensor[] v) -> ()", [None], ("Tensor[]",)),
        ("(Tensor?[] v) -> ()", [None, "a"], ("Tensor?[]",)),
        ("(int[] v) -> ()", [1, 2.5], ("int[]", "2.5")),
        ("(int[] v) -> ()", [2**64], ("outside 64 bits",)),
        ("(int[]? v) -> ()", "ab", ("int[]?", "'ab'")),
        ("(int? v) -> ()", 2**64, ("outside 64 bits",)),
        ("(bool v) -> ()", 1, ("bool", "1 (int)")),
        ("(Device v) -> ()", "nowhere", ("Device", "nowhere")),
        ("(ScalarType v) -> ()", "float17", ("ScalarType", "float17")),
        ('(Literal("a", "b") v) -> ()', "c", ("'a', 'b'", "'c'")),
        ("({Tensor w, int n} v) -> ()", {"w": x()}, ("w, n",)),
        ("(Dict(str, Tensor) v) -> ()", {"w": 3}, ("Dict(str, Tensor)",)),
        ("((Tensor, int) v) -> ()", (x(),), ("(Tensor, int)",)),
    ],
)
def test_values_that_do_not_fit(schema: str, value: Any, words: tuple[str, ...]) -> None:
    """S63: a value of the wrong type names its argument, the type and the value."""
    f = op(schema)
    with refused(ArgumentError, f.name(), "v (position 0)", *words):
        f(value)
    with refused(ArgumentError, "v (position 0)", *words):
        f(v=value)


# -- conversions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "wanted"),
    [
        ("(int v) -> ()", np.int32(3), 3),
        ("(int v) -> ()", True, 1),
        ("(int v) -> ()", of_array(np.array(4)), 4),
        ("(int v) -> ()", 2**63 - 1, 2**63 - 1),
        ("(int v) -> ()", -(2**63), -(2**63)),
        ("(float v) -> ()", 2, 2.0),
        ("(float v) -> ()", np.float32(0.5), 0.5),
        ("(bool v) -> ()", np.True_, True),
        ("(int[] v) -> ()", (1, np.int64(2)), [1, 2]),
        ("(int[] v) -> ()", np.arange(3), [0, 1, 2]),
        ("(int[] v) -> ()", range(2), [0, 1]),
        ("(int[2] v) -> ()", 5, [5, 5]),
        ("(float[] v) -> ()", [1, 2.5], [1.0, 2.5]),
        ("(float[]? v) -> ()", (1,), [1.0]),
        ("(int[][] v) -> ()", ((1,), []), [[1], []]),
        ("(Device v) -> ()", "cpu", CPU),
        ("(ScalarType v) -> ()", "float32", DTYPES["float32"]),
        ("(ScalarType v) -> ()", np.float32, DTYPES["float32"]),
        ("(Dict(str, int) v) -> ()", {"a": np.int8(1)}, {"a": 1}),
    ],
)
def test_conversions(schema: str, value: Any, wanted: Any) -> None:
    """S64: values are converted before kernels see them, by position and by name."""
    f = op(schema)
    for call in (lambda: f(value), lambda: f(v=value)):
        (got,), _ = seen(call)
        assert got == wanted and type(got) is type(wanted)
        if isinstance(wanted, list):
            assert [type(i) for i in got] == [type(i) for i in wanted]


def test_lists_are_copies() -> None:
    """S64: kernels get fresh lists, from arguments and from defaults."""
    f = op("(Tensor t, int[] v=[1, 2], Tensor[] ts=[]) -> ()")
    mine, tensors = [5], [x()]
    (_, got, got_tensors), _ = seen(lambda: f(x(), mine, tensors))
    got.append(6)
    got_tensors.clear()
    assert mine == [5] and len(tensors) == 1
    for _ in range(2):
        (_, got, _), _ = seen(lambda: f(x()))
        assert got == [1, 2] and type(got) is list
        got.append(3)


def test_kernels_see_all_arguments() -> None:
    """S65: defaults are filled in; keyword-only arguments come by name."""
    f = op("(Tensor t, int n=2, *, float k=1.5, str? s=None) -> ()")
    t = x()
    assert seen(lambda: f(t)) == ((t, 2), {"k": 1.5, "s": None})
    assert seen(lambda: f(n=3, t=t, s="a")) == ((t, 3), {"k": 1.5, "s": "a"})


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 5), st.integers(0, 3), st.data())
def test_any_way_to_give_arguments(n: int, k: int, data: Any) -> None:
    """S64: positional, by name, or left to a default: the kernel sees what Python would."""
    required = data.draw(st.integers(0, n))
    words = [f"int p{i}" + (f"={i}" if i >= required else "") for i in range(n)]
    words += ["*"] * bool(k) + [f"int q{i}={10 + i}" for i in range(k)]
    f = op(f"({', '.join(words)}) -> ()")
    split = data.draw(st.integers(0, n))
    names = [f"p{i}" for i in range(split, required)]
    free = [f"p{i}" for i in range(max(split, required), n)] + [f"q{i}" for i in range(k)]
    names += data.draw(st.permutations(free))[: data.draw(st.integers(0, 8))]
    args, kwargs = [100 + i for i in range(split)], dict.fromkeys(names, 7)
    bound = inspect.Signature([
        inspect.Parameter(w.split()[1].split("=")[0],
                          inspect.Parameter.KEYWORD_ONLY if "q" in w else
                          inspect.Parameter.POSITIONAL_OR_KEYWORD,
                          default=int(w.split("=")[1]) if "=" in w else inspect.Parameter.empty)
        for w in words if w != "*"]).bind(*args, **kwargs)  # fmt: skip
    bound.apply_defaults()
    got_args, got_kwargs = seen(lambda: f(*args, **kwargs))
    assert (got_args, got_kwargs) == (bound.args, bound.kwargs)


# -- overloads ----------------------------------------------------------------


def overloads(name: str, *signatures: str) -> Any:
    for label, signature in zip("xyz", signatures, strict=False):
        LIB.define(f"{name}.{label}{signature} -> str")
        LIB.impl(f"{name}.{label}", lambda *a, label=label, **k: label, "CompositeExplicitAutograd")
    return getattr(ops.bind, name)


def test_the_first_overload_that_fits() -> None:
    """S62: in order of declaration, with conversions: a bool fits int, int before float."""
    f = overloads("pick", "(Tensor t, int n)", "(Tensor t, float n)", "(Tensor t, Tensor n)")
    t = x()
    picks = {"1": f(t, 1), "True": f(t, True), "np": f(t, np.int64(1)), "1.5": f(t, 1.5),
             "0d": f(t, of_array(np.array(1))), "t": f(t, t), "name": f(t, n=2.5)}  # fmt: skip
    assert picks == {"1": "x", "True": "x", "np": "x", "1.5": "y", "0d": "x", "t": "z", "name": "y"}


def test_overloads_of_arrays() -> None:
    """S62, S66: arrays choose an overload as tensors do."""
    f = overloads("arrays", "(Tensor t, int n)", "(Tensor t, float n)", "(Tensor t, Tensor n)")
    assert (f(ONE, 1), f(ONE, 1.5), f(ONE, ONE), f(x(), ONE)) == ("x", "y", "z", "z")


def test_no_overload_fits() -> None:
    """S62: when none fits, the error has a line per overload."""
    f = overloads("none", "(Tensor t, int n)", "(Tensor t, float n, int m)")
    with refused(ArgumentError, "bind::none", "Tensor, str", __file__) as caught:
        f(x(), "a")
    lines = [line for line in str(caught.value).splitlines() if "bind::none." in line]
    assert len(lines) == 2 and "argument 'n'" in lines[0] and "int m" in lines[1]


# -- arrays -------------------------------------------------------------------


def doubled(t: Tensor, ts: list[Tensor], *, k: Tensor | None = None) -> list[Tensor]:
    return [of_array(v.numpy() * 2) for v in [t, *ts, k] if v is not None]


def test_arrays_are_answered_in_kind() -> None:
    """S66: NumPy arrays alone give NumPy arrays; beside tensors they give tensors."""
    f = custom_op("bind_np::f", doubled, mutates_args=())
    for kwargs in ({}, {"k": ONE}, {"k": None}):
        result = f(ONE, [ONE, ONE], **kwargs)
        assert [type(v) for v in result] == [np.ndarray] * (3 + (kwargs.get("k") is not None))
        assert all(v == 2 for v in result)
    assert type(f(ONE, [])[0]) is np.ndarray
    for call in (lambda: f(x(), [ONE]), lambda: f(ONE, [x()]), lambda: f(ONE, [], k=x())):
        assert [type(v) for v in call()] == [Tensor, Tensor]


def test_written_arrays_are_the_callers() -> None:
    """S66: an operator that writes its argument writes the caller's own array."""

    def fill(t: Tensor, ts: list[Tensor]) -> None:
        for v in [t, *ts]:
            v.numpy()[...] = 7

    f = custom_op("bind_np::fill", fill, mutates_args=("t", "ts"))
    arrays = [np.zeros(2) for _ in range(3)]
    assert f(arrays[0], arrays[1:]) is None
    assert [a.tolist() for a in arrays] == [[7, 7]] * 3
    tensor = x()
    f(tensor, [])
    assert tensor.item() == 7 and tensor._version == 1


def test_an_unknown_library_is_refused() -> None:
    """S66: an array of a library without a bridge is an argument error, not a copy."""

    class Strange:
        shape, dtype = (1,), ONE.dtype

        def __dlpack__(self) -> None: ...

    f = custom_op("bind_np::g", doubled, mutates_args=())
    with refused(ArgumentError, "bind_np::g", "Strange"):
        f(Strange(), [])


@pytest.mark.parametrize("value", [3, 1.5, [1.0, 2.0], (1,)])
def test_plain_data_for_a_tensor_is_told_how_to_become_one(value: Any) -> None:
    """S63: numbers and lists are no tensors; the error says what to write."""
    with pytest.raises(ArgumentError, match=r"make it a tensor: polyop\.tensor"):
        ops.core.sin(value)

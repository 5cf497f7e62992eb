"""Sums, means and extremes beside their tangents, by one loop of C: NumPy's bits, or NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.compile.fused import folds, library
from polyop.dispatch.bind import dispatch
from polyop.errors import PolyopError
from polyop.func import grad, jvp, vmap
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.paired import LARGE, PATIENT, SWITCH, Loop, PairedLoops
from polyop.layers.autograd.tangents import tangent_rule
from polyop.library import Library

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C compiler")
NAMES = ["sum", "mean", "max", "min"]
Array = np.ndarray[Any, Any]


@cache
def fold(name: str, dtype: str) -> Loop:
    """Compile a loop once."""
    return folds.make_fold(name, np.dtype(dtype))


def arguments(name: str, x: Array, axis: Any, keepdims: bool) -> list[Any]:
    option = [None] if name == "sum" else []
    return [polyop.from_numpy(x), axis, *option, keepdims]


def by_numpy(name: str, values: list[Any], g: Array) -> tuple[Array, Array]:
    """Give what NumPy's kernel gives; of the tangent what the text does, or the element itself."""
    op = getattr(polyop, name).op
    rule = tangent_rule(op)
    tangents = [polyop.from_numpy(g), *[None] * (len(values) - 1)]
    out, (d,) = rule.at_once(lambda *a: dispatch(op, a), values, tangents)
    return out.numpy(), d.numpy()


def same(a: Array, b: Array) -> bool:
    """Hold two arrays to each other, to the last bit but for the sign of a zero, and NaN's."""
    alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
    word = f"u{a.itemsize}"
    equal = (a.view(word) == b.view(word)) | (np.isnan(a) & np.isnan(b)) | ((a == 0) & (b == 0))
    return alike and bool(np.all(equal))


def numbers(seed: int, shape: tuple[int, ...], dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-6, 7, (2, *shape))
    x, g = (rng.normal(size=(2, *shape)) * scale).astype(dtype)
    return x, g


# -- bits -----------------------------------------------------------------------

SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129, 136, 143, 255, 256, 257, 264, 1000]
SIZES += [1023, 1024, 1025, 1031, 2047, 2049, 4103, 100_003]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_each_length(name: str, dtype: str) -> None:
    """S134: where NumPy changes how it adds, or a loop its block, the bits are NumPy's."""
    for seed, size in enumerate(SIZES):
        x, g = numbers(seed, (size,), dtype)
        values = arguments(name, x, None, False)
        found = fold(name, dtype)(values, [polyop.from_numpy(g)])
        assert found is not None
        r, d = by_numpy(name, values, g)
        assert same(found[0].numpy(), r), (size, found[0], r)
        assert same(found[1][0].numpy(), d), (size, found[1], d)


@st.composite
def reductions(draw: Any) -> tuple[tuple[int, ...], list[int] | None]:
    """Give a shape, and axes of it in any order, from the front or from the back."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 9, 40]), min_size=0, max_size=4)))
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True)) if shape else []
    back = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    return shape, None if draw(st.booleans()) else back


@settings(max_examples=400, deadline=None)
@given(
    reductions(), st.sampled_from(NAMES), st.booleans(), st.sampled_from(["f8", "f4"]),
    st.integers(0, 1000),
)  # fmt: skip
def test_axes(case: Any, name: str, keepdims: bool, dtype: str, seed: int) -> None:
    """S134: along neighbouring axes bits, shapes and strides are NumPy's; else the loop refuses."""
    shape, axis = case
    x, g = numbers(seed, shape, dtype)
    values = arguments(name, x, axis, keepdims)
    found = fold(name, dtype)(values, [polyop.from_numpy(g)])
    gone = {a % len(shape) for a in axis or () if shape[a] != 1}
    apart = axis is not None and any(
        shape[a] != 1 for a in range(min(gone, default=0), max(gone, default=0)) if a not in gone
    )
    assert (found is None) == apart
    if found is not None:
        r, d = by_numpy(name, values, g)
        assert same(found[0].numpy(), r)
        assert same(found[1][0].numpy(), d)


@settings(max_examples=200, deadline=None)
@example([1.0] * 12, (12,), [-1], "max")
@example([1.0] * 12, (12,), [0], "min")
@given(
    st.lists(st.sampled_from([1.0, 2.0, -3.0, np.inf, -np.inf, 5e-324]), min_size=12, max_size=12),
    st.sampled_from([(12,), (3, 4), (4, 3), (2, 6)]), st.sampled_from([None, [0], [-1]]),
    st.sampled_from(["max", "min"]),
)  # fmt: skip
def test_ties(given_numbers: list[float], shape: Any, axis: Any, name: str) -> None:
    """S134: elements that tie share their tangents, to the bits of NumPy's sum, or NumPy adds."""
    x, g = np.array(given_numbers).reshape(shape), np.random.default_rng(0).normal(size=shape)
    values = arguments(name, x, axis, False)
    found = fold(name, "f8")(values, [polyop.from_numpy(g)])
    whole = axis is None or x.ndim == 1
    rows = x.reshape(1, -1) if whole else x if axis == [-1] else x.T
    ties = max(int(np.sum(row == getattr(np, name)(row))) for row in rows)
    if whole or axis != [0]:
        assert (found is None) == (ties > 7)
    if found is not None:
        r, d = by_numpy(name, values, g)
        assert same(found[0].numpy(), r)
        assert same(found[1][0].numpy(), d)


@pytest.mark.parametrize("odd", [np.nan, 0.0, -0.0])
@pytest.mark.parametrize("axis", [None, [0], [1]])
@pytest.mark.parametrize("name", ["max", "min"])
def test_what_depends_on_numpys_order(name: str, axis: Any, odd: float) -> None:
    """S134: NaN anywhere, and a zero that wins, whose sign NumPy's order decides, are NumPy's."""
    sign = 1 if name == "min" else -1
    x = sign * np.arange(1.0, 3001.0).reshape(3, 1000)
    found = fold(name, "f8")(arguments(name, x, axis, False), [polyop.from_numpy(x)])
    assert found is not None
    x[1, 517] = odd
    assert fold(name, "f8")(arguments(name, x, axis, False), [polyop.from_numpy(x)]) is None
    x[1, 517] = 1.0
    again = fold(name, "f8")(arguments(name, x, axis, False), [polyop.from_numpy(x)])
    assert again is not None  # what was refused leaves nothing behind


# -- what loops are not for ------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_other_arrays_are_refused(name: str) -> None:
    """S134: gaps, another dtype or byte order, no elements, and a dtype of sums are NumPy's."""
    x = np.arange(1.0, 1601.0).reshape(40, 40)
    loop, t = fold(name, "f8"), polyop.from_numpy(np.ones((40, 40)))
    tensor = polyop.from_numpy
    for odd in (x[:, ::2], x.T[::2], np.asfortranarray(x), x.astype("f4"), x.astype(">f8")):
        assert loop(arguments(name, odd, None, False), [tensor(np.ones_like(odd))]) is None
        assert (
            loop(arguments(name, np.array(odd, "f8", order="C"), None, False), [tensor(odd)])
            is None
        )
    empty = np.ones((0, 3))
    assert loop(arguments(name, empty, [1], False), [tensor(empty)]) is None
    if name == "sum":
        values = [tensor(x), None, np.dtype("f4"), False]
        assert loop(values, [t]) is None
    assert loop(arguments(name, x, None, False), [t]) is not None


# -- in use -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def settled(monkeypatch: Any) -> Iterator[None]:
    """No work of other tests, and none for them; the switch is as it is for everybody."""
    monkeypatch.delenv(SWITCH, raising=False)
    assert BUILDER.wait(60)
    yield
    assert BUILDER.wait(60)


@pytest.fixture
def ran(monkeypatch: Any) -> list[str]:
    """The operators whose loops ran, and gave a result."""
    seen: list[str] = []
    first = PairedLoops.run

    def run(self: Any, *given: Any) -> Any:
        found = first(self, *given)
        if found is not None:
            seen.append(self.op.name())
        return found

    monkeypatch.setattr(PairedLoops, "run", run)
    return seen


def draw(*shape: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return polyop.from_numpy(rng.uniform(0.5, 1.5, shape or (LARGE + 3,)))


def warmed(fn: Any, *given: Any) -> None:
    """Call until loops are asked for, and wait for them."""
    for _ in range(PATIENT):
        jvp(fn, *given)
    assert BUILDER.wait(60)


@pytest.mark.parametrize("name", NAMES)
def test_calls_move_to_the_loop(name: str, ran: list[str]) -> None:
    """S134: large arrays move to the loop by themselves, and around it nothing changes."""
    op = getattr(polyop, name).op
    op.changed()
    x, t = draw(200, 200), draw(200, 200, seed=1)

    def f(x: Tensor) -> Tensor:
        return getattr(polyop, name)(x * x, axis=[-1])

    def all_of() -> list[Tensor]:
        return [
            *jvp(f, (x,), (t,)),
            jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t,))[1],
            *vmap(lambda x, t: jvp(f, (x,), (t,)))(x, t),
            grad(lambda x: polyop.sum(jvp(f, (x,), (t,))[1]))(x),
            jvp(grad(lambda x: polyop.sum(f(x))), (x,), (t,))[1],
        ]

    plain = all_of()
    warmed(f, (x,), (t,))
    ran.clear()
    for found, expected in zip(all_of(), plain, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert f"core::{name}" in ran


def test_warnings_are_numpys(ran: list[str]) -> None:
    """S134: an overflow that somebody wants to hear of is NumPy's warning, with its words."""
    polyop.sum.op.changed()
    x, t = draw(), draw(seed=1)
    warmed(polyop.sum, (x,), (t,))
    ran.clear()
    huge = polyop.from_numpy(np.full(LARGE, 1e308))
    with pytest.warns(RuntimeWarning, match="overflow encountered in reduce"):
        jvp(polyop.sum, (huge,), (huge,))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        jvp(polyop.sum, (huge,), (huge,))
    assert not ran
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(all="ignore"):
            assert np.isinf(jvp(polyop.sum, (huge,), (huge,))[0].numpy())
        jvp(polyop.sum, (x,), (t,))
    assert ran == ["core::sum"] * 2


def test_a_kernel_of_an_authors_own(ran: list[str]) -> None:
    """S134: a kernel put in the place of ours acts at once; a loop never speaks for it."""
    polyop.mean.op.changed()
    x, t = draw(), draw(seed=1)
    warmed(polyop.mean, (x,), (t,))
    lib = Library("core", "IMPL")

    def kernel(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return polyop.from_numpy(np.asarray(7.0))

    lib.impl("mean", kernel, "CPU")
    try:
        warmed(polyop.mean, (x,), (t,))
        ran.clear()
        assert jvp(polyop.mean, (x,), (t,))[0].item() == 7.0
        assert not ran
    finally:
        lib._destroy()
    warmed(polyop.mean, (x,), (t,))
    np.testing.assert_array_equal(jvp(polyop.mean, (x,), (t,))[0].numpy(), x.numpy().mean())
    assert ran == ["core::mean"]


# -- what looks alike -----------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_arrays_that_are_not_aligned(name: str, ran: list[str]) -> None:
    """S134: NumPy adds up what is not aligned in pieces, so its sums have other bits."""

    def f(x: Tensor) -> Any:
        return getattr(polyop, name)(x)

    getattr(polyop, name).op.changed()
    x, g = numbers(3, (5, 8000), "f8")
    shifted = [np.frombuffer(b"x" + a.tobytes(), "f8", offset=1).reshape(a.shape) for a in (x, g)]
    given = ([polyop.from_numpy(a)] for a in shifted)
    primals, tangents = map(tuple, given)
    plain = jvp(f, primals, tangents)
    warmed(f, (draw(),), (draw(),))
    ran.clear()
    for found, expected in zip(jvp(f, primals, tangents), plain, strict=True):
        assert found.numpy().tobytes() == expected.numpy().tobytes()
    assert not ran


def test_a_sum_of_its_own_dtype(ran: list[str]) -> None:
    """S134: the dtype that a sum is asked for is that of result and tangent, of doubles too."""
    polyop.sum.op.changed()
    x = polyop.from_numpy(draw().numpy().astype("f4"))

    def f(x: Tensor) -> Any:
        return polyop.sum(x, dtype=polyop.float64)

    plain = jvp(f, (x,), (x,))
    warmed(polyop.sum, (x,), (x,))
    ran.clear()
    for found, expected in zip(jvp(f, (x,), (x,)), plain, strict=True):
        assert found.dtype == expected.dtype == polyop.float64
        assert found.item() == expected.item()
    assert not ran


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [[0, 0], [2], [0, -2]])
def test_errors_are_the_kernels(name: str, axis: list[int]) -> None:
    """S134: axes that do not fit are refused in the same words before there is a loop and after."""

    def said() -> str:
        with pytest.raises(PolyopError) as caught:
            jvp(lambda x: getattr(polyop, name)(x, axis=axis), (x,), (x,))
        return str(caught.value)

    getattr(polyop, name).op.changed()
    x = draw(200, 200)
    plain = said()
    warmed(getattr(polyop, name), (x,), (x,))
    assert said() == plain


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [None, [], [0], [1]])
def test_tangents_that_are_minus_zero(name: str, axis: Any) -> None:
    """S134: the sign of a zero that a tangent is given as is what it was without a loop."""

    def f(x: Tensor) -> Any:
        return getattr(polyop, name)(x, axis=axis)

    getattr(polyop, name).op.changed()
    x, t = draw(200, 200), polyop.from_numpy(np.full((200, 200), -0.0))
    plain = jvp(f, (x,), (t,))[1].numpy()
    warmed(f, (x,), (x,))
    assert jvp(f, (x,), (t,))[1].numpy().tobytes() == plain.tobytes()

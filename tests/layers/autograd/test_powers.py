"""Forward mode of `prod` and `pow`: quotients where results are normal, and texts elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from functools import cache
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.compile.fused import library
from polyop.compile.fused.powers import make_power
from polyop.dispatch.bind import dispatch
from polyop.func import grad, jvp, linearize, vjp, vmap
from polyop.layers.autograd import powers
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.paired import LARGE, PATIENT, Loop
from polyop.layers.autograd.tangents import tangent_rule

EDGES = st.sampled_from([0.0, -0.0, 1.0, -2.0, 0.5, 3.0, 1e-200, 1e200, 5e-324, np.inf, np.nan])
NUMBERS = st.one_of(EDGES, st.floats(0.1, 3.0))


def both(name: str, values: list[Any], tangents: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Give the result, the tangent at once, and that of the text by operators."""
    op = getattr(polyop, name).op
    rule = tangent_rule(op)
    with np.errstate(all="ignore"):
        out, (d,) = rule.at_once(lambda *a: dispatch(op, a), values, tangents)
        r, (e,) = rule(values, tangents)
    np.testing.assert_array_equal(out.numpy(), r.numpy())
    assert (d.shape, d.dtype) == (e.shape, e.dtype)
    return out, d, e


def agree(d: Tensor, e: Tensor, exact: Callable[[int], list[Decimal]]) -> None:
    """Hold a tangent to the text's, or, where that loses digits on its way, to the exact one.

    `exact` gives the terms of an element's tangent, whose arguments are finite.
    """
    for i, (found, text) in enumerate(zip(d.numpy().flat, e.numpy().flat, strict=True)):
        if found == text or np.isclose(found, text, rtol=1e-12, atol=0.0, equal_nan=True):
            continue
        with localcontext(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN):
            terms = exact(i)
            off = abs(Decimal(float(found)) - sum(terms, Decimal(0)))
            bound = sum(map(abs, terms), Decimal(0)) * Decimal("1e-12") + Decimal("5e-324")
            assert off <= bound, (found, text, terms)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(NUMBERS, min_size=6, max_size=6), st.sampled_from([None, [0], [1], [0, 1], [-1]]),
    st.booleans(),
)  # fmt: skip
def test_products(numbers: list[float], axis: Any, keepdims: bool) -> None:
    """S134: zeros, numbers near the ends and NaN have the tangent of the text."""
    x = polyop.from_numpy(np.array(numbers).reshape(2, 3))
    g = polyop.from_numpy(np.arange(1.0, 7.0).reshape(2, 3))
    rows = np.arange(6).reshape(1, 6) if axis in (None, [0, 1]) else np.arange(6).reshape(2, 3)
    rows = rows.T if axis == [0] else rows

    def exact(i: int) -> list[Decimal]:
        row = [int(j) for j in rows[i]]
        factors = [[Decimal(numbers[k]) for k in row if k != j] for j in row]
        return [prod(f) * (j + 1) for f, j in zip(factors, row, strict=True)]

    agree(*both("prod", [x, axis, None, keepdims], [g, None, None, None])[1:], exact)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(NUMBERS, min_size=4, max_size=4), st.lists(NUMBERS, min_size=4, max_size=4),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)  # fmt: skip
def test_powers(bases: list[float], exponents: list[float], moves: tuple[bool, bool]) -> None:
    """S134: zeros below or above, negative bases and results out of range are the text's."""
    values = [polyop.from_numpy(np.array(x)) for x in (bases, exponents)]
    given = [1.0, -2.0, 0.5, 3.0]
    slopes = [polyop.from_numpy(np.array(given)) if m else None for m in moves]

    def exact(i: int) -> list[Decimal]:
        a, b, g = (Decimal(v[i]) for v in (bases, exponents, given))
        terms = [lambda: b * a ** (b - 1) * g, lambda: a**b * a.ln() * g]
        return [term() for term, moved in zip(terms, moves, strict=True) if moved]

    agree(*both("pow", values, slopes)[1:], exact)


@cache
def tail(which: int, dtype: str) -> Loop:
    """Compile a loop once."""
    return make_power(which, np.dtype(dtype))


def passes(values: list[Any], r: Any, slopes: list[Any]) -> Any:
    """Give what NumPy's passes give, or None where they leave it to the text."""
    rule = tangent_rule(polyop.pow.op)
    return powers._ByQuotients._tried(rule, values, r, slopes)  # type: ignore[arg-type]


def hold_tail(dtype: str, moves: int, arrays: list[Any]) -> bool:
    """Hold a loop to NumPy's passes, to the last bit, and tell whether it served."""
    a, b, g, h = arrays
    with np.errstate(all="ignore"):
        r = np.power(a, b)
        slopes = [g if moves & 1 else None, h if moves & 2 else None]
        found, expected = tail(moves, dtype)([a, b, r], slopes), passes([a, b], r, slopes)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found[0] is r
        np.testing.assert_array_equal(
            found[1][0].view(f"u{dtype[1]}"), expected.view(f"u{dtype[1]}")
        )
    return found is not None


needs_compiler = pytest.mark.skipif(library.compiler() is None, reason="there is no C compiler")
NORMAL = st.one_of(st.floats(0.1, 3.0), st.sampled_from([1.0, 0.5, 1e-30, 1e30]))


@needs_compiler
@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.lists(NORMAL, min_size=5, max_size=5), min_size=4, max_size=4),
    st.tuples(st.integers(0, 19), st.one_of(NUMBERS, st.just(-1.0), st.just(1e-310))),
    st.sampled_from(["f8", "f4"]), st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_tails(rows: Any, odd: tuple[int, float], dtype: str, moves: int) -> None:
    """S134: a loop's tangents have the bits of NumPy's passes, and it refuses where those do."""
    numbers = np.array(rows)
    numbers.flat[odd[0]] = odd[1]
    with np.errstate(all="ignore"):
        hold_tail(dtype, moves, list(numbers.astype(dtype)))


@needs_compiler
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("moves", [1, 2, 3])
def test_tails_of_each_length(moves: int, dtype: str) -> None:
    """S134: wherever a block ends, each number is computed, and each is looked at."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 31, 127, 128, 129, 255, 256, 257, 1000, 4097):
        arrays = [rng.uniform(0.1, 3.0, size).astype(dtype) for _ in range(4)]
        for _ in range(2):  # there and back
            assert hold_tail(dtype, moves, arrays)
        for place in {0, size // 2, size - 1}:
            odd = [x.copy() for x in arrays]
            odd[0][place] = 0.0
            assert not hold_tail(dtype, moves, odd)
        assert hold_tail(dtype, moves, arrays)  # what was refused leaves nothing behind


@needs_compiler
def test_tails_are_for_arrays_that_are_alike() -> None:
    """S134: repeated rows, other dtypes, gaps and Fortran order are left to NumPy."""
    a, g = np.full((4, 6), 1.5), np.full((4, 6), 2.0)
    loop = tail(3, "f8")
    assert loop([a, a, a**a], [g, g]) is not None
    for odd in (a[0], a.astype("f4"), a.astype(">f8"), np.asfortranarray(a), a[:, ::2], a[:2]):
        assert loop([odd, a, a**a], [g, g]) is None
        assert loop([a, odd, a**a], [g, g]) is None
        assert loop([a, a, a**a], [odd, g]) is None
        assert loop([a, a, a**a], [g, odd]) is None


@needs_compiler
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("moves", [(0,), (1,), (0, 1)])
def test_tails_in_use(moves: tuple[int, ...], dtype: str, monkeypatch: Any) -> None:
    """S134: large arrays come to the loop by themselves, and to the text where it refuses."""
    rng = np.random.default_rng(0)
    given = [polyop.from_numpy(rng.uniform(0.5, 2.0, LARGE).astype(dtype)) for _ in range(4)]

    def slope() -> Any:
        def moved(*some: Tensor) -> Tensor:
            both = [*given[:2]]
            for i, x in zip(moves, some, strict=True):
                both[i] = x
            return polyop.pow(*both)

        return jvp(moved, tuple(given[i] for i in moves), tuple(given[2 + i] for i in moves))[1]

    plain = slope().numpy()
    for _ in range(PATIENT):
        slope()
    assert BUILDER.wait(60)
    with monkeypatch.context() as patched:
        patched.delattr(powers._ByQuotients, "_tried")  # NumPy's passes are not asked
        np.testing.assert_array_equal(slope().numpy(), plain)
    zero = given[0].numpy().copy()
    zero[LARGE // 2] = 0.0
    given[0] = polyop.from_numpy(zero)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = slope().numpy()
        np.testing.assert_allclose(
            np.delete(d, LARGE // 2), np.delete(plain, LARGE // 2), rtol=1e-5, atol=1e-5
        )


def test_both_ways_are_taken(monkeypatch: Any) -> None:
    """S134: the quotients serve normal results, the texts all others."""
    seen = []
    for kind in (powers.ProductTangents, powers.PowerTangents):

        def quotients(self: Any, *given: Any, first: Any = kind.quotients) -> Any:
            seen.append(first(self, *given) is not None)
            return first(self, *given)

        monkeypatch.setattr(kind, "quotients", quotients)
    x, zero = (polyop.from_numpy(np.array(v)) for v in ([0.5, 2.0], [0.5, 0.0]))
    for base in (x, zero):
        jvp(polyop.prod, (base,), (x,))
        jvp(polyop.pow, (base, x), (x, x))
    assert seen == [True, True, False, False]
    narrow = polyop.from_numpy(np.array([0.5, 2.0], "f4"))
    jvp(polyop.pow, (x, narrow), (x, narrow))  # two dtypes
    assert len(seen) == 4


@pytest.mark.parametrize("exponent", [2, 2.0, 1, 3, 0, -1, 0.5, 2 + 0j])
@pytest.mark.parametrize("dtype", ["f8", "f4", "c16"])
def test_squares_and_others(exponent: Any, dtype: str) -> None:
    """S134: a square has a text of its own, with the same derivative in each mode and order."""
    x = polyop.from_numpy(np.array([0.5, -1.5, 2.0], dtype))
    t = polyop.from_numpy(np.array([1.0, 2.0, -1.0], dtype))
    if dtype != "c16" and exponent == 0.5:
        x = abs(x)

    def f(x: Tensor) -> Tensor:
        return x**exponent

    expected = exponent * x.numpy() ** (exponent - 1) * t.numpy()
    out, slope = jvp(f, (x,), (t,))
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-6)
    assert slope.dtype == out.dtype
    np.testing.assert_allclose(
        vmap(lambda x, t: jvp(f, (x,), (t,))[1])(x, t).numpy(), expected, rtol=1e-6
    )
    if dtype == "f8" and not isinstance(exponent, complex):
        gradient = grad(lambda x: polyop.sum(f(x) * t))(x)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12)
        second = jvp(grad(lambda x: polyop.sum(f(x))), (x,), (t,))[1]
        curved = exponent * (exponent - 1) * x.numpy() ** (exponent - 2) * t.numpy()
        np.testing.assert_allclose(second.numpy(), curved, rtol=1e-12)


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=3), st.sampled_from([0.5, 2.5, -1.5, 1 / 3]))
def test_broken_exponents(bases: list[float], exponent: float) -> None:
    """S134: exponents that are not whole use the result, where that is normal."""
    x, g = polyop.from_numpy(np.array(bases)), polyop.from_numpy(np.array([1.0, -2.0, 0.5]))
    op = polyop.ops.core.pow.Scalar
    with np.errstate(all="ignore"):
        out, (d,) = tangent_rule(op).at_once(lambda *a: dispatch(op, a), [x, exponent], [g, None])
        r, (e,) = tangent_rule(op)([x, exponent], [g, None])
    np.testing.assert_array_equal(out.numpy(), r.numpy())

    def exact(i: int) -> list[Decimal]:
        a, b = Decimal(bases[i]), Decimal(exponent)
        return [b * a ** (b - 1) * Decimal([1.0, -2.0, 0.5][i])]

    agree(d, e, exact)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_squares_of_large_arrays(dtype: str) -> None:
    """S134: a loop gives the squares of NumPy's power, at the edges of numbers too."""
    rng, count = np.random.default_rng(0), LARGE
    bits = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), count, dtype=f"u{dtype[1]}")
    x, t = polyop.from_numpy(bits.view(dtype)), polyop.from_numpy(np.ones(count, dtype))
    with np.errstate(all="ignore"):
        plain = jvp(lambda x: x**2, (x,), (t,))
        for _ in range(PATIENT):
            jvp(lambda x: x**2, (x,), (t,))
        assert BUILDER.wait(60)
        found = jvp(lambda x: x**2, (x,), (t,))
        np.testing.assert_array_equal(found[0].numpy(), np.power(x.numpy(), 2))
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_signs_are_flat() -> None:
    """S134: the sign of a real number has no slope; that of a complex one turns."""
    out, slope = jvp(polyop.sign, (polyop.from_numpy(np.array([-2.0, 0.0, np.nan])),) * 1, (
        polyop.from_numpy(np.array([1.0, np.inf, 1.0])),
    ))  # fmt: skip
    np.testing.assert_array_equal(out.numpy(), [-1.0, 0.0, np.nan])
    np.testing.assert_array_equal(slope.numpy(), np.zeros(3))
    z, t = (polyop.from_numpy(np.array([v])) for v in (3.0 + 4.0j, 1.0j))
    expected = (np.sign(z.numpy() + 1e-6 * t.numpy()) - np.sign(z.numpy())) / 1e-6
    np.testing.assert_allclose(jvp(polyop.sign, (z,), (t,))[1].numpy(), expected, rtol=1e-5)


def test_repeated_arrays() -> None:
    """S134: sizes of one in bases and exponents are repeated, in tangents too."""
    a, b = (polyop.from_numpy(np.linspace(0.5, 2.0, n)) for n in (3, 4))
    column = polyop.reshape(a, (3, 1))
    out, slope = jvp(lambda b: column**b, (b,), (b,))
    assert out.shape == slope.shape == (3, 4)
    expected = out.numpy() * np.log(column.numpy()) * b.numpy()
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "great", "small"), [("f8", 1e150, 1e-200), ("f4", 1e15, 1e-25), ("f2", 100, 1e-4)]
)
def test_quotients_below_normal_numbers(dtype: str, great: float, small: float) -> None:
    """S134: where a quotient would lose digits, though the tangent is normal, the text goes on."""
    x, g = (polyop.from_numpy(np.array(v, dtype)) for v in ([great, 2 * great], [small, 0]))
    two = polyop.from_numpy(np.array([2, 2], dtype))
    rtol = 4 * float(np.finfo(dtype).eps)
    expected = 2.0 * x.numpy()[0].astype("f8") * g.numpy()[0].astype("f8")
    for fn in (polyop.prod, lambda a: polyop.pow(a, two)):
        with np.errstate(over="ignore"):
            slope = jvp(fn, (x,), (g,))[1].numpy()
        np.testing.assert_allclose(slope.ravel()[0], expected, rtol=rtol)


def test_products_without_axes() -> None:
    """S134: an array without axes has one axis to name, and a product of itself."""
    x, g = (polyop.from_numpy(np.array(v)) for v in (2.0, 3.0))
    for axis in (None, [], [0], [-1]):
        out, slope = jvp(lambda x, axis=axis: polyop.prod(x, axis=axis), (x,), (g,))
        assert (out.item(), slope.item()) == (2.0, 3.0)


def test_complex_products_run_once() -> None:
    """S134: a product of complex numbers is computed once, so that it warns once."""
    x = polyop.from_numpy(np.array([np.inf, 0.0]) + 0j)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        polyop.prod(x)
        alone = len(said)
        jvp(polyop.prod, (x,), (polyop.ones(2, dtype=x.dtype),))
    words = [str(w.message) for w in said]
    assert words.count("invalid value encountered in reduce") == 2 * alone == 2


def test_products_that_lose_digits_on_their_way() -> None:
    """S134: a normal product that was not normal on its way gives no quotients."""
    x, g = (polyop.from_numpy(np.array(v)) for v in ([1e-200, 1e-119, 1e300], [1.0, 0.0, 0.0]))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(jvp(polyop.prod, (x,), (g,))[1].numpy(), 1e181, rtol=1e-14)
    with np.errstate(under="raise"), pytest.raises(FloatingPointError, match="underflow"):
        jvp(polyop.prod, (x,), (g,))


# -- negative bases of complex exponents ------------------------------------------

BASES: dict[str, Any] = {
    "number": -2.0,
    "whole number": -2,
    "array": np.array([-2.0, 3.0, -0.5]),
    "whole array": np.array([-1, 2, -3]),
    "zero": np.array([0.0, -1.0, 2.0]),
}


@pytest.mark.parametrize("name", BASES)
def test_negative_bases_of_complex_exponents(name: str) -> None:
    """S134: where a power is complex, so is the logarithm of its negative base, as in PyTorch."""
    base = BASES[name]
    z, t = np.array([1 + 1j, 2.5 + 0j, 0.5 - 1j]), np.array([1 - 2j, 0.5j, 3 + 0j])
    ours = polyop.from_numpy(base) if isinstance(base, np.ndarray) else base
    theirs = torch.from_numpy(base) if isinstance(base, np.ndarray) else base
    x, y = polyop.from_numpy(z).requires_grad_(), torch.tensor(z, requires_grad=True)
    (found,) = polyop.autograd.grad(ours**x, x, grad_outputs=polyop.from_numpy(t))
    (expected,) = torch.autograd.grad(theirs**y, y, grad_outputs=torch.from_numpy(t))
    assert found is not None
    other = np.broadcast_to(base != 0, z.shape)  # zero stays zero, of which PyTorch says nan
    np.testing.assert_allclose(found.numpy()[other], expected.numpy()[other], rtol=1e-12)
    step = 1e-6
    slope = jvp(lambda x: ours**x, (polyop.from_numpy(z),), (polyop.from_numpy(t),))[1].numpy()
    exponent = np.asarray(base, complex)
    differences = (exponent ** (z + step * t) - exponent ** (z - step * t)) / (2 * step)
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
def test_powers_of_zero(dtype: str) -> None:
    """S134: all ways give `0 ** x` the same derivative, zero where `x` is positive."""
    x = polyop.from_numpy(np.array([1.0, 2.0], dtype))
    t = polyop.ones(2, dtype=x.dtype)
    for f in (lambda x: 0**x, lambda x: polyop.pow(0.0, x)):
        with np.errstate(all="ignore"):  # the logarithm of zero, which is left out
            found = [jvp(f, (x,), (t,))[1], linearize(f, x)[1](t), vjp(f, x)[1](t)[0]]
        assert [d.tolist() for d in found] == [[0.0, 0.0]] * 3

"""What operators give at their edges: zeros, infinities, NaN, sides that meet, numbers beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func, linalg
from polyop.autograd import grad
from polyop.fake import FakeTensorMode

NUMBERS = [None, True, 2, 0.5, 1j]
DTYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", "complex64"]


def slope(fn: Any, x: Any) -> Any:
    """Give the result of a function of one array, and its gradient."""
    leaf = polyop.from_numpy(np.asarray(x)).requires_grad_()
    out = fn(leaf)
    return out.numpy(force=True), grad(out, [leaf], polyop.ones_like(out))[0].numpy()


@pytest.mark.parametrize("order", [-1, -2, -0.5, -np.inf])
def test_a_norm_keeps_nan(order: float) -> None:
    """S206: a negative order gives zero for a zero, but NaN for a NaN, as NumPy's does."""
    rows = np.array([[0, np.nan, 1], [0, 1, 2], [1, 2, 4]])
    with np.errstate(divide="ignore"):
        wanted = [np.linalg.norm(row, ord=order) for row in rows]
    found = linalg.vector_norm(polyop.from_numpy(rows), ord=order, axis=1)
    np.testing.assert_allclose(found.numpy(), wanted)


def clipped(side: Any) -> Any:
    return polyop.clip(polyop.asarray([-1.0, 1.0, 3.0]), side, side).sum()


def test_sides_that_meet_have_the_whole_derivative() -> None:
    """S133: what is clipped to one value moves with it, in both modes."""
    at = polyop.asarray(1.0)
    assert func.grad(clipped)(at).item() == 3
    assert func.jvp(clipped, (at,), (polyop.ones(()),))[1].item() == 3
    x = polyop.asarray([-1.0, 1.0, 3.0])
    parts = func.grad(lambda *given: polyop.clip(*given).sum(), argnums=(0, 1, 2))(x, at, at)
    assert parts[0].tolist() == [0, 0, 0]
    assert parts[1].item() + parts[2].item() == 3


@pytest.mark.parametrize("library", ["torch", "jax", "array_api_strict"])
@pytest.mark.parametrize("part", ["inside", "below", "above"])
def test_other_libraries_say_the_same_of_sides(library: str, part: str) -> None:
    """S66: which part an element is in does not depend on the library."""
    xp = pytest.importorskip("jax.numpy" if library == "jax" else library)
    x, sides = np.array([-1.0, 0, 1, 2, 3]), [(0, 2), (1, 1), (2, 0), (1, 3)]
    for low, high in sides:
        low, high = np.full(5, float(low)), np.full(5, float(high))
        given = [polyop.from_array(xp.asarray(a)) for a in (x, low, high)]
        wanted = polyop.ops.core.clip_part(*map(polyop.from_numpy, (x, low, high)), part)
        assert polyop.ops.core.clip_part(*given, part).tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sides_and_elements_meet_in_one_dtype(dtype: str) -> None:
    """S145: it is NumPy's, whichever side is a number, and fakes know it."""
    x = np.array([0, 1, 3]).astype(dtype)
    sides = [*NUMBERS, *[np.array([1, 0, 2]).astype(d) for d in DTYPES]]
    for low in sides:
        for high in sides:
            if low is None and high is None:
                continue
            a, b = (polyop.from_numpy(s) if isinstance(s, np.ndarray) else s for s in (low, high))
            found = polyop.clip(polyop.from_numpy(x), a, b)
            wanted = np.clip(x, low, high)
            assert found.dtype == wanted.dtype, (low, high)
            np.testing.assert_array_equal(found.numpy(), wanted)
            with FakeTensorMode() as mode:
                fakes = [mode.from_tensor(t) if isinstance(t, polyop.Tensor) else t for t in (a, b)]
                fake = polyop.clip(mode.from_tensor(polyop.from_numpy(x)), *fakes)
            assert fake.dtype == found.dtype, (low, high)


def test_sides_beyond_the_dtype_they_meet_in() -> None:
    """S145: limits that no element can be beyond change nothing but the dtype, if there is one."""
    with pytest.raises(OverflowError):
        polyop.clip(polyop.asarray([True, False]), None, 2**64 - 1)
    small = polyop.asarray([1, -2], dtype=polyop.int8)
    assert polyop.clip(small, 1000, 1500.5).tolist() == [1000.0, 1000.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_angle_of_real_numbers_is_constant(dtype: Any) -> None:
    """S134: its gradient is zero, however small or large they are."""
    x = np.array([1e-30, -1e30, 0, -0.0, np.inf, -np.inf, np.nan, 1e-300, -1e300], np.float64)
    with np.errstate(all="ignore"):
        found = slope(polyop.angle, x.astype(dtype))[1]
    np.testing.assert_array_equal(found, np.zeros(9))


def test_the_angle_of_complex_numbers() -> None:
    """S134: its gradient is PyTorch's, and right where squares would overflow."""
    x = np.array([1 + 2j, -3j, 0, -1, 1e-5 + 1j])
    leaf = torch.tensor(x, requires_grad=True)
    torch.angle(leaf).sum().backward()
    np.testing.assert_allclose(slope(polyop.angle, x)[1], leaf.grad.resolve_conj(), rtol=1e-12)
    large = slope(polyop.angle, np.complex64([1e30 + 1e30j]))[1]
    np.testing.assert_allclose(large, [-5e-31 + 5e-31j], rtol=1e-6)


@pytest.mark.parametrize("base", [0, 0.0, 0j, np.zeros(1, complex)], ids=repr)
def test_powers_of_zero(base: Any) -> None:
    """S134: a complex exponent of zero has the gradient zero, and none where there is no power."""
    base = polyop.from_numpy(base) if isinstance(base, np.ndarray) else base
    with np.errstate(all="ignore"):
        for exponent in (1, 1 + 1j, 0, 2.5 - 3j):
            assert slope(lambda x: base**x, np.array([exponent], complex))[1] == 0
        for exponent in (3j, -2j, -1, -1 + 1j):
            assert np.isnan(slope(lambda x: base**x, np.array([exponent], complex))[1]).all()


@pytest.mark.parametrize("other", ["constant", "leaf", "itself", "view"])
def test_a_product_written_in_place_has_its_gradient(other: str) -> None:
    """S135: `z @= y` has the gradient of `z @ y`, where `y` shares its memory too."""

    def product(*, write: bool) -> list[Any]:
        x = polyop.asarray([[1.0, 2.0], [3.0, -1.0]]).requires_grad_()
        y = polyop.asarray([[0.5, 1.0], [2.0, -3.0]]).requires_grad_(other == "leaf")
        z = x * 1.5
        right = {"itself": z, "view": z.mT}.get(other, y)
        if write:
            z @= right
        else:
            z = z @ right
        return [g.tolist() for g in grad((z * z).sum(), [x, y] if other == "leaf" else [x])]

    assert product(write=True) == product(write=False)


@pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev])
@pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev])
def test_powers_change_with_an_exponent_of_zero(inner: Any, outer: Any) -> None:
    """S133: `x ** 0` is flat in `x`, but its slope grows with the exponent: by `1 / x`."""
    second = outer(inner(lambda v: polyop.pow(v[0], v[1])))
    for x in (2.0, 0.5, 1e200):
        mixed, log = 1 / x, np.log(x)
        found = second(polyop.asarray(np.array([x, 0.0])))
        np.testing.assert_allclose(found.numpy(), [[0, mixed], [mixed, log**2]], rtol=1e-12)
    with np.errstate(all="ignore"):
        found = second(polyop.asarray(np.zeros(2))).numpy()
    assert not np.isfinite([found[0, 1], found[1, 0]]).any()  # it has no bound at zero


def test_flat_powers_stay_flat() -> None:
    """S134: the gradient of `x ** 0` by `x` is zero, whatever `x` is, recorded or not."""
    x = np.array([np.nan, np.inf, 0, -0.0, -2, 1e-45, 1e-310])
    for array in (x, x.astype(np.float32), np.float16([1e-5, -6e-8]), x[:-1] + 0j):
        leaf, none = polyop.from_numpy(array).requires_grad_(), polyop.zeros_like(array)
        for recorded in (False, True):
            (found,) = grad(polyop.real(leaf**none).sum(), [leaf], create_graph=recorded)
            assert not found.numpy(force=True).any()
    exponents = polyop.asarray(np.arange(4.0))
    second = func.hessian(lambda x: (x**exponents).sum())(polyop.asarray(0.0, dtype=polyop.float64))
    assert second.item() == 2


def test_complex_powers_change_with_an_exponent_of_zero() -> None:
    """S139: complex ones as well."""
    pair = [polyop.asarray(np.array(x)).requires_grad_() for x in ([2 + 1j, 3 - 0.5j], [0j, 0j])]
    assert polyop.autograd.gradcheck(polyop.pow, pair)
    assert polyop.autograd.gradgradcheck(polyop.pow, pair)


#: Functions whose gradient at a point is zero by agreement, and a place with a second derivative.
KINKS: dict[str, tuple[Any, Any, Any]] = {
    "atan2": (lambda v: polyop.atan2(v[0], v[1]), [0.0, 0.0], [0.0, -2.0]),
    "norm": (linalg.vector_norm, [0.0, 0.0], [0.0, 2.0]),
    "square of the norm": (lambda v: linalg.vector_norm(v) ** 2, [0.0, 0.0], [1.0, 2.0]),
    "matrix": (lambda v: linalg.matrix_norm(v[None]) ** 2, [0.0, 0.0], [0.0, 2.0]),
    "std": (lambda v: polyop.std(v) ** 2, [3.0, 3.0], [1.0, 2.0]),
}


@pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev])
@pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev])
@pytest.mark.parametrize("name", KINKS)
def test_a_gradient_by_agreement_has_no_slope(name: str, inner: Any, outer: Any) -> None:
    """S133: where a gradient is zero by agreement, its own gradient is none, not zero again."""
    fn, kink, smooth = KINKS[name]
    at, beside = (polyop.asarray(np.array(x)) for x in (kink, smooth))
    assert inner(fn)(at).tolist() == [0, 0]
    with np.errstate(all="ignore"):
        assert not np.isfinite(outer(inner(fn))(at).numpy()).any()
    steps = 1e-6 * np.eye(2)
    wanted = [(inner(fn)(beside + s) - inner(fn)(beside - s)).numpy() / 2e-6 for s in steps]
    np.testing.assert_allclose(outer(inner(fn))(beside).numpy(), wanted, atol=1e-8)


@pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev])
@pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev])
def test_one_element_never_deviates(inner: Any, outer: Any) -> None:
    """S134: the deviation of one element is zero, and so are its derivatives."""
    second = outer(inner(lambda x: polyop.std(x, axis=1, correction=0.5).sum()))
    assert not second(polyop.asarray([[3.0], [4.0]])).numpy().any()
    second = outer(inner(lambda x: polyop.std(x, correction=0.5)))
    with np.errstate(all="ignore"):
        assert np.isnan(second(polyop.asarray([3.0, 3.0])).numpy()).all()


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("x", [[3.0], [3.0, 4.0], [3.0, 3.0]])
def test_more_is_corrected_than_there_is(name: str, x: list[float]) -> None:
    """S134: below zero degrees of freedom gradients are PyTorch's, as the values are."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    wanted = getattr(torch, name)(leaf, dim=0, correction=4)
    wanted.backward()
    with np.errstate(all="ignore"):
        value, found = slope(lambda x: getattr(polyop, name)(x, correction=4.0), x)
    np.testing.assert_array_equal(value, wanted.detach().numpy())
    np.testing.assert_array_equal(found, leaf.grad)


def test_a_power_of_zero_is_a_function_of_its_matrix() -> None:
    """S134: `matrix_power(x, 0)` takes part in gradients, with zeros, as PyTorch's does."""
    x = np.array([[[1, 2], [np.nan, 3]], [[0, 0], [0, 0]]])
    value, found = slope(lambda x: linalg.matrix_power(x, 0), x)
    np.testing.assert_array_equal(value, [np.eye(2), np.eye(2)])
    assert not found.any()

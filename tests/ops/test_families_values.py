"""Reductions, products, searches, linear algebra: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.ops.cases import CASES, SMOOTH, Case, arrays_in

import polyop
import polyop.assembly  # noqa: F401
from polyop.errors import ArgumentError
from polyop.ops import linalg, linear, reductions, searching, sets, statistics
from polyop.ops.axes import call
from polyop.ops.define import ON_ARRAYS
from polyop.tensor.tensor import Tensor, of_array

ORACLES = [c for c in CASES if c.oracle is not None]
NO_COMPLEX = {
    *("max", "min", "sort", "topk", "argmax", "argmin", "argsort", "searchsorted", "logsumexp"),
    *("softmax", "log_softmax", "peaks", "prod_pairs", "running_prod_grad", "fft_r2c"),
}


def run(case: Case, values: list[Any]) -> Any:
    """Call the operator on tensors, and give arrays."""
    given = [of_array(v) if isinstance(v, np.ndarray) else v for v in values]
    found = call(case.name, *given)
    return tuple(t.payload for t in found) if isinstance(found, tuple) else found.payload


def grads(case: Case, values: list[Any], g: Any, r: Any) -> dict[int, Any]:
    """Evaluate the gradients' texts on arrays."""
    arguments = case.op._schema.arguments
    names = {a.name: v for a, v in zip(arguments, values, strict=True)}
    several = {f"r{i}": x for i, x in enumerate(r)} if isinstance(r, tuple) else {"r": r}
    scope = {**ON_ARRAYS, **several, "g": g, "g0": g, **names}
    texts = case.op.rule("formula").text
    return {
        i: np.asarray(eval(texts[a.name], scope))
        for i, a in enumerate(arguments)
        if a.name in texts and isinstance(names[a.name], np.ndarray)
    }


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("case", ORACLES, ids=str)
def test_values_and_gradients_are_pytorchs(case: Case, dtype: str) -> None:
    """Each operator gives PyTorch's values, and its text PyTorch's gradients."""
    if dtype.startswith("complex") and case.name in NO_COMPLEX:
        pytest.skip("complex numbers have no order, or PyTorch has no such function of them")
    if dtype.startswith("complex") and case.name == "cholesky_lower":
        # The law of differences covers it; PyTorch lets the gradient of the imaginary part
        # of the diagonal, which is zero by definition, through.
        pytest.skip("PyTorch's gradient is not Hermitian")
    values = case.values(dtype=dtype)
    at = arrays_in(values, case)
    leaves = [torch.tensor(values[i], requires_grad=True) for i in at]
    wanted = case.oracle(*leaves)  # type: ignore[misc]
    found = run(case, values)
    tol = {"rtol": 2e-4, "atol": 2e-4} if dtype == "float32" else {"rtol": 1e-8, "atol": 1e-10}
    firsts = [(wanted, found)]
    if isinstance(wanted, tuple):
        firsts = list(zip(wanted, found, strict=True))
    for w, f in firsts:
        assert f.shape == tuple(w.shape)
        np.testing.assert_allclose(f, w.numpy(force=True), **tol)
    w, f = firsts[0]
    if not case.op.rule("formula") or not w.requires_grad:
        return
    assert f.dtype == w.detach().numpy().dtype
    g = Case("sum", (f.shape, None, None, False)).values(5, str(f.dtype))[0]
    wanted_grads = torch.autograd.grad(w, leaves, torch.tensor(g))
    found_grads = grads(case, values, g, found)
    for i, expected in zip(at, wanted_grads, strict=True):
        assert found_grads[i].dtype == values[i].dtype
        np.testing.assert_allclose(found_grads[i], expected.resolve_conj().numpy(), **tol)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_are_those_of_differences(case: Case, dtype: str) -> None:
    """Each text, those of gradients' own operators included, agrees with finite differences."""
    if dtype.startswith("complex") and case.name in {*NO_COMPLEX, "deviation"}:
        pytest.skip("not for complex numbers")
    values = case.values(1, dtype)
    r = run(case, values)
    g = Case("sum", (r.shape, None, None, False)).values(2, str(r.dtype))[0]
    step, found = 1e-6, grads(case, values, g, r)
    assert found
    for i, grad in found.items():
        if case.name == "cholesky_lower":
            # Only along symmetric directions is the result still a factor.
            d = case.make(Case("sum", (values[i].shape, None, None, False)).values(3, dtype)[0])  # type: ignore[misc]
        else:
            d = Case("sum", (values[i].shape, None, None, False)).values(3, dtype)[0]
        ends = []
        for sign in (step, -step):
            moved = list(values)
            moved[i] = np.asarray(values[i] + sign * d)
            ends.append(run(case, moved))
        wanted = np.vdot(g, (ends[0] - ends[1]) / (2 * step)).real
        assert grad.shape == values[i].shape
        np.testing.assert_allclose(np.vdot(grad, d).real, wanted, rtol=2e-5, atol=2e-6)


def test_ties_share_the_gradient() -> None:
    """Elements that tie for the greatest share its gradient, as in `torch.amax`."""
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    case = Case("max", (x, [1], False))
    found = grads(case, [x, [1], False], np.array([6.0, 6.0]), x.max(1))
    np.testing.assert_array_equal(found[0], [[0, 3, 3], [2, 2, 2]])


def test_the_determinant_of_a_singular_matrix_has_a_gradient() -> None:
    """The gradient of `det` needs no inverse."""
    x = np.array([[1.0, 2.0], [2.0, 4.0]])
    found = grads(Case("det", (x,)), [x], np.array(1.0), np.array(0.0))
    np.testing.assert_allclose(found[0], [[4, -2], [-2, 1]], atol=1e-12)


def test_std_of_equal_elements_has_gradient_zero() -> None:
    """Where all elements are equal, `std` has the gradient zero, as in PyTorch."""
    x = np.ones((2, 3))
    found = grads(Case("std", (x, [1], 0.0, False)), [x, [1], 0.0, False], np.ones(2), np.zeros(2))
    np.testing.assert_array_equal(found[0], np.zeros((2, 3)))


def test_softmax_is_stable() -> None:
    """Large elements do not overflow, and minus infinity counts nothing."""
    x = of_array(np.array([1e4, 1e4, -np.inf]))
    np.testing.assert_allclose(statistics.softmax(x).payload, [0.5, 0.5, 0])
    np.testing.assert_allclose(statistics.logsumexp(x).payload, 1e4 + np.log(2))


def test_small_integers_are_summed_as_int64() -> None:
    """Sums and products of small integers and booleans do not wrap around."""
    for dtype in ("int8", "int32", "bool"):
        x = of_array(np.ones(300, dtype))
        assert reductions.sum(x).payload == 300
        assert reductions.sum(x).dtype == reductions.prod(x).dtype == np.int64
    assert reductions.sum(x, dtype="float32").dtype == np.float32


def test_half_precision_is_averaged_in_float32() -> None:
    """The mean of many half-precision numbers does not overflow."""
    x = of_array(np.full(4000, 60.0, np.float16))
    assert statistics.mean(x).payload == 60
    assert statistics.mean(x).dtype == np.float16


@pytest.mark.parametrize("axes", [0, 1, 2, ([0, 2], [1, 0])])
def test_tensordot_is_numpys(axes: Any) -> None:
    """`tensordot` sums over the axes that meet."""
    a, b = np.arange(24.0).reshape(2, 3, 4), np.arange(24.0).reshape(4, 2, 3)
    if axes == 1:
        b = b.reshape(4, 6)
    if axes == 2:
        b = b.reshape(3, 4, 2)
    found = linear.tensordot(of_array(a), of_array(b), axes=axes).payload
    np.testing.assert_array_equal(found, np.tensordot(a, b, axes))


def test_compositions_are_numpys() -> None:
    """`outer`, `mv`, `dot`, `solve`, `cholesky` and `trace` give what NumPy gives."""
    rng = np.random.default_rng(0)
    a, v = rng.normal(size=(3, 3)), rng.normal(size=3)
    s, t = of_array(a), of_array(v)
    np.testing.assert_allclose(linear.outer(t, t).payload, np.outer(v, v))
    np.testing.assert_allclose(linear.mv(s, t).payload, a @ v)
    np.testing.assert_allclose(linear.dot(t, t).payload, v @ v)
    np.testing.assert_allclose(linalg.solve(s, t).payload, np.linalg.solve(a, v))
    np.testing.assert_allclose(linalg.trace(s, offset=1).payload, np.trace(a, 1))
    spd = a @ a.T + np.eye(3)
    upper = linalg.cholesky(of_array(spd), upper=True).payload
    np.testing.assert_allclose(upper, np.linalg.cholesky(spd, upper=True))


@pytest.mark.parametrize("ord", [0, 1, 2, 3, 0.5, np.inf, -np.inf])
def test_vector_norm_is_numpys(ord: float) -> None:
    """Every order of norm gives what NumPy gives."""
    x = np.array([[1.0, -2.0, 0.0], [3.0, 4.0, -5.0]])
    found = linalg.vector_norm(of_array(x), axis=1, ord=ord).payload
    np.testing.assert_allclose(found, np.linalg.vector_norm(x, axis=1, ord=ord))


def test_unique_elements_are_numpys() -> None:
    """The unique functions give what NumPy's functions of the same names give, field by field."""
    x = np.array([[3, 1, 3], [0, 1, 1]])
    for name in ("unique_all", "unique_counts", "unique_inverse"):
        found, wanted = getattr(sets, name)(of_array(x)), getattr(np, name)(x)
        assert found._fields == wanted._fields
        for f, w in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(f.payload, w)
    nans = of_array(np.array([np.nan, 1.0, np.nan]))
    assert sets.unique_values(nans).shape == (3,)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 2)])
def test_nonzero_is_numpys(shape: Any) -> None:
    """`argwhere` has a row for each element that is not zero, `nonzero` a tensor for each axis."""
    x = np.random.default_rng(0).integers(0, 2, shape)
    np.testing.assert_array_equal(sets.argwhere(of_array(x)).payload, np.argwhere(x))
    if not shape:
        with pytest.raises(ArgumentError, match="indices for each axis, and there is none"):
            sets.nonzero(of_array(x))
        return
    for f, w in zip(sets.nonzero(of_array(x)), np.nonzero(x), strict=True):
        np.testing.assert_array_equal(f.payload, w)


def test_numpys_arrays_are_answered_in_kind() -> None:
    """A NumPy array gets a NumPy array back."""
    found = reductions.sum(np.ones((2, 3)), axis=0)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, [2, 2, 2])


X = of_array(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: reductions.sum(X, axis=2), "axis 2 is out of range"),
        (lambda: reductions.sum(X, axis=[0, -2]), "do not name distinct axes"),
        (lambda: reductions.max(of_array(np.ones((0, 3))), axis=0), "cannot compute"),
        (lambda: reductions.argmax(X, axis=5), "axis 5 is out of range"),
        (lambda: reductions.argmax(of_array(np.ones(0))), "cannot compute"),
        (lambda: statistics.softmax(X, 2), "axis 2 is out of range"),
        (lambda: statistics.cumulative_sum(X), "needs an axis"),
        (lambda: linear.matmul(X, X), "cannot be multiplied"),
        (lambda: linear.matmul(X, of_array(np.array(1.0))), "cannot be multiplied"),
        (lambda: linear.vecdot(X, X, axis=0), "counts its axis from the last"),
        (lambda: linear.tensordot(X, X, axes=3), "cannot meet"),
        (lambda: linear.tensordot(X, X, axes=([0], [1])), "differ in size"),
        (lambda: searching.sort(X, axis=2), "axis 2 is out of range"),
        (lambda: searching.topk(X, 4), "no 4 elements"),
        (lambda: searching.take_along_axis(X, of_array(np.full((2, 1), 9))), "out of bounds"),
        (lambda: searching.searchsorted(X, X), "sorted vector"),
        (lambda: linalg.inv(X), "square matrices"),
        (lambda: linalg.inv(of_array(np.zeros((2, 2)))), "Singular"),
        (lambda: linalg.solve_matrix(of_array(np.eye(2)), of_array(np.ones((3, 1)))), "do not fit"),
        (lambda: linalg.cholesky(of_array(-np.eye(2))), "definite"),
    ],
)
def test_mistakes_get_an_error_of_ours(wrong: Any, text: str) -> None:
    """Bad axes, shapes and matrices are refused with the operator and what was seen."""
    with pytest.raises(ArgumentError, match=text) as caught:
        wrong()
    assert caught.value.op


def test_results_are_tensors_of_their_own() -> None:
    """No result shares memory with an argument, even where nothing is computed."""
    for case in CASES:
        values = case.values()
        given = [of_array(v) if isinstance(v, np.ndarray) else v for v in values]
        found = call(case.name, *given)
        for t in found if isinstance(found, tuple) else [found]:
            assert isinstance(t, Tensor)
            assert t.payload.flags.writeable
            arrays = [v for v in values if isinstance(v, np.ndarray)]
            assert not any(np.shares_memory(t.payload, v) for v in arrays), str(case)


@pytest.mark.parametrize("shape", [(2, 0), (0,), (0, 3)])
@pytest.mark.parametrize("axis", [None, -1])
def test_second_gradient_of_an_empty_mean(shape: tuple[int, ...], axis: int | None) -> None:
    """S133: the gradient of a mean over nothing passes zero on, as PyTorch's does."""
    x = torch.zeros(shape, requires_grad=True)
    y = x.mean() if axis is None else x.mean(axis)
    v = torch.ones_like(y, requires_grad=True)
    (g,) = torch.autograd.grad(y, x, v, create_graph=True)
    (wanted,) = torch.autograd.grad(g.sum(), v)
    ours = of_array(np.zeros(shape)).requires_grad_()
    with np.errstate(all="ignore"):
        mean = statistics.mean(ours, axis=axis)
        weights = of_array(np.ones(mean.shape)).requires_grad_()
        (found,) = polyop.autograd.grad(mean, ours, weights, create_graph=True)
        (second,) = polyop.autograd.grad(reductions.sum(found), weights)
    np.testing.assert_array_equal(second.numpy(), wanted.numpy())

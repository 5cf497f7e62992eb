"""What the comparison with PyTorch's samples found, where those samples alone would not show it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop as P
from polyop.errors import ArgumentError, CaptureError, UsageError
from polyop.tensor.tensor import of_array

X = np.arange(12.0).reshape(3, 4) - 5


def faked(fn, *arrays):
    """Run a function on fakes; give the shape, dtype and strides of its result."""
    with P.fake.FakeTensorMode() as mode:
        out = fn(*[mode.from_tensor(of_array(a)) for a in arrays])
    return tuple(out.shape), out.dtype, tuple(out.stride())


@pytest.mark.parametrize(
    "fn",
    [
        P.clone, P.nan_to_num, P.real, P.imag, lambda x: P.astype(x, P.float32),
        lambda x: P.round(x, 2), lambda x: P.clip(x, None, None), lambda x: P.astype(x, P.int8),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_copies_of_broadcast_tensors_have_the_strides_of_their_fakes(fn, order):
    """S147: an axis along which nothing moves has no say in the order of a copy."""
    x = np.broadcast_to(X, (2, 3, 4)).transpose(order)
    real = fn(of_array(x))
    assert faked(fn, x) == (tuple(real.shape), real.dtype, tuple(real.stride()))


@pytest.mark.parametrize("times", [(2,), (2, 1), (0, 2), (3, 1, 2)])
@pytest.mark.parametrize("shape", [(), (1,), (1, 3), (3, 1)])
def test_repeated_tensors_are_their_own(shape, times):
    """S147: what `tile` makes can be written, shares no memory, and is described without data."""
    x = of_array(np.ones(shape))
    out = P.tile(x, times)
    assert faked(lambda a: P.tile(a, times), np.ones(shape))[0] == tuple(out.shape)
    if out.numpy().size:
        out += 1
        np.testing.assert_array_equal(out.numpy(), 2)
        np.testing.assert_array_equal(x.numpy(), 1)


def test_repeat_makes_a_copy_of_one_element_too():
    """S147: a repeated element has as many places as it is repeated."""
    out = P.repeat(P.ones(1), 3)
    out[0] = 5.0
    assert out.tolist() == [5, 1, 1]


def test_masks_are_never_taken_for_integers():
    """S134: `index` and `index_put` take a mask as one, with true gradients, or refuse it."""
    mask = np.array([True, False, True])
    x, m = of_array(X), of_array(mask)
    np.testing.assert_array_equal(P.ops.core.index(x, [m]).numpy(), X[mask])
    values = of_array(np.arange(4.0))
    _, pull = P.func.vjp(lambda v: P.index_put(x, [m], v, True), values)
    np.testing.assert_array_equal(pull(of_array(X))[0].numpy(), X[mask].sum(0))
    with pytest.raises(ArgumentError, match=r"not masks[\s\S]*x\[mask\]"):
        P.vmap(lambda a: P.ops.core.index(a, [m]))(of_array(np.stack([X, X])))
    with (
        P.fake.FakeTensorMode() as mode,
        pytest.raises(ArgumentError, match=r"takes tensors of integers here"),
    ):
        P.ops.core.index(mode.from_tensor(x), [mode.from_tensor(m)])


@pytest.mark.parametrize("start, length", [(3, 2), (-4, 3), (0, 5), (5, 0), (-5, 5)])
def test_narrow_is_pytorchs(start, length):
    """S147: a start may count from the end."""
    theirs = torch.arange(5).narrow(0, start, length)
    assert P.narrow(P.arange(5), 0, start, length).tolist() == theirs.tolist()


@pytest.mark.parametrize("start, length", [(3, 3), (-6, 2), (0, -1), (6, 0)])
def test_narrow_gives_what_was_asked_or_nothing(start, length):
    """S147: elements that are not there are an error, never left out."""
    with pytest.raises(ArgumentError, match="an axis of 5 elements has no"):
        P.narrow(P.arange(5), 0, start, length)


def test_methods_take_pytorchs_words():
    """S147: `conj`, `flip` and `diagonal` are methods with PyTorch's words."""
    c = of_array(X * 1j)
    np.testing.assert_array_equal(c.conj().numpy(), (X * 1j).conj())
    np.testing.assert_array_equal(of_array(X).conj().numpy(), X)
    np.testing.assert_array_equal(of_array(X).flip(dims=(0,)).numpy(), X[::-1])
    np.testing.assert_array_equal(of_array(X).flip(0, 1).numpy(), X[::-1, ::-1])
    np.testing.assert_array_equal(of_array(X).flip().numpy(), X[::-1, ::-1])
    y = np.arange(24).reshape(2, 3, 4)
    theirs = torch.from_numpy(y)
    for words in ({"dim1": 1, "dim2": 2}, {"dim1": 2}, {"offset": 1, "dim2": 2}):
        if words.get("dim1", 0) != words.get("dim2", 1):
            ours = of_array(y).diagonal(**words).numpy()
            np.testing.assert_array_equal(ours, theirs.diagonal(**words).numpy())


def test_whole_numbers_have_reciprocals():
    """S147: one over a whole number is no whole number, for fakes too."""
    assert P.reciprocal(of_array(np.array([1, 2, 4]))).tolist() == [1, 0.5, 0.25]
    assert faked(P.reciprocal, np.array([1, 2]))[1] == np.float64


def test_truths_are_close_if_they_are_equal():
    """S147: `isclose` takes bools."""
    a, b = np.array([True, False]), np.array([True, True])
    assert P.isclose(of_array(a), of_array(b)).tolist() == [True, False]


@pytest.mark.parametrize(
    "divide",
    [
        lambda x: x.narrow(0, 0, 1),
        lambda x: x.split(1),
        lambda x: x.chunk(2),
        lambda x: x.unflatten(-1, (-1, 1)),
    ],
    ids=["narrow", "split", "chunk", "unflatten"],
)
def test_no_axes_to_divide(divide: Any) -> None:
    """A tensor without axes has none to divide, by name."""
    with pytest.raises(ArgumentError, match="without axes has none to divide"):
        divide(P.tensor(1.0))


def test_narrow_of_symbolic_sizes() -> None:
    """S150, S152: a range that does not fit is refused by programs as it is in eager mode."""
    export, dim = P.export.export, P.export.Dim
    with pytest.raises(CaptureError, match="all sizes of the dimension n"):
        export(lambda x: x.narrow(0, 2, 2), (P.arange(6),), dynamic_shapes=({0: dim("n")},))
    moved = P.compile(lambda x, start: x.narrow(0, start, 2), dynamic=True)
    for start in (2, 4, -2):
        assert moved(P.arange(6), start).tolist() == P.arange(6).narrow(0, start, 2).tolist()
    for start in (5, 9, -1, -7):
        with pytest.raises(ArgumentError, match="has no 2 from"):
            moved(P.arange(6), start)
    counted = export(lambda x: x.narrow(0, P.argwhere(x).shape[0], 2), (P.tensor([1, 0, 0]),))
    assert counted.module()(P.tensor([1, 0, 0])).tolist() == [0, 0]
    with pytest.raises(UsageError, match="an axis of 3 elements has no 2 from u0 on"):
        counted.module()(P.tensor([1, 1, 0]))


@pytest.mark.parametrize("library", [np, torch, jnp], ids=["numpy", "torch", "jax"])
def test_floats_are_converted_before_they_are_added_to_integers(library: Any) -> None:
    """Once, as where they replace, whatever library the arrays are of."""
    x = P.from_array(library.asarray([1, 2, 3]))
    at, floats = P.asarray([0, 0, 1]), P.asarray([1.6, 1.6, -2.5])
    at, floats = (P.from_array(library.asarray(a.numpy())) for a in (at, floats))
    assert P.index_add(x, 0, at, floats).tolist() == [3, 0, 3]


@pytest.mark.parametrize("include_initial", [False, True])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_a_running_product_has_second_gradients(zeros, include_initial):
    """S134: the second gradient of a running product is right beside zeros, in every batch."""
    x = np.array([[2.0, -1.0, 3.0, 0.5], [1.0, 4.0, -2.0, 1.5]])
    x[:, 1 : 1 + zeros] = 0
    rng = np.random.default_rng(0)
    g, h = rng.normal(size=(2, 4)), rng.normal(size=(2, 4))

    def ours(a):
        out = P.cumulative_prod(a, axis=1, include_initial=include_initial)
        return out[:, 1:] if include_initial else out

    def gradient(a, w):
        return P.func.vjp(ours, a)[1](w)[0]

    t, w = torch.from_numpy(x).requires_grad_(), torch.from_numpy(g).requires_grad_()
    (first,) = torch.autograd.grad(t.cumprod(1), t, w, create_graph=True)
    theirs = torch.autograd.grad(first, (t, w), torch.from_numpy(h))
    found = P.func.vjp(gradient, of_array(x), of_array(g))[1](of_array(h))
    for a, b in zip(found, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)
    rows = P.vmap(lambda a, v: P.func.vjp(lambda b: P.cumulative_prod(b), a)[1](v)[0])
    np.testing.assert_allclose(
        rows(of_array(x), of_array(g)).numpy(), first.detach().numpy(), rtol=1e-12
    )


def test_norms_of_no_elements():
    """S147: norms that sum or take the greatest are zero without elements, as PyTorch's are."""
    for order in (1, 2, np.inf, "fro", "nuc"):
        for shape in ((0, 0), (0, 3), (3, 0), (2, 0, 3)):
            ours = P.linalg.matrix_norm(P.zeros(shape), ord=order, keepdims=True)
            theirs = torch.linalg.matrix_norm(torch.zeros(shape), order, keepdim=True)
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())

"""The laws of views by size, stride and offset (S171)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.errors import ArgumentError, MutationError
from polyop.func import functionalize, grad, vmap
from polyop.hop.strided import overlaps, strided, strided_scatter
from polyop.layers.fake import FakeTensorMode

Axes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=3)


def tensor(*shape: int) -> Any:
    return polyop.from_numpy(np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape))


@settings(max_examples=150, deadline=None)
@given(Axes, st.integers(0, 6))
def test_as_in_pytorch(axes: list[tuple[int, int]], offset: int) -> None:
    """S171: values, gradients and batches are those of PyTorch's views; others are refused."""
    size, stride = [n for n, _ in axes], [s for _, s in axes]
    x, base = tensor(3, 4), torch.arange(1.0, 13, dtype=torch.float64).reshape(3, 4)
    reach = offset + sum(s * (n - 1) for n, s in axes) if 0 not in size else -1
    if reach > 11:
        with pytest.raises(ArgumentError, match="reaches out"):
            strided(x, size, stride, offset)
        return
    base.requires_grad_()
    want = base.as_strided(size, stride, offset)
    (want * want).sum().backward()
    got = strided(x, size, stride, offset)
    np.testing.assert_array_equal(got.numpy(), want.detach().numpy())
    assert not got.numpy().size or np.shares_memory(got.numpy(), x.numpy())
    ours = grad(lambda t: (strided(t, size, stride, offset) ** 2).sum())(x)
    np.testing.assert_allclose(ours.numpy(), base.grad.numpy())
    batch = vmap(lambda t: strided(t, size, stride, offset))(tensor(2, 3, 4))
    for i in range(2):
        one = strided(tensor(2, 3, 4)[i].clone(), size, stride, offset)
        np.testing.assert_array_equal(batch[i].numpy(), one.numpy())
    with FakeTensorMode() as mode:
        fake = strided(mode.from_tensor(x), size, stride, offset)
    assert fake.shape == got.shape


@settings(max_examples=150, deadline=None)
@given(Axes)
def test_overlaps_are_found(axes: list[tuple[int, int]]) -> None:
    """S168: no view that reaches an element twice counts as free of overlaps."""
    size, stride = [n for n, _ in axes], [s for _, s in axes]
    flat = np.lib.stride_tricks.as_strided(np.arange(99), size, [8 * s for s in stride])
    twice = len(np.unique(flat)) != flat.size
    assert overlaps(size, stride) >= twice


def test_writes_are_put_back() -> None:
    """S168: a write through the view is functionalized; one through an overlap is refused."""

    def f(x: Any, size: Any, stride: Any) -> Any:
        y = x + 1
        strided(y, size, stride, 1).mul_(10)
        return y

    want = f(tensor(3, 4), [2, 2], [5, 1])
    got = functionalize(f)(tensor(3, 4), [2, 2], [5, 1])
    np.testing.assert_array_equal(got.numpy(), want.numpy())
    with pytest.raises(MutationError, match="overlap"):
        functionalize(f)(tensor(3, 4), [2, 2], [1, 1])
    x, part = tensor(3, 4), tensor(2)
    ours = grad(lambda p: (strided_scatter(x, p * p, [2], [-2], 3) * x).sum())(part)
    np.testing.assert_allclose(ours.numpy(), [2 * 1 * 4, 2 * 2 * 2])
    second = grad(lambda t: (strided_scatter(t, part, [2], [2], 1) * x).sum())(x)
    np.testing.assert_allclose(second.numpy().reshape(-1)[:5], [1, 0, 3, 0, 5])

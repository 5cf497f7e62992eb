"""Views and writes over other libraries: the aliasing is NumPy's, whoever shares memory."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.payloads.conftest import MADE
from tests.payloads.pair import tensor_of

import polyop
from polyop.errors import ArgumentError, MutationError
from polyop.payloads import library_of
from polyop.tensor.tensor import of_array

VIEWS = (
    lambda x: x[1:],
    lambda x: x[::-1],
    lambda x: polyop.flip(x),
    lambda x: x[..., 0],
    lambda x: polyop.permute_dims(x, list(range(x.ndim))[::-1]),
    lambda x: polyop.reshape(x, [-1]),
    lambda x: polyop.expand_dims(x, 0),
    lambda x: x.detach(),
    lambda x: polyop.squeeze(x),
    lambda x: x[..., ::2],
    lambda x: polyop.diagonal(x) if x.ndim > 1 else x[0:1],
)


def _write(x: Any, how: int, amount: int) -> None:
    if how == 0:
        x.add_(amount)
    elif how == 1:
        x.mul_(amount)
    elif how == 2:
        x[...] = amount
    elif x.ndim and x.shape[0]:
        x[0] = amount


STEP = st.tuples(st.integers(0, 20), st.integers(0, len(VIEWS) - 1))
WRITE = st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(-3, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(STEP, WRITE), max_size=8), st.sampled_from(sorted(MADE)))
def test_any_program_of_views_and_writes(program: list[Any], name: str) -> None:
    """S135: after views of views and writes through any of them, all hold what NumPy's hold."""
    library = library_of(MADE[name]())
    start = np.arange(12, dtype=np.float32).reshape(3, 4)
    ours, numpys = [tensor_of(library, start)], [of_array(start.copy())]
    for step in program:
        at = step[0] % len(ours)
        if len(step) == 2:
            try:
                made = VIEWS[step[1]](numpys[at])
            except (IndexError, ArgumentError):
                continue
            numpys.append(made)
            ours.append(VIEWS[step[1]](ours[at]))
        else:
            _write(numpys[at], *step[1:])
            _write(ours[at], *step[1:])
    for a, b in zip(ours, numpys, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert a._version == b._version


def test_torch_views_share_memory() -> None:
    """A view over PyTorch is PyTorch's view; a write goes into the caller's own memory."""
    x = torch.arange(6.0).reshape(2, 3)
    t = polyop.from_array(x)
    t[1].add_(10)
    polyop.transpose(t, 0, 1)[0].mul_(2)
    assert x.tolist() == [[0, 1, 2], [26, 14, 15]]
    assert t.stride() == (3, 1) and t.T.stride() == (1, 3)


def test_jax_arrays_stay() -> None:
    """A write gives the tensor another array; the caller's array stays as it is."""
    x = jnp.zeros(3)
    t = polyop.from_array(x)
    t.add_(1)
    assert x.tolist() == [0, 0, 0] and polyop.to_array(t).tolist() == [1, 1, 1]


def test_a_lone_jax_array_is_not_written_by_name() -> None:
    """S66: an operator that writes refuses a bare array that can never be written."""
    with pytest.raises(ArgumentError, match=r"(?s)never written.*from_array"):
        polyop.ops.core.add_(jnp.ones(2), jnp.ones(2))
    x = torch.ones(2)
    polyop.ops.core.add_(x, torch.ones(2))
    assert x.tolist() == [2, 2]


def test_repeated_elements_are_not_written(library: Any) -> None:
    """A broadcast tensor is not written, over any library."""
    t = polyop.broadcast_to(tensor_of(library, np.zeros(3)), (2, 3))
    with pytest.raises(MutationError):
        t.add_(1)
    with pytest.raises(MutationError):
        t[0] = 1


def test_a_refused_write_changes_nothing(library: Any) -> None:
    """A result of another shape or dtype is refused before anything is written."""
    t = tensor_of(library, np.zeros(3, "int32"))
    for other in (tensor_of(library, np.ones((2, 3), "int32")), tensor_of(library, np.ones(3))):
        with pytest.raises(ArgumentError):
            t.add_(other)
    assert t.tolist() == [0, 0, 0] and t._version == 0
    with pytest.raises((ArgumentError, ValueError)):
        t.fill_(1j).tolist()  # a recipe raises when it is computed


def test_a_leaf_of_torch_is_not_written_behind_its_back() -> None:
    """What PyTorch's own autograd refuses to write is an error of ours that says why."""
    t = polyop.from_array(torch.ones(2, requires_grad=True))
    with pytest.raises(MutationError, match="leaf"):
        t.add_(1)


def test_versions_of_torch_are_counted() -> None:
    """PyTorch sees writes through our tensors, and refuses a gradient of what was overwritten."""
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    z = (y * y).sum()
    polyop.from_array(y).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_writing_into_numpy() -> None:
    """Another library's values can be written into a NumPy tensor, without gradients."""
    x, y = polyop.zeros(2), polyop.from_array(torch.ones(2))
    x.add_(y)
    assert x.tolist() == [1, 1]
    y.requires_grad_()
    with pytest.raises(MutationError, match="gradients do not cross"):
        x.add_(y)
    with polyop.no_grad():
        x.add_(y)
    assert x.tolist() == [2, 2]


def test_indices_that_repeat(library: Any) -> None:
    """Writing by integers, and adding where they repeat, is NumPy's."""
    t = tensor_of(library, np.zeros(4))
    t[np.array([0, 2, 0])] = polyop.tensor([1.0, 2.0, 3.0], dtype=polyop.float64)
    assert t.tolist() in ([3, 0, 2, 0], [1, 0, 2, 0])
    out = polyop.index_put(t, [polyop.tensor([1, 1])], t[:2], accumulate=True)
    assert out.tolist()[1] == t.tolist()[0]
    with pytest.raises((ArgumentError, IndexError)):
        t[np.array([7])].numpy()


def test_gradients_see_writes(library: Any) -> None:
    """S136: a write to a view is seen by the gradient of its base."""
    x = tensor_of(library, np.array([1.0, 2.0, 3.0])).requires_grad_()
    y = x * 1
    y[1:].mul_(10)
    (y * y).sum().backward()
    assert x.grad.tolist() == [2, 400, 600]
    assert x.grad.payload.library is library

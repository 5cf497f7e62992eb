"""Memory that a call with tensors of PyTorch writes, or shows: NumPy's, and that of views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from tests.bridges.marks import COMPILES

import polyop
from polyop import Tensor
from polyop.errors import AliasError, ArgumentError, MutationError

pytestmark = COMPILES
Make = Callable[[Any], Any]


@polyop.custom_op("memory_tests::add_", mutates_args=("w",))
def add_(s: Tensor, w: Tensor) -> None:
    """Add `s` to `w`."""
    w.numpy()[...] += s.numpy()


@polyop.custom_op("memory_tests::fill_", mutates_args=("w", "v"))
def fill_(w: Tensor, v: Tensor, s: Tensor) -> None:
    """Write `s` into `w`, and twice what is there then into `v`."""
    w.numpy()[...] = s.numpy()
    v.numpy()[...] *= 2


def _view(name: str, kernel: Make) -> Any:
    schema = "(Tensor(a) x) -> Tensor(a)"
    op = polyop.custom_op(f"memory_tests::{name}", kernel, mutates_args=(), schema=schema)
    op.register_fake(kernel)
    return op


tail = _view("tail", lambda x: x[1:])
backwards = _view("backwards", lambda x: polyop.flip(x, axis=0))
halves: Any = polyop.custom_op(
    "memory_tests::halves",
    lambda x: [x[::2], x[1::2]],
    mutates_args=(),
    schema="(Tensor(a) x) -> Tensor(a)[]",
)
VIEWS: list[Make] = [tail, lambda x: halves(x)[1], lambda x: tail(tail(x))]
OVER: dict[str, Make] = {
    "bare": torch.clone,
    "tensor": lambda x: polyop.from_array(x.clone()),
    "column": lambda x: torch.stack([x, x], 1)[:, 1],
    "bfloat16": lambda x: x.to(torch.bfloat16),
}


def _ones(w: Any) -> Any:
    dtype = getattr(torch, str(w.dtype).removeprefix("torch."))
    return polyop.from_array(torch.ones(tuple(w.shape), dtype=dtype))


# -- NumPy's memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros(6)[::2], np.zeros(3, ml_dtypes.bfloat16), np.zeros((0, 2))]
)
def test_what_numpy_holds_is_written(array: Any) -> None:
    """S135: a tensor over NumPy is written beside tensors over PyTorch, and counts it."""
    w = polyop.from_numpy(array)
    add_(_ones(w), w)
    assert (array == 1).all()
    assert w._version == 1


def test_arguments_that_share_memory_still_do() -> None:
    """S135: what a kernel writes into one argument it reads in another, as in NumPy alone."""
    for over in (polyop.from_numpy, lambda x: polyop.from_array(torch.from_numpy(x))):
        w = polyop.from_numpy(np.zeros(4))
        fill_(w, w[1:], over(np.ones(4)))
        assert w.tolist() == [1, 2, 2, 2]


def test_what_cannot_be_shared_is_not_written() -> None:
    """S135: what PyTorch only traces, or has no word for, is refused, and nothing changes."""
    fixed = np.zeros(2)
    fixed.flags.writeable = False
    for array in (fixed, np.zeros(2)[::-1]):
        w = polyop.from_numpy(array)
        with pytest.raises(MutationError, match="cannot share with PyTorch its argument 'w'"):
            add_(_ones(w), w)
    w = polyop.zeros(2)
    meta = polyop.from_array(torch.ones(2, device="meta"))
    with pytest.raises(MutationError, match="would write what PyTorch traces"):
        add_(meta, w)
    with pytest.raises(MutationError, match="would write what PyTorch traces"):
        torch.vmap(lambda s: add_(polyop.from_array(s), w))(torch.ones(3, 2))
    with pytest.raises(MutationError, match="a gradient of PyTorch would not see it"):
        add_(polyop.from_array(torch.ones(2, requires_grad=True)), w)
    assert w.tolist() == [0, 0]


# -- views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("view", VIEWS)
def test_a_declared_view_is_a_view(view: Make, over: str) -> None:
    """S136: base and view see each other's writes, by operators and by the arrays' own words."""
    x, wanted = OVER[over](torch.arange(5.0)), polyop.arange(5.0)
    results = []
    for base in (x, wanted):
        v = view(base)
        for written in (v, base, v):
            add_(_ones(written) if over == "tensor" else written * 0 + 1, written)
        v += 10
        base *= 2
        results += [v.tolist(), base.tolist()]
    assert results[:2] == results[2:]


def test_a_view_shares_the_version_of_pytorch() -> None:
    """S136: PyTorch sees the write, as where a gradient has saved the base."""
    x = torch.arange(3.0)
    y = torch.ones(3, requires_grad=True)
    product = (x * y).sum()
    add_(torch.ones(2), tail(x))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    assert tail(x)._base is x


def test_views_that_pytorch_has_not_follow_their_base() -> None:
    """S136: a flip is carried back to its base, and taken again after a write to it."""
    x = polyop.from_array(torch.arange(3.0))
    v = polyop.flip(x, axis=0)
    add_(polyop.from_array(torch.tensor([0.0, 1.0, 2.0])), v)
    assert x.tolist() == [2, 2, 2]
    add_(polyop.from_array(torch.tensor([0.0, 1.0, 2.0])), x)
    assert v.tolist() == [4, 3, 2]


def test_a_copy_in_the_place_of_a_view_is_no_view_in_silence() -> None:
    """S136: such a result is taken again, and never written; a bare array cannot be either."""
    x = polyop.from_array(torch.arange(3.0))
    v = backwards(x)
    with pytest.raises(MutationError, match="gave of an array of torch cannot be written"):
        add_(_ones(v), v)
    with pytest.raises(MutationError, match="another argument is a view"):
        fill_(x, v, _ones(x))
    assert x.tolist() == [0, 1, 2]
    add_(_ones(x), x)
    assert v.tolist() == [3, 2, 1]
    with pytest.raises(AliasError, match="memory_tests::backwards gives a view that no array"):
        backwards(torch.arange(3.0))
    with pytest.raises(AliasError, match="memory_tests::tail gives a view that no array"):
        tail(torch.zeros(3, dtype=torch.complex64).conj())


def test_a_view_is_no_operator_of_pytorch_and_says_why() -> None:
    """S117: gradients and transforms are refused for the alias; under `no_grad` it is a view."""
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ArgumentError, match="result 0 is declared as a view"):
        tail(x)
    with pytest.raises(ArgumentError, match="result 0 is declared as a view"):
        torch.vmap(tail)(torch.ones(2, 3))
    with torch.no_grad():
        tail(x).add_(1)
    assert x.tolist() == [1, 2, 2]


def test_autocast_hides_no_write() -> None:
    """S53: what is written stays itself where what is read is cast, eager and compiled."""

    @polyop.custom_op("memory_tests::count_", mutates_args=("w",))
    def count_(s: Tensor, w: Tensor) -> None:
        w.numpy()[...] += s.numpy().dtype.itemsize

    count_.register_fake(lambda s, w: None)
    count_.register_autocast("cpu", "bfloat16")
    with torch.autocast("cpu"):
        for call in (count_, torch.compile(count_, backend="aot_eager", fullgraph=True)):
            w = torch.zeros(2)
            call(torch.ones(2), w)
            assert w.tolist() == [2, 2]
        t = polyop.from_array(torch.zeros(2))
        count_(polyop.from_array(torch.ones(2)), t)
    assert t.tolist() == [2, 2]

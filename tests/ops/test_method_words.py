"""What methods take: PyTorch's words and order, each once, and nothing without a place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import UsageTypeError

A = np.arange(1.0, 7.0).reshape(2, 3)

CALLS = [
    "x.std(False)", "x.var(True)", "x.std()", "x.std(0)", "x.var(1, False)",
    "x.std(dim=0, unbiased=False, keepdim=True)", "x.var(dim=1, correction=0)",
    "x.sum(0)", "x.sum(0, True)", "x.mean(dim=1, keepdim=True)", "x.cumsum(1)",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_as_pytorch(call: str) -> None:
    """Words, positions, and a truth value alone mean what they mean in PyTorch."""
    found = eval(call, {"x": polyop.from_numpy(A)})
    wanted = eval(call, {"x": torch.tensor(A)})
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("x.std(ddof=0)", "std.. got an unexpected keyword argument 'ddof'"),
        ("x.var(dtype=float)", "var.. got an unexpected keyword argument 'dtype'"),
        ("np.std(x, where=x > 0)", "numpy.std of a Tensor takes axis, dtype and keepdims"),
        ("x.std(1, unbiased=False, correction=1)", "one argument under two names"),
        ("x.std(1, axis=0)", "one argument under two names"),
        ("x.sum(False)", "takes an axis first, not a truth value"),
        ("x.sort(True)", "takes an axis first, not a truth value"),
        ("x.sum(0, axis=1)", "got 'axis' twice"),
        ("x.mean(0, True, 3)", "too many arguments"),
        ("x.to(copyy=True)", "unexpected keyword argument 'copyy'"),
        ("x.to(memory_format='x')", "takes no memory format"),
        ("x.to('cpu', x.dtype, False, True, True)", "no place"),
        ("x.to(True, x.dtype)", "no place"),
        ("x.astype(x.dtype, order='F')", "astype.. got an unexpected keyword argument 'order'"),
    ],
)
def test_what_has_no_place_is_refused(call: str, text: str) -> None:
    """No word is dropped in silence."""
    with pytest.raises(TypeError, match=text):
        eval(call, {"x": polyop.from_numpy(A.copy()), "np": np})


@pytest.mark.parametrize(
    "arguments", [("cpu", "float64", False, True), ("float64", False, True), (None, False, True)]
)
def test_a_copy_by_position(arguments: tuple[Any, ...]) -> None:
    """The last flag of `to` is `copy`, as in PyTorch."""
    x = polyop.from_numpy(A.copy())
    found = x.to(*[x if a is None else a for a in arguments])
    found.fill_(0)
    assert x.tolist() == A.tolist()
    assert x.to(*arguments[:-2] if arguments[0] else (x,)) is x


def test_types_of_python_are_those_of_the_interpreter() -> None:
    """`float` and `complex` have 64 bits to a part, as for NumPy and PyTorch."""
    big = polyop.from_numpy(np.array([16777217.0]))
    assert big.astype(float).item() == 16777217.0
    for kind in (float, complex, int, bool):
        assert str(torch.zeros(1, dtype=kind).dtype) == f"torch.{polyop.zeros(1, dtype=kind).dtype}"
        assert polyop.zeros(1, dtype=kind).dtype == np.dtype(kind)
    assert isinstance(polyop.float32, polyop.dtype)
    assert polyop.tensor([1.0]).dtype == polyop.float32  # of numbers, PyTorch's default
    condition = polyop.tensor([True, False])
    for a, b in ((1.0, 2.0), (1, 2), (True, False), (1, 2.5), (True, 3)):
        wanted = torch.where(torch.tensor([True, False]), a, b).dtype
        assert str(wanted) == f"torch.{polyop.where(condition, a, b).dtype}"


def test_numpy_does_not_mistake_a_method() -> None:
    """NumPy's `nonzero` and `argwhere` call `nonzero()`, which is PyTorch's here: rows."""
    x = polyop.from_numpy(A)
    for function in (np.nonzero, np.argwhere):
        with pytest.raises(UsageTypeError, match=f"numpy.{function.__name__} takes arrays"):
            function(x)  # type: ignore[operator]
    assert np.shape(x) == (2, 3) and isinstance(np.stack([A, x]), np.ndarray)  # type: ignore
    assert isinstance(polyop.argwhere(x > 2), Tensor)

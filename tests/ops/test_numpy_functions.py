"""NumPy's reductions of tensors, and views by dtype: as of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.errors import UsageTypeError

REDUCTIONS = ["sum", "prod", "mean", "std", "var", "max", "min", "any", "all"]
WORDS: list[dict[str, Any]] = [{}, {"axis": 0}, {"axis": (0, 1), "keepdims": True}]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("words", WORDS)
def test_reductions_are_numpys(name: str, dtype: str, words: dict[str, Any]) -> None:
    """S66: NumPy's reductions have its words, defaults and dtypes, and give tensors."""
    array = np.array([[1, 0, 3], [1, 1, 1]], dtype)
    found, wanted = (getattr(np, name)(x, **words) for x in (polyop.from_numpy(array), array))
    assert isinstance(found, polyop.Tensor) and found.dtype == np.asarray(wanted).dtype
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_words_of_some_reductions() -> None:
    """S66: `dtype`, `ddof` and `correction` mean what they do for arrays; the rest is refused."""
    array = np.array([1.0, 2.5, 4.0])
    x = polyop.from_numpy(array)
    for words in ({"ddof": 1}, {"correction": 1}, {"dtype": "f4"}, {"dtype": np.float32}):
        found, wanted = np.std(x, **words), np.std(array, **words)
        assert (found.dtype, found.item()) == (wanted.dtype, pytest.approx(wanted))
    assert np.sum(x, dtype=np.int32).dtype == polyop.int32
    refused: list[dict[str, Any]] = [{"where": x > 2}, {"initial": 1.0}, {"out": np.ones(())}]
    for words in refused:
        with pytest.raises(UsageTypeError, match=r"numpy\.max of a Tensor"):
            np.max(x, **words)


def test_a_reduction_is_recorded() -> None:
    """S66: the gradient goes through a reduction of NumPy's, as through a method."""
    x = polyop.ones(3, requires_grad=True)
    np.mean(x * x).backward()
    assert x.grad.tolist() == pytest.approx([2 / 3] * 3)


def test_a_view_of_the_same_dtype() -> None:
    """S136: `view(dtype)` of the dtype that is there is a view; its base sees writes."""
    x = polyop.ones(2, dtype=polyop.float64)
    for dtype in (float, "float64", np.float64, polyop.float64):
        x.view(dtype).add_(1)
    x.view(dtype=float).add_(1)
    assert x.tolist() == [6, 6]
    assert func.grad(lambda x: (x.view(float) ** 2).sum())(x).tolist() == [12, 12]


def test_a_view_of_another_dtype_is_refused() -> None:
    """S63: the error says that a dtype was given, not that it is no shape."""
    x = polyop.ones(2, dtype=polyop.float64)
    with pytest.raises(UsageTypeError, match="another dtype"):
        x.view(int)
    with pytest.raises(UsageTypeError, match="'f9' is no dtype"):
        x.view("f9")
    with pytest.raises(UsageTypeError, match="a shape or a dtype"):
        x.view(2, dtype=float)

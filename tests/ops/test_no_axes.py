"""Where there is no axis, or no order among equals: named errors, and what NumPy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import fft
from polyop.errors import PolyopError


@pytest.mark.parametrize("name", ["rfftn", "irfftn"])
def test_half_a_spectrum_needs_an_axis(name: str) -> None:
    """S63: without one there is nothing to halve; a transform along no axis is the tensor."""
    transform: Any = getattr(fft, name)
    for x, axes in ((polyop.ones((2, 3)), ()), (polyop.ones(()), None)):
        with pytest.raises(PolyopError, match=f"{name} needs an axis") as caught:
            transform(x, axes=axes)
        assert "fftn" in caught.value.fix
    assert fft.fftn(polyop.ones(2), axes=()).tolist() == [1, 1]


@pytest.mark.parametrize("axes", [((0,), (0,)), ((1,), (-1,)), ((2,), (0,))])
def test_a_product_along_an_axis_that_is_not_there(axes: Any) -> None:
    """S63: it is refused by name."""
    with pytest.raises(PolyopError, match="tensordot"):
        polyop.tensordot(polyop.ones((2, 3)), polyop.ones(()), axes=axes)


def test_equals_keep_their_order_from_the_largest_down() -> None:
    """S66: a sort is stable in both directions, as `argsort` is: zeros of either sign tie."""
    x = polyop.from_numpy(np.array([0.0, -0.0, 1.0, -0.0, 0.0]))
    for descending in (False, True):
        order = polyop.argsort(x, descending=descending, stable=True)
        found = polyop.sort(x, descending=descending, stable=True).numpy()
        assert np.signbit(found).tolist() == np.signbit(x.numpy()[order.numpy()]).tolist()

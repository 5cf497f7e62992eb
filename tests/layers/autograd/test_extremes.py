"""Forward mode of `max` and `min`: tangents that are looked up are those of the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.dispatch.bind import dispatch
from polyop.func import jvp, vmap
from polyop.layers.autograd import extremes
from polyop.layers.autograd.tangents import tangent_rule
from polyop.tensor.tensor import of_array

#: PyTorch's own jvp brings in what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, np.inf, -np.inf, np.nan])
SHAPES: dict[tuple[int, ...], list[list[int] | None]] = {
    (6,): [None, [0], [-1]],
    (2, 3): [None, [0], [1], [0, 1], [-1, 0]],
    (1, 2, 3): [None, [2], [1, 2], [0, 1], [1]],
    (1, 1, 6): [[0], [2], [0, 2]],
    (6, 1): [[0], [1], []],
}
CASES = [(shape, axis) for shape, all_axes in SHAPES.items() for axis in all_axes]


@pytest.mark.parametrize("name", ["max", "min"])
@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=6, max_size=6), st.sampled_from(CASES), st.booleans())
def test_looked_up_is_what_the_text_gives(
    name: str, numbers: list[float], case: Any, keepdims: bool
) -> None:
    """S134: ties share their tangents, NaN passes those of NaN on, and no other's counts."""
    shape, axis = case
    op = getattr(polyop, name).op
    values = [of_array(np.array(numbers).reshape(shape)), axis, keepdims]
    slopes = np.arange(1.0, 7.0).reshape(shape)
    tangents = [of_array(slopes), None, None]
    rule = tangent_rule(op)
    (out, (d,)), (r, (e,)) = (
        rule.at_once(lambda *a: dispatch(op, a), values, tangents),
        rule(values, tangents),
    )
    np.testing.assert_array_equal(out.numpy(), r.numpy())
    np.testing.assert_allclose(d.numpy(), e.numpy(), rtol=1e-14)
    assert (d.dtype, d.shape) == (e.dtype, e.shape)
    assert not any(np.shares_memory(d.numpy(), a) for a in (slopes, out.numpy()))


@pytest.mark.parametrize("axis", [None, [0], [1], [0, 1]])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_pytorch_gives_the_same(axis: Any, dtype: str) -> None:
    """S134: tangents of greatest elements, ties among them, are those of PyTorch's `amax`."""
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 9, (4, 5)).astype(dtype), rng.normal(size=(4, 5)).astype(dtype)
    _, d = jvp(lambda x: polyop.max(x, axis=axis), (of_array(x),), (of_array(t),))
    dims = tuple(axis or (0, 1))
    _, e = torch.func.jvp(lambda x: torch.amax(x, dims), (torch.tensor(x),), (torch.tensor(t),))
    np.testing.assert_allclose(d.numpy(), e.numpy(), rtol=1e-6)
    assert d.numpy().dtype == dtype


def test_tangents_without_bounds() -> None:
    """S134: an infinite tangent of an element that is not the greatest counts for nothing."""
    x, t = of_array(np.array([[3.0, 1.0], [2.0, 5.0]])), of_array(np.array([[1, np.inf], [7, 4]]))
    for layout in (lambda a: a, lambda a: of_array(np.asfortranarray(a.numpy()))):
        given = (layout(x),), (layout(t),)
        assert jvp(polyop.max, *given)[1].numpy() == 4
        rows = jvp(lambda x: polyop.max(x, axis=[1]), *given)[1]
        np.testing.assert_array_equal(rows.numpy(), [1, 4])
    batched = vmap(lambda x, t: jvp(polyop.max, (x,), (t,))[1])(x, t)
    np.testing.assert_array_equal(batched.numpy(), [1, 4])


def test_where_it_is_looked_up(monkeypatch: Any) -> None:
    """S134: what each result is of lies together, for the last axes and for all of them."""
    seen: list[Any] = []
    first = extremes._of_peaks
    monkeypatch.setattr(extremes, "_of_peaks", lambda *a: seen.append(a) or first(*a))
    x = of_array(np.random.default_rng(0).normal(size=(3, 4)))
    for axis in (None, [1], [-1], [0, 1]):
        jvp(lambda x, axis=axis: polyop.max(x, axis=axis), (x,), (x,))
    assert len(seen) == 4
    jvp(lambda x: polyop.max(x, axis=[0]), (x,), (x,))
    assert len(seen) == 4


def test_another_byte_order() -> None:
    """S134: a tangent has its result's dtype, whatever order the bytes of both inputs have."""
    x = of_array(np.array([[3.0, 1.0], [2.0, 5.0]], ">f8"))
    out, slope = jvp(lambda x: polyop.max(x, axis=[1]), (x,), (x,))
    assert out.dtype == slope.dtype == np.dtype("f8")
    np.testing.assert_array_equal(slope.numpy(), [3, 5])

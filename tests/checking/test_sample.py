"""Copies of samples: same values, same layout, same sharing, other memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.checking.inputs import RELAYS, cast, layouts, resized
from polyop.checking.sample import Sample, array_of, copy_array, owner_of, sample_of
from polyop.dispatch.custom_op import custom_op
from polyop.errors import UsageError
from polyop.tensor.tensor import Tensor, of_array


def lists(xs: list[Tensor | None], y: Tensor, *, n: int = 3, z: Tensor | None = None) -> Tensor:
    return of_array(y.numpy().copy())


op = custom_op("sample_tests::lists", lists, mutates_args=())


def bound(*args: Any, **kwargs: Any) -> Sample:
    return sample_of(op._opoverload, args, kwargs)


@st.composite
def views(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays that are views in every way: sliced, reversed, transposed, broadcast, empty."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    dtype = draw(st.sampled_from(["float64", "float32", "int8", "complex64"]))
    order = draw(st.sampled_from("CF"))
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape, order=order)
    parts = []
    for n in shape:
        step = draw(st.sampled_from([1, 2, -1]))
        start = draw(st.integers(0, n))
        parts.append(slice(start, None, step) if step > 0 else slice(None, None, step))
    array = array[tuple(parts)]
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    return array


@given(views())
def test_a_copy_keeps_layout_and_surroundings(array: Any) -> None:
    """S201: a copy has the values, strides and surrounding memory of the array, and shares none."""
    made = copy_array(array, {})
    assert made.dtype == array.dtype and made.shape == array.shape
    assert made.tobytes() == array.tobytes()
    if array.size:
        used = [i for i, n in enumerate(array.shape) if n > 1]
        assert [made.strides[i] for i in used] == [array.strides[i] for i in used]
    assert not np.may_share_memory(owner_of(made), owner_of(array))
    assert owner_of(made).nbytes == owner_of(array).nbytes


@given(st.data())
def test_copies_share_memory_as_their_originals_do(data: st.DataObject) -> None:
    """S201: arguments that share memory still do so in the copy, at the same place."""
    base = np.arange(8.0)
    starts = data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=2))
    stops = [data.draw(st.integers(start, 8)) for start in starts]
    parts = [base[a:b] for a, b in zip(starts, stops, strict=True)]
    owners: dict[int, Any] = {}
    copies = [copy_array(part, owners) for part in parts]
    assert np.shares_memory(*copies) == np.shares_memory(*parts)
    if copies[0].size:
        copies[0][...] = -1.0
        base[starts[0] : stops[0]] = -1.0
        assert copies[1].tolist() == parts[1].tolist()


def test_one_tensor_twice_stays_one() -> None:
    """A tensor that is given twice is one tensor in the copy, in lists too."""
    x = of_array(np.ones(3))
    copy = bound([x, None], x).copy()
    assert copy.values[0][0] is copy.values[1] is not x
    assert copy.values[0][1] is None


def test_only_a_copy_for_gradients_requires_grad() -> None:
    """`grad=True` keeps what requires grad; otherwise no history is made."""
    sample = bound([], of_array(np.ones(3)).requires_grad_())
    assert [t.requires_grad for t in sample.copy(grad=True).tensors()] == [True]
    assert [t.requires_grad for t in sample.copy().tensors()] == [False]


def test_defaults_are_filled_in_and_names_given() -> None:
    """A sample has every argument, and names each tensor by argument and place."""
    y = of_array(np.ones(3))
    sample = bound([None, y], y, z=y)
    assert sample.values[2] == 3
    assert [name for name, _ in sample.named()] == ["xs[1]", "y", "z"]
    assert array_of(sample.call(op)).tolist() == [1.0, 1.0, 1.0]


def test_bare_arrays_become_tensors() -> None:
    """A NumPy array in a sample is taken as a tensor on the same memory."""
    array = np.ones(3)
    (tensor,) = bound([], array).tensors()
    assert tensor.numpy() is array


def test_a_sample_that_does_not_fit_is_refused() -> None:
    """The error names the argument, and what it should be."""
    with pytest.raises(UsageError, match="a sample does not fit") as caught:
        bound([], 3)
    assert "y" in caught.value.argument and caught.value.declared


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3), (2, 0, 3), (2, 3, 4)])
def test_layouts_differ_and_values_do_not(shape: tuple[int, ...]) -> None:
    """S206: each layout has the same values, shape and dtype."""
    sample = bound([], of_array(np.arange(float(np.prod(shape))).reshape(shape)))
    made = dict(layouts(sample))
    assert set(made) == set(RELAYS)
    for other in made.values():
        (t,) = other.tensors()
        assert np.array_equal(array_of(t), array_of(sample.tensors()[0]))
    if shape == (2, 3):
        strides = {array_of(s.tensors()[0]).strides for s in made.values()}
        assert strides == {(8, 16), (48, 16), (-24, -8), (24, 8)}


@given(st.lists(st.integers(0, 4), max_size=3), st.lists(st.integers(0, 4), max_size=3))
def test_other_sizes_are_consistent(first: list[int], second: list[int]) -> None:
    """S204: axes of one size get one new size, in all tensors; 0, 1 and larger are tried."""
    xs = [of_array(np.ones(first)), of_array(np.ones(second))]
    sample = bound([xs[0]], xs[1])
    seen: dict[int, set[int]] = {}
    for _, other in resized(sample):
        change: dict[int, int] = {}
        for old, new in zip(sample.tensors(), other.tensors(), strict=True):
            for m, n in zip(array_of(old).shape, array_of(new).shape, strict=True):
                assert change.setdefault(m, n) == n
        assert any(m != n for m, n in change.items())
        for m, n in change.items():
            seen.setdefault(m, set()).add(n)
    sizes = sorted({*first, *second})[:3]
    for n in sizes:
        assert {0, 1} <= seen[n] | {n} and max(seen[n]) > n


def test_indices_stay_inside_a_shrunken_axis() -> None:
    """Made integers are no indices past the end of an axis that shrank."""
    sample = bound([of_array(np.ones(5))], of_array(np.array([4, 0, 3])))
    for name, other in resized(sample):
        values, indices = other.tensors()
        if name == "size 5 -> 1":
            assert array_of(values).shape == (1,) and array_of(indices).tolist() == [0, 0, 0]


def test_only_floating_tensors_are_cast() -> None:
    """Another dtype is for floating and complex tensors; indices keep theirs."""
    x, i, c = np.ones(2), np.ones(2, "int64"), np.ones(2, "complex128")
    sample = bound([of_array(i), of_array(c)], of_array(x))
    names = [t.dtype.name for t in cast(sample, "float32").tensors()]
    assert names == ["int64", "complex64", "float32"]

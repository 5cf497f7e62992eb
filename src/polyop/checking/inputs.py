"""Widening: other inputs made from an author's sample.

Values come from the sample, so that they stay in the operator's domain; what
changes is the layout, the sizes, the dtypes, or which optionals are given. A
made input that the operator refuses says nothing about the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from polyop import tree
from polyop.checking.choices import choices
from polyop.checking.sample import Array, Sample, array_of
from polyop.schema.types import OptionalType, RecordType, Type
from polyop.tensor.tensor import Tensor, is_floating, of_array

Relay = Callable[[Array], Array]


# -- layouts ------------------------------------------------------------------


def layouts(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample in other layouts; values, shapes and dtypes stay."""
    for name, relay in RELAYS.items():

        def moved(t: Tensor, relay: Relay = relay) -> Tensor:
            return of_array(relay(array_of(t)))

        yield name, sample.map(moved)


def transposed(array: Array) -> Array:
    """Put the axes into memory in the other order."""
    return np.array(array, order="F", copy=True)


def sliced(array: Array) -> Array:
    """Lie in every second element of a larger array."""
    if not array.ndim:
        return array.copy()
    wide = np.repeat(array, 2, axis=-1)
    return wide[..., ::2]


def backward(array: Array) -> Array:
    """Lie in memory from the last element to the first."""
    flip: tuple[Any, ...] = (..., *(slice(None, None, -1),) * array.ndim)  # of no axes, an array
    found: Array = array[flip].copy()[flip]
    return found


def offset(array: Array) -> Array:
    """Begin in the middle of a larger array."""
    room = np.empty(array.size + 1, array.dtype)
    if array.size:
        room[0] = array.reshape(-1)[0]
    made = room[1:].reshape(array.shape)
    made[...] = array
    return made


RELAYS: dict[str, Relay] = {
    "transposed": transposed,
    "sliced": sliced,
    "reversed": backward,
    "shifted": offset,
}


# -- sizes --------------------------------------------------------------------

#: How many size changes are tried.
MAX_SIZES = 12
#: How many elements are many.
MANY = 70
#: How many elements a made tensor may have, or how many times those of the sample's.
MOST_ELEMENTS, MOST_TIMES = 1 << 16, 4


def resized(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample at other sizes; axes of one size keep one size."""
    for change in _changes([t.payload.shape for t in sample.tensors()])[:MAX_SIZES]:
        yield _at_sizes(sample, change)


def of_one_and_many(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with one element in each tensor, and with more than a loop takes at once."""
    sizes = sorted({n for t in sample.tensors() for n in t.payload.shape})
    rank = max([t.ndim for t in sample.tensors()], default=0)
    if sizes and rank:
        yield _at_sizes(sample, dict.fromkeys(sizes, 1))
        least = math.ceil(MANY ** (1 / rank))
        many = {n: max(least, n + 1) + i for i, n in enumerate(sizes)}
        if _small([t.payload.shape for t in sample.tensors()], many):
            yield _at_sizes(sample, many)


def _at_sizes(sample: Sample, change: Mapping[int, int]) -> tuple[str, Sample]:
    said = ", ".join(f"{old} -> {new}" for old, new in change.items())
    return f"size {said}", sample.map(lambda t: of_array(_resize(array_of(t), change)))


def _changes(shapes: Sequence[Sequence[int]]) -> list[dict[int, int]]:
    """List changes of sizes: all at once, then one at a time to 0, 1 and more."""
    sizes = sorted({n for shape in shapes for n in shape})
    if not sizes:
        return []
    more = {n: n + 3 + 2 * i for i, n in enumerate(sizes)}
    if not _small(shapes, more):  # of many axes
        more = {n: n + 1 for n in sizes}
    larger = {n: m for n, m in more.items() if n != 1}
    together = [larger, more] if larger and larger != more else [more]
    single = [{n: m} for n in sizes for m in (0, 1, more[n]) if n != m]
    made = together + [c for c in single if c not in together]
    return [change for change in made if _small(shapes, change)]


def _small(shapes: Sequence[Sequence[int]], change: Mapping[int, int]) -> bool:
    """Tell whether tensors of these shapes are of bearable size after a change of sizes."""
    return all(
        math.prod([change.get(n, n) for n in shape]) <= _most(math.prod(shape)) for shape in shapes
    )


def _most(elements: int) -> int:
    """Give how many elements may be made of so many."""
    return max(MOST_ELEMENTS, MOST_TIMES * elements)


def _resize(array: Array, change: Mapping[int, int]) -> Array:
    made = _filled(array, [change.get(n, n) for n in array.shape])
    least = min([m for n, m in change.items() if m < n], default=0)
    if array.dtype.kind in "iu" and least:
        # Indices into an axis that shrank must stay inside it.
        made = np.asarray(np.clip(made, None, least - 1), array.dtype)
    return made


def _filled(array: Array, shape: Sequence[int]) -> Array:
    """Give an array of another shape with values of an array; what goes up goes up again."""
    if not rises(array) or not math.prod(shape):
        return np.resize(array, shape).astype(array.dtype, copy=False)
    places = np.linspace(0, array.size - 1, shape[0])
    found: Array = np.interp(places, np.arange(array.size), array)
    if array.dtype.kind != "f":
        found = found.round()
    return found.astype(array.dtype)


def rises(array: Array) -> bool:
    """Tell whether an array lists rising numbers, as knots and offsets must."""
    rising = array.ndim == 1 and array.size > 1 and array.dtype.kind in "fiu"
    return rising and bool((array[1:] >= array[:-1]).all() and 0 < array[-1] - array[0] < np.inf)


def unequal(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with several sizes where it has one: by axis, and by tensor.

    A square cannot tell a shape from its transpose, nor one argument's shape from another's.
    """
    tensors = sample.tensors()
    sizes = [n for t in tensors for n in t.payload.shape]
    if len(set(sizes)) == len(sizes):
        return
    for said in ("axis", "axis from the last", "argument"):
        made = [_stretched(t, k, said) for k, t in enumerate(tensors)]
        yield f"another size for each {said}", sample.rebuilt(made)


def _stretched(t: Tensor, number: int, said: str) -> Tensor:
    """Give a tensor with larger axes, each by another amount, or by that of the tensor's number."""
    steps = {"axis": range(t.ndim), "axis from the last": range(t.ndim - 1, -1, -1)}
    by = steps.get(said, [number] * t.ndim)
    shape = [*t.payload.shape]
    most = _most(math.prod(shape))
    for axis in sorted(range(t.ndim), key=by.__getitem__):
        longer = [*shape]
        longer[axis] += 3 + 2 * by[axis]
        if math.prod(longer) <= most:  # of many axes, not all have room
            shape = longer
    return of_array(_filled(array_of(t), shape))


def broadcast(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with one tensor cut to size 1 along some axes, or to a lower rank.

    At last all tensors are cut, each along another axis.
    """
    tensors, named = sample.tensors(), list(sample.named())
    if len(tensors) < 2:
        return
    for k, (name, t) in enumerate(named):
        array = array_of(t)
        seen = {array.shape}
        for cut in _cuts(array):
            if cut.shape not in seen:
                seen.add(cut.shape)
                made = [*tensors[:k], of_array(cut.copy()), *tensors[k + 1 :]]
                yield f"{name} of shape {list(cut.shape)}", sample.rebuilt(made)
    if all(t.ndim > 1 for t in tensors):
        cuts = [_cut(array_of(t), k % t.ndim) for k, t in enumerate(tensors)]
        said = [
            f"{name} of shape {list(a.shape)}" for (name, _), a in zip(named, cuts, strict=True)
        ]
        yield ", ".join(said), sample.rebuilt([of_array(a.copy()) for a in cuts])


def _cuts(array: Array) -> Iterator[Array]:
    """Cut to size 1 along the first axis, the last and all, and leave out the first and all."""
    if array.ndim:
        yield _cut(array, 0)
        yield _cut(array, array.ndim - 1)
        yield array[(slice(1),) * array.ndim]
    if array.size:
        yield from (np.asarray(array[(0,) * n]) for n in {1, array.ndim} if n <= array.ndim)


def _cut(array: Array, axis: int) -> Array:
    return array[(slice(None),) * axis + (slice(1),)]


# -- values -------------------------------------------------------------------


def mirrored(sample: Sample) -> Sample:
    """Give the sample with the other sign for all floating values."""

    def other(t: Tensor) -> Tensor:
        array = array_of(t)
        if array.dtype.kind not in "fcV":
            return t
        # Of no axes, what is computed is no array.
        return of_array(np.asarray(-(array[::-1] if rises(array) else array)))

    return sample.map(other)


def negated(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with the other sign for each floating argument in turn, then for all."""
    tensors, others = sample.tensors(), mirrored(sample).tensors()
    floating = [
        i for i, (t, other) in enumerate(zip(tensors, others, strict=True)) if t is not other
    ]
    for i in floating:
        yield (
            f"-{list(sample.named())[i][0]}",
            sample.rebuilt([*tensors[:i], others[i], *tensors[i + 1 :]]),
        )
    if len(floating) > 1:
        yield "all values with the other sign", sample.rebuilt(others)


def rolled(sample: Sample, by: int) -> Sample:
    """Give the sample with its elements moved by some places."""
    return sample.map(lambda t: of_array(np.roll(array_of(t), by)))


# -- dtypes -------------------------------------------------------------------


def cast(sample: Sample, dtype: str | np.dtype[Any]) -> Sample:
    """Give the sample with all floating tensors in another dtype."""
    wanted = np.dtype(dtype)
    complex_too = np.dtype("complex64" if wanted.itemsize <= 4 else "complex128")

    def converted(t: Tensor) -> Tensor:
        array = array_of(t)
        if array.dtype.kind == "c":
            return of_array(array.astype(complex_too, order="C"))
        return of_array(array.astype(wanted, order="C")) if is_floating(array.dtype) else t

    return sample.map(converted)


def other_kinds(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with its floating tensors as ints, as truth values, and as complex."""
    for dtype in ("int64", "bool", "complex128"):

        def converted(t: Tensor, dtype: str = dtype) -> Tensor:
            return of_array(array_of(t).astype(dtype)) if is_floating(t.dtype) else t

        yield f"dtype {dtype}", sample.map(converted)


def mixed(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with its last floating tensor in another precision."""
    named = list(sample.named())
    floating = [i for i, (_, t) in enumerate(named) if t.dtype.name in _OTHER]
    if len(floating) > 1:
        name, t = named[floating[-1]]
        dtype = _OTHER[t.dtype.name]
        tensors = sample.tensors()
        tensors[floating[-1]] = of_array(array_of(t).astype(dtype))
        yield f"{name} of dtype {dtype}", sample.rebuilt(tensors)


_OTHER = {"float32": "float64", "float64": "float32"}


# -- numbers ------------------------------------------------------------------


def _plain(sample: Sample, kind: type) -> list[tuple[int, str, Any]]:
    pairs = zip(sample.schema.arguments, sample.values, strict=True)
    return [(i, a.name, value) for i, (a, value) in enumerate(pairs) if value.__class__ is kind]


def revalued(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with each flag, number and choice changed in turn; ints go below zero too."""
    yield from choices(sample)
    for i, name, value in _plain(sample, int):
        if value != -1:
            yield f"{name}=-1", sample.replaced(i, -1)


# -- optionals ----------------------------------------------------------------


def without_optionals(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with None for each optional argument in turn, then for all."""
    given = list(_optionals(sample))
    for i, name in given:
        yield f"{name}=None", _left_out(sample, i, name)
    if len(given) > 1:
        bare = sample
        for i, name in given:
            bare = _left_out(bare, i, name)
        yield ", ".join(f"{name}=None" for _, name in given), bare


def _optionals(sample: Sample) -> Iterator[tuple[int, str]]:
    """Give what is optional and given: arguments, and fields of records, by their names."""
    for i, (a, value) in enumerate(zip(sample.schema.arguments, sample.values, strict=True)):
        if value is not None:
            if isinstance(a.type, OptionalType):
                yield i, a.name
            may = {a.name + way for way in _optional_fields(a.type)}
            found = [a.name + way for way in tree.paths(value)] if may else []
            yield from ((i, name) for name in found if name in may)


def _optional_fields(kind: Type, way: str = "") -> Iterator[str]:
    """Give the ways to the optional fields of a record, as of an object and as of a dict."""
    kind = kind.elem if isinstance(kind, OptionalType) else kind
    for name, field in kind.fields if isinstance(kind, RecordType) else ():
        for inside in (f"{way}.{name}", f"{way}[{name!r}]"):
            if isinstance(field, OptionalType):
                yield inside
            yield from _optional_fields(field, inside)


def _left_out(sample: Sample, position: int, name: str) -> Sample:
    """Give the sample with None for one argument, or for one field of a record."""
    value, argument = sample.values[position], sample.schema.arguments[position].name
    if value is None or name == argument:
        return sample.replaced(position, None)
    ways = iter(tree.paths(value))

    def kept(leaf: Any) -> Any:
        return None if argument + next(ways) == name else leaf

    return sample.replaced(position, tree.map_leaves(kept, value))

"""The law of the tag `pointwise`: each element of a result is made of the elements at its place.

Batches, chunks, shards, shapes and tangents follow from the tag, and none of them runs the kernel
to see. So elements of the sample are changed here, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from polyop.checking.derived import attempt
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.errors import OpCheckError
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

#: How many elements of each argument are changed.
MOST_ELEMENTS = 8
_FIX = "take Tag.pointwise off the operator, or compute each element of its own place alone"


@law("test_pointwise", "With the tag pointwise, an element depends on the elements at its place.")
def pointwise_law(case: Case) -> None:
    """Change elements of the arguments, and look which elements of the results change."""
    op = case.op
    if Tag.pointwise not in op.tags:
        raise DoesNotApply("the operator is not tagged pointwise")
    if op._schema.is_mutable:
        raise DoesNotApply("the operator writes its arguments")
    before = _arrays(case, case.run())
    shape = np.broadcast_shapes(*[array_of(t).shape for t in case.sample.tensors()])
    for name, array in before:
        if array.shape != shape:
            raise OpCheckError(
                f"{name} of {case.name} has another shape than its arguments broadcast to",
                op=op._schema, declared=f"shape {shape}: the operator is tagged pointwise",
                seen=f"shape {array.shape}", source=case.kernel_source, fix=_FIX,
            )  # fmt: skip
    case.needs_determinism()
    case.needs_repeats()
    for number, (name, tensor) in enumerate(case.sample.named()):
        for place, sample in _changed(case.sample, number, array_of(tensor)):
            found = attempt(op, sample)
            if found is not None:
                _compare(case, f"{name}{list(place)}", place, before, _arrays(case, found[1]))


def _arrays(case: Case, result: object) -> list[tuple[str, Array]]:
    leaves = leaves_named(result, len(case.op._schema.returns))
    return [(name, array_of(leaf)) for name, leaf in leaves if isinstance(leaf, Tensor)]


def _changed(sample: Sample, number: int, array: Array) -> Iterator[tuple[tuple[int, ...], Sample]]:
    """Give the sample with one element of a tensor changed to another one that is there."""
    step = max(1, array.size // MOST_ELEMENTS)
    for flat in range(0, array.size, step):
        place = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        others = array[array != array[place]]
        if not others.size:
            return
        tensors = sample.copy().tensors()
        made = array.copy()
        made[place] = others[flat % others.size]
        tensors[number] = of_array(made)
        yield place, sample.rebuilt(tensors)


def _compare(
    case: Case, element: str, place: tuple[int, ...], before: list[tuple[str, Array]],
    after: list[tuple[str, Array]],
) -> None:  # fmt: skip
    """Hold results to those before, away from the places that the element reaches.

    Raises:
        OpCheckError: another element changed.
    """
    for (name, old), (_, new) in zip(before, after, strict=True):
        if old.shape != new.shape:
            moved = np.ones(old.shape, bool)
        else:
            moved = ~((old == new) | (np.isnan(old) & np.isnan(new)))
        reached = np.zeros(old.shape, bool)
        reached[_reach(case, element, place, old.shape)] = True
        if (moved & ~reached).any():
            where = np.argwhere(moved & ~reached)[0].tolist()
            raise OpCheckError(
                f"{name} of {case.name} at {where} depends on {element}",
                op=case.op._schema, argument=element.partition("[")[0],
                declared="each element of its own place: the operator is tagged pointwise",
                seen=f"{old[tuple(where)]} became {new[tuple(where)]}"
                if old.shape == new.shape else f"shape {old.shape} became {new.shape}",
                source=case.kernel_source, fix=_FIX,
            )  # fmt: skip


def _reach(
    case: Case, element: str, place: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int | slice, ...]:
    """Give the places of a result that an element is broadcast to."""
    sizes = next(
        array_of(t).shape for name, t in case.sample.named() if element.startswith(f"{name}[")
    )
    lead: tuple[int | slice, ...] = (slice(None),) * (len(shape) - len(sizes))
    return lead + tuple(
        slice(None) if size == 1 else i for i, size in zip(place, sizes, strict=True)
    )

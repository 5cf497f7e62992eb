"""What a recipe declares of its results, to which every chunk that is computed is held.

A fake rule is asked of whole arrays when the recipe is written, and of chunks when they are
computed. Nobody but the author says that the two belong together: Dask goes on with the sizes that
follow from how the arguments are cut. So a chunk is held to these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from dask.tokenize import tokenize

from polyop.bridges.dask.arrays import meta_from_array
from polyop.bridges.dask.outlines import Fact, Shape
from polyop.dispatch.operator import OpOverload
from polyop.errors import ReturnError

#: The axes with which one is cut: of each the number of the operand, and of its axis.
Meets = tuple[tuple[int, int], ...]


class Declared(NamedTuple):
    """What is declared of one result.

    Attributes:
        dtype: of all its chunks.
        axes: for each axis its size, `nan` if data decides it; or the axes with which it is cut.
    """

    dtype: np.dtype[Any]
    axes: tuple[float | Meets, ...]

    @property
    def is_cut(self) -> bool:
        """Whether an axis is cut as those of operands are."""
        return any(isinstance(axis, tuple) for axis in self.axes)

    def of_chunk(self, shapes: Sequence[Shape]) -> Fact:
        """Give what a chunk of it is, that is computed from chunks of the operands."""
        sizes = [
            _met([shapes[i][k] for i, k in axis]) if isinstance(axis, tuple) else axis
            for axis in self.axes
        ]
        return Fact(tuple(sizes), self.dtype)


def _met(sizes: Sequence[float]) -> float:
    """Give the size of axes that meet: one of a single element is repeated."""
    return next((n for n in sizes if n != 1), 1)


class Compared:
    """Lets the chunks of an array through that are as it declares.

    Args:
        array: of Dask, made by an author's rule.
        text: the array's operator and number among the results, for errors.
        parts: of the error: `op`, `source`.
    """

    def __init__(self, array: Any, text: str, parts: dict[str, str]) -> None:
        self.chunks = array.chunks
        self.dtype = array.dtype
        self.text = text
        self.parts = parts

    def __dask_tokenize__(self) -> Any:
        return "polyop", self.text, str(self.chunks), str(self.dtype), self.parts

    def __call__(self, chunk: Any, block_id: tuple[int, ...] = ()) -> Any:
        """Give the chunk.

        Raises:
            ReturnError: it has another shape or dtype.
        """
        found = chunk if hasattr(chunk, "dtype") else np.asarray(chunk)
        sizes = tuple([sizes[n] for sizes, n in zip(self.chunks, block_id, strict=True)])
        if fits(found.shape, sizes) and found.dtype == self.dtype:
            return chunk
        raise ReturnError(
            f"chunk {block_id} of {self.text} is not what the array of its chunks rule declares",
            declared=Fact(sizes, self.dtype),
            seen=Fact(found.shape, found.dtype),
            fix="correct the rule: dask.array.map_blocks takes dtype=, chunks= and meta=",
            **self.parts,
        )


def compared(op: OpOverload, i: int, array: Any) -> Any:
    """Give an array of an author's rule, each of whose chunks is looked at when it is computed."""
    parts = {"op": str(op._schema), "source": str(op.rule_source("chunks"))}
    check = Compared(array, f"result {i} of {op.name()}", parts)
    meta = meta_from_array(array)
    return array.map_blocks(
        check, dtype=array.dtype, meta=meta, name=f"{op._opname}-{tokenize(check, array)}"
    )


def declared_whole(facts: Sequence[Fact]) -> tuple[Declared, ...]:
    """Declare results in one chunk."""
    return tuple([Declared(fact.dtype, fact.shape) for fact in facts])


def declared_cut(
    facts: Sequence[Fact], made: Sequence[Sequence[str]], given: Sequence[Sequence[str]]
) -> tuple[Declared, ...]:
    """Declare results in blocks: an axis is cut as those of the operands that have its label.

    Args:
        facts: what is known of each whole result.
        made: the labels of its axes.
        given: the labels of the axes of each operand.
    """
    meets: dict[str, Meets] = {}
    for i, labels in enumerate(given):
        for k, label in enumerate(labels):
            meets[label] = (*meets.get(label, ()), (i, k))
    return tuple([
        Declared(
            fact.dtype,
            tuple([meets.get(x, n) for x, n in zip(labels, fact.shape, strict=True)]),
        )
        for fact, labels in zip(facts, made, strict=True)
    ])  # fmt: skip


def fits(seen: Sequence[float], wanted: Sequence[float]) -> bool:
    """Tell whether a shape is another one, of which sizes may not be known."""
    pairs = zip(seen, wanted, strict=False)
    return len(seen) == len(wanted) and all(
        math.isnan(a) or math.isnan(b) or a == b for a, b in pairs
    )

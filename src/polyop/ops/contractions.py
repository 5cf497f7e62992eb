"""Einstein's sums: products of tensors, summed over the indices that the result leaves out.

Subscripts are read once into labels. What follows is diagonals, products of
matrices, sums and orders of axes, so every layer acts on it without a rule of
its own. Which operands meet first depends on labels alone, never on sizes: a
program that is traced computes as the function does.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop.devices import DType, as_dtype
from polyop.errors import ArgumentError
from polyop.ops import view_metas
from polyop.ops.elementwise import multiply
from polyop.ops.linear import matmul
from polyop.ops.reductions import any as any_of
from polyop.ops.reductions import sum as sum_of
from polyop.ops.rounding import astype
from polyop.ops.shapes import broadcast, promote
from polyop.ops.views import alias, diagonal, permute_dims, reshape, squeeze
from polyop.tensor.meta import Shape, Size

#: A letter, or a number of a sublist; an axis of the ellipsis is a pair, counted from the last.
Label = Any
#: The labels of one tensor's axes, and an ellipsis where axes are not named.
Term = tuple[Label, ...]


def einsum(subscripts: Any, /, *operands: Any) -> Any:
    """Sum products of tensors over the indices that the result leaves out.

    `einsum("ij,jk->ik", a, b)` is the tensor of `sum_j a[i, j] * b[j, k]`. An
    index that comes twice in a term stands for a diagonal, `...` for axes that
    are not named and broadcast, and a size of one is repeated. Without an arrow
    the result has the axes of `...` and then the indices that come once, in order.

    Operands meet two at a time: the first with the one that it shares most
    indices with, that with the next. One operand whose axes are put in order,
    or cut to a diagonal, comes back as a view.

    Args:
        subscripts: for each operand its axes as letters, with commas between, and after an arrow
            those of the result; or the first operand.
        operands: the tensors, in any dtypes that promote; or, after the first, its axes as a
            list of integers, then each next operand and its list, and at last the result's list.

    Raises:
        ArgumentError: subscripts are malformed, or do not fit the operands or their sizes.

    Example:
        >>> import polyop
        >>> a, b = polyop.ones((2, 3)), polyop.ones((3, 4))
        >>> polyop.einsum("ij,jk->ik", a, b).shape
        (2, 4)
        >>> polyop.einsum(a, [0, 1], b, [1, 2], [2, 0]).shape
        (4, 2)

    Source: Einstein, "Die Grundlage der allgemeinen Relativitätstheorie" (1916), § 5; the notation
    is that of `numpy.einsum`.
    """
    plan, given = _told(subscripts, operands)
    widths = _widths(plan, given)
    labels = [_named(term, width) for term, width in zip(plan.terms, widths, strict=True)]
    parts = list(map(_of_distinct, _promoted(given), labels, range(len(given))))
    result = _named(plan.result, max(widths))
    done, *rest = _unrepeated(parts)
    while rest:
        shared = [len({*done.labels} & {*part.labels}) for part in rest]
        part = rest.pop(shared.index(max(shared)))
        done = _product(done, part, {*result}.union(*[p.labels for p in rest]))
    done = _summed(done, {*result})
    if done.labels != result:
        return permute_dims(done.x, [done.labels.index(label) for label in result])
    return alias(done.x) if done.x is given[0] else done.x


# -- subscripts -----------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Subscripts that were read: the labels of each operand, and those of the result."""

    terms: tuple[Term, ...]
    result: Term
    source: str


def _told(subscripts: Any, operands: Sequence[Any]) -> tuple[Plan, Sequence[Any]]:
    """Give the plan of a call, and its operands."""
    if isinstance(subscripts, str):
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = operands[0]
        plan = _of_text(subscripts)
    else:
        given = [subscripts, *operands]
        operands, lists = given[: len(given) // 2 * 2 : 2], given[1::2]
        result = _sublist(given[-1]) if len(given) % 2 else None
        plan = _planned(tuple(map(_sublist, lists)), result, "sublists")
    if len(operands) != len(plan.terms):
        _refuse(
            "each operand has one term of subscripts",
            declared=f"{len(plan.terms)} operands by {plan.source}",
            seen=f"{len(operands)} operands",
            fix="put a comma between terms",
        )
    return plan, operands


@lru_cache(maxsize=4096)
def _of_text(text: str) -> Plan:
    """Read subscripts of letters."""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = tuple([_letters(term, text) for term in left.split(",")])
    return _planned(terms, _letters(right, text) if arrow else None, repr(text))


def _letters(term: str, text: str) -> Term:
    head, dots, tail = term.partition("...")
    for letter in head + tail:
        if letter not in string.ascii_letters:
            _refuse(
                _MALFORMED.get(letter, f"{letter!r} is no index"),
                declared="letters, one '...' a term, ',' between terms, one '->' before the result",
                seen=repr(text),
            )
    return (*head, ..., *tail) if dots else tuple(head)


#: What is wrong where a character stands that is none of the words.
_MALFORMED = {
    ".": "a dot is part of one ellipsis '...' a term",
    "-": "an arrow '->' stands once, before the result",
    ">": "an arrow '->' stands once, before the result",
    ",": "the result is one term",
}


def _sublist(given: Any) -> Term:
    """Read subscripts of one tensor from a list."""
    if not isinstance(given, (list, tuple)):
        _refuse(
            "operands and lists of their indices come in turn",
            declared='einsum("ij,jk->ik", a, b) or einsum(a, [0, 1], b, [1, 2], [0, 2])',
            seen=type(given).__name__,
        )
    for label in given:
        integer = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
        if label is not ... and not (integer and label >= 0):
            _refuse(
                f"{label!r} is no index of a sublist",
                declared="integers from 0, and one ...",
                seen=given,
            )
    if given.count(...) > 1:
        _refuse("an ellipsis stands once a term", seen=given)
    return tuple([label if label is ... else int(label) for label in given])


def _planned(terms: tuple[Term, ...], result: Term | None, source: str) -> Plan:
    """Check the labels of a result, or find them: the ellipsis, and what comes once in order."""
    labels = [label for term in terms for label in term]
    if result is None:
        once = sorted([n for n in labels if n is not ... and labels.count(n) == 1])
        return Plan(terms, (*([...] if ... in labels else []), *once), source)
    for label in result:
        if result.count(label) > 1:
            _refuse(f"the index {label!r} comes twice in the result", seen=source)
        if label is not ... and label not in labels:
            _refuse(
                f"the result's index {label!r} is none of an operand's",
                seen=source,
                fix="name it in a term too, or leave it out of the result",
            )
    return Plan(terms, result, source)


def _refuse(problem: str, **parts: Any) -> NoReturn:
    view_metas.refuse("einsum", problem, **{"argument": "subscripts", **parts})


# -- operands -------------------------------------------------------------------


class Labelled(NamedTuple):
    """A tensor and the labels of its axes, each of which comes once."""

    x: Any
    labels: Term

    def size(self, label: Label) -> Size:
        """Give the size of the axis of a label."""
        size: Size = self.x.shape[self.labels.index(label)]
        return size

    def sizes(self, labels: Sequence[Label]) -> list[Size]:
        """Give the sizes of the axes of some labels."""
        return [self.size(label) for label in labels]


def _widths(plan: Plan, operands: Sequence[Any]) -> list[int]:
    """Count the axes that each operand's ellipsis stands for."""
    widths = []
    for place, (x, term) in enumerate(zip(operands, plan.terms, strict=True)):
        if not hasattr(x, "shape"):
            _refuse(
                f"operand {place} is no tensor",
                argument="operands",
                seen=type(x).__name__,
                fix="make it one with polyop.asarray",
            )
        named = len(term) - (... in term)
        width = len(x.shape) - named
        if width < 0 or (width and ... not in term):
            _refuse(
                f"operand {place} has {len(x.shape)} axes, of which subscripts name {named}",
                declared=plan.source,
                seen=f"shape {tuple(x.shape)}",
                fix="name each axis, or stand '...' for those that have no name",
            )
        widths.append(width)
    return widths


def _named(term: Term, width: int) -> Term:
    """Give a term with labels for the axes of its ellipsis, which are counted from the last."""
    if ... not in term:
        return term
    at = term.index(...)
    return (*term[:at], *[(..., i - width) for i in range(width)], *term[at + 1 :])


def _promoted(operands: Sequence[Any]) -> list[Any]:
    """Give all operands in the dtype that they promote to: no partial result is of a lesser one."""
    if all(x.dtype is operands[0].dtype for x in operands):
        return list(operands)
    dtypes = [_dtype(x) for x in operands]
    wanted = promote(*dtypes)
    return [
        x if dtype == wanted else astype(x, wanted)
        for x, dtype in zip(operands, dtypes, strict=True)
    ]


def _dtype(x: Any) -> DType:
    """Give the dtype of a tensor; that of another library's array by its name."""
    dtype = x.dtype
    return dtype if isinstance(dtype, np.dtype) else as_dtype(str(dtype).rpartition(".")[2])


def _of_distinct(x: Any, labels: Term, place: int) -> Labelled:
    """Take the diagonal of axes that have one label, so that each label is that of one axis."""
    for label in labels:
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            a, b = x.shape[first], x.shape[second]
            if not (a is b or a == b):
                _refuse(
                    f"index {label!r} of operand {place} stands for axes that differ in size",
                    argument="operands",
                    seen=f"shape {tuple(x.shape)}",
                )
            x = diagonal(x, 0, first, second)
            labels = (*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], label)
    return Labelled(x, labels)


def _unrepeated(parts: Sequence[Labelled]) -> list[Labelled]:
    """Leave out axes of size one whose label stands for more elsewhere: products repeat them."""
    sizes: dict[Label, Size] = {}
    for place, part in enumerate(parts):
        for label, size in zip(part.labels, part.x.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known is not size:
                sizes[label] = _common(label, place, known, size)
    return [_squeezed(part, sizes) for part in parts]


def _common(label: Label, place: int, known: Size, size: Size) -> Size:
    shapes: tuple[Shape, Shape] = ((known,), (size,))
    try:
        return broadcast("einsum", *shapes)[0]
    except ArgumentError:
        name = f"axis {label[1]} of '...'" if isinstance(label, tuple) else f"index {label!r}"
        _refuse(
            f"{name} stands for axes that differ in size",
            argument="operands",
            declared=f"{known} by an operand before",
            seen=f"{size} in operand {place}",
        )


def _squeezed(part: Labelled, sizes: dict[Label, Size]) -> Labelled:
    out = [
        axis
        for axis, (label, size) in enumerate(zip(part.labels, part.x.shape, strict=True))
        if not (size is sizes[label] or size == sizes[label])
    ]
    if not out:
        return part
    kept = tuple([label for axis, label in enumerate(part.labels) if axis not in out])
    return Labelled(squeeze(part.x, out), kept)


# -- sums of products -------------------------------------------------------------


def _summed(part: Labelled, kept: set[Label]) -> Labelled:
    """Sum over the axes whose labels are not kept, in the tensor's own dtype."""
    axes = [axis for axis, label in enumerate(part.labels) if label not in kept]
    if not axes:
        return part
    dtype = _dtype(part.x)
    if dtype.kind == "b":
        x = any_of(part.x, axis=axes)
    else:
        x = sum_of(part.x, axis=axes, dtype=dtype)
    return Labelled(x, tuple([label for label in part.labels if label in kept]))


def _product(a: Labelled, b: Labelled, kept: set[Label]) -> Labelled:
    """Multiply two tensors, and sum over the labels that are not kept."""
    a, b = _summed(a, kept.union(b.labels)), _summed(b, kept.union(a.labels))
    rows = [label for label in a.labels if label not in b.labels]
    columns = [label for label in b.labels if label not in a.labels]
    batch = [label for label in a.labels if label in b.labels and label in kept]
    inner = [label for label in a.labels if label in b.labels and label not in kept]
    labels = (*batch, *rows, *columns)
    if not inner:
        return Labelled(multiply(_spread(a, labels), _spread(b, labels)), labels)
    product = matmul(_matrices(a, batch, rows, inner), _matrices(b, batch, inner, columns))
    if len(rows) == len(columns) == 1:
        return Labelled(product, labels)
    sizes = [*a.sizes(batch), *a.sizes(rows), *b.sizes(columns)]
    return Labelled(reshape(product, sizes), labels)


def _spread(part: Labelled, labels: Term) -> Any:
    """Put axes in the order of some labels, with one of size one for each that is missing."""
    x = _ordered(part, [label for label in labels if label in part.labels])
    if len(part.labels) == len(labels):
        return x
    return reshape(x, [part.size(n) if n in part.labels else 1 for n in labels])


def _matrices(part: Labelled, batch: list[Label], rows: list[Label], columns: list[Label]) -> Any:
    """Give a batch of matrices: axes of rows become one, those of columns another."""
    x = _ordered(part, [*batch, *rows, *columns])
    if len(rows) == len(columns) == 1:
        return x
    height: Any = 1
    for size in part.sizes(rows):
        height = height * size
    width: Any = 1
    for size in part.sizes(columns):
        width = width * size
    return reshape(x, [*part.sizes(batch), height, width])


def _ordered(part: Labelled, labels: list[Label]) -> Any:
    axes = [part.labels.index(label) for label in labels]
    return part.x if axes == sorted(axes) else permute_dims(part.x, axes)


__all__ = ["einsum"]

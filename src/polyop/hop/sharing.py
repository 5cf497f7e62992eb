"""Results of functions that share memory, in calls that stay whole.

A layer gets the results of such a call one by one. So each function tells
which of its results are views of others, when it gives them; behind the layer
these are taken again, of what the layer made of the others. Then it sees a
write to one of them in all. Where that is not possible, a write is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

from polyop import tree
from polyop.dispatch.bits import WRAPPED
from polyop.hop.forms import inside
from polyop.hop.steps import memory_of
from polyop.layers.functionalize.apart import apart, begins_with, same_view
from polyop.layers.functionalize.storage import Chain, Step, last_step
from polyop.tensor.storage import is_sealed, seal
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class Place(NamedTuple):
    """Whose memory a result has.

    Attributes:
        kind: `own`, `operand`, `result`, or `sealed` if it is not known.
        number: of the operand, or of the result.
        steps: the views that lead from there.
    """

    kind: str
    number: int = -1
    steps: tuple[Any, ...] = ()


OWN, SEALED = Place("own"), Place("sealed")


class Told:
    """Functions that tell how their results share memory.

    Args:
        op: the operator that calls them, and gives what one of them gives.
    """

    def __init__(self, op: Any) -> None:
        self.op = op
        self.found: list[list[list[Place]]] = []

    def telling(self, fn: Fn) -> Fn:
        """Give the same function, which tells."""
        told: list[list[Place]] = []
        self.found.append(told)

        @wraps(fn, updated=())
        def run(*args: Any, **kwargs: Any) -> Any:
            out = fn(*args, **kwargs)
            told[:] = [places(tree.leaves(out), tree.leaves((args, kwargs)))]
            return out

        return run

    def joined(self, operands: Sequence[Any], results: Sequence[Any]) -> list[Any]:
        """Give the results of the call, with views taken again."""
        ran = [told[0] for told in self.found if told]
        return joined(self.op, together(ran), operands, results) if ran else list(results)


def joined(
    op: Any, found: Sequence[Place], operands: Sequence[Any], results: Sequence[Any]
) -> list[Any]:
    """Take results again that are views, by the places that they have."""
    done = list(results)
    for i, place in enumerate(found):
        if place.kind == "sealed":
            refuse_writes(op, done[i])
        elif place.kind != "own":
            made = (done if place.kind == "result" else operands)[place.number]
            for step in place.steps:
                made = step.take(made)
            done[i] = made
    return done


def refuse_writes(op: Any, tensor: Tensor) -> None:
    """Refuse later writes to a tensor, inside the transforms that it belongs to."""
    seal(tensor, op)
    while tensor.keys & WRAPPED:
        tensor = inside(tensor)
        if tensor.keys & WRAPPED:
            seal(tensor, op)


def like(given: Sequence[Sequence[Any]], results: Sequence[Any]) -> list[Any]:
    """Give fakes of which those are views that are views in what each function gave."""
    found = together([places(x) for x in given])
    return joined("", [OWN if p.kind == "sealed" else p for p in found], (), results)


def seal_operands(
    op: Any, found: Sequence[Place], told: Sequence[list[Place]], operands: Sequence[Any]
) -> None:
    """Refuse writes to operands that the results of some samples share memory with."""
    indices = {
        p.number for given in told for p, kept in zip(given, found, strict=True)
        if p.kind == "operand" and kept.kind == "sealed"
    }  # fmt: skip
    for i in indices:
        if operands[i].keys & WRAPPED:  # what is none outlives the samples
            refuse_writes(op, operands[i])


# -- whose memory a result has ----------------------------------------------------------------


class Viewed(NamedTuple):
    """A tensor by its number, and how it is a view of a base."""

    number: int
    base: Tensor
    chain: Chain


def places(results: Sequence[Any], operands: Sequence[Any] = ()) -> list[Place]:
    """Tell whose memory the results of a function have."""
    known: dict[int, Step] = {}
    given = [Viewed(i, *chain_of(x, known)) for i, x in enumerate(operands) if _is_tensor(x)]
    ours = [Viewed(i, *chain_of(x, known)) for i, x in enumerate(results) if _is_tensor(x)]
    done = [OWN] * len(results)
    for group in _groups(ours):
        inputs = [x for x in given if memory_of(x.base) == memory_of(group[0].base)]
        root = min(group, key=lambda x: len(x.chain))
        kind, bases = ("operand", inputs) if inputs else ("result", [root])
        found = [_place(kind, bases, x) for x in group]
        if any(is_sealed(results[x.number]) for x in group):
            found.append(SEALED)  # a call inside did not know
        for x, place in zip(group, found, strict=False):
            itself = not inputs and x is root
            done[x.number] = SEALED if SEALED in found else OWN if itself else place
    return done


def chain_of(tensor: Tensor, known: dict[int, Step]) -> tuple[Tensor, Chain]:
    """Give the tensor that one is a view of in the end, and the steps from there.

    A tensor has one step for all views of it, and so one history.
    """
    steps: list[Step] = []
    while found := last_step(tensor):
        steps.append(known.setdefault(id(tensor), found[1]))
        tensor = found[0]
    return tensor, tuple(reversed(steps))


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _groups(viewed: Sequence[Viewed]) -> list[list[Viewed]]:
    """Put tensors together that may have an element in common."""
    groups: list[list[Viewed]] = []
    for x in viewed:
        meets = [g for g in groups if any(_meet(x, y) for y in g)]
        groups = [g for g in groups if g not in meets]
        groups.append([x, *(y for g in meets for y in g)])
    return groups


def _meet(a: Viewed, b: Viewed) -> bool:
    if a.base is b.base:
        return not apart(a.chain, b.chain)
    return memory_of(a.base) == memory_of(b.base)


def _place(kind: str, bases: Sequence[Viewed], x: Viewed) -> Place:
    """Give the place behind the first base that a tensor is a view of."""
    for base in bases:
        steps = x.chain[len(base.chain) :]
        if base.base is x.base and begins_with(x.chain, base.chain) and all(map(_keeps, steps)):
            return Place(kind, base.number, steps)
    return SEALED


def _keeps(step: Any) -> bool:
    """Tell whether a view can be taken again elsewhere."""
    plain = isinstance(step, Step)
    return plain and not any(isinstance(x, Tensor) for x in tree.leaves(step.args))


def together(told: Sequence[list[Place]]) -> list[Place]:
    """Give the places of results that one of several functions gives, sealed where they differ."""
    first, *others = told
    if all(all(map(_agree, first, more)) for more in others):
        return first
    shared = {i for found in told for i, p in enumerate(found) if p.kind != "own"}
    shared |= {p.number for found in told for p in found if p.kind == "result"}
    return [SEALED if i in shared else OWN for i in range(len(first))]


def _agree(a: Place, b: Place) -> bool:
    same = a[:2] == b[:2] and len(a.steps) == len(b.steps)
    return same and all(map(same_view, a.steps, b.steps))

"""What a `Function` says that it wrote: the history of a write, without the write (S137).

The memory has its new value when forward is done. The written argument then
gets the history of a copy of the result to it, as an operator that writes
gives it: its base and all views follow, and what cannot be followed is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.results import tensors_in
from polyop.errors import MutationError
from polyop.layers.autograd.aliases import write
from polyop.layers.autograd.context import Context
from polyop.layers.autograd.inplace import refuse_unseen, writing
from polyop.layers.autograd.saved import bare
from polyop.ops.define import operator_of
from polyop.ops.inplace import copy_
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor

COPY = operator_of(copy_)
Places = list[tuple[int, int]]
#: Gives the history of a copy, for memory that has the value.
_follow = writing(COPY, lambda x, _: x)


def marked(traits: Any, ctx: Context, args: Sequence[Any], out: Any) -> list[Tensor]:
    """Give the arguments that are marked dirty.

    Args:
        traits: of the `Function`.
        ctx: as it was filled.
        args: what forward was called with.
        out: what it gave.

    Raises:
        MutationError: one is no result, or two share memory.
    """
    given = {id(t): t for t in tensors_in(tuple(args))}
    found = [given[key] for key in dict.fromkeys(ctx._dirty) if key in given]
    results = [id(t) for t in tensors_in(out)]
    versions = [id(t.version) for t in found if t.version.__class__ is Version]
    for t in found:
        if results.count(id(t)) != 1 or len(set(versions)) < len(versions):
            one = results.count(id(t)) == 1
            what = "two arguments that share memory" if one else "an argument"
            raise MutationError(
                f"{traits} marks {what} dirty" + ("" if one else ", which is not one result"),
                op=traits, source=traits.source, seen=f"shape {tuple(t.shape)}",
                fix="write only one of them" if one else "return the argument, once",
            )  # fmt: skip
    return found


def substitutes(written: Sequence[Tensor], out: Any) -> Any:
    """Give results with tensors in the place of the written ones, which are to get their history.

    What was marked keeps the history that it had before.
    """
    made = {id(x): _on_its_own(x) for x in written}
    return tree.map_leaves(lambda leaf: made.get(id(leaf), leaf), out)


def _on_its_own(x: Tensor) -> Tensor:
    t = bare(x)
    t.version = 0
    return t


def follow(traits: Any, written: Sequence[Tensor], out: Any, results: Any) -> None:
    """Give written tensors the history of what stands in their places.

    Raises:
        MutationError: one is a leaf, a view of one, or a view whose base cannot follow.
    """
    pairs = {id(a): b for a, b in zip(tree.leaves(out), tree.leaves(results), strict=True)}
    for x in written:
        with _named(traits):
            if not x.keys & GRAD:
                refuse_unseen(COPY, x)
            _follow(x, pairs[id(x)])


def follow_at_level(
    traits: Any, level: Any, args: Sequence[Any], written: Places, results: Any
) -> Any:
    """Give arguments of a level the values and histories of what was written; give the results.

    Args:
        traits: of the `Function`.
        level: a gradient, or a forward derivative.
        args: what it was called with at the level.
        written: the number of each written argument, and of its result.
        results: of the level.

    Raises:
        MutationError: an argument is an input of the level, or its base cannot follow.
    """
    if not written:
        return results
    given, (leaves, spec) = tree.leaves(tuple(args)), tree.flatten(results)
    for i, k in written:
        x, record = given[i], leaves[k].payload
        if record.value is x:  # from outside: the level takes it over, and not what it wraps
            record.value = _on_its_own(x)
        with _named(traits), level.watching():
            write(level, COPY, (x, leaves[k]), level.is_input)
        leaves[k] = x
    return tree.unflatten(spec, leaves)


def places(args: Sequence[Any], out: Any, written: Sequence[Tensor] | None = None) -> Places:
    """Give the numbers of arguments that come back, or of written ones, and of their results."""
    numbers = {id(x): i for i, x in enumerate(tree.leaves(tuple(args))) if isinstance(x, Tensor)}
    if written is not None:
        numbers = {id(x): numbers[id(x)] for x in written}
    found = enumerate(tree.leaves(out))
    return [(numbers[id(x)], k) for k, x in found if id(x) in numbers]


def given_back(
    args: Sequence[Any], values: Sequence[Any], out: Any, wrap: Callable[[Any], Any]
) -> Any:
    """Wrap results; an argument that comes back is itself, and sees what is written to it."""
    given, (leaves, spec) = tree.leaves(tuple(args)), tree.flatten(out)
    same = {k: given[i] for i, k in places(values, out)}
    return tree.unflatten(spec, [same[k] if k in same else wrap(x) for k, x in enumerate(leaves)])


@contextmanager
def _named(traits: Any) -> Iterator[None]:
    """Let an error say whose write it is."""
    try:
        yield
    except MutationError as error:
        raise MutationError(
            error.problem.replace(COPY.name(), str(traits)),
            op=traits, seen=error.seen, source=traits.source,
            fix="let forward write a clone, or give it one",
        ) from error  # fmt: skip

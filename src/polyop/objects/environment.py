"""What a captured function reads besides its arguments, and whether it is still the same.

A capture runs the function once; a number that it read from a global or a
closure is part of the graph. So the values that code can reach (`walk.py`) are
looked at before each run: plain values by their bits, containers by what they
hold, tensors and functions by identity. What changes during the capture is put
back, since the call then runs without it. What other libraries keep is not
seen; a change there is the caller's word (`docs/architecture.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from polyop.objects.held import Held
from polyop.objects.reads import Cache, Kept, Names, Read, Unseen
from polyop.objects.state import State
from polyop.objects.walk import One, Walk
from polyop.schema.opaque import is_input
from polyop.tensor.tensor import Tensor

__all__ = [
    "One",
    "containers_in",
    "environment",
    "objects_in",
    "only_filled",
    "put_back",
    "root_of",
    "tensors_in",
    "tensors_of",
    "unseen",
]


def environment(fn: Callable[..., Any], leaves: Iterable[Any] = ()) -> tuple[One, ...]:
    """List what a function, and the functions that it calls, read.

    Args:
        fn: the function.
        leaves: its arguments; what those that are objects or functions read counts too.
    """
    # Inputs the program takes, and the capture has fakes of them.
    given = [leaf for leaf in leaves if not isinstance(leaf, Tensor) and not is_input(leaf)]
    return Walk(root_of(fn)).run([fn, *given])


def root_of(fn: Any) -> str:
    """Give the top package of a function; what is the user's there, is wherever it lies."""
    while hasattr(type(fn), "func"):
        fn = fn.func
    module = getattr(fn, "__module__", None) or type(fn).__module__
    top = str(module).partition(".")[0]
    return "" if top in {"polyop", "numpy", "builtins"} else top


def unseen(reads: Iterable[One]) -> str:
    """Name the first thing that the function reads and nobody can look at, or give nothing."""
    return next((f"{one.name} {one.problem}" for one in reads if isinstance(one, Unseen)), "")


def put_back(reads: Iterable[One]) -> str:
    """Give what was read its values again; name the first that had changed."""
    changed = [one for one in reads if not one.untouched()]
    for one in changed:
        one.restore()
    return next((one.name for one in changed if one.name), "attributes") if changed else ""


def only_filled(reads: Iterable[One]) -> bool:
    """Tell whether all that changed are caches of Python's own, which have become fuller."""
    changed = [one for one in reads if not one.untouched()]
    return all(isinstance(x, (Cache, Held, Names)) and x.filled() for x in changed)


def tensors_in(reads: Iterable[One]) -> set[int]:
    """Give the ids of the tensors that were read, or are in a container or wrapper that was."""
    return set(map(id, tensors_of(reads)))


def objects_in(reads: Iterable[One]) -> set[int]:
    """Give the ids of the opaque objects that were read."""
    return {id(one.scope) for one in reads if isinstance(one, State)}


def containers_in(reads: Iterable[One]) -> set[int]:
    """Give the ids of the containers that were read."""
    return {id(one.scope) for one in reads if isinstance(one, Held)}


def tensors_of(reads: Iterable[One]) -> list[Tensor]:
    """List the tensors that were read, or are in a container or wrapper that was, each once."""
    found: dict[int, Tensor] = {}
    for one in reads:
        if isinstance(one, (Read, Kept)):
            inner = one.content if isinstance(one.content, tuple) else ()
            first = one.value if isinstance(one, Read) else one.scope
            own = first if isinstance(first, tuple) else ()
            found |= {id(x): x for x in (first, *inner, *own) if isinstance(x, Tensor)}
        elif isinstance(one, Held) and isinstance(one.content, tuple):
            found |= {id(x): x for x in one.content if isinstance(x, Tensor)}
    return list(found.values())

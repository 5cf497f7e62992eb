"""The arguments that a function is differentiated by, as tensors in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop.errors import UsageError
from polyop.layers.rows import Build, taken_apart

Fn = Callable[..., Any]
Argnums = int | tuple[int, ...]


def by_leaves(
    func: Fn, argnums: Argnums, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Fn, Sequence[Any], Build]:
    """Give a function of the leaves of chosen arguments, these, and what builds as was asked."""
    places = places_of(argnums, len(args))
    several = isinstance(argnums, tuple)
    leaves, build = taken_apart(tuple([args[i] for i in places]) if several else args[places[0]])

    def of_leaves(*values: Any) -> Any:
        full, chosen = list(args), build(values)
        for i, value in zip(places, chosen if several else (chosen,), strict=True):
            full[i] = value
        return func(*full, **kwargs)

    return of_leaves, leaves, build


def places_of(argnums: Argnums, count: int) -> list[int]:
    """Give the places of the chosen arguments, counted from the front."""
    places = list(argnums) if isinstance(argnums, tuple) else [argnums]
    for i in places:
        if not isinstance(i, int) or not -count <= i < count:
            raise UsageError(
                f"argnums {argnums} does not fit {count} arguments",
                declared=f"{-count} to {count - 1}", seen=repr(i),
            )  # fmt: skip
    found = [i % count for i in places]
    if len(set(found)) < len(found):
        raise UsageError(
            f"argnums {argnums} names an argument twice", declared="each argument once",
            seen=repr(argnums), fix="give each number once; -1 is the last argument",
        )  # fmt: skip
    return found

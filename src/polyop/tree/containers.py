"""Containers by way of `optree`, with `None` as an empty one.

So optional tensors vanish from the leaves. Dataclasses are containers once
they are known (a record of a schema registers its class here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import optree

from polyop.tree.records import Rest, fields_of, made_record, note_record, rest_of

NAMESPACE = "polyop"
TreeSpec: TypeAlias = optree.PyTreeSpec


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """Give the leaves of a tree, and the structure that `unflatten` needs."""
    return optree.tree_flatten(tree, is_leaf=is_leaf, namespace=NAMESPACE)


def unflatten(spec: TreeSpec, leaves: Iterable[Any]) -> Any:
    """Put leaves into a structure."""
    return optree.tree_unflatten(spec, leaves)


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """Give the leaves of a tree, in order."""
    return optree.tree_leaves(tree, is_leaf=is_leaf, namespace=NAMESPACE)


def structure(tree: Any) -> TreeSpec:
    """Give the structure of a tree."""
    return optree.tree_structure(tree, namespace=NAMESPACE)


def map_leaves(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `fn` to each leaf (and to the leaves of equal trees beside it)."""
    return optree.tree_map(fn, tree, *rest, namespace=NAMESPACE)


def paths(tree: Any) -> list[str]:
    """Name each leaf by its way from the root, such as `[0]['w']`."""
    return [
        optree.PyTreeAccessor(a).codify("")
        for a in optree.tree_accessors(tree, namespace=NAMESPACE)
    ]


def children(value: Any) -> tuple[list[Any], list[Any] | None]:
    """Give the names and values one level down, or None for a leaf."""
    if value is None or optree.tree_is_leaf(value, namespace=NAMESPACE):
        return [], None
    parts, _, names, _ = optree.tree_flatten_one_level(value, namespace=NAMESPACE)
    return list(names), list(parts)


def outline(tree: Any) -> str:
    """Write a structure with a star for each leaf, such as `(*, [*, *])`."""
    # The namespace is written only where a container of ours is inside.
    text = str(structure(tree)).removeprefix("PyTreeSpec(").removesuffix(")")
    return text.removesuffix(f", namespace={NAMESPACE!r}")


def register_record(cls: type, names: tuple[str, ...]) -> None:
    """Make a class with named fields a container of trees."""

    def explode(record: Any) -> tuple[tuple[Any, ...], Rest | None, tuple[str, ...]]:
        return tuple(getattr(record, name) for name in names), rest_of(record), names

    def build(rest: Any, children: Iterable[Any]) -> Any:
        return made_record(cls, rest, children)

    if cls not in _known:
        _known.add(cls)
        note_record(cls, names)
        optree.register_pytree_node(cls, explode, build, namespace=NAMESPACE)


#: The classes that are containers.
_known: set[type] = set()


def is_unopened(leaf: Any) -> bool:
    """Tell whether a leaf is a container that trees do not open: a mapping or a sequence."""
    return isinstance(leaf, (Mapping, Sequence)) and not isinstance(leaf, (str, bytes))


def learn_record(cls: type) -> bool:
    """Register the subclass of a known record, with its own fields; tell whether it was new."""
    if cls in _known or not hasattr(cls, "__dataclass_fields__"):
        return False
    if not any(base in _known for base in cls.__mro__):
        return False
    register_record(cls, fields_of(cls))
    return True


def record_values(value: Any) -> tuple[Any, ...] | None:
    """Give the values of a record's fields, or None for anything else."""
    if value.__class__ not in _known:
        return None
    return tuple(getattr(value, name) for name in fields_of(value.__class__))


def build_record(cls: type, *values: Any) -> Any:
    """Make a record of the values of its fields, in order."""
    return made_record(cls, None, values)


def remake_record(cls: type, rest: Rest, *values: Any) -> Any:
    """Make a record with what it had beside its fields."""
    return made_record(cls, rest, values)

"""Containers by way of `optree`, with `None` as an empty one.

So optional tensors vanish from the leaves. Dataclasses are containers once
they are known (a record of a schema registers its class here).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import optree

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

    def explode(record: Any) -> tuple[tuple[Any, ...], None, tuple[str, ...]]:
        return tuple(getattr(record, name) for name in names), None, names

    def build(_: Hashable | None, children: Iterable[Any]) -> Any:
        return build_record(cls, *children)

    if cls not in _records:
        optree.register_pytree_node(cls, explode, build, namespace=NAMESPACE)
        _records[cls] = names


def is_container(leaf: Any) -> bool:
    """Tell whether a leaf is a container all the same, of a class that was not known as one."""
    if learn_record(leaf.__class__):
        return True
    return isinstance(leaf, (Mapping, Sequence)) and not isinstance(leaf, (str, bytes))


def learn_record(cls: type) -> bool:
    """Register the subclass of a known record, with its own fields; tell whether it was new."""
    if cls in _records or not hasattr(cls, "__dataclass_fields__"):
        return False
    if not any(base in _records for base in cls.__mro__):
        return False
    register_record(cls, tuple(f.name for f in fields(cls) if f.init))
    return True


def record_values(value: Any) -> tuple[Any, ...] | None:
    """Give the values of a record's fields, or None for anything else."""
    names = _records.get(value.__class__)
    return None if names is None else tuple(getattr(value, name) for name in names)


def build_record(cls: type, *values: Any) -> Any:
    """Make a record of the values of its fields, in order."""
    return cls(**dict(zip(_records[cls], values, strict=True)))


_records: dict[type, tuple[str, ...]] = {}

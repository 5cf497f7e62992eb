"""What an author's backward returns, laid beside the arguments (S127, S128).

A `Spec` stands for an argument: its node, shape and dtype, so that the tensor
itself need not be kept; lists, dicts and records of arguments are mirrored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from polyop.layers.autograd.arrays import cast_tensor
from polyop.layers.autograd.context import refuse
from polyop.layers.autograd.node import Node
from polyop.tensor.tensor import Tensor


class Spec:
    """What backward must know of a tensor argument."""

    __slots__ = ("dtype", "node", "shape")
    node: Node | None
    shape: Any
    dtype: Any


def make_spec(node: Node | None, shape: Any, dtype: Any) -> Spec:
    """Make a spec of its facts."""
    made = Spec()
    made.node, made.shape, made.dtype = node, shape, dtype
    return made


NodeOf = Callable[[Any], Node | None]


def spec_of(outer: Any, node_of: NodeOf) -> Any:
    """Mirror an argument, with a `Spec` for each tensor and None for anything else."""
    if isinstance(outer, Tensor):
        payload = outer.payload
        return make_spec(node_of(outer), payload.shape, payload.dtype)
    if outer is None or outer.__class__ in _PLAIN:
        return None
    if outer.__class__ in {list, tuple}:
        return [spec_of(x, node_of) for x in outer]
    named = outer if isinstance(outer, dict) else fields_of(outer)
    return None if named is None else {k: spec_of(v, node_of) for k, v in named.items()}


_PLAIN = {int, float, bool, str, complex}


def fields_of(value: Any) -> dict[str, Any] | None:
    """Give the fields of a dataclass or NamedTuple by name, or None for anything else."""
    names = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    if names is None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init]
    return None if names is None else {name: getattr(value, name) for name in names}


def needs_of(spec: Any) -> Any:
    """Give a bool for each argument, mirrored."""
    if spec.__class__ is Spec:
        return spec.node is not None
    if spec.__class__ is list:
        return [needs_of(x) for x in spec]
    if spec.__class__ is dict:
        return {k: needs_of(v) for k, v in spec.items()}
    return False


def nodes_in(spec: Any) -> Iterator[Node]:
    """Give the nodes of an argument that needs gradients."""
    if spec.__class__ is Spec:
        if spec.node is not None:
            yield spec.node
    elif spec.__class__ in {list, dict}:
        for inner in spec.values() if spec.__class__ is dict else spec:
            yield from nodes_in(inner)


def held(name: str, spec: Any, given: Any) -> Any:
    """Give what backward returned for its one argument, so that it holds the gradient.

    Where the argument is a container, a tuple may be its mirror, or hold it, and so may a dict:
    a part of the argument may have the argument's name.
    """
    if spec.__class__ not in {list, dict}:
        return given
    if isinstance(given, tuple):
        holds = given.__class__ is tuple and len(given) == 1 and _may_mirror(given[0], spec)
    elif isinstance(given, dict) and set(given) == {name}:
        holds = spec.__class__ is list or _may_mirror(given[name], spec)
    else:
        return given
    return given if holds else (given,)


def _may_mirror(given: Any, spec: Any) -> bool:
    """Tell whether a gradient may be that of a container."""
    if given is None or not isinstance(given, (Tensor, list, tuple, dict)):
        return True
    if spec.__class__ is list:
        return given.__class__ in {list, tuple}
    return isinstance(given, dict) or hasattr(given, "_fields")


Found = Iterator[tuple[Node, Any]]


def matched(op: Any, source: Any, name: str, spec: Any, given: Any) -> Found:
    """Give each gradient with the node that it is for.

    Raises:
        AutogradError: the structure, a shape or a type does not fit.
    """
    if given is None:
        return
    if spec.__class__ is Spec:
        yield from _one(op, source, name, spec, given)
    elif spec.__class__ is list:
        if given.__class__ not in {list, tuple} or len(given) != len(spec):
            _structure(op, source, name, f"a list of {len(spec)}", given)
        for i, (inner, value) in enumerate(zip(spec, given, strict=True)):
            yield from matched(op, source, f"{name}[{i}]", inner, value)
    elif spec.__class__ is dict:
        yield from _record(op, source, name, spec, given)
    else:
        raise refuse(
            op,
            f"backward returned a gradient for {name!r}, which holds no Tensor",
            argument=name,
            declared="None",
            seen=describe(given),
            source=source,
            fix="return None in its place",
        )


def _one(op: Any, source: Any, name: str, spec: Spec, given: Any) -> Found:
    if not isinstance(given, Tensor):
        _structure(op, source, name, f"a Tensor of shape {tuple(spec.shape)}, or None", given)
    if tuple(given.shape) != tuple(spec.shape):
        raise refuse(
            op,
            f"backward returned a gradient of the wrong shape for {name!r}",
            argument=name,
            declared=f"shape {tuple(spec.shape)}",
            seen=f"shape {tuple(given.shape)}",
            source=source,
            fix="return a gradient of the argument's shape",
        )
    if spec.node is not None:
        if given.dtype != spec.dtype:
            note_cast(name, spec.dtype, given.dtype)
        yield spec.node, cast_tensor(given, spec.dtype)


#: An argument or result, its dtype, and that of its gradient, or tangent, from an author.
Cast = tuple[str, Any, Any]
_watching: ContextVar[list[Cast] | None] = ContextVar("watching", default=None)


@contextmanager
def watching_casts() -> Iterator[list[Cast]]:
    """Collect the casts of gradients and tangents in the block; they are no error (S128)."""
    casts: list[Cast] = []
    token = _watching.set(casts)
    try:
        yield casts
    finally:
        _watching.reset(token)


def note_cast(name: str, declared: Any, seen: Any) -> None:
    """Tell who watches that a gradient, or a tangent, is cast."""
    casts = _watching.get()
    if casts is not None:
        casts.append((name, declared, seen))


def _record(op: Any, source: Any, name: str, spec: dict[Any, Any], given: Any) -> Found:
    named = fields_of(given)
    given = given if named is None else named
    if not isinstance(given, dict) or not set(given) <= set(spec):
        _structure(op, source, name, f"a dict with {', '.join(map(str, spec))}", given)
    for key, value in given.items():
        if named is not None and spec[key] is None and not isinstance(value, Tensor):
            continue  # the author's class needs a number there, which says nothing
        yield from matched(op, source, f"{name}[{key!r}]", spec[key], value)


def _structure(op: Any, source: Any, name: str, declared: str, given: Any) -> None:
    raise refuse(
        op,
        f"backward returned something that does not fit {name!r}",
        argument=name,
        declared=declared,
        seen=describe(given),
        source=source,
        fix="mirror the argument, with None where there is no gradient",
    )


def describe(value: Any) -> str:
    """Say what was given."""
    if isinstance(value, Tensor):
        return f"Tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)} ({', '.join(map(describe, value))})"
    if isinstance(value, dict):
        return f"dict with {', '.join(map(str, value))}"
    return f"{type(value).__name__} {value!r:.60}"

"""All operators by name: what is defined, by whom, and how it is found.

An operator lives until the last of its owners goes. Its rules are kept by
name, apart from the definition, because a kernel may be registered before the
operator is defined (S39). Everything here happens under one lock, and checks
come before changes, so that a refused registration leaves nothing behind (S4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import LOCK, OpOverload, OpOverloadPacket
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import Kernel, Place, Places, on_fallback_change
from polyop.errors import (
    DuplicateRegistrationError,
    OperatorNotFoundError,
    RegistrationError,
    UsageTypeError,
    nearest,
)
from polyop.schema.model import FunctionSchema
from polyop.schema.tags import Tag
from polyop.source import Source


@dataclass(slots=True)
class Definition:
    """An operator and who defined it where; it goes with the last of them."""

    op: OpOverload
    owners: list[tuple[object, Source]] = field(default_factory=list)


DEFINITIONS: dict[str, Definition] = {}
PLACES: dict[str, Places] = {}
PACKETS: dict[str, OpOverloadPacket] = {}


# -- defining -----------------------------------------------------------------


def define(
    schema: FunctionSchema,
    tags: tuple[Tag, ...],
    source: Source,
    owner: object,
    *,
    replace: bool = False,
) -> OpOverload:
    """Define an operator; the same schema again joins the first (S34).

    Raises:
        DuplicateRegistrationError: the name has another schema, and `replace` is false.
    """
    with LOCK:
        name = schema.qualified_name
        there = DEFINITIONS.get(name)
        if there is not None and there.op._schema == schema and not replace:
            there.owners.append((owner, source))
            return there.op
        if there is not None and not replace:
            raise DuplicateRegistrationError(
                f"{name} is defined already, with another schema",
                op=there.op._schema,
                declared=there.op._schema,
                seen=schema,
                source=f"{there.op.source}; again at {source}",
                fix="choose another name or overload, or pass replace=True",
            )
        if there is not None:
            _remove(name)
            PLACES.pop(name, None)
        return _add(schema, tags, source, owner)


def _add(
    schema: FunctionSchema, tags: tuple[Tag, ...], source: Source, owner: object
) -> OpOverload:
    name = schema.qualified_name
    op = OpOverload(schema, tags, source, places_of(name))
    DEFINITIONS[name] = Definition(op, [(owner, source)])
    packet = PACKETS.get(schema.name)
    if packet is None:
        packet = PACKETS[schema.name] = OpOverloadPacket(schema.name)
    packet.add(op)
    return op


def _remove(name: str) -> None:
    op = DEFINITIONS.pop(name).op
    packet = PACKETS[op._schema.name]
    packet.drop(op)
    if not packet.op_overloads():
        del PACKETS[op._schema.name]
        NAMESPACES.forget(packet)
    op.remove()


class _Namespaces:
    """The attribute caches that must forget a removed name; filled by `namespaces.py`."""

    def forget(self, packet: OpOverloadPacket) -> None:
        """Forget a packet."""
        for cache in self.caches:
            if cache.get(packet.__name__) is packet:
                del cache[packet.__name__]

    def __init__(self) -> None:
        self.caches: list[dict[str, Any]] = []


NAMESPACES = _Namespaces()


def places_of(name: str) -> Places:
    """Give the rules kept for a name, defined or not."""
    if name not in PLACES:
        PLACES[name] = Places(name)
    return PLACES[name]


def put(name: str, place: Place, kernel: Kernel, *, allow_override: bool = True) -> None:
    """Register a kernel or a rule of an operator.

    Raises:
        DuplicateRegistrationError: the place is taken and may not be overridden.
        RegistrationError: a fake rule for an operator that decomposes (S38).
    """
    with LOCK:
        places = places_of(name)
        if place in {"fake", DispatchKey.Meta}:
            _refuse_fake_of_composite(name, places, kernel)
        places.put(place, kernel, allow_override=allow_override)
        if name in DEFINITIONS:
            DEFINITIONS[name].op.changed()


def _refuse_fake_of_composite(name: str, places: Places, kernel: Kernel) -> None:
    composite = places.top(DispatchKey.CompositeImplicitAutograd)
    if composite is not None:
        raise RegistrationError(
            f"{name} decomposes, so it needs no fake rule",
            op=name,
            seen=f"a fake rule at {kernel.source}",
            source=composite.source,
            fix="register the kernel at CompositeExplicitAutograd, or leave the fake rule out",
        )


def take_back(name: str, place: Place, kernel: Kernel) -> None:
    """Undo one registration; what others registered there stays."""
    with LOCK:
        if name in PLACES and PLACES[name].remove(place, kernel) and name in DEFINITIONS:
            DEFINITIONS[name].op.changed()


def disown(owner: object) -> None:
    """Undo all that an owner defined and registered."""
    with LOCK:
        for name, definition in list(DEFINITIONS.items()):
            kept = [(o, s) for o, s in definition.owners if o is not owner]
            if len(kept) < len(definition.owners):
                definition.owners[:] = kept
                if not kept:
                    _remove(name)
        for name, places in list(PLACES.items()):
            if places.remove_owner(owner) and name in DEFINITIONS:
                DEFINITIONS[name].op.changed()
        _sweep()


def _sweep() -> None:
    """Drop the rules that an operator registered for itself, once it is gone."""
    for name, places in list(PLACES.items()):
        if name not in DEFINITIONS:
            places.remove_owner(places)
            if not any(True for _ in places.items()):
                del PLACES[name]


def _forget_all() -> None:
    with LOCK:
        for definition in DEFINITIONS.values():
            definition.op.changed()


on_fallback_change.append(_forget_all)


# -- finding ------------------------------------------------------------------


def split_name(name: str) -> tuple[str, str, int]:
    """Split `ns::op.overload@version`; version 0 means the newest."""
    base, _, version = name.partition("@")
    space, _, rest = base.partition("::")
    op, _, overload = rest.partition(".")
    overload = "" if overload == "default" else overload
    return f"{space}::{op}", overload, int(version) if version.isdigit() else 0


def find_operator(name: str, overload: str = "", version: int = 0) -> OpOverload:
    """Find one overload.

    Raises:
        OperatorNotFoundError: there is none; it names the nearest, and a
            kernel that waits for the definition.
    """
    packet = find_packet(name)
    found = [op for op in packet.op_overloads() if op._schema.overload_name == overload]
    if version:
        found = [packet.at(version)]
    if not found:
        raise OperatorNotFoundError(
            f"{name} has no overload {overload or 'default'!r}",
            declared=", ".join(packet.overloads()),
        )
    return found[0]


def find_packet(name: str) -> OpOverloadPacket:
    """Find all overloads of a name."""
    packet = PACKETS.get(name)
    if packet is None:
        raise OperatorNotFoundError(
            f"there is no operator {name!r}{nearest(name, PACKETS)}",
            source=_waiting(name),
            fix="define it with polyop.custom_op, or import the module that does",
        )
    return packet


def _waiting(name: str) -> str:
    for qualified, places in PLACES.items():
        if split_name(qualified)[0] == name:
            for _, kernel in places.items():
                return f"a kernel waits for its definition: {kernel.source}"
    return ""


def as_operator(op: Any) -> OpOverload:
    """Give the overload that a name, packet, overload or `CustomOpDef` stands for (S46).

    Raises:
        UsageTypeError: it is none of these.
        UsageError: a packet of several overloads.
        OperatorNotFoundError: no such name.
    """
    inner = getattr(op, "_opoverload", op)
    if isinstance(inner, OpOverload):
        if not inner.alive:
            inner.gone()
        return inner
    if isinstance(inner, OpOverloadPacket):
        found = inner.op_overloads()
        if len(found) != 1:
            raise UsageTypeError(
                f"{inner} has several overloads",
                seen=", ".join(inner.overloads()),
                fix=f"name one: {inner}.{found[0]._overloadname}",
            )
        return found[0]
    if isinstance(inner, str):
        return find_operator(*split_name(inner))
    raise UsageTypeError(
        f"a {type(op).__name__} is no operator",
        seen=repr(op)[:120],
        fix='give the name "ns::op", an overload, or what custom_op returned',
    )


PARTS.find_operator = find_operator

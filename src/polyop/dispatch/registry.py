"""All operators by name: what is defined, by whom, and how it is found.

An operator lives until the last of its owners goes. Its rules are kept by
name, apart from the definition, because a kernel may be registered before the
operator is defined (S39). Everything here happens under one lock, and checks
come before changes, so that a refused registration leaves nothing behind (S4).
"""

from __future__ import annotations

from typing import Any

from polyop.dispatch.factories import select_backend
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.late_operators import LATE_OPERATORS, bring
from polyop.dispatch.lock import LOCK
from polyop.dispatch.objects import operator_class
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import (
    Kernel,
    Place,
    Places,
    on_fallback_change,
)
from polyop.errors import (
    DuplicateRegistrationError,
    LibraryGoneError,
    OperatorNotFoundError,
    RegistrationError,
    UsageError,
    UsageTypeError,
    nearest,
)
from polyop.records import NamedTuple
from polyop.schema.model import FunctionSchema
from polyop.schema.tags import Tag
from polyop.source import Source


class Definition(NamedTuple):
    """An operator and who defined it where; it goes with the last of them.

    `module` is that of the function which the operator was made of.
    """

    op: OpOverload
    module: str
    owners: list[tuple[object, Source]]


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
    module: str = "",
) -> OpOverload:
    """Define an operator; the same schema again joins the first (S34).

    Without an owner, the operator owns itself.

    Raises:
        DuplicateRegistrationError: the name has another schema, and `replace` is false.
    """
    with LOCK:
        name = schema.qualified_name
        claim(owner, name)
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
        return _add(schema, tags, source, owner, module)


def _add(
    schema: FunctionSchema, tags: tuple[Tag, ...], source: Source, owner: object, module: str
) -> OpOverload:
    name = schema.qualified_name
    op = operator_class(schema)(schema, tags, source, places_of(name))
    DEFINITIONS[name] = Definition(op, module, [(op.places if owner is None else owner, source)])
    for place, kernel in list(op.places.items()):  # what came before the definition
        select_backend(op, place, kernel)
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
    PARTS.removed(op)


class _Namespaces:
    """The attribute caches that must forget a removed name; filled by `namespaces.py`."""

    def __init__(self) -> None:
        self._caches: dict[OpOverloadPacket, list[dict[str, Any]]] = {}

    def keep(self, packet: OpOverloadPacket, cache: dict[str, Any]) -> None:
        """Remember that a cache holds a packet."""
        self._caches.setdefault(packet, []).append(cache)

    def forget(self, packet: OpOverloadPacket) -> None:
        """Forget a packet."""
        for cache in self._caches.pop(packet, ()):
            if cache.get(packet.__name__) is packet:
                del cache[packet.__name__]


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
        there = DEFINITIONS.get(name)
        if there is not None:
            put_rule(there.op, place, kernel, allow_override=allow_override)
            return
        claim(kernel.owner, name)
        try:
            _put(places_of(name), place, kernel, allow_override=allow_override)
        finally:
            _drop_if_empty(name)


def put_rule(op: OpOverload, place: Place, kernel: Kernel, *, allow_override: bool = True) -> None:
    """Register a kernel or a rule of an operator that must still be there.

    Raises:
        OperatorGoneError: it was removed meanwhile.
        DuplicateRegistrationError: the place is taken and may not be overridden.
        RegistrationError: a fake rule for an operator that decomposes (S38).
    """
    with LOCK:
        if not op.alive:
            op.gone()
        claim(kernel.owner, op.places.op)
        _put(op.places, place, kernel, allow_override=allow_override)
        select_backend(op, place, kernel)
        op.changed()


def _put(places: Places, place: Place, kernel: Kernel, *, allow_override: bool) -> None:
    if place in _FAKES:
        _refuse_fake_of_composite(places.op, places, kernel)
    places.put(place, kernel, allow_override=allow_override)


_FAKES = ("fake", DispatchKey.Meta)


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


def disown(owner: object) -> None:
    """Undo all that an owner defined and registered."""
    with LOCK:
        names = _names_of(owner)
        for name in names:
            definition = DEFINITIONS.get(name)
            if definition is not None:
                _disown_definition(name, definition, owner)
        for name in names:
            places = PLACES.get(name)
            if places is None:
                continue
            if places.remove_owner(owner) and name in DEFINITIONS:
                DEFINITIONS[name].op.changed()
            _drop_if_empty(name)


def _disown_definition(name: str, definition: Definition, owner: object) -> None:
    kept = [(o, s) for o, s in definition.owners if o is not owner]
    if len(kept) < len(definition.owners):
        definition.owners[:] = kept
        if not kept:
            _remove(name)
            # What the operator registered for itself goes with it.
            PLACES[name].remove_owner(PLACES[name])


def _names_of(owner: object) -> list[str]:
    """Give the names that an owner has something under: an operator owns what is under its own."""
    if isinstance(owner, Places):
        return [owner.op]
    names = getattr(owner, "names", None)
    return [*DEFINITIONS, *PLACES] if names is None else list(names)


def claim(owner: object, name: str) -> None:
    """Note that an owner has something under a name, unless it is gone."""
    if not getattr(owner, "alive", True):
        raise LibraryGoneError(
            f"{owner} was destroyed", op=name, fix="register with a library that is there"
        )
    names = getattr(owner, "names", None)
    if names is not None:
        names.add(name)


def _drop_if_empty(name: str) -> None:
    if name not in DEFINITIONS and not any(True for _ in PLACES[name].items()):
        del PLACES[name]


def _forget_all() -> None:
    with LOCK:
        for definition in DEFINITIONS.values():
            definition.op.changed()


on_fallback_change.append(_forget_all)


# -- finding ------------------------------------------------------------------


def split_name(name: str) -> tuple[str, str, int]:
    """Split `ns::op.overload@version`; version 0 means the newest."""
    base, at, version = name.partition("@")
    space, found, rest = base.partition("::")
    op, _, overload = rest.partition(".")
    if not found or (at and not version.isdigit()):
        raise UsageError(
            f"{name!r} is no operator name",
            declared="namespace::name, namespace::name.overload, or either with @version",
            fix='write it like "mylib::crop"',
        )
    overload = "" if overload == "default" else overload
    return f"{space}::{op}", overload, int(version or 0)


def full_name(name: str) -> str:
    """Spell a name as schemas do: `default` and `@1` are left out."""
    base, overload, version = split_name(name)
    return base + (f".{overload}" if overload else "") + (f"@{version}" if version > 1 else "")


def find_operator(name: str, overload: str | None = "", version: int = 0) -> OpOverload:
    """Find one overload, the first one for None; version 0 is the newest.

    Raises:
        OperatorNotFoundError: there is none; it names the nearest, and a
            kernel that waits for the definition.
    """
    packet = find_packet(name)
    found = packet.op_overloads()
    if overload is not None:
        found = [op for op in found if op._schema.overload_name == overload]
        if found and version:
            found = [packet.at(version, overload)]
    if not found:
        raise OperatorNotFoundError(
            f"{name} has no overload {overload or 'default'!r}",
            declared=", ".join(packet.overloads()),
        )
    return found[0]


def find_packet(name: str) -> OpOverloadPacket:
    """Find all overloads of a name."""
    if name not in PACKETS:
        bring(name)
    packet = PACKETS.get(name)
    if packet is None:
        raise OperatorNotFoundError(
            f"there is no operator {name!r}{nearest(name, [*PACKETS, *LATE_OPERATORS])}",
            source=_waiting(name),
            fix="define it with polyop.custom_op, or import the module that does",
        )
    return packet


def _waiting(name: str) -> str:
    for qualified, places in PLACES.copy().items():  # in one step: other threads define
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
        if not found:
            inner.gone()
        if len(found) > 1:
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
PARTS.packets = PACKETS

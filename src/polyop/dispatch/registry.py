"""All operators by name: what is defined, by whom, and how it is found.

An operator lives until the last of its owners goes. Its rules are kept by
name, apart from the definition, because a kernel may be registered before the
operator is defined (S39). Everything here happens under one lock, and checks
come before changes, so that a refused registration leaves nothing behind (S4).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from polyop.dispatch.attribute_caches import NAMESPACES
from polyop.dispatch.factories import select_backend
from polyop.dispatch.late_operators import LATE_OPERATORS, bring
from polyop.dispatch.lock import LOCK, to_the_end
from polyop.dispatch.objects import operator_class
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.parameters import fitted
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import Kernel, Place, Places, on_fallback_change
from polyop.errors import (
    DuplicateRegistrationError,
    LibraryGoneError,
    OperatorNotFoundError,
    UsageError,
    UsageTypeError,
    an,
    nearest,
)
from polyop.records import NamedTuple
from polyop.schema.model import FunctionSchema
from polyop.schema.tags import Tag
from polyop.source import Source


class Definition(NamedTuple):
    """An operator and who defined it where, with which tags; it goes with the last of them.

    `module` is that of the function which the operator was made of.
    """

    op: OpOverload
    module: str
    owners: list[tuple[object, Source, tuple[Tag, ...]]]


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
            return join(there, there.op.places if owner is None else owner, source, tags)
        if there is not None and not replace:
            raise DuplicateRegistrationError(
                f"{name} is defined already, with another schema",
                op=there.op._schema,
                declared=there.op._schema,
                seen=schema,
                source=f"{there.op.source}; again at {source}",
                fix="choose another name or overload, or take its place: polyop.library.define("
                f"{name!r}, {str(schema).removeprefix(name)!r}, replace=True)",
            )
        if there is not None:
            to_the_end(_remove, name)
            PLACES.pop(name, None)
        return _add(schema, tags, source, owner, module)


def join(there: Definition, owner: object, source: Source, tags: tuple[Tag, ...]) -> OpOverload:
    """Let an owner define an operator that is there."""
    others = [said for said in there.owners if said[0] is not owner]
    there.owners[:] = [*others, (owner, source, tags)]
    _retag(there)
    return there.op


def _retag(there: Definition) -> None:
    """Let an operator have the tags of all its definitions, and no others (S106)."""
    said = list(dict.fromkeys(tag for _, _, tags in there.owners for tag in tags))
    if len(there.owners) > 1:
        said.sort(key=lambda tag: (tag is not Tag.pt2_compliant_tag, tag.value))
    if tuple(said) != there.op.tags:
        there.op.tags = tuple(said)
        there.op.changed()


def _add(
    schema: FunctionSchema, tags: tuple[Tag, ...], source: Source, owner: object, module: str
) -> OpOverload:
    name = schema.qualified_name
    op = operator_class(schema)(schema, tags, source, PLACES.get(name) or Places(name))
    PLACES[name] = op.places
    said = (op.places if owner is None else owner, source, tags)
    DEFINITIONS[name] = Definition(op, module, [said])
    try:
        op.places.renew(lambda place, kernel: fitted(op, (place,), kernel))
        for place, kernel in list(op.places.items()):  # what came before the definition
            select_backend(op, place, kernel)
        packet = PACKETS.get(schema.name)
        if packet is None:
            packet = PACKETS[schema.name] = OpOverloadPacket(schema.name)
        packet._add(op)
    except BaseException:  # refused, or interrupted
        _remove(name)
        _drop_if_empty(name)
        raise
    return op


def _remove(name: str) -> None:
    """Take an operator out, also one that was added half; the definition last, to go on by."""
    if name not in DEFINITIONS:
        return
    op = DEFINITIONS[name].op
    packet = PACKETS.get(op._schema.name)
    if packet is not None:
        packet._drop(op)
        if not packet.op_overloads():
            NAMESPACES.forget(packet)
            del PACKETS[op._schema.name]
    op.remove()
    PARTS.removed(op)
    del DEFINITIONS[name]


def places_of(name: str) -> Places:
    """Give the rules kept for a name, defined or not."""
    if name not in PLACES:
        PLACES[name] = Places(name)
    return PLACES[name]


def put(name: str, place: Place, kernel: Kernel, *, allow_override: bool = True) -> None:
    """Register a kernel or a rule of an operator, see `Places.check`."""
    put_all(name, (place,), kernel, allow_override=allow_override)


def put_all(
    name: str, places: Collection[Place], kernel: Kernel, *, allow_override: bool = True
) -> None:
    """Register a kernel of an operator at several places, or at none of them (S4)."""
    with LOCK:
        there = DEFINITIONS.get(name)
        if there is not None:
            put_kernel(there.op, places, kernel, allow_override=allow_override)
            return
        claim(kernel.owner, name)
        try:
            places_of(name).put_all(places, kernel, allow_override=allow_override)
        finally:
            _drop_if_empty(name)


def put_rule(op: OpOverload, place: Place, kernel: Kernel, *, allow_override: bool = True) -> None:
    """Register a kernel or a rule of an operator that must still be there.

    Raises:
        OperatorGoneError: it was removed meanwhile.
        PolyopError: the kernel may not stand there, see `Places.check`.
    """
    put_kernel(op, (place,), kernel, allow_override=allow_override)


def put_kernel(
    op: OpOverload, places: Collection[Place], kernel: Kernel, *, allow_override: bool = True
) -> None:
    """Register a kernel at several places of an operator, or at none of them (S4)."""
    with LOCK:
        if not op.alive:
            op.gone()
        claim(kernel.owner, op.places.op)
        op.places.put_all(places, fitted(op, places, kernel), allow_override=allow_override)
        for place in places:
            select_backend(op, place, kernel)
        op.changed()


def disown(owner: object) -> None:
    """Undo all that an owner defined and registered."""
    with LOCK:
        to_the_end(_disown, owner)


def _disown(owner: object) -> None:
    names = _names_of(owner)
    for name in names:
        definition = DEFINITIONS.get(name)
        if definition is not None:
            _disown_definition(name, definition, owner)
    for name in names:
        places = PLACES.get(name)
        if places is None:
            continue
        places.remove_owner(owner)
        if name in DEFINITIONS:  # changed now, or before an interrupt
            DEFINITIONS[name].op.changed()
        _drop_if_empty(name)


def _disown_definition(name: str, definition: Definition, owner: object) -> None:
    kept = [said for said in definition.owners if said[0] is not owner]
    if not kept:
        # What the operator registered for itself goes with it.
        PLACES[name].remove_owner(PLACES[name])
        _remove(name)
    elif len(kept) < len(definition.owners):
        definition.owners[:] = kept
        _retag(definition)


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


def check_qualname(name: Any) -> None:
    """Refuse a name that is not like `ns::name[.overload][@version]`."""
    text = name if isinstance(name, str) else ""
    space, found, rest = text.partition("::")
    parts = rest.partition("@")[0].split(".")
    if (
        not found
        or not space.isidentifier()
        or len(parts) > 2
        or not all(map(str.isidentifier, parts))
        or any(overload.startswith("__") for overload in parts[1:])
    ):
        raise UsageError(
            f"{name!r} is no operator name",
            declared="namespace::name, or namespace::name.overload",
            fix='write it like "mylib::crop"',
        )


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
            source=waiting(f"{name}.{overload or 'default'}"),
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
            source=_waiting_overload(name),
            fix="define it with polyop.custom_op, or import the module that does",
        )
    return packet


def _waiting_overload(name: str) -> str:
    for qualified in PLACES.copy():  # in one step: other threads define
        if split_name(qualified)[0] == name and (said := waiting(qualified)):
            return said
    return ""


def waiting(name: str) -> str:
    """Say where a kernel of an overload that nobody has defined was registered (S39)."""
    name = full_name(name)
    places = None if name in DEFINITIONS else PLACES.get(name)
    kernels = [kernel for _, kernel in places.items()] if places else []
    return f"a kernel waits for its definition: {kernels[0].source}" if kernels else ""


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
        f"{an(type(op).__name__)} is no operator",
        seen=repr(op)[:120],
        fix='give the name "ns::op", an overload, or what custom_op returned',
    )


PARTS.find_operator = find_operator
PARTS.waiting = waiting
PARTS.packets = PACKETS

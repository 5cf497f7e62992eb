"""What may not be registered at a place, beside what is there and what comes with it.

All of it is looked at before anything is changed, so that a refused registration leaves nothing
behind (S4).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, TypeAlias

from polyop.dispatch.keys import DispatchKey
from polyop.errors import (
    DuplicateRegistrationError,
    RegistrationError,
    UsageError,
    UsageTypeError,
)
from polyop.source import Source

Place: TypeAlias = DispatchKey | str


class There(Protocol):
    """What must be known of a kernel that is there."""

    @property
    def source(self) -> Source:
        """The place of its registration."""


#: Gives the kernel that acts at a place.
Top = Callable[[Place], There | None]

_IMPLICIT = DispatchKey.CompositeImplicitAutograd
#: The places of an author's fake rule, which count as one (S141).
_FAKES: tuple[Place, ...] = ("fake", DispatchKey.Meta)
_CONTRARY = frozenset((_IMPLICIT, *_FAKES))
#: Where not everything may be registered; elsewhere nothing is refused that may override.
RULED = _CONTRARY | {DispatchKey.Undefined}


class Coming(NamedTuple):
    """What is to be registered: the operator, the places, and where that is written."""

    op: str
    places: Collection[Place]
    source: Source


def check(coming: Coming, top: Top, *, allow_override: bool) -> None:
    """Refuse a registration.

    Raises:
        DuplicateRegistrationError: a place is taken and may not be overridden.
        UsageError: for the place `Undefined`.
        RegistrationError: a fake rule for an operator that decomposes (S38).
    """
    if DispatchKey.Undefined in coming.places:
        raise UsageError(
            "nothing can be registered at Undefined, the entry of an empty key set",
            op=coming.op,
            source=coming.source,
            fix="register at CompositeExplicitAutograd, which also serves calls without Tensors",
        )
    if not allow_override:
        _refuse_taken(coming, top)
    if not _CONTRARY.isdisjoint(coming.places):
        _refuse_fake_of_composite(coming, top)


def _refuse_taken(coming: Coming, top: Top) -> None:
    for place in coming.places:
        for same in _FAKES if place in _FAKES else (place,):
            there = top(same)
            if there is not None:
                raise DuplicateRegistrationError(
                    f"something is registered at {same} already",
                    op=coming.op,
                    source=there.source,
                    fix="remove that registration first, or pass allow_override=True",
                )


def _refuse_fake_of_composite(coming: Coming, top: Top) -> None:
    """Refuse the one beside the other, whichever came first."""
    op, places, source = coming
    composite, fake = top(_IMPLICIT), top(_FAKES[0]) or top(_FAKES[1])
    decomposes = composite is not None or _IMPLICIT in places
    if not decomposes or (fake is None and not any(f in places for f in _FAKES)):
        return
    there = composite or fake
    new = "fake rule" if composite else "CompositeImplicitAutograd kernel"
    raise RegistrationError(
        f"{op} decomposes, so it needs no fake rule",
        op=op,
        seen=f"a {new} at {source}",
        source=there.source if there else source,
        fix="register the kernel at CompositeExplicitAutograd, or leave the fake rule out",
    )


def check_name(cls: type, name: object) -> None:
    """Refuse a name of a higher-order operator.

    Raises:
        UsageTypeError: it is none of an attribute.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageTypeError(
            "a higher-order operator is named like an attribute",
            op=f"{cls.__name__}(...)",
            seen=repr(name),
            fix=f'write {cls.__name__}("name"), for polyop.ops.higher_order.name',
        )

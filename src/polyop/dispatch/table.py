"""The dispatch table: which kernel acts for a key, and why.

Registrations are kept by place, in stacks, so that taking one away gives back exactly what was
there. From the newest of each place and the fallbacks the entry of every key follows by one
written order, whatever the order of registration. All of this is cold code: callers keep what it
decides, and decide anew when a place or a fallback changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, TypeAlias

from polyop.dispatch.keys import (
    BUILT_IN_KEYS,
    PASSED_OVER_KEYS,
    RUNTIME_KEYS,
    DispatchKey,
    alias_members,
    backends_of_autograd,
    is_alias_key,
    parse_key,
)
from polyop.dispatch.keyset import DispatchKeySet, Mask
from polyop.dispatch.lock import LOCK
from polyop.dispatch.refusals import RULED, Coming, check
from polyop.errors import (
    AmbiguousKernelError,
    MissingKernelError,
    UsageError,
)
from polyop.records import NamedTuple
from polyop.source import Source

Place: TypeAlias = DispatchKey | str


class Kernel(NamedTuple):
    """A registered function, and who registered it where.

    Args:
        fn: the function; None if the kernel is built in or a fallthrough.
        source: the place of the registration.
        owner: the library or operator that registered it, compared by identity.
        with_keyset: whether `fn` gets the current key set first.
        fallthrough: whether the key is passed over instead.
        payload: whether `fn` takes bare arrays instead of Tensors.
        takes_op: whether `fn` gets the operator first, as a fallback does.
        makes_op: whether it is the function that a `custom_op` was made of.
    """

    fn: Callable[..., Any] | None
    source: Source
    owner: object
    with_keyset: bool = False
    fallthrough: bool = False
    payload: bool = False
    takes_op: bool = False
    makes_op: bool = False


class Reason(Enum):
    """Why an entry is what it is; the value is the word that dumps show (SPEC S105)."""

    KERNEL = "kernel"
    DEFAULT_BACKEND = "default backend kernel"
    MATH = "math kernel"
    NESTED = "nested kernel"
    AUTOGRAD = "autograd kernel"
    BATCHED = "batched kernel"
    FALLBACK = "backend fallback"
    FALLTHROUGH = "fallthrough"
    AMBIGUOUS = "ambiguous"
    MISSING = "missing"


class Entry(NamedTuple):
    """What the table says of one key.

    Args:
        key: the key whose kernel acts, an alias key for a kernel that is registered there.
        reason: why.
        kernel: the kernel; None where there is none or several claim the key.
    """

    key: DispatchKey
    reason: Reason
    kernel: Kernel | None


class Places:
    """The registrations of the operator `op`: at each place a stack; its newest acts (S37)."""

    __slots__ = ("_stacks", "op")

    def __init__(self, op: str = "") -> None:
        self.op = op
        # Tuples, replaced whole: another thread reads the old stack or the new.
        self._stacks: dict[Place, tuple[Kernel, ...]] = {}

    def put(self, place: Place, kernel: Kernel, *, allow_override: bool = True) -> None:
        """Add a kernel at a place, instead of its owner's former one there; see `check`."""
        self.put_all((place,), kernel, allow_override=allow_override)

    def put_all(
        self, places: Collection[Place], kernel: Kernel, *, allow_override: bool = True
    ) -> None:
        """Add a kernel at several places, or at none of them (S4); see `check`."""
        self.check(places, kernel.source, allow_override=allow_override)
        for place in places:
            stack = self._stacks.get(place, ())
            others = stack and tuple([k for k in stack if k.owner is not kernel.owner])
            self._stacks[place] = (*others, kernel)

    def renew(self, make: Callable[[Place, Kernel], Kernel]) -> None:
        """Put in place of each kernel what `make` gives for it."""
        for place, stack in list(self._stacks.items()):
            self._stacks[place] = tuple([make(place, kernel) for kernel in stack])

    def check(
        self, places: Collection[Place], source: Source, *, allow_override: bool = True
    ) -> None:
        """Refuse what may not be added at places; nothing is changed (`refusals.py`)."""
        if not (allow_override and RULED.isdisjoint(places)):
            check(Coming(self.op, places, source), self.top, allow_override=allow_override)

    def remove(self, place: Place, kernel: Kernel) -> bool:
        """Take a kernel out, wherever in its stack; tell whether it was there."""
        return self._keep(place, tuple(k for k in self._stacks.get(place, ()) if k is not kernel))

    def remove_owner(self, owner: object) -> list[Place]:
        """Take out all kernels of an owner; give the places that had one."""
        return [
            place
            for place, stack in list(self._stacks.items())
            if self._keep(place, tuple(k for k in stack if k.owner is not owner))
        ]

    def _keep(self, place: Place, stack: tuple[Kernel, ...]) -> bool:
        changed = len(stack) < len(self._stacks.get(place, ()))
        if stack:
            self._stacks[place] = stack
        else:
            self._stacks.pop(place, None)
        return changed

    def top(self, place: Place) -> Kernel | None:
        """Give the kernel that acts at a place."""
        return self._stacks.get(place, (None,))[-1]

    def items(self) -> Iterator[tuple[Place, Kernel]]:
        """Give every registration, those of one place from the oldest to the one that acts."""
        for place, stack in list(self._stacks.items()):
            for kernel in stack:
                yield place, kernel

    def kernels(self) -> dict[DispatchKey, Kernel]:
        """Give the acting kernel of each key, without the slots."""
        return {p: s[-1] for p, s in self._stacks.items() if isinstance(p, DispatchKey)}


def fallthrough_kernel(*args: Any, **kwargs: Any) -> NoReturn:
    """Stand for "pass this key over" in `Library.impl` and `py_impl`; never called (S35)."""
    raise MissingKernelError(
        "fallthrough_kernel is a mark for Library.impl and py_impl, not a kernel",
        fix="register it: lib.impl(name, fallthrough_kernel, key), or "
        "op.py_impl(key)(fallthrough_kernel)",
    )


# -- fallbacks ----------------------------------------------------------------

_SOURCE = Source(__file__, 0)
#: The fallback of keys on which polyop itself acts.
BUILT_IN = Kernel(None, _SOURCE, "polyop")
#: The fallback of keys that are passed over unless an operator has a kernel there.
PASS_OVER = Kernel(None, _SOURCE, "polyop", fallthrough=True)

#: The built-in fallbacks (S101).
FALLBACKS: Mapping[DispatchKey, Kernel] = MappingProxyType(
    dict.fromkeys(BUILT_IN_KEYS, BUILT_IN) | dict.fromkeys(PASSED_OVER_KEYS, PASS_OVER)
)

_put = Places("_")
#: Called, without arguments, after each change of a fallback.
on_fallback_change: list[Callable[[], object]] = []


def put_fallback(key: DispatchKey | str, kernel: Kernel) -> None:
    """Put a kernel for all operators over the fallback of a run-time key (S102).

    Raises:
        UsageError: for an alias key or `Undefined`.
    """
    key = parse_key(key)
    if is_alias_key(key):
        raise UsageError(
            f"a fallback serves one run-time key, and {key} is an alias key",
            source=kernel.source,
            fix="register it at each key that the alias contains",
        )
    with LOCK:
        _put.put(key, kernel)
        _fallbacks_changed()


def remove_fallback(key: DispatchKey | str, kernel: Kernel) -> bool:
    """Take a fallback out again; tell whether it was there."""
    with LOCK:
        removed = _put.remove(parse_key(key), kernel)
        if removed:
            _fallbacks_changed()
    return removed


def _fallbacks_changed() -> None:
    for callback in list(on_fallback_change):
        callback()


def fallback_of(key: DispatchKey | str) -> Kernel | None:
    """Give the fallback that acts at a key."""
    key = parse_key(key)
    return _put.top(key) or FALLBACKS.get(key)


def has_fallback(key: DispatchKey | str) -> bool:
    """Tell whether a key has a fallback, fallthrough or not (S97)."""
    return fallback_of(key) is not None


# -- entries ------------------------------------------------------------------

Decision: TypeAlias = tuple[DispatchKey, Reason]
Has: TypeAlias = Callable[[DispatchKey], bool]

_EXPLICIT = (
    DispatchKey.CompositeExplicitAutogradNonFunctional,
    DispatchKey.CompositeExplicitAutograd,
)
_IMPLICIT = DispatchKey.CompositeImplicitAutograd
_NESTED = DispatchKey.CompositeImplicitAutogradNestedTensor
_LAST = (
    (DispatchKey.Autograd, Reason.AUTOGRAD),
    (DispatchKey.FuncTorchBatchedDecomposition, Reason.BATCHED),
)


def decide(has: Has, key: DispatchKey) -> Decision:
    """Give the key whose kernel acts at `key`, and why (S85 to S88).

    Args:
        has: tells whether the operator has a kernel registered at a key.
        key: a run-time key or `Undefined`.
    """
    # Undefined has no kernel of its own: it is the entry of calls without keys.
    if key and has(key):
        return key, Reason.KERNEL
    return _explicit(has, key) or _implicit(has, key) or _last(has, key)


def _explicit(has: Has, key: DispatchKey) -> Decision | None:
    for alias in _EXPLICIT:
        if has(alias) and (not key or key in alias_members(alias)):
            return alias, Reason.DEFAULT_BACKEND
    return None


def _implicit(has: Has, key: DispatchKey) -> Decision | None:
    """Serve a key by decomposition, unless a backend below it has a kernel (S86, S87)."""
    if not (has(_NESTED) or has(_IMPLICIT)):
        return None
    rivals = _rivals(has, key)
    backed = bool(rivals) or has(DispatchKey.CompositeExplicitAutograd)
    if has(_NESTED) and key in alias_members(_NESTED) and not backed:
        return _NESTED, Reason.NESTED
    if not has(_IMPLICIT) or (key and key not in alias_members(_IMPLICIT)):
        return None
    # Some backends share AutogradOther. If one has a kernel and others are left
    # to decompose, neither answer is right for both.
    if key is DispatchKey.AutogradOther and rivals:
        return _IMPLICIT, Reason.AMBIGUOUS
    return None if backed else (_IMPLICIT, Reason.MATH)


def _rivals(has: Has, key: DispatchKey) -> list[DispatchKey]:
    return sorted(k for k in backends_of_autograd(key) if has(k))


def _last(has: Has, key: DispatchKey) -> Decision:
    for alias, reason in _LAST:
        if has(alias) and key in alias_members(alias):
            return alias, reason
    return key, Reason.FALLBACK if has_fallback(key) else Reason.MISSING


def compute_entry(op_name: str, kernels: Mapping[DispatchKey, Kernel], key: DispatchKey) -> Entry:
    """Give the table's entry at a run-time key or `Undefined`; ambiguity is an entry too."""
    by, reason = decide(kernels.__contains__, key)
    kernel = fallback_of(key) if reason is Reason.FALLBACK else kernels.get(by)
    if reason is Reason.AMBIGUOUS:
        kernel = None
    elif kernel is not None and kernel.fallthrough:
        reason = Reason.FALLTHROUGH
    return Entry(by, reason, kernel)


def compute_table(kernels: Mapping[DispatchKey, Kernel]) -> dict[DispatchKey, Entry]:
    """Give the entries of `Undefined` and of all run-time keys, lowest first."""
    return {k: compute_entry("", kernels, k) for k in (DispatchKey.Undefined, *RUNTIME_KEYS)}


class Table(dict[DispatchKey, Entry]):
    """The entries of an operator's table, each computed when it is first asked for."""

    def __init__(self, name: str, kernels: Mapping[DispatchKey, Kernel]) -> None:
        self.name = name
        self.kernels = kernels

    def __missing__(self, key: DispatchKey) -> Entry:
        entry = self[key] = compute_entry(self.name, self.kernels, key)
        return entry


class Resolvable(Protocol):
    """What `resolve_key` needs to know of an operator."""

    def name(self) -> str:
        """Give the operator's name."""

    def has_kernel_for_dispatch_key(self, key: DispatchKey, /) -> bool:
        """Tell whether a kernel is registered at a key."""


def resolve_key(op: Resolvable, key: DispatchKey | str) -> DispatchKey:
    """Give the key whose kernel acts at `key`: itself or an alias key.

    Raises:
        AmbiguousKernelError: if two kernels claim `key`.
        MissingKernelError: if no kernel and no fallback serves it.
    """
    key = parse_key(key)
    off: Collection[DispatchKey] = getattr(op, "disabled", ())
    has: Has = lambda k: k not in off and op.has_kernel_for_dispatch_key(k)  # noqa: E731
    by, reason = decide(has, key)
    if reason is Reason.AMBIGUOUS:
        claims = [by, *_rivals(has, key)]
        source_at = getattr(op, "rule_source", None)
        places = [f"{k} at {source_at(k)}" for k in claims] if source_at is not None else []
        raise _ambiguous_error(op.name(), claims, ", ".join(places))
    if reason is Reason.MISSING:
        raise MissingKernelError(
            f"no kernel for the key {key}" + ("" if key else ", the entry of an empty key set"),
            op=op.name(),
            fix=_place_for(key) if key not in off else f"enable its kernel at {key}",
        )
    return by


def _place_for(key: DispatchKey) -> str:
    """Say where a kernel can be registered that serves a key; at Undefined none can (S90)."""
    if key:
        return f"register one at {key}, or at an alias key that contains it"
    return f"register one at {_EXPLICIT[1]}, which also serves calls without Tensors"


def ambiguity(op_name: str, kernels: Mapping[DispatchKey, Kernel]) -> AmbiguousKernelError:
    """Give the error of a call that reaches an ambiguous entry, with all who claim it (S87)."""
    claims = [_IMPLICIT, *_rivals(kernels.__contains__, DispatchKey.AutogradOther)]
    places = ", ".join(f"{k} at {where(kernels[k])}" for k in claims)
    return _ambiguous_error(op_name, claims, places)


def _ambiguous_error(op: str, claims: list[DispatchKey], places: str = "") -> AmbiguousKernelError:
    return AmbiguousKernelError(
        f"kernels at {' and '.join(k.name for k in claims)} claim AutogradOther",
        op=op,
        source=places,
        fix="register a kernel at AutogradOther",
    )


def mask_of(table: Mapping[DispatchKey, Entry]) -> Mask:
    """Give the run-time keys whose entry is not a fallthrough."""
    return Mask(frozenset(k for k in RUNTIME_KEYS if table[k].reason is not Reason.FALLTHROUGH))


def acting(keyset: DispatchKeySet, table: Mapping[DispatchKey, Entry]) -> Iterator[DispatchKey]:
    """Give the keys that act on a key set, one per functionality, from the highest."""
    for key in keyset.leading():
        if table[key].reason is not Reason.FALLTHROUGH:
            yield key


def where(kernel: Kernel) -> str:
    """Give the place of a kernel's registration, for messages and dumps."""
    return "built in" if kernel.source is _SOURCE else str(kernel.source)

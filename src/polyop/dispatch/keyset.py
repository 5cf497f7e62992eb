"""Sets of dispatch keys: one set of functionalities and one of backends, in one integer.

The backends are the lowest bits, the functionalities follow in ascending priority, so that
comparing bits compares who acts first. A set holds a per-backend key when it holds the
functionality and the backend: `{CPU} | {AutogradCUDA}` also holds `CUDA` and `AutogradCPU`. The
road not taken, a bit for each of the 80 keys, would make the keys of a call on two devices depend
on which argument came from where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeAlias

from polyop.dispatch.keys import (
    BACKENDS,
    KEYS_OF,
    RUNTIME_KEYS,
    DispatchKey,
    Functionality,
    alias_members,
    backend_of,
    functionality_of,
    parse_key,
)
from polyop.errors import UsageTypeError
from polyop.lazy import load
from polyop.records import NamedTuple

KeyLike: TypeAlias = "DispatchKey | str | DispatchKeySet"

#: Every functionality, a single key being its own, lowest first.
FUNCTIONALITIES = tuple(dict.fromkeys(functionality_of(k) for k in RUNTIME_KEYS))

BACKEND_MASK = (1 << len(BACKENDS)) - 1
FULL_MASK = (1 << (len(BACKENDS) + len(FUNCTIONALITIES))) - 1

_BACKEND_BIT = {backend: 1 << i for i, backend in enumerate(BACKENDS)}
_FUNCTIONALITY_BIT = {f: 1 << (len(BACKENDS) + i) for i, f in enumerate(FUNCTIONALITIES)}


def _runtime_bits(key: DispatchKey) -> int:
    backend = backend_of(key)
    return _FUNCTIONALITY_BIT[functionality_of(key)] | (_BACKEND_BIT[backend] if backend else 0)


def _bits_of_name(key: DispatchKey) -> int:
    bits = 0
    for member in alias_members(key):
        bits |= _BITS[member]
    return bits


_BITS: dict[DispatchKey, int] = {k: _runtime_bits(k) for k in RUNTIME_KEYS}
_BITS.update({k: _bits_of_name(k) for k in DispatchKey if k not in _BITS})


class DispatchKeySet:
    """An immutable set of dispatch keys (SPEC S76 to S78).

    Args:
        keys: keys, names of keys, key sets, and iterables of these. An alias key adds all that it
            contains, `Undefined` nothing; the name of a functionality (`"Dense"`,
            `"AutogradFunctionality"`) adds that without a backend.

    Example:
        >>> both = DispatchKeySet("CPU") | DispatchKeySet("AutogradCUDA")
        >>> print(both)
        DispatchKeySet(AutogradCUDA, AutogradCPU, CUDA, CPU)

    Raises:
        UsageError: for an unknown name.
        UsageTypeError: for what names no key.
    """

    __slots__ = __match_args__ = ("bits",)
    bits: int

    def __init__(self, *keys: KeyLike | Iterable[KeyLike]) -> None:
        bits = 0
        for key in keys:
            bits |= bits_of(key)
        object.__setattr__(self, "bits", bits)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise load("dataclasses:FrozenInstanceError")(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise load("dataclasses:FrozenInstanceError")(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DispatchKeySet):
            return NotImplemented
        return self.bits == other.bits

    def __hash__(self) -> int:
        return hash((self.bits,))

    @staticmethod
    def from_bits(bits: int) -> DispatchKeySet:
        """Give the set with these bits; bits that mean nothing are dropped."""
        made = object.__new__(DispatchKeySet)
        object.__setattr__(made, "bits", bits & FULL_MASK)
        return made

    def has(self, key: DispatchKey | str) -> bool:
        """Tell whether the set holds a key: all of an alias, `Undefined` never."""
        bits = bits_of(key)
        return bool(bits) and self.bits & bits == bits

    def add(self, key: KeyLike | Iterable[KeyLike]) -> DispatchKeySet:
        """Give the set with a key more."""
        return from_bits(self.bits | bits_of(key))

    def remove(self, key: KeyLike | Iterable[KeyLike]) -> DispatchKeySet:
        """Give the set without the functionality of a key; its backends stay."""
        return from_bits(self.bits & ~(bits_of(key) & ~BACKEND_MASK))

    def highest(self) -> DispatchKey:
        """Give the key that acts first, `Undefined` if there is none."""
        return next(self.leading(), DispatchKey.Undefined)

    def highestPriorityTypeId(self) -> DispatchKey:
        """Give the key that acts first, under PyTorch's name."""
        return self.highest()

    def leading(self) -> Iterator[DispatchKey]:
        """Give one key per functionality, from the highest: that of the highest backend."""
        for functionality in reversed(FUNCTIONALITIES):
            if self.bits & _FUNCTIONALITY_BIT[functionality]:
                yield from list(self._keys_in(functionality))[:1]

    def _keys_in(self, functionality: Functionality | DispatchKey) -> Iterator[DispatchKey]:
        if isinstance(functionality, DispatchKey):
            yield functionality
            return
        for backend, key in reversed(list(zip(BACKENDS, KEYS_OF[functionality], strict=True))):
            if self.bits & _BACKEND_BIT[backend]:
                yield key

    def __iter__(self) -> Iterator[DispatchKey]:
        for functionality in reversed(FUNCTIONALITIES):
            if self.bits & _FUNCTIONALITY_BIT[functionality]:
                yield from self._keys_in(functionality)

    def __contains__(self, key: DispatchKey | str) -> bool:
        return self.has(key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __or__(self, other: object) -> DispatchKeySet:
        if not isinstance(other, DispatchKeySet):
            return NotImplemented
        return from_bits(self.bits | other.bits)

    def __and__(self, other: object) -> DispatchKeySet:
        if not isinstance(other, DispatchKeySet):
            return NotImplemented
        return from_bits(self.bits & other.bits)

    def __sub__(self, other: object) -> DispatchKeySet:
        if not isinstance(other, DispatchKeySet):
            return NotImplemented
        return self.remove(other)

    def __reduce__(self) -> tuple[object, ...]:
        # By name: the numbers of the bits may change between versions.
        functionalities = [str(f) for f, bit in _FUNCTIONALITY_BIT.items() if self.bits & bit]
        backends = [b.name for b, bit in _BACKEND_BIT.items() if self.bits & bit]
        return (_rebuild, (functionalities, backends))

    def __repr__(self) -> str:
        return f"DispatchKeySet({', '.join(key.name for key in self)})"


def _rebuild(functionalities: list[str], backends: list[str]) -> DispatchKeySet:
    bits = sum(_BACKEND_BIT[DispatchKey[name]] for name in backends)
    return from_bits(bits | DispatchKeySet(functionalities).bits)


from_bits = DispatchKeySet.from_bits


def bits_of(key: KeyLike | Iterable[KeyLike]) -> int:
    """Give the bits of a key, a name, a set, or several of these."""
    if isinstance(key, DispatchKeySet):
        return key.bits
    if isinstance(key, Functionality):
        return _FUNCTIONALITY_BIT[key]
    if isinstance(key, str) and key in Functionality.__members__:
        return _FUNCTIONALITY_BIT[Functionality[key]]
    if isinstance(key, (str, DispatchKey)):
        return _BITS[parse_key(key)]
    if not isinstance(key, Iterable):
        raise UsageTypeError(
            "a key set is made of keys, names or key sets", seen=repr(key), fix='write "CPU"'
        )
    return DispatchKeySet(*key).bits


class Mask(NamedTuple):
    """The keys that are not passed over; a call dispatches on `keyset & mask` (S92, S93)."""

    keys: frozenset[DispatchKey]

    def has(self, key: DispatchKey | str) -> bool:
        """Tell whether a key is looked at."""
        return parse_key(key) in self.keys

    def __rand__(self, keyset: DispatchKeySet) -> DispatchKeySet:
        # No key set can say this: whether a functionality is passed over is
        # known once the highest backend of the call is.
        for key in keyset.leading():
            if key not in self.keys:
                keyset = keyset.remove(key)
        return keyset


def below(key: DispatchKey) -> DispatchKeySet:
    """Give all keys of lower functionalities than that of `key`."""
    bit = _FUNCTIONALITY_BIT[functionality_of(key)]
    return from_bits((bit - 1) | BACKEND_MASK)


def down_from(key: DispatchKey) -> DispatchKeySet:
    """Give a run-time key and all keys of lower functionalities; for `Undefined` none."""
    bit = _FUNCTIONALITY_BIT.get(functionality_of(key), 0)
    return from_bits((bit | (bit and bit - 1)) | BACKEND_MASK)


EMPTY = DispatchKeySet()
full_keyset = from_bits(FULL_MASK)
#: What may act once autograd has acted.
after_autograd_keys = below(DispatchKey.AutogradOther)
#: What may act once views and versions are dealt with.
after_view_keys = below(DispatchKey.ADInplaceOrView)

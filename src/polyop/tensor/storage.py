"""Storage: which tensors share memory, and how often it was written.

A tensor that nobody aliases counts its writes in an integer of its own. At
its first alias the count moves into a `Version`, which all aliases share, so
that a write through any of them is seen by all (S135, S136).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.parts import PARTS
from polyop.errors import MutationError


class Version:
    """How often the storage of an alias group was written.

    Attributes:
        n: the count.
        copied: the operator whose views of this storage are copies; unset where there is none.
        holders: the tensors that a search for them found last; unset where none was.
        sealed: the operator that gave it, if no write is let through.
    """

    __slots__ = ("copied", "holders", "n", "sealed")
    n: int
    copied: Any
    holders: list[Any]
    sealed: Any


_count: Any = vars(Version)["n"]


class Sealed(Version):
    """The version of what nobody may write any more."""

    __slots__ = ()

    @property
    def n(self) -> int:
        """How often it was written."""
        found: int = _count.__get__(self)
        return found

    @n.setter
    def n(self, count: int) -> None:
        raise MutationError(
            f"a result of {self.sealed} is written, or shares memory with what is, in a way that "
            "is not known",
            op=self.sealed,
            fix="copy the result (.clone()) before it is written, or let the function give results "
            "with memory of their own",
        )


def seal(tensor: Any, op: Any) -> None:
    """Refuse writes to a tensor, and to all that share its memory, from now on."""
    version = share(tensor)
    version.sealed = op
    version.__class__ = Sealed


def share(tensor: Any) -> Version:
    """Give the version that an alias of `tensor` shares."""
    version = tensor.version
    if version.__class__ is int:
        count = version
        version = tensor.version = Version()
        version.n = count
    made: Version = version
    return made


def version_of(tensor: Any) -> int:
    """Count the writes to a tensor's storage."""
    version = tensor.version
    count: int = version if version.__class__ is int else version.n
    return count


def set_version(tensor: Any, count: int) -> None:
    """Set the count: writes that were counted when they were recorded count no second time."""
    if tensor.version.__class__ is int:
        tensor.version = count
    else:
        tensor.version.n = count


def bump(tensor: Any) -> None:
    """Count a write."""
    version = tensor.version
    if version.__class__ is int:
        tensor.version = version + 1
    else:
        version.n += 1


def is_sealed(tensor: Any) -> bool:
    """Tell whether writes to a tensor are refused."""
    return tensor.version.__class__ is Sealed


#: How hard to look whether interleaved views really overlap.
MAX_WORK = 10_000


def arrays_overlap(a: Any, b: Any) -> bool:
    """Tell whether two NumPy arrays have an element in common."""
    if not np.may_share_memory(a, b) or not a.size or not b.size:
        return False
    try:
        return bool(np.shares_memory(a, b, max_work=MAX_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def shares_memory(a: Any, b: Any) -> bool:
    """Tell whether two tensors share storage."""
    if a is b:
        return True
    p, q = a.payload, b.payload
    if isinstance(p, np.ndarray) and isinstance(q, np.ndarray):  # a memmap is one too
        return arrays_overlap(p, q)
    # Without data, sharing is what was declared: one version for all aliases.
    return a.version.__class__ is Version and a.version is b.version


PARTS.share = share
PARTS.shares_memory = shares_memory

"""Who shares the memory of a tensor: the tensors that have its version.

A view knows its base, and a base not its views: to note them would make each
view dearer, and few are there when the base is written. So a write that must
know them looks for them among the objects of the process, the youngest first,
and remembers who it found.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any
from weakref import ref

from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor

#: The generations of objects that are small enough to be looked through.
YOUNG = (0, 1)


def holders_of(version: Version, known: Iterable[Tensor], count: int) -> list[Tensor]:
    """Give the living tensors that have a version.

    Args:
        version: it.
        known: some of them.
        count: how many references to the version there are: as many tensors end the search.
    """
    before: list[ref[Tensor]] = getattr(version, "holders", [])
    found = dict(_among([*known, *[r() for r in before]], version))
    for generation in YOUNG:
        if len(found) >= count:
            break
        found.update(_among(gc.get_objects(generation), version))
    if len(found) < count:
        found.update(_among(gc.get_referrers(version), version))
    version.holders = list(map(ref, found.values()))
    return list(found.values())


def _among(objects: Iterable[object], version: Version) -> list[tuple[int, Tensor]]:
    # By the type alone: a proxy's `__class__` would be code of its own.
    tensors: list[Any] = [t for t in objects if issubclass(type(t), Tensor)]
    return [(id(t), t) for t in tensors if getattr(t, "version", None) is version]

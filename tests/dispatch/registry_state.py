"""A picture of all registrations, to hold a refused one against what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from polyop.dispatch.keys import RUNTIME_KEYS
from polyop.dispatch.registry import DEFINITIONS, PACKETS, PLACES
from polyop.dispatch.table import fallback_of
from polyop.errors import PolyopError

E = TypeVar("E", bound=PolyopError)


def snapshot() -> dict[str, Any]:
    """Everything that is registered, by value."""
    return {
        "definitions": {
            name: (id(d.op), str(d.op._schema), d.op.tags, d.op.disabled, list(map(str, d.owners)))
            for name, d in list(DEFINITIONS.items())
        },
        "places": {name: [(p, id(k)) for p, k in ps.items()] for name, ps in list(PLACES.items())},
        "packets": {name: [id(op) for op in p.op_overloads()] for name, p in PACKETS.items()},
        "fallbacks": {key: id(fallback_of(key)) for key in RUNTIME_KEYS},
    }


def settled() -> dict[str, Any]:
    """Everything that is registered, once libraries that nobody holds are collected."""
    gc.collect()
    return snapshot()


@contextmanager
def known_aside() -> Iterator[None]:
    """Keep what is alive out of collections, so that each looks at new objects only."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def refused(error: type[E], *words: str) -> Iterator[Any]:
    """Expect an error whose text has all these words, and that nothing is registered or lost."""
    gc.disable()  # a library of an earlier test may go at any collection
    before = snapshot()
    try:
        with pytest.raises(error) as caught:
            yield caught
        assert snapshot() == before
    finally:
        gc.enable()
    text = str(caught.value)
    assert [w for w in words if w not in text] == [], text

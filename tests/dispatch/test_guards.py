"""The include and exclude sets of the context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.guards import (
    below_autograd,
    below_views,
    exclude_keys,
    excluded_keys,
    force_keys,
    include_keys,
    included_keys,
    preserve_keys,
)
from polyop.dispatch.keys import AUTOCAST_KEYS, AUTOGRAD_KEYS, RUNTIME_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet

K = DispatchKey
SETS = st.sets(st.sampled_from([k for k in RUNTIME_KEYS if k is not K.Undefined]), max_size=5)


def sets() -> tuple[DispatchKeySet, DispatchKeySet]:
    return included_keys(), excluded_keys()


def test_the_defaults() -> None:
    """S94: BackendSelect and ADInplaceOrView are included, the autocast keys excluded."""
    assert included_keys() == DispatchKeySet(["BackendSelect", "ADInplaceOrView"])
    assert excluded_keys() == DispatchKeySet(AUTOCAST_KEYS)


@given(SETS, SETS)
def test_include_and_exclude_add(more: set[DispatchKey], less: set[DispatchKey]) -> None:
    """S96: `include_keys` and `exclude_keys` add to their sets, nest, and restore."""
    include, exclude = before = sets()
    with include_keys(more):
        assert sets() == (include | DispatchKeySet(more), exclude)
        with exclude_keys(less):
            assert sets() == (include | DispatchKeySet(more), exclude | DispatchKeySet(less))
        assert sets() == (include | DispatchKeySet(more), exclude)
    assert sets() == before


@given(SETS, SETS, SETS)
def test_force_sets_exactly(a: set[DispatchKey], b: set[DispatchKey], c: set[DispatchKey]) -> None:
    """S96: `force_keys` sets both, whatever was there."""
    before = sets()
    with include_keys(c), force_keys(a, b):
        assert sets() == (DispatchKeySet(a), DispatchKeySet(b))
    assert sets() == before


def test_below_autograd_and_views() -> None:
    """S96: `below_autograd` excludes the autograd keys, `below_views` ADInplaceOrView too."""
    now = excluded_keys()
    with below_autograd():
        assert excluded_keys() == now | DispatchKeySet(AUTOGRAD_KEYS)
    with below_views():
        views = DispatchKeySet([*AUTOGRAD_KEYS, K.ADInplaceOrView])
        assert excluded_keys() == now | views
    assert excluded_keys() == now


GUARDS: list[Callable[[], Any]] = [
    lambda: include_keys(["Negative"]),
    lambda: exclude_keys(["CPU"]),
    lambda: force_keys([], []),
    preserve_keys,
    below_autograd,
    below_views,
]


@pytest.mark.parametrize("make", GUARDS)
def test_an_exception_restores(make: Callable[[], Any]) -> None:
    """S96, S98: an exception leaves the context as it was."""
    before = word()
    with pytest.raises(ZeroDivisionError), make():
        raise ZeroDivisionError
    assert word() is before


@pytest.mark.parametrize("make", GUARDS)
def test_guards_decorate_and_are_entered_again(make: Callable[[], Any]) -> None:
    """S96: a guard decorates a function, and one object may be entered inside itself."""
    guard, before = make(), word()
    with guard:
        inner = sets()
        with guard:
            assert sets() == inner
        assert sets() == inner
    assert guard(sets)() == inner
    assert word() is before


def test_unknown_keys() -> None:
    """S97: an unknown key is refused before anything is entered."""
    before = word()
    for make in (include_keys, exclude_keys):
        with pytest.raises(ValueError, match="Nope"):
            make(["Nope"])
    assert word() is before

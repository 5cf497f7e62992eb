"""What is to be done once a framework is imported; no framework is imported here.

A finder stands before all others while something is pending. It finds nothing itself: it lets the
others find, and wraps the loader, so that what is pending runs when the module is complete.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from threading import get_ident
from types import ModuleType
from typing import Any

from polyop.forks import process_lock

#: By module: what is to be done.
PENDING: dict[str, list[Callable[[], None]]] = {}
#: Modules that are complete, though the import system may still be at it.
COMPLETE: set[str] = set()
_LOCK = process_lock()


def is_ready(module: str) -> bool:
    """Tell whether a module is imported, and complete."""
    found = sys.modules.get(module)
    if found is None:
        return False
    return module in COMPLETE or not getattr(
        getattr(found, "__spec__", None), "_initializing", False
    )


def when_imported(module: str, act: Callable[[], None]) -> None:
    """Do something when a module is imported: now, or as soon as it is."""
    with _LOCK:
        if not is_ready(module):
            PENDING.setdefault(module, []).append(act)
            if FINDER not in sys.meta_path:
                sys.meta_path.insert(0, FINDER)
            return
    act()


def _run(module: str) -> None:
    with _LOCK:
        COMPLETE.add(module)
        pending = PENDING.pop(module, [])
        if not PENDING and FINDER in sys.meta_path:
            sys.meta_path.remove(FINDER)
    for act in pending:
        act()


class _Finder:
    """Finds a module as the others do, when something waits for it."""

    def __init__(self) -> None:
        self.inside: set[int] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the spec of a module that is waited for, with its loader wrapped."""
        if name not in PENDING or get_ident() in self.inside:
            return None
        self.inside.add(get_ident())
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.inside.discard(get_ident())
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads as another loader does, then runs what is pending."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module."""
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and then what waits for it."""
        self._restore(module)
        self.loader.exec_module(module)
        _run(module.__name__)

    def _restore(self, module: ModuleType) -> None:
        # Who looks at the module later finds the loader that it would have had.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


FINDER: Any = _Finder()

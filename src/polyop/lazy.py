"""Names that a public list holds, and brings in when they are first used (PEP 562).

What checks, compiles and exports takes longer to import than all that most
programs use.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

#: The thread of each module that is being brought in: the lock of its import would stay locked in a
#: child that another thread forks meanwhile.
LOADING: list[int] = []


def load(place: str) -> Any:
    """Give what `module:name` names, or a module."""
    module, _, name = place.partition(":")
    me = get_ident()
    LOADING.append(me)
    try:
        return getattr(import_module(module), name) if name else import_module(module)
    finally:
        LOADING.remove(me)


def lazily(
    facade: str, places: dict[str, str], packages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Give the `__getattr__` and the `__dir__` of a list of names.

    Args:
        facade: the list's `__name__`.
        places: by name, the module that has it, or that it is; `module:name` for one that the
            module calls otherwise.
        packages: those names that are packages of the list too. Python puts a
            package into its parent when it is first imported, over what is
            there; so it is imported now, and taken out.
    """
    scope = vars(sys.modules[facade])
    for package in packages:
        import_module(f"{facade}.{package}")
        scope.pop(package, None)

    def bring(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {facade!r} has no attribute {name!r}", name=name)
        place = places[name]
        whole = place == f"{facade}.{name}" or ":" in place
        found = scope[name] = load(place if whole else f"{place}:{name}")
        return found

    def listed() -> list[str]:
        # What the list is made with is no name of it.
        own = {name for name in scope if name.startswith("__")}
        return sorted(own.union(scope["__all__"], places))

    return bring, listed

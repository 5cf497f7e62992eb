"""What code names, and whose code it is."""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

#: Opcodes that name a variable of the module.
_GLOBALS = frozenset({
    "LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "STORE_NAME", "DELETE_GLOBAL", "DELETE_NAME",
    "LOAD_FROM_DICT_OR_GLOBALS",
})  # fmt: skip
#: Whose code and objects are not looked into.
_OURS = frozenset({"polyop", "numpy", "builtins"})


class Named(NamedTuple):
    """What a function's code names, and the functions written inside it.

    Attributes:
        variables: the variables of the module.
        names: these, and attributes, modules, and words that may be names for `getattr`.
    """

    variables: tuple[str, ...]
    names: frozenset[str]


@lru_cache(maxsize=4096)
def named(code: CodeType) -> Named:
    """List the names in code."""
    variables: dict[str, None] = {}
    names: set[str] = set()
    for one in _codes(code):
        for step in dis.get_instructions(one):
            if step.opname in _GLOBALS:
                variables[step.argval] = None
        names.update(one.co_names)
        names.update(word for value in one.co_consts for word in _words(value))
    if "globals" in variables:
        variables |= dict.fromkeys(sorted(names))
    return Named(tuple(variables), frozenset(names))


def _codes(code: CodeType) -> list[CodeType]:
    found = [code]
    for one in found:  # which grows
        found += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
    return found


def _words(value: Any) -> list[str]:
    """Give the names that a constant holds: for `getattr`, of a `from` import."""
    found = value if isinstance(value, tuple) else (value,)
    return [word for word in found if isinstance(word, str) and word.isidentifier()]


def is_users(module: Any, root: str = "") -> bool:
    """Tell whether a module is the user's own, by its name.

    Args:
        module: the name.
        root: a package that counts as the user's, wherever it lies.
    """
    top = str(module or "").partition(".")[0]
    return top == root or _is_users(top)


@lru_cache(maxsize=1024)
def _is_users(top: str) -> bool:
    if top in _OURS or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    found = getattr(sys.modules.get(top), "__file__", None) or ""
    return "site-packages" not in found and "dist-packages" not in found

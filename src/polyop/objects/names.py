"""What code names, and whose code it is."""

from __future__ import annotations

import dis
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

#: Opcodes that name a variable of the module.
_GLOBALS = frozenset({
    "LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "STORE_NAME", "DELETE_GLOBAL", "DELETE_NAME",
    "LOAD_FROM_DICT_OR_GLOBALS",
})  # fmt: skip
_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})
#: Functions that import what a word names.
_IMPORTS = frozenset({"import_module", "__import__"})
#: What code calls the variables of the process, and the function that asks for one.
SETTINGS = frozenset({"environ", "getenv"})
#: Whose code and objects are not looked into.
_OURS = frozenset({"polyop", "numpy", "builtins"})


class Named(NamedTuple):
    """What a function's code names, and the functions written inside it.

    Attributes:
        variables: the variables of the module.
        names: these, and attributes, modules, and words that may be names for `getattr`.
        modules: what it imports.
        stored: attributes that it gives a value, and does nothing else with the name.
        settings: the variables of the process that it asks for; None if a name is computed.
    """

    variables: tuple[str, ...]
    names: frozenset[str]
    modules: frozenset[str]
    stored: frozenset[str]
    settings: frozenset[str] | None

    def imported(self, package: str) -> set[str]:
        """List the names that its imports may have, in the code of a package."""
        parts = package.split(".")
        parents = [".".join(parts[: i + 1]) for i in range(len(parts))]
        found = {
            f"{parent}.{name}".strip(".") for name in self.modules for parent in ("", *parents)
        }
        return found.union(*(name.split(".", 1)[:1] for name in self.modules))


@lru_cache(maxsize=4096)
def named(code: CodeType) -> Named:
    """List the names in code."""
    variables: dict[str, None] = {}
    names: set[str] = set()
    modules: set[str] = set()
    stored: set[str] = set()
    other: set[str] = set()
    named_all = True
    settings: frozenset[str] | None = frozenset()
    for one in _codes(code):
        steps = list(dis.get_instructions(one))
        asked = _settings(steps)
        settings = None if asked is None or settings is None else settings | asked
        for step in steps:
            if step.opname in _GLOBALS:
                variables[step.argval] = None
            elif step.opname == "IMPORT_NAME":
                modules.add(step.argval)
            if isinstance(step.argval, str):
                (stored if step.opname == "STORE_ATTR" else other).add(step.argval)
        names.update(one.co_names)
        named_all = named_all and _names_what_it_gets(steps)
        words = [word for value in one.co_consts for word in _words(value)]
        names.update(words)
        other.update(words)
    if "globals" in variables:
        variables |= dict.fromkeys(sorted(names))
    if named_all:
        names.discard("getattr")
    if not names.isdisjoint(_IMPORTS):
        modules |= names
    kept = frozenset(stored - other)
    return Named(tuple(variables), frozenset(names), frozenset(modules), kept, settings)


def _settings(steps: Sequence[dis.Instruction]) -> frozenset[str] | None:
    """List the variables of the process that some steps ask for by constants, or give None."""
    found: set[str] = set()
    for i, step in enumerate(steps):
        if step.argval in SETTINGS:
            name = _setting(step.argval, steps[i + 1 : i + 5])
            if name is None:
                return None
            found.add(name)
    return frozenset(found)


def _setting(asked: str, after: Sequence[dis.Instruction]) -> str | None:
    """Name the variable that the steps behind a word ask for; None if they do something else."""
    calls = asked == "getenv" or (bool(after) and after[0].argval == "get")
    rest = list(after[1:] if calls and asked == "environ" else after)
    given = []
    while rest and rest[0].opname == "LOAD_CONST":
        given.append(rest.pop(0).argval)
    if not rest or not given or not isinstance(given[0], str):
        return None
    if calls:
        taken = rest[0].opname in {"PRECALL", "CALL"} and rest[0].arg == len(given)
    else:
        taken = rest[0].opname == "BINARY_SUBSCR" and len(given) == 1
    return given[0] if taken else None


def _names_what_it_gets(steps: Sequence[dis.Instruction]) -> bool:
    """Tell whether each `getattr` has a constant for the name."""
    starts = [i + 1 for i, s in enumerate(steps) if s.argval == "getattr"]
    return all(_takes_constant(steps[i:]) for i in starts)


def _takes_constant(steps: Sequence[dis.Instruction]) -> bool:
    """Tell whether a call that these steps make has a constant second."""
    depth, found = 0, None
    for step in steps:
        if step.opcode in _JUMPS:
            return False
        if step.opname in {"PRECALL", "CALL"} and depth == step.arg:
            return found is not None and found.opname == "LOAD_CONST"
        depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        if depth < 3:
            found = step if depth == 2 else None
    return False


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
    found = str(getattr(sys.modules.get(top), "__dict__", {}).get("__file__") or "")
    return "site-packages" not in found and "dist-packages" not in found

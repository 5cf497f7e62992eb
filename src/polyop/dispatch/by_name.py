"""The text that puts arguments given by name, and defaults, into their places in an entry."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.operator import OpOverload
from polyop.schema.model import MISSING


def by_name_text(op: OpOverload, given: str) -> tuple[list[str], dict[str, Any]]:
    """Lines that put arguments given by name into their places, and the constants in them.

    The slow way says what is wrong with a name that is left. What was not given is the default.
    """
    lines = ["if _named or _rest:", f"    if _rest: return slow(op, {given}, _rest, _named)"]
    constants, filled = {}, []
    for i, argument in enumerate(op._schema.positional):
        name, default = f"<name {i}>", f"<default {i}>"
        constants[name] = argument.name
        lines.append(f"    if a{i} is MISSING and {name!r} in _named: a{i} = _named.pop({name!r})")
        if argument.default_value is not MISSING:
            constants[default] = argument.default_value
            filled.append(f"if a{i} is MISSING: a{i} = {default!r}")
    lines.append(f"    if _named: return slow(op, {given}, _rest, _named)")
    return [*lines, *filled], constants

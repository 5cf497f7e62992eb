"""Operators that are made of others when they are asked for: functional twins and padded forms.

Files name them as they name all others, and the process that reads one may not have asked yet.
"""

from __future__ import annotations

from polyop.dispatch.late_operators import bring
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, PACKETS, split_name
from polyop.errors import PolyopError
from polyop.lazy import load

TWIN = "functional"
PADDED = "_padded"
#: The namespace of the padded forms of polyop's own operators.
PADDED_SPACE, OWN_SPACE = "padded::", "core::"


def operator_by_name(name: str) -> OpOverload | None:
    """Give the operator that a file names, made if it comes of another; None if there is none.

    Args:
        name: of the operator with its overload and version, as its schema has it.
    """
    bring(name)
    if name not in DEFINITIONS:
        try:
            _derive(name)
        except PolyopError:  # the other one has no such form
            return None
    found = DEFINITIONS.get(name)
    return None if found is None else found.op


def module_of(name: str) -> str:
    """Name the module to import for an operator; empty if nobody knows."""
    found = DEFINITIONS.get(name)
    if found is not None and found.module:
        return found.module
    origin = DEFINITIONS.get(_origin_of_twin(name))
    return origin.module if origin is not None else ""


def _derive(name: str) -> None:
    origin = _origin_of_twin(name)
    bring(origin)
    definition = DEFINITIONS.get(origin)
    if definition is not None:
        _ = definition.op.functional  # defines it
        return
    base = name.partition("@")[0]
    if base.endswith(PADDED):
        _pad(base.removesuffix(PADDED))


def _origin_of_twin(name: str) -> str:
    """Name the operator that a functional twin comes of; empty where the name is no twin's."""
    base, overload, version = split_name(name)
    if overload != TWIN and not overload.endswith(f"_{TWIN}"):
        return ""
    rest = overload.removesuffix(TWIN).removesuffix("_")
    return base + (f".{rest}" if rest else "") + (f"@{version}" if version > 1 else "")


def _pad(base: str) -> None:
    if base.startswith(PADDED_SPACE):
        base = OWN_SPACE + base.removeprefix(PADDED_SPACE)
    bring(base)
    packet = PACKETS.get(base)
    if packet is not None:
        # The bridges stand above programs.
        load("polyop.bridges.padded:padded")(packet.op_overloads()[0])

"""An error that an author's rule raises is told whose rule it is, and where that is written.

The rule runs far from the call that asked for it: in a backward pass, or below a transform. The
error's type and text are the author's, and stay what they are; what a reader needs is a note.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from polyop.dispatch.operator import OpOverload
from polyop.errors import PolyopError
from polyop.source import PACKAGE, Source, source_of

#: By the author's function, the rule that it was registered with, where they differ.
_RULES = {"setup_context": "backward", "vmap rule": "vmap"}


def note_rule(error: Exception, op: Any, name: str) -> None:
    """Add a note to an error: which function, of which operator, written where.

    An error of ours that names the operator needs none, and rules that are ours have none.

    Args:
        error: what the function raised.
        op: the operator; or what a `Function` is to errors, with its class in `cls`.
        name: `"backward"`, `"setup_context"`, `"jvp"` or `"vmap rule"`; of a `Function`, a method.
    """
    if not isinstance(op, OpOverload):
        _note_method(error, op.cls, name)
        return
    rule: Any = op.places.top(_RULES.get(name, name)) if op.alive else None
    if rule is None or op.is_builtin or _is_ours(rule.source):
        return
    setup = rule.fn.setup_context if name == "setup_context" else None
    source = source_of(setup) if isinstance(setup, FunctionType) else rule.source
    _note(error, str(op._schema), f"{name} of {op._schema}", source)


def _note_method(error: Exception, cls: type, name: str) -> None:
    source = source_of(getattr(cls, name))
    if not _is_ours(source):
        _note(error, cls.__name__, f"{name} of the Function {cls.__name__}", source)


def _note(error: Exception, op: str, what: str, source: Source) -> None:
    add_once(error, op, f"in the {what}, ", f"written at {source}")


def _is_ours(source: Source) -> bool:
    return str(source.file).startswith(PACKAGE)


def add_once(error: Exception, op: str, begin: str, rest: str) -> None:
    """Add a note of two parts, unless one begins so, or the error is ours and names `op`."""
    if isinstance(error, PolyopError) and error.op == op:
        return
    notes = getattr(error, "__notes__", None) or []
    if isinstance(notes, list) and not any(str(note).startswith(begin) for note in notes):
        error.add_note(f"{begin}{rest}")

"""`register_chunks`: how a call on an array in chunks may be cut, in the author's words.

Loops of an index signature may always be cut, and its named axes never: that a kernel may work on
a part of one, the signature does not say. An author who knows says it with the names of the axes,
or writes a rule for what no signature describes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from polyop.dispatch.index_signature import IndexSignature, index_of
from polyop.dispatch.library import Library, owner_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import RegistrationError, UsageError, UsageTypeError
from polyop.source import caller, source_of

Rule = Callable[..., Any]


def register_chunks(op: Any, /, *rule: Any, lib: Library | None = None) -> Any:
    """Say how a call on an array in chunks may be cut.

    Args:
        op: the operator, in any form.
        rule: names of axes of the index signature, each of which the kernel may be given in
            pieces; or a function `rule(run, *args, **kwargs)`, which gets chunked arrays and
            gives such arrays, and calls `run` as the operator where a kernel is to work on an
            array in one piece; without either, the call decorates such a function.
        lib: the library that owns the registration.

    Raises:
        UsageError: an axis is none of the index signature, or cannot be cut.
        UsageTypeError: the rule is neither names nor one function.
        RegistrationError: names without an index signature, or the operator writes its arguments.
    """
    found = as_operator(op)
    if found._schema.is_mutable:
        raise RegistrationError(
            f"{found.name()} writes its arguments, and arrays in chunks are never written",
            op=found._schema,
            source=found.source,
            fix="register the rule for its functional twin: op.functional",
        )
    if not rule:
        return lambda fn: _put_function(found, fn, lib)
    if all(isinstance(name, str) for name in rule):
        index = index_of(found)
        _check_names(found, rule, index)
        put_rule(found, "chunks", Kernel(_Names(rule), caller(), owner_of(lib, found.places)))
        return None
    if len(rule) > 1:
        _misused(found, rule)
    return _put_function(found, rule[0], lib)


def chunks_of(op: OpOverload) -> Rule | tuple[str, ...] | None:
    """Give the rule of an operator: a function, the names of axes, or None."""
    found = op.rule("chunks")
    return found.names if isinstance(found, _Names) else found


class _Names:
    """Axes that may be cut, in the place of a function."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, *args: Any) -> NoReturn:
        raise NotImplementedError


def _put_function(op: OpOverload, fn: Any, lib: Library | None) -> Any:
    if not callable(fn):
        _misused(op, fn)
    put_rule(op, "chunks", Kernel(fn, source_of(fn), owner_of(lib, op.places)))
    return fn


def _misused(op: OpOverload, seen: Any) -> NoReturn:
    raise UsageTypeError(
        "a chunks rule is names of axes, or one function",
        op=op._schema,
        seen=f"{seen!r:.80}",
        source=op.source,
        fix='write op.register_chunks("m", "n"), or decorate a function with @op.register_chunks()',
    )


def _check_names(op: OpOverload, names: tuple[str, ...], index: IndexSignature | None) -> None:
    if index is None:
        raise RegistrationError(
            f"{op.name()} has no index signature, whose axes could be cut",
            op=op._schema,
            seen=", ".join(names),
            source=op.source,
            fix="call register_index first, or give a function",
        )
    for name in names:
        problem = _problem(name, index)
        if problem:
            raise UsageError(
                f"axis {name!r} of {op.name()} cannot be cut: {problem}",
                op=op._schema,
                declared=index.text,
                source=op.rule_source("index"),
                fix="name axes of arguments that go through to every result, once in each",
            )


def _problem(name: str, index: IndexSignature) -> str:
    if name.isdigit():
        return "its size is fixed"
    if not any(name in group for group in index.inputs):
        return "no argument has it"
    if any(group.count(name) > 1 for group in index.inputs):
        return "an argument has it twice"
    if any(group.count(name) != 1 for group in index.outputs):
        return "not every result has it once"
    return ""


def may_cut(op: OpOverload, name: str) -> bool:
    """Tell whether an axis of an operator's index signature could be named."""
    index = index_of(op)
    return index is not None and not _problem(name, index)


def cuttable(op: OpOverload) -> frozenset[str]:
    """Give the named axes of an operator that may be cut."""
    rule, index = chunks_of(op), index_of(op)
    if not isinstance(rule, tuple) or index is None:
        return frozenset()
    return frozenset(name for name in rule if not _problem(name, index))

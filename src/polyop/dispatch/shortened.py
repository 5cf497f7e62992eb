"""The form of a call's arguments that modes, subclasses and graph nodes see (S65).

Trailing positional and any keyword-only arguments that equal their defaults
are left out. The tests are written out per operator, so that no call loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.write import Shape, indent, make_function, shape_of, spelled_tuple
from polyop.schema.values import thaw


def shortened(op: OpOverload, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave out trailing positional and any keyword arguments that equal their defaults (S65)."""
    give: Handler | None = op.notes.get("shortened")
    if give is None:
        shape = shape_of(op._schema)
        lines = [*shortened_text(op, shape), "return _args, _kw"]
        give = op.notes["shortened"] = written(op, shape, lines, default_scope(op))
    found: tuple[tuple[Any, ...], dict[str, Any]] = give(*values)
    return found


def shortened_text(op: OpOverload, shape: Shape) -> list[str]:
    """Lines that leave the shortened form in `_args` and `_kw`, without a loop."""
    n = shape.positional
    lines = [f"_args = {spelled_tuple(shape.names[:n])}"]
    depth, i = 0, n - 1
    while i in shape.optional:
        test = f"if {_default_test(op, i)}:"
        lines += [f"{'    ' * depth}{test}", f"{'    ' * (depth + 1)}_m = {i}"]
        depth, i = depth + 1, i - 1
    if depth:
        # Most calls give nothing optional, or all of it; the slice is for those in between.
        lines = [f"_m = {n}", *lines[1:], f"_args = {spelled_tuple(shape.names[:n])}[:_m]"]
    lines.append("_kw = {}")
    for k, name in enumerate(shape.keywords, n):
        keep = f"_kw[{name!r}] = a{k}"
        lines.append(f"if not ({_default_test(op, k)}): {keep}" if k in shape.optional else keep)
    return lines


def _default_test(op: OpOverload, i: int) -> str:
    """Spell the test whether an argument equals its default, class and all."""
    default = op._schema.arguments[i].default_value
    if default is None or default is True or default is False:
        return f"a{i} is {default}"
    if default.__class__ in {int, str}:
        return f"a{i}.__class__ is {default.__class__.__name__} and a{i} == d{i}"
    return f"is_default(a{i}, d{i})"


def default_scope(op: OpOverload) -> dict[str, Any]:
    """Give the names that the text of the shortened form uses."""
    arguments = enumerate(op._schema.arguments)
    found = {f"d{i}": thaw(a.default_value) for i, a in arguments if a.has_default_value()}
    return {"is_default": is_default, **found}


def is_default(value: Any, default: Any) -> bool:
    """Tell whether a value is the default: of the same class, and the same zero."""
    if value is default:
        return True
    if value.__class__ is not default.__class__:
        return False
    if value.__class__ is list or value.__class__ is tuple:
        return len(value) == len(default) and all(map(is_default, value, default))
    if value.__class__ in {float, complex}:
        return repr(value) == repr(default)  # 0.0 and -0.0 are equal
    return bool(value == default)


def written(op: OpOverload, shape: Shape, lines: Sequence[str], scope: dict[str, Any]) -> Handler:
    """Make the function of an operator's arguments with these lines."""
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(lines)])
    return make_function(text, scope, op._opname, [a.name for a in op._schema.arguments])

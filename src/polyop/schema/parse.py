"""Schema text to a frozen schema.

Text is cut at its top-level commas. Signatures, types and arguments are read
once per spelling: most operators share theirs. A mistake travels up as a
`Fault` with its place, and becomes the user's error, with a caret, at the top
(SPEC S5 to S13).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NoReturn

from polyop.errors import SchemaSyntaxError, UsageTypeError
from polyop.schema.classes import on_change
from polyop.schema.literals import Fault, read_literal
from polyop.schema.model import MISSING, AliasInfo, Argument, FunctionSchema
from polyop.schema.type_text import parse_type
from polyop.schema.types import Type
from polyop.schema.values import Mismatch, fit_default

_IDENT = r"[^\W\d]\w*"
_HEADER = re.compile(rf"\s*(?:({_IDENT})::)?({_IDENT})(?:\.({_IDENT}))?(?:@([1-9]\d*))?\s*")
_ARROW = re.compile(r"\s*->\s*")
_MARK = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[()\[\]{},="']""", re.DOTALL)
_NESTED = re.compile(r"""[({'"]|=\s*\[""").search
_OPEN, _CLOSE = "([{", ")]}"


def parse_schema(text: str) -> FunctionSchema:
    """Read a schema.

    Args:
        text: such as `"ns::op(Tensor x, *, float alpha=1.0) -> Tensor"`.

    Raises:
        SchemaSyntaxError: if the text is not in the language.
        UsageTypeError: if it is no text.

    Example:
        >>> parse_schema("ns::double(Tensor x) -> Tensor").arguments[0].name
        'x'
    """
    if not isinstance(text, str):
        raise UsageTypeError("a schema is given as text", seen=repr(text))
    try:
        return _schema(text)
    except Fault as fault:
        raise _user_error(text, fault) from None


def parse_definition(text: str) -> FunctionSchema:
    """Read the schema of an operator that is to be defined, so one without `...` (S5).

    Raises:
        SchemaSyntaxError: if the text is not in the language, or ends in `...`.
    """
    schema = parse_schema(text)
    if schema.is_vararg:
        problem = "an operator has all its arguments in its schema, so '...' defines none"
        fault = Fault(problem, text.rindex("..."), 3, "write a list, such as 'Tensor[] xs'")
        raise _user_error(text, fault)
    return schema


def _user_error(text: str, fault: Fault) -> SchemaSyntaxError:
    """Make the error that a user sees: the problem, the line, a caret."""
    start = text.rfind("\n", 0, fault.at) + 1
    line = text[start:].partition("\n")[0]
    column = fault.at - start
    caret = " " * column + "^" * max(1, min(fault.length, len(line) - column))
    return SchemaSyntaxError(
        f"{fault.problem}\n    {line}\n    {caret}",
        op=(m.group().strip() if (m := _HEADER.match(text)) else ""),
        fix=fault.fix,
    )


def _schema(text: str) -> FunctionSchema:
    name, overload, version, start = read_name(text)
    try:
        return FunctionSchema(name, overload, version, *_signature(text[start:]))
    except Fault as fault:
        raise fault.shifted(start) from None


@lru_cache(maxsize=4096)
def _signature(text: str) -> tuple[tuple[Argument, ...], tuple[Argument, ...], bool]:
    """Read all after the name: the arguments, the returns, and whether `...` ends the first."""
    if not text.startswith("("):
        raise Fault("expected '(' after the operator's name")
    end = _closing(text, 0)
    arguments, is_vararg = _arguments(text[1:end], 1)
    arrow = _ARROW.match(text, end + 1)
    if arrow is None:
        raise Fault("expected '->' and the returns", end + 1, fix="write '-> ()' for no returns")
    returns = _returns(text[arrow.end() :].rstrip(), arrow.end())
    _check_sets(arguments, returns, arrow.end(), len(text))
    return arguments, returns, is_vararg


def read_name(text: str) -> tuple[str, str, int, int]:
    """Read `[ns::]name[.overload][@version]`: the parts, and where they end.

    Raises:
        Fault: if there is no such name.
    """
    header = _HEADER.match(text)
    if header is None:
        raise Fault("expected the operator's name", fix="write 'ns::name(...) -> ...'")
    namespace, name, overload, version = header.groups()
    if overload and (overload == "default" or overload.startswith("__")):
        at, length = header.start(3), len(overload)
        raise Fault(f"{overload!r} is no name for an overload", at, length)
    full = f"{namespace}::{name}" if namespace else name
    return full, overload or "", int(version) if version else 1, header.end()


# -- cutting text -------------------------------------------------------------


def _closing(text: str, start: int) -> int:
    """Find the bracket that closes the one at `start`."""
    end = text.find(")", start)
    if end >= 0 and not _NESTED(text, start + 1, end):
        return end
    depth = 0
    for mark in _MARK.finditer(text, start):
        char = mark.group()
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
            if depth == 0:
                return mark.start()
        elif len(char) == 1 and char in "'\"":
            raise Fault("a string without end", mark.start())
    raise Fault("a bracket without end", start)


def cut(text: str, at: str) -> list[str]:
    """Cut text at a mark, where it is in no brackets and no string."""
    if at not in text:
        return [text]
    if not _NESTED(text):
        return text.split(at)
    pieces, depth, start = [], 0, 0
    for mark in _MARK.finditer(text):
        char = mark.group()
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
        elif char == at and depth == 0:
            pieces.append(text[start : mark.start()])
            start = mark.end()
    return [*pieces, text[start:]]


def _shifted(fault: Fault, pieces: list[str], index: int, base: int) -> NoReturn:
    """Raise a fault of one piece as a fault of the whole text."""
    piece = pieces[index]
    indent = len(piece) - len(piece.lstrip())
    base += sum(len(p) + 1 for p in pieces[:index])
    raise fault.shifted(base + indent) from None


# -- arguments and returns ----------------------------------------------------


def _arguments(text: str, base: int) -> tuple[tuple[Argument, ...], bool]:
    """Read everything between the brackets; the flag says whether `...` ends it."""
    if not text or text.isspace():
        return (), False
    pieces = cut(text, ",")
    found: list[Argument] = []
    kwarg_only = optional = False
    for index, piece in enumerate(pieces):
        word = piece.strip()
        try:
            if word == "*":
                if kwarg_only:
                    raise Fault("a second '*'")
                kwarg_only = True
                continue
            if word == "...":
                if index + 1 < len(pieces):
                    raise Fault("'...' comes last", 0, 3)
                return _distinct(found, pieces, base), True
            argument = parse_argument(word, kwarg_only)
            optional = _check_order(argument, optional, len(word))
        except Fault as fault:
            _shifted(fault, pieces, index, base)
        found.append(argument)
    return _distinct(found, pieces, base), False


def _check_order(argument: Argument, optional: bool, length: int) -> bool:
    """Refuse a positional argument that must be given after one that need not be."""
    if argument.kwarg_only or argument.has_default_value():
        return optional or not argument.kwarg_only
    if optional:
        problem = f"argument {argument.name!r} has no default, but one before it has"
        raise Fault(problem, 0, length, "give it a default, or put it after '*'")
    return False


def _distinct(found: list[Argument], pieces: list[str], base: int) -> tuple[Argument, ...]:
    if len({a.name for a in found}) < len(found):
        seen: set[str] = set()
        for index, name in enumerate(_names(found, pieces)):
            if name in seen:
                fault = Fault(f"a second argument {name!r}", 0, len(pieces[index].strip()))
                _shifted(fault, pieces, index, base)
            seen.add(name)
    return tuple(found)


def _names(found: list[Argument], pieces: list[str]) -> list[str]:
    names = iter(found)
    return [p.strip() if p.strip() in ("*", "...") else next(names).name for p in pieces]


@lru_cache(maxsize=4096)
def parse_argument(text: str, kwarg_only: bool = False) -> Argument:
    """Read `Type name[=default]`.

    Raises:
        Fault: if it is none.
    """
    head, *default = cut(text, "=")
    words = head.rsplit(None, 1)
    if len(words) < 2 or not is_name(words[1]):
        raise Fault("expected a type and a name", 0, max(1, len(text)), "write 'Type name'")
    schema_type, alias_info = parse_type(words[0])
    value = MISSING
    if default:
        at = len(head) + 1
        value = _default(schema_type, text[at:].strip(), text, at)
    return Argument(words[1], schema_type, alias_info, value, kwarg_only)


def _default(schema_type: Type, text: str, whole: str, at: int) -> Any:
    at += whole[at:].find(text) if text else 0
    try:
        return fit_default(schema_type, read_literal(text))
    except Fault as fault:
        raise fault.shifted(at) from None
    except Mismatch as wrong:
        reason = wrong.reason and f" ({wrong.reason})"
        problem = f"the default {text} is no value of type {schema_type}{reason}"
        raise Fault(problem, at, len(text)) from None


def is_name(text: str) -> bool:
    """Say whether text may name an argument; `flat()` makes names with dots."""
    return text.isidentifier() or ("." in text and all(p.isidentifier() for p in text.split(".")))


def _returns(text: str, base: int) -> tuple[Argument, ...]:
    """Read what stands after the arrow."""
    if not text:
        raise Fault("expected the returns", base, fix="write '-> ()' for no returns")
    if text == "None":
        raise Fault("'None' is no type here", base, len(text), "write '-> ()' for no returns")
    if text[0] != "(" or _closing(text, 0) < len(text) - 1:
        pieces = [text]
        if len(cut(text, ",")) > 1:
            raise Fault("several returns stand in brackets", base, len(text))
    else:
        text, base = text[1:-1], base + 1
        if not text or text.isspace():
            return ()
        pieces = cut(text, ",")
    return tuple(_each_return(pieces, base))


def _each_return(pieces: list[str], base: int) -> list[Argument]:
    found: list[Argument] = []
    for index, piece in enumerate(pieces):
        try:
            found.append(parse_return(piece.strip()))
        except Fault as fault:
            _shifted(fault, pieces, index, base)
    return found


@lru_cache(maxsize=4096)
def parse_return(text: str) -> Argument:
    """Read `Type` or `Type name`.

    Raises:
        Fault: if it is neither.
    """
    head, name = text, ""
    words = text.rsplit(None, 1)
    if len(words) == 2 and is_name(words[1]):
        head, name = words
    schema_type, alias_info = parse_type(head)
    return Argument(name, schema_type, alias_info)


def _check_sets(
    arguments: tuple[Argument, ...], returns: tuple[Argument, ...], start: int, end: int
) -> None:
    """Refuse an alias set of the returns that no argument carries."""
    named = {name for r in returns if r.alias_info for name in _set_names(r.alias_info)}
    if not named:
        return
    carried = {name for a in arguments if a.alias_info for name in _set_names(a.alias_info)}
    if lost := named - carried - {"*"}:
        problem = f"no argument carries the alias set {min(lost)!r} of the returns"
        raise Fault(problem, start, end - start, f"write 'Tensor({min(lost)}) name'")


def _set_names(info: AliasInfo) -> frozenset[str]:
    return info.before_set | info.after_set


def _forget() -> None:
    for memo in (parse_type, parse_argument, parse_return, _signature):
        memo.cache_clear()


on_change(_forget)

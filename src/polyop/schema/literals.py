"""Constants as schema text: writing them, and reading them back.

Text made here reads back as the same value, with `inf`, `nan`, quotes,
backslashes and newlines in it (SPEC S12, S15).
"""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Any

import numpy as np

from polyop.devices import Device, Layout, MemoryFormat

#: Strings, numbers, words (`cuda:0`, `my.Mode`), arrows, single marks.
TOKEN = re.compile(
    r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
    r"""|[-+]?(?:\.?\d|(?:inf|nan)j?(?!\w))[\w.+-]*"""
    r"""|[^\W\d]\w*(?:(?:::|[.:])\w+)*"""
    r"""|->|\S""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_CONSTANTS = {"None": None, "True": True, "False": False}
_QUOTES = ("'", '"')
_OPEN_LIST = "["
_NUMERIC = frozenset("0123456789+-.in")


class Word(str):
    """A bare word in the place of a constant: a dtype, device or member name."""

    __slots__ = ()


class Fault(Exception):  # noqa: N818 - a place in text, not the user's error
    """A mistake in text, by its place; the parser makes the user's error of it."""

    def __init__(self, problem: str, at: int = 0, length: int = 1, fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.at = at
        self.length = length
        self.fix = fix

    def shifted(self, base: int) -> Fault:
        """Give the same fault, for text in which this one begins at `base`."""
        return Fault(self.problem, self.at + base, self.length, self.fix)


class Reader:
    """The tokens of a text, one after the other."""

    __slots__ = ("at", "starts", "tokens")

    def __init__(self, text: str) -> None:
        found = list(TOKEN.finditer(text))
        self.tokens = [m.group() for m in found] + [""]
        self.starts = [m.start() for m in found] + [len(text)]
        self.at = 0

    @property
    def next(self) -> str:
        """The token to come; empty at the end."""
        return self.tokens[self.at]

    def take(self) -> str:
        """Step over a token and give it."""
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, token: str) -> bool:
        """Step over a token if it is the next one."""
        found = self.tokens[self.at] == token
        self.at += found
        return found

    def expect(self, token: str) -> None:
        """Step over a token that must be there."""
        if not self.accept(token):
            raise self.fault(f"expected {token!r}, found {self.next or 'the end'!r}")

    def fault(self, problem: str, back: int = 0, fix: str = "") -> Fault:
        """Give a fault at the next token, or some tokens before it."""
        at = self.at - back
        return Fault(problem, self.starts[at], max(1, len(self.tokens[at])), fix)


def literal_text(value: Any, *, words: bool = False) -> str:
    """Write a constant as schema text.

    Args:
        value: the constant.
        words: whether a device is a word, where a string would be read as one.
    """
    if isinstance(value, Enum):
        return str(value) if isinstance(value, Layout | MemoryFormat) else value.name
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(literal_text(v, words=words) for v in value)}]"
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, Device):
        return str(value) if words else quote(str(value))
    return repr(value).strip("()")


def quote(text: str) -> str:
    r"""Write a string in double quotes; what does not print is escaped."""
    plain = text.replace("\\", "\\\\")
    if not text.isprintable():
        plain = text.encode("unicode_escape").decode("ascii")
    return '"' + plain.replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """Read a quoted string; an unknown escape stays as it is written."""
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPED.get(code, match.group())


def read_literal(text: str) -> Any:
    """Read a whole text as one constant."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[:1] in _NUMERIC and (number := read_number(text)):
        return number[0]
    reader = Reader(text)
    value = next_literal(reader)
    if reader.next:
        raise reader.fault("a default is one constant")
    return value


def next_literal(reader: Reader) -> Any:
    """Read one constant from a reader."""
    token = reader.take()
    if token == _OPEN_LIST:
        return _list(reader)
    if token[:1] in _QUOTES and len(token) > 1:
        return unquote(token)
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if number := read_number(token):
        return number[0]
    if token[:1].isidentifier():
        return Word(token)
    reader.at -= 1
    problem = "a string without end" if token in _QUOTES else "expected a constant"
    raise reader.fault(problem)


def _list(reader: Reader) -> list[Any]:
    values: list[Any] = []
    if reader.accept("]"):
        return values
    while True:
        values.append(next_literal(reader))
        if not reader.accept(","):
            reader.expect("]")
            return values


def read_number(token: str) -> tuple[complex] | tuple[()]:
    """Read an int, else a float, else a complex number; nothing if it is none."""
    if token[:1].isidentifier() and not token.startswith(("inf", "nan")):
        return ()
    for kind in (int, float, complex):
        try:
            value = kind(token)
        except ValueError:
            continue
        # One nan for all, so that equal schemas compare equal.
        return (math.nan,) if kind is float and math.isnan(value.real) else (value,)
    return ()

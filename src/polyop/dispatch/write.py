"""Pieces of Python text for the functions that are written from schemas.

Every hot function of an operator (its entry, and one handler per layer) is
written once from the schema, so that a call pays no loop over arguments and
no frame that forwards. Here is what those texts have in common: how the keys,
payloads and static values of each kind of argument are spelled, how results
are wrapped, and how a text becomes a function.

Compiling takes 300 us, so a text is compiled once per shape of schema, with
arguments called `a0`, `a1`, ..., and a function of it gets the author's names
by replacing the code's name tables (PERFORMANCE section 13).
"""

from __future__ import annotations

import builtins
import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from keyword import iskeyword
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from polyop.dispatch.context import reset_word, set_word, word
from polyop.dispatch.counts import bump_in, bump_shared
from polyop.dispatch.parts import PARTS
from polyop.records import NamedTuple
from polyop.schema.model import MISSING, FunctionSchema
from polyop.schema.types import leaf_kind

#: The class of what needs no conversion to be a `ScalarType`.
DTYPE = np.dtype
#: Static types whose values need one look at their class.
EXACT = {"int": "int", "SymInt": "int", "float": "float", "bool": "bool", "str": "str"}
#: Types of lists of such values: `int[]`, `SymInt[2]`, ...
_LIST = re.compile(r"(int|SymInt|float|bool|str)\[(\d*)\]")


_NONE: Mapping[str, Any] = {}


class Shape(NamedTuple):
    """What of a schema decides the text of its functions.

    Attributes:
        kinds: the leaf kind of each argument (`schema.values.leaf_kind`).
        types: the type of each argument, as text.
        keyword_only: how many arguments at the end are keyword-only.
        keywords: their names (a kernel gets them by name).
        written: the positions of written arguments.
        results: the type of each result, as text.
        optional: the positions of arguments that have a default.
    """

    kinds: tuple[str, ...]
    types: tuple[str, ...]
    keywords: tuple[str, ...]
    written: tuple[int, ...]
    results: tuple[str, ...]
    optional: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """The arguments' names in texts."""
        return [f"a{i}" for i in range(len(self.kinds))]

    @property
    def positional(self) -> int:
        """How many arguments are positional."""
        return len(self.kinds) - len(self.keywords)

    def of(self, *kinds: str) -> list[str]:
        """Name the arguments of some kinds."""
        return [f"a{i}" for i, kind in enumerate(self.kinds) if kind in kinds]


def shape_of(schema: FunctionSchema) -> Shape:
    """Read a schema's shape."""
    arguments = schema.arguments
    return Shape(
        tuple(leaf_kind(a.type) for a in arguments),
        tuple(str(a.type) for a in arguments),
        tuple(a.name for a in arguments if a.kwarg_only),
        tuple(i for i, a in enumerate(arguments) if a.is_write),
        tuple(str(r.type) for r in schema.returns),
        tuple(i for i, a in enumerate(arguments) if a.has_default_value()),
    )


# -- arguments ----------------------------------------------------------------


def keys_text(shape: Shape, *, context: bool = True) -> list[str]:
    """Lines that leave the code of the call in `_k`."""
    parts = [f"{a}.keys" for a in shape.of("tensor")]
    parts += [f"(0 if {a} is None else {a}.keys)" for a in shape.of("tensor?")]
    parts += ["word()"] if context or not parts else []
    lines = [f"_k = {' | '.join(parts)}"]
    for a in shape.of("tensor[]"):
        lines += [f"for _x in {a}:", "    _k |= _x.keys"]
    for a in shape.of("tensor?[]"):
        lines += [f"for _x in {a}:", "    if _x is not None: _k |= _x.keys"]
    for a in shape.of("tree"):
        tensors = f"_t{a[1:]}"
        lines += [f"if {tensors} is None: _k |= keys_in({a})"]
        lines += ["else:", f"    for _x in {tensors}: _k |= _x.keys"]
    return lines


def checks_text(shape: Shape, *, read: bool = False) -> list[str]:
    """Lines that convert static values which are not of the plain class.

    Args:
        shape: of the schema.
        read: whether trees were read, so that those whose tensors are known pass as they are.
    """
    lines = []
    for i, (kind, text) in enumerate(zip(shape.kinds, shape.types, strict=True)):
        if kind == "tree" and read:
            lines.append(f"if _t{i} is None: a{i} = convert(op, {i}, a{i})")
        else:
            lines += _check_text(i, kind, text)
    return lines


def _check_text(i: int, kind: str, text: str) -> list[str]:
    a, convert = f"a{i}", f"a{i} = convert(op, {i}, a{i})"
    if kind in {"tensor", "tensor?"}:
        return []
    if kind in {"tensor[]", "tensor?[]"}:
        # A copy, so that a list which the caller changes later changes nothing here.
        return [f"{a} = [*{a}] if {a}.__class__ is list else convert(op, {i}, {a})"]
    if text.endswith("?"):
        return [f"if {a} is not None:", *indent(_check_text(i, kind, text[:-1]))]
    if text == "float":
        whole = f"{a}.__class__ is int and {-SMALL} < {a} < {SMALL}"
        return [
            f"if {odd_text(a, text)}:",
            f"    if {whole}: {a} = float({a})",
            f"    else: {convert}",
        ]
    if text in EXACT:
        return [f"if {odd_text(a, text)}: {convert}"]
    if text == "Scalar":
        return [f"if {odd_text(a, 'float')} and ({odd_text(a, 'int')}): {convert}"]
    if text == "ScalarType":
        return [f"if not isinstance({a}, DType): {convert}"]
    found = _LIST.fullmatch(text)
    if found is None:
        return [convert]
    single = [f"elif not ({odd_text(a, found[1])}): {a} = [{a}]"] if found[2] == "1" else []
    return [
        f"if {a}.__class__ is list or {a}.__class__ is tuple:",
        f"    {a} = [*{a}]",
        f"    for _x in {a}:",
        f"        if {odd_text('_x', found[1])}: {convert}; break",
        *single,
        f"else: {convert}",
    ]


def odd_text(value: str, text: str) -> str:
    """Spell the test for values that need a closer look; integers beyond 30 bits are among them."""
    small = f" or not {-SMALL} < {value} < {SMALL}" if EXACT[text] == "int" else ""
    return f"{value}.__class__ is not {EXACT[text]}{small}"


#: Integers below this compare fastest; larger ones may be outside 64 bits (S63).
SMALL = 2**30 - 1


def bumps_text(shape: Shape) -> list[str]:
    """Lines that count a write to each written argument.

    Before the kernel: one that fails half-way has written too.
    """
    lines = []
    for i in shape.written:
        a, kind = f"a{i}", shape.kinds[i]
        if kind == "tensor":
            lines += _bump(a)
        elif kind == "tensor?":
            lines += [f"if {a} is not None:", *(f"    {line}" for line in _bump(a))]
        else:
            lines += [f"bump_in(op, {a})"]
    return lines


def _bump(a: str) -> list[str]:
    return [
        f"_v = {a}.version",
        f"if _v.__class__ is int: {a}.version = _v + 1",
        f"else: bump_shared(op, {a})",
    ]


def payload_of(i: int, kind: str) -> str:
    """Spell the payload of an argument."""
    a = f"a{i}"
    return {
        "tensor": f"{a}.payload",
        "tensor?": f"(None if {a} is None else {a}.payload)",
        "tensor[]": f"[_x.payload for _x in {a}]",
        "tensor?[]": f"[None if _x is None else _x.payload for _x in {a}]",
        "tree": f"payloads_in({a})",
    }.get(kind, a)


def call_text(shape: Shape, *, payloads: bool, kernel: str = "kernel") -> str:
    """Spell the call of a kernel.

    Kernels on payloads are ours and take all by position; an author's kernel
    gets keyword-only arguments by name.
    """
    if payloads:
        values = [payload_of(i, kind) for i, kind in enumerate(shape.kinds)]
        return f"{kernel}({', '.join(values)})"
    names, n = shape.names, shape.positional
    named = [
        f"**{{{key!r}: {a}}}" if iskeyword(key) else f"{key}={a}"
        for key, a in zip(shape.keywords, names[n:], strict=True)
    ]
    return f"{kernel}({', '.join([*names[:n], *named])})"


# -- from text to function ----------------------------------------------------


def spelled_tuple(names: Sequence[str]) -> str:
    """Spell a tuple of names."""
    return f"({', '.join(names)}{',' if names else ''})"


def indent(lines: Sequence[str], by: int = 1) -> list[str]:
    """Move lines to the right."""
    return [f"{'    ' * by}{line}" for line in lines]


@cache
def compiled(text: str) -> CodeType:
    """Compile the text of one function, and let tracebacks show it."""
    file = f"<polyop {abs(hash(text)):x}>"
    scope: dict[str, Any] = {}
    code = compile(text, file, "exec")
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(code, scope)  # noqa: S102 - every word in it comes from a parsed schema
    found: CodeType = scope["f"].__code__
    return found


#: What C code that a generated function calls imports with, as when NumPy raises an error.
BUILTINS = vars(builtins)
#: The constants of a text in whose place `renamed` puts a kernel, and a set of codes.
KERNEL, PLAIN = "<kernel>", "<plain>"


def renamed(
    text: str, name: str, arguments: Sequence[str], constants: Mapping[str, Any] = _NONE
) -> CodeType:
    """Compile a text, with the author's names for its arguments, and values as constants.

    Local names get a dot in front, which no argument can have.
    """
    code = compiled(text)
    names = {f"a{i}": argument for i, argument in enumerate(arguments)}
    local = tuple(names.get(v, f".{v}") for v in code.co_varnames)
    values = code.co_consts
    if constants:
        values = tuple(constants.get(c, c) if c.__class__ is str else c for c in values)
    return code.replace(co_name=name, co_qualname=name, co_varnames=local, co_consts=values)


def make_function(  # noqa: PLR0917 - as types.FunctionType has them
    text: str,
    scope: dict[str, Any],
    name: str,
    arguments: Sequence[str],
    defaults: tuple[Any, ...] | None = None,
    keyword_defaults: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """Make a function of a text, with `scope` as its globals."""
    scope.setdefault("__builtins__", BUILTINS)
    fn = FunctionType(renamed(text, name, arguments), scope, name, defaults)
    if keyword_defaults:
        fn.__kwdefaults__ = keyword_defaults
    return fn


def base_scope(op: Any, **more: Any) -> dict[str, Any]:
    """Give the names that generated functions use."""
    return {
        "__builtins__": BUILTINS,
        "op": op,
        "word": word,
        "set_word": set_word,
        "reset_word": reset_word,
        "MISSING": MISSING,
        "DType": DTYPE,
        "Tensor": PARTS.Tensor,
        "ndarray": PARTS.ndarray,
        "asarray": PARTS.asarray,
        "share": PARTS.share,
        "bump_in": bump_in,
        "bump_shared": bump_shared,
        **more,
    }

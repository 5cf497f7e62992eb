"""The list of a kernel library, read and checked line by line; nothing is registered here.

What stands in the list is another program's memory: each text is decoded, each
schema parsed, and each function looked up before any of it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from ctypes import (
    CDLL,
    Structure,
    addressof,
    byref,
    c_char_p,
    c_uint32,
    c_void_p,
    cast,
    memmove,
    sizeof,
)
from os.path import join
from typing import NamedTuple

from polyop.devices import DTYPES, DType
from polyop.dispatch.body import carriers
from polyop.dispatch.c_kernel import Plan
from polyop.dispatch.factories import device_position
from polyop.dispatch.kernel_abi import ABI_VERSION, FUNCTION, STRIDED, CLibrary, COperator
from polyop.dispatch.keys import DispatchKey, parse_key
from polyop.dispatch.registry import DEFINITIONS, full_name
from polyop.dispatch.resolve import DENSE
from polyop.errors import (
    OperatorNotFoundError,
    PolyopError,
    RegistrationError,
    nearest,
)
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.parse import parse_definition
from polyop.schema.types import ListType, OptionalType, Type, leaf_kind
from polyop.source import PACKAGE, Source

#: The function that every kernel library exports.
SYMBOL = "polyop_library"
KEYS = frozenset(DENSE) - {DispatchKey.Meta} | {DispatchKey.CompositeExplicitAutograd}
_STATIC = {"int", "SymInt", "float", "bool", "complex", "str", "Scalar", "ScalarType"}
_RESULTS = {"Tensor", "int", "SymInt", "float", "bool"}


class Line(NamedTuple):
    """One operator of a library: what to define, and its kernel."""

    schema: FunctionSchema
    is_new: bool
    key: DispatchKey
    plan: Plan


def get_include() -> str:
    """Give the folder of `polyop.h`, for a compiler's option `-I`."""
    return join(PACKAGE, "include")


class _DlInfo(Structure):
    _fields_ = [
        ("file", c_char_p),
        ("base", c_void_p),
        ("symbol", c_char_p),
        ("address", c_void_p),
    ]


def base_of(handle: CDLL) -> int:
    """Give where a kernel library lies in memory, or 0 where the system does not tell."""
    return _base_of(cast(getattr(handle, SYMBOL), c_void_p).value or 0)


def _base_of(address: int) -> int:
    info = _DlInfo()
    try:
        found = CDLL(None).dladdr(c_void_p(address), byref(info))
    except (AttributeError, TypeError, OSError):
        return 0
    return info.base or 0 if found else 0


def read_list(full: str, handle: CDLL, others: Set[int]) -> Iterator[Line]:
    """Read the list of a library, and check each line.

    Args:
        full: its path.
        handle: what the system gave for it.
        others: where the libraries lie that were loaded before.

    Raises:
        RegistrationError: it was built for another `polyop.h`, or a line is not valid.
    """
    function = getattr(handle, SYMBOL)
    function.restype, function.argtypes = c_void_p, []
    address = function()
    if not address:
        raise RegistrationError(f"the library {full} has no list of operators")
    (version,) = (c_uint32 * 1).from_address(address)
    if version != ABI_VERSION:
        raise RegistrationError(
            f"the library {full} was built for another polyop.h",
            declared=f"version {ABI_VERSION} of the binary interface",
            seen=f"version {version}",
            fix=f"build it again, with -I{get_include()}",
        )
    library = CLibrary.from_address(address)
    others = others - {0, base_of(handle)}
    for i in range(library.count):
        given = COperator()
        at = library.operators + i * library.operator_size
        memmove(addressof(given), at, min(library.operator_size, sizeof(COperator)))
        source = Source(_text(given.file, full) or full, given.line)
        try:
            yield _line(given, source, others)
        except PolyopError as error:
            error.add_note(f"in the library {full}, at {source}")
            raise


def _text(given: bytes | None, full: str) -> str:
    try:
        return (given or b"").decode()
    except UnicodeDecodeError:
        raise RegistrationError(
            f"a text in {full} is not UTF-8", seen=repr(given)[:80], fix="save the file as UTF-8"
        ) from None


def _line(given: COperator, source: Source, others: Set[int]) -> Line:
    text = _text(given.schema, source.file).strip()
    for what, there in (("schema", text), ("kernel", given.kernel)):
        if not there:
            raise RegistrationError(
                f"an operator has no {what}", op=text, source=source, fix=f"write .{what} = ..."
            )
    is_new = "(" in text
    schema = parse_definition(text) if is_new else _defined(text, source)
    _check_space(schema, source)
    _check_types(schema, source)
    for function in (given.kernel, given.shape):
        _check_own(schema, function, others, source)
    key = _key(_text(given.key, source.file), schema, source)
    like = _like(_text(given.like, source.file), schema, source)
    if like and given.shape:
        raise RegistrationError(
            f"{schema.qualified_name} has both .like and .shape",
            op=schema,
            source=source,
            fix="leave one out",
        )
    shape = FUNCTION(given.shape) if given.shape else None
    strided = bool(given.flags & STRIDED)
    dtypes = _dtypes(_text(given.dtypes, source.file), schema, source)
    plan = Plan(schema, FUNCTION(given.kernel), shape, like, strided, source, dtypes)
    return Line(schema, is_new, key, plan)


def _defined(text: str, source: Source) -> FunctionSchema:
    name = full_name(text)
    if name not in DEFINITIONS:
        raise OperatorNotFoundError(
            f"there is no operator {name!r}{nearest(name, list(DEFINITIONS))}",
            source=source,
            fix="write its whole schema, or define it before the library is loaded",
        )
    return DEFINITIONS[name].op._schema


def _check_space(schema: FunctionSchema, source: Source) -> None:
    space, found, _ = schema.qualified_name.partition("::")
    if not found or space == "core":
        raise RegistrationError(
            f"{schema.qualified_name!r} is in no namespace of its own",
            op=schema,
            source=source,
            fix='write "mylib::name(...) -> ..."',
        )


def _check_types(schema: FunctionSchema, source: Source) -> None:
    wrong = [a for a in schema.arguments if not _is_known(a.type)]
    wrong += [
        r for i, r in enumerate(schema.returns) if not _is_result(r) or len(carriers(schema, i)) > 1
    ]
    if wrong:
        raise RegistrationError(
            f"{schema.qualified_name} has types that kernels in C do not take or give",
            op=schema,
            declared=f"arguments {', '.join(sorted({'Tensor'} | _STATIC))}, lists and options of "
            f"them; results {', '.join(sorted(_RESULTS))}, and written arguments",
            seen=", ".join(str(w) for w in wrong),
            source=source,
            fix="write a kernel in Python around it",
        )


def _is_known(kind: Type) -> bool:
    if isinstance(kind, (OptionalType, ListType)):
        return _is_known(kind.elem)
    return kind.text() == "Tensor" or kind.text() in _STATIC


def _is_result(result: Argument) -> bool:
    if result.alias_info is not None:
        return result.is_write
    return str(result.type) in _RESULTS


def _check_own(
    schema: FunctionSchema, function: int | None, others: Set[int], source: Source
) -> None:
    """Refuse a function that was taken from a library loaded before, by its name."""
    if function and others and _base_of(function) in others:
        raise RegistrationError(
            f"the kernel of {schema.qualified_name} has the name of a function in a library that "
            "was loaded before, and the system would run that one",
            op=schema,
            source=source,
            fix="make the function static: POLYOP_KERNEL(name) does",
        )


def _key(text: str, schema: FunctionSchema, source: Source) -> DispatchKey:
    default = DispatchKey.CPU if _has_tensors(schema) else DispatchKey.CompositeExplicitAutograd
    key = parse_key(text) if text else default
    if key not in KEYS:
        raise RegistrationError(
            f"a kernel in C computes, so it cannot stand at {key}",
            op=schema,
            declared=", ".join(sorted(map(str, KEYS))),
            source=source,
            fix='write .key = "CPU", or leave it out',
        )
    if key in DENSE and not _has_tensors(schema) and device_position(schema) is None:
        raise RegistrationError(
            f"{schema.qualified_name} has no Tensor argument that says which device a call is for",
            op=schema,
            source=source,
            fix="leave .key out",
        )
    return key


def _has_tensors(schema: FunctionSchema) -> bool:
    return any(leaf_kind(a.type) != "static" for a in schema.arguments)


def _dtypes(text: str, schema: FunctionSchema, source: Source) -> tuple[DType, ...]:
    names = [name.strip() for name in text.split(",")] if text else []
    unknown = [name for name in names if name not in DTYPES]
    if unknown:
        raise RegistrationError(
            f".dtypes of {schema.qualified_name} has {unknown[0]!r}{nearest(unknown[0], DTYPES)}",
            op=schema,
            declared=", ".join(DTYPES),
            source=source,
            fix='write .dtypes = "float32, float64"',
        )
    return tuple(DTYPES[name] for name in names)


def _like(text: str, schema: FunctionSchema, source: Source) -> tuple[int | None, ...]:
    """Give the position of the argument that each result is like."""
    if not text:
        return ()
    tensors = {a.name: i for i, a in enumerate(schema.arguments) if str(a.type) == "Tensor"}
    new = [r.alias_info is None and str(r.type) == "Tensor" for r in schema.returns]
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in tensors]
    if unknown or len(names) != sum(new):
        raise RegistrationError(
            f".like of {schema.qualified_name} names no Tensor argument for each result",
            op=schema,
            declared=f"{sum(new)} of the names {', '.join(tensors) or '(none)'}",
            seen=text,
            source=source,
            fix='write one name for each result: .like = "x, y"',
        )
    left = iter(names)
    return tuple(tensors[next(left)] if is_new else None for is_new in new)

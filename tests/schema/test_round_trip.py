"""Text and schema are two forms of one thing (SPEC S15)."""

from __future__ import annotations

import keyword
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyop.devices import DTYPES, Device, Layout, MemoryFormat
from polyop.schema.model import MISSING, AliasInfo, Argument, FunctionSchema
from polyop.schema.parse import parse_schema
from polyop.schema.types import (
    ANY,
    BASE_TYPES,
    BOOL,
    COMPLEX,
    DEVICE,
    FLOAT,
    INT,
    LAYOUT,
    MEMORYFORMAT,
    SCALAR,
    SCALARTYPE,
    STR,
    SYMINT,
    DictType,
    ListType,
    LiteralType,
    OptionalType,
    RecordType,
    TupleType,
    Type,
    UnionType,
    holds_tensor,
)
from polyop.schema.values import fit_default

names = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda n: not keyword.iskeyword(n)
)
ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=8) | st.sampled_from(['"', "'", "\\", "\n", "a=b, (c)", "\\n", "]"])
constants = st.one_of(texts, ints, st.booleans())
literals = st.lists(constants, min_size=1, max_size=3).map(lambda v: LiteralType(tuple(v)))


def fields(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    return st.dictionaries(names, inner, min_size=1, max_size=3).map(
        lambda d: RecordType(tuple(d.items()))
    )


def compound(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(OptionalType, inner),
        st.builds(ListType, inner, st.none() | st.integers(0, 9)),
        st.builds(DictType, inner, inner),
        some.map(TupleType),
        some.map(UnionType),
        fields(inner),
    )


types = st.recursive(st.sampled_from(list(BASE_TYPES.values())) | literals, compound, max_leaves=4)

VALUES: dict[Type, st.SearchStrategy[Any]] = {
    INT: ints,
    SYMINT: ints,
    FLOAT: floats,
    BOOL: st.booleans(),
    COMPLEX: st.complex_numbers(),
    STR: texts,
    SCALAR: ints | floats | st.booleans() | st.complex_numbers(),
    SCALARTYPE: st.sampled_from(list(DTYPES.values())),
    LAYOUT: st.sampled_from(list(Layout)),
    MEMORYFORMAT: st.sampled_from(list(MemoryFormat)),
    DEVICE: st.sampled_from(["cpu", "cuda:0", "meta"]).map(Device),
    ANY: ints | texts,
}


def values(schema_type: Type) -> st.SearchStrategy[Any] | None:
    """Give the constants of a type, or None if it has none."""
    if isinstance(schema_type, OptionalType):
        inner = values(schema_type.elem)
        return st.none() | inner if inner is not None else st.none()
    if isinstance(schema_type, ListType):
        inner, size = values(schema_type.elem), schema_type.size
        low, high = (0, 3) if size is None else (size, size)
        return None if inner is None else st.lists(inner, min_size=low, max_size=high)
    if isinstance(schema_type, UnionType):
        some = [inner for inner in map(values, schema_type.items) if inner is not None]
        return st.one_of(some) if some else None
    if isinstance(schema_type, LiteralType):
        return st.sampled_from(schema_type.values)
    return VALUES.get(schema_type)


sets = st.frozensets(st.sampled_from(["a", "b0", "c"]), min_size=1, max_size=2)
aliases = st.builds(AliasInfo, sets, sets | st.just(frozenset("*")), st.booleans())


@st.composite
def arguments(draw: st.DrawFn, name: str, kwarg_only: bool, optional: bool) -> Argument:
    """Make an argument, which has a default if it must."""
    schema_type = draw(types)
    if optional and values(schema_type) is None:
        schema_type = OptionalType(schema_type)
    alias_info = draw(st.none() | aliases) if holds_tensor(schema_type) else None
    default: Any = MISSING
    known = values(schema_type)
    if known is not None and (optional or (kwarg_only and draw(st.booleans()))):
        default = fit_default(schema_type, draw(known))
    return Argument(name, schema_type, alias_info, default, kwarg_only)


@st.composite
def schemas(draw: st.DrawFn) -> FunctionSchema:
    """Make any valid schema."""
    found: list[Argument] = []
    kwarg_only = optional = False
    for name in draw(st.lists(names, max_size=5, unique=True)):
        kwarg_only = kwarg_only or draw(st.integers(0, 3)) == 0
        optional = optional or draw(st.booleans())
        found.append(draw(arguments(name, kwarg_only, optional and not kwarg_only)))
    carried = [a.alias_info for a in found if a.alias_info is not None]
    returns = []
    for name in draw(st.lists(st.just("") | names, max_size=3)):
        schema_type = draw(types)
        shares = holds_tensor(schema_type) and carried and draw(st.booleans())
        returns.append(
            Argument(name, schema_type, draw(st.sampled_from(carried)) if shares else None)
        )
    overload = draw(st.just("") | names.filter(lambda n: n[:2] != "__" and n != "default"))
    return FunctionSchema(
        draw(st.sampled_from(["", "ns::"])) + draw(names),
        overload,
        draw(st.integers(1, 3)),
        tuple(found),
        tuple(returns),
        draw(st.booleans()),
    )


@settings(deadline=None, max_examples=300)
@given(schemas())
def test_text_reads_back_as_the_schema(schema: FunctionSchema) -> None:
    """S15: `parse_schema(str(s)) == s` for every schema."""
    again = parse_schema(str(schema))
    assert again == schema
    assert hash(again) == hash(schema)
    assert str(again) == str(schema)


@settings(deadline=None)
@given(schemas())
def test_the_flat_schema_reads_back(schema: FunctionSchema) -> None:
    """S8, S15: the flat form is a schema like any other."""
    assert parse_schema(str(schema.flat())) == schema.flat()


@settings(deadline=None)
@given(texts)
def test_any_string_is_a_default(text: str) -> None:
    """S15: quotes, backslashes and newlines survive."""
    s = FunctionSchema("f", arguments=(Argument("x", STR, None, text),))
    assert parse_schema(str(s)).arguments[0].default_value == text


@settings(deadline=None)
@given(st.text(alphabet="f(Tensor a,*)[]?->=!'\"{}|:.@1", max_size=30))
def test_any_text_is_a_schema_or_our_error(text: str) -> None:
    """S1: no text makes anything but a schema or a polyop error."""
    try:
        parse_schema(text)
    except ValueError as error:
        assert type(error).__name__ == "SchemaSyntaxError"


UNIONS = [
    "Union(float[], int[2])[] x=[1, 1]",
    "Union(Union(str, Device), complex[]) x=meta",
    "Union(str, Device)[] x=[meta, 'meta']",
    "Union(float, int) x=1",
]


@pytest.mark.parametrize("argument", UNIONS)
def test_a_default_of_a_union_reads_back_as_the_same_type(argument: str) -> None:
    """S15: of the types of a union, text names the one that the default has."""
    schema = parse_schema(f"f({argument}) -> ()")
    value, again = (s.arguments[0].default_value for s in (schema, parse_schema(str(schema))))
    assert again == value and repr(again) == repr(value)

"""Schema text: what it means, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polyop.devices import Device, Layout, MemoryFormat
from polyop.errors import SchemaSyntaxError, UsageTypeError
from polyop.schema.model import MISSING, AliasInfo, FunctionSchema
from polyop.schema.parse import parse_schema
from polyop.schema.types import (
    FLOAT,
    INT,
    SCALAR,
    STR,
    TENSOR,
    DictType,
    ListType,
    LiteralType,
    OptionalType,
    RecordType,
    TupleType,
    Type,
    UnionType,
)


def one(text: str) -> Type:
    return parse_schema(f"f({text} x) -> ()").arguments[0].type


def default(text: str) -> object:
    return parse_schema(f"f({text}) -> ()").arguments[0].default_value


def test_the_name_has_four_parts() -> None:
    """S5, S29: `[ns::]name[.overload][@version]`."""
    s = parse_schema("ns::op.Scalar@2(Tensor x) -> Tensor")
    assert (s.name, s.overload_name, s.version) == ("ns::op", "Scalar", 2)
    assert s.qualified_name == "ns::op.Scalar@2"
    plain = parse_schema("op() -> ()")
    assert (plain.name, plain.overload_name, plain.version) == ("op", "", 1)


def test_a_star_begins_the_keyword_only_arguments() -> None:
    """S5: what follows a bare `*` is keyword-only."""
    s = parse_schema("f(Tensor x, int n=1, *, float alpha, bool b=True) -> Tensor")
    assert [a.name for a in s.positional] == ["x", "n"]
    assert [a.name for a in s.keyword_only] == ["alpha", "b"]


def test_dots_at_the_end_take_any_number() -> None:
    """S5: a final `...` parses."""
    assert parse_schema("f(Tensor x, ...) -> ()").is_vararg
    assert not parse_schema("f(Tensor x) -> ()").is_vararg


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("()", []),
        ("Tensor", [TENSOR]),
        ("(Tensor)", [TENSOR]),
        ("((Tensor))", [TupleType((TENSOR,))]),
        ("(Tensor, int)", [TENSOR, INT]),
        ("(int, str)[]", [ListType(TupleType((INT, STR)))]),
        ("((int, str))", [TupleType((INT, STR))]),
    ],
)
def test_returns(text: str, types: list[Type]) -> None:
    """S5: `()`, `T`, `(T, T)`; `(T)` is `T`; `((T))` is a tuple of one."""
    assert [r.type for r in parse_schema(f"f() -> {text}").returns] == types


def test_returns_may_have_names() -> None:
    """S5: a return may be `T name`."""
    returns = parse_schema("f() -> (Tensor values, Tensor[] rest, int)").returns
    assert [r.name for r in returns] == ["values", "rest", ""]
    assert parse_schema("f() -> Tensor out").returns[0].name == "out"


@pytest.mark.parametrize(
    ("text", "schema_type"),
    [
        ("number", SCALAR),
        ("Tensor?[]", ListType(OptionalType(TENSOR))),
        ("Tensor[]?", OptionalType(ListType(TENSOR))),
        ("Tensor?[]?", OptionalType(ListType(OptionalType(TENSOR)))),
        ("int[2][]", ListType(ListType(INT, 2))),
        ("Dict(str, Tensor[])", DictType(STR, ListType(TENSOR))),
        ("(int, str?)", TupleType((INT, OptionalType(STR)))),
        ("Union(int, str)", UnionType((INT, STR))),
        ("Literal('a, b', 'c=d', 3, True)", LiteralType(("a, b", "c=d", 3, True))),
        (
            "{Tensor weight, {int n} more}",
            RecordType((("weight", TENSOR), ("more", RecordType((("n", INT),))))),
        ),
    ],
)
def test_types(text: str, schema_type: Type) -> None:
    """S6 to S9: base types, modifiers at any depth, dicts, tuples, unions, records, literals."""
    assert one(text) == schema_type


@pytest.mark.parametrize(
    ("text", "info"),
    [
        ("Tensor(a)", (["a"], ["a"], False)),
        ("Tensor(a!)", (["a"], ["a"], True)),
        ("Tensor(a -> *)", (["a"], ["*"], False)),
        ("Tensor(a! -> a|*)", (["a"], ["a", "*"], True)),
        ("Tensor(*)", (["*"], ["*"], False)),
        ("Tensor(a|b)", (["a", "b"], ["a", "b"], False)),
        ("Tensor(a!)?[]", (["a"], ["a"], True)),
        ("{Tensor(a!) w, int n, Tensor(a!)? b}", (["a"], ["a"], True)),
    ],
)
def test_alias_annotations(text: str, info: tuple[list[str], list[str], bool]) -> None:
    """S10: sets before and after, and the write, also inside lists and records."""
    before, after, write = info
    found = parse_schema(f"f({text} x) -> ()").arguments[0].alias_info
    assert found == AliasInfo(frozenset(before), frozenset(after), write)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("int x=-3", -3),
        ("float x=2", 2.0),
        ("float x=-inf", -math.inf),
        ("Scalar x=2", 2),
        ("Scalar x=1e-3", 1e-3),
        ("complex x=1-2j", 1 - 2j),
        ("bool x=True", True),
        ("Tensor? x=None", None),
        (r"str x='it\'s \n \\ \"'", "it's \n \\ \""),
        ("int[] x=[1, 2]", (1, 2)),
        ("int[3] x=1", (1, 1, 1)),
        ("int[2]? x=1", (1, 1)),
        ("int[2] x=[]", ()),
        ("str[] x=['a, b', ')']", ("a, b", ")")),
        ("int[][] x=[[1], []]", ((1,), ())),
        ("ScalarType x=float32", np.dtype("float32")),
        ("ScalarType? x=bfloat16", "bfloat16"),
        ("Layout x=strided", Layout.strided),
        ("MemoryFormat x=channels_last", MemoryFormat.channels_last),
        ("Device x=cuda:1", Device("cuda:1")),
        ("Device x='cpu'", Device("cpu")),
        ("Literal('sum', 'mean') x='mean'", "mean"),
        ("Union(int, str) x='a'", "a"),
    ],
)
def test_defaults(text: str, value: object) -> None:
    """S7, S12: defaults are values of their type; one scalar fills `T[N]`."""
    found = default(text)
    assert found == value
    if not isinstance(value, str):
        assert type(found) is type(value)


def test_a_missing_default_is_not_none() -> None:
    """S14: no default and the default None are told apart."""
    assert default("Tensor? x") is MISSING
    assert default("Tensor? x=None") is None


@pytest.mark.parametrize(
    ("text", "problem", "caret"),
    [
        ("f(Tenso x) -> ()", "'Tenso' is no type; did you mean 'Tensor'?", "Tenso"),
        ("f(Tensor y, int64_t x) -> ()", "'int64_t' is no type here", "int64_t"),
        ("f(double x) -> ()", "write 'float'", "double"),
        ("f(Tensor x=3) -> ()", "3 is no value of type Tensor", "3"),
        ("f(int y=1.5) -> ()", "1.5 is no value of type int", "1.5"),
        ("f(str y=abc) -> ()", "abc is no value of type str", "abc"),
        ("f(ScalarType y=float33) -> ()", "float33 is no value", "float33"),
        ("f(int[2] y=[1.5]) -> ()", "[1.5] is no value of type int[2]", "[1.5]"),
        ("f(int y=9223372036854775808) -> ()", "outside 64 bits", "9223372036854775808"),
        ("f(int[] a=[1, 2], int b) -> ()", "'b' has no default, but one before", "int b"),
        ("f(int) -> ()", "expected a type and a name", "int"),
        ("f(int a,, int b) -> ()", "expected a type and a name", ","),
        ("f(int a) Tensor", "expected '->'", " "),
        ("f(int a) ->", "expected the returns", ""),
        ("f(int a -> Tensor", "a bracket without end", "("),
        ("f(int[ a) -> Tensor", "expected ']'", ""),
        ("f(str a='x) -> ()", "a string without end", "'"),
        ("f int a) -> ()", "expected '('", "i"),
        ("1f(int a) -> ()", "expected the operator's name", "1"),
        ("f.default(int a) -> ()", "no name for an overload", "default"),
        ("f.__a(int a) -> ()", "no name for an overload", "__a"),
        ("f(int a, Tensor a) -> ()", "a second argument 'a'", "Tensor a"),
        ("f(int a, *, Tensor a) -> ()", "a second argument 'a'", "Tensor a"),
        ("f(*, int a, *, int b) -> ()", "a second '*'", "*"),
        ("f(..., int a) -> ()", "'...' comes last", "..."),
        ("f(int(a!) x) -> ()", "int holds no Tensors", "("),
        ("f(Tensor[](a!) x) -> ()", "at the word 'Tensor'", "("),
        ("f(Tensor(a!) x) -> Tensor(b)", "no argument carries the alias set 'b'", "Tensor(b)"),
        ("f(Tensor(a!, b) x) -> ()", "expected ')'", ","),
        ("f((Tensor(a), Tensor(b)) x) -> ()", "one alias set", "("),
        ("f(int a) -> int, int", "several returns stand in brackets", "int, int"),
        ("f(Literal(1.5) x) -> ()", "strings, integers and booleans", "1.5"),
        ("f({Tensor w, int w} x) -> ()", "a field name of its own", "w"),
        ("f(Dict(str) x) -> ()", "a key type and a value type", ")"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, problem: str, caret: str) -> None:
    """S6, S12, S13: a mistake is named, and a caret stands under it."""
    with pytest.raises(SchemaSyntaxError) as info:
        parse_schema(text)
    message = str(info.value)
    assert problem in message
    lines = message.splitlines()
    at = lines.index("    " + text)
    under = lines[at + 1]
    start = under.index("^")
    assert lines[at][start : len(under)].startswith(caret)


def test_a_mistake_is_also_a_built_in_error() -> None:
    """S2: handlers for RuntimeError and ValueError catch it."""
    with pytest.raises(RuntimeError):
        parse_schema("f(")
    with pytest.raises(ValueError, match="common types: Tensor"):
        parse_schema("f(Qwertz x) -> ()")


def test_a_schema_is_text() -> None:
    """S2: an object that is no text is of the wrong type."""
    with pytest.raises(UsageTypeError, match="given as text"):
        parse_schema(3)  # type: ignore[arg-type]


def test_a_mistake_in_a_long_text_shows_its_line() -> None:
    """S6: text over several lines shows the line of the mistake."""
    with pytest.raises(SchemaSyntaxError, match="\n      Tenso y\n      \\^\\^\\^\\^\\^\n"):
        parse_schema("f(\n  Tensor x,\n  Tenso y\n) -> ()")


def test_spaces_do_not_matter() -> None:
    """S5: the same schema in other spacing is the same schema."""
    tight = parse_schema(
        "ns::f(Tensor(a!)[] x,int[]y_=[1,2],*,float z=1.)->(Tensor,int)".replace(
            "int[]y_", "int[] y_"
        )
    )
    wide = parse_schema(
        " ns::f ( Tensor( a ! )[ ] x , int[] y_ = [1 , 2] , * , float z = 1.0 )"
        "  ->  ( Tensor , int ) "
    )
    assert tight == wide
    assert isinstance(tight, FunctionSchema)


def test_floats_are_floats() -> None:
    """S12: an integer default of a float argument is stored as the float it means."""
    s = parse_schema("f(float x=1) -> ()")
    assert type(s.arguments[0].default_value) is float
    assert s.arguments[0].type == FLOAT

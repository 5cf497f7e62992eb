"""Schemas from annotated functions; annotations here are postponed, as text."""

from __future__ import annotations

import collections.abc
import enum
import functools
import numbers
import typing
from dataclasses import dataclass
from typing import Annotated, Any, List, Literal, NamedTuple, Optional, Sequence, TypedDict  # noqa: UP035

import numpy as np
import pytest

from polyop.devices import Device, Layout, MemoryFormat
from polyop.errors import InferenceError, SchemaSyntaxError, UsageTypeError
from polyop.schema.annotations import register_annotation
from polyop.schema.classes import register_class_name
from polyop.schema.infer import check_written, infer, infer_schema
from polyop.schema.parse import parse_schema
from polyop.schema.tags import Tag, as_tags, check_tags
from polyop.schema.types import TENSOR, ClassType, RecordType


class Tensor:
    """A stand-in for the class of a higher floor."""


register_annotation(Tensor, TENSOR)


class Mode(enum.Enum):
    FAST = 1
    SAFE = "safe"


class Handle:
    """An opaque class."""


register_class_name("tests.Handle", Handle)


@dataclass
class Params:
    weight: Tensor
    bias: Tensor | None = None


class Pair(NamedTuple):
    first: Tensor
    second: int


class Options(TypedDict):
    scale: float
    names: list[str]


def text(fn: Any, mutates_args: Any = (), **kw: Any) -> str:
    """Infer, and check that the text reads back as the schema."""
    schema = infer(fn, mutates_args=mutates_args, **kw)
    assert parse_schema(str(schema)) == schema
    return infer_schema(fn, mutates_args=mutates_args, tags=kw.get("tags", ()))


def with_parameter(annotation: Any) -> Any:
    def fn(x: Any) -> None: ...

    fn.__annotations__ = {"x": annotation, "return": None}
    return fn


@pytest.mark.parametrize(
    ("annotation", "type_text"),
    [
        (Tensor, "Tensor"),
        (Optional[Tensor], "Tensor?"),  # noqa: UP045 - what an author may write
        (Tensor | None, "Tensor?"),
        (list[Tensor], "Tensor[]"),
        (List[Tensor], "Tensor[]"),  # noqa: UP006
        (Sequence[Tensor], "Tensor[]"),
        (collections.abc.Sequence[Tensor | None], "Tensor?[]"),
        (int, "SymInt"),
        (Optional[int], "SymInt?"),  # noqa: UP045
        (list[int] | None, "SymInt[]?"),
        (float, "float"),
        (bool, "bool"),
        (str, "str"),
        (numbers.Number, "Scalar"),
        (Sequence[numbers.Number], "Scalar[]"),
        (np.dtype, "ScalarType"),
        (np.dtype[Any] | None, "ScalarType?"),
        (Device, "Device"),
        (Layout, "Layout"),
        (MemoryFormat, "MemoryFormat"),
        (np.random.Generator, "Generator"),
        (Handle, "tests.Handle"),
        (list[Tensor] | None, "Tensor[]?"),
        (list[list[int]], "SymInt[][]"),
        (list[str], "str[]"),
        (tuple[int, ...], "SymInt[]"),
        (tuple[int, str], "(SymInt, str)"),
        (dict[str, Tensor], "Dict(str, Tensor)"),
        (Params, "{Tensor weight, Tensor? bias}"),
        (Pair, "{Tensor first, SymInt second}"),
        (Options, "{float scale, str[] names}"),
        (Literal["sum", "mean"], 'Literal("sum", "mean")'),
        (Literal["sum", None], 'Literal("sum")?'),
        (complex, "complex"),
        (int | float, "Scalar"),
        (int | float | None, "Scalar?"),
        (Annotated[Tensor, "no ( schema text"], "Tensor"),
        ("Tensor", "Tensor"),
        ("Optional[Tensor]", "Tensor?"),
        (list["Tensor"], "Tensor[]"),
        (Optional["Tensor"], "Tensor?"),
    ],
)
def test_parameters(annotation: Any, type_text: str) -> None:
    """S17, S18: each annotation stands for one type."""
    assert text(with_parameter(annotation)) == f"({type_text} x) -> ()"


def test_an_enum_has_its_own_name() -> None:
    """S9, S183: an Enum is a schema type by its module and name, and its members are words."""

    def fn(mode: Mode = Mode.SAFE) -> None: ...

    schema = infer(fn, mutates_args=())
    assert isinstance(schema.arguments[0].type, ClassType)
    assert str(schema).endswith(".Mode mode=SAFE) -> ()")
    assert parse_schema(str(schema)).arguments[0].default_value is Mode.SAFE


@pytest.mark.parametrize(
    ("annotation", "returns"),
    [
        (Tensor, "Tensor"),
        (int, "SymInt"),
        (float, "float"),
        (bool, "bool"),
        (numbers.Number, "Scalar"),
        (list[Tensor], "Tensor[]"),
        (tuple[Tensor, ...], "Tensor[]"),
        (tuple[Tensor, int], "(Tensor, SymInt)"),
        (tuple[Tensor], "((Tensor))"),
        (None, "()"),
        ("None", "()"),
        (str, "str"),
        (complex, "complex"),
        (Tensor | None, "Tensor?"),
        (Pair, "{Tensor first, SymInt second}"),
        (Handle, "tests.Handle"),
    ],
)
def test_returns(annotation: Any, returns: str) -> None:
    """S19: each return annotation stands for one list of returns."""

    def fn() -> None: ...

    fn.__annotations__ = {"return": annotation}
    assert text(fn) == f"() -> {returns}"


@pytest.mark.parametrize(
    "annotation", [list[int], dict[str, Tensor], Layout, tuple[Tensor, Layout]]
)
def test_other_returns_are_refused(annotation: Any) -> None:
    """S20: a return of another type has no place."""

    def fn() -> None: ...

    fn.__annotations__ = {"return": annotation}
    with pytest.raises(InferenceError, match="no type of results"):
        infer(fn, mutates_args=())


def no_annotation(x) -> None: ...  # type: ignore[no-untyped-def]
def no_return(x: Tensor): ...  # type: ignore[no-untyped-def]
def positional_only(x: Tensor, /) -> None: ...
def variadic(*xs: Tensor) -> None: ...
def keywords(**xs: Tensor) -> None: ...
def bare_list(x: list) -> None: ...  # type: ignore[type-arg]
def array(x: np.ndarray) -> None: ...  # type: ignore[type-arg]
def unknown_class(x: InferenceError) -> None: ...
def mixed(x: Tensor | int) -> None: ...
def unknown_name(x: Tensr) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def wrong_default(x: Tensor, y: int = 1.5) -> None: ...  # type: ignore[assignment]
def none_default(x: Tensor = None) -> None: ...  # type: ignore[assignment]
def object_default(x: np.random.Generator = np.random.default_rng(0)) -> None: ...  # noqa: B008


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (no_annotation, "'x' has no annotation"),
        (no_return, "no return annotation"),
        (positional_only, "positional-only"),
        (variadic, "write a list"),
        (keywords, "takes any keywords"),
        (bare_list, r"write list\[Tensor\]"),
        (array, "write Tensor"),
        (unknown_class, "register_opaque_type"),
        (mixed, "a union is"),
        (unknown_name, r"'Tensr' in the annotation 'Tensr' .*looked in module .*test_infer"),
        (wrong_default, "the default 1.5 of 'y' is no value of SymInt"),
        (none_default, "annotate it Optional"),
        (object_default, "schema text can hold"),
    ],
)
def test_what_gives_no_schema_is_named(fn: Any, message: str) -> None:
    """S20, S21, S23: the error says what is wrong, and shows the signature."""
    with pytest.raises(InferenceError, match=message) as info:
        infer(fn, mutates_args=())
    assert info.value.declared.startswith(fn.__name__ + "(")


def test_text_uses_the_names_around_the_function() -> None:
    """S21: local names and the closure are known, and come before those of the module."""
    Array = Tensor
    Mode = Tensor  # noqa: F841 - hides the Enum of the module

    @dataclass
    class Local:
        w: Array

    def fn(x: Array, p: Local, m: Mode) -> Array: ...

    assert text(fn) == "(Tensor x, {Tensor w} p, Tensor m) -> Tensor"


def test_text_is_evaluated_anew() -> None:
    """S21: a name bound anew, as in a notebook, has its new meaning."""

    class First:
        pass

    names: dict[str, Any] = {"T": Tensor, "__name__": "notebook"}
    exec("def fn(x: 'T') -> None: ...", names)
    assert text(names["fn"]) == "(Tensor x) -> ()"
    names["T"] = int
    assert text(names["fn"]) == "(SymInt x) -> ()"


def test_text_in_literals_and_metadata_is_not_evaluated() -> None:
    """S21: text inside `Literal` and `Annotated` is data."""

    def fn(x: Annotated[Tensor, "1 / 0"], y: Literal["1 / 0"]) -> None: ...

    assert text(fn) == '(Tensor x, Literal("1 / 0") y) -> ()'


def test_forward_references_mean_their_own_module() -> None:
    """S21: the same generic with text in it means what each function's module says."""
    found = []
    for meaning in (Tensor, int):
        names: dict[str, Any] = {"T": meaning, "__name__": "m"}
        exec("def fn(x: list['T']) -> None: ...", names)
        found.append(text(names["fn"]))
    assert found == ["(Tensor[] x) -> ()", "(SymInt[] x) -> ()"]


class Callable_:
    def __call__(self, x: Tensor, n: int = 2) -> Tensor: ...

    def method(self, x: Tensor, n: int) -> Tensor: ...


def plain(x: Tensor, n: int, *, s: float = 1.0) -> Tensor: ...


def test_any_callable_with_a_signature() -> None:
    """S22: methods, callable objects, partials and wrappers."""
    assert text(Callable_()) == "(Tensor x, SymInt n=2) -> Tensor"
    assert text(Callable_().method) == "(Tensor x, SymInt n) -> Tensor"
    assert text(functools.partial(plain, n=3)) == "(Tensor x, *, float s=1.0) -> Tensor"
    assert text(functools.partial(plain, Tensor())) == "(SymInt n, *, float s=1.0) -> Tensor"

    @functools.wraps(plain)
    def wrapper(*args: Any, **kw: Any) -> Any: ...

    assert text(wrapper) == "(Tensor x, SymInt n, *, float s=1.0) -> Tensor"


def test_no_callable_and_no_signature() -> None:
    """S22: what cannot be called is of the wrong type."""
    with pytest.raises(UsageTypeError, match="not a callable"):
        infer(3, mutates_args=())  # type: ignore[arg-type]


def test_defaults() -> None:
    """S23: constants, lists and tuples of them, members of Literal."""

    def fn(
        a: Tensor | None = None,
        b: float = 1,
        c: str = 'say "hi"\n',
        d: Device = Device("cpu"),
        e: np.dtype = np.dtype("float16"),  # type: ignore[type-arg]
        f: list[int] = [1, 2],
        g: tuple[int, ...] = (),
        h: Literal["x", "y"] = "y",
        i: bool = True,
        j: float = float("nan"),
    ) -> None: ...

    assert text(fn) == (
        '(Tensor? a=None, float b=1.0, str c="say \\"hi\\"\\n", Device d="cpu", '
        "ScalarType e=float16, SymInt[] f=[1, 2], SymInt[] g=[], "
        'Literal("x", "y") h="y", bool i=True, float j=nan) -> ()'
    )


def writer(x: Tensor, n: int, ys: list[Tensor], p: Params) -> None: ...


@pytest.mark.parametrize("names", [{"x", "ys"}, ["x", "ys"], {"x": 1, "ys": 2}, iter(("x", "ys"))])
def test_written_arguments_are_numbered(names: Any) -> None:
    """S24: written argument number i gets the alias set a{i}; any iterable of names will do."""
    schema = infer(writer, mutates_args=names)
    assert str(schema).startswith(
        "ns::op(Tensor(a0!) x, SymInt n, Tensor(a2!)[] ys, {Tensor weight"
    )


def test_unknown_writes_everything() -> None:
    """S24: `"unknown"` means every argument with Tensors."""
    assert text(writer, "unknown") == (
        "(Tensor(a0!) x, SymInt n, Tensor(a2!)[] ys, "
        "{Tensor(a3!) weight, Tensor(a3!)? bias} p) -> ()"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("x", "not a string"),
        ({"z"}, "no argument"),
        ({"yss"}, "did you mean 'ys'"),
        ({"n"}, "holds no Tensors"),
    ],
)
def test_wrong_mutates_args(names: Any, message: str) -> None:
    """S24: a string, an unknown name, and an argument without Tensors are refused."""
    with pytest.raises(InferenceError, match=message):
        infer(writer, mutates_args=names)


def inplace(x: Tensor, y: Tensor) -> Tensor: ...
def out(x: Tensor, *, o: Tensor) -> Tensor: ...
def outs(x: Tensor, *, o: Tensor, p: Tensor) -> tuple[Tensor, Tensor]: ...


def test_tags_share_the_returns() -> None:
    """S25: returns take the sets of the written arguments."""
    assert text(inplace, {"x"}, tags=[Tag.inplace]) == "(Tensor(a0!) x, Tensor y) -> Tensor(a0!)"
    assert text(out, {"o"}, tags=Tag.out) == "(Tensor x, *, Tensor(a1!) o) -> Tensor(a1!)"
    assert text(outs, {"o", "p"}, tags=[Tag.out]).endswith("-> (Tensor(a1!), Tensor(a2!))")
    assert text(inplace, {"x"}, tags=["pointwise"]).endswith("-> Tensor")


@pytest.mark.parametrize(
    ("fn", "names", "tags", "message"),
    [
        (inplace, {"y"}, [Tag.inplace], "first argument, and no other"),
        (inplace, {"x", "y"}, [Tag.inplace], "first argument, and no other"),
        (inplace, (), [Tag.inplace], "first argument, and no other"),
        (writer, {"x"}, [Tag.inplace], "the return is the written Tensor"),
        (out, (), [Tag.out], "keyword-only Tensors, at least one"),
        (inplace, {"x"}, [Tag.out], "keyword-only"),
        (outs, {"o"}, [Tag.out], "one by one"),
        (out, {"o"}, [Tag.out, Tag.inplace], "exclude each other"),
    ],
)
def test_breaches_of_tags(fn: Any, names: Any, tags: Any, message: str) -> None:
    """S25: a schema that does not keep a tag's contract is refused."""
    with pytest.raises(InferenceError, match=message):
        infer(fn, mutates_args=names, tags=tags)


def test_written_schemas_keep_the_contracts_too() -> None:
    """S25: a schema from text is checked in the same way."""
    check_tags(parse_schema("f(Tensor(a!) x) -> Tensor(a!)"), as_tags(Tag.inplace))
    with pytest.raises(InferenceError, match="the return is"):
        check_tags(parse_schema("f(Tensor(a!) x) -> Tensor"), as_tags(Tag.inplace))


def test_tags_by_name() -> None:
    """S3, S196: a tag may be named; an unknown one is answered with the nearest."""
    assert as_tags(["out", Tag.core]) == {Tag.out, Tag.core}
    with pytest.raises(ValueError, match="did you mean 'pointwise'"):
        as_tags("pointwize")
    with pytest.raises(UsageTypeError, match="not a tag"):
        as_tags([3])  # type: ignore[list-item]


def test_a_schema_and_mutates_args_agree() -> None:
    """S26: an error names both sets."""
    schema = parse_schema("f(Tensor(a!) x, Tensor y) -> ()")
    check_written(schema, {"x"})
    with pytest.raises(InferenceError, match=r"schema: \{x\}; mutates_args: \{x, y\}"):
        check_written(schema, "unknown")


def test_the_name_is_there_when_it_is_given() -> None:
    """S16: the text begins with the name only when there is one."""
    assert infer_schema(inplace, mutates_args=()) == "(Tensor x, Tensor y) -> Tensor"
    named = infer_schema(inplace, mutates_args=(), op_name="a::b")
    assert named == "a::b(Tensor x, Tensor y) -> Tensor"
    assert infer(inplace, mutates_args=(), name="a::b.c@2").qualified_name == "a::b.c@2"
    with pytest.raises(SchemaSyntaxError, match="is no name"):
        infer(inplace, mutates_args=(), name="a b")


def test_records_know_their_class() -> None:
    """S8: the author's class is kept beside the fields."""
    record = infer(with_parameter(Params), mutates_args=()).arguments[0].type
    assert isinstance(record, RecordType)
    assert record.cls is Params


def test_typing_any_is_no_schema_type() -> None:
    """S20: an annotation that says nothing is refused."""
    with pytest.raises(InferenceError, match="no schema type"):
        infer(with_parameter(typing.Any), mutates_args=())

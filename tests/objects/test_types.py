"""Opaque classes: which are taken, and what they are in schemas, graphs and programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pytest
import torch
from tests.objects.things import Log, Queue, Stream, note
from torch._library.opaque_object import register_opaque_type as torch_register

import polyop
from polyop.errors import ArgumentError, ObjectError, UsageError, UsageTypeError
from polyop.graph import eliminate_common_subexpressions, make_fx
from polyop.library import MemberType, register_opaque_type


@dataclass(frozen=True)
class Scale:
    """A value."""

    by: int

    def __fx_repr__(self) -> tuple[str, dict[str, Any]]:
        return f"Scale({self.by})", {"Scale": Scale}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


register_opaque_type(Scale, typ="value")


@polyop.custom_op("t_types::scaled", mutates_args=())
def scaled(x: polyop.Tensor, scale: Scale, colour: Colour = Colour.RED) -> polyop.Tensor:
    return x * (scale.by if colour is Colour.RED else -scale.by)


@scaled.register_fake
def _(x: polyop.Tensor, scale: Scale, colour: Colour = Colour.RED) -> polyop.Tensor:
    return x.new_empty(x.shape)


def test_a_class_is_a_schema_type_by_its_name() -> None:
    """S183: a registered class stands in schemas as `module.Class`, and only its objects pass."""
    declared = note._schema.arguments[0]
    assert str(declared) == f"{Log.__module__}.Log log"
    x = polyop.ones(2)
    with pytest.raises(ArgumentError) as caught:
        note(Queue(), x, "a")
    assert caught.value.argument == "log (position 0)"
    assert "Log" in caught.value.declared
    library = polyop.library.Library("t_types_text", "DEF")
    library.define(f"take({Log.__module__}.Log? log, Tensor x) -> Tensor")
    library.impl("take", lambda log, x: x * (2 if log is None else 3), "CPU")
    assert polyop.ops.t_types_text.take(None, x).tolist() == [2, 2]
    assert polyop.ops.t_types_text.take(Log(), x).tolist() == [3, 3]


def test_an_object_of_a_derived_class_passes() -> None:
    """S183: what is registered for a class holds for classes derived from it."""

    class Loud(Log):
        pass

    log = Loud()
    note(log, polyop.ones(2), "a")
    assert log.texts == ["a"]


class Point(NamedTuple):
    x: int


class NoEq:
    __hash__: Any = lambda self: 1

    def __fx_repr__(self) -> Any:
        return "NoEq()", {}


class NoHash:
    def __eq__(self, other: object) -> bool:
        return True

    def __fx_repr__(self) -> Any:
        return "NoHash()", {}


class NoRepr:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__: Any = lambda self: 1


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (int, {"typ": "value"}, UsageError, "has a schema type already"),
    (list, {"typ": "reference"}, UsageError, "has a schema type already"),
    (polyop.Tensor, {"typ": "reference"}, UsageError, "has a schema type already"),
    (Point, {"typ": "value"}, UsageError, "a container of trees"),
    (NoEq, {"typ": "value"}, UsageTypeError, "needs __eq__"),
    (NoHash, {"typ": "value"}, UsageTypeError, "needs __hash__"),
    (NoRepr, {"typ": "value"}, UsageTypeError, "needs __fx_repr__"),
    (Scale, {"typ": "value", "guard_fn": list}, UsageTypeError, "guarded by its equality"),
    (Scale, {"typ": "values"}, UsageError, "did you mean 'value'"),
    ("Scale", {"typ": "value"}, UsageTypeError, "is a class"),
    (NoEq, {"typ": "reference", "members": {"a": "real"}}, UsageTypeError, "neither read nor"),
    (NoEq, {"typ": "reference", "guard_fn": 3}, UsageTypeError, "guard_fn is a function"),
]


@pytest.mark.parametrize(("cls", "options", "error", "text"), BAD, ids=lambda v: str(v)[:30])
def test_refused_classes(cls: Any, options: Any, error: type[Exception], text: str) -> None:
    """S184: built-in types and pytrees are refused, and values that lack a method."""
    with pytest.raises(error, match=text):
        register_opaque_type(cls, **options)
    if isinstance(cls, type) and cls.__name__.startswith("No"):
        with pytest.raises(polyop.errors.InferenceError):
            polyop.custom_op("t_types::no", _takes(cls), mutates_args=())


def _takes(cls: type) -> Callable[..., Any]:
    def take(x: Any, y: Any) -> Any:
        return x

    take.__annotations__ = {"x": polyop.Tensor, "y": cls, "return": polyop.Tensor}
    return take


@pytest.mark.parametrize(
    ("cls", "typ"), [(int, "value"), (list, "value"), (NoEq, "value"), (NoRepr, "value")]
)
def test_pytorch_refuses_the_same(cls: type, typ: str) -> None:
    """S184: what PyTorch refuses is refused here; a base class is not asked for (better)."""
    with pytest.raises((ValueError, TypeError)):
        torch_register(cls, typ=typ)
    with pytest.raises(UsageError):
        register_opaque_type(cls, typ=typ)
    with pytest.raises(TypeError, match="OpaqueBase"):
        torch_register(Log, typ="reference")
    assert isinstance(torch.zeros(1), torch.Tensor)


def test_values_are_constants_of_graphs() -> None:
    """S183: a value in a program is a constant, written as its `__fx_repr__` and run as that."""

    def f(x: Any, scale: Any) -> Any:
        return scaled(x, scale) + scaled(x, Scale(3), Colour.BLUE) + scaled(x, Scale(3))

    x = polyop.ones(2)
    module = make_fx(f, "fake")(x, Scale(2))
    text = str(module.graph)
    assert "scaled(x, Scale(2))" in text
    assert "scaled(x, Scale(3), Colour.BLUE)" in text
    assert "scaled.default(x, Scale(3), Colour.BLUE)" in module.code
    scope = module.namespace
    exec(module.code, scope)
    assert scope["forward"](None, x, Scale(9)).tolist() == f(x, Scale(2)).tolist() == [2, 2]


def test_equal_values_are_one() -> None:
    """S183: passes and fake memos go by a value's equality, not by its identity."""

    def f(x: Any) -> Any:
        return scaled(x, Scale(3)) + scaled(x, Scale(3)) * scaled(x, Scale(4))

    module = make_fx(f, "fake")(polyop.ones(2))
    assert eliminate_common_subexpressions(module.graph) == 1
    module.recompile()
    assert module(polyop.ones(2)).tolist() == [15, 15]


def test_compiled_programs_are_guarded_by_equality() -> None:
    """S183: an equal value runs the program there is, another one makes another program."""
    f = polyop.compile(lambda x, scale: scaled(x, scale), fullgraph=True)
    x = polyop.ones(2)
    assert f(x, Scale(2)).tolist() == [2, 2]
    assert f(x, Scale(2)).tolist() == [2, 2]
    assert len(f.programs) == 1
    assert f(x, Scale(5)).tolist() == [5, 5]
    assert len(f.programs) == 2


def test_a_hoisted_value_is_an_input() -> None:
    """S183: with `hoist`, one program serves all values."""

    @dataclass(frozen=True)
    class Text:
        text: str

        def __fx_repr__(self) -> Any:
            return f"Text({self.text!r})", {"Text": Text}

    register_opaque_type(Text, typ="value", hoist=True)
    seen: list[str] = []

    def tell(x: polyop.Tensor, text: Text) -> polyop.Tensor:
        seen.append(text.text)
        return x + 1

    tell.__annotations__["text"] = Text
    op = polyop.custom_op("t_types::tell", tell, mutates_args=())
    op.register_fake(lambda x, text: x.new_empty(x.shape))
    f = polyop.compile(lambda x, text: op(x, text), fullgraph=True)
    f(polyop.ones(2), Text("a"))
    f(polyop.ones(2), Text("b"))
    assert seen == ["a", "b"]
    assert len(f.programs) == 1
    module = make_fx(lambda x, text: op(x, text), "fake")(polyop.ones(2), Text("c"))
    assert "tell(x, text)" in str(module.graph)


def test_a_bad_fx_repr_is_told() -> None:
    """S183: a value that cannot say how it is written raises when it is printed."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Odd)

        def __hash__(self) -> int:
            return 1

        def __fx_repr__(self) -> Any:
            return "Odd()"

    register_opaque_type(Odd, typ="value")

    def take(x: Any, y: Any) -> Any:
        return x + 1

    take.__annotations__ = {"x": polyop.Tensor, "y": Odd, "return": polyop.Tensor}
    op = polyop.custom_op("t_types::odd", take, mutates_args=())
    op.register_fake(lambda x, y: x.new_empty(x.shape))
    module = make_fx(lambda x: op(x, Odd()), "fake")(polyop.ones(2))
    with pytest.raises(ObjectError, match="__fx_repr__"):
        str(module.graph)


def test_members() -> None:
    """S184: traced code may read and inline the named members, and no others."""
    stream = Stream(0, scale=2.0)

    def f(stream: Any, x: Any) -> Any:
        return stream.twice(x) + stream.scale

    x = polyop.ones(2)
    module = make_fx(f, "fake")(stream, x)
    assert "multiply" in str(module.graph)  # `twice` was traced through
    assert module(stream, x).tolist() == f(stream, x).tolist() == [6, 6]
    with pytest.raises(ObjectError, match=r"'secret' of a .*Stream is used in a trace") as caught:
        make_fx(lambda s, x: x * s.secret, "fake")(stream, x)
    assert "MemberType.USE_REAL" in caught.value.fix
    compiled = polyop.compile(f, fullgraph=True)
    assert compiled(stream, x).tolist() == [6, 6]
    stream.scale = 3.0  # what was read is guarded
    assert compiled(stream, x).tolist() == f(stream, x).tolist() == [9, 9]


def test_members_must_exist() -> None:
    """S184: a member that the object does not have is told when it is traced."""

    class Bare:
        pass

    register_opaque_type(Bare, typ="reference", members={"nothing": MemberType.USE_REAL})
    with pytest.raises(ObjectError, match="no member 'nothing'"):
        make_fx(lambda b, x: x, "fake")(Bare(), polyop.ones(2))

"""PyTorch reads the same text in the same way, where both accept it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyop.schema.model import AliasInfo, Argument
from polyop.schema.parse import parse_schema

torch = pytest.importorskip("torch")

TEXTS = [
    "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
    "aten::add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)",
    "aten::split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]",
    "aten::add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)",
    "aten::conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, "
    "SymInt[2] padding=0, SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
    "aten::sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, "
    "ScalarType? dtype=None) -> Tensor",
    "aten::max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
    "aten::unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]",
    "aten::index.Tensor(Tensor self, Tensor?[] indices) -> Tensor",
    "aten::div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor",
    "aten::_foreach_add_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()",
    "aten::norm(Tensor self, float p=2, str kind='a\\'b', float[] w=[1.5, -2.]) -> Tensor",
    "aten::pool(Tensor x, int[2] size, int[2] stride=[], int[1] dim=[-2, -1]) -> Tensor",
    "prim::many(Tensor x, ...) -> ()",
    "ns::f(Dict(str, Tensor) d, (int, str) t, complex c, *, Device? device=None) -> ()",
]


def names(values: Any) -> set[str]:
    return {v.removeprefix("alias::") for v in values}


def alias(info: Any) -> Any:
    if info is None:
        return None
    return names(info.before_set), names(info.after_set), info.is_write


def ours(info: AliasInfo | None) -> Any:
    return None if info is None else (set(info.before_set), set(info.after_set), info.is_write)


def default(argument: Argument) -> Any:
    if not argument.has_default_value():
        return None
    value = argument.default_value
    return list(value) if isinstance(value, tuple) else value


def same_type(mine: Argument, theirs: Any) -> bool:
    """Compare the shapes of types by the type that PyTorch itself reads from our text."""
    return str(torch._C.parse_schema(f"f({mine.type} x) -> ()").arguments[0].type) == str(
        theirs.type
    )


def in_element(theirs: Any) -> bool:
    # PyTorch keeps the alias of a list's elements out of sight.
    return str(theirs.type).startswith(("List", "Optional[List"))


def compare(text: str) -> None:
    mine, theirs = parse_schema(text), torch._C.parse_schema(text)
    assert (mine.name, mine.overload_name) == (theirs.name, theirs.overload_name)
    assert len(mine.arguments) == len(theirs.arguments)
    assert len(mine.returns) == len(theirs.returns)
    for a, b in zip(mine.arguments, theirs.arguments, strict=True):
        assert (a.name, a.kwarg_only) == (b.name, b.kwarg_only)
        assert a.has_default_value() == b.has_default_value()
        assert default(a) == b.default_value
        assert same_type(a, b)
        assert in_element(b) or ours(a.alias_info) == alias(b.alias_info)
        if mine.name != "aten::sum":  # PyTorch hides N of an optional list
            assert a.N == b.N
    for a, b in zip(mine.returns, theirs.returns, strict=True):
        assert a.name == b.name
        assert same_type(a, b)
        assert in_element(b) or ours(a.alias_info) == alias(b.alias_info)


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_text_is_the_same_schema(text: str) -> None:
    """S5 to S12: names, types, defaults and alias sets agree with PyTorch's."""
    compare(text)


@pytest.mark.parametrize("text", TEXTS)
def test_pytorch_reads_what_we_print(text: str) -> None:
    """S15: our own spelling is the same schema to PyTorch."""
    printed = str(parse_schema(text))
    assert str(torch._C.parse_schema(printed)) == str(torch._C.parse_schema(text))


TYPES = ["Tensor", "Tensor?", "Tensor[]", "Tensor?[]", "int", "SymInt[]", "float?", "bool", "str"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(TYPES), max_size=5), st.lists(st.sampled_from(TYPES), max_size=3))
def test_plain_schemas_agree(arguments: list[str], returns: list[str]) -> None:
    """S5 to S7: any plain schema agrees."""
    words = ", ".join(f"{t} x{i}" for i, t in enumerate(arguments))
    compare(f"ns::op({words}) -> ({', '.join(returns)})")


@pytest.mark.parametrize(
    "text",
    ["f(Tenso x) -> ()", "f(Tensor x", "f(Tensor) -> ()", "f(int x) Tensor"],
)
def test_pytorch_refuses_it_too(text: str) -> None:
    """S6, S13: these mistakes are mistakes to both."""
    with pytest.raises(RuntimeError):
        torch._C.parse_schema(text)
    with pytest.raises(RuntimeError):
        parse_schema(text)

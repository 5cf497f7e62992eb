"""What is refused by name: annotations that would take more, and objects of other types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NotRequired, Optional, Required, TypedDict, Union

import pytest

from polyop import Tensor
from polyop.errors import InferenceError, UsageTypeError
from polyop.schema.infer import check_written, infer_schema
from polyop.schema.parse import parse_definition, parse_schema
from polyop.schema.predicates import is_functional_schema
from polyop.schema.tags import as_tags


class Partly(TypedDict, total=False):
    first: int


class Once(TypedDict):
    first: Required[int]
    second: NotRequired[int]


class Whole(TypedDict):
    first: Required[int]


def annotated(annotation: Any) -> Callable[..., Any]:
    def fn(x: Tensor, n: Any) -> Tensor:
        return x

    fn.__annotations__["n"] = annotation
    return fn


@pytest.mark.parametrize("annotation", [Union[int, bool], Optional[Union[bool, int]]])  # noqa: UP007, UP045
def test_a_union_of_integers_takes_no_fractions(annotation: Any) -> None:
    """S18: `int | float` is a Scalar; `int | bool` would take 1.5 as one, so it is refused."""
    with pytest.raises(InferenceError, match=r"'n' is annotated(.|\n)*int \| float"):
        infer_schema(annotated(annotation), mutates_args=())
    assert "Scalar n" in infer_schema(annotated(int | float | bool), mutates_args=())


@pytest.mark.parametrize("record", [Partly, Once])
def test_a_field_that_may_be_left_out_is_refused(record: Any) -> None:
    """S18: a record has all its fields; a TypedDict that need not have them is none."""
    with pytest.raises(InferenceError, match=r"'n' is annotated(.|\n)*all its fields"):
        infer_schema(annotated(record), mutates_args=())
    assert "{SymInt first} n" in infer_schema(annotated(Whole), mutates_args=())


@pytest.mark.parametrize("names", [None, 5])
def test_mutates_args_is_a_set_of_names(names: Any) -> None:
    """S1, S24: something else is an InferenceError, for inferred and for given schemas."""
    with pytest.raises(InferenceError, match=f"set of names, not {names}"):
        infer_schema(annotated(int), mutates_args=names)
    with pytest.raises(InferenceError, match=f"set of names, not {names}(.|\n)*ns::f"):
        check_written(parse_schema("ns::f(Tensor x) -> Tensor"), names)


def test_objects_of_another_type() -> None:
    """S1, S2: tags, names and schemas that are none are refused as such."""
    with pytest.raises(UsageTypeError, match=r"not a tag(.|\n)*3"):
        as_tags(3)  # type: ignore[arg-type]
    with pytest.raises(UsageTypeError, match=r"name is text(.|\n)*3"):
        infer_schema(annotated(int), mutates_args=(), op_name=3)  # type: ignore[arg-type]
    with pytest.raises(UsageTypeError, match=r"given as text(.|\n)*3"):
        is_functional_schema(3)  # type: ignore[arg-type]
    assert parse_definition("f(Tensor x) -> ()") == parse_schema("f(Tensor x) -> ()")

"""Questions about schemas."""

from __future__ import annotations

from typing import Any

import pytest

from polyop.schema.parse import parse_schema
from polyop.schema.predicates import (
    fill_defaults,
    get_device_arg_index,
    has_kwarg_only_args,
    has_kwarg_only_tensors,
    has_tensor_arg,
    is_functional_schema,
    is_tensor_like_type,
    is_tensorlist_like_type,
    mutated_args_kwargs,
    zip_schema,
)


@pytest.mark.parametrize(
    ("text", "plain", "with_views"),
    [
        ("f(Tensor x) -> Tensor", True, True),
        ("f() -> int", True, True),
        ("f(Tensor x) -> ()", False, False),
        ("f(Tensor(a!) x) -> Tensor", False, False),
        ("f(Tensor(a) x) -> Tensor(a)", False, True),
        ("f(Tensor(a) x) -> (Tensor(a), Tensor)", False, False),
        ("f(Tensor(a) x) -> Tensor(a)[]", False, False),
        ("f(Tensor(a) x, Tensor(b) y) -> Tensor(a)", False, False),
        ("f(Tensor(a! -> a|b) x) -> Tensor(b)", False, False),
    ],
)
def test_functional(text: str, plain: bool, with_views: bool) -> None:
    """S27: no writes, no aliases, some results; a view of one Tensor passes with the flag."""
    assert is_functional_schema(text) is plain
    assert is_functional_schema(parse_schema(text), allow_valid_view=True) is with_views


@pytest.mark.parametrize(
    ("text", "tensor", "tensors"),
    [
        ("Tensor", True, False),
        ("Tensor?", True, False),
        ("Tensor[]", False, True),
        ("Tensor?[]", False, True),
        ("Tensor[]?", False, True),
        ("int[]", False, False),
        ("Tensor[][]", False, False),
    ],
)
def test_kinds_of_types(text: str, tensor: bool, tensors: bool) -> None:
    """S28: Tensors, optional Tensors, lists of them."""
    schema_type = parse_schema(f"f({text} x) -> ()").arguments[0].type
    assert is_tensor_like_type(schema_type) is tensor
    assert is_tensorlist_like_type(schema_type) is tensors


def test_kinds_of_arguments() -> None:
    """S28: what a schema has among its arguments."""
    s = parse_schema("f({Tensor w} p, *, Device? device=None) -> ()")
    assert has_tensor_arg(s)
    assert has_kwarg_only_args(s)
    assert not has_kwarg_only_tensors(s)
    assert get_device_arg_index(s) == 1
    assert has_kwarg_only_tensors(parse_schema("f(*, Tensor[] xs) -> ()"))
    assert not has_tensor_arg(parse_schema("f(int n) -> ()"))
    assert get_device_arg_index(parse_schema("f(Device place, int device) -> ()")) is None


def test_written_arguments() -> None:
    """S28: written arguments by place and by name."""
    s = parse_schema("f(int n, Tensor(a!) x, Tensor y, *, Tensor(b!) out) -> ()")
    assert mutated_args_kwargs(s) == ([1], ["out"])


S = parse_schema("f(Tensor x, int n=2, *, float s=1.5, int[] k=[1]) -> ()")


@pytest.mark.parametrize(
    ("args", "kwargs", "full"),
    [
        ((0,), {}, ((0, 2), {"s": 1.5, "k": (1,)})),
        ((0, 1), {"s": 3.0}, ((0, 1), {"s": 3.0, "k": (1,)})),
        ((), {"n": 4, "x": 0}, ((0, 4), {"s": 1.5, "k": (1,)})),
    ],
)
def test_defaults_are_filled_in(args: Any, kwargs: Any, full: Any) -> None:
    """S28: a call with its defaults, in schema order."""
    assert fill_defaults(S, args, kwargs) == full


def test_a_call_beside_its_schema() -> None:
    """S28: each argument that is given, with its value."""
    pairs = [(a.name, v) for a, v in zip_schema(S, (0,), {"s": 2.0})]
    assert pairs == [("x", 0), ("s", 2.0)]

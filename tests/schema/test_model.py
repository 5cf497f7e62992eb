"""Schemas as objects: properties, equality, flat form."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from polyop.schema.model import MISSING
from polyop.schema.parse import parse_schema
from polyop.schema.types import FLOAT, INT, SYMINT, TENSOR, ListType, leaf_kind

TEXT = (
    "ns::op.o(Tensor(a!) x, int[2] k=1, {Tensor w, Tensor? b} p, *, Tensor(b!) out, "
    "float s=nan) -> (Tensor(a!), {Tensor values, int n})"
).replace("int[2] k=1", "int[2] k")


def test_arguments_say_what_they_are() -> None:
    """S14: N, is_write, is_out, kwarg_only, real_type."""
    x, k, _, out, s = parse_schema(TEXT).arguments
    assert (k.N, x.N, parse_schema("f(int[3]? k) -> ()").arguments[0].N) == (2, None, 3)
    assert (x.is_write, x.is_out, out.is_write, out.is_out) == (True, False, True, True)
    assert (k.kwarg_only, s.kwarg_only) == (False, True)
    assert k.real_type == ListType(INT, 2)
    assert (k.has_default_value(), s.has_default_value()) == (False, True)


@pytest.mark.parametrize(
    ("text", "mutable", "view"),
    [
        ("f(Tensor x) -> Tensor", False, False),
        ("f(Tensor(a!) x) -> ()", True, False),
        ("f(Tensor(a) x) -> Tensor(a)", False, True),
        ("f(Tensor(a) x, Tensor(b!) y) -> Tensor(a)", True, False),
    ],
)
def test_mutable_and_view(text: str, mutable: bool, view: bool) -> None:
    """S14: mutable is some write; a view has some set and no write."""
    s = parse_schema(text)
    assert (s.is_mutable, s.is_view) == (mutable, view)


def test_equality_tells_constants_apart() -> None:
    """S14: 1, 1.0 and True are different defaults; nan equals itself."""
    scalars = [parse_schema(f"f(Scalar x={c}) -> ()") for c in ("1", "1.0", "True", "nan", "-0.0")]
    assert len(set(scalars)) == len(scalars)
    assert parse_schema("f(Scalar x=nan) -> ()") == scalars[3]
    assert hash(parse_schema("f(Scalar x=nan) -> ()")) == hash(scalars[3])


def test_schemas_are_frozen_and_travel() -> None:
    """S14: frozen; a pickled or copied schema is equal."""
    s = parse_schema(TEXT)
    assert str(s)
    assert pickle.loads(pickle.dumps(s)) == s == copy.deepcopy(s)
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.name = "other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING


def test_the_flat_schema_has_leaves() -> None:
    """S8: records become their fields, named with a dot; returns keep the field names."""
    flat = parse_schema(TEXT).flat()
    assert [a.name for a in flat.arguments] == ["x", "k", "p.w", "p.b", "out", "s"]
    assert [r.name for r in flat.returns] == ["", "values", "n"]
    assert parse_schema(str(flat)) == flat == flat.flat()


def test_a_flat_record_keeps_its_aliases() -> None:
    """S8, S10: each leaf of a written record is written."""
    flat = parse_schema("f({Tensor(a!) w, {Tensor(a!) v} q} p) -> ()").flat()
    assert [(a.name, a.is_write) for a in flat.arguments] == [("p.w", True), ("p.q.v", True)]


def test_the_parts_of_an_optional_record_are_optional() -> None:
    """S8: a record that may be None becomes fields that may be."""
    flat = parse_schema("f({Tensor w, Tensor? b, {int n} q}? p=None) -> ({int n}? r)").flat()
    assert str(flat) == "f(Tensor? p.w=None, Tensor? p.b=None, int? p.q.n=None) -> int? r.n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Tensor", "tensor"),
        ("Tensor?", "tensor?"),
        ("Tensor[]", "tensor[]"),
        ("Tensor[3]", "tensor[]"),
        ("Tensor?[]", "tensor?[]"),
        ("Tensor[]?", "tree"),
        ("Dict(str, Tensor)", "tree"),
        ("{int n, Tensor w}", "tree"),
        ("Tensor[][]", "tree"),
        ("int[]", "static"),
        ("{int n}", "static"),
        ("Literal('Tensor')", "static"),
    ],
)
def test_leaf_kinds(text: str, kind: str) -> None:
    """S5: generated code learns from the type where Tensors are."""
    assert leaf_kind(parse_schema(f"f({text} x) -> ()").arguments[0].type) == kind


def test_types_print_as_text() -> None:
    """S6: `str` of a type is its schema text."""
    assert [str(t) for t in (TENSOR, SYMINT, FLOAT)] == ["Tensor", "SymInt", "float"]

"""Values against types: what fits, and what it becomes."""

from __future__ import annotations

import collections
import enum
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyop.devices import Device, Layout
from polyop.schema.base_values import Known
from polyop.schema.parse import parse_schema
from polyop.schema.types import INT, TENSOR, ClassType, ListType, RecordType, Type
from polyop.schema.values import Mismatch, convert, default_matches, fits, record_values, thaw


class FakeTensor:
    def __init__(self, value: int | None = None) -> None:
        self.value = value


class Size:
    """A symbolic size."""

    def __int__(self) -> int:
        return 7


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "is_tensor", staticmethod(lambda v: isinstance(v, FakeTensor)))
    monkeypatch.setattr(Known, "item", staticmethod(lambda v: v.value))
    monkeypatch.setattr(Known, "sym_int", (Size,))


def of(text: str) -> Type:
    return parse_schema(f"f({text} x) -> ()").arguments[0].type


X = FakeTensor()


@pytest.mark.parametrize(
    ("text", "value", "result"),
    [
        ("Tensor", X, X),
        ("Tensor?", None, None),
        ("Tensor[]", (X, X), [X, X]),
        ("Tensor?[]", [X, None], [X, None]),
        ("int", True, 1),
        ("int", np.int32(3), 3),
        ("SymInt", np.array(3), 3),
        ("SymInt", FakeTensor(5), 5),
        ("int[]", range(3), [0, 1, 2]),
        ("int[]", collections.deque([1]), [1]),
        ("int[]", np.arange(2), [0, 1]),
        ("int[3]", 2, [2, 2, 2]),
        ("int[2]?", 2, [2, 2]),
        ("int[2]", [], []),
        ("float[]", (1, 2.5), [1.0, 2.5]),
        ("float", 2, 2.0),
        ("float", np.float32(0.5), 0.5),
        ("bool", np.True_, True),
        ("complex", 2, 2 + 0j),
        ("Scalar", np.float64(2), 2.0),
        ("Scalar", True, True),
        ("ScalarType", "float32", np.dtype("float32")),
        ("ScalarType", "torch.long", np.dtype("int64")),
        ("Device", "cuda:1", Device("cuda", 1)),
        ("Layout", "strided", Layout.strided),
        ("Literal('a', 1)", 1, 1),
        ("Dict(str, int[])", {"a": (1,)}, {"a": [1]}),
        ("(int, Tensor)", [1, X], (1, X)),
        ("Union(int, bool)", True, True),
        ("Union(int, str)", "a", "a"),
        ("Union(float, int)", True, 1),
        ("Union(float, int)", np.int64(3), 3),
        ("Union(complex, float, int)", 2, 2),
        ("Union(float[], int[2])", [1, 2], [1, 2]),
        ("Union(float[], int[2])", (1, 2.5), [1.0, 2.5]),
        ("Union(float[], int[2])", 5, [5, 5]),
        ("Union(int[2], float)", 5, 5.0),
        ("Any", X, X),
        ("NoneType", None, None),
    ],
)
def test_conversions(text: str, value: Any, result: Any) -> None:
    """S64: values become what kernels get, with exact types."""
    found = convert(of(text), value)
    assert found == result and repr(found) == repr(result)
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Tensor", 3),
        ("Tensor", None),
        ("Tensor[]", X),
        ("Tensor[]", [X, 3]),
        ("Tensor[]", [None]),
        ("int", 1.0),
        ("int", "1"),
        ("int", X),
        ("int", 2**63),
        ("int", np.uint64(2**63)),
        ("int[2]", [1.5]),
        ("int[]", 1),
        ("str[]", "abc"),
        ("float", "1"),
        ("float", 1j),
        ("float", 10**400),
        ("bool", 1),
        ("str", 1),
        ("Scalar", "1"),
        ("Scalar", 2**64),
        ("Scalar", -(2**63) - 1),
        ("ScalarType", None),
        ("ScalarType", "float33"),
        ("ScalarType", np.int64(3)),
        ("ScalarType", np.ones(2)),
        ("Device", "moon"),
        ("Layout", "diagonal"),
        ("Generator", 1),
        ("Literal('a', 1)", True),
        ("Literal('a', 1)", "b"),
        ("Dict(str, int)", {1: 1}),
        ("Dict(str, int)", [1]),
        ("(int, int)", [1]),
        ("Union(int, str)", 1.5),
        ("NoneType", 0),
    ],
)
def test_what_does_not_fit(text: str, value: Any) -> None:
    """S63: a value of another type is refused."""
    with pytest.raises(Mismatch):
        convert(of(text), value)
    assert not fits(of(text), value)


def test_reasons() -> None:
    """S9, S63: a refusal says why, and lists the valid values."""
    with pytest.raises(Mismatch) as info:
        convert(of("Literal('sum', 'mean')"), "max")
    assert "'sum', 'mean'" in info.value.reason
    with pytest.raises(Mismatch) as info:
        convert(INT, 2**64)
    assert "64 bits" in info.value.reason
    assert info.value.expected == INT


def test_symbolic_sizes() -> None:
    """S64: `SymInt` keeps a symbolic size; `int` asks for its number."""
    size = Size()
    assert convert(of("SymInt"), size) is size
    assert convert(of("SymInt[]"), [size])[0] is size
    assert convert(of("float"), size) is size
    assert convert(of("int"), size) == 7


class Color(enum.Enum):
    RED = 1


class Opaque:
    pass


def test_opaque_objects_and_enums() -> None:
    """S9, S183: objects of the class fit, and nothing else."""
    assert convert(ClassType("c", Color), Color.RED) is Color.RED
    box = Opaque()
    assert convert(ClassType("o", Opaque), box) is box
    for value in (1, "RED", None):
        assert not fits(ClassType("c", Color), value)
    with pytest.raises(Mismatch, match="nowhere"):
        convert(ClassType("nowhere"), box)


@dataclass
class Data:
    w: Any
    n: Any


class Named(NamedTuple):
    w: Any
    n: Any


class Typed(TypedDict):
    w: Any
    n: Any


FIELDS = (("w", TENSOR), ("n", ListType(INT)))


@pytest.mark.parametrize("cls", [Data, Named, Typed])
def test_records_stay_of_their_class(cls: Any) -> None:
    """S8: fields are converted, and the record is still of the author's class."""
    record = cls(w=X, n=(1, np.int64(2)))
    found = convert(RecordType(FIELDS, cls), record)
    assert type(found) is type(record)
    assert record_values(RecordType(FIELDS, cls), found) == {"w": X, "n": [1, 2]}
    assert record_values(RecordType(FIELDS, cls), record)["n"] == (1, np.int64(2))


def test_other_records_do_not_fit() -> None:
    """S8: another class, a missing field, and an unknown one are refused."""
    assert not fits(RecordType(FIELDS, Data), Named(X, [1]))
    assert not fits(RecordType(FIELDS, Data), {"w": X, "n": [1]})
    assert not fits(RecordType(FIELDS, Typed), {"w": X})
    assert not fits(RecordType(FIELDS, Typed), {"w": X, "n": [1], "m": 1})
    assert not fits(RecordType(FIELDS, Typed), Data(X, [1]))


def test_records_without_a_class_take_any_record() -> None:
    """S8: a schema from text has the fields only."""
    for record in (Data(X, [1]), Named(X, [1]), {"w": X, "n": [1]}):
        assert fits(RecordType(FIELDS), record)


def test_defaults_that_match() -> None:
    """S12: a default is a constant of its type."""
    assert default_matches(of("int[2]"), 1)
    assert default_matches(of("float"), 1)
    assert not default_matches(of("Tensor"), 3)
    assert not default_matches(of("Tensor"), X)
    assert not default_matches(of("Any"), object())
    assert not default_matches(of("ScalarType"), np.dtype(">f4"))
    assert thaw(((1,), (2, 3))) == [[1], [2, 3]]


@given(st.integers())
def test_integers_have_64_bits(value: int) -> None:
    """S63: exactly the integers of 64 bits fit."""
    assert fits(INT, value) == (-(2**63) <= value < 2**63)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.binary()))
def test_converting_twice_changes_nothing(value: Any) -> None:
    """S64: what kernels get fits as it is."""
    for text in ("int", "float", "bool", "complex", "str", "Scalar", "int[2]", "str?", "Any"):
        if fits(of(text), value):
            once = convert(of(text), value)
            assert repr(convert(of(text), once)) == repr(once)

"""Arguments that are equal and not the same have programs of their own (SPEC S211)."""

from __future__ import annotations

import datetime
import functools
import operator
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor

X = polyop.tensor([1.0, 2.0])


class Loose:
    """Equal to all of its class."""

    def __init__(self, k: float) -> None:
        self.k = k

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose)

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"Loose({self.k})"


class Count(int):
    """A number with a note."""

    note = ""

    def __repr__(self) -> str:
        return f"Count({int(self)}, {self.note})"


def count(note: str) -> Count:
    made = Count(1)
    made.note = note
    return made


@dataclass(frozen=True)
class Frozen:
    a: Any


UTC = datetime.UTC
LATER = datetime.timezone(datetime.timedelta(hours=1))
NOON = datetime.datetime(2020, 1, 1, 12, tzinfo=UTC)
PAIRS: list[tuple[Any, Any]] = [
    (np.float32(0.0), np.float32(-0.0)),
    (np.complex64(0), np.complex64(complex(-0.0, 0.0))),
    (np.timedelta64(1, "h"), np.timedelta64(60, "m")),
    (np.int32(1), np.int64(1)),
    (1, True),
    (Decimal("1.0"), Decimal("1.00")),
    (Fraction(1), 1),
    (frozenset({1}), frozenset({True})),
    (range(0, 3, 2), range(0, 4, 2)),
    (slice(0, 1), slice(False, True)),
    (Frozen(1), Frozen(True)),
    (Frozen((0.0,)), Frozen((-0.0,))),
    (datetime.time(12, tzinfo=UTC), datetime.time(13, tzinfo=LATER)),
    (NOON, NOON.astimezone(LATER)),
    (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, fold=1)),
    (Loose(1.0), Loose(2.0)),
    (count("a"), count("b")),
    ({1: 2.0}, {1.0: 2.0}),
    ({0.0: 2.0}, {-0.0: 2.0}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    (defaultdict(int, a=1, b=2), defaultdict(int, b=2, a=1)),
]  # fmt: skip


def spelled(x: Tensor, value: Any) -> Tensor:
    return x * float(sum(map(ord, repr(value))))


def first_value(*args: Any, **given: Tensor) -> Tensor:
    values = {**args[0], **given} if args else given
    return next(iter(values.values())) * 1


@pytest.mark.parametrize("pair", PAIRS, ids=repr)
def test_equal_arguments_that_differ(pair: Any) -> None:
    """S211: the result is that of the value which is given."""

    for compiled in (polyop.compile(spelled), polyop.compile(spelled, fullgraph=True)):
        for value in (*pair, *pair):
            assert compiled(X, value).tolist() == spelled(X, value).tolist()
        assert sum(map(len, compiled.programs.values())) <= 2


def test_equal_values_share_a_program() -> None:
    """S211: what is the same bit for bit is no other kind of call."""
    compiled = polyop.compile(spelled, fullgraph=True)
    for value in (Frozen(1.5), Frozen(1.5), Frozen((2, "a")), Frozen((2, "a"))):
        compiled(X, value)
    assert sum(map(len, compiled.programs.values())) == 2


def test_the_order_of_a_dict_and_of_keywords() -> None:
    """S211: a function that goes through a dict sees its order."""
    a, b = X, X * 5
    compiled = polyop.compile(first_value, fullgraph=True)
    for given in ({"a": a, "b": b}, {"b": b, "a": a}, {"a": a, "b": b}):
        wanted = next(iter(given.values())).tolist()
        assert compiled(given).tolist() == wanted
        assert compiled(**given).tolist() == wanted


@dataclass
class Record:
    x: Tensor

    def __post_init__(self) -> None:
        self.more: Any = 0.0


def test_what_a_record_has_beside_its_fields() -> None:
    """S211: it is compared bit for bit, and as it was at the call."""

    @polyop.custom_op("test_argument_keys::taken", mutates_args=())
    def taken(r: Record) -> Tensor:
        return r.x * 1

    taken.register_fake(lambda r: polyop.empty_like(r.x))
    compiled = polyop.compile(lambda r: spelled(r.x, r.more), fullgraph=True)
    record = Record(X)
    for more in (0.0, -0.0, [1], [True], {"a": 1, "b": 2}, {"b": 2, "a": 1}):
        record.more = more
        assert compiled(record).tolist() == spelled(X, more).tolist()
    record.more = [1]
    for n in (2, 3):
        assert compiled(record).tolist() == spelled(X, record.more).tolist()
        record.more.append(n)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_arrays_of_other_libraries(library: str) -> None:
    """S211, S212: such a call is eager; one graph there is none, as of NumPy's arrays."""
    array = pytest.importorskip(library).ones(2)
    f = lambda x: X * float(x[0])  # noqa: E731
    assert polyop.compile(f)(array).tolist() == X.tolist()
    with pytest.raises(polyop.errors.CaptureError, match="from_array"):
        polyop.compile(f, fullgraph=True)(array)


def test_arguments_that_are_no_arrays() -> None:
    """S212: a class of NumPy's holds no data, nor does an object that has an answer to any name."""

    class Answering:
        def __getattr__(self, name: str) -> float:
            return 2.0

    x = polyop.ones(2)
    typed = polyop.compile(lambda x, kind: x * float(kind(2)), fullgraph=True)
    answered = polyop.compile(lambda x, held: x * held.k, fullgraph=True)
    for kind in (np.float32, np.float64):
        assert typed(x, kind).tolist() == answered(x, Answering()).tolist() == [2.0, 2.0]


def test_functions_that_are_made_for_each_call() -> None:
    """S211: a partial is what it calls with what; two that are alike have one program."""

    def scale(k: float, x: Tensor) -> Tensor:
        return x * k

    compiled = polyop.compile(lambda x, f, pick: f(x) + f([x, x * 2][pick([0, 1])]))
    x = polyop.ones(2)
    for k in (2.0, 2.0, 3.0, 2.0):
        found = compiled(x, functools.partial(scale, k), operator.itemgetter(0))
        assert found.tolist() == (x * k * 2).tolist()
    assert compiled(x, functools.partial(scale, 2.0), operator.itemgetter(1)).tolist() == [6.0] * 2
    assert sum(map(len, compiled.programs.values())) == 3


def test_a_path_that_is_asked_for_the_first_time() -> None:
    """S211: what a path remembers of itself is no change that the function makes."""
    held, x = PurePosixPath("a/bc"), polyop.ones(2)
    compiled = polyop.compile(lambda x, path: x * len(held.name) * len(path.parts), fullgraph=True)
    for _ in range(3):
        assert compiled(x, PurePosixPath("a/b/c")).tolist() == [6.0, 6.0]
    assert len(compiled.programs) == 1

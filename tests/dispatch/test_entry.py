"""Entries end to end: names, counts and types of arguments that could break generated code."""

from __future__ import annotations

import inspect
import keyword
import traceback
import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, Optional, TypedDict

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.guards import include_keys
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.namespaces import ops
from polyop.tensor.tensor import Tensor, of_array

LIB = Library("entry", "FRAGMENT")
ONE = np.ones(1)
NAMES = """self op word k kernel _k memo _rest _named a0 a1 _x _r _h _p _t _v _token results Tensor
    MISSING resolve slow convert keys_in args kwargs fn cls name __class__ type int list""".split()


def x(value: float = 1) -> Tensor:
    return of_array(np.full(1, value))


def define(name: str, schema: str, fn: Any) -> Any:
    LIB.define(name + schema)
    LIB.impl(name, fn, "CompositeExplicitAutograd")
    return getattr(ops.entry, name)


@pytest.mark.parametrize("name", [*NAMES, *(k for k in keyword.kwlist if k.islower())])
@pytest.mark.parametrize("where", ["first", "second", "keyword-only"])
def test_any_name_of_an_argument(name: str, where: str) -> None:
    """S60: an argument may have any name, whatever generated code calls its own."""
    schema = {
        "first": f"(Tensor {name}, int other=2) -> Tensor",
        "second": f"(Tensor other, int {name}=2) -> Tensor",
        "keyword-only": f"(Tensor other, *, int {name}=2, Tensor? last=None) -> Tensor",
    }[where]

    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        t, n = [*args, *kwargs.values()][:2]
        return of_array(t.numpy() * n)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = define(f"n_{name}_{where.replace('-', '')}", schema, kernel)
        first = name if where == "first" else "other"
        second = "other" if where == "first" else name
        assert f(x()).item() == 2
        assert f(**{first: x(), second: 3}).item() == 3
        assert f(x(), **{second: 4}).item() == 4
        assert f(ONE, **{second: 5})[0] == 5
        with include_keys(["Negative"]):
            assert f(x(), **{second: 4}).item() == 4
        with scoped_library("entry", "IMPL") as lib:
            lib.impl(f, lambda *a, **k: kernel(*a, **k), "AutogradCPU")
            assert f(x(), **{second: 6}).item() == 6


@pytest.mark.parametrize("n", [0, 1, 2, 40, 300])
def test_any_number_of_arguments(n: int) -> None:
    """S63: none, forty, or three hundred arguments."""
    schema = f"({', '.join(f'Tensor x{i}' for i in range(n))}) -> Tensor"
    f = define(f"count{n}", schema, lambda *ts: of_array(sum((t.numpy() for t in ts), np.zeros(1))))
    assert f(*[x()] * n).item() == n
    assert f(**{f"x{i}": x(i) for i in range(n)}).item() == sum(range(n))


def test_no_results_and_no_tensors() -> None:
    """S48: an operator may take and give nothing."""
    calls: list[int] = []
    f = define("nothing", "() -> ()", lambda: calls.append(1))
    assert f() is None and f() is None and calls == [1, 1]


# -- types --------------------------------------------------------------------


class Kind(Enum):
    plus = 1
    times = 2


@dataclass
class Pair:
    w: Tensor
    n: int = 2


class Named(NamedTuple):
    w: Tensor
    b: Optional[Tensor] = None  # noqa: UP045


class Typed(TypedDict):
    w: Tensor


def rich(
    pair: Pair,
    named: Named,
    typed: Typed,
    deep: Optional[list[list[int]]] = None,  # noqa: UP045
    words: Literal["a", "b"] = "a",
    kind: Kind = Kind.plus,
    named_tensors: Optional[dict[str, Tensor]] = None,  # noqa: UP045
    *,
    kinds: Optional[list[Kind]] = None,  # noqa: UP045
) -> Tensor:
    assert isinstance(pair, Pair) and isinstance(named, Named) and isinstance(typed, dict)
    total = pair.w.numpy() * pair.n + named.w.numpy() + typed["w"].numpy()
    total = total + sum(sum(row) for row in deep or [])
    total = total + sum(t.numpy() for t in (named_tensors or {}).values())
    total = total * 10 if kind is Kind.times else total
    return of_array(total * len(kinds or [1]) + (words == "b"))


def test_records_literals_and_enums() -> None:
    """S46, S49: dataclasses, NamedTuples, TypedDicts, dicts, nested lists, Literals, Enums."""
    f = custom_op("entry_rich::f", rich, mutates_args=())
    given = (Pair(x(1)), Named(x(2)), Typed(w=x(3)))
    assert f(*given).item() == 7
    assert f(*given, [[1, 2], [3]], "b", Kind.times).item() == 131
    assert f(*given, named_tensors={"u": x(5)}, kinds=[Kind.plus] * 2).item() == 24
    arrays = (Pair(ONE), Named(ONE), Typed(w=ONE))
    assert type(f(*arrays)) is np.ndarray and f(*arrays)[0] == 4
    with include_keys(["Negative"]):
        assert f(*given, kind=Kind.times).item() == 70


def test_keyword_only_tensors() -> None:
    """S49: keyword-only tensors are dispatched on as all others."""

    def g(t: Tensor, *, y: Tensor, z: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        return of_array(t.numpy() + y.numpy() + (0 if z is None else z.numpy()))

    f = custom_op("entry_kw::g", g, mutates_args=())
    assert f(x(), y=x(2)).item() == 3
    assert f(x(), z=x(4), y=x(2)).item() == 7
    assert f(ONE, y=ONE)[0] == 2
    with scoped_library("entry_kw", "IMPL") as lib:
        lib.impl("g", lambda t, *, y, z: of_array(np.full(1, 50)), "Negative")
        with include_keys(["Negative"]):
            assert f(x(), y=x()).item() == 50


# -- the function -------------------------------------------------------------


def test_handles_stay_good() -> None:
    """S107: an entry that a caller holds answers with the rules of now."""
    op = custom_op("entry_held::f", lambda t: of_array(t.numpy() + 1), mutates_args=(),
                   schema="(Tensor t) -> Tensor")  # fmt: skip
    held = op._opoverload.entry
    assert held(x()).item() == 2
    op.register_kernel("cpu", lambda t: of_array(t.numpy() + 2))
    assert held(x()).item() == 3
    with scoped_library("entry_held", "IMPL") as lib:
        lib.impl("f", lambda t: of_array(t.numpy() + 3), "AutogradCPU")
        assert held(x()).item() == 4
    assert held(x()).item() == 3 and op._opoverload.entry is held


def test_an_override_during_a_call() -> None:
    """S107: a kernel that overrides itself while it runs ends with what it began with."""
    op = custom_op("entry_self::f", lambda t: t, mutates_args=(), schema="(Tensor t) -> Tensor")

    def kernel(t: Tensor) -> Tensor:
        for n in range(5):
            op.register_kernel("cpu", lambda t, n=n: of_array(t.numpy() + 10 + n))
        return of_array(t.numpy() + 1)

    op.register_kernel("cpu", kernel)
    assert [op(x()).item(), op(x()).item()] == [2, 15]


def test_an_error_of_a_kernel_is_the_users() -> None:
    """S1: an exception in a kernel comes out as it is, with short traceback and no context."""

    def fails(t: Tensor) -> Tensor:
        raise KeyError("mine")

    op = custom_op("entry_fail::f", fails, mutates_args=())
    with pytest.raises(KeyError, match="mine"):
        op(x())  # the first call writes the entry, which shows in its traceback
    with pytest.raises(KeyError, match="mine") as caught:
        op(x())
    assert caught.value.__context__ is None
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [f.name for f in frames if f.filename == __file__][-1] == "fails"
    assert len(frames) <= 4


def test_attribute_errors_of_kernels_are_not_swallowed() -> None:
    """S1: an AttributeError or TypeError of a kernel is not taken for a bad argument."""
    for error in (AttributeError, TypeError):

        def fails(t: Tensor, error: Any = error) -> Tensor:
            raise error("mine")

        op = custom_op(f"entry_fail::{error.__name__}", fails, mutates_args=(),
                       schema="(Tensor t) -> Tensor")  # fmt: skip
        with pytest.raises(error, match="^mine$"):
            op(x())


def test_the_receiver_is_positional_only() -> None:
    """S60: no receiver stands in the way of an argument named `self`."""
    for call in (type(ops.entry).__getattr__, type(ops.core.add).__call__):
        first = next(iter(inspect.signature(call).parameters.values()))
        assert first.name == "self"
    f = define("receiver", "(Tensor self) -> Tensor", lambda t: of_array(t.numpy() + 1))
    for op in (f, f.default):
        assert op(self=x()).item() == 2

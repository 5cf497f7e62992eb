"""Kernels below a trace, or at its key, that go on with their operator: the call happens once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import func, ops
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library
from polyop.export import export
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx

NS = "on_the_way"


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library with an operator that adds one to its argument."""
    made = Library(NS, "DEF")
    made.define("add_(Tensor(a!) x) -> ()")

    def add(x: Any) -> None:
        x.numpy()[...] += 1

    made.impl("add_", add, "CPU")
    yield made
    made.destroy()


def going_on(lib: Library, key: str, also: Callable[[Any], Any] = lambda x: x) -> list[str]:
    """Register a kernel that goes on below its key; give the list of its runs."""
    ran: list[str] = []

    def kernel(keys: Any, x: Any) -> None:
        ran.append(key)
        also(x)
        assert len(ran) < 9, "it comes back to itself"
        ops.on_the_way.add_.default.redispatch(keys - DispatchKeySet(key), x)

    lib.impl("add_", kernel, key, with_keyset=True)
    return ran


def calls(module: Any) -> list[str]:
    """Name the operators that a program calls."""
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


def written(x: Any) -> Any:
    """Write a tensor, and give it."""
    ops.on_the_way.add_(x)
    return x * 1


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("key", ["BackendSelect", "Python", "Functionalize", "Negative"])
def test_one_call_is_one_node(lib: Library, key: str, mode: Any, pre_dispatch: bool) -> None:
    """S103, S209: what goes on below the trace is part of the call, and not recorded again."""
    going_on(lib, key)
    module = make_fx(written, mode, pre_dispatch=pre_dispatch)(polyop.ones(2))
    assert calls(module)[0] == "on_the_way.add_.default"
    assert len(calls(module)) == 2
    assert module(polyop.ones(2)).tolist() == written(polyop.ones(2)).tolist() == [2.0, 2.0]


TURNS: dict[str, Callable[..., Any]] = {
    "compile": lambda f: polyop.compile(f, fullgraph=True),
    "export": lambda f: export(f, (polyop.ones(2),)).module(),
    "functionalized": lambda f: make_fx(func.functionalize(f), "symbolic")(polyop.ones(2)),
}


@pytest.mark.parametrize("key", ["BackendSelect", "Python", "Functionalize"])
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_programs_write_once(lib: Library, key: str, turn: Callable[..., Any]) -> None:
    """S103, S211."""
    going_on(lib, key)
    x = polyop.ones(2)
    assert turn(written)(x).tolist() == x.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_write_past_functionalization_is_followed(lib: Library, turn: Any) -> None:
    """S103, S168: views of what is written see it, as in an eager call."""
    going_on(lib, "Functionalize")

    def f(x: Any) -> Any:
        y = x * 2
        view = y[1:]
        ops.on_the_way.add_(y)
        return y + view

    assert turn(f)(polyop.ones(2)).tolist() == f(polyop.ones(2)).tolist() == [6.0, 6.0]


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_value_past_functionalization_is_computed(lib: Library, turn: Any) -> None:
    """S103, S213: a kernel at Functionalize that goes on with an operator that writes nothing."""
    lib.define("double(Tensor x) -> Tensor")
    lib.impl("double", lambda x: polyop.from_numpy(x.numpy() * 2), "CPU")
    polyop.library.register_fake(f"{NS}::double", polyop.empty_like, lib=lib)
    double = ops.on_the_way.double.default
    below = lambda keys, x: double.redispatch(keys - DispatchKeySet("Functionalize"), x)  # noqa: E731
    lib.impl("double", below, "Functionalize", with_keyset=True)
    assert turn(lambda x: double(x) + x)(polyop.ones(2)).tolist() == [3.0, 3.0]


def test_what_a_kernel_does_below_the_trace_is_not_recorded(lib: Library) -> None:
    """S99, S209: the program runs the kernel again, and it does what it did."""
    going_on(lib, "BackendSelect", lambda x: x.mul_(3.0))
    module = make_fx(written, "real")(polyop.ones(2))
    assert len(calls(module)) == 2
    assert module(polyop.ones(2)).tolist() == written(polyop.ones(2)).tolist() == [4.0, 4.0]


def test_a_kernel_at_python_runs_once(lib: Library) -> None:
    """S103: fakes and traces, which share its key, go on without it."""
    ran = going_on(lib, "Python")
    ops.on_the_way.add_(FakeTensorMode().from_tensor(polyop.ones(2)))
    assert ran == ["Python"]
    module = make_fx(written, "fake")(polyop.ones(2))
    assert ran == ["Python"] * 2
    module(polyop.ones(2))
    assert ran == ["Python"] * 2


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_a_maker_of_tensors_is_one_node(lib: Library, mode: Any) -> None:
    """S104, S209: its kernel at BackendSelect goes on to the device's."""
    lib.define("draw(int n, *, Device? device=None) -> Tensor",
               tags=polyop.Tag.nondeterministic_seeded)  # fmt: skip
    lib.impl("draw", lambda n, *, device=None: polyop.rand(n), "CPU")
    fake = lambda n, *, device=None: polyop.empty(n)  # noqa: E731
    polyop.library.register_fake(f"{NS}::draw", fake, lib=lib)
    f = lambda x: ops.on_the_way.draw(2) + x  # noqa: E731
    module = make_fx(f, mode)(polyop.zeros(2))
    assert calls(module) == ["on_the_way.draw.default", "core.add.default"]
    polyop.manual_seed(0)
    want = f(polyop.zeros(2)).tolist()
    polyop.manual_seed(0)
    assert module(polyop.zeros(2)).tolist() == want

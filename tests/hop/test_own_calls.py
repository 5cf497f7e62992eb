"""An author's `__call__` of a higher-order operator acts once, whoever goes on with the call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.namespaces import ops
from polyop.extend import DispatchKey, HigherOrderOperator, SubgraphOperator
from polyop.graph import make_fx
from polyop.layers.logging_mode import LoggingMode

Fn = Callable[..., Any]


class Around(SubgraphOperator):
    """Doubles what its function gets, and adds one to what it gives."""

    def __call__(self, fn: Fn, x: Any) -> Any:
        return super().__call__(fn, x * 2) + 1


class Inner(Around):
    """Does something more."""

    def __call__(self, fn: Fn, x: Any) -> Any:
        return super().__call__(fn, x + 3)


class Plain(HigherOrderOperator):
    """The same without rules of its own."""

    def __call__(self, fn: Fn, x: Any) -> Any:
        return super().__call__(fn, x * 2) + 1


@pytest.fixture(params=[Around, Inner])
def hop(request: Any) -> Iterator[Any]:
    """A fresh operator, taken out of the namespace at the end."""
    yield request.param("own_call")
    del ops.higher_order.table["own_call"]


def function_of(hop: Any) -> Fn:
    return lambda x: hop(lambda y: y * y, x) + x


def exported(f: Fn, x: Tensor) -> Any:
    """Export a function, save the program and load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        polyop.export.save(polyop.export.export(f, (x,)), path)
        return polyop.export.load(path).module()


def decomposed(f: Fn, x: Tensor) -> Any:
    return polyop.export.export(f, (x,)).run_decompositions().module()


def printed(f: Fn, x: Tensor) -> Any:
    """Run the text of a program."""
    program = make_fx(f)(x)
    scope = program.namespace
    exec(program.code, scope)  # noqa: S102 - the text is the program
    return lambda x: scope["forward"](program, x)


TRACES: dict[str, Callable[[Fn, Tensor], Any]] = {
    "real": lambda f, x: make_fx(f)(x),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x),
    "before dispatch": lambda f, x: make_fx(f, pre_dispatch=True)(x),
    "again": lambda f, x: make_fx(make_fx(f)(x))(x),
    "text": printed,
    "compile": lambda f, _: polyop.compile(f),
    "file": exported,
    "decomposed": decomposed,
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_in_a_program(hop: Any, trace: Any, requires_grad: bool) -> None:
    """S176, S178, S208: a node runs what the call went on with; the rest is in the program."""
    f = function_of(hop)
    program = trace(f, polyop.ones(2, requires_grad=requires_grad))
    x, z = (polyop.tensor([1.0, 2.0], requires_grad=requires_grad) for _ in range(2))
    found, wanted = program(x), f(z)
    assert found.tolist() == wanted.tolist()
    if requires_grad:
        found.sum().backward()
        wanted.sum().backward()
        assert x.grad is not None
        assert z.grad is not None
        assert x.grad.tolist() == z.grad.tolist()


def logged(f: Fn) -> Fn:
    def run(x: Tensor) -> Any:
        with LoggingMode():
            return f(x)

    return run


LAYERS: dict[str, Callable[[Fn], Fn]] = {
    "vmap": polyop.vmap,
    "traced vmap": lambda f: make_fx(polyop.vmap(f))(polyop.ones(2)),
    "traced gradient": lambda f: make_fx(polyop.func.grad(lambda x: f(x).sum()))(polyop.ones(2)),
    "functionalize": polyop.func.functionalize,
    "logging": logged,
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_under_a_layer(hop: Any, layer: Any, request: Any) -> None:
    """S118, S176, S178: no layer makes the call a second time."""
    x = polyop.tensor([1.0, 2.0])
    f = function_of(hop)
    gradient = "gradient" in request.node.callspec.id
    wanted = polyop.func.grad(lambda x: f(x).sum())(x) if gradient else f(x)
    assert layer(f)(x).tolist() == wanted.tolist()


def test_below_its_gradient() -> None:
    """S122: a call without gradients goes on below autograd, and is no other call."""
    plain = Plain("own_plain_call")
    plain.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda fn, x: fn(x))
    plain.py_autograd_impl(lambda fn, x: fn(x))
    try:
        x = polyop.tensor([1.0, 2.0])
        assert plain(lambda y: y * y, x).tolist() == [5, 17]
        assert plain(lambda y: y * y, x.requires_grad_()).tolist() == [5, 17]
    finally:
        del ops.higher_order.table["own_plain_call"]


def test_after_a_cut(hop: Any) -> None:
    """S212: where a capture is cut, what is recorded and what is run at once agree."""

    def f(x: Tensor) -> Any:
        y = hop(lambda y: y * y, x)
        return hop(lambda y: y * y, y) if float(y.sum()) > 0 else y

    x = polyop.tensor([1.0, 2.0])
    assert polyop.compile(f)(x).tolist() == f(x).tolist()

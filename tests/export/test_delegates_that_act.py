"""Delegates and functions by name that draw or act: they stay, and run once (S198, S193)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors, func, graph
from polyop.export import (
    LoweredModule,
    call_custom_autograd_function,
    call_delegate,
    export,
    load,
    save,
    to_backend,
)

Fn = Callable[[Tensor], Tensor]
acted: list[int] = []
LIB = polyop.Library("test_delegates_that_act", "DEF")
LIB.define("act(Tensor x) -> Tensor")


def act(x: Tensor) -> Tensor:
    acted.append(1)
    return x * 2


LIB.impl("act", act, "CPU")
polyop.library.register_fake("test_delegates_that_act::act", polyop.empty_like, lib=LIB)
polyop.library.register_effect(
    "test_delegates_that_act::act", polyop.library.EffectType.ORDERED, lib=LIB
)
polyop.library.register_autograd("test_delegates_that_act::act", lambda ctx, g: g * 2, lib=LIB)


class Draws(polyop.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * polyop.rand(2, dtype=polyop.float64)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Acts(Draws):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return polyop.ops.test_delegates_that_act.act(x)


class Exp(Draws):
    """It saves its result, and is pure."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0]

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return t * ctx.saved_tensors[0]


sys.modules.setdefault(__name__, sys.modules[Draws.__module__])


def two(*, grad: bool = False) -> Tensor:
    return polyop.tensor([1.0, 2.0], dtype=polyop.float64, requires_grad=grad)


def by_name(cls: type) -> Fn:
    return lambda x: call_custom_autograd_function(f"{__name__}.{cls.__name__}", x)


def delegate(fn: Fn) -> Fn:
    lowered = LoweredModule(export(fn, (two(grad=True),)), "nobody")
    return lambda x: call_delegate(lowered, x)


def rand(x: Tensor) -> Tensor:
    return x * polyop.rand(2, dtype=polyop.float64)


def act_on(x: Tensor) -> Tensor:
    made: Tensor = polyop.ops.test_delegates_that_act.act(x)
    return made


DRAWING = {"delegate": delegate(rand), "nested": delegate(delegate(rand)), "name": by_name(Draws)}
ACTING = {"delegate": delegate(act_on), "nested": delegate(delegate(act_on)), "name": by_name(Acts)}


def passed(fn: Fn) -> Fn:
    """Give the graph of a function, after the passes."""
    made = graph.make_fx(fn, tracing_mode="fake")(two())
    graph.eliminate_common_subexpressions(made.graph)
    graph.eliminate_dead_code(made.graph)
    made.recompile()
    return made


def loaded(fn: Fn, path: Path) -> Any:
    save(export(fn, (two(),)), path / "p")
    return load(path / "p")


WAYS: dict[str, Callable[[Fn, Path], Fn]] = {
    "export": lambda f, path: export(f, (two(),)).module(),
    "decomposed": lambda f, path: export(f, (two(),)).run_decompositions().module(),
    "loaded": lambda f, path: loaded(f, path).run_decompositions().module(),
    "lowered": lambda f, path: to_backend(loaded(f, path), "onnx").module(),
    "compiled": lambda f, path: polyop.compile(f, fullgraph=True),
    "passes": lambda f, path: passed(f),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", DRAWING)
def test_two_draws_stay_two(kind: str, way: str, tmp_path: Path) -> None:
    """S198, S210: equal calls of what draws are not merged."""
    draw = DRAWING[kind]
    made = WAYS[way](lambda x: draw(x) - draw(x), tmp_path)
    assert all(x != 0 for x in made(two()).tolist())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ACTING)
def test_effects_inside_stay(kind: str, way: str, tmp_path: Path) -> None:
    """S198, S210: a call with an effect inside runs, read or not, as often as it is called."""
    call = ACTING[kind]

    def fn(x: Tensor) -> Tensor:
        call(x)
        return call(x) + call(x)

    made = WAYS[way](fn, tmp_path)
    acted.clear()
    assert made(two()).tolist() == [4, 8]
    assert len(acted) == 3


def test_a_delegate_without_program_counts_as_impure() -> None:
    """S198: what nobody knows is not removed."""
    made = graph.Graph()
    x = made.placeholder("x")
    read = made.get_attr("lowered_module_0")
    read.val = LoweredModule(None, "nobody", b"payload")
    made.call_function(call_delegate, (read, x))
    made.output(x)
    assert graph.eliminate_dead_code(made) == 0


DERIVATIVES: dict[str, Callable[[Fn], Any]] = {
    "backward": lambda f: polyop.autograd.grad([f(x := two(grad=True)).sum()], [x])[0],
    "grad": lambda f: func.grad(lambda x: f(x).sum())(two()),
    "jvp": lambda f: func.jvp(f, (two(),), (polyop.ones_like(two()),))[1],
    "linearize": lambda f: func.linearize(f, two())[1](polyop.ones_like(two())),
    "compiled": lambda f: DERIVATIVES["backward"](polyop.compile(f, fullgraph=True)),
}


@pytest.mark.parametrize("way", DERIVATIVES)
@pytest.mark.parametrize("fn", [rand, by_name(Draws), act_on, by_name(Acts)])
def test_no_derivative_repeats(fn: Fn, way: str) -> None:
    """S193: a derivative that would draw, or act, again is refused."""
    acted.clear()
    with pytest.raises((errors.AutogradError, errors.CaptureError), match="runs its function"):
        DERIVATIVES[way](delegate(fn))
    assert len(acted) <= 1


@pytest.mark.parametrize("way", DERIVATIVES)
@pytest.mark.parametrize("levels", [1, 2])
def test_pure_functions_inside_delegates_have_derivatives(levels: int, way: str) -> None:
    """S193, S195: a function by name that neither draws nor acts may run again."""
    fn = by_name(Exp)
    for _ in range(levels):
        fn = delegate(fn)
    assert polyop.allclose(DERIVATIVES[way](fn), two().exp())

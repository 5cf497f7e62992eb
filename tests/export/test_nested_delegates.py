"""Delegates inside delegates: what they read has its gradient, and its writes are seen (S193)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor, autograd, errors
from polyop.export import LoweredModule, call_delegate, export, load, save
from polyop.graph import make_fx

Fn = Callable[[Tensor], Tensor]


def leaf(*values: float) -> Any:
    return polyop.tensor(list(values), dtype=polyop.float64, requires_grad=True)


def delegate(fn: Fn) -> Fn:
    lowered = LoweredModule(export(fn, (leaf(0.3, 0.7),)), "nobody")
    return lambda x: call_delegate(lowered, x)


WAYS: dict[str, Callable[[Fn], Fn]] = {
    "eager": lambda f: f,
    "make_fx": lambda f: make_fx(f)(leaf(0.3, 0.7)),
    "compiled": lambda f: polyop.compile(f, fullgraph=True),
    "exported": lambda f: export(f, (leaf(0.3, 0.7),)).module(),
    "branch": lambda f: lambda x: polyop.cond(x.sum() > 0, f, lambda x: x + 1, (x,)),
}


@pytest.mark.parametrize("way", [name for name in WAYS if name != "branch"])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_parameters_at_every_depth_have_gradients(levels: int, way: str) -> None:
    """S193: no parameter of a delegate inside a delegate is detached."""
    w = leaf(2.0, 3.0)
    fn: Fn = lambda x: x.sin() * w + x  # noqa: E731
    plain = fn
    for _ in range(levels):
        fn = delegate(fn)
    x = leaf(0.3, 0.7)
    found = autograd.grad([WAYS[way](fn)(x).sum()], [x, w])
    eager = autograd.grad([plain(x).sum()], [x, w])
    assert all(polyop.allclose(a, b) for a, b in zip(found, eager, strict=True))


def test_a_program_lists_the_parameters_of_its_delegates(tmp_path: Path) -> None:
    """S193, S213: `parameters()` has what requires grad at every depth."""
    w = leaf(2.0, 3.0)
    program = export(delegate(delegate(lambda x: x * w)), (leaf(0.3, 0.7),))
    assert program.module().parameters() == [w]
    save(program, tmp_path / "p")
    assert [t.tolist() for t in load(tmp_path / "p").module().parameters()] == [w.tolist()]


def test_a_checkpoint_refuses_parameters_at_every_depth() -> None:
    """S193, S179: a parameter that is no operand is refused, and never detached."""
    w = leaf(2.0, 3.0)
    fn: Fn = lambda x: x * w  # noqa: E731
    for _ in range(3):
        fn = delegate(fn)
        with pytest.raises(errors.SubgraphError, match="requires grad"):
            polyop.hop.checkpoint(fn, leaf(0.3, 0.7))


@pytest.mark.parametrize("way", [*WAYS, "checkpoint", "compiled branch"])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_constant_that_is_written_before_backward_is_noticed(levels: int, way: str) -> None:
    """S125, S193: the way back would read other values than the call did."""
    c = leaf(2.0, 3.0).detach()
    fn: Fn = lambda x: x * c  # noqa: E731
    for _ in range(levels):
        fn = delegate(fn)
    if way == "checkpoint":
        out = polyop.hop.checkpoint(fn, leaf(0.3, 0.7))
    elif way == "compiled branch":
        out = polyop.compile(WAYS["branch"](fn), fullgraph=True)(leaf(0.3, 0.7))
    else:
        out = WAYS[way](fn)(leaf(0.3, 0.7))
    with polyop.no_grad():
        c.mul_(10)
    with pytest.raises(errors.AutogradError, match="was written"):
        out.sum().backward()

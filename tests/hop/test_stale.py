"""Tensors that a function uses and does not get, written before its gradient runs it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tests.layers.author_signatures import same

import polyop
from polyop import Tensor, autograd, func, hop
from polyop.errors import AutogradError, SubgraphError
from polyop.graph import make_fx
from polyop.hop import checkpoint

GLOBAL = polyop.ones(3)


class Block:
    """A block with a buffer, and a part that has one."""

    def __init__(self, buffer: Tensor, part: Block | None = None) -> None:
        self.buffer, self.part, self.parts = buffer, part, [part]

    def __call__(self, x: Tensor) -> Tensor:
        """Scale by the buffer of the part, or by its own."""
        return self.part(x) if self.part is not None else self.scaled(x)

    def scaled(self, x: Tensor) -> Tensor:
        """Scale."""
        return polyop.sin(x * (self.buffer + 0))


@dataclass(slots=True)
class Slotted:
    """A buffer that is in no dict."""

    buffer: Tensor


def of_global(x: Tensor) -> Tensor:
    """Scale by a global."""
    return polyop.sin(x * (GLOBAL + 0))


#: Functions that use a tensor which they do not get.
USES: dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]] = {
    "closure": lambda w: lambda x: polyop.sin(x * (w + 0)),
    "list": lambda w: (lambda ws: lambda x: polyop.sin(x * (ws[0] + 0)))([w]),
    "default": lambda w: lambda x, w=w: polyop.sin(x * (w + 0)),
    "partial": lambda w: partial(lambda w, x: polyop.sin(x * (w + 0)), w),
    "global": lambda w: of_global,
    "function in a function": lambda w: lambda x: (lambda y: polyop.sin(y * (w + 0)))(x),
    "method": lambda w: Block(w).scaled,
    "object": lambda w: Block(polyop.ones(3), Block(w)),
    "slot": lambda w: (lambda s: lambda x: polyop.sin(x * (s.buffer + 0)))(Slotted(w)),
    "object in a closure": lambda w: lambda x, b=Block(polyop.ones(3), Block(w)): b.parts[0](x),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", USES)
def test_a_checkpoint_refuses_what_was_written_since(kind: str, deep: bool) -> None:
    """S179: its gradient is that of the values of the call, or an error."""
    w = GLOBAL if kind == "global" else polyop.ones(3)
    fn = USES[kind](w)
    x = polyop.ones(3).requires_grad_()
    (want,) = autograd.grad(fn(x).sum(), x)
    out = checkpoint(lambda x: checkpoint(fn, x), x) if deep else checkpoint(fn, x)
    (got,) = autograd.grad(out.sum(), x, retain_graph=True)
    same(got, want)
    w.add_(1)
    with pytest.raises(AutogradError, match="written after the call") as caught:
        autograd.grad(out.sum(), x)
    text = str(caught.value)
    assert "checkpoint" in text
    assert "version" in text
    assert "write to a clone" in text


def test_a_written_operand_is_refused() -> None:
    """S179: an operand is a saved tensor, whether it has a gradient or not."""
    for place in (0, 1):
        x = polyop.ones(3).requires_grad_()
        given = [x * 1, polyop.ones(3)]
        out = checkpoint(lambda x, w: polyop.sin(x * w), *given)
        given[place].add_(1)
        with pytest.raises(AutogradError, match="written after it was saved"):
            out.sum().backward()


def test_gradients_of_gradients_refuse_it_too() -> None:
    """S179, S133: a write after the first backward, which records the second."""
    w, x = polyop.ones(3), polyop.ones(3).requires_grad_()
    out = checkpoint(lambda x: polyop.sin(x * (w + 0)), x)
    (g,) = autograd.grad(out.sum(), x, create_graph=True)
    w.add_(1)
    with pytest.raises(AutogradError, match="written after the call"):
        autograd.grad(g.sum(), x)


def test_what_the_function_writes_itself_is_legal() -> None:
    """S179: statistics that a body keeps, and what it makes and writes, change no gradient."""

    def run(call: Callable[..., Tensor]) -> Tensor:
        total, other = polyop.zeros(3), polyop.ones(3)

        def body(x: Tensor) -> Tensor:
            total.add_(x.detach())
            made = x * other
            made.mul_(2)
            return polyop.sin(made)

        x = polyop.ones(3).requires_grad_()
        (call(body, call(body, x))).sum().backward()
        return x.grad  # type: ignore[no-any-return]

    same(run(checkpoint), run(lambda fn, x: fn(x)))


def test_a_write_that_no_gradient_meets_is_legal() -> None:
    """S179: under no_grad, and behind backward; attributes that the function does not name."""
    block = Block(polyop.ones(3))
    block.other = polyop.ones(3)  # type: ignore[attr-defined]
    x = polyop.ones(3).requires_grad_()
    with polyop.no_grad():
        checkpoint(block, x)
    block.buffer.add_(1)
    out = checkpoint(block, x)
    block.other.add_(1)  # type: ignore[attr-defined]
    out.sum().backward()
    block.buffer.add_(1)
    same(x.grad, polyop.cos(polyop.full((3,), 2.0)) * 2)


BODIES: dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]] = {
    "checkpoint": lambda w: lambda x: checkpoint(lambda x: polyop.sin(x * w), x),
    "cond": lambda w: (
        lambda x: polyop.cond(x.sum() > 0, lambda x: polyop.sin(x * w), lambda x: x * 1, (x,))
    ),
    "map": lambda w: lambda x: hop.map(lambda x: polyop.sin(x * w[0]), x),
    "scan": lambda w: (
        lambda x: hop.scan(lambda c, x: (c + 1, polyop.sin(x * w[0])), polyop.zeros(()), x)[1]
    ),
    "associative_scan": lambda w: (
        lambda x: hop.associative_scan(lambda a, b: polyop.sin(a * b * w[0]), x, 0)
    ),
    "wrap": lambda w: lambda x: hop.wrap(lambda x: polyop.sin(x * w), x),
    "invoke_subgraph": lambda w: (
        lambda x: hop.invoke_subgraph(lambda x: polyop.sin(x * w), "body", x)
    ),
}
RUNS: dict[str, Callable[..., Any]] = {
    "make_fx": lambda f, *args: make_fx(f, "fake")(*args)(*args),
    "make_fx real": lambda f, *args: make_fx(f)(*args)(*args),
    "compile": lambda f, *args: polyop.compile(f)(*args),
    "export": lambda f, *args: polyop.export.export(f, args).module()(*args),
    "func.grad": lambda f, *args: func.grad(lambda x: f(x, args[1]).sum())(args[0].detach()),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", BODIES)
def test_bodies_in_traces_refuse_what_was_written_since(kind: str, run: str) -> None:
    """S179, S180, S182: a gradient in a trace runs a body again, on the values of the call."""

    def step(x: Tensor, w: Tensor) -> Any:
        out = BODIES[kind](w)(x)
        w.add_(1)
        return out if run == "func.grad" else autograd.grad(out.sum(), x)[0]

    # Outside of a trace `wrap` takes no function that closes over tensors (S178).
    with pytest.raises((AutogradError, SubgraphError)):
        RUNS[run](step, polyop.ones(3).requires_grad_(), polyop.ones(3))

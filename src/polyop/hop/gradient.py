"""A call of a subgraph operator as one step of autograd, whose gradient is a call of it too.

The gradient runs the function again: nothing but the operands is kept, and it
has a gradient in turn, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, LIFTED
from polyop.dispatch.context import run_under, word
from polyop.errors import SubgraphError
from polyop.hop.pullbacks import Run, Step, places_of, refuse_repeated, undrawn
from polyop.hop.rules import below_autograd
from polyop.hop.stale import Used, refuse_written, used_now
from polyop.hop.subgraph import Subgraph
from polyop.layers.autograd.function import APPLY, Function
from polyop.layers.autograd.grad_level import GradLevel
from polyop.layers.autograd.transforms import vjp
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.levels import innermost
from polyop.ops.rounding import clone
from polyop.tensor.tensor import Tensor, is_differentiable

Fn = Callable[..., Any]


def differentiable_call(hop: Any, subgraph: Fn, operands: Any, options: Any) -> Any:
    """Call an operator as one step of autograd."""
    leaves, spec = tree.flatten(operands)
    out_spec: list[Any] = []
    call = Call(hop, subgraph, spec, options, out_spec)
    flat = SubgraphFunction.apply(call, *leaves)
    return tree.unflatten(out_spec[0], flat)


class Call:
    """What a step of autograd knows of a call, its tensors aside."""

    __slots__ = ("grad", "hop", "options", "out_spec", "spec", "subgraph", "used")
    keeps_results = False

    def __init__(self, hop: Any, subgraph: Fn, spec: Any, options: Any, out_spec: Any) -> None:
        self.grad = word().grad
        self.hop = hop
        self.subgraph = subgraph
        self.spec = spec
        self.options = options
        self.out_spec = out_spec
        self.used: list[Used] = []

    def run(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Call the operator, below."""
        operands = tree.unflatten(self.spec, leaves)
        ran = inside(self.subgraph)
        out = self.hop.onward(ran, *operands, **self.options)
        self.used += used_now(("", x) for x in ran.used)
        flat, out_spec = tree.flatten(out)
        self.out_spec[:] = [out_spec]
        return tuple(flat)

    def pull(
        self,
        leaves: Sequence[Any],
        grads: Sequence[Any],
        _: Sequence[Any] = (),
        needed: Sequence[bool] | None = None,
    ) -> list[Any]:
        """Give the gradient of each leaf, None for what has none."""
        refuse_written(self.hop, self.used)
        chosen = places_of(leaves, needed)
        wanted = [i for i, g in enumerate(grads) if g is not None]
        n = len(leaves)
        hop, subgraph, options = self.hop.as_call(self.subgraph, self.options)
        back = Recorded(Pullback(subgraph, self.spec, chosen, wanted, n), repeats=True)
        call = undrawn(self.hop, partial(hop, **options))
        found = call(back, *leaves, *[grads[i] for i in wanted])
        done: list[Any] = [None] * n
        for i, g in zip(chosen, found, strict=True):
            done[i] = g
        return done

    def runs(self, leaves: Sequence[Any], mode: FakeTensorMode) -> list[Run]:
        """Give the function with fakes of what it gets, and which of these may require grad."""
        flags = [isinstance(x, Tensor) and bool(x.keys & GRAD) for x in leaves]
        _, subgraph, _ = self.hop.as_call(self.subgraph, self.options)

        def of_leaves(*given: Any) -> Any:
            return subgraph(*tree.unflatten(self.spec, given))

        fakes = tuple(mode.constant(x) if isinstance(x, Tensor) else x for x in leaves)
        return [(of_leaves, fakes, flags)]


class Pullback:
    """The function from operands and gradients of results to gradients of operands."""

    def __init__(
        self, subgraph: Fn, spec: Any, chosen: list[int], wanted: list[int], count: int
    ) -> None:
        self.subgraph = subgraph
        self.spec = spec
        self.chosen = chosen
        self.wanted = wanted
        self.count = count

    def __call__(self, *given: Any) -> tuple[Any, ...]:
        """Run the function, and the gradient of what is wanted."""
        leaves, grads = list(given[: self.count]), given[self.count :]

        def of_chosen(*values: Any) -> tuple[Any, ...]:
            for i, value in zip(self.chosen, values, strict=True):
                leaves[i] = value
            out = tree.leaves(self.subgraph(*tree.unflatten(self.spec, leaves)))
            return tuple(out[i] for i in self.wanted)

        _, pull = vjp(of_chosen, *[leaves[i] for i in self.chosen])
        found = pull(grads, retain_graph=False)
        return tuple(_own(g, given) for g in found)


def _own(g: Tensor, given: Sequence[Any]) -> Tensor:
    """Give memory of its own to a gradient that is what came in."""
    shared = any(g is x or g._base is x for x in given if isinstance(x, Tensor))
    return clone(g) if shared else g


class Recorded:
    """A function inside a step of autograd: what it needs of gradients are its operands.

    Attributes:
        repeats: whether it runs a function that has run before, for a gradient.
        used: the tensors that a trace found it to use and not to get.
    """

    __slots__ = ("repeats", "subgraph", "used")

    def __init__(self, subgraph: Any, *, repeats: bool = False) -> None:
        self.subgraph = subgraph
        self.repeats = repeats
        self.used: list[Tensor] = []

    def __call__(self, *operands: Any) -> Any:
        """Call the function."""
        return self.subgraph(*operands)

    def check(self, op: Any, found: Subgraph) -> None:
        """Refuse tensors that require grad and are no operands, and what may not be repeated.

        Raises:
            SubgraphError: there is such a tensor; its gradient would be lost.
            AutogradError: the function has an effect, or draws random numbers.
        """
        self.used += [x for x in found.lifted if isinstance(x, Tensor)]
        for x in self.used:
            if x.keys & (GRAD | LIFTED):
                raise SubgraphError(
                    f"the function of {op} uses a tensor that requires grad and is no operand",
                    op=op,
                    seen=f"shape {tuple(x.shape)}",
                    fix="pass it to the function as an operand",
                )
        if self.repeats:
            refuse_repeated(op, found.module)


def inside(subgraph: Fn) -> Recorded:
    """Give a function for use inside a step of autograd."""
    return subgraph if isinstance(subgraph, Recorded) else Recorded(subgraph)


def remade(subgraph: Fn, made: Fn) -> Any:
    """Give a function that was made of another one, for the same place."""
    if not isinstance(subgraph, Recorded):
        return made
    again = Recorded(made, repeats=subgraph.repeats)
    again.used = subgraph.used
    return again


class SubgraphFunction(Function):
    """One call of an operator as a step of autograd."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Record the call where it is due: by plain autograd, or by the gradient it is inside."""
        level = innermost(args)
        if level is None:
            return super().apply(*args)
        if isinstance(level, GradLevel):
            return APPLY[GradLevel](level, cls, args)
        return args[0].run(args[1:])  # below that gradient, the operator has rules of its own

    @staticmethod
    def forward(call: Call, *leaves: Any) -> Any:
        """Call the operator."""
        # What is called may ask for the grad mode: it is the caller's.
        return run_under(below_autograd(word()).but(grad=call.grad), call.run, leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the operands, and the results if the call wants them."""
        call, *leaves = inputs
        ctx.call, ctx.count = call, len(leaves)
        leaves += output if call.keeps_results else ()
        ctx.statics = [None if isinstance(x, Tensor) else x for x in leaves]
        ctx.save_for_backward(*[x if isinstance(x, Tensor) else None for x in leaves])
        ctx.mark_non_differentiable(
            *[x for x in output if isinstance(x, Tensor) and not is_differentiable(x.dtype)]
        )

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Call the operator on the gradient of the function."""
        pairs = zip(ctx.saved_tensors, ctx.statics, strict=True)
        leaves = [x if x is not None else static for x, static in pairs]
        needed = ctx.needs_input_grad[1:]
        return (None, *ctx.call.pull(leaves[: ctx.count], grads, leaves[ctx.count :], needed))


def call_of(node: Any) -> tuple[Any, list[Any]] | None:
    """Give the call that a step of autograd is, and its operands; None for any other step."""
    ctx = getattr(node, "s0", None)
    call = getattr(ctx, "call", None)
    if not isinstance(call, (Call, Step)):
        return None
    pairs = zip(ctx._saved, ctx.statics, strict=True)  # type: ignore[union-attr]
    leaves = [static if x is None else x for x, static in pairs]
    return call, leaves[: ctx.count]  # type: ignore[union-attr]

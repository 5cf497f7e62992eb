"""Programs of captured calls: when they hold, how they run, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polyop import tree
from polyop.compile.again import Origin
from polyop.compile.capture import Captured, is_given
from polyop.compile.kinds import describe_inputs, is_plain
from polyop.compile.recording import found_at
from polyop.dispatch.context import run_under, word
from polyop.hop.pullbacks import undrawn
from polyop.layers.autograd import Function
from polyop.layers.autograd.between import grad_between
from polyop.layers.layouts import laid_out, layout_of
from polyop.objects.weakly import Gone, real
from polyop.schema.opaque import is_input
from polyop.tensor.retaken import take
from polyop.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Program:
    """A captured call, ready to run, and what it holds for.

    Attributes:
        facts: what its inputs are, if gradients are among them.
    """

    captured: Captured
    run: Callable[..., Any]
    run_backward: Callable[..., Any] | None
    symbolic: bool
    origin: Origin
    shapes: tuple[Any, ...]
    facts: Any = None

    def holds(self, shapes: tuple[Any, ...], leaves: Sequence[Any]) -> bool:
        """Tell whether the program is right for inputs of these shapes, and for their history."""
        for read in self.origin.reads:  # a generator costs more than most of them
            if not read.same():
                return False
        try:
            return self._fits(shapes, leaves)
        except Gone:
            return False

    def _fits(self, shapes: tuple[Any, ...], leaves: Sequence[Any]) -> bool:
        if not all(answer.holds(leaves) for answer in self.captured.answers):
            return False
        if self.captured.grads:
            given = self.captured.given(leaves)
            if not is_plain(given):
                return False
            facts, shapes = describe_inputs(given, None, None)
            if facts != self.facts:
                return False
        if not self.symbolic:
            return shapes == self.shapes
        env = self.captured.env
        sizes = {
            f"x{i}.{kind}": size
            for i, (shape, strides) in enumerate(shapes)
            for kind, size in _named(shape, strides)
        }
        return env.check_guards(env.bind(sizes)) is None


def _named(shape: Any, strides: Any) -> list[tuple[str, int]]:
    sizes = [(f"shape[{k}]", n) for k, n in enumerate(shape or ())]
    return sizes + [(f"stride({k})", n) for k, n in enumerate(strides or ())]


def run_program(program: Program, fn: Callable[..., Any], leaves: Sequence[Any], spec: Any) -> Any:
    """Run a program on the leaves of a call's arguments.

    Raises:
        Gone: a tensor that it reads is dead; nothing ran.
    """
    captured = program.captured
    leaves = captured.given(leaves)
    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) or is_input(leaf)]
    passed = [(i, found_at(x, leaves), views) for i, (x, views) in captured.passed.items()]
    if captured.backward is None:
        # No result requires grad, whatever the inputs do: a `no_grad` block, say, was captured.
        results = run_under(word().without_grad, program.run, *inputs)
    else:
        call = Call(program, fn, leaves, spec)
        # Also inside of no_grad some results may have history: those of an enable_grad block.
        parameters = map(real, captured.parameters)
        made = run_under(word().with_grad, CompiledCall.apply, call, *inputs, *parameters)
        results = call.results
        call.results = []  # the call lives as long as the gradient can be asked for
        for i, result in zip(captured.differentiable, made, strict=True):
            before = results[i]
            results = [result if r is before else r for r in results]
    for i, source, views in passed:
        results[i] = take(views, source)
    return tree.unflatten(captured.spec, results)


class Call:
    """A call of a program: what is needed to make it again, eagerly."""

    def __init__(self, program: Program, fn: Any, leaves: Sequence[Any], spec: Any) -> None:
        self.program, self.fn, self.leaves, self.spec = program, fn, leaves, spec
        self.kept = [real(x) for x in (*program.captured.parameters, *program.origin.constants)]
        self.grad = word().grad
        self.versions = program.origin.versions(self.tensors())
        self.results: list[Any] = []

    def tensors(self) -> list[Tensor]:
        """List the inputs and parameters, in the program's order."""
        inputs = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        return [*inputs, *map(real, self.program.captured.parameters)]

    def again(self, grads: Sequence[Any]) -> list[Any]:
        """Compute the gradients such that they have gradients: from the function itself."""
        captured = self.program.captured
        leaves = self.leaves[: self.spec.num_leaves]
        now = captured.given(leaves)
        same = all(a is b for a, b in zip(now, self.leaves, strict=True))
        self.program.origin.check(self.fn, self.tensors(), self.versions, same=same)
        args, kwargs = tree.unflatten(self.spec, leaves)
        under = word().with_grad if self.grad else word().without_grad
        fn = undrawn("a compiled function", partial(self.fn, **kwargs))
        results = tree.leaves(run_under(under, fn, *args))
        pairs = [
            (results[i], g)
            for i, g in zip(captured.differentiable, grads, strict=True)
            if g is not None
        ]
        wanted = [*(self.leaves[i] for i in captured.wanted), *map(real, captured.parameters)]
        roots, given = [r for r, _ in pairs], [g for _, g in pairs]
        return list(grad_between(roots, wanted, given, create_graph=True))


class CompiledCall(Function):
    """The one node that autograd sees of a compiled call."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor) -> Any:
        """Run the forward program; results without gradient stay in the call."""
        results, saved = call.program.run(*inputs)
        ctx.call = call
        ctx.places = [i for i, value in enumerate(saved) if isinstance(value, Tensor)]
        ctx.others = [None if isinstance(value, Tensor) else value for value in saved]
        ctx.save_for_backward(*[value for value in saved if isinstance(value, Tensor)])
        call.results = results = list(results)
        made = tuple(results[i] for i in call.program.captured.differentiable)
        ctx.layouts = [layout_of(result) for result in made]
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the backward program."""
        call: Call = ctx.call
        program = call.program
        assert program.run_backward is not None
        saved = list(ctx.others)
        for place, value in zip(ctx.places, ctx.saved_tensors, strict=True):
            saved[place] = value
        if word().grad:
            found = iter(call.again(grads))
        else:  # the program is one for gradients that are laid out as the results
            laid = map(laid_out, grads, ctx.layouts)
            found = iter(program.run_backward(*saved, *laid))
        wanted = program.captured.wanted
        of_inputs = [
            next(found) if i in wanted else None
            for i, leaf in enumerate(call.leaves)
            if is_given(leaf)
        ]
        return (None, *of_inputs, *found)

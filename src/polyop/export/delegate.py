"""`call_delegate`: a part of a program that a backend runs, as one call (S191 to S193)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, LEVELS, TRACE
from polyop.dispatch.context import reset_word, run_under, set_word, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.errors import DelegateError, MissingGradientError
from polyop.export.lowered import LoweredModule
from polyop.graph.node import CALL_FUNCTION
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.rules import Interpreter, below_autograd, register_fake
from polyop.hop.subgraph import add_module
from polyop.layers.autograd import Function, grad
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.vmap.batch import batched, peel
from polyop.ops.joining import stack
from polyop.ops.views import detach, select
from polyop.tensor.tensor import Tensor, is_differentiable


class CallDelegate(HigherOrderOperator):
    """Runs a lowered module: by its backend, or as the program that it was made of.

    Raises:
        DelegateError: the first argument is no `LoweredModule`.
    """

    def __call__(self, lowered: LoweredModule, /, *args: Any) -> Any:
        """Call a delegate."""
        if not isinstance(lowered, LoweredModule):
            raise DelegateError(
                "the first argument of call_delegate is a LoweredModule",
                op=self,
                argument="lowered",
                declared="LoweredModule",
                seen=type(lowered).__name__,
                fix="make one: polyop.export.to_backend(program, backend)",
            )
        now = word()
        if lowered.parameters and now.grad and not now & (LEVELS | TRACE):
            return call_delegate_autograd(lowered, *args)  # no argument may require grad
        return super().__call__(lowered, *args)


call_delegate = CallDelegate("call_delegate")


@call_delegate.py_impl(DispatchKey.CompositeExplicitAutograd)
def call_delegate_eager(lowered: LoweredModule, *args: Any) -> Any:
    """Run the backend, or else the program."""
    run = lowered.executor or lowered.original
    return run(*(plain(arg) for arg in args))


def plain(value: Any) -> Any:
    """Give Python's own list, tuple or dict for one of a class that a graph has made of it."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return tuple(plain(v) for v in value) if type(value) is tuple else value


# -- gradients ----------------------------------------------------------------


@call_delegate.py_autograd_impl
def call_delegate_autograd(lowered: LoweredModule, *args: Any) -> Any:
    """Record the call as one step of autograd."""
    leaves, spec = tree.flatten(args)
    step = Step(lowered, spec, len(leaves))
    found = DelegateFunction.apply(step, *leaves, *lowered.parameters)
    return tree.unflatten(step.out_spec, found)


class Step:
    """What a step of autograd knows of a call, its tensors aside."""

    def __init__(self, lowered: LoweredModule, spec: Any, count: int) -> None:
        self.lowered = lowered
        self.spec = spec
        self.count = count
        self.out_spec: Any = None

    def run(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Call the delegate below autograd."""
        token = set_word(below_autograd(word().without_grad))
        try:
            out = call_delegate(self.lowered, *tree.unflatten(self.spec, leaves[: self.count]))
        finally:
            reset_word(token)
        flat, self.out_spec = tree.flatten(out)
        return tuple(flat)

    def pull(self, leaves: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
        """Give the gradients of the arguments and parameters.

        Raises:
            MissingGradientError: the delegate has no backward, and no program.
        """
        own = self.lowered.backward
        if own is not None:
            results = run_under(word().without_grad, self.run, leaves)
            return list(own(leaves[: self.count], results, grads))
        if self.lowered.original_module is None:
            raise no_gradient(self.lowered)
        return self._of_program(leaves, grads)

    def _of_program(self, leaves: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
        watched = word().grad
        wanted = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.keys & GRAD]
        given = list(leaves[: self.count])
        if not watched:  # the gradient of this call alone, not of what made its arguments
            for i in wanted:
                if i < self.count:
                    given[i] = detach(given[i])
                    given[i].requires_grad_()
        inputs = [given[i] if i < self.count else leaves[i] for i in wanted]
        args = tree.unflatten(self.spec, given)
        out = tree.leaves(run_under(word().with_grad, self.lowered.original, *args))
        pairs = [
            (o, g)
            for o, g in zip(out, grads, strict=True)
            if g is not None and isinstance(o, Tensor) and o.keys & GRAD
        ]
        found: list[Any] = [None] * len(leaves)
        if pairs:
            roots, tangents = [o for o, _ in pairs], [g for _, g in pairs]
            done = grad(roots, inputs, tangents, allow_unused=True, create_graph=watched)
            for i, g in zip(wanted, done, strict=True):
                found[i] = g
        return found


def no_gradient(lowered: LoweredModule) -> MissingGradientError:
    """Make the error of a delegate that nobody can differentiate."""
    return MissingGradientError(
        f"a delegate of {lowered.backend_id} has no gradient: its backend has no backward, and "
        "it has no original program",
        op=call_delegate,
        fix="give the backend a method backward(lowered), or lower it from a program",
    )


class DelegateFunction(Function):
    """One call of a delegate as a step of autograd."""

    @staticmethod
    def forward(ctx: Any, step: Step, *leaves: Any) -> Any:
        """Call the delegate."""
        ctx.step = step
        ctx.statics = [None if isinstance(x, Tensor) else x for x in leaves]
        ctx.save_for_backward(*[x if isinstance(x, Tensor) else None for x in leaves])
        found = step.run(leaves)
        numbers = [x for x in found if isinstance(x, Tensor) and not is_differentiable(x.dtype)]
        ctx.mark_non_differentiable(*numbers)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Ask the backend, or differentiate the program."""
        pairs = zip(ctx.saved_tensors, ctx.statics, strict=True)
        leaves = [x if x is not None else static for x, static in pairs]
        found = ctx.step.pull(leaves, grads)
        return (None, *found, *[None] * (len(leaves) - len(found)))


# -- other layers -------------------------------------------------------------


@call_delegate.py_impl(TransformType.Grad)
@call_delegate.py_impl(TransformType.Jvp)
def call_delegate_inline(to: Interpreter, lowered: LoweredModule, *args: Any) -> Any:
    """Run the program in place of the delegate: its operators have their gradients."""
    if lowered.original_module is None:
        raise no_gradient(lowered)
    return lowered.original(*args)


def call_delegate_fake(lowered: LoweredModule, *args: Any) -> Any:
    """Run the program on fakes."""
    return lowered.original(*args)


register_fake(call_delegate, call_delegate_fake)


@call_delegate.py_impl(Tracer)
def call_delegate_trace(tracer: Tracer, lowered: LoweredModule, *args: Any) -> Any:
    """Record the call as one node, with the module as an attribute of the program."""
    return _record(tracer, lowered, args, call_delegate(lowered, *args))


@call_delegate.py_impl(ProxyMode)
def call_delegate_trace_before(mode: ProxyMode, lowered: LoweredModule, *args: Any) -> Any:
    """Record the call before dispatch."""
    return _record(mode.tracer, lowered, args, call_delegate(lowered, *args))


def _record(tracer: Tracer, lowered: LoweredModule, args: Sequence[Any], result: Any) -> Any:
    read = add_module(tracer, lowered, "lowered_module")
    given = tree.map_leaves(tracer.value, tuple(args))
    node = tracer.graph.create_node(CALL_FUNCTION, call_delegate, (read, *given))
    tracer.results(node, result)
    return result


@call_delegate.py_functionalize_impl
def call_delegate_functionalize(ctx: Any, lowered: LoweredModule, *args: Any) -> Any:
    """Go on with plain tensors: a delegate writes nothing."""
    given = ctx.unwrap_tensors(args)
    with ctx.redispatch_to_next():
        return ctx.wrap_tensors(call_delegate(lowered, *given))


@call_delegate.py_impl(TransformType.Vmap)
def call_delegate_vmap(to: Interpreter, lowered: LoweredModule, *args: Any) -> Any:
    """Call the delegate for each sample, and stack the results."""
    leaves, spec = tree.flatten(args)
    pairs = [peel(x, to.level) for x in leaves]
    with to.lower():
        runs = []
        for i in range(to.batch_size()):
            sample = [x if axis is None else select(x, axis, i) for x, axis in pairs]
            runs.append(tree.flatten(call_delegate(lowered, *tree.unflatten(spec, sample))))
        if not runs:
            raise DelegateError("a delegate cannot run for a batch of no samples", op=call_delegate)
        columns = zip(*(found for found, _ in runs), strict=True)
        stacked = [stack(list(c)) if isinstance(c[0], Tensor) else c[0] for c in columns]
    out = [batched(x, 0, to.level) if isinstance(x, Tensor) else x for x in stacked]
    return tree.unflatten(runs[0][1], out)

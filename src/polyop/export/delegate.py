"""`call_delegate`: a part of a program that a backend runs, as one call (S191 to S193)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, LEVELS, TRACE
from polyop.dispatch.context import AUTOGRAD, run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.errors import AutogradError, DelegateError, MissingGradientError
from polyop.export.lowered import Executor, LoweredModule
from polyop.graph.node import CALL_FUNCTION
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.pullbacks import refuse_acting, undrawn
from polyop.hop.rules import Interpreter, below_autograd, register_fake
from polyop.hop.subgraph import add_module
from polyop.layers.autograd.between import grad_between
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.forward_mode import jvp
from polyop.layers.autograd.function import Function
from polyop.layers.autograd.transforms import recorded
from polyop.layers.levels import innermost
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.ops.joining import stack
from polyop.ops.views import select
from polyop.source import source_of
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
        if lowered.parameters and now.grad and not now & LEVELS:
            if now & TRACE:  # who differentiates the program must know them
                tree.map_leaves(now.tracer.value, lowered.parameters)
            return call_delegate_autograd(lowered, *args)  # no argument may require grad
        return super().__call__(lowered, *args)


call_delegate = CallDelegate("call_delegate")


@call_delegate.py_impl(DispatchKey.CompositeExplicitAutograd)
def call_delegate_eager(lowered: LoweredModule, *args: Any) -> Any:
    """Run the backend, or else the program."""
    given = [plain(arg) for arg in args]
    run = lowered.executor
    if run is None:
        return lowered.original(*given)
    found = run(*given)
    if lowered.outcome is not None:
        lowered.outcome.check(given, found)
    return found


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
    by_program = step.own is None and lowered.original_module is not None
    function = ProgramFunction if by_program else DelegateFunction
    found = function.apply(step, *leaves, *lowered.parameters)
    return tree.unflatten(step.out_spec, found)


@call_delegate.py_impl(TransformType.Grad)
@call_delegate.py_impl(TransformType.Jvp)
def call_delegate_at_level(to: Interpreter, lowered: LoweredModule, *args: Any) -> Any:
    """Record the call as one step of a transform, or leave it to what is around."""
    if innermost(args) is to.level:
        return call_delegate_autograd(lowered, *args)
    with to.lower():
        return call_delegate(lowered, *args)


class Step:
    """What a step of autograd knows of a call, its tensors aside."""

    def __init__(self, lowered: LoweredModule, spec: Any, count: int) -> None:
        self.lowered = lowered
        self.own = lowered.backward
        self.spec = spec
        self.count = count
        self.out_spec: Any = None

    def run(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Call the delegate."""
        out = call_delegate(self.lowered, *tree.unflatten(self.spec, leaves[: self.count]))
        flat, self.out_spec = tree.flatten(out)
        return tuple(flat)

    def pull(
        self, leaves: Sequence[Any], results: Sequence[Any], grads: Sequence[Any], needs: Any
    ) -> list[Any]:
        """Give the gradients of the arguments and parameters.

        Raises:
            MissingGradientError: the delegate has no backward, and no program.
            AutogradError: its backward gives too few gradients, or too many; its program draws
                random numbers, and would draw others.
        """
        if self.own is not None:
            given = self.own(leaves[: self.count], results, grads)
            return self._counted(self.own, given, len(leaves))
        if self.lowered.original_module is None:
            raise no_gradient(self.lowered)
        found: list[Any] = [None] * len(leaves)
        wanted = [i for i, need in enumerate(needs) if need]
        # A transform may ask, or one be around; or autograd is off, as inside of a checkpoint.
        asks = innermost(leaves) is None and all(leaves[i].keys & GRAD for i in wanted)
        pulled = self._plain if asks and not word().exclude & AUTOGRAD else self._at_level
        for i, g in zip(wanted, pulled(leaves, wanted, grads), strict=True):
            found[i] = g
        return found

    def _counted(self, own: Executor, given: Any, most: int) -> list[Any]:
        found = [given] if given is None or isinstance(given, Tensor) else list(given)
        if not self.count <= len(found) <= most:
            raise AutogradError(
                f"the backward of {self.lowered.backend_id} gave a wrong number of gradients",
                op=call_delegate,
                declared=f"{self.count}, one per argument",
                seen=len(found),
                source=source_of(own),
                fix="give one value per argument, None where there is no gradient",
            )
        return found + [None] * (most - len(found))

    def original(self, leaves: Sequence[Any]) -> list[Any]:
        """Run the program again, for a derivative.

        Raises:
            AutogradError: it has an effect, or draws random numbers, and would draw others.
        """
        program = self.lowered.original
        refuse_acting(call_delegate, program.graph.nodes)
        given = tree.unflatten(self.spec, leaves[: self.count])
        return tree.leaves(undrawn(call_delegate, program)(*given))

    def _plain(
        self, leaves: Sequence[Any], wanted: Sequence[int], grads: Sequence[Any]
    ) -> list[Any]:
        """Differentiate the program by autograd."""
        now = word()
        found = run_under(now.with_grad, self.original, leaves)
        pairs = [(o, g) for o, g in zip(found, grads, strict=True) if g is not None and grows(o)]
        roots, tangents = [o for o, _ in pairs], [g for _, g in pairs]
        return grad_between(roots, [leaves[i] for i in wanted], tangents, create_graph=now.grad)

    def _at_level(
        self, leaves: Sequence[Any], wanted: Sequence[int], grads: Sequence[Any]
    ) -> list[Any]:
        """Differentiate the program by a transform."""
        numbers = [i for i, g in enumerate(grads) if g is not None]

        def of_wanted(*values: Any) -> tuple[Any, ...]:
            given = list(leaves)
            for i, value in zip(wanted, values, strict=True):
                given[i] = value
            found = self.original(given)
            return tuple(found[i] for i in numbers)

        ran = recorded(of_wanted, [leaves[i] for i in wanted], tuple, has_aux=False)
        nodes = map(ran.level.node_of, ran.results)
        pairs = [(n, grads[i]) for n, i in zip(nodes, numbers, strict=True) if n is not None]
        found = run(pairs, retain=False, create_graph=True, under=word())
        return [found.get(x.grad_node) for x in ran.lifted]


def grows(value: Any) -> bool:
    """Tell whether a value is a tensor that requires grad."""
    return isinstance(value, Tensor) and value.keys & GRAD != 0


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

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Record the call, or leave it to the transform that it belongs to."""
        if isinstance(innermost(args), VmapLevel):
            return args[0].run(args[1:])
        return super().apply(*args)

    @staticmethod
    def forward(step: Step, *leaves: Any) -> Any:
        """Call the delegate."""
        return run_under(below_autograd(word()), step.run, leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the arguments, and the results for a backward of the backend."""
        step, *leaves = inputs
        ctx.step, ctx.count = step, len(leaves)
        # What the way back reads: of constants, that nobody wrote to them.
        leaves += step.lowered.constants if step.own is None else output
        ctx.statics = [None if isinstance(x, Tensor) else x for x in leaves]
        ctx.save_for_backward(*[x if isinstance(x, Tensor) else None for x in leaves])
        known, flags = step.lowered.outcome, [True] * len(output)
        if known is not None:
            flags = known.growing(ctx.needs_input_grad[1 : step.count + 1])
        ctx.mark_non_differentiable(
            *[x for x, flag in zip(output, flags, strict=True) if isinstance(x, Tensor)
              and not (flag and is_differentiable(x.dtype))]
        )  # fmt: skip

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Ask the backend, or differentiate the program."""
        pairs = zip(ctx.saved_tensors, ctx.statics, strict=True)
        kept = [x if x is not None else static for x, static in pairs]
        needs = ctx.needs_input_grad[1:]
        return (None, *ctx.step.pull(kept[: ctx.count], kept[ctx.count :], grads, needs))


class ProgramFunction(DelegateFunction):
    """One call of a delegate that has the derivatives of its program."""

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Push tangents through the program."""
        step, leaves = ctx.step, list(ctx.saved_tensors)
        leaves = [s if x is None else x for x, s in zip(leaves, ctx.statics, strict=True)]
        moving = [i for i in range(step.count) if tangents[i] is not None]
        kinds: list[bool] = []

        def of_moving(*values: Any) -> tuple[Any, ...]:
            given = list(leaves)
            for i, value in zip(moving, values, strict=True):
                given[i] = value
            found = step.original(given)
            kinds[:] = [isinstance(x, Tensor) and is_differentiable(x.dtype) for x in found]
            return tuple(x for x, kind in zip(found, kinds, strict=True) if kind)

        primals = tuple(leaves[i] for i in moving)
        _, slopes = jvp(of_moving, primals, tuple(tangents[i] for i in moving))
        rest = iter(slopes)
        return tuple(next(rest) if kind else None for kind in kinds)


# -- other layers -------------------------------------------------------------


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

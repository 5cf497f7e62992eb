"""The gradient of a call of control flow: one step of autograd, which calls the operator again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import word
from polyop.dispatch.modes import DispatchMode
from polyop.errors import AutogradError
from polyop.graph import GraphModule, is_impure
from polyop.graph.node import CALL_FUNCTION, Node
from polyop.graph.purity import graphs_given, is_impure_target
from polyop.graph.text import line_of
from polyop.hop.forms import Flat, Form, Group, closed
from polyop.hop.stale import Used, refuse_written, used_now
from polyop.layers.autograd.transforms import vjp
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.proxy import set_autocast, set_grad_mode
from polyop.layers.trace.sizes import assert_holds
from polyop.ops.generator import drawing
from polyop.ops.likes import zeros_like
from polyop.tensor.tensor import Tensor, is_differentiable

#: A function, its operands, and which of these may require grad.
Run = tuple[Callable[..., Any], Group, Sequence[bool]]


class Step:
    """What a step of autograd knows of a call, its tensors aside."""

    def __init__(self, hop: Any, form: Form) -> None:
        self.grad = word().grad
        self.hop = hop
        self.form = form
        self.used: list[Used] = []

    def run(self, leaves: Sequence[Any]) -> Group:
        """Call the operator, below."""
        fns = tuple(fn.inside() for fn in self.form.functions)  # type: ignore[attr-defined]
        form = self.form._replace(functions=fns)
        out: Group = self.hop.again(form.given(leaves))
        for fn, ran in zip(self.form.functions, fns, strict=True):
            fn.result = ran.result  # type: ignore[attr-defined]
            self.used += used_now(("", x) for x in ran.used)
        return out

    @property
    def keeps_results(self) -> bool:
        """Whether the gradient wants the results."""
        keeps: bool = self.hop.keeps_results
        return keeps

    def pull(
        self,
        leaves: Sequence[Any],
        grads: Sequence[Any],
        out: Sequence[Any] = (),
        needed: Sequence[bool] | None = None,
    ) -> list[Any]:
        """Give the gradient of each leaf, None for what has none, or needs none."""
        refuse_written(self.hop, self.used)
        form = self.form.given(leaves)
        for fn in form.functions:
            fn.needed = needed  # type: ignore[attr-defined]
        call = self.hop.pulled if self.hop.replays else undrawn(self.hop, self.hop.pulled)
        found: list[Any] = call(form, grads, tuple(out))
        return found

    def runs(self, leaves: Sequence[Any], mode: FakeTensorMode) -> Iterator[Run]:
        """Give each function with fakes of what it gets, and which of these may require grad."""
        form = self.form.given(leaves)
        flags = self.form.given([isinstance(x, Tensor) and bool(x.keys & GRAD) for x in leaves])
        moving = self.hop.moving(flags.groups, form.groups)
        places = self.hop.arguments(form._replace(groups=moving))
        return zip(form.functions, self.hop.samples(form, mode), places, strict=True)


def refuse_repeated(op: Any, module: GraphModule) -> None:
    """Refuse a gradient that would act, or draw, again by running a function again.

    Raises:
        AutogradError: the function has an effect, or draws random numbers.
    """
    refuse_acting(op, module.graph.nodes)


def refuse_acting(op: Any, nodes: Iterable[Node]) -> None:
    """Refuse a gradient that consists of nodes, if one of them acts or draws.

    Raises:
        AutogradError: one does.
    """
    for node in nodes:
        if node.op != CALL_FUNCTION or not is_impure(node) or _may_be_repeated(node.target):
            continue
        inner = _subgraphs(node)
        for graph in inner:
            if graph is not None:  # else nobody knows, and it shows when it draws
                refuse_acting(op, graph.nodes)
        if not inner:
            raise _repeats(op, line_of(node))


#: The operator whose function is running again for a gradient.
REPEATING: ContextVar[Any] = ContextVar("repeating", default=None)


class Unrepeated(DispatchMode):
    """Refuses what acts or draws, in code that no graph shows and that runs again."""

    supports_higher_order_operators = True

    def __dispatch__(
        self, op: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call what may be repeated."""
        if is_impure_target(op) and not _may_be_repeated(op):
            raise _repeats(REPEATING.get(), str(op))
        return op(*args, **(kwargs or {}))


def undrawn(op: Any, pull: Callable[..., Any]) -> Callable[..., Any]:
    """Give a gradient that refuses to draw: by running a function again it gets other numbers."""

    def pulled(*args: Any) -> Any:
        token = REPEATING.set(op)
        try:
            found, drawn = drawing(pull, *args)
        finally:
            REPEATING.reset(token)
        if drawn:
            raise _repeats(op, f"{len(drawn)} generator(s) that drew")
        return found

    return pulled


def _repeats(op: Any, seen: str) -> AutogradError:
    return AutogradError(
        f"the gradient of {op} runs its function again, which would repeat an effect or draw "
        "other random numbers",
        op=op,
        seen=seen,
        fix="do that outside of the function, and pass the result as an operand",
    )


#: What only says how the calls behind it run, or checks them.
_SETTINGS = {set_grad_mode, set_autocast, assert_holds}


def _may_be_repeated(target: Any) -> bool:
    """Tell whether a call writes what the function made itself, asserts, or sets a mode."""
    schema = getattr(target, "_schema", None)
    if target in _SETTINGS or getattr(target, "refuses_repeats", False):
        return True
    return schema is not None and schema.is_mutable


def _subgraphs(node: Node) -> list[Any]:
    """List the graphs of a call that is impure for what they do, and for nothing else."""
    if is_impure_target(node.target) or hasattr(node.target, "is_impure_call"):
        return []
    return graphs_given(node)


def has_gradient(value: Any) -> bool:
    """Tell whether a leaf may have a gradient."""
    return isinstance(value, Tensor) and is_differentiable(value.dtype)


def places_of(leaves: Sequence[Any], needed: Sequence[bool] | None = None) -> list[int]:
    """Give the positions of leaves that may have a gradient.

    What needs none is a constant in the gradient of a function too: the function may ask.
    """
    return [i for i, x in enumerate(leaves) if has_gradient(x) and (not needed or needed[i])]


def pullback(
    fn: Flat,
    count: int,
    chosen: Sequence[int],
    wanted: Sequence[int],
    needed: Sequence[bool] | None = None,
) -> Flat:
    """Give the function from operands and gradients of results to gradients of operands.

    Args:
        fn: the function.
        count: how many operands it has.
        chosen: the operands to differentiate for.
        wanted: the results that have a gradient.
        needed: for each operand whether it requires grad, if the others are not chosen.
    """

    def back(*given: Any) -> Group:
        leaves, grads = list(given[:count]), given[count:]

        def of_chosen(*values: Any) -> Group:
            for i, value in zip(chosen, values, strict=True):
                leaves[i] = value
            out = fn(*leaves)
            return tuple(out[i] for i in wanted)

        _, pull = vjp(of_chosen, *[leaves[i] for i in chosen])
        found: Group = pull(grads, retain_graph=False)
        return found

    made = closed(Flat(back, None, f"the gradient of {fn.name}")).inside(repeats=True)
    made.needed = needed
    return made


def filled(grads: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Give zeros for gradients that are absent."""
    return [zeros_like(r) if g is None else g for g, r in zip(grads, results, strict=True)]

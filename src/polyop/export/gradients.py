"""Whether the gradient of a program is that of its function.

A graph holds the operators of the forward run. Blocks without gradient and
functions with a backward of their own leave no trace in it, and would get the
gradient of the operators inside. So what autograd recorded of the function is
compared with what it records of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import Word, run_under, word
from polyop.errors import CaptureError
from polyop.export.objects import renewed_all
from polyop.export.signature import Signature
from polyop.export.wrappers import refuse_wrappers
from polyop.graph import GraphModule
from polyop.hop.gradient import call_of
from polyop.layers.autograd.node import Node, edges
from polyop.layers.fake import FakeTensorMode
from polyop.layers.functionalize import FunctionalLevel, call_at
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.tensor import Tensor, is_differentiable, of_meta


class Flat:
    """A function of the leaves that a graph takes, giving the leaves of its results.

    Attributes:
        found: what the last call gave.
        by_layouts: whether what it wrote was a matter of layouts.
        out_spec: the structure of that.
    """

    def __init__(
        self, f: Callable[..., Any], leaves: Sequence[Any], in_spec: Any, places: Sequence[int]
    ) -> None:
        self.f = f
        self.leaves = list(leaves)
        self.in_spec = in_spec
        self.places = places
        self.found: list[Any] = []
        self.by_layouts = False
        self.out_spec: Any = None

    def __call__(self, *values: Any) -> list[Any]:
        """Call the function, without its writes to what it made."""
        level = FunctionalLevel(copy_views=False)
        found = self._run(lambda *args, **kwargs: call_at(level, self.f, args, kwargs), values)
        self.by_layouts = level.goes_by_layouts()
        return found

    def as_written(self, *values: Any) -> list[Any]:
        """Call the function with all that it writes."""
        return self._run(self.f, values)

    def _run(self, f: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        given = list(self.leaves)
        for place, value in zip(self.places, values, strict=True):
            given[place] = value
        args, kwargs = tree.unflatten(self.in_spec, given)
        self.found, self.out_spec = tree.flatten(f(*args, **kwargs))
        refuse_wrappers(self.found)
        return self.found

    def results_of(self, signature: Signature) -> list[Any]:
        """Give those leaves of the last call that are results of the graph."""
        pairs = zip(signature.outputs, self.found, strict=True)
        return [leaf for spec, leaf in pairs if spec.kind == "result"]


def gradients_agree(
    module: GraphModule,
    flat: Flat,
    values: Sequence[Any],
    signature: Signature,
    mode: FakeTensorMode,
) -> bool:
    """Tell whether a program whose inputs do not require grad may be given some that do."""
    if any(isinstance(v, Tensor) and v.keys & GRAD for v in values):
        return False  # the inputs say which
    compare = Comparison(mode, [isinstance(v, Tensor) for v in values])
    try:
        return run_under(word().with_grad, compare, module, flat, values, signature) is None
    except Exception:  # whatever it is: then the program is one without gradients
        return False


def alone(mode: FakeTensorMode) -> Word:
    """Give the word of a run on fakes, of which no trace or transform around knows."""
    return word().but(tracer=None, pre=(), fake=mode, functional=None, levels=())


def refuse_own_gradients(
    module: GraphModule,
    flat: Flat,
    values: Sequence[Any],
    signature: Signature,
    mode: FakeTensorMode,
) -> None:
    """Refuse a function whose gradient its operators do not have.

    Args:
        module: a graph of the function.
        flat: the function.
        values: what both are run on.
        signature: which inputs require grad, and which results are the function's.
        mode: the mode of the values.

    Raises:
        CaptureError: with what to do.
    """
    flags = [signature.inputs[i].requires_grad for i in signature.of_graph]
    state = [v for v in vars(module).values() if isinstance(v, Tensor)]
    if not any(flags) and not any(t.keys & GRAD for t in state):
        return
    number = Comparison(mode, flags)(module, flat, values, signature)
    if number is not None:
        raise CaptureError(
            f"the gradient of result {number} is not that of the operators which make it",
            seen="a no_grad block, or an autograd.Function, on the way",
            fix="make an operator of this part and register its gradient, use detach() for "
            "no_grad, or export tensors that do not require grad",
        )


class Comparison:
    """What autograd records of runs on the same inputs: equal records have one number.

    Args:
        mode: the mode of the inputs.
        flags: which inputs require grad.
    """

    def __init__(self, mode: FakeTensorMode, flags: Sequence[bool]) -> None:
        self.mode = mode
        self.flags = flags
        self.known: dict[Any, int] = {}
        self.numbers: dict[Node, int] = {}

    def __call__(
        self, module: GraphModule, flat: Flat, values: Sequence[Any], signature: Signature
    ) -> int | None:
        """Give the first result of which a graph and its function have different records."""
        with self.mode.traced_by(Tracer()):  # what a trace may do, these runs may
            self._run(flat, values, self.flags)
            wanted = [self._number(x) for x in flat.results_of(signature)]
            again = self._run(module, renewed_all(self.mode, values), self.flags)
            again = again[len(again) - len(wanted) :]  # in front are the new values of inputs
            found = [self._number(x) for x in again]
        return next((i for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b), None)

    def _run(
        self, fn: Callable[..., Any], values: Sequence[Any], flags: Sequence[bool]
    ) -> list[Any]:
        """Call a function on leaves of autograd, which are known by their places."""
        given = [_leaf(v, f) for v, f in zip(values, flags, strict=True)]
        for i, leaf in enumerate(given):
            if isinstance(leaf, Tensor) and leaf.keys & GRAD:
                self.numbers[leaf.grad_node] = self._numbered(("input", i))
        return tree.leaves(run_under(alone(self.mode), fn, *given))

    def _number(self, value: Any) -> int:
        """Give a number for what autograd recorded of a tensor."""
        if not isinstance(value, Tensor) or not value.keys & GRAD:
            return -1
        waiting = [value.grad_node]
        while waiting:
            node = waiting[-1]
            inner = [n for n in edges(node) if n not in self.numbers] if node.seq else []
            if inner:
                waiting += inner
                continue
            waiting.pop()
            if node not in self.numbers:
                self.numbers[node] = self._numbered(self._record(node))
        return self.numbers[value.grad_node]

    def _numbered(self, record: Any) -> int:
        return self.known.setdefault(record, len(self.known))

    def _record(self, node: Node) -> Any:
        if not node.seq:
            return id(node)  # a leaf is itself
        item = getattr(node, "x0", None)
        return (
            str(getattr(node, "op", "")),
            item if isinstance(item, int) else None,
            tuple(self.numbers[n] for n in edges(node)),
            self._functions(node),
        )

    def _functions(self, node: Node) -> Any:
        """Give the records of the functions of a call that is one step."""
        found = call_of(node)
        if found is None:
            return ()
        call, leaves = found
        runs = run_under(alone(self.mode), call.runs, leaves, self.mode)
        results = [run_under(word().with_grad, self._run, *run) for run in runs]
        return str(call.hop), tuple(tuple(map(self._number, out)) for out in results)


def _leaf(value: Any, requires_grad: bool) -> Any:
    """Give a tensor of its own, like a fake."""
    if not isinstance(value, Tensor):
        return value
    made = of_meta(value.payload)
    if requires_grad and is_differentiable(made.dtype):
        made.requires_grad_()
    return made

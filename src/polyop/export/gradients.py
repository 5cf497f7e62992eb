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
from polyop.export.signature import Signature
from polyop.export.wrappers import refuse_wrappers
from polyop.graph import GraphModule
from polyop.layers.autograd.node import Node, edges
from polyop.layers.fake import FakeTensorMode
from polyop.layers.functionalize import FunctionalLevel, call_at
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
    fresh = [_leaf(v) if isinstance(v, Tensor) else v for v in values]
    try:
        run_under(alone(mode).with_grad, flat, *fresh)
        results = flat.results_of(signature)
        run_under(word().with_grad, refuse_own_gradients, module, fresh, results, mode)
    except Exception:  # whatever it is: then the program is one without gradients
        return False
    return True


def alone(mode: FakeTensorMode) -> Word:
    """Give the word of a run on fakes, of which no trace or transform around knows."""
    return word().but(tracer=None, pre=(), fake=mode, functional=None, levels=())


def _leaf(fake: Tensor) -> Tensor:
    made = of_meta(fake.payload)
    if is_differentiable(made.dtype):
        made.requires_grad_()
    return made


def refuse_own_gradients(
    module: GraphModule, values: Sequence[Any], results: Sequence[Any], mode: FakeTensorMode
) -> None:
    """Refuse a function whose gradient its operators do not have.

    Args:
        module: a graph of the function, with one result at its end for each of these.
        values: what both were run on.
        results: what the function gave.
        mode: the mode of the values.

    Raises:
        CaptureError: with what to do.
    """
    state = [v for v in vars(module).values() if isinstance(v, Tensor)]
    if not any(isinstance(t, Tensor) and t.keys & GRAD for t in [*values, *state]):
        return
    known: dict[Any, int] = {}
    again = tree.leaves(run_under(alone(mode), module, *values))
    again = again[len(again) - len(results) :]  # in front are the new values of inputs
    for number, (found, made) in enumerate(zip(results, again, strict=True)):
        if isinstance(found, Tensor) and _key(found, known) != _key(made, known):
            raise CaptureError(
                f"the gradient of result {number} is not that of the operators which make it",
                seen="a no_grad block, or an autograd.Function, on the way",
                fix="make an operator of this part and register its gradient, use detach() for "
                "no_grad, or export tensors that do not require grad",
            )


def _key(tensor: Any, known: dict[Any, int]) -> int:
    """Give a number for what autograd recorded of a tensor, one for equal records."""
    if not tensor.keys & GRAD:
        return -1
    numbers: dict[Node, int] = {}
    waiting = [tensor.grad_node]
    while waiting:
        node = waiting[-1]
        inner = [n for n in edges(node) if n not in numbers] if node.seq else []
        if inner:
            waiting += inner
            continue
        waiting.pop()
        numbers[node] = known.setdefault(_record(node, numbers), len(known))
    return numbers[tensor.grad_node]


def _record(node: Node, numbers: dict[Node, int]) -> Any:
    if not node.seq:
        return id(node)  # a leaf is itself
    item = getattr(node, "x0", None)
    return (
        str(getattr(node, "op", "")),
        item if isinstance(item, int) else None,
        tuple(numbers[n] for n in edges(node)),
    )

"""Capture: run a function once on fakes, and keep what it called as programs.

A program that needs no gradient is one graph. One that does is traced through
the backward too, and cut in two: forward, with the values that backward reads
as further results, and backward. Autograd then meets the whole as one node, so
that every rule (`no_grad` blocks, authors' gradients, `autograd.Function`)
acted once, at capture, exactly as in an eager call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import Word, run_under, word
from polyop.errors import CaptureError, FakeError, MissingFakeError
from polyop.graph import Graph, GraphModule, Node, eliminate_dead_code
from polyop.layers.autograd import grad
from polyop.layers.fake import FakeTensorMode
from polyop.layers.trace.make_fx import fresh_input
from polyop.layers.trace.tracer import Tracer, describe
from polyop.source import caller
from polyop.symbolic import ShapeEnv
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor, of_meta


class DataLook(Exception):  # noqa: N818 - it steers, and never reaches a user
    """Captured code looked at data."""

    def __init__(self, what: str, place: object) -> None:
        super().__init__(f"{what}() at {place}")
        self.what, self.place = what, place


class Capture(Tracer):
    """A tracer for which every look at data ends the capture, of constants too.

    The data of a constant would become part of the program, and the program
    would not notice when it changes.
    """

    def look(self, tensor: Tensor, what: str) -> NoReturn:
        """End the capture."""
        raise DataLook(what, caller())


@dataclass(frozen=True, slots=True)
class Captured:
    """A function on inputs of one kind, as programs.

    Attributes:
        forward: gives the results, flat, and then what backward reads.
        backward: takes what it reads, then the gradients of the differentiable
            results; gives the gradients of the differentiable inputs. Or None.
        spec: the structure of the results.
        results: how many leaves these have.
        differentiable: the positions of results that require grad.
        wanted: the positions of inputs that require grad.
        parameters: tensors from elsewhere that require grad; further inputs.
        env: the sizes, with the guards that the capture relied on.
    """

    forward: GraphModule
    backward: GraphModule | None
    spec: Any
    results: int
    differentiable: tuple[int, ...]
    wanted: tuple[int, ...]
    parameters: tuple[Tensor, ...]
    env: ShapeEnv | None


def capture(
    fn: Callable[..., Any],
    leaves: Sequence[Any],
    spec: Any,
    *,
    symbolic: bool,
) -> Captured:
    """Capture a call.

    Raises:
        DataLook: the function looked at data.
        CaptureError: a result is no tensor or number, or shares storage with an
            input while gradients are needed.
        MissingFakeError: an operator has no fake rule.
    """
    env = ShapeEnv() if symbolic else None
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=env)
    tracer = Capture()
    inputs = [_input(tracer, mode, i, leaf) for i, leaf in enumerate(leaves)]
    args, kwargs = tree.unflatten(spec, inputs)
    under = word().but(tracer=tracer, fake=mode)
    out = run_under(under, fn, *args, **kwargs)
    results, out_spec = tree.flatten(out)
    return _finish(tracer, under, inputs, results, out_spec, env)


def _input(tracer: Tracer, mode: FakeTensorMode, i: int, leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    fake = fresh_input(leaf, mode, f"x{i}")
    tracer.placeholder(f"x{i}", fake)
    return fake


def _finish(
    tracer: Tracer,
    under: Word,
    inputs: Sequence[Any],
    results: list[Any],
    spec: Any,
    env: ShapeEnv | None,
) -> Captured:
    wanted = tuple(i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.keys & GRAD)
    parameters = {
        name: t for name, t in tracer.constants.items() if isinstance(t, Tensor) and t.keys & GRAD
    }
    grown = tuple(
        i for i, r in enumerate(results) if isinstance(r, Tensor) and r.keys & GRAD
    )
    if not grown:
        forward = tracer.finish(results, env)
        return Captured(forward, None, spec, len(results), (), wanted, (), env)
    _refuse_shared(inputs, results, grown)
    with_inputs = [inputs[i] for i in wanted] + list(parameters.values())
    last = tracer.graph.last
    tangents = [_tangent(tracer, results[i]) for i in grown]
    roots = [results[i] for i in grown]
    grads = run_under(
        under, grad, roots, with_inputs, tangents, allow_unused=True, retain_graph=False
    )
    whole = tracer.finish([results, list(grads)], env)
    forward, backward = _split(whole, last, list(parameters))
    return Captured(
        forward, backward, spec, len(results), grown, wanted, tuple(parameters.values()), env
    )


def _refuse_shared(inputs: Sequence[Any], results: Sequence[Any], grown: Sequence[int]) -> None:
    for i in grown:
        for x in inputs:
            if isinstance(x, Tensor) and (results[i] is x or shares_memory(results[i], x)):
                raise CaptureError(
                    f"result {i} shares storage with an input, and a gradient is needed",
                    fix="return a copy: .clone()",
                )


def _tangent(tracer: Tracer, result: Tensor) -> Tensor:
    """Make the placeholder for the gradient of a result."""
    tangent = of_meta(describe(result))
    tracer.placeholder("tangent", tangent)
    return tangent


# -- one graph cut in two -----------------------------------------------------


def _split(
    whole: GraphModule, last: Node, parameters: Sequence[str]
) -> tuple[GraphModule, GraphModule]:
    """Cut a joint graph after `last`; what crosses becomes a result and an input."""
    output = whole.graph.output_node
    assert output is not None
    results, grads = output.args[0]
    first, second = _halves(whole.graph, last)
    needed = _crossing(second, grads, set(first))
    forward = _forward(first, results, needed, parameters)
    backward = _backward(second, grads, needed)
    modules = GraphModule(whole, forward), GraphModule(whole, backward)
    for module in modules:
        eliminate_dead_code(module.graph)
    return modules


def _halves(graph: Graph, last: Node) -> tuple[list[Node], list[Node]]:
    first: list[Node] = []
    second: list[Node] = []
    here = first
    for node in graph.nodes:
        if node.op != "output":
            here.append(node)
        if node is last:
            here = second
    return first, second


def _crossing(second: Sequence[Node], grads: Any, first: set[Node]) -> list[Node]:
    needed: dict[Node, None] = {}
    for node in second:
        for given in node.all_input_nodes:
            if given in first:
                needed[given] = None
    for given in grads:
        if isinstance(given, Node) and given in first:
            needed[given] = None
    return list(needed)


def _forward(
    first: Sequence[Node], results: Any, needed: Sequence[Node], parameters: Sequence[str]
) -> Graph:
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in first:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    for name in parameters:
        # A parameter is an input here, so that gradients reach it.
        source = next(n for n in first if n.op == "get_attr" and n.target == name)
        copies[source] = graph.placeholder(name)
        copies[source].val = source.val
    for node in first:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    given = [copies[r] if isinstance(r, Node) else r for r in results]
    graph.output([given, [copies[n] for n in needed]])
    return graph


def _backward(second: Sequence[Node], grads: Any, needed: Sequence[Node]) -> Graph:
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in needed:
        copies[node] = graph.placeholder(f"saved_{node.name}")
        copies[node].val = node.val
    # All inputs come first; the tangents stand at the beginning of this half anyway.
    for node in [*(n for n in second if n.op == "placeholder"), *second]:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[g] if isinstance(g, Node) else g for g in grads])
    return graph


#: What a capture may raise that the caller's error should wrap.
REFUSALS = (DataLook, FakeError, MissingFakeError, CaptureError)

"""Compiled functions of wrappers whose gradient is wanted (S165, S211).

Autograd acts above the classes of tensors: it sees wrappers, and its formulas
run on wrappers. So a capture makes wrappers of its inputs that require grad,
runs the function, and then the way back on wrappers of further inputs, the
tangents. What the classes do with all of these calls is one graph of the
tensors inside, which is cut in two. A call is one node of autograd, between
the caller's wrappers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from polyop import tree
from polyop.compile.again import origin_of
from polyop.compile.aliasing import checked
from polyop.compile.backends import run_by
from polyop.compile.capture import state_of
from polyop.compile.inside import Described, Inside, built, grows
from polyop.compile.outlines import Static, lasting, look_of, outline_of, parts_of
from polyop.compile.refusals import OF_CAPTURES, refuse_gradient, refuse_unknown_sizes, told
from polyop.compile.split import split
from polyop.compile.wrapper_call import Back, Call, Example, Joined, example_of, grown
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import run_under, word
from polyop.errors import CaptureError
from polyop.graph import GraphModule
from polyop.graph import Node as GraphNode
from polyop.layers.autograd.between import grad_between
from polyop.layers.autograd.node import Node, edges, next_seq
from polyop.objects.environment import One, environment, tensors_of
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor, of_meta


class Halves(NamedTuple):
    """Where a joint graph is cut: its last node of forward, how many results are of forward.

    Attributes:
        reads: what the function reads besides its arguments.
    """

    last: GraphNode
    results: int
    with_gradient: bool
    reads: tuple[One, ...] = ()


class Joint(Inside):
    """A function of wrappers and its gradient as one of the tensors inside them.

    Attributes:
        expected: what gradients of results looked like at an earlier call, if it is known.
        own: what the function raised when it was last captured.
    """

    def __init__(
        self,
        leaves: Sequence[Any],
        spec: Any,
        static: Static,
        expected: tuple[Example, ...] | None = None,
    ) -> None:
        super().__init__(leaves, spec, static)
        self.wanted = tuple(
            i for i, x in enumerate(leaves) if grows(x) and self.same[i] == i
        )  # fmt: skip
        self.expected = expected
        self.own: Exception | None = None
        self.halves: Halves | None = None

    def by_number(self, i: int) -> bool:
        """Tell whether an argument that is a result is given back by its number."""
        return super().by_number(i) or i in self.wanted

    def run(self, fn: Callable[..., Any], given: Sequence[Any]) -> list[Any]:
        """Call the function in a capture; give its results, and their way back."""
        self.own = None
        leaves = self.leaves_of(given)
        plain = [leaves[i] for i in self.wanted if self.inputs[i] is None]
        for i in self.wanted:
            leaves[i].requires_grad_()
        try:
            return self._run(fn, leaves, given)
        finally:
            for leaf in plain:  # the capture sees it as it came
                leaf.keys &= ~GRAD

    def _run(self, fn: Any, leaves: list[Any], given: Sequence[Any]) -> list[Any]:
        start, counts = next_seq(), self.counts(leaves)
        reads = environment(fn, leaves)
        variables = tensors_of(reads)
        outside = [t for t in variables if grows(t)]
        before = [state_of(x) for x in [*leaves, *outside]]
        out = self._called(fn, leaves)
        self.check(leaves, given)
        _refuse_states(before, [*leaves, *outside])
        results, structure = tree.flatten(out)
        roots = self._roots([*leaves, *outside], results)
        described, flat = self.taken_apart(leaves, results, variables)
        forward = Described(described, structure, self.written(leaves, counts))
        last = _tracer().graph.last
        parameters = self._parameters(roots, leaves, outside, start)
        joined, gradients = self._way_back(forward, results, roots, leaves, parameters)
        for root in roots:
            root.keys &= ~GRAD  # the capture has the gradient already
        self.halves = Halves(last, 1 + len(flat), bool(roots), reads)
        return [self.number(joined), *flat, 0, *gradients]

    def _called(self, fn: Any, leaves: Sequence[Any]) -> Any:
        args, kwargs = tree.unflatten(self.spec, leaves)
        try:
            return run_under(word().with_grad, fn, *args, **kwargs)
        except OF_CAPTURES:
            raise
        except Exception as error:  # it may be the function's own; an eager call will tell
            refuse_unknown_sizes(error, word().fake.shape_env)
            self.own = error
            raise CaptureError(f"the function raises {told(error)}") from error

    def _roots(self, given: Sequence[Any], results: Sequence[Any]) -> list[Tensor]:
        """Give the results that gradients flow from, each once."""
        found = [x for x in results if grows(x) and not any(x is one for one in given)]
        roots = list({id(x): x for x in found}.values())
        for n, root in enumerate(roots):
            others = [*given, *(x for x in results if x is not root)]
            if root.is_leaf or _share(root, others):
                kind = "is a leaf" if root.is_leaf else "shares storage with an input or another"
                raise CaptureError(
                    f"result {n} {kind}, and a gradient is needed", fix="return a copy: .clone()"
                )
        return roots

    def _parameters(
        self,
        roots: Sequence[Tensor],
        leaves: Sequence[Any],
        outside: Sequence[Tensor],
        start: int,
    ) -> tuple[Tensor, ...]:
        """Give what gradients flow to besides the arguments."""
        inputs = {leaves[i].grad_node for i in self.wanted}
        known = {t.grad_node: t for t in outside}
        reached = _reached(roots, inputs | known.keys())
        if any(node.seq <= start for node in reached - inputs - known.keys()):
            raise CaptureError(
                "a gradient flows to a tensor that is neither an argument nor a variable of the "
                "function",
                fix="pass it as an argument",
            )
        return tuple(t for node, t in known.items() if node in reached)

    def _way_back(
        self,
        forward: Described,
        results: Sequence[Any],
        roots: Sequence[Tensor],
        leaves: Sequence[Any],
        parameters: tuple[Tensor, ...],
    ) -> tuple[Joined, list[Any]]:
        if not roots:
            return Joined(forward), []
        examples = self.expected or ()
        if len(examples) != len(roots):
            examples = tuple(map(example_of, roots))
        tangents = [_tangent(example) for example in examples]
        wanted = [*(leaves[i] for i in self.wanted), *parameters]
        found = _gradients(roots, wanted, tangents)
        flat = [part for g in found if g is not None for part in parts_of(g)]
        joined = Joined(
            forward,
            tuple(next(i for i, x in enumerate(results) if x is root) for root in roots),
            parameters,
            tuple(look_of(t, self.static) for t in tangents),
            tuple(lasting(outline_of(g)) for g in found),
            tuple(g is not None for g in found),
        )
        return joined, flat

    # -- the programs ---------------------------------------------------------

    def backend(self, inner: Any, aliasing: str) -> Any:
        """Give the backend that cuts a joint graph, and has each half made by another one."""

        def cut(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            assert self.halves is not None
            return _cut(module, self.halves, inner, aliasing)

        cut.takes_tokens = False  # type: ignore[attr-defined]
        return cut

    def ready(self, made: Any, leaves: Sequence[Any]) -> tuple[Joined, list[Any]]:
        """Run the forward program on the tensors inside.

        Args:
            made: the compiled function of them.
            leaves: the arguments, flat.

        Raises:
            CaptureError: the call cannot be captured.
        """
        bare = word().without_grad
        parts = [x for leaf in leaves for x in run_under(bare, _bare_parts, leaf)]
        number, *flat = run_under(bare, made, *parts)
        return self.outputs[number], flat

    def call(self, ready: tuple[Joined, list[Any]], fn: Any, leaves: Any, learn: Any) -> Any:
        """Make the results of a call, and let autograd see it.

        Args:
            ready: what `ready` gave.
            fn: the function, for gradients of gradients.
            leaves: its arguments, flat.
            learn: is told what gradients look like, where they are not as expected.
        """
        joined, flat = ready
        if joined.roots:
            results = grown(Call(self, ready, fn, leaves, learn))
        else:
            results = joined.forward.built(leaves, flat)
        return tree.unflatten(joined.forward.structure, results)


def _gradients(roots: Any, wanted: Any, tangents: Any) -> list[Any]:
    try:
        return grad_between(roots, wanted, tangents, create_graph=False)
    except OF_CAPTURES:
        raise
    except Exception as error:  # an eager call raises it when its gradient is asked for
        refuse_gradient(error)


def _bare_parts(leaf: Any) -> list[Any]:
    parts = parts_of(leaf)
    return [x.detach() if grows(x) else x for x in parts]


def _tracer() -> Any:
    return word().tracer


def _cut(module: GraphModule, halves: Halves, inner: Any, aliasing: str) -> Callable[..., Any]:
    """Make a function of the inputs that gives the results, and the way back in their end."""
    output = module.graph.output_node
    assert output is not None
    leaves = list(output.args[0])
    results, gradients = leaves[: halves.results], leaves[halves.results + 1 :]
    origin = origin_of(halves.reads, module)
    none = [0] * len(gradients)
    if not halves.with_gradient:
        return run_by(inner, module)
    output.set_args(([results, gradients],))
    forward, backward = split(module, halves.last, ())
    run = run_by(inner, forward)
    run_back = checked(backward, run_by(inner, backward), aliasing)

    def both(*inputs: Any) -> list[Any]:
        found, saved = run(*inputs)
        return [*found, Back(run_back, list(saved), origin), *none]

    return both


# -- small parts --------------------------------------------------------------


def _tangent(example: Example) -> Any:
    """Make placeholders for the gradient of a result."""
    made = [of_meta(word().fake.space.meta(shape, dtype, None, device))
            for shape, dtype, device in example.parts]  # fmt: skip
    for part in made:
        _tracer().placeholder("tangent", part)
    return built([example.outline], iter(made), ())[0]


def _refuse_states(before: Sequence[Any], now: Sequence[Any]) -> None:
    for was, tensor in zip(before, now, strict=True):
        found = state_of(tensor)
        if was is found or (isinstance(tensor, Tensor) and was == found):
            continue
        if isinstance(tensor, Tensor) and was[1] is found[1] is not None:
            found[1].kept = was[2]  # the gradient of a capture is of no use outside of it
            for number in found[3][len(was[3]) :]:
                del found[1].hooks[number]
        raise CaptureError("the function changes a gradient, or what requires one, outside it")


def _share(root: Tensor, others: Iterable[Any]) -> bool:
    inside = [x for other in others if isinstance(other, Tensor) for x in parts_of(other)]
    return any(shares_memory(part, x) for part in parts_of(root) for x in inside)


def _reached(roots: Iterable[Tensor], ends: Iterable[Node]) -> set[Node]:
    """Give the nodes on the ways from some tensors, up to given ones."""
    stop = set(ends)
    found: set[Node] = set()
    waiting: list[Node] = [root.grad_node for root in roots]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [] if node in stop else edges(node)
    return found

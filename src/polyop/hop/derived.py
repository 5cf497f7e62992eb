"""`SubgraphOperator`: an operator that calls one function; its rules follow from the function.

While nothing watches, a call is the function's own operators: autograd, fakes
and transforms act on each of them. A trace, or a mode, gets the call whole;
then gradients, batches and functionalization make a new function of the old
one, and call the operator on that (S178).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, LIFTED, MODES, PRE_DISPATCH, TRACE, WRAPPED
from polyop.dispatch.context import Word, set_word, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.graph import GraphModule
from polyop.hop.batching import batched_call
from polyop.hop.closures import check_closed, free_tensors
from polyop.hop.forms import innermost_keys
from polyop.hop.functionalize_api import FunctionalizeAPI
from polyop.hop.gradient import Recorded, differentiable_call, remade
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.pullbacks import refuse_acting
from polyop.hop.questions import refuse_lost
from polyop.hop.rules import Interpreter, below_autograd, register_fake
from polyop.hop.schema import HopSchemaGenerator
from polyop.hop.sharing import Told
from polyop.hop.subgraph import record_call, trace_subgraph
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.lazy import load
from polyop.tensor.tensor import Tensor

#: Who wants the call whole: a trace, or a mode.
WATCHED = TRACE | MODES | PRE_DISPATCH
#: Who makes inputs of what a function closes over.
LIFTING = TRACE | PRE_DISPATCH
Fn = Callable[..., Any]


class SubgraphOperator(HigherOrderOperator):
    """Base of operators that call one function: `op(subgraph, *operands, **options)`.

    Subclass it and define `eager` where a call is more than a call of the
    function; each other rule may be replaced by defining its method.

    Args:
        name: it appears as `polyop.ops.higher_order.<name>`.
        cacheable: whether compiled programs with it may be kept.
        supports_training_input_mutation: whether it may write inputs while gradients flow.

    Raises:
        SubgraphError: in a call, where the function closes over a tensor outside of a
            trace, or, in a trace, writes or returns its input.

    Example:
        >>> import polyop
        >>> from polyop.extend import SubgraphOperator
        >>> block = SubgraphOperator("example_block")
        >>> block(lambda x: (x * x).sum(), polyop.ones(3))
        tensor(3.)
        >>> program = polyop.graph.make_fx(lambda x: block(lambda y: y + 1, x), "fake")
        >>> print(program(polyop.ones(3)).graph)
        graph(x: f32[3]):
            example_block_subgraph_0 = self.example_block_subgraph_0
            example_block: f32[3] = higher_order.example_block(example_block_subgraph_0, x)
            return example_block
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.py_impl(DispatchKey.CompositeExplicitAutograd)(self.eager)
        self.py_impl(DispatchKey.Autograd)(self.autograd)
        self.py_impl(Tracer)(self.trace)
        self.py_impl(ProxyMode)(self.trace_before)
        self.py_impl(TransformType.Vmap)(self.vmap)
        self.py_impl(TransformType.Grad)(self.grad)
        self.py_impl(TransformType.Jvp)(self.inline)
        self.py_functionalize_impl(self.functionalize)
        register_fake(self, self.eager)

    def __call__(self, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Call the function."""
        if subgraph.__class__ is not GraphModule and not in_trace(word()):
            check_closed(self, subgraph)
        return super().__call__(subgraph, *operands, **options)

    # -- rules ----------------------------------------------------------------

    def eager(self, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Do what a call means."""
        return subgraph(*operands)

    @property
    def gives(self) -> bool:
        """Whether a call gives what the function gives; an author's `eager` may do more."""
        return type(self).eager is SubgraphOperator.eager

    @property
    def gives_as_graphs(self) -> bool:
        """Whether results share memory with operands only where those of the graph do."""
        return self.gives

    def inline(self, _: Any, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Leave a call to the function's own operators; a trace may not repeat all of them."""
        graph = getattr(word().recorder, "graph", None)
        if graph is None or not isinstance(subgraph, Recorded) or not subgraph.repeats:
            return self.eager(subgraph, *operands, **options)
        before = graph.last
        out = self.eager(subgraph, *operands, **options)
        refuse_acting(self, takewhile(lambda n: n is not before, reversed(graph.nodes)))
        return out

    def as_call(self, subgraph: Fn, options: dict[str, Any]) -> tuple[Any, Fn, dict[str, Any]]:
        """Give the operator, the function and the options of a call that calls it, and no more."""
        if self.gives:
            return self.onward, subgraph, options
        whole = remade(subgraph, partial(self.eager, subgraph, **options))
        return load("polyop.hop.wraps:wrap"), whole, {}

    def autograd(self, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Record the call as one where it is watched, else each operator of the function."""
        now = word()
        if not now & WATCHED:
            return self.eager(subgraph, *operands, **options)
        if uses(subgraph, GRAD):  # an operand that is none would lose its gradient
            return self.eager(subgraph, *operands, **options)
        tensors = [x for x in tree.leaves((operands, options)) if isinstance(x, Tensor)]
        if not now.grad or not any(t.keys & GRAD for t in tensors):
            return self.below(subgraph, operands, options)
        return self.differentiable(subgraph, operands, options)

    def below(self, subgraph: Fn, operands: Sequence[Any], options: dict[str, Any]) -> Any:
        """Call it again below autograd."""
        outer = word()
        try:
            set_word(below_autograd(outer))
            return self.onward(subgraph, *operands, **options)
        finally:
            set_word(outer)

    def trace(self, tracer: Tracer, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Record the call as one node, with the function as a graph of its own."""
        return self.record(tracer, subgraph, operands, options, pre_dispatch=False)

    def trace_before(self, mode: ProxyMode, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Record the call as one node before dispatch."""
        mode.note(word())
        return self.record(mode.tracer, subgraph, operands, options, pre_dispatch=True)

    def record(
        self, tracer: Tracer, subgraph: Fn, operands: Any, options: Any, *, pre_dispatch: bool
    ) -> Any:
        """Add the node of a call."""
        graded = any(innermost_keys(x) & (GRAD | LIFTED) for x in tree.leaves(operands))
        if isinstance(subgraph, Recorded):
            graded = not subgraph.repeats
        found = trace_subgraph(
            subgraph, operands, tracer=tracer, pre_dispatch=pre_dispatch, op=self, graded=graded
        )
        if isinstance(subgraph, Recorded):
            subgraph.check(self, found)
        else:
            refuse_lost(tracer, self, found.lifted)
        args = (found.module, *tree.leaves(operands), *found.lifted)
        return record_call(tracer, self, args, options, self.onward(*args, **options))

    def vmap(self, to: Interpreter, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Call it on the function of a batch where that is watched."""
        if not word() & WATCHED or uses(subgraph, WRAPPED):
            return self.eager(subgraph, *operands, **options)

        def act(made: Fn) -> Any:
            return batched_call(self, to, made, operands, options)

        return self.kept(subgraph, operands, act)

    def grad(self, to: Interpreter, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Record the call as one where it is watched."""
        if not word() & WATCHED or uses(subgraph, WRAPPED):
            return self.eager(subgraph, *operands, **options)
        level = to.level
        if not any(level.peel(x) is not x for x in tree.leaves((operands, options))):
            with to.lower():
                return self.onward(subgraph, *operands, **options)
        return self.differentiable(subgraph, operands, options)

    def differentiable(self, subgraph: Fn, operands: Any, options: dict[str, Any]) -> Any:
        """Call it as one step of autograd."""

        def act(made: Fn) -> Any:
            return differentiable_call(self, made, operands, options)

        return self.kept(subgraph, operands, act)

    def functionalize(
        self, ctx: FunctionalizeAPI, subgraph: Fn, /, *operands: Any, **options: Any
    ) -> Any:
        """Call it on the function that writes nothing where that is watched."""
        if not word() & WATCHED or uses(subgraph, WRAPPED):
            return self.eager(subgraph, *operands, **options)

        def act(made: Fn) -> Any:
            operands_, options_ = ctx.unwrap_tensors((operands, options))
            with ctx.redispatch_to_next():
                out = self.onward(remade(made, ctx.functionalize(made)), *operands_, **options_)
            return ctx.wrap_tensors(out)

        return self.kept(subgraph, operands, act)

    def kept(self, subgraph: Fn, operands: Sequence[Any], act: Callable[[Fn], Any]) -> Any:
        """Let a layer act on a call, and its results share memory as before."""
        told = Told(self)
        made = remade(subgraph, told.telling(subgraph)) if self.gives else subgraph
        leaves, spec = tree.flatten(act(made))
        return tree.unflatten(spec, told.joined(tree.leaves(operands), leaves))

    # -- schema ---------------------------------------------------------------

    def gen_schema(self, subgraph: Fn, /, *operands: Any, **options: Any) -> Any:
        """Give the schema of one call: its leaves, and which of them the function writes."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        leaves = tree.leaves(operands)
        given = tree.map_leaves(lambda x: _faked(mode, x), operands)
        with mode:
            found = trace_subgraph(subgraph, given, strict=False, op=self)
        made = HopSchemaGenerator(self)
        made.add_arg("subgraph", subgraph)
        for i, leaf in enumerate(leaves):
            made.add_arg(f"operand{i}", leaf, is_mutated=i in found.written)
        for name, option in options.items():
            made.add_arg(name, option, kw_only=True)
        for leaf in tree.leaves(found.result):
            made.add_output(leaf)
        return made.gen_schema()


def in_trace(now: Word) -> bool:
    """Tell whether a trace runs, which makes inputs of what a function closes over.

    A run on the fakes of a function that is traced is part of its trace, seen or not.
    """
    return bool(now & LIFTING) or (now.fake is not None and now.fake.tracer is not None)


def _faked(mode: FakeTensorMode, x: Any) -> Any:
    return mode.constant(x) if isinstance(x, Tensor) else x


def uses(subgraph: Any, bits: int) -> bool:
    """Tell whether a function closes over a tensor with some of these bits."""
    return any(t.keys & bits for _, t in free_tensors(subgraph))

"""`ControlOperator`: the rules of operators that choose, or repeat, functions.

While nothing watches, a call is Python's `if` or loop around the operators of
its functions, and every layer acts on these. A trace, a mode, or a fake gets
the call whole, in its flat form (NOTE [Flat forms]); gradients and batches
are then calls of the same operator, on functions made of the given ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from polyop import tree
from polyop.dispatch.bits import FAKE_MODE, GRAD, LIFTED, MODES, PRE_DISPATCH, TRACE, WRAPPED
from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.errors import MissingGradientError, SubgraphError
from polyop.graph.node import PLACEHOLDER
from polyop.hop.acting import of_class
from polyop.hop.forms import Form, Group, flat, graded, is_fake, refuse_parameters
from polyop.hop.functionalize_api import FunctionalizeAPI
from polyop.hop.gradient import SubgraphFunction
from polyop.hop.lifting import Lifted, free_of
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.pullbacks import Step, refuse_repeated
from polyop.hop.pushforwards import pushed
from polyop.hop.questions import refuse_lost
from polyop.hop.rules import Interpreter, below_autograd, register_fake
from polyop.hop.schema import HopSchemaGenerator
from polyop.hop.sharing import Told
from polyop.hop.subgraph import (
    Subgraph,
    fake_mode_of,
    inserting_behind,
    record_call,
    refuse_subclass,
    trace_subgraph,
)
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer, describe
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import Tensor

Groups = tuple[Group, ...]
#: Who wants the call whole.
WATCHED = TRACE | MODES | PRE_DISPATCH | FAKE_MODE


class ControlOperator(HigherOrderOperator):
    """Base of operators with several functions; a subclass says what a call is and does."""

    def __init__(self, name: str) -> None:
        super().__init__(name, cacheable=True)
        self.py_impl(DispatchKey.CompositeExplicitAutograd)(self.at_data)
        self.py_impl(DispatchKey.Autograd)(self.autograd)
        self.py_impl(Tracer)(self.trace)
        self.py_impl(ProxyMode)(self.trace_before)
        self.py_impl(TransformType.Vmap)(self.vmap)
        self.py_impl(TransformType.Grad)(self.grad)
        self.py_impl(TransformType.Jvp)(self.jvp)
        self.py_functionalize_impl(self.functionalize)
        register_fake(self, self.fake)

    # -- what a subclass says -------------------------------------------------

    def parse(self, *args: Any, **kwargs: Any) -> Form:
        """Give the form of a call, checked."""
        raise NotImplementedError

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        raise NotImplementedError

    def eager(self, form: Form) -> Any:
        """Choose or repeat, on tensors with data."""
        raise NotImplementedError

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give fake operands for each function of a flat form."""
        raise NotImplementedError

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Check what the functions gave for the samples, and give fakes of the results.

        Raises:
            SubgraphError: the functions do not fit each other.
        """
        raise NotImplementedError

    def structure(self, form: Form) -> Any:
        """Give the structure of the results, once the functions have run."""
        return form.functions[0].result  # type: ignore[attr-defined]

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Give the gradient of each leaf of a flat form."""
        raise MissingGradientError(
            f"{self} has no gradient inside a trace",
            op=self,
            fix="compute the gradient outside of the traced function, or write scan: its number "
            "of steps is known",
        )

    #: Whether the results of a call are those of a function, and share memory as they do.
    gives = False

    #: The functions that give a predicate, by place.
    predicates: frozenset[int] = frozenset()

    def moving(self, flags: Groups, groups: Groups) -> Groups:
        """Tell which operands are followed by a tangent, from which of them have one."""
        return flags

    #: A result shares memory with an operand only where one of a graph shares it with its input.
    gives_as_graphs = True

    #: Whether it is so many calls of its function, which a trace may hold instead.
    has_steps = False

    #: Whether its function, run again, draws what it drew.
    replays = False

    #: Whether `pulled` wants the results of the call, which are kept for it.
    keeps_results = False

    def pulled(self, form: Form, grads: Sequence[Any], out: Group) -> list[Any]:
        """Give the gradient of each leaf of a flat form, from the results if they are kept."""
        return self.pull(form, grads)

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Call it on the functions of a whole batch, below the vmap."""
        raise NotImplementedError

    def below(self, form: Form, level: VmapLevel) -> Any:
        """Call it on a form without a level."""
        return run_under(level.below(), self.again, form)

    # -- calls ----------------------------------------------------------------

    def enter(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a call: whole where it is watched."""
        try:
            if not word() & WATCHED:
                return super().__call__(*args, **kwargs)
            form = self.parse(*args, **kwargs)
            apart = self.has_steps and word() & (TRACE | PRE_DISPATCH)
            apart = apart and any(map(of_class, form.leaves))
            return self.eager(form) if apart else self.whole(form)
        except TypeError as error:
            refuse_parameters(self, error, self.parse(*args, **kwargs))
            raise

    def again(self, form: Form) -> Any:
        """Call it on a form."""
        args, kwargs = self.spell(form)
        return HigherOrderOperator.__call__(self, *args, **kwargs)

    def whole(self, form: Form) -> Any:
        """Call it on the flat form, and give the results their structure."""
        if form.is_flat:
            return self.again(form)
        made = self.flattened(form)
        out = self.again(made)
        return tree.unflatten(self.structure(made), out)

    def flattened(self, form: Form) -> Form:
        """Bring a call into its flat form."""
        groups = tuple(tuple(tree.leaves(group)) for group in form.groups)
        given = self.arguments(form)
        free = tuple(free_of(form.functions, GRAD | WRAPPED))
        whole = [Lifted(fn, free) if free else fn for fn in form.functions]
        fns = tuple(
            flat(self.ready(fn, name, form), tree.structure(args), name)
            for fn, args, name in zip(whole, given, self.names, strict=True)
        )
        return Form(fns, (*groups[:-1], groups[-1] + free), form.options)

    def ready(self, fn: Any, name: str, form: Form) -> Any:
        """Give what runs for a function of a form, in a call that stays whole."""
        return fn

    #: What the functions are called.
    names: tuple[str, ...] = ("the function",)

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give the trees that each function gets, as examples of their structure."""
        raise NotImplementedError

    def watched(self, form: Form) -> bool:
        """Tell whether a call stays whole."""
        return bool(word() & WATCHED) or any(map(is_fake, form.leaves))

    # -- rules ----------------------------------------------------------------

    def at_data(self, *args: Any, **kwargs: Any) -> Any:
        """Choose or repeat."""
        return self.eager(self.parse(*args, **kwargs))

    def autograd(self, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one where it is watched."""
        form = self.parse(*args, **kwargs)
        if not self.watched(form):
            return self.eager(form)
        if not form.is_flat:
            return self.whole(form)
        if word().grad and any(isinstance(x, Tensor) and x.keys & GRAD for x in form.leaves):
            return self.kept(form, self.recorded)
        return run_under(below_autograd(word()), self.again, form)

    def grad(self, to: Interpreter, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one where it is watched."""
        return self._at_level(to, self.recorded, *args, **kwargs)

    def jvp(self, to: Interpreter, *args: Any, **kwargs: Any) -> Any:
        """Call it on tensors and their tangents where that is watched."""
        return self._at_level(to, lambda form: pushed(self, form, to.level), *args, **kwargs)

    def _at_level(
        self, to: Interpreter, act: Callable[[Form], Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        form = self.parse(*args, **kwargs)
        if not self.watched(form):
            return self.eager(form)
        if not form.is_flat:
            return self.whole(form)
        if any(innermost_level_is(x, to.level) for x in form.leaves):
            return self.kept(form, act)
        with to.lower():
            return self.again(form)

    def kept(self, form: Form, act: Callable[[Form], Group]) -> Group:
        """Let a layer act on a call in its flat form, and its results share memory as before."""
        if not self.gives:
            return act(form)
        told = Told(self)
        fns = tuple(fn.remade(told.telling(fn)) for fn in form.functions)  # type: ignore[attr-defined]
        out = act(form._replace(functions=fns))
        return tuple(told.joined(tree.leaves(self.arguments(form)[0]), out))

    def recorded(self, form: Form) -> Group:
        """Call it as one step of autograd."""
        found: Group = SubgraphFunction.apply(Step(self, form), *form.leaves)
        return found

    def fake(self, *args: Any, **kwargs: Any) -> Any:
        """Run the functions once each on fakes."""
        form = self.parse(*args, **kwargs)
        if not form.is_flat:
            return self.whole(form)
        mode = word().fake
        samples = self.samples(form, mode)
        results = [fn(*given) for fn, given in zip(form.functions, samples, strict=True)]
        return self.outcome(form, results, mode)

    def trace(self, tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one node, with its functions as graphs of their own."""
        return self.record(tracer, self.parse(*args, **kwargs), pre_dispatch=False)

    def trace_before(self, mode: ProxyMode, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one node before dispatch."""
        mode.note(word())
        return self.record(mode.tracer, self.parse(*args, **kwargs), pre_dispatch=True)

    def record(self, tracer: Tracer, form: Form, *, pre_dispatch: bool) -> Any:
        """Add the node of a call in its flat form."""
        found = fake_mode_of(form.leaves)
        mode = found or FakeTensorMode(
            allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True
        )
        graphs = self.graphs(tracer, form, mode, pre_dispatch=pre_dispatch)
        lifted = graphs[-1].lifted
        refuse_lost(tracer, self, () if graded(form) else lifted)
        for fn, graph in zip(form.functions, graphs, strict=True):
            fn.used += [x for x in lifted if isinstance(x, Tensor)]  # type: ignore[attr-defined]
            if fn.recorded:  # type: ignore[attr-defined]
                self.check_lifted(lifted)
            if fn.repeats:  # type: ignore[attr-defined]
                refuse_repeated(self, graph.module)
        given = run_under(word().but(fake=mode), self.outcome, form, _results(graphs), mode)
        modules = tuple(g.module for g in graphs)
        made = Form(modules, (*form.groups[:-1], form.groups[-1] + lifted), form.options)
        args, kwargs = self.spell(made)
        result = given if found is not None else self.again(made)
        return record_call(tracer, self, args, kwargs, result)

    def graphs(
        self, tracer: Tracer | None, form: Form, mode: FakeTensorMode, *, pre_dispatch: bool = False
    ) -> list[Subgraph]:
        """Trace the functions; all get what any of them uses of its surroundings."""
        for x in form.leaves:
            if isinstance(x, Tensor):
                refuse_subclass(self, x)
        made: list[Subgraph] = []
        trace = partial(
            trace_subgraph, tracer=tracer, pre_dispatch=pre_dispatch, op=self, graded=graded(form)
        )
        samples = run_under(word().but(fake=mode), self.samples, form, mode)
        for fn, given in zip(form.functions, samples, strict=True):
            made.append(trace(fn, given, free=made[-1].lifted if made else ()))
        for graph in made[:-1]:
            add_unused(graph, made[-1].lifted)
        return made

    def check_lifted(self, lifted: Sequence[Any]) -> None:
        """Refuse tensors that require grad and are no operands: their gradient would be lost."""
        for x in lifted:
            if isinstance(x, Tensor) and x.keys & (GRAD | LIFTED):
                raise SubgraphError(
                    f"a function of {self} uses a tensor that requires grad and is no operand",
                    op=self,
                    seen=f"shape {tuple(x.shape)}",
                    fix="pass it as an operand",
                )

    def vmap(self, to: Interpreter, *args: Any, **kwargs: Any) -> Any:
        """Call it on the functions of a batch where that is watched."""
        form = self.parse(*args, **kwargs)
        if not self.watched(form):
            return self.eager(form)
        if not form.is_flat:
            return self.whole(form)
        if all(peel(x, to.level)[1] is None for x in form.leaves):
            with to.lower():
                return self.again(form)
        return self.kept(form, lambda form: self.batch(form, to.level))

    def functionalize(self, ctx: FunctionalizeAPI, *args: Any, **kwargs: Any) -> Any:
        """Call it on functions that write nothing where that is watched."""
        form = self.parse(*args, **kwargs)
        if not self.watched(form):
            return self.eager(form)
        if not form.is_flat:
            return self.whole(form)

        def act(form: Form) -> Group:
            fns = tuple(fn.remade(ctx.functionalize(fn)) for fn in form.functions)  # type: ignore[attr-defined]
            made = form._replace(functions=fns).given(ctx.unwrap_tensors(form.leaves))
            with ctx.redispatch_to_next():
                out = self.again(made)
            wrapped: Group = ctx.wrap_tensors(out)
            return wrapped

        return self.kept(form, act)

    # -- schema ---------------------------------------------------------------

    def gen_schema(self, *args: Any, **kwargs: Any) -> Any:
        """Give the schema of one call: its functions, the leaves of its operands, its options."""
        form = self.parse(*args, **kwargs)
        if not form.is_flat:
            form = self.flattened(form)
        mode = fake_mode_of(form.leaves) or FakeTensorMode(
            allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True
        )
        given = run_under(
            word().but(fake=mode),
            lambda: self.outcome(form, _results(self.graphs(None, form, mode)), mode),
        )
        made = HopSchemaGenerator(self)
        for i, fn in enumerate(form.functions):
            made.add_arg(f"function{i}", fn)
        for i, leaf in enumerate(form.leaves):
            made.add_arg(f"operand{i}", leaf)
        for name, option in form.options.items():
            made.add_arg(name, option, kw_only=True)
        for leaf in given:
            made.add_output(leaf)
        return made.gen_schema()


def _results(graphs: Sequence[Subgraph]) -> list[Group]:
    return [g.result for g in graphs]


def innermost_level_is(value: Any, level: Any) -> bool:
    """Tell whether a value is a tensor of a level."""
    return level.peel(value) is not value


def add_unused(graph: Subgraph, lifted: Sequence[Any]) -> None:
    """Add inputs for what only the other functions use."""
    missing = lifted[len(graph.lifted) :]
    if not missing:
        return
    inner = graph.module.graph
    behind = inner.placeholders[-1] if inner.placeholders else inner.root
    for i, value in enumerate(missing):
        with inserting_behind(inner, behind):
            name = f"free{len(graph.lifted) + i}"
            behind = inner.create_node(PLACEHOLDER, name, val=value_of(value))
    graph.module.recompile()


def value_of(value: Any) -> Any:
    """Give what a node keeps of an operand."""
    return describe(value) if isinstance(value, Tensor) else value

"""`auto_functionalized` and its second form: a call that writes, as one that writes nothing.

Both give the results of the operator, then new values: of the written
arguments, or of the bases that these are views of. They are for programs:
a trace has one node for a call, and passes may turn that into the write again
(`hop/defunctionalize.py`). Whatever looks at the tensors themselves, gradients
and batches above all, gets the operator's functional twin instead, whose rules
are known; so a node says the same as the twin, and never more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import WRAPPED
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator
from polyop.errors import UsageError
from polyop.graph.purity import is_impure_target
from polyop.hop.bases import BASES, CLONED, View, as_list, read
from polyop.hop.functionalize_api import FunctionalizeAPI
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.rules import AutogradKernel, Interpreter, register_fake
from polyop.hop.subgraph import fake_mode_of, record_call, trace_subgraph
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.functionalize.twin import without
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.ops.rounding import clone
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor

WRITABLE = frozenset({"tensor", "tensor?", "tensor[]", "tensor?[]"})


def can_auto_functionalize(op: Any) -> bool:
    """Tell whether calls of an operator have a form that writes nothing (S173).

    Args:
        op: an operator in any form, or a higher-order operator.
    """
    return not refusal(_found(op))


def _found(op: Any) -> Any:
    return op if isinstance(op, HigherOrderOperator) else as_operator(op)


def refusal(op: Any) -> str:
    """Say why an operator has no such form; nothing, if it has one."""
    if isinstance(op, HigherOrderOperator):
        return "" if op.has_schema else "it has no gen_schema, which says what a call writes"
    schema = op._schema
    if op.is_builtin:
        return "it is built in, and has a functional form by itself"
    if not schema.is_mutable:
        return "it writes nothing"
    if not all(leaf_kind(a.type) in WRITABLE for a in schema.written):
        return "it writes something else than Tensors and lists of them"
    own = DispatchKey.Functionalize
    if op.has_kernel_for_dispatch_key(own) or TransformType.Functionalize in op.functorch_table:
        return "it has a kernel of its own at Functionalize"
    return ""


class AutoFunctionalized(HigherOrderOperator):
    """Calls an operator on copies of what it writes: `auto_functionalized(op, **kwargs)`.

    Args:
        op: an overload, or a higher-order operator with `gen_schema`.
        kwargs: its arguments, by name.

    Returns:
        Its results (None, if it has none), then the new value of each written argument.

    Raises:
        UsageError: `can_auto_functionalize(op)` is false.

    Example:
        >>> import polyop
        >>> @polyop.custom_op("readme::halve", mutates_args={"x"})
        ... def halve(x: polyop.Tensor) -> None:
        ...     x.numpy()[...] /= 2
        >>> x = polyop.ones(2)
        >>> polyop.ops.higher_order.auto_functionalized(halve, x=x), x
        ((None, tensor([0.5, 0.5])), tensor([1., 1.]))
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, cacheable=True)
        self.py_impl(DispatchKey.CompositeExplicitAutograd)(self.run)
        self.py_impl(DispatchKey.Autograd)(AutogradKernel(self, self.by_twin))
        self.py_impl(Tracer)(self.trace)
        self.py_impl(ProxyMode)(self.trace_before)
        for transform in (TransformType.Vmap, TransformType.Grad, TransformType.Jvp):
            self.py_impl(transform)(self.transformed)
        self.py_functionalize_impl(self.functionalize)
        register_fake(self, self.run, skip_cache=True)

    def __call__(self, op: Any, /, **kwargs: Any) -> Any:
        """Call it.

        Raises:
            UsageError: the operator has no such form.
        """
        found = _found(op)
        why = refusal(found)
        if why:
            raise UsageError(
                f"{found} cannot be functionalized by {self}: {why}",
                op=getattr(found, "_schema", found),
                source=getattr(found, "source", ""),
                fix="call it as it is: functionalize knows what to do with it",
            )
        return super().__call__(found, **kwargs)

    # -- what a call does -----------------------------------------------------

    def run(self, op: Any, /, **kwargs: Any) -> Any:
        """Copy what is written, and call the operator."""
        if isinstance(op, HigherOrderOperator):
            return _run_hop(op, kwargs)
        return self.by_twin(op, **kwargs)

    def by_twin(self, op: Any, /, **kwargs: Any) -> Any:
        """Call the functional twin, with all layers that are active."""
        if isinstance(op, HigherOrderOperator):
            return _run_hop(op, kwargs)
        results, news = twin_results(op, kwargs)
        return (*results, *news)

    # -- rules ----------------------------------------------------------------

    def transformed(self, to: Interpreter, op: Any, /, **kwargs: Any) -> Any:
        """Leave a call on tensors of a transform to the twin."""
        leaves = [x for x in tree.leaves(kwargs) if isinstance(x, Tensor)]
        if any(x.keys & WRAPPED and x.payload.level is to.level for x in leaves):
            return self.by_twin(op, **kwargs)
        with to.lower():
            return self(op, **kwargs)

    def functionalize(self, ctx: FunctionalizeAPI, op: Any, /, **kwargs: Any) -> Any:
        """Call it on current values: it writes nothing."""
        given = ctx.unwrap_tensors(kwargs)
        with ctx.redispatch_to_next():
            result = self(op, **given)
        return ctx.wrap_tensors(result)

    def trace(self, tracer: Tracer, op: Any, /, **kwargs: Any) -> Any:
        """Record the call as one node."""
        given = _with_graphs(tracer, op, kwargs)
        return record_call(tracer, self, (op,), given, self(op, **given))

    def trace_before(self, mode: ProxyMode, op: Any, /, **kwargs: Any) -> Any:
        """Record the call as one node before dispatch."""
        out = self.trace(mode.tracer, op, **kwargs)
        mode.note(word())
        return out

    # -- what passes ask ------------------------------------------------------

    def is_impure_call(self, node: Any) -> bool:
        """Tell whether a call must stay: where the operator does more than write."""
        op = node.args[0]
        if isinstance(op, OpOverload):
            return Tag.nondeterministic_seeded in op.tags or op.rule("effect") is not None
        return is_impure_target(op)

    def aliased_inputs(self, node: Any) -> Sequence[Any]:
        """Give the inputs whose memory the results may be."""
        return ()


class AutoFunctionalizedV2(AutoFunctionalized):
    """Calls an operator on views of copied bases: `auto_functionalized_v2(op, **kwargs)`.

    Args:
        op: an overload that writes.
        kwargs: its arguments by name, `_all_bases`, and for each written argument how it is
            made of a base (`hop/bases.py`); `_only_clone_these_bases` names by number those
            that are copied, by default all.

    Returns:
        Its results (None, if it has none), then the new value of each base. An operator with
        `Tag.out` and no bases gives what it gives by itself.

    Raises:
        UsageError: `can_auto_functionalize(op)` is false.
        ArgumentError: an argument is missing or unknown.
    """

    def __call__(self, op: Any, /, **kwargs: Any) -> Any:
        """Call it."""
        if isinstance(op, HigherOrderOperator):
            raise UsageError(
                f"{self} takes an overload, and {op} is a higher-order operator",
                op=op,
                fix="use auto_functionalized",
            )
        return super().__call__(op, **kwargs)

    def run(self, op: Any, /, **kwargs: Any) -> Any:
        """Copy the bases, take the views, and call the operator."""
        call = read(op, op._schema, kwargs)
        bases = [clone(b) if i in call.cloned else b for i, b in enumerate(call.bases)]
        given = call.arguments(bases)
        results = results_of(op, op(**given))
        for i, (kind, position) in enumerate(result_forms(op._schema)):
            view = call.views.get(op._schema.arguments[position].name) if position >= 0 else None
            if kind == "argument" and isinstance(view, View):
                whole = view.kind in {"whole", "alias"}
                results[i] = bases[view.base] if whole else clone(results[i])
            elif kind in {"view", "views"}:
                results[i] = tree.map_leaves(_copied, results[i])
        return self._given(op, results, bases)

    def by_twin(self, op: Any, /, **kwargs: Any) -> Any:
        """Call the twin on views, and put the new values back into the bases."""
        call = read(op, op._schema, kwargs)
        if not call.apart:
            return self.run(op, **kwargs)
        results, news = twin_results(op, call.arguments(call.bases))
        bases = list(call.bases)
        for argument, new in zip(op._schema.written, news, strict=True):
            specs = as_list(call.views.get(argument.name))
            for view, value in zip(specs, as_list(new), strict=True):
                if isinstance(view, View):
                    bases[view.base] = view.put(bases[view.base], value)
        return self._given(op, results, bases)

    def _given(self, op: Any, results: list[Any], bases: list[Any]) -> Any:
        if Tag.out in op.tags and not bases:
            return results[0] if len(results) == 1 else tuple(results)
        return (*results, *bases)

    def is_impure_call(self, node: Any) -> bool:
        """Tell whether a call must stay, or writes a base."""
        return bool(self.aliased_inputs(node)) or super().is_impure_call(node)

    def aliased_inputs(self, node: Any) -> Sequence[Any]:
        """Give the bases that are written as they are."""
        only = node.kwargs.get(CLONED)
        bases = node.kwargs[BASES]
        return () if only is None else [b for i, b in enumerate(bases) if i not in only]


# -- results ------------------------------------------------------------------


def results_of(op: OpOverload, out: Any) -> list[Any]:
    """Give results as a list, with None for none."""
    return list(out) if len(op._schema.returns) > 1 else [out]


def twin_results(op: OpOverload, kwargs: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Call the twin, and give the operator's results, and the new values."""
    twin = op.functional
    found = results_of(twin, twin(**kwargs))
    forms = result_forms(op._schema)
    count = len(without(forms))
    fresh, news = iter(found[:count]), found[count:]
    written = [i for i, a in enumerate(op._schema.arguments) if a.is_write]
    of = dict(zip(written, news, strict=True))
    results = [of[i] if kind == "argument" else next(fresh) for kind, i in forms]
    return results or [None], news


def _copied(value: Any) -> Any:
    return clone(value) if isinstance(value, Tensor) else value


# -- higher-order operators ---------------------------------------------------


def hop_call(
    hop: HigherOrderOperator, kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Give a call by place and by name, and the names of what it writes.

    Raises:
        UsageError: the names are not those of the operator's schema.
    """
    names, values = list(kwargs), list(kwargs.values())
    for count in range(len(names), -1, -1):
        rest = dict(zip(names[count:], values[count:], strict=True))
        try:
            schema = hop.gen_schema(*values[:count], **rest)
        except TypeError:  # an option in the place of an operand
            continue
        if [a.name for a in schema.arguments] == names:
            return values[:count], rest, [a.name for a in schema.written]
    raise UsageError(
        f"the arguments are not named as {hop} names them",
        op=hop,
        seen=", ".join(names),
        source=hop.source,
        fix="use the names, and the order, of the schema that its gen_schema gives",
    )


def _run_hop(hop: HigherOrderOperator, kwargs: Mapping[str, Any]) -> Any:
    places, rest, written = hop_call(hop, kwargs)
    given = dict(zip(kwargs, places, strict=False)) | rest
    copies = {name: _copied(given[name]) for name in written}
    given |= copies
    out = hop(*[given[n] for n in list(kwargs)[: len(places)]], **{n: given[n] for n in rest})
    results = list(out) if isinstance(out, (tuple, list)) else [out]
    return (*results, *copies.values())


def _with_graphs(tracer: Tracer, op: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments with graphs for functions, which take what these close over."""
    if not isinstance(op, HigherOrderOperator):
        return dict(kwargs)
    given, operands = dict(kwargs), [v for v in kwargs.values() if not callable(v)]
    # On fakes: the function writes, and what it is traced on is the caller's.
    mode = fake_mode_of(tree.leaves(operands)) or FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.constant(x) if isinstance(x, Tensor) else x for x in operands]
    for name, value in kwargs.items():
        if callable(value):
            found = run_under(
                word().but(fake=mode), trace_subgraph, value, fakes, tracer=tracer, strict=False,
                op=op,
            )  # fmt: skip
            if found.lifted:
                raise UsageError(
                    f"a function given to {op} uses tensors that are no operands",
                    op=op,
                    argument=name,
                    source=found.source,
                    fix="pass them as operands",
                )
            given[name] = found.module
    return given


auto_functionalized = AutoFunctionalized("auto_functionalized")
auto_functionalized_v2 = AutoFunctionalizedV2("auto_functionalized_v2")

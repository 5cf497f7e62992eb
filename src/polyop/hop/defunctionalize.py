"""Programs that write nothing become programs that write again, what they made themselves.

A call of `auto_functionalized`, of its second form, or of a functional twin
becomes copies and a call of the operator that writes; then copies of what
nobody needs any more are taken out (`graph/overwriting.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, OUTPUT
from polyop.graph.overwriting import Writers
from polyop.graph.overwriting import reinplace as reinplace_graph
from polyop.graph.passes import substitute
from polyop.hop.auto_functionalize import auto_functionalized, auto_functionalized_v2
from polyop.hop.bases import Fresh, View, as_list, read
from polyop.layers.functionalize.twin import mutable_of, without
from polyop.ops.define import operator_of
from polyop.ops.inplace import INPLACE_TWINS, copy_
from polyop.ops.rounding import clone
from polyop.ops.view_inverses import diagonal_scatter, select_scatter, slice_scatter
from polyop.ops.views import diagonal, inverse_order, permute_dims, select, slice_axis
from polyop.tensor.meta import META_SPACE, Meta, normal_strides

EMPTY = DEFINITIONS["core::empty"].op

#: What stands for the result of a node: nodes and constants, in any nesting.
Result = Any


def reinplace(module: GraphModule) -> int:
    """Let a program write its own memory again, and count the copies and results saved.

    It is for programs that run without gradients: these need old values.

    Args:
        module: it is changed in place; its inputs and attributes are written only where
            they were before.

    Example:
        >>> import polyop
        >>> from polyop.graph import make_fx
        >>> program = make_fx(lambda x: (x + 1) * 2, "fake")(polyop.ones(3))
        >>> reinplace(program)
        1
        >>> print(program.graph)
        graph(x: f32[3]):
            add: f32[3] = core.add.Scalar(x, 1)
            multiply_: f32[3] = core.multiply_.Scalar(add, 2)
            return multiply_
    """
    # Calls on bases first: they say which bases they copy, and then become copies.
    saved = reinplace_graph(module.graph, writers())
    if decompose_auto_functionalized(module):
        saved += reinplace_graph(module.graph, writers())
    module.recompile()
    return saved


@cache
def writers() -> Writers:
    """Give the operators that may stand for others."""
    return Writers(
        operator_of(clone),
        operator_of(copy_),
        {twin: DEFINITIONS[name].op for name, twin in INPLACE_TWINS.items()},
        {
            operator_of(scatter): operator_of(view)
            for scatter, view in (
                (slice_scatter, slice_axis),
                (select_scatter, select),
                (diagonal_scatter, diagonal),
            )
        },
    )


def decompose_auto_functionalized(module: GraphModule) -> int:
    """Turn functionalized calls into copies and calls that write, and count the calls.

    Args:
        module: it is changed in place.
    """
    done = 0
    graph = module.graph
    for node in graph.nodes:
        make = maker_for(node)
        if make is not None:
            with graph.inserting_before(node):
                result = make(Builder(graph), node)
            put_instead(node, result)
            done += 1
    module.recompile()
    return done


def maker_for(node: Node) -> Callable[[Builder, Node], Result] | None:
    """Give the function that makes a node again, if it is a functionalized call."""
    if node.op != CALL_FUNCTION:
        return None
    if node.target is auto_functionalized and isinstance(node.args[0], OpOverload):
        return _from_copies
    if node.target is auto_functionalized_v2:
        # A graph has no words for a view inside a record: a call with one copies, and stays.
        return None if any(name.endswith("_leaves") for name in node.kwargs) else _from_bases
    return _from_twin if mutable_of(node.target) is not None else None


def _from_copies(to: Builder, node: Node) -> Result:
    op, given = node.args[0], dict(node.kwargs)
    news = [to.copied(given.get(a.name)) for a in op._schema.written]
    given |= dict(zip([a.name for a in op._schema.written], news, strict=True))
    return (*to.call(op, given, node.val), *news)


def _from_twin(to: Builder, node: Node) -> Result:
    op = mutable_of(node.target)
    assert op is not None
    names = [a.name for a in op._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    written = [a.name for a in op._schema.written]
    news = [to.copied(given.get(name)) for name in written]
    forms = result_forms(op._schema)
    kept = without(forms)
    vals = node.val if len(kept) + len(news) > 1 else (node.val,)
    of = dict(zip(written, vals[len(kept) :], strict=True))
    fresh = iter(vals)
    val = [of[names[i]] if kind == "argument" else next(fresh) for kind, i in forms]
    results = to.call(op, given | dict(zip(written, news, strict=True)), val)
    done = (*(results[i] for i in kept), *news)
    return done if len(done) > 1 else done[0]


def _from_bases(to: Builder, node: Node) -> Result:
    op = node.args[0]
    call = read(op, op._schema, node.kwargs)
    bases = [to.copied(b) if i in call.cloned else b for i, b in enumerate(call.bases)]
    given = dict(call.plain)
    for name, spec in call.views.items():
        made = [to.taken(s, bases) for s in as_list(spec)]
        given[name] = made if isinstance(spec, list) else made[0]
    bare = not bases and len(op._schema.returns) == 1
    results = to.call(op, given, (node.val,) if bare else node.val)
    for i, (kind, position) in enumerate(result_forms(op._schema)):
        view = call.views.get(op._schema.arguments[position].name) if kind == "argument" else None
        if isinstance(view, View):
            whole = view.kind in {"whole", "alias"}
            results[i] = bases[view.base] if whole else to.copied(results[i])
    return results[0] if bare else (*results, *bases)


class Builder:
    """Adds nodes to a graph, with what is known of their results."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def node(self, op: OpOverload, args: tuple[Any, ...], val: Any) -> Node:
        """Add a call."""
        return self.graph.create_node(CALL_FUNCTION, op, args, val=val)

    def derived(self, entry: Any, *args: Any) -> Node:
        """Add a call of an operator of one tensor, whose result is described by its rule."""
        op = operator_of(entry)
        first = args[0].val
        val = op.rule("meta")(first, *args[1:]) if isinstance(first, Meta) else None
        return self.node(op, args, val)

    def copied(self, value: Any) -> Any:
        """Copy a tensor, or each in a list."""
        if isinstance(value, list):
            return [self.copied(x) for x in value]
        return self.derived(clone, value) if isinstance(value, Node) else value

    def taken(self, spec: View | Fresh | None, bases: list[Any]) -> Any:
        """Make an argument as it is said."""
        if isinstance(spec, View):
            return self._view(spec, bases[spec.base])
        if spec is None:
            return None
        order = spec.order
        size = [spec.size[i] for i in order]
        kwargs = {"dtype": spec.dtype, "device": spec.device}
        val = META_SPACE.meta(tuple(size), spec.dtype, None, spec.device)
        made = self.graph.create_node(CALL_FUNCTION, EMPTY, (size,), kwargs, val=val)
        in_order = order == sorted(order)
        return made if in_order else self.derived(permute_dims, made, inverse_order(order))

    def _view(self, spec: View, base: Node) -> Node:
        if spec.kind == "whole":
            return base
        if spec.kind != "strided":
            return self.derived(spec.operator, base, *spec.place, *spec.more)
        size, stride, _ = spec.place
        val = None
        if isinstance(base.val, Meta):
            strides = normal_strides(tuple(size), stride)
            val = base.val.space.meta(tuple(size), base.val.dtype, strides, base.val.device)
        return self.node(spec.operator, (base, *spec.place), val)

    def call(self, op: OpOverload, given: Mapping[str, Any], val: Any) -> list[Any]:
        """Call an operator that writes, and give its results, with None for none."""
        places = [a.name for a in op._schema.positional]
        n = next((i for i, name in enumerate(places) if name not in given), len(places))
        args = tuple(given[name] for name in places[:n])
        rest = {k: v for k, v in given.items() if k not in places[:n]}
        node = self.graph.create_node(CALL_FUNCTION, op, args, rest)
        count = len(op._schema.returns)
        if count <= 1:
            node.val = val[0] if count else None
            found = [node if count else None]
        else:
            node.val = tuple(val[:count])
            found = [self._item(node, i) for i in range(count)]
        # What is declared a view would be memory of its own in the call that wrote nothing.
        views = [kind in {"view", "views"} for kind, _ in result_forms(op._schema)]
        return [
            self.copied(x) if view else x for x, view in zip(found, [*views, False], strict=False)
        ]

    def _item(self, node: Node, i: int) -> Node:
        return self.graph.create_node(CALL_FUNCTION, operator.getitem, (node, i), val=node.val[i])


def put_instead(node: Node, result: Result) -> None:
    """Let the readers of a node read what stands for its result, and take it out."""
    for user in list(node.users):
        if isinstance(result, (tuple, list)) and _is_item(user, node):
            put_instead(user, result[user.args[1]])
        else:
            substitute(user, {node: result})
    node.graph.erase_node(node)


def _is_item(user: Node, node: Node) -> bool:
    return user.op != OUTPUT and user.target is operator.getitem and user.args[0] is node

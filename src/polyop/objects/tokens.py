"""Tokens in programs: the order of effects as data, put in and taken out by two passes (S190).

A program with tokens takes one per effect type in front of its inputs, and gives
`(token, ..., result)`. So `compile` hands graphs to backends, which may order calls by
their data alone; what is traced or exported has none: there the order of the nodes is
the order of effects, and no pass changes it.
"""

from __future__ import annotations

import operator
from typing import Any

from polyop.devices import DTYPES
from polyop.dispatch.operator import OpOverload
from polyop.errors import SubgraphError
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, PLACEHOLDER
from polyop.graph.purity import has_impure_subgraph
from polyop.graph.text import line_of
from polyop.objects.calls import with_effects
from polyop.objects.effects import EffectType, effect_of_target, unpacked
from polyop.tensor.meta import META_SPACE


def add_tokens(module: GraphModule) -> tuple[EffectType, ...]:
    """Make the order of effects a matter of data, in place.

    Args:
        module: a captured program without tokens.

    Returns:
        The effect types, in the order of the tokens among inputs and results.

    Raises:
        SubgraphError: the program has tokens already.
    """
    for node in module.graph.nodes:
        if node.op == CALL_FUNCTION and node.target is with_effects:
            raise SubgraphError(
                "the program has tokens already",
                seen=line_of(node),
                fix="take them out first: remove_tokens(program)",
            )
    return chain_effects(module)


def chain_effects(module: GraphModule) -> tuple[EffectType, ...]:
    """Add tokens in place, to calls of `with_effects` that the program makes itself as well."""
    graph = module.graph
    ordered: dict[EffectType, list[Node]] = {}
    for node in graph.nodes:
        effect = _effect_of(node)
        if effect is not None:
            ordered.setdefault(effect, []).append(node)
    if not ordered:
        return ()
    last = {effect: _token_input(graph, i, effect) for i, effect in enumerate(ordered)}
    for effect, nodes in ordered.items():
        for node in nodes:
            last[effect] = _put_in(graph, node, last[effect])
    output = graph.output_node
    assert output is not None
    output.set_args(((*last.values(), output.args[0] if output.args else None),))
    module.recompile()
    return tuple(ordered)


def _effect_of(node: Node) -> EffectType | None:
    """Give the effect type of a call; what a subgraph does is done by the call that has it."""
    if node.op != CALL_FUNCTION:
        return None
    target, depth = node.target, 1
    while target is with_effects:
        target, depth = node.args[depth], depth + 2
    # A call that the program itself puts behind a token keeps its place, whatever it does.
    impure = depth > 1 or has_impure_subgraph(node)
    return effect_of_target(target) or (EffectType.ORDERED if impure else None)


def _token_input(graph: Graph, position: int, effect: EffectType) -> Node:
    """Add the input for a token, in front of the others."""
    others = [node for node in graph.nodes if node.op == PLACEHOLDER]
    at = others[position] if position < len(others) else next(iter(graph.nodes))
    with graph.inserting_before(at):
        made = graph.create_node(PLACEHOLDER, "token", name=f"token_{effect.value}")
    made.val = TOKEN
    return made


#: What is known of a token.
TOKEN = META_SPACE.meta((0,), DTYPES["float32"])


def _put_in(graph: Graph, node: Node, token: Node) -> Node:
    """Let a call go through `with_effects`, and give the token that it makes."""
    results = unpacked(node.target, node.val)
    with graph.inserting_before(node):
        call = graph.create_node(
            CALL_FUNCTION, with_effects, (token, node.target, *node.args), node.kwargs
        )
        made = _item(graph, call, 0, TOKEN)
        call.val = (TOKEN, *results)
    if hasattr(node, "source"):
        call.source = node.source
    _hand_over(graph, node, call, len(results))
    graph.erase_node(node)
    return made


def _hand_over(graph: Graph, node: Node, call: Node, count: int) -> None:
    """Let what reads the results of a call read them behind the token."""
    row = isinstance(node.val, tuple) and not _is_single(node.target, ())
    if row and count > 1:
        _shift_items(node, call)
    if node.users:
        with graph.inserting_before(node):
            # A row of one is read as a slice, which tells it from a result that is no row.
            whole = _item(graph, call, slice(1, None) if row else 1, node.val)
        node.replace_all_uses_with(whole)


def _item(graph: Graph, call: Node, key: Any, val: Any) -> Node:
    return graph.create_node(CALL_FUNCTION, operator.getitem, (call, key), val=val)


def _shift_items(node: Node, call: Node) -> None:
    for user in list(node.users):
        if _reads_item(user, node):
            user.set_args((call, user.args[1] + 1))


def _reads_item(user: Node, node: Node) -> bool:
    key = user.args[1] if user.target is operator.getitem else None
    return type(key) is int and key >= 0 and user.args[0] is node


# -- and out again ------------------------------------------------------------


def remove_tokens(module: GraphModule) -> int:
    """Take the tokens out of a program, in place; the order of its nodes keeps that of effects.

    Returns:
        How many chains there were.

    Raises:
        SubgraphError: a token is used for something else.
    """
    graph = module.graph
    calls = [n for n in graph.nodes if n.op == CALL_FUNCTION and n.target is with_effects]
    if not calls:
        return 0
    made = set(calls)
    inputs = [n for n in graph.placeholders if _is_token(n, made)]
    _strip_output(graph, made, inputs)
    for call in calls:
        _take_out(graph, call)
    for node in inputs:
        graph.erase_node(node)
    module.recompile()
    return len(inputs)


def _is_token(node: Node, calls: set[Node]) -> bool:
    """Tell whether a value goes into a call, or a result, as a token."""
    return any(user in calls and user.args[0] is node for user in node.users)


def _strip_output(graph: Graph, calls: set[Node], inputs: list[Node]) -> None:
    output = graph.output_node
    assert output is not None
    found = output.args[0] if output.args else None
    tokens = found[:-1] if isinstance(found, tuple) else ()
    made = [n for n in tokens if n in inputs or _is_made(n, calls)]
    if not len(inputs) == len(tokens) == len(made):
        raise SubgraphError(
            "the program does not give its tokens in front of its result",
            declared=f"({len(inputs)} tokens, result)",
            seen=line_of(output),
            fix="give programs that add_tokens made",
        )
    output.set_args(((found or (None,))[-1],))


def _is_made(value: Any, calls: set[Node]) -> bool:
    """Tell whether a value is the token that a call gives."""
    if not isinstance(value, Node) or value.target is not operator.getitem:
        return False
    return value.args[0] in calls and type(value.args[1]) is int and value.args[1] == 0


def _take_out(graph: Graph, call: Node) -> None:
    """Call the operator itself in the place of `with_effects`."""
    token, target, *args = call.args
    row = call.val[1:] if isinstance(call.val, tuple) else ()
    keys = [user.args[1] for user in call.users if user.target is operator.getitem]
    single = _is_single(target, row) and not any(isinstance(key, slice) for key in keys)
    with graph.inserting_before(call):
        node = graph.create_node(CALL_FUNCTION, target, tuple(args), call.kwargs)
    node.val = row[0] if single and row else (row or None)
    if hasattr(call, "source"):
        node.source = call.source
    for user in list(call.users):
        key = user.args[1] if user.target is operator.getitem else None
        if key == 0 and type(key) is int:
            _drop_token(graph, user, token)
        elif single or isinstance(key, slice):
            user.replace_all_uses_with(node)
            graph.erase_node(user)
        elif type(key) is int:
            user.set_args((node, key - 1))
        else:
            _misused(user)
    graph.erase_node(call)


def _is_single(target: Any, row: Any) -> bool:
    """Tell whether a call gives its result as it is, and no row of them."""
    if isinstance(target, OpOverload):
        return len(target._schema.returns) == 1
    return len(row) == 1


def _drop_token(graph: Graph, token: Node, before: Any) -> None:
    """Let the next call of the chain take the token from before this one."""
    for user in list(token.users):
        if user.target is not with_effects or user.args[0] is not token:
            _misused(user)
        user.set_args((before, *user.args[1:]))
    graph.erase_node(token)


def _misused(node: Node) -> None:
    raise SubgraphError("a token is used for something else than order", seen=line_of(node))


__all__ = ["add_tokens", "remove_tokens"]

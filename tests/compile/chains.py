"""Operators with effects of two types, and backends that know nothing but data flow."""

from __future__ import annotations

import random
from typing import Any

import polyop
from polyop.graph import Graph, GraphModule, Node
from polyop.library import EffectType
from polyop.objects import with_effects

Tensor = polyop.Tensor

#: A type of effects beside the public one, to see that chains do not touch each other.
OTHER = object.__new__(EffectType)
OTHER._name_, OTHER._value_ = "OTHER", "other"

#: What operators did, by the type of their effect.
LOGS: dict[EffectType, list[tuple[str, float]]] = {EffectType.ORDERED: [], OTHER: []}


def effectful(name: str, effect: EffectType) -> Any:
    """Make an operator with an effect, whose gradient has one too."""

    def act(x: Tensor, text: str) -> Tensor:
        LOGS[effect].append((text, round(float(x.numpy().sum()), 3)))
        return x * 1

    op = polyop.custom_op(f"t_chains::{name}", act, mutates_args=())
    op.register_fake(lambda x, text: x.new_empty(x.shape))
    op.register_autograd(
        lambda ctx, g: (op(g, f"back {ctx.text}"), None),
        setup_context=lambda ctx, inputs, output: setattr(ctx, "text", inputs[1]),
    )
    op.register_effect(effect)
    return op


note = effectful("note", EffectType.ORDERED)
tick = effectful("tick", OTHER)


@polyop.custom_op("t_chains::tell", mutates_args=())
def tell(x: Tensor, text: str) -> None:
    LOGS[EffectType.ORDERED].append((text, round(float(x.numpy().sum()), 3)))


tell.register_fake(lambda x, text: None)
tell.register_effect(EffectType.ORDERED)


@polyop.custom_op("t_chains::halves", mutates_args=())
def halves(x: Tensor, text: str) -> tuple[Tensor, Tensor]:
    LOGS[OTHER].append((text, round(float(x.numpy().sum()), 3)))
    return x * 0.5, x * 0.25


halves.register_fake(lambda x, text: (x.new_empty(x.shape), x.new_empty(x.shape)))
halves.register_autograd(lambda ctx, a, b: (note(a + b, "back of halves"), None))
halves.register_effect(OTHER)


@polyop.custom_op("t_chains::silent", mutates_args=())
def silent(x: Tensor) -> Tensor:
    return x * 2


silent.register_fake(lambda x: x.new_empty(x.shape))
silent.register_autograd(lambda ctx, g: note(tick(g, "back of silent"), "back of silent") * 2)


def observed(fn: Any, *args: Any) -> Any:
    """Call a function; give its numbers, what each chain did, and the gradients."""
    for log in LOGS.values():
        log.clear()
    inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in args]
    found = fn(*inputs)
    if isinstance(found, Tensor) and found.requires_grad:
        found.sum().backward()
    numbers = [t.tolist() for t in polyop.tree.leaves(found)]
    grads = [x.grad.tolist() if x.grad is not None else None for x in inputs]
    return numbers, [list(log) for log in LOGS.values()], grads


def reordered(module: GraphModule, draw: random.Random) -> GraphModule:
    """Give the program with its calls in any order that data allow; what nobody reads goes."""
    output = module.graph.output_node
    assert output is not None
    needed, todo = {output}, [output]
    while todo:
        new = set(todo.pop().all_input_nodes) - needed
        needed |= new
        todo += new
    graph, copies = Graph(), dict[Node, Node]()
    for node in module.graph.placeholders:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    waiting = [n for n in module.graph.nodes if n in needed and n not in copies and n is not output]
    while waiting:
        ready = [n for n in waiting if all(g in copies for g in n.all_input_nodes)]
        node = draw.choice(ready)
        waiting.remove(node)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.node_copy(output, copies.__getitem__)
    made = GraphModule(module, graph)
    made.graph.lint(made)
    return made


def hostile(seed: int) -> Any:
    """Make a backend that knows nothing but data flow."""
    draw = random.Random(seed)
    return lambda module, examples: reordered(module, draw)


def keeping(kept: list[GraphModule]) -> Any:
    def backend(module: GraphModule, examples: Any) -> Any:
        assert len(examples) == len(module.graph.placeholders)
        kept.append(module)
        return module

    return backend


def chain_of(module: GraphModule, token: Node) -> list[str]:
    """Give the texts of the calls along the chain that begins with a token."""
    texts = []
    while True:
        call = next((u for u in token.users if u.target is with_effects), None)
        if call is None:
            return texts
        assert call.args[0] is token
        texts.append(call.args[-1])
        token = next(u for u in call.users if u.args[1] == 0)


def targets(module: GraphModule) -> list[Any]:
    return [n.target for n in module.graph.nodes if n.op == "call_function"]

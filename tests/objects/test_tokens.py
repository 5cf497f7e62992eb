"""Tokens: two passes put the order of effects into the data of a program, and take it out."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objects.things import WORLD, Log, Queue, Stream, draw, note, pop, push, say

import polyop
from polyop.errors import CaptureError, SubgraphError
from polyop.extend import SubgraphOperator
from polyop.func import functionalize
from polyop.graph import (
    GraphModule,
    eliminate_common_subexpressions,
    eliminate_dead_code,
    make_fx,
)
from polyop.library import EffectType
from polyop.objects import add_tokens, remove_tokens, with_effects

TOKEN = polyop.zeros(0)


def f(log: Any, queue: Any, stream: Any, x: Any) -> Any:
    """Use objects in every way: one result, none, several, a method, unread results."""
    y = note(log, x * 2, "first")
    say(y, "hello")
    push(queue, y)
    queue.push(x)
    drawn, moved = draw(stream, x)
    note(log, x, "unread")
    both = draw(stream, x)
    return [pop(queue) + drawn, {"sum": both[0] + both[1] + moved}], queue.pop()


def fresh() -> tuple[Any, ...]:
    WORLD.clear()
    return Log(), Queue(), Stream(3), polyop.ones(2)


def observed(run: Any, *tokens: Any) -> Any:
    """Run a function on fresh objects, and tell all that it did."""
    log, queue, stream, x = fresh()
    result = run(*tokens, log, queue, stream, x)
    if tokens:
        *new, result = result
        assert [tuple(t.shape) for t in new] == [(0,)] * len(tokens)
    numbers = [t.tolist() for t in polyop.tree.leaves(result)]
    return numbers, log.lines, [*WORLD], stream.rng.normal()


def calls(module: GraphModule) -> list[Any]:
    return [n for n in module.graph.nodes if n.target is with_effects]


def traced(functional: bool = False) -> GraphModule:
    module: GraphModule = make_fx(functionalize(f) if functional else f, "fake")(*fresh())
    return module


@pytest.mark.parametrize("functional", [False, True])
def test_a_program_takes_and_gives_tokens(functional: bool) -> None:
    """S190: one more input and one more result per effect type; it does what it did."""
    module = traced(functional)
    expected = observed(f)
    assert add_tokens(module) == (EffectType.ORDERED,)
    module.graph.lint(module)
    assert len(module.graph.placeholders) == 5
    assert observed(module, TOKEN) == expected


def test_the_calls_are_one_chain() -> None:
    """S190: each call takes the token of the one before; all effects are in the chain."""
    module = traced()
    before = [n.target for n in module.graph.nodes if n.op == "call_function"]
    effects = [t for t in before if getattr(t, "is_impure", False)]
    add_tokens(module)
    chain = calls(module)
    assert [n.args[1] for n in chain] == effects
    token: Any = module.graph.placeholders[0]
    for call in chain:
        assert call.args[0] is token or call.args[0].args == (token, 0)
        token = call
    assert module.graph.output_node.args[0][0].args == (chain[-1], 0)


def test_passes_keep_the_chain() -> None:
    """S190: dead code and common subexpressions are looked for, and the chain stays whole."""
    module = traced()
    expected = observed(f)
    add_tokens(module)
    count = len(calls(module))
    eliminate_dead_code(module.graph)
    eliminate_common_subexpressions(module.graph)
    module.recompile()
    assert len(calls(module)) == count
    assert observed(module, TOKEN) == expected


def test_the_passes_undo_each_other() -> None:
    """S190: after both, the program has neither tokens nor another order, and prints as before."""
    module = traced()
    expected = observed(f)
    inputs, targets = [n.name for n in module.graph.placeholders], _targets(module)
    add_tokens(module)
    assert remove_tokens(module) == 1
    module.graph.lint(module)
    assert [n.name for n in module.graph.placeholders] == inputs
    assert _targets(module) == targets
    assert observed(module) == expected
    assert remove_tokens(module) == 0


def _targets(module: GraphModule) -> list[Any]:
    skipped = {operator.getitem}
    nodes = [n for n in module.graph.nodes if n.op == "call_function"]
    return [n.target for n in nodes if n.target not in skipped]


def test_a_program_with_tokens_can_be_traced() -> None:
    """S190: tracing it again keeps the calls and the chain."""
    module = traced()
    expected = observed(f)
    add_tokens(module)
    again = make_fx(module, "fake")(TOKEN, *fresh())
    assert len(calls(again)) == len(calls(module))
    assert observed(again, TOKEN) == expected
    assert remove_tokens(again) == 1
    assert observed(again) == expected


def test_a_program_without_effects_gets_none() -> None:
    """S190: where nothing has an effect, there is no token."""
    module = make_fx(lambda x: x + 1, "fake")(polyop.ones(2))
    assert add_tokens(module) == ()
    assert remove_tokens(module) == 0
    assert len(module.graph.placeholders) == 1


def test_refused_programs() -> None:
    """S190: tokens are put in once, and taken out only where they say the order alone."""
    module = traced()
    add_tokens(module)
    with pytest.raises(SubgraphError, match="has tokens already"):
        add_tokens(module)
    output = module.graph.output_node
    output.set_args((output.args[0][-1],))
    with pytest.raises(SubgraphError, match="does not give its tokens"):
        remove_tokens(module)


def test_no_inputs() -> None:
    """S190: a program that takes nothing else takes the token alone."""
    log = Log()
    module = make_fx(lambda: note(log, polyop.ones(2), "a"), "fake")()
    add_tokens(module)
    module.graph.lint(module)
    assert module(TOKEN)[1].tolist() == [1, 1]
    assert log.texts == ["a"]


def test_backward_has_a_chain_of_its_own() -> None:
    """S190: forward and backward of a compiled function come to a backend with a chain each."""
    kept: list[GraphModule] = []

    def backend(module: GraphModule, examples: Any) -> Any:
        assert len(calls(module)) == str(module.graph).count("t_objects.note") == 2
        assert len(examples) == len(module.graph.placeholders)
        assert examples[0].shape == (0,)
        kept.append(module)
        return module

    def g(log: Any, x: Any) -> Any:
        return note(log, note(log, x * 2, "a") ** 2, "b").sum()

    logs = Log(), Log()
    xs = [polyop.ones(2).requires_grad_() for _ in logs]
    g(logs[0], xs[0]).backward()
    polyop.compile(g, fullgraph=True, backend=backend)(logs[1], xs[1]).backward()
    assert len(kept) == 2
    assert logs[0].lines == logs[1].lines
    assert logs[1].texts == ["a", "b", "back b", "back a"]
    assert xs[0].grad.tolist() == xs[1].grad.tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["say", "note", "push", "pop", "call", "pure"]), max_size=10))
def test_any_program(acts: list[str]) -> None:
    """S190: with tokens, and without them again, any program does what the function does."""

    def g(log: Any, queue: Any, x: Any) -> Any:
        queue.push(x)
        for number, act in enumerate(acts):
            if act == "say":
                say(x, f"{number}")
            elif act == "note":
                x = note(log, x, f"{number}")
            elif act == "push":
                push(queue, x * number)
            elif act == "pop" and queue.size() > 1:
                x = x + pop(queue)
            elif act == "call":
                queue.push(x)
            else:
                x = x + 1
        return x, queue.pop()

    def observe(run: Any, *tokens: Any) -> Any:
        WORLD.clear()
        log, queue = Log(), Queue()
        result = run(*tokens, log, queue, polyop.ones(2))
        first, second = result[-1] if tokens else result
        left = [t.tolist() for t in queue.items]
        return first.tolist(), second.tolist(), log.lines, [*WORLD], left

    expected = observe(g)
    module = make_fx(g, "fake")(Log(), Queue(), polyop.ones(2))
    assert observe(module) == expected
    add_tokens(module)
    module.graph.lint(module)
    assert observe(module, TOKEN) == expected
    remove_tokens(module)
    module.graph.lint(module)
    assert observe(module) == expected


block = SubgraphOperator("t_tokens_block")


def within(log: Any, x: Any) -> Any:
    """Use an object inside the function of a higher-order operator."""

    def inner(y: Any) -> Any:
        say(y, "inside")
        return note(log, y, "inside") * 2

    return note(log, block(inner, note(log, x, "before")), "after")


def test_effects_in_subgraphs() -> None:
    """S183, S190: an object is an operand of a subgraph, and its call is a link of the chain."""
    x = polyop.ones(2)
    module = make_fx(within, "fake")(Log(), x)
    for tokens in (False, True, False):
        if tokens:
            add_tokens(module)
            assert [n.args[1] for n in calls(module)][1] is block
        else:
            remove_tokens(module)
        module.graph.lint(module)
        log = Log()
        WORLD.clear()
        found = module(*([TOKEN] * tokens), log, x)
        assert (found[-1] if tokens else found).tolist() == [2, 2]
        assert (log.texts, WORLD) == (["before", "inside", "after"], ["inside"])


def only(x: Any) -> Any:
    """Give one result in a row, behind an effect."""

    def inner(y: Any) -> Any:
        say(y, "inside")
        return (y * 2,)

    return block(inner, x)


@pytest.mark.parametrize("read", [lambda row: row[0] + 1, lambda row: row], ids=["item", "row"])
def test_a_row_of_one_result_stays_a_row(read: Any) -> None:
    """S189, S190: what gives one result in a row, with an effect inside, still does afterwards."""
    x = polyop.ones(2)
    module = make_fx(lambda x: read(only(x)), "fake")(x)
    expected = [t.tolist() for t in polyop.tree.leaves(module(x))]
    add_tokens(module)
    module.graph.lint(module)
    assert [t.tolist() for t in polyop.tree.leaves(module(TOKEN, x)[-1])] == expected
    remove_tokens(module)
    module.graph.lint(module)
    assert [t.tolist() for t in polyop.tree.leaves(module(x))] == expected


def test_a_gradient_does_not_repeat_an_effect() -> None:
    """S188: a captured gradient that would run a function with effects again is refused."""
    log, x = Log(), polyop.ones(2).requires_grad_()
    with pytest.raises(CaptureError, match="would repeat an effect"):
        polyop.compile(within, fullgraph=True)(log, x)
    log.lines.clear()
    polyop.compile(within)(log, x).sum().backward()
    eager, y = Log(), polyop.ones(2).requires_grad_()
    within(eager, y).sum().backward()
    assert log.lines == eager.lines
    assert x.grad.tolist() == y.grad.tolist()

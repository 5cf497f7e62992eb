"""Effects: who has one, and that no pass and no layer changes their order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objects.things import WORLD, Log, Stream, draw, note, pop, push, say
from torch._higher_order_ops.effects import with_effects as torch_with_effects

import polyop
from polyop.errors import RegistrationError, SubgraphError, UsageTypeError
from polyop.extend import HigherOrderOperator
from polyop.func import functionalize
from polyop.graph import (
    eliminate_common_subexpressions,
    eliminate_dead_code,
    fold_constants,
    is_impure,
    make_fx,
)
from polyop.library import EffectType, Library, has_effects, register_effect
from polyop.objects import effect_of, run_ordered, with_effects


def test_defaults() -> None:
    """S188: ORDERED with an argument for references, else none."""
    assert [has_effects(op) for op in (note, push, pop, draw)] == [True] * 4
    assert effect_of(note) is EffectType.ORDERED
    assert not has_effects("core::add")
    assert not has_effects("t_objects::make_queue")
    assert has_effects(polyop.ops.higher_order.call_object)


def test_every_handle_of_an_operator_works() -> None:
    """S188: name, packet, overload and `CustomOpDef` register the same, and None takes it off."""

    def act(x: polyop.Tensor) -> polyop.Tensor:
        return x + 1

    op = polyop.custom_op("t_effects::act", act, mutates_args=())
    packet = polyop.ops.t_effects.act
    for handle in ("t_effects::act", packet, packet.default, op):
        assert not has_effects(handle)
        register_effect(handle, EffectType.ORDERED)
        assert all(has_effects(h) for h in ("t_effects::act", packet, packet.default, op))
        assert packet.default.is_impure
        register_effect(handle, None)
        assert not packet.default.is_impure
    op.register_effect(EffectType.ORDERED)
    assert effect_of(packet) is EffectType.ORDERED
    op.register_effect(None)


def test_an_effect_goes_with_its_library() -> None:
    """S188: a registration made through a library is undone with it."""
    lib = Library("t_effects_lib", "DEF")
    lib.define("act(Tensor x) -> Tensor")
    other = Library("t_effects_lib", "FRAGMENT")
    register_effect("t_effects_lib::act", EffectType.ORDERED, lib=other)
    assert has_effects("t_effects_lib::act")
    other._destroy()
    assert not has_effects("t_effects_lib::act")


def test_refused_effects() -> None:
    """S188: an effect on an operator that writes or aliases, or no effect type, is refused."""
    lib = Library("t_effects_bad", "DEF")
    lib.define("write(Tensor(a!) x) -> ()")
    lib.define("view(Tensor(a) x) -> Tensor(a)")
    for name in ("write", "view"):
        with pytest.raises(RegistrationError, match="writes or aliases"):
            register_effect(f"t_effects_bad::{name}", EffectType.ORDERED)
        assert not has_effects(f"t_effects_bad::{name}")
        register_effect(f"t_effects_bad::{name}", None)
    for effect in ("ordered", True, 1):
        with pytest.raises(UsageTypeError, match=r"EffectType\.ORDERED"):
            register_effect("core::add", effect)
    with pytest.raises(polyop.errors.OperatorNotFoundError):
        register_effect("t_effects_bad::nothing", EffectType.ORDERED)
    with pytest.raises(UsageTypeError):
        has_effects(len)


def test_an_effect_of_a_higher_order_operator() -> None:
    """S188: a higher-order operator may have an effect too; then no pass removes its calls."""

    class Quiet(HigherOrderOperator):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x)

    quiet = Quiet("t_effects_quiet")
    graph = polyop.graph.Graph()
    node = graph.call_function(quiet, (graph.placeholder("x"),))
    assert not has_effects(quiet)
    assert not is_impure(node)
    register_effect(quiet, EffectType.ORDERED)
    assert has_effects(quiet)
    assert is_impure(node)


ACTS = st.lists(
    st.tuples(st.sampled_from(["say", "note", "draw", "pure", "same"]), st.integers(0, 2)),
    max_size=12,
)


def program(acts: list[tuple[str, int]], log: Log) -> Any:
    """Make a function that says and notes in the given order, among calls without effects."""

    def f(x: Any) -> Any:
        values = [x, x * 2, x + 1]
        for number, (act, i) in enumerate(acts):
            if act == "say":
                say(values[i], f"say {number}")
            elif act == "note":
                values[i] = note(log, values[i], f"note {number}")
            elif act == "same":
                note(log, x, "same")
            elif act == "draw":
                values[i] = values[i] + 1
            else:
                _ = values[i] * 3
        return values

    return f


@settings(max_examples=40, deadline=None)
@given(ACTS, st.booleans())
def test_no_pass_changes_the_order(acts: list[tuple[str, int]], functional: bool) -> None:
    """S188, S198: after all passes a traced program acts on the world as the function does."""
    log, x = Log(), polyop.ones(2)
    f = program(acts, log)
    WORLD.clear()
    expected = [t.tolist() for t in f(x)]
    said, noted = [*WORLD], [*log.lines]
    module = make_fx(functionalize(f) if functional else f, "fake")(x)
    eliminate_dead_code(module.graph)
    eliminate_common_subexpressions(module.graph)
    fold_constants(module)
    module.graph.lint(module)
    module.recompile()
    WORLD.clear()
    log.lines.clear()
    assert [t.tolist() for t in module(x)] == expected
    assert (WORLD, log.lines) == (said, noted)


def test_pure_calls_may_go() -> None:
    """S198: with the effect taken off, the same passes remove and merge the calls."""
    register_effect(note, None)
    try:
        log = Log()
        module = make_fx(lambda x: (note(log, x, "a"), note(log, x, "a") + 1), "fake")
        graph = module(polyop.ones(2)).graph
        eliminate_common_subexpressions(graph)
        assert str(graph).count("t_objects.note") == 1
        dead = make_fx(lambda x: [note(log, x, "a"), x][1], "fake")(polyop.ones(2)).graph
        assert eliminate_dead_code(dead)
        assert "note" not in str(dead)
    finally:
        register_effect(note, EffectType.ORDERED)


def test_what_is_impure() -> None:
    """S198: an operator that writes, draws random numbers, or has effects, by any handle."""
    lib = Library("t_effects_pure", "DEF")
    lib.define("pure(Tensor x) -> Tensor")
    lib.define("write(Tensor(a!) x) -> ()")
    lib.define("random(Tensor x) -> Tensor", tags=polyop.library.Tag.nondeterministic_seeded)
    ops = polyop.ops.t_effects_pure
    for handle in ("t_effects_pure::pure", ops.pure, ops.pure.default):
        assert not is_impure(handle)
    for handle in (ops.write, ops.random.default, note, "t_objects::say", with_effects):
        assert is_impure(handle)


# -- with_effects -------------------------------------------------------------


def test_with_effects_gives_a_token_and_the_results() -> None:
    """S189: the new token, an empty tensor, then the results in a row."""
    token, log, x = polyop.zeros(0), Log(), polyop.ones(2)
    new, y = with_effects(token, note._opoverload, log, x, text="a")
    assert (tuple(new.shape), y.tolist(), log.texts) == ((0,), [1, 1], ["a"])
    assert len(with_effects(token, say._opoverload, x, "b")) == 1
    assert len(with_effects(token, draw._opoverload, Stream(0), x)) == 3
    assert polyop.ops.higher_order.with_effects is with_effects


def test_with_effects_refuses() -> None:
    """S189: no token, no operator, or an operator that writes → SubgraphError."""
    token, x = polyop.zeros(0), polyop.ones(2)
    with pytest.raises(SubgraphError, match="takes a token first"):
        with_effects(None, note._opoverload, Log(), x, "a")
    with pytest.raises(SubgraphError, match="takes an operator behind the token"):
        with_effects(token, len, x)
    with pytest.raises(SubgraphError, match="takes an operator"):
        with_effects(token)
    lib = Library("t_effects_write", "DEF")
    lib.define("write(Tensor(a!) x) -> ()")
    with pytest.raises(SubgraphError, match="writes or aliases"):
        with_effects(token, polyop.ops.t_effects_write.write.default, x)


def test_one_chain_per_effect_type() -> None:
    """S189: `run_ordered` threads the token of the operator's effect type; none → SubgraphError."""
    tokens, log, x = {EffectType.ORDERED: polyop.zeros(0)}, Log(), polyop.ones(2)
    first = tokens[EffectType.ORDERED]
    assert run_ordered(tokens, note, log, x, "a").tolist() == [1, 1]
    assert tokens[EffectType.ORDERED] is not first
    assert run_ordered(tokens, say, x, "b") is None
    assert run_ordered({}, "core::add", x, x).tolist() == [2, 2]
    with pytest.raises(SubgraphError, match="no token for the effect ORDERED of t_objects::note"):
        run_ordered({}, note, log, x, "c")
    assert log.texts == ["a"]


@pytest.mark.parametrize("functional", [False, True])
def test_with_effects_is_one_node(functional: bool) -> None:
    """S189: traced, functionalized or not, it is one node, and the tokens link the calls."""
    log, x = Log(), polyop.ones(2)

    def f(token: Any, x: Any) -> Any:
        token, y = with_effects(token, note._opoverload, log, x, "a")
        token, z = with_effects(token, note._opoverload, log, y * 2, "b")
        return token, z

    module = make_fx(functionalize(f) if functional else f, "fake")(polyop.zeros(0), x)
    calls = [n for n in module.graph.nodes if n.target is with_effects]
    assert len(calls) == 2
    assert calls[1].args[0].args == (calls[0], 0)
    assert log.texts == []
    assert module(polyop.zeros(0), x)[1].tolist() == [2, 2]
    assert log.texts == ["a", "b"]
    assert eliminate_dead_code(module.graph) == 0


def test_with_effects_under_transforms() -> None:
    """S189: the operator inside meets grad and vmap as if it were called itself."""
    log, op = Log(), note._opoverload

    def f(x: Any) -> Any:
        return with_effects(polyop.zeros(0), op, log, x * 3, "a")[1].sum()

    assert polyop.func.grad(f)(polyop.ones(2)).tolist() == [3, 3]
    x = polyop.ones(2).requires_grad_()
    f(x).backward()
    assert x.grad.tolist() == [3, 3]
    assert log.texts == ["a", "back a"] * 2


def test_pytorch_gives_the_same_row() -> None:
    """S189: PyTorch's `with_effects` gives a token of shape (0,) and the results, as ours does."""
    ours = with_effects(
        polyop.zeros(0), polyop.ops.core.add.default, polyop.ones(2), polyop.ones(2)
    )
    theirs = torch_with_effects(
        torch.zeros(0), torch.ops.aten.add.Tensor, torch.ones(2), torch.ones(2)
    )
    assert [t.tolist() for t in ours] == [t.tolist() for t in theirs]

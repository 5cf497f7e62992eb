"""Effects in compiled code: a backend gets their order as data, and cannot break it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compile.chains import (
    LOGS,
    OTHER,
    chain_of,
    halves,
    hostile,
    keeping,
    note,
    observed,
    silent,
    targets,
    tell,
    tick,
)
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._higher_order_ops.effects import with_effects as torch_with_effects
from torch._library.effects import EffectType as TorchEffectType

import polyop
from polyop import Tensor
from polyop.errors import SubgraphError
from polyop.extend import SubgraphOperator
from polyop.graph import GraphModule, make_fx
from polyop.library import EffectType
from polyop.objects import add_tokens, remove_tokens, run_ordered, with_effects


def two_types(x: Tensor) -> Tensor:
    y = note(x * 2, "a")
    z = tick(x + 1, "b")
    tell(z, "c")
    first, second = halves(y, "d")
    return (note(first + z, "e") * second).sum()


def test_graphs_carry_tokens() -> None:
    """S190: forward and backward take a token per effect type first, and give one first."""
    kept: list[GraphModule] = []
    x = polyop.ones(3).requires_grad_()
    expected = observed(two_types, x)
    compiled = polyop.compile(two_types, fullgraph=True, backend=keeping(kept))
    assert observed(compiled, x) == expected
    forward, backward = kept
    chains = [["a", "c", "e"], ["b", "d"]], [["back e", "back of halves", "back a"], ["back b"]]
    for module, texts in zip((forward, backward), chains, strict=True):
        module.graph.lint(module)
        tokens = module.graph.placeholders[:2]
        assert sorted(n.name for n in tokens) == ["token_ordered", "token_other"]
        found = {n.name: chain_of(module, n) for n in tokens}
        assert [found["token_ordered"], found["token_other"]] == texts
        first, second, _ = module.graph.output_node.args[0]
        assert first.val.shape == second.val.shape == (0,)


@torch.library.custom_op("t_chains_torch::note", mutates_args=())
def torch_note(x: torch.Tensor, text: str) -> torch.Tensor:
    return x.clone()


torch_note.register_fake(lambda x, text: torch.empty_like(x))
torch_note.register_autograd(
    lambda ctx, g: (torch_note(g, f"back {ctx.text}"), None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "text", inputs[1]),
)
torch_note.register_effect(TorchEffectType.ORDERED)


def test_pytorch_makes_the_same_chains() -> None:
    """S190: forward and backward chain the calls that PyTorch's graphs chain."""

    def f(act: Any, x: Any) -> Any:
        y = act(act(x * 2, "a") ** 2, "b")
        return (y * act(x, "c")).sum()

    texts: list[list[str]] = []

    def backend(module: Any, examples: Any) -> Any:
        chain = [n for n in module.graph.nodes if n.target is torch_with_effects]
        assert all(b.args[0].args == (a, 0) for a, b in zip(chain, chain[1:], strict=False))
        texts.append([n.args[-1] for n in chain])
        return make_boxed_func(module.forward)

    x = torch.ones(2, requires_grad=True)
    aot = aot_autograd(fw_compiler=backend, bw_compiler=backend)
    torch.compile(partial(f, torch_note), backend=aot, fullgraph=True)(x).backward()
    kept: list[GraphModule] = []
    y = polyop.ones(2).requires_grad_()
    polyop.compile(partial(f, note), backend=keeping(kept), fullgraph=True)(y).backward()
    mine = [chain_of(module, module.graph.placeholders[0]) for module in kept]
    assert mine[0] == texts[0] == ["a", "b", "c"]
    assert sorted(mine[1]) == sorted(texts[1])
    assert y.grad.tolist() == x.grad.tolist()


def test_users_see_no_tokens() -> None:
    """S190: the compiled function takes what the function takes, and gives what it gives."""

    def f(x: Tensor) -> Any:
        return {"a": note(x, "a"), "b": None, "c": 2}

    found = polyop.compile(f, fullgraph=True, backend=hostile(0))(polyop.ones(2))
    assert found["a"].tolist() == [1, 1]
    assert (found["b"], found["c"], len(found)) == (None, 2, 3)
    assert polyop.compile(lambda x: tell(x, "a"), backend=hostile(0))(polyop.ones(2)) is None


def test_programs_without_effects_carry_nothing() -> None:
    """S190: where nothing has an effect the backend's callable itself is the program's."""
    kept: list[GraphModule] = []
    compiled = polyop.compile(lambda x: (x * 2).sum(), fullgraph=True, backend=keeping(kept))
    compiled(polyop.ones(3).requires_grad_()).backward()
    (program,) = next(iter(compiled.programs.values()))
    assert (program.run, program.run_backward) == tuple(kept)
    assert [n.name for n in kept[0].graph.placeholders] == ["x0"]


def test_only_the_backward_has_an_effect() -> None:
    """S190: an effect that is a gradient's alone gives tokens to the backward alone."""
    kept: list[GraphModule] = []
    x = polyop.ones(3).requires_grad_()
    compiled = polyop.compile(silent, fullgraph=True, backend=keeping(kept))
    assert observed(compiled, x) == observed(silent, x)
    names = [[n.name for n in module.graph.placeholders if "token" in n.name] for module in kept]
    assert [sorted(row) for row in names] == [[], ["token_ordered", "token_other"]]
    assert [len(log) for log in LOGS.values()] == [1, 1]


@pytest.mark.parametrize("backend", ["graph", "plain"])
def test_a_backend_may_want_plain_graphs(backend: Any) -> None:
    """S190: lowering is without tokens: with `takes_tokens = False` graphs have none."""
    kept: list[GraphModule] = []
    if backend == "plain":
        backend = keeping(kept)
        backend.takes_tokens = False
    x = polyop.ones(3).requires_grad_()
    compiled = polyop.compile(two_types, fullgraph=True, backend=backend)
    assert observed(compiled, x) == observed(two_types, x)
    (program,) = next(iter(compiled.programs.values()))
    for module in kept or (program.captured.forward, program.captured.backward):
        assert not any(n.target is with_effects for n in module.graph.nodes)
        assert not any("token" in n.name for n in module.graph.placeholders)


def test_a_backend_may_take_the_tokens_out() -> None:
    """S190: `remove_tokens` makes the plain graph of the one that the backend got."""
    kept: list[GraphModule] = []
    plain: list[GraphModule] = []

    def backend(module: GraphModule, examples: Any) -> Any:
        lowered = copy(module)
        count = remove_tokens(lowered)
        lowered.graph.lint(lowered)
        plain.append(lowered)
        return lambda *inputs: (*inputs[:count], lowered(*inputs[count:]))

    x = polyop.ones(3).requires_grad_()
    compiled = polyop.compile(two_types, fullgraph=True, backend=backend)
    assert observed(compiled, x) == observed(two_types, x)
    reference = keeping(kept)
    reference.takes_tokens = False
    observed(polyop.compile(two_types, fullgraph=True, backend=reference), x)
    for mine, theirs in zip(plain, kept, strict=True):
        assert targets(mine) == targets(theirs)


@pytest.mark.parametrize("result", [lambda found: found[-1], lambda found: found[1:], lambda _: 1])
def test_a_backend_that_gives_no_tokens(result: Any) -> None:
    """S189, S190: a result without its tokens is refused, and the error says both ways out."""

    def backend(module: GraphModule, examples: Any) -> Any:
        return lambda *inputs: result(module(*inputs))

    compiled = polyop.compile(lambda x: note(x, "a"), fullgraph=True, backend=backend)
    with pytest.raises(SubgraphError) as caught:
        compiled(polyop.ones(2))
    text = str(caught.value)
    assert "does not give them in front of the result" in text
    assert "(1 tokens, result)" in text
    assert "backend.takes_tokens = False" in text


def test_undeclared_aliasing_is_found_behind_a_token() -> None:
    """S175, S190: an operator behind a token is checked as one that stands alone."""
    same = polyop.custom_op("t_chains::same", _same, mutates_args=())
    same.register_fake(lambda x: x.new_empty(x.shape))
    same.register_effect(EffectType.ORDERED)
    compiled = polyop.compile(same, fullgraph=True, backend=hostile(0))
    x = polyop.ones(2)
    with pytest.warns(UserWarning, match="t_chains::same"):
        found = compiled(x)
    found.add_(1)
    assert x.tolist() == [1, 1]


def _same(x: Tensor) -> Tensor:
    return x


def test_errors_in_captured_code() -> None:
    """S189: without an operator, or a token of its type, captured code raises as eager code."""
    x, token = polyop.ones(2), polyop.zeros(0)
    wrong = [
        (lambda x: with_effects(token, len, x), "an operator behind the token"),
        (lambda x: with_effects(3, note._opoverload, x, "a"), "takes a token first"),
        (lambda x: run_ordered({OTHER: token}, note, x, "a"), "no token for the effect ORDERED"),
        (lambda x: run_ordered({}, tick, x, "a"), "no token for the effect OTHER"),
    ]
    for fn, text in wrong:
        for run in (fn, polyop.compile(fn), polyop.compile(fn, fullgraph=True)):
            with pytest.raises(SubgraphError, match=text):
                run(x)


def test_tokens_of_the_user_are_data() -> None:
    """S189, S190: calls that the function puts behind tokens itself are in the chains as well."""

    def f(token: Tensor, x: Tensor) -> Any:
        mine = {EffectType.ORDERED: token, OTHER: polyop.zeros(0)}
        note(x, "a")
        y = run_ordered(mine, note, x, "b")
        run_ordered(mine, tick, x, "c")
        token, total = with_effects(token, polyop.ops.core.add.default, x, y)
        tell(x, "d")
        run_ordered(mine, tell, y, "e")
        tick(x, "f")
        return mine[EffectType.ORDERED], token, total

    args = polyop.zeros(0), polyop.ones(2)
    expected = observed(f, *args)
    assert [text for text, _ in LOGS[EffectType.ORDERED]] == ["a", "b", "d", "e"]
    for seed in range(20):
        compiled = polyop.compile(f, fullgraph=True, backend=hostile(seed))
        assert observed(compiled, *args) == expected

    def backend(module: GraphModule, examples: Any) -> Any:
        count = remove_tokens(module)
        own = [n.args[1] for n in module.graph.nodes if n.target is with_effects]
        assert len(own) == 4
        return lambda *inputs: (*inputs[:count], module(*inputs[count:]))

    assert observed(polyop.compile(f, fullgraph=True, backend=backend), *args) == expected


block = SubgraphOperator("t_chains_block")


def test_a_call_with_an_effect_inside_is_a_link() -> None:
    """S181, S190: a higher-order operator whose function has an effect is in the chain."""

    def inner(x: Tensor) -> Any:
        tell(x, "inside")
        return (x * 2,)

    def f(x: Tensor) -> Tensor:
        tell(x, "before")
        y = block(inner, x)[0]
        tell(x, "after")
        block(inner, x * 3)
        return note(y, "end")

    x = polyop.ones(2)
    expected = observed(f, x)
    for seed in range(20):
        compiled = polyop.compile(f, fullgraph=True, backend=hostile(seed))
        assert observed(compiled, x) == expected


def test_a_program_with_tokens_is_captured_again() -> None:
    """S190: a captured program is a function too; its tokens are inputs like others."""
    module = make_fx(lambda x: note(tick(x, "a"), "b"), "fake")(polyop.ones(2))
    add_tokens(module)
    args = polyop.zeros(0), polyop.zeros(0), polyop.ones(2)
    compiled = polyop.compile(module.__call__, fullgraph=True, backend=hostile(1))
    assert observed(compiled, *args) == observed(module, *args)


# -- the law -------------------------------------------------------------------

ACTS = ["note", "tick", "tell", "halves", "silent", "multiply", "add", "size", "unread"]
STEP = st.tuples(st.sampled_from(ACTS), st.integers(0, 5), st.integers(0, 5))


def program(steps: list[tuple[str, int, int]], look: int | None = None) -> Any:
    """Make a function of operators with and without effects; at `look` it reads data."""

    def f(x: Tensor) -> Tensor:
        values = [x, x * 2]
        for number, (act, i, j) in enumerate(steps):
            a, b, text = values[i % len(values)], values[j % len(values)], f"{act} {number}"
            if number == look and a.sum().item() > 1e9:
                return a
            if act in ("note", "tick"):
                values.append({"note": note, "tick": tick}[act](a, text))
            elif act == "tell":
                tell(a, text)
            elif act == "unread":
                (note if i < j else halves)(b, text)
            elif act == "halves":
                values += halves(a, text)
            elif act == "silent":
                values.append(silent(a))
            elif act == "size":
                values.append(a * 0.5 + a.shape[0])
            else:
                values.append(a * 0.1 + b if act == "add" else a * b * 0.125)
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total

    return f


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=10), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_no_backend_reorders_effects(
    steps: list[tuple[str, int, int]], seed: int, dynamic: bool, backward: bool
) -> None:
    """S190: by data alone the log of each effect type is the eager one, forward and backward."""
    f = program(steps)
    compiled = polyop.compile(f, fullgraph=True, dynamic=dynamic, backend=hostile(seed))
    for n in (3, 5, 3):
        x = polyop.arange(n, dtype=polyop.float64)
        x.requires_grad_(backward)
        assert observed(compiled, x) == observed(f, x)


@settings(max_examples=30, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=8), st.integers(0, 7), st.booleans())
def test_cuts_keep_the_order(steps: list[tuple[str, int, int]], look: int, backward: bool) -> None:
    """S188, S190: a function that looks at data on its way acts in the eager order."""
    f = program(steps, look % len(steps))
    compiled = polyop.compile(f, backend=hostile(look))
    x = polyop.arange(4, dtype=polyop.float64).requires_grad_(backward)
    assert observed(compiled, x) == observed(compiled, x) == observed(f, x)


def test_without_tokens_the_backend_does_reorder() -> None:
    """S190: the law can fail: from plain graphs the same backend loses the order of effects."""
    f = program([("note", 0, 0), ("tell", 0, 0), ("note", 1, 0), ("tick", 0, 0), ("tick", 1, 1)])
    x = polyop.ones(3)
    expected = observed(f, x)
    seen = []
    for seed in range(10):
        backend = hostile(seed)
        backend.takes_tokens = False
        seen.append(observed(polyop.compile(f, fullgraph=True, backend=backend), x) == expected)
    assert not all(seen)


def test_threads_have_chains_of_their_own() -> None:
    """S190: a program that runs in many threads begins its chains anew in each run."""
    tokens: list[Tensor] = []

    def backend(module: GraphModule, examples: Any) -> Any:
        def run(token: Tensor, x: Tensor) -> Any:
            tokens.append(token)
            return module(token, x)

        return run

    compiled = polyop.compile(lambda x: note(x, "a") * 2, fullgraph=True, backend=backend)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: compiled(polyop.ones(2) * n).tolist(), range(32)))
    assert found == [[2 * n] * 2 for n in range(32)]
    assert len(set(map(id, tokens))) == 32

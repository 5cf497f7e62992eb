"""Tokens of functionalized, exported and lowered programs."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from tests.compile.chains import (
    OTHER,
    hostile,
    note,
    observed,
    reordered,
    targets,
    tell,
    tick,
)

import polyop
from polyop import Tensor
from polyop.func import functionalize
from polyop.graph import Node, make_fx
from polyop.library import EffectType
from polyop.objects import add_tokens, remove_tokens, with_effects


def test_functionalized_traces_take_tokens_when_asked() -> None:
    """S190: a functionalized trace keeps nodes in order; `add_tokens` makes writes and all data."""

    def f(x: Tensor) -> Tensor:
        y = x * 2
        tell(y, "a")
        y.add_(1)
        note(y, "b")
        y.mul_(3)
        tick(y, "c")
        return note(y, "d")

    x = polyop.ones(3)
    expected = observed(f, x)
    module = make_fx(functionalize(f), "fake")(x)
    assert observed(module, x) == expected
    assert add_tokens(module) == (EffectType.ORDERED, OTHER)
    for seed in range(20):
        run = partial(reordered(module, random.Random(seed)), polyop.zeros(0), polyop.zeros(0))
        assert observed(lambda x, run=run: run(x)[-1], x) == expected


def test_exported_programs_have_no_tokens() -> None:
    """S190: export gives no tokens, of a compiled function and of a capture that had some."""

    def f(x: Tensor) -> Tensor:
        return note(tick(x * 2, "a") + 1, "b")

    x = polyop.ones(3)
    expected = observed(f, x)
    compiled = polyop.compile(f, fullgraph=True, backend=hostile(3))
    assert observed(compiled, x) == expected
    captured = make_fx(f, "fake")(x)
    add_tokens(captured)
    remove_tokens(captured)
    for source in (f, compiled, captured):
        exported = polyop.export.export(source, (x,))
        assert with_effects not in targets(exported.graph_module)
        assert len(exported.graph_module.graph.placeholders) == 1
        assert observed(exported.module(), x) == expected


class Arithmetic:
    """Takes what multiplies and adds, and runs it as it is."""

    backend_id = "t_chains"

    def takes(self, node: Node) -> bool:
        return getattr(node.target, "_opname", "") in ("multiply", "add")

    def lower(self, program: Any, compile_specs: Any) -> bytes:
        assert with_effects not in targets(program.graph_module)
        return b"as it is"

    def executor(self, lowered: Any) -> Any:
        return lowered.original


def test_lowered_programs_have_no_tokens() -> None:
    """S190: parts that backends take, and the program around them, act in order without tokens."""

    def f(x: Tensor) -> Tensor:
        y = note(x * 2 + 1, "a") * 3
        tell(x, "b")
        return tick(y + x, "c") * note(x * 5, "d")

    x = polyop.ones(3)
    captured = make_fx(f, "fake")(x)
    add_tokens(captured)
    remove_tokens(captured)
    lowered = polyop.export.to_backend(polyop.export.export(captured, (x,)), Arithmetic())
    assert polyop.export.call_delegate in targets(lowered.graph_module)
    assert with_effects not in targets(lowered.graph_module)
    assert [n.op for n in lowered.graph_module.graph.nodes].count("placeholder") == 1
    assert observed(lowered.module(), x) == observed(f, x)

"""Copies and pickles of what is no tensor: generators, graphs, programs, compiled functions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

import polyop
from polyop.errors import UsageTypeError
from polyop.graph import make_fx
from polyop.symbolic import ShapeEnv

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda value: pickle.loads(pickle.dumps(value)),
]


def program(x: Any) -> Any:
    return polyop.sin(x) * 2 + x[0]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("seed", [3, None])
def test_generators(copied: Callable[[Any], Any], seed: int | None) -> None:
    """A copied generator goes on where the other stands, and is a stream of its own."""
    one = polyop.Generator(seed)
    if seed is not None:
        polyop.rand(5, generator=one)
    other = copied(one)
    first = polyop.rand(4, generator=other).tolist()
    assert polyop.rand(4, generator=one).tolist() == first
    assert other.initial_seed() == one.initial_seed()
    other.manual_seed(1)
    assert polyop.rand(2, generator=one).tolist() != polyop.rand(2, generator=other).tolist()


@pytest.mark.parametrize("copied", COPIES)
def test_called_graphs(copied: Callable[[Any], Any]) -> None:
    """S208: a graph that was called is copied and pickled as one that was not."""
    x = polyop.asarray([1.0, 2.0])
    module = make_fx(program)(x)
    expected = module(x).tolist()
    made = copied(module)
    assert made(x).tolist() == expected and made.code == module.code
    assert str(copied(module.graph)) == str(module.graph)


def test_long_graphs() -> None:
    """S208: a graph of many nodes is pickled, with the names, values and lines of its nodes."""

    def long(x: Any) -> Any:
        for _ in range(2000):
            x = x * 1.0
        return [x, {"a": x}, x[0:1]]

    module = make_fx(long)(polyop.ones(2))
    module.graph.placeholders[0].name_ = "given"
    made = pickle.loads(pickle.dumps(module))
    assert str(made.graph) == str(module.graph)
    made.graph.lint(made)
    for one, other in zip(made.graph.nodes, module.graph.nodes, strict=True):
        assert one is not other
        assert (one.val, one.name) == (other.val, other.name)
        assert str(getattr(one, "source", None)) == str(getattr(other, "source", None))
    assert made(polyop.ones(2))[1]["a"].tolist() == [1.0, 1.0]


def test_what_is_not_pickled() -> None:
    """S214: what holds a capture's symbols or locks says so, and what to write instead."""
    x = polyop.asarray([1.0, 2.0])
    symbolic = make_fx(program, tracing_mode="symbolic")(x)
    exported = polyop.export.export(program, (x,))
    for value in (symbolic, symbolic.graph, exported, exported.module()):
        with pytest.raises(UsageTypeError, match=r"polyop\.export\.save"):
            pickle.dumps(value)
    with pytest.raises(UsageTypeError, match="symbolic sizes are not pickled"):
        pickle.dumps(ShapeEnv().create_symbol(5, "n"))
    with pytest.raises(UsageTypeError, match="compiled function is not pickled"):
        pickle.dumps(polyop.compile(program))


def test_deep_copies_of_programs() -> None:
    """S208: a deep copy of a program runs alike, and has a graph of its own."""
    x = polyop.asarray([1.0, 2.0])
    one = polyop.export.export(program, (x,))
    for made in (copy.deepcopy(one).module(), copy.deepcopy(one.module())):
        assert made(x).tolist() == program(x).tolist()
    assert copy.deepcopy(one).graph is not one.graph


def test_a_copied_compiled_function() -> None:
    """S211: a compiled function is copied as functions are: as itself."""
    compiled = polyop.compile(program)
    compiled(polyop.ones(2))
    assert copy.copy(compiled) is compiled
    assert copy.deepcopy([compiled])[0] is compiled


def built_in() -> list[str]:
    """Name the public functions."""
    found = {name: getattr(polyop, name) for name in polyop.__all__}
    return [n for n, f in found.items() if callable(f) and hasattr(f, "__code__")]


@pytest.mark.parametrize("name", built_in())
def test_functions(name: str) -> None:
    """S58: a function is pickled by the name that it has."""
    function = getattr(polyop, name)
    assert pickle.loads(pickle.dumps(function)) is function


def test_functions_in_other_processes() -> None:
    """S58: a process that has imported nothing runs a built-in function that it is sent."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        (found,) = pool.map(polyop.sin, [polyop.ones(2)])
    assert found.tolist() == polyop.sin(polyop.ones(2)).tolist()

"""An export inside a trace or a transform: it is of its own function alone (S213)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.export import export
from polyop.func import functionalize, grad, vmap
from polyop.graph import make_fx
from polyop.hop import checkpoint


def exported(y: Any) -> Any:
    """Export a function, and call the program."""
    return export(lambda y: y * 2, (y,)).module()(y)


def exported_again(f: Any) -> Any:
    """Give the function that exports another one, and calls the program."""
    return lambda y: export(f, (y,)).module()(y)


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_trace_records_the_call_alone(mode: Any, pre_dispatch: bool) -> None:
    """S209: what export computes on the way is in no graph around it."""
    x = p.from_numpy(np.ones((2, 3)))
    made = make_fx(exported, mode, pre_dispatch=pre_dispatch)(x)
    assert [n.name for n in made.graph.nodes] == ["y", "multiply", "output"]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_an_export_in_a_subgraph(mode: Any) -> None:
    """S178: a subgraph that exports has no operand but its own."""
    x = p.from_numpy(np.ones((2, 3)))
    made = make_fx(lambda y: checkpoint(exported, y), mode)(x)
    assert made(x).tolist() == exported(x).tolist()


def test_an_export_of_a_view_in_a_symbolic_trace() -> None:
    """S213: sizes and strides of a trace around are plain numbers of the program."""
    found: list[Any] = []

    def traced(y: Any) -> Any:
        found.append(export(lambda y: y * 2, (y,)))
        return found[0].module()(y)

    x = p.from_numpy(np.ones((3, 4))[:, :3])
    make_fx(traced, "symbolic")(x)
    (value,) = [n.val for n in found[0].graph.placeholders]
    assert [type(n) for n in (*value.shape, *value.strides)] == [int] * 4


@pytest.mark.parametrize("outer", [exported_again, grad, functionalize])
def test_an_export_of_control_flow_in_a_transform(outer: Any) -> None:
    """S213: the program has the function's operators, whatever transform export runs inside."""

    def f(y: Any) -> Any:
        return p.map(lambda s: (s * s + y[0]).sum(), y).sum()

    x = p.from_numpy(np.arange(6.0).reshape(2, 3))
    wanted = grad(f) if outer is grad else f
    made = outer(lambda y: export(f, (y,)).module()(y))(x)
    assert made.tolist() == wanted(x).tolist()


@pytest.mark.parametrize("outer", [vmap, functionalize])
def test_a_program_of_what_a_transform_wraps(outer: Any) -> None:
    """S213: a tensor of a transform is a constant of the program, and no fake of it."""
    x = p.from_numpy(np.arange(6.0).reshape(2, 3))
    made = outer(lambda a: export(lambda y: y * a, (a + 1,)).module()(a + 1))(x)
    assert made.tolist() == ((x + 1) * x).tolist()

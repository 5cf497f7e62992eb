"""A trace inside a trace: what only the inner one did is no part of the outer program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError
from polyop.graph import make_fx


def _writes_a_constant(x: Tensor, mode: str) -> Tensor:
    y = x * 1
    make_fx(lambda z: y.add_(z), mode)(x)
    return y * 1


def _writes_an_argument(x: Tensor, mode: str) -> Tensor:
    y = x * 1
    make_fx(lambda z: z.add_(1), mode)(y)
    return y * 1


def _leaves_a_value(x: Tensor, mode: str) -> Tensor:
    kept: list[Tensor] = []
    make_fx(lambda z: kept.append(z * 3), mode)(x)
    return kept[0] * 1


def _swallows(x: Tensor, mode: str) -> Tensor:
    y = x * 1
    try:
        make_fx(lambda z: y.add_(z), mode)(x)
    except CaptureError:
        return y
    return y


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (_writes_a_constant, "writes a tensor of the function around it"),
        (_writes_an_argument, "writes a tensor of the function around it"),
        (_leaves_a_value, "a value that a trace inside computed"),
        (_swallows, "writes a tensor of the function around it"),
    ],
)
def test_what_would_be_lost_is_refused(fn: Callable[..., Any], text: str, mode: str) -> None:
    """S209: each of these programs would lose a write, or hold the data of one run."""
    with pytest.raises(CaptureError, match=text):
        make_fx(lambda x: fn(x, "real"), mode)(polyop.ones(3))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_the_program_of_an_inner_trace_runs(mode: str) -> None:
    """S209: what reads, and what writes tensors of its own, is as good as without a trace."""

    def fn(x: Tensor) -> Tensor:
        y = x * 2
        program = make_fx(lambda z: (z.clone().add_(1) * y).sum(), mode)(y)
        out: Tensor = program(y) + y
        return out

    x = polyop.from_numpy(np.arange(3.0))
    assert make_fx(fn, mode)(x * 0)(x).tolist() == fn(x).tolist()


def test_alone_a_trace_writes() -> None:
    """S209: without a trace around it, a trace on data is a call too."""
    x = polyop.ones(3)
    assert _writes_a_constant(x, "real").tolist() == [2, 2, 2]
    assert _leaves_a_value(x, "real").tolist() == [3, 3, 3]

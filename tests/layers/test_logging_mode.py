"""Calls as lines of text: of a block, and of a tensor wherever it goes."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

import polyop
from polyop.dispatch.modes import dispatch_mode_stack
from polyop.errors import ArgumentError
from polyop.fake import FakeTensorMode
from polyop.layers.logging_mode import LoggingMode, LoggingTensor
from polyop.layers.trace.make_fx import make_fx
from polyop.tensor.tensor import Tensor, of_array


def test_each_call_is_a_line() -> None:
    """S167: LoggingMode records each call of its block, in order, with the names of its tensors."""
    x = of_array(np.zeros((2, 3), "float32"))
    with LoggingMode() as log:
        y = polyop.sin(x) * 2
        polyop.sum(y, axis=0)
        y.add_(1)
    polyop.cos(x)
    assert log.lines == [
        "$1: f32[2, 3] = core::sin($0: f32[2, 3])",
        "$2: f32[2, 3] = core::multiply.Scalar($1: f32[2, 3], 2)",
        "$3: f32[3] = core::sum($2: f32[2, 3], axis=[0])",
        "$2: f32[2, 3] = core::add_.Scalar($2: f32[2, 3], 1)",
    ]


def test_lists_and_failures() -> None:
    """S167: lists are spelled as lists, and a call that raises is a line too."""
    x = of_array(np.zeros(2, "float32"))
    with LoggingMode() as log:
        polyop.concat([x, x])
        with pytest.raises(ArgumentError):
            polyop.sin("x")  # type: ignore[arg-type]
        with pytest.raises(Exception, match="."):
            polyop.reshape(x, (3,))
    assert log.lines[0] == "$1: f32[4] = core::concat([$0: f32[2], $0: f32[2]])"
    assert len(log.lines) == 2 and re.search(r"Error = core::reshape\(\$0", log.lines[1])
    assert dispatch_mode_stack() == ()


def test_a_name_is_never_given_twice() -> None:
    """S167: a tensor that takes the id of one that is gone gets a name of its own; none is kept."""
    with LoggingMode() as log:
        x = of_array(np.zeros(2))
        for _ in range(50):
            polyop.sin(x)
    names = [line.partition(":")[0] for line in log.lines]
    assert len(set(names)) == 50
    gc.collect()
    assert sum(ref() is not None for ref, _ in log.log._seen.values()) == 1


def test_a_logging_tensor_records_where_it_goes() -> None:
    """S167: LoggingTensor records the calls with it and with what came of it, gradients too."""
    x = LoggingTensor(of_array(np.asarray([0.5, 1.0])).requires_grad_())
    y = polyop.exp(x)
    assert isinstance(y, LoggingTensor) and y.requires_grad
    assert x.lines == ["$1: f64[2] = core::exp($0: f64[2])"]
    polyop.sum(y).backward()
    assert isinstance(x.grad, LoggingTensor)
    assert np.allclose(x.grad.inner.numpy(), np.exp([0.5, 1.0]))
    assert any("core::multiply" in line for line in x.lines[2:])
    assert repr(y).startswith("LoggingTensor(tensor(")


def test_a_logging_tensor_is_traceable() -> None:
    """S165, S167: a trace of a LoggingTensor has the calls that it would record."""
    x = LoggingTensor(of_array(np.ones(2)))

    def f(x: Tensor) -> Tensor:
        return polyop.sin(x) * x

    module = make_fx(f, "fake")(x)
    f(x)
    traced = [n.target.name() for n in module.graph.nodes if n.op == "call_function"]
    assert traced == [re.search(r"= (\S+?)\(", line)[1] for line in x.lines[-2:]]  # type: ignore[index]
    assert FakeTensorMode().from_tensor(x).inner.is_fake  # type: ignore[attr-defined]

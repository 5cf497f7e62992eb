"""Records with tensors in them, as arguments of traced operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.graph import make_fx


@dataclass(frozen=True, slots=True)
class Scaled:
    x: Tensor
    k: int


@pytest.fixture(scope="module")
def scale():
    @polyop.custom_op("trace_records::scale", mutates_args=())
    def scale(scaled: Scaled, y: Tensor) -> Tensor:
        return polyop.from_numpy(scaled.x.numpy() * scaled.k + y.numpy())

    scale.register_fake(lambda scaled, y: polyop.empty_like(y))
    return scale


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_record_of_a_computed_tensor_is_read_from_its_node(scale, mode: str) -> None:
    """S8, S209: a tensor inside a record is the program's own, in whatever call it stands."""

    def f(x: Tensor) -> Tensor:
        return scale(Scaled(x * 2, 3), x)

    program = make_fx(f, tracing_mode=mode)(polyop.ones(3))
    program.graph.lint()
    other = polyop.tensor([1.0, 5.0, -2.0])
    np.testing.assert_array_equal(program(other).numpy(), f(other).numpy())


def test_a_record_in_a_compiled_function(scale) -> None:
    """S211: compiled, the record holds this call's tensor and no other's."""

    def f(x: Tensor, k: int) -> Tensor:
        return scale(Scaled(x + 1, k), x)

    compiled = polyop.compile(f, fullgraph=True)
    for k, values in ((3, [1.0, 2.0]), (3, [5.0, 6.0]), (4, [5.0, 6.0])):
        x = polyop.tensor(values)
        np.testing.assert_array_equal(compiled(x, k).numpy(), f(x, k).numpy())

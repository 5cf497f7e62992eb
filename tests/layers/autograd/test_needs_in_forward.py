"""What forward mode says of the tensors that have tangents, beside what backward says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import pytest

import polyop
from polyop import Tensor, func
from polyop.layers.autograd import Function

NUMBERS = count()


@dataclass
class Layer:
    """A record with an absent tensor."""

    w: Tensor
    b: Tensor | None = None


class Pair(NamedTuple):
    """A named tuple of a tensor and a number."""

    w: Tensor
    n: int


#: By annotation: an argument of two tensors.
ARGUMENTS: dict[Any, Callable[[Any, Any], Any]] = {
    Layer: Layer,
    Pair: lambda x, y: Pair(x, 3),
    list[Tensor]: lambda x, y: [x, y],
    tuple[Tensor, Tensor]: lambda x, y: (y, x),
    list[list[Tensor]]: lambda x, y: [[x], [], [y, y]],
    list[Layer]: lambda x, y: [Layer(y), Layer(y, x)],
    dict[str, Tensor]: lambda x, y: {"z": x, "a": y},
}


@pytest.mark.parametrize("kind", ARGUMENTS, ids=str)
def test_needs_are_mirrored_in_both_modes(kind: Any) -> None:
    """S125: `ctx.needs_input_grad` in a `jvp` lies as in backward, tangents as arguments."""
    seen: list[Any] = []
    kinds: list[Any] = []

    def rule(ctx: Any, tangent: Any, *rest: Any) -> Any:
        kinds.append(type(tangent))
        return polyop.ones(2)

    def kernel(p: Any, other: Any, k: int = 1) -> Tensor:
        return polyop.ones(2)

    kernel.__annotations__ = {"p": kind, "other": kind, "k": int, "return": Tensor}
    op = polyop.custom_op(f"needs_in_forward::op{next(NUMBERS)}", kernel, mutates_args=())
    op.register_fake(lambda p, other, k=1: polyop.empty(2))
    op.register_autograd(
        lambda ctx, g: None, setup_context=lambda ctx, *rest: seen.append(ctx.needs_input_grad)
    )
    op.register_jvp(rule)
    y, build = polyop.ones(2), ARGUMENTS[kind]

    def call(x: Any) -> Any:
        return op(build(x, y), build(y, y))

    call(polyop.ones(2).requires_grad_())
    func.jvp(call, (polyop.ones(2),), (polyop.ones(2),))
    assert seen[0] == seen[-1]


def test_needs_of_functions_are_mirrored_in_both_modes() -> None:
    """S125: so they are for a `Function` that takes a list of lists."""
    seen: list[Any] = []

    class Sum(Function):
        @staticmethod
        def forward(rows: Any, k: Any) -> Any:
            return rows[0][0] * 1

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            seen.append(ctx.needs_input_grad)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return None, None

        @staticmethod
        def jvp(ctx: Any, rows: Any, k: Any) -> Any:
            return rows[0][0]

    def call(x: Any) -> Any:
        return Sum.apply([[x, polyop.ones(2)], [polyop.ones(2)]], 3)

    call(polyop.ones(2).requires_grad_())
    func.jvp(call, (polyop.ones(2),), (polyop.ones(2),))
    assert seen[0] == seen[-1]

"""Tangents from an author's backward that catches whatever a look at data raises (SPEC S134)."""

from __future__ import annotations

from typing import Any

import polyop
from polyop import Tensor
from polyop.func import jvp


def test_a_look_that_the_backward_catches() -> None:
    """S134: where it runs at a probe, the look is no error of its own; the tangent is eager's."""

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        try:
            positive = x.sum().item() > 0
        except BaseException:
            positive = False
        return g * x * (2.0 if positive else -2.0)

    with polyop.scoped_library("caught_looks", "FRAGMENT") as lib:
        lib.define("square(Tensor x) -> Tensor")
        lib.impl("square", lambda x: polyop.from_numpy(x.numpy() ** 2), "CPU")
        polyop.library.register_autograd(
            "caught_looks::square", backward, setup_context=save, lib=lib
        )
        x, t = polyop.tensor([1.0, 2.0, 3.0]), polyop.tensor([1.0, -1.0, 2.0])
        _, tangent = jvp(polyop.ops.caught_looks.square, (x,), (t,))
        assert tangent.tolist() == (2 * x * t).tolist()

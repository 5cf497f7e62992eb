"""The gradient of a gradient that read data which `setup_context` had taken out of tensors.

NOTE [Stops]
Such a gradient is right, and so is what flows back through it to the gradients that came in. What
would flow to the tensors of the call lacks a part. So each gradient has one more input, a number
made of these tensors, whose own backward refuses: it runs only if somebody asks for that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.errors import MissingGradientError
from polyop.layers.autograd.function import Function
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor


def stopped(op: Any, rule: str, taken: Sequence[Tensor], given: Any) -> Any:
    """Give what an author's rule returned, without a gradient on the way to some tensors.

    Args:
        op: the operator, or what a `Function` is.
        rule: which rule returned it.
        taken: the tensors that data may depend on.
        given: what it returned.
    """
    stop = Stop.apply(op, rule, *taken)
    return tree.map_leaves(lambda d: Beside.apply(d, stop) if isinstance(d, Tensor) else d, given)


class Stop(Function):
    """A number made of tensors, which refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(_op: Any, _rule: str, *taken: Tensor) -> Any:
        """Give the number."""
        return ON_TENSORS["zeros"]([], dtype=taken[0].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        """Keep who refuses."""
        ctx.op, ctx.rule = inputs[0], inputs[1]

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        """Refuse."""
        raise stop_error(ctx.op, ctx.rule)


def stop_error(op: Any, rule: str) -> MissingGradientError:
    """Make the error of a gradient that lacks a part.

    Args:
        op: the operator, or what a `Function` is.
        rule: whose gradient it is.
    """
    return MissingGradientError(
        f"the {rule} of {op.name()} may use data that its setup_context took out of tensors "
        "(.numpy(), .item(), .tolist()), so it has no gradient itself",
        op=getattr(op, "_schema", op),
        source=op.source,
        fix=f"keep the tensors by ctx.save_for_backward, and compute from them in the {rule}, "
        "with operators",
    )


class Beside(Function):
    """Gives a tensor again, with one more input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(d: Tensor, _stop: Tensor) -> Any:
        """Give the tensor."""
        return d

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        """Keep the number."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Give the gradient, which the data are in too; the number refuses its own."""
        (stop,) = ctx.saved_tensors
        return Beside.apply(g, stop), stop

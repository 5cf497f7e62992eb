"""The two `autograd.Function`s through which eager calls go.

NOTE [Two paths]
An operator of `torch.library` alone is wrong under `torch.func`: `jvp` gives zeros in silence. A
`Function` alone is no operator that could be exported. So the operator carries kernel, fake,
gradient and batching rule, eager calls go through a `Function` whose forward calls it, and what is
compiled calls it directly, since Dynamo refuses a `Function` that has a `jvp`.

`Plain` takes `ctx` in forward, which makes applying it cheap; inside of transforms PyTorch refuses
it before forward starts, and `Transformed` takes its place.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from polyop.bridges.torch.arrays import Call
from polyop.bridges.torch.batching import batched
from polyop.bridges.torch.gradient import backward, setup
from polyop.bridges.torch.tangents import tangents


class Plain(torch.autograd.Function):
    """Calls the operator where no transform of `torch.func` runs."""

    @staticmethod
    def forward(ctx: Any, started: list[bool], call: Call, *row: Any) -> Any:
        """Run the operator, and keep what the gradient needs."""
        started.append(True)
        outs = call.run(row)
        setup(ctx, call, row, outs, ctx.needs_input_grad[2:])
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the author's backward."""
        return (None, None, *backward(ctx, ctx.needs_input_grad[2:], grads))

    @staticmethod
    def jvp(ctx: Any, *given: Any) -> Any:
        """Run the author's jvp, or the transpose of backward."""
        return tangents(ctx, given[2:])


class Transformed(torch.autograd.Function):
    """Calls the operator inside of transforms."""

    @staticmethod
    def forward(*given: Any) -> Any:
        """Run the operator."""
        call, *row = given
        return call.run(row)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the gradient needs."""
        call, *row = inputs
        setup(ctx, call, row, output, ctx.needs_input_grad[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the author's backward."""
        return (None, *backward(ctx, ctx.needs_input_grad[1:], grads))

    @staticmethod
    def jvp(ctx: Any, *given: Any) -> Any:
        """Run the author's jvp, or the transpose of backward."""
        return tangents(ctx, given[1:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: Call, *row: Any) -> Any:
        """Run the author's batching rule, or a loop."""
        return batched(info, call, row, in_dims[1:], call.single)


# PyTorch asks for the signature at each apply; asking costs more than the rest.
Transformed.forward.__signature__ = inspect.signature(Transformed.forward)  # type: ignore[attr-defined]

"""The numbers that a random operator draws in PyTorch's programs follow PyTorch's own stream.

NOTE [Drawn twice]
`torch.utils.checkpoint` runs a function again for its gradient, and puts PyTorch's streams back to
where they stood. So the kernel of a random operator (`Tag.nondeterministic_seeded`) draws from a
generator that begins at a number of PyTorch's stream, on the device of its tensors: then it draws
the same again, and `torch.manual_seed` says what. Tensors of ours over PyTorch's arrays draw from
our generator, as they do everywhere; where they would be drawn twice, they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

from polyop import tree
from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.kernel import tensors_in
from polyop.bridges.torch.schema import TORCH
from polyop.dispatch.operator import OpOverload
from polyop.layers.payloads.answers import refuse_drawn_twice
from polyop.ops.generator import default_generator, following, stand, state_of
from polyop.schema.tags import Tag

#: Whether a call comes of tensors of ours, which draw from our generator.
_OURS: ContextVar[bool] = ContextVar("ours", default=False)


def is_random(op: OpOverload) -> bool:
    """Tell whether an operator draws random numbers."""
    return Tag.nondeterministic_seeded in op.tags


def drawing(op: OpOverload, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Let a kernel follow PyTorch's stream, if its operator draws."""
    if not is_random(op):
        return kernel

    def drawn(*args: Any, **named: Any) -> Any:
        if _OURS.get():
            return kernel(*args, **named)
        return following(partial(_seed, args, named), kernel, *args, **named)

    return announce(drawn)  # type: ignore[no-any-return]


def _seed(args: Any, named: Any) -> int:
    devices = [t.device for v in tree.leaves([args, named]) for t in tensors_in(v)]
    return TORCH.seed(next((d for d in devices if d.type != "cpu"), "cpu"))


def drawn_by_us(op: OpOverload, fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function whose kernel draws from our generator.

    Raises:
        AutogradError: it would draw a second time for the gradient.
    """
    if not is_random(op):
        return fn(*args)
    refuse_drawn_twice(op, TORCH)
    token = _OURS.set(True)
    try:
        return fn(*args)
    finally:
        _OURS.reset(token)


def again(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that draws at each call what it draws at the first."""
    cuda: Any = torch.cuda
    start, ours = torch.get_rng_state(), state_of(default_generator())
    more = cuda.get_rng_state_all() if cuda.is_initialized() else []

    def run(*args: Any) -> Any:
        torch.set_rng_state(start)
        if more:
            cuda.set_rng_state_all(more)
        stand(default_generator(), ours)
        return fn(*args)

    return run

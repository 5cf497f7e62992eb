"""`polyop.autograd`: gradients, and functions with gradients of their own."""

from typing import TYPE_CHECKING

from polyop.layers.autograd import (
    backward,
    enable_grad,
    grad,
    inference_mode,
    no_grad,
    set_autograd_fallback,
    set_grad_enabled,
)
from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.layers.autograd.function import Function
    from polyop.layers.autograd.numeric import gradcheck, gradgradcheck

__all__ = [
    "Function",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_autograd_fallback",
    "set_grad_enabled",
]
__getattr__, __dir__ = lazily(
    __name__,
    {"Function": "polyop.layers.autograd.function"}
    | dict.fromkeys(["gradcheck", "gradgradcheck"], "polyop.layers.autograd.numeric"),
)

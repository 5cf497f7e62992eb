"""`polyop.autograd`: gradients, and functions with gradients of their own."""

from polyop.layers.autograd import (
    Function,
    backward,
    enable_grad,
    grad,
    gradcheck,
    gradgradcheck,
    inference_mode,
    no_grad,
    set_autograd_fallback,
    set_grad_enabled,
)

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

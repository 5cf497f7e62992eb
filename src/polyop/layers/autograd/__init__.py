"""Reverse-mode gradients: recording, the engine, authors' gradients, and the transforms."""

from polyop.layers.autograd import api, forward  # noqa: F401 - they register the layer and methods
from polyop.layers.autograd.api import backward, grad
from polyop.layers.autograd.function import Function
from polyop.layers.autograd.gradcheck import gradcheck, gradgradcheck
from polyop.layers.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from polyop.layers.autograd.recorders import set_autograd_fallback

__all__ = [
    "Function",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_autograd_fallback",
    "set_grad_enabled",
]

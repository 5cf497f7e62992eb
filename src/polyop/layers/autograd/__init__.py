"""Reverse-mode gradients: recording, the engine, authors' gradients, and the transforms."""

from typing import TYPE_CHECKING

from polyop.layers.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.layers.autograd.anomaly import (
        detect_anomaly,
        is_anomaly_check_nan_enabled,
        is_anomaly_enabled,
        set_detect_anomaly,
    )
    from polyop.layers.autograd.api import backward, grad
    from polyop.layers.autograd.function import Function
    from polyop.layers.autograd.numeric import gradcheck, gradgradcheck
    from polyop.layers.autograd.packing import saved_tensors_hooks
    from polyop.layers.autograd.recorders import set_autograd_fallback

__all__ = [
    "Function",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "saved_tensors_hooks",
    "set_autograd_fallback",
    "set_detect_anomaly",
    "set_grad_enabled",
]
_PLACES = {
    "Function": "function",
    "backward": "api",
    "detect_anomaly": "anomaly",
    "grad": "api",
    "gradcheck": "numeric",
    "gradgradcheck": "numeric",
    "is_anomaly_check_nan_enabled": "anomaly",
    "is_anomaly_enabled": "anomaly",
    "saved_tensors_hooks": "packing",
    "set_autograd_fallback": "recorders",
    "set_detect_anomaly": "anomaly",
}
__getattr__, __dir__ = lazily(__name__, {k: f"{__name__}.{v}" for k, v in _PLACES.items()})

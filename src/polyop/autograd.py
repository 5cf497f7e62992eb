"""`polyop.autograd`: gradients, and functions with gradients of their own."""

from typing import TYPE_CHECKING

from polyop.layers.autograd import enable_grad, inference_mode, no_grad, set_grad_enabled
from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.layers.autograd import (
        Function,
        backward,
        detect_anomaly,
        grad,
        gradcheck,
        gradgradcheck,
        is_anomaly_check_nan_enabled,
        is_anomaly_enabled,
        saved_tensors_hooks,
        set_autograd_fallback,
        set_detect_anomaly,
    )

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
    "no_grad",
    "saved_tensors_hooks",
    "set_autograd_fallback",
    "set_detect_anomaly",
    "set_grad_enabled",
]
__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "polyop.layers.autograd"))

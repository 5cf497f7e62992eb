"""All native kernels: each family files its own when it is read."""

from polyop.payloads import (  # noqa: F401 - they file their kernels
    native_indexing,
    native_linear,
    native_pointwise,
    native_reductions,
    native_views,
)
from polyop.payloads.native import NATIVE, native_kernel

__all__ = ["NATIVE", "native_kernel"]

"""`polyop.bridge`: what programs of other frameworks need besides the operators themselves."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.bridges.torch.checks import torch_checks
    from polyop.bridges.torch.onnx import onnx_translations, without_writes
    from polyop.export.onnx.sessions import add_onnx_operators, onnx_session

__all__ = [
    "add_onnx_operators",
    "onnx_session",
    "onnx_translations",
    "torch_checks",
    "without_writes",
]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "add_onnx_operators": "polyop.export.onnx.sessions",
        "onnx_session": "polyop.export.onnx.sessions",
        "onnx_translations": "polyop.bridges.torch.onnx",
        "torch_checks": "polyop.bridges.torch.checks",
        "without_writes": "polyop.bridges.torch.onnx",
    },
)

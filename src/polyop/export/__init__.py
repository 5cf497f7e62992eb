"""Export: a function as a program that can be saved, cut into parts, and lowered."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.export.capture import export, run_decompositions
    from polyop.export.delegate import call_delegate
    from polyop.export.dims import Dim
    from polyop.export.file import load, save
    from polyop.export.functions import call_custom_autograd_function
    from polyop.export.lower import to_backend
    from polyop.export.lowered import (
        BACKENDS,
        Backend,
        CompileSpec,
        LoweredModule,
        register_backend,
    )
    from polyop.export.onnx.registry import register_onnx
    from polyop.export.parts import Part, partition
    from polyop.export.program import Program, ProgramModule
    from polyop.export.signature import Dimension, InputSpec, OutputSpec, Signature

_PLACES = {
    "BACKENDS": "lowered",
    "Backend": "lowered",
    "CompileSpec": "lowered",
    "Dim": "dims",
    "Dimension": "signature",
    "InputSpec": "signature",
    "LoweredModule": "lowered",
    "OutputSpec": "signature",
    "Part": "parts",
    "Program": "program",
    "ProgramModule": "program",
    "Signature": "signature",
    "call_custom_autograd_function": "functions",
    "call_delegate": "delegate",
    "export": "capture",
    "load": "file",
    "partition": "parts",
    "register_backend": "lowered",
    "register_onnx": "onnx.registry",
    "run_decompositions": "capture",
    "save": "file",
    "to_backend": "lower",
}
__all__ = [
    "BACKENDS",
    "Backend",
    "CompileSpec",
    "Dim",
    "Dimension",
    "InputSpec",
    "LoweredModule",
    "OutputSpec",
    "Part",
    "Program",
    "ProgramModule",
    "Signature",
    "call_custom_autograd_function",
    "call_delegate",
    "export",
    "load",
    "partition",
    "register_backend",
    "register_onnx",
    "run_decompositions",
    "save",
    "to_backend",
]
__getattr__, __dir__ = lazily(
    __name__,
    {name: f"polyop.export.{file}" for name, file in _PLACES.items()},
)

"""Export: a function as a program that can be saved, cut into parts, and lowered."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.export.capture import export, run_decompositions
    from polyop.export.dims import Dim
    from polyop.export.program import Program

_PLACES = {
    "Dim": "dims",
    "Program": "program",
    "export": "capture",
    "run_decompositions": "capture",
}
__all__ = [*_PLACES]
__getattr__, __dir__ = lazily(
    __name__, {name: f"polyop.export.{file}" for name, file in _PLACES.items()}
)

"""Compile: capture a function as a graph, guard it, and run the graph instead."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.compile.compiled import CompiledFunction, compile

__getattr__, __dir__ = lazily(
    __name__, dict.fromkeys(["CompiledFunction", "compile"], "polyop.compile.compiled")
)

__all__ = ["CompiledFunction", "compile"]

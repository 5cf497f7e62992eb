"""Compile: capture a function as a graph, guard it, and run the graph instead."""

from polyop.compile.compiled import CompiledFunction, compile

__all__ = ["CompiledFunction", "compile"]

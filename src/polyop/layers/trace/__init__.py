"""Tracing: calls are recorded as the nodes of a graph, while they run on fakes or on data."""

from polyop.layers.trace.handlers import TraceLayer
from polyop.layers.trace.make_fx import make_fx
from polyop.layers.trace.sizes import assert_holds, sym_size
from polyop.layers.trace.tracer import Tracer

__all__ = ["TraceLayer", "Tracer", "assert_holds", "make_fx", "sym_size"]

"""Operators over arrays of other libraries: below all layers, in the place of a kernel."""

from polyop.layers.payloads.authors import author_handler, call_held
from polyop.layers.payloads.handlers import handler_of
from polyop.layers.payloads.plan import payload_route

__all__ = ["author_handler", "call_held", "handler_of", "payload_route"]

"""Functionalization: programs that write become programs that do not."""

from polyop.layers.functionalize.api import call_at, functionalize
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import Functional
from polyop.layers.functionalize.twin import functional_twin

__all__ = ["Functional", "FunctionalLevel", "call_at", "functional_twin", "functionalize"]

"""Functionalization: programs that write become programs that do not."""

from polyop.layers.functionalize.api import functionalize
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import Functional
from polyop.layers.functionalize.twin import functional_twin

__all__ = ["Functional", "FunctionalLevel", "functional_twin", "functionalize"]

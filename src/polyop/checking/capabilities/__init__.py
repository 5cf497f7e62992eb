"""What an operator can do on which array library, found by doing it."""

from polyop.checking.capabilities.cells import CAPABILITIES, Cell
from polyop.checking.capabilities.matrix import Matrix, capabilities, matrix_of

__all__ = ["CAPABILITIES", "Cell", "Matrix", "capabilities", "matrix_of"]

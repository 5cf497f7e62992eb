"""What the tests of the sparse product share: a matrix in its parts, and as a dense one."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

FOLDER = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(FOLDER / "sparse_matvec"))
_example: Any = import_module("sparse_matvec")
sparse_matvec: Any = _example.sparse_matvec
sparse_rmatvec: Any = _example.sparse_rmatvec
sparse_outer: Any = _example.sparse_outer


def drawn(rows: int, columns: int, seed: int) -> tuple[Any, Any, Any]:
    """Draw the parts of a matrix, and vectors for both of its sides."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.4)
    matrix = csr_array(dense)
    parts = (matrix.data, matrix.indices, matrix.indptr)
    return parts, rng.normal(size=rows), rng.normal(size=columns)


def dense_of(data: Any, indices: Any, indptr: Any, columns: int) -> np.ndarray[Any, Any]:
    """Give the matrix of its parts, entry by entry."""
    dense = np.zeros((len(indptr) - 1, columns), np.asarray(data).dtype)
    for row in range(len(indptr) - 1):
        for k in range(indptr[row], indptr[row + 1]):
            dense[row, indices[k]] += data[k]
    return dense

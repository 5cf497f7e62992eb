"""`polyop.linalg`: the linear algebra of the Array API; each is read when it is first used."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily
from polyop.ops.linalg import cholesky, det, inv, solve, trace, vector_norm
from polyop.ops.linear import matmul, outer, tensordot, vecdot
from polyop.ops.views import matrix_transpose

if TYPE_CHECKING:
    from polyop.ops.factorizations import eigh, eigvalsh, qr, svd, svdvals
    from polyop.ops.matrices import (
        cross,
        diagonal,
        matrix_norm,
        matrix_power,
        matrix_rank,
        pinv,
        slogdet,
    )

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
__getattr__, __dir__ = lazily(
    __name__,
    dict.fromkeys(["eigh", "eigvalsh", "qr", "svd", "svdvals"], "polyop.ops.factorizations")
    | dict.fromkeys(
        ["cross", "diagonal", "matrix_norm", "matrix_power", "matrix_rank", "pinv", "slogdet"],
        "polyop.ops.matrices",
    ),
)

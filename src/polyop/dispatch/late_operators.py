"""polyop's own operators that are defined when they are first used, and where.

Defining an operator takes time that a program without it need not spend. A
layer must import none of these files: layers are read under the registry's lock,
for which another thread's import of such a file may wait.
"""

from __future__ import annotations

from polyop.lazy import load

LATE_OPERATORS: dict[str, str] = {
    **dict.fromkeys(
        ["core::svd", "core::svdvals", "core::eigh", "core::eigvalsh", "core::qr"],
        "polyop.ops.factorizations",
    ),
    **dict.fromkeys(["core::slogdet", "core::pinv"], "polyop.ops.matrices"),
    **dict.fromkeys(["core::fft_c2c", "core::fft_r2c", "core::fft_c2r"], "polyop.ops.fourier"),
    **dict.fromkeys(
        ["core::inv", "core::det", "core::cofactors", "core::solve_matrix", "core::half_tril",
         "core::hermitian_part", "core::cholesky_lower", "core::norm2"],
        "polyop.ops.linalg",
    ),
    **dict.fromkeys(
        ["core::take_along_axis", "core::scatter_along_axis", "core::put_along_axis",
         "core::last_put_along_axis", "core::argsort", "core::sort", "core::topk",
         "core::searchsorted"],
        "polyop.ops.searching",
    ),
    **dict.fromkeys(
        ["core::mean", "core::mean_grad", "core::mean_or_zero", "core::var", "core::std",
         "core::deviation", "core::logsumexp", "core::softmax", "core::log_softmax"],
        "polyop.ops.statistics",
    ),
    **dict.fromkeys(
        ["core::cumulative_sum", "core::cumulative_prod", "core::suffix_sum",
         "core::running_prod_grad"],
        "polyop.ops.running",
    ),
    "core::among": "polyop.ops.differences",
    "core::to_device": "polyop.ops.moving",
}  # fmt: skip


def bring(name: str) -> None:
    """Define an operator if it is one of these; not under the registry's lock.

    An import holds a lock of its own, and takes the registry's inside it.
    """
    place = LATE_OPERATORS.get(name.partition("@")[0].partition(".")[0])
    if place is not None:
        load(place)


__all__ = ["LATE_OPERATORS", "bring"]

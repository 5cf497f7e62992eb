"""polyop's own operators that are defined when they are first used, and where.

Defining an operator takes time that a program without it need not spend.
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
    "core::among": "polyop.ops.differences",
}


def bring(name: str) -> None:
    """Define an operator if it is one of these; not under the registry's lock.

    An import holds a lock of its own, and takes the registry's inside it.
    """
    place = LATE_OPERATORS.get(name.partition("@")[0].partition(".")[0])
    if place is not None:
        load(place)


__all__ = ["LATE_OPERATORS", "bring"]

"""`polyop.fft`: the Fourier transforms of the Array API; each is read when it is first used."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.ops.fourier import (
        fft,
        fftn,
        hfft,
        ifft,
        ifftn,
        ihfft,
        irfft,
        irfftn,
        rfft,
        rfftn,
    )
    from polyop.ops.frequencies import fftfreq, fftshift, ifftshift, rfftfreq

__all__ = [
    "fft", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifftn", "ifftshift", "ihfft", "irfft",
    "irfftn", "rfft", "rfftfreq", "rfftn",
]  # fmt: skip
__getattr__, __dir__ = lazily(
    __name__,
    dict.fromkeys(__all__, "polyop.ops.fourier")
    | dict.fromkeys(
        ["fftfreq", "fftshift", "ifftshift", "rfftfreq"],
        "polyop.ops.frequencies",
    ),
)

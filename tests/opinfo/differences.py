"""The differences that are meant: each says in one sentence what differs, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.opinfo.pair import SMOOTH, Pair
from tests.opinfo.reasons import Reason


class Meant(NamedTuple):
    """A difference that is meant.

    Attributes:
        operators: the published operators; empty for all.
        checks: where it shows; empty for all.
        reason: how it is counted.
        sentence: what differs.
        holds: tells of a sample, and the error, whether it is this difference.
    """

    operators: tuple[str, ...]
    checks: tuple[str, ...]
    reason: Reason
    sentence: str
    holds: Callable[[Any, Exception], bool] = lambda sample, error: True


def _says(text: str) -> Callable[[Any, Exception], bool]:
    return lambda sample, error: text in str(error)


FOURIER = tuple(
    f"fft.{name}{many}"
    for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
    for many in ("", "n", "2")
)
FACTORS = (
    "linalg.svd", "svd", "linalg.eigh", "linalg.qr", "qr", "linalg.cholesky", "cholesky",
    "linalg.inv", "linalg.solve", "linalg.matrix_power",
)  # fmt: skip
NORMS = ("linalg.norm", "linalg.norm/subgradients_at_zero", "linalg.vector_norm", "norm")

MEANT: list[Meant] = [
    Meant(
        FACTORS,
        ("strides",),
        Reason.LAYOUT,
        "Matrices that linear algebra makes are in C order; LAPACK leaves PyTorch's by columns.",
    ),
    Meant(
        FOURIER,
        ("strides",),
        Reason.LAYOUT,
        "Transforms are in C order; PyTorch leaves the axis transformed last outside or inside.",
    ),
    Meant(
        ("cat",),
        ("strides",),
        Reason.LAYOUT,
        "A joined tensor is in C order; PyTorch keeps the order of axes that all its parts have.",
        lambda sample, error: "strides" in str(error),
    ),
    Meant(
        ("flip",),
        ("strides",),
        Reason.LAYOUT,
        "`flip` is a view with negative strides; PyTorch's is a copy.",
    ),
    Meant(
        ("nonzero",),
        (),
        Reason.KNOWN,
        "`nonzero` with one tensor for each axis refuses a tensor without axes, as the Array API "
        "has it; PyTorch takes it for a vector.",
        _says("there is none"),
    ),
    Meant(
        ("ravel",),
        ("strides",),
        Reason.LAYOUT,
        "`ravel` of a vector is a view whatever its stride; PyTorch makes it contiguous.",
    ),
    Meant(
        ("diff",),
        ("strides",),
        Reason.LAYOUT,
        "`diff` done no times gives its argument; PyTorch gives a part of the joined one.",
    ),
    Meant(
        ("linalg.svd", "svd"),
        SMOOTH,
        Reason.KNOWN,
        "`svd` with full_matrices has no gradient: the added vectors are not determined, and "
        "the error says to pass full_matrices=False. PyTorch leaves them out of the gradient.",
        _says("vectors that the matrix does not determine"),
    ),
    Meant(
        ("squeeze", "squeeze/multiple"),
        (),
        Reason.KNOWN,
        "`squeeze` of an axis whose size is not one is an error, as the Array API has it; "
        "PyTorch leaves such an axis.",
        _says("has size 5"),
    ),
    Meant(
        ("tensordot",),
        (),
        Reason.KNOWN,
        "Axes that meet in `tensordot` have one size, as the Array API has it; PyTorch repeats "
        "those of size one.",
        _says("the axes that meet differ in size"),
    ),
    Meant(
        ("cat",),
        (),
        Reason.KNOWN,
        "Joined tensors have the same number of axes; PyTorch skips empty vectors.",
        lambda sample, error: any(tuple(t.shape) == (0,) for t in sample.tensors),
    ),
    Meant(
        NORMS,
        ("second", "mixed"),
        Reason.UNDEFINED,
        "A norm has no second derivative at zero: here it is zero, as the first is; PyTorch's "
        "is NaN.",
        lambda sample, error: all(not t.any() for t in sample.tensors),
    ),
    Meant(
        (),
        ("vmap", "batched", "fake", "strides"),
        Reason.DATA_SHAPE,
        "How often an element is repeated, or where a part begins, is looked up in a tensor: "
        "fakes and batches refuse, by name.",
        lambda sample, error: (
            type(error).__name__ in {"DataDependentOutputError", "VmapError"}
            and ("tolist()" in str(error) or "item()" in str(error))
        ),
    ),
    Meant(
        ("masked_select", "__getitem__", "index_put"),
        ("vmap", "batched"),
        Reason.DATA_SHAPE,
        "A mask inside a batch chooses a number of elements that data say: an error by name.",
        lambda sample, error: "mask" in str(error) or type(error).__name__ == "VmapError",
    ),
]


def known(pair: Pair, check: str, dtype: Any, sample: Any, error: Exception) -> Reason | None:
    """Find the meant difference that explains an error, if there is one."""
    for meant in MEANT:
        fits = not meant.operators or pair.name in meant.operators
        if fits and (not meant.checks or check in meant.checks) and meant.holds(sample, error):
            return meant.reason
    return None

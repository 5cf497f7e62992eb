"""How one sample is called on both sides, and how results are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tests.opinfo.convert import Sample, leaves, to_array, to_ours
from tests.opinfo.pair import Pair
from tests.opinfo.reasons import Reason

from polyop.tensor.tensor import Tensor, is_differentiable

Fn = Callable[..., Any]
Tensors = Sequence[Any]
#: Relative and absolute tolerance by the size of a real number.
TOLERANCE = {2: (1e-2, 1e-2), 4: (2e-4, 2e-5), 8: (1e-7, 1e-8)}


class Difference(AssertionError):
    """The two sides differ."""


class Both:
    """One sample, called on both sides."""

    def __init__(self, pair: Pair, info: Any, sample: Sample) -> None:
        self.pair, self.info, self.sample = pair, info, sample
        self.fn = pair.theirs or info.op
        self.given = [t.detach() for t in sample.tensors]

    def theirs(self, tensors: Tensors, *, whole: bool = False) -> list[Any]:
        """Call PyTorch; give what is compared, as a list, or the whole result."""
        out = self.sample.theirs(self.fn, tensors)
        return leaves(out if whole else self.pair.after[1](out))

    def ours(self, tensors: Tensors, *, whole: bool = False) -> list[Any]:
        """Call ours; give what is compared, as a list, or the whole result."""
        out = self.sample.ours(self.pair.ours, tensors)
        return leaves(out if whole else self.pair.after[0](out))

    def ours_by(self, places: Sequence[int], tensors: Tensors) -> Fn:
        """Give a function of the tensors at some places, with floating results only."""

        def fn(*chosen: Any) -> Any:
            full = list(tensors)
            for i, x in zip(places, chosen, strict=True):
                full[i] = x
            out = [x for x in self.ours(full) if isinstance(x, Tensor)]
            return tuple([x for x in out if is_differentiable(x.dtype)])

        return fn

    def theirs_by(self, places: Sequence[int]) -> Fn:
        """Do the same on PyTorch's side."""

        def fn(*chosen: Any) -> Any:
            full = list(self.given)
            for i, x in zip(places, chosen, strict=True):
                full[i] = x
            out = [x for x in self.theirs(full) if isinstance(x, torch.Tensor)]
            return tuple([x for x in out if x.is_floating_point() or x.is_complex()])

        return fn


# -- comparing ------------------------------------------------------------------


def agree(what: str, ours: Any, theirs: Any) -> Reason | None:
    """Compare two results; give the reason if only their dtypes differ."""
    if not isinstance(theirs, torch.Tensor):
        if isinstance(ours, Tensor):
            ours = ours.tolist()
        if ours != theirs and not (ours != ours and theirs != theirs):
            raise Difference(f"{what}: {ours!r}, not {theirs!r}")
        return None
    if not isinstance(ours, Tensor):
        raise Difference(f"{what}: {ours!r} is no tensor")
    a, b = ours.numpy(force=True), to_array(theirs)
    if a.shape != b.shape:
        raise Difference(f"{what}: shape {a.shape}, not {b.shape}")
    close(what, a, b)
    return None if a.dtype == b.dtype else Reason.PROMOTION


def close(what: str, a: Any, b: Any) -> None:
    """Compare elements in the narrower of two dtypes."""
    kinds = [x.dtype for x in (a, b) if x.dtype.kind in "fc"]
    if not kinds:
        same = np.array_equal(a, b)
    else:
        size = min(d.itemsize // (2 if d.kind == "c" else 1) for d in kinds)
        rtol, atol = TOLERANCE[size]
        with np.errstate(all="ignore"):
            if a.dtype.kind == "c" or b.dtype.kind == "c":
                same = _parts_close(a, b, rtol, atol)
            else:
                same = np.allclose(a.astype("f8"), b.astype("f8"), rtol, atol, equal_nan=True)
    if not same:
        raise Difference(f"{what}:\n{a}\nnot\n{b}")


def _parts_close(a: Any, b: Any, rtol: float, atol: float) -> bool:
    """Compare complex numbers; where an infinity or NaN is in one part, that is enough."""
    fine = np.isfinite(a) & np.isfinite(b)
    both = ~np.isfinite(a) & ~np.isfinite(b)
    return bool(np.all(both | fine)) and np.allclose(a[fine], b[fine], rtol, atol)


def compare_all(what: str, ours: Sequence[Any], theirs: Sequence[Any]) -> Reason | None:
    """Compare lists of results."""
    if len(ours) != len(theirs):
        raise Difference(f"{what}: {len(ours)} results, not {len(theirs)}")
    pairs = enumerate(zip(ours, theirs, strict=True))
    found = [agree(f"{what} {i}", a, b) for i, (a, b) in pairs]
    return next((f for f in found if f is not None), None)


def noise(like: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Make random tensors of the same shapes and dtypes."""
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(x.shape, dtype=x.dtype, generator=made) for x in like]


def ours_of(tensors: Sequence[torch.Tensor]) -> list[Tensor]:
    """Convert tensors."""
    return [to_ours(t) for t in tensors]


def varied(x: torch.Tensor) -> torch.Tensor:
    """Give the same elements in another order."""
    return x.flip(tuple(range(x.ndim))) if x.ndim else x

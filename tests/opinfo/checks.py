"""The comparisons: each takes a sample, and returns if both sides agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.opinfo.compare import Both, Difference, agree, compare_all, ours_of, varied
from tests.opinfo.derivatives import batched, forward, gradient, mixed, second
from tests.opinfo.reasons import Reason, skip

import polyop
from polyop.symbolic import ShapeEnv, SymInt
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def values(both: Both) -> Reason | None:
    """Compare results."""
    theirs = both.theirs(both.given)
    return compare_all("result", both.ours(ours_of(both.given)), theirs)


def in_place(both: Both) -> Reason | None:
    """Compare what is written to the first argument."""
    inplace = both.info.inplace_variant
    if both.pair.writes is None or inplace is None:
        raise LookupError
    if "alpha" in both.sample.kwargs:
        skip(Reason.ARGUMENT)
    theirs = [t.clone() for t in both.given]
    try:
        written = both.sample.theirs(inplace, theirs)
    except RuntimeError:
        skip(Reason.FORM)  # the result does not fit the argument
    ours = [polyop.clone(t) for t in ours_of(both.given)]
    method = getattr(Tensor, both.pair.writes)
    given = both.sample.ours(lambda *args, **kwargs: (args, kwargs), ours)
    found = method(*given[0], **given[1])
    if found is not given[0][0]:
        raise Difference(f"{both.pair.writes} gives another tensor than it wrote")
    return agree("written", found, written)


# -- batches ----------------------------------------------------------------------


def vmap(both: Both) -> Reason | None:
    """Compare a batch of two samples with a loop of PyTorch, for all tensors and for each alone."""
    if not both.given:
        skip(Reason.NO_TENSOR)
    n = len(both.given)
    patterns: list[tuple[int | None, ...]] = [(0,) * n, (-1,) * n]
    if n > 1:
        patterns += [tuple(0 if i == j else None for i in range(n)) for j in range(min(n, 3))]
    found = [_vmapped(both, dims) for dims in patterns]
    return next((f for f in found if f is not None), None)


def _vmapped(both: Both, dims: tuple[int | None, ...]) -> Reason | None:
    other = [t.clone() if both.pair.alike else varied(t) for t in both.given]
    mixed = [a if d is None else b for a, b, d in zip(both.given, other, dims, strict=True)]
    rows = [both.given, mixed]
    looped = [both.theirs(row) for row in rows]
    if not all(isinstance(x, torch.Tensor) for row in looped for x in row):
        skip(Reason.NO_TENSOR)
    try:
        theirs = [torch.stack(column) for column in zip(*looped, strict=True)]
    except (RuntimeError, ValueError):
        skip(Reason.DATA_SHAPE)
    stacked = [
        pair[0] if d is None else torch.stack(pair, d)
        for d, pair in zip(dims, zip(*rows, strict=True))
    ]
    batch = polyop.func.vmap(lambda *x: tuple(both.ours(x)), in_dims=dims)
    return compare_all("batch", batch(*ours_of(stacked)), theirs)


# -- without data -------------------------------------------------------------------


def _faked(both: Both) -> tuple[list[Any], list[Any]]:
    real = both.ours(ours_of(both.given), whole=True)
    with polyop.fake.FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True) as mode:
        fakes = both.ours([mode.from_tensor(t) for t in ours_of(both.given)], whole=True)
    return real, fakes


def fake(both: Both) -> Reason | None:
    """Compare the fake results with the real ones, and their shapes and dtypes with PyTorch's."""
    theirs = _tensors(both)
    real, fakes = _faked(both)
    if len(fakes) != len(real):
        raise Difference(f"{len(fakes)} fake results, not {len(real)}")
    reason = None
    for f, r, t in zip(fakes, real, theirs, strict=True):
        if not isinstance(f, Tensor) or not isinstance(t, torch.Tensor):
            continue
        if f.dtype != r.dtype or not _fits(f, r) or (_known(f) and strides(f) != strides(r)):
            raise Difference(f"fake {facts(f)}, real {facts(r)}")
        if not _fits(f, t):
            raise Difference(f"fake {facts(f)}, PyTorch's {tuple(t.shape)}")
        if str(t.dtype).removeprefix("torch.") != f.dtype.name:
            reason = Reason.PROMOTION
    return reason


def _tensors(both: Both) -> list[Any]:
    """Call PyTorch; leave the sample out if it gives no tensors."""
    theirs = both.theirs(both.given, whole=True)
    if not any(isinstance(t, torch.Tensor) for t in theirs):
        skip(Reason.NO_TENSOR)
    return theirs


def _known(x: Any) -> bool:
    """Tell whether all sizes of a fake are known without data."""
    return not any(isinstance(n, SymInt) for n in x.shape)


def _fits(fake: Any, real: Any) -> bool:
    """Tell whether the shape of a fake is that of a real tensor, as far as it is known."""
    pairs = zip(fake.shape, real.shape, strict=False)
    return len(fake.shape) == len(real.shape) and all(
        isinstance(a, SymInt) or a == b for a, b in pairs
    )


def strides(x: Any) -> Any:
    """Give the strides that say where elements lie: those of axes with more than one."""
    if 0 in x.shape:
        return None
    return tuple([s for s, n in zip(x.stride(), x.shape, strict=True) if n != 1])


def facts(x: Any) -> str:
    """Say what a fake knows."""
    return f"{x.dtype}{tuple(x.shape)} strides {tuple(x.stride())}"


def layouts(both: Both) -> Reason | None:
    """Compare strides with PyTorch's."""
    theirs = _tensors(both)
    _, fakes = _faked(both)
    for f, t in zip(fakes, theirs, strict=True):
        if not isinstance(t, torch.Tensor) or not _known(f):
            continue
        if strides(f) != strides(t):
            raise Difference(f"fake {facts(f)}, PyTorch's strides {t.stride()}")
    return None


RUNS: dict[str, Fn] = {
    "values": values, "in place": in_place, "gradient": gradient, "forward": forward,
    "second": second, "mixed": mixed, "vmap": vmap, "batched": batched, "fake": fake,
    "strides": layouts,
}  # fmt: skip

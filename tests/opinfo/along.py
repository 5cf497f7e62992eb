"""Reductions, running sums, sorting and searching, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.opinfo.pair import pair
from tests.opinfo.reasons import Reason, skip, unless
from tests.opinfo.shapes import method

import polyop as P

Fn = Callable[..., Any]

for name in (
    "sum", "prod", "amax", "amin", "all", "any", "argmax", "argmin", "count_nonzero", "logsumexp",
    "cumsum", "cumprod",
):  # fmt: skip
    method(name)


def _axis(dim: Any) -> Any:
    """Spell axes: PyTorch's empty tuple means all of them."""
    return None if dim == () else dim


def _mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return (x if dtype is None else x.to(dtype)).mean(dim, keepdim)


def _spread(name: str) -> Fn:
    def call(x: Any, dim: Any = None, *rest: Any, **named: Any) -> Any:
        if isinstance(dim, bool):
            dim, rest = None, (dim, *rest)
        if "correction" in named and named["correction"] is None:
            named["correction"] = 1
        return getattr(x, name)(dim, *rest, **named)

    return call


def _both(first: Fn, second: Fn) -> Fn:
    return lambda *a, **k: (first(*a, **k), second(*_without(a), **_only_axes(k)))


def _without(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([a for a in args if not isinstance(a, bool)])


def _only_axes(named: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in named.items() if k in {"dim", "keepdim"}}


for name in ("std", "var"):
    for variant in ("", "/unbiased"):
        pair(name + variant, _spread(name), name)
        pair(f"{name}_mean{variant}", _both(_spread(name), _mean), name, "mean")
pair("mean", _mean, "mean")


def _extreme(name: str) -> Fn:
    def call(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return getattr(x, name)()
        given = {"axis": dim, "keepdims": keepdim}
        return getattr(P, name)(x, **given), getattr(P, f"arg{name}")(x, **given)

    return call


def _ends(x: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    given = {"axis": dim, "keepdims": keepdim}
    return P.min(x, **given), P.max(x, **given)


for name in ("max", "min"):
    pair(f"{name}/reduction_no_dim", _extreme(name), name)
    pair(f"{name}/reduction_with_dim", _extreme(name), name, f"arg{name}")
pair("aminmax", _ends, "max", "min")


def _softmax(name: str) -> Fn:
    def call(x: Any, dim: int, dtype: Any = None) -> Any:
        return getattr(x if dtype is None else x.to(dtype), name)(dim)

    return call


for name in ("softmax", "log_softmax"):
    for variant in ("", "/with_dtype"):
        pair(name + variant, _softmax(name), name)


# -- sorting and searching ------------------------------------------------------------


def _sort(x: Any, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    # PyTorch gives the order too.
    given = {"axis": dim, "descending": descending, "stable": stable}
    return P.sort(x, **given), P.argsort(x, **given)


def _argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    return P.argsort(x, axis=dim, descending=descending, stable=stable)


def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    return P.topk(x, k, axis=dim, largest=largest, sorted=sorted)


def _searchsorted(
    sequence: Any, x: Any, *, out_int32: bool = False, right: bool = False, side: Any = None,
    sorter: Any = None,
) -> Any:  # fmt: skip
    unless(out_int32, False)
    if sequence.ndim != 1 or not isinstance(x, P.Tensor):
        skip(Reason.FORM)
    side = side or ("right" if right else "left")
    return P.searchsorted(sequence, x, side=side, sorter=sorter)


def _unique(
    x: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: Any = None,
) -> Any:  # fmt: skip
    unless(dim, None)
    found = P.unique_all(x)
    out = [found.values]
    out += [found.inverse_indices] if return_inverse else []
    out += [found.counts] if return_counts else []
    return out[0] if len(out) == 1 else tuple(out)


def _diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    return P.diff(x, axis=dim, n=n, prepend=prepend, append=append)


pair("sort", _sort, "sort", "argsort")
pair("argsort", _argsort, "argsort")
pair("topk", _topk, "topk")
pair("msort", lambda x: P.sort(x, axis=0), "sort")
pair("searchsorted", _searchsorted, "searchsorted", alike=True)
pair(
    "bucketize",
    lambda x, edges, out_int32=False, right=False: _searchsorted(
        edges, x, out_int32=out_int32, right=right
    ),
    "searchsorted",
    alike=True,
)
pair(
    "unique",
    _unique,
    "unique_all", "unique_counts", "unique_inverse", "unique_values",
    skips={"vmap": Reason.DATA_SHAPE},
)  # fmt: skip
pair(
    "nonzero",
    lambda x, *, as_tuple=False: P.nonzero(x) if as_tuple else P.argwhere(x),
    "nonzero",
    skips={"vmap": Reason.DATA_SHAPE},
)
pair(
    "isin",
    lambda x, among, *, assume_unique=False, invert=False: P.isin(x, among, invert=invert),
    "isin",
)
pair("diff", _diff, "diff")
pair("trace", P.linalg.trace, "linalg.trace")

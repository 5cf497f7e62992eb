"""NumPy's functions on tensors: as with any object, but for those that mistake a method."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

from polyop.devices import as_dtype
from polyop.errors import UsageTypeError
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS

#: NumPy's functions that call a method which has PyTorch's meaning here.
MISTAKEN = {np.nonzero: "polyop.nonzero(x)", np.argwhere: "polyop.argwhere(x)"}
#: NumPy's functions that read arrays: where ours is, and the words that only say how to compute.
OURS: dict[Any, tuple[str, set[str]]] = {
    np.einsum: ("polyop.ops.contractions:einsum", {"optimize"}),
}
#: NumPy's reductions, which would call a method with words that it does not have.
REDUCTIONS = {
    np.sum: "sum", np.prod: "prod", np.mean: "mean", np.std: "std", np.var: "var",
    np.max: "max", np.amax: "max", np.min: "min", np.amin: "min", np.any: "any", np.all: "all",
}  # fmt: skip


def numpy_function(self: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Let NumPy's functions do what they do with any object, but for those that mistake a method.

    Raises:
        UsageTypeError: the function is one of those.
    """
    if func in MISTAKEN:
        raise UsageTypeError(
            f"numpy.{func.__name__} takes arrays: nonzero() of a Tensor gives rows of indices",
            fix=f"call {MISTAKEN[func]}, or give x.numpy()",
        )
    if func in REDUCTIONS:
        return _reduced(func, signature(func).bind(*args, **kwargs).arguments)
    place, how = OURS.get(func, ("", set()))
    if place and kwargs.keys() <= how:
        return load(place)(*args)
    return func._implementation(*args, **kwargs)


def _reduced(func: Any, named: dict[str, Any]) -> Any:
    """Call the operator of a reduction with NumPy's words and defaults.

    Raises:
        UsageTypeError: `out`, `where` or another word that only arrays know is given.
    """
    given = {k: v for k, v in named.items() if v is not None and v is not np._NoValue}
    x: Any = given.pop("a")
    dtype, name = given.pop("dtype", None), REDUCTIONS[func]
    words = {"axis", "keepdims"}
    if name in {"std", "var"}:
        words.add("correction")
        if "correction" not in given:
            given["correction"] = given.pop("ddof", 0)
    if given.keys() - words:
        raise UsageTypeError(
            f"numpy.{func.__name__} of a Tensor takes axis, dtype and keepdims alone",
            seen=", ".join(sorted(given.keys() - words)),
            fix="give x.numpy()",
        )
    if name in {"mean", "std", "var"} and x.dtype.kind in "biu":
        dtype = dtype or np.float64
    if dtype is None:
        return ON_TENSORS[name](x, **given)
    dtype = np.dtype(dtype) if isinstance(dtype, str) else as_dtype(dtype)
    return ON_TENSORS[name](x.astype(dtype), **given).astype(dtype)

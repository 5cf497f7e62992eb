"""Operators that make tensors, random ones among them, beside PyTorch's.

Of random tensors, and of those whose elements may be anything, the shape and
the dtype are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.opinfo.pair import SMOOTH, pair
from tests.opinfo.reasons import Reason, skip

import polyop as P
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def kwargs(named: dict[str, Any]) -> dict[str, Any]:
    """Drop arguments that say what is so anyway; leave out samples that say anything else."""
    named = {k: v for k, v in named.items() if k not in {"layout", "pin_memory"} or v}
    if {"layout", "pin_memory", "memory_format", "out"} & set(named):
        skip(Reason.ARGUMENT)
    return named


def _making(fn: Fn) -> Fn:
    return lambda *args, **named: fn(*args, **kwargs(named))


def _facts_ours(out: Tensor) -> Any:
    return tuple(out.shape), out.dtype.name


def _facts_theirs(out: torch.Tensor) -> Any:
    return tuple(out.shape), str(out.dtype).removeprefix("torch.")


FACTS = (_facts_ours, _facts_theirs)
ANYTHING: dict[str, Any] = {
    "after": FACTS,
    "skips": dict.fromkeys(("vmap", *SMOOTH), Reason.RANDOM),
}


def _arange(start: Any, end: Any = None, step: Any = 1, **named: Any) -> Any:
    named = kwargs(named)
    return P.arange(start, named.pop("end", end), step, **named)


def _linspace(start: Any, end: Any, steps: int, **named: Any) -> Any:
    if isinstance(start, Tensor) or isinstance(end, Tensor):
        skip(Reason.FORM)
    return P.linspace(start, end, steps, **kwargs(named))


def _uniform(x: Any, low: float = 0, high: float = 1) -> Any:
    return P.clone(x).uniform_(low, high)


def _randint(low: int, high: Any, size: Any = None, **named: Any) -> Any:
    if size is None:
        low, high, size = 0, low, high
    return P.randint(low, high, size, **kwargs(named))


def _normal(mean: Any, std: Any = 1.0, size: Any = None, **named: Any) -> Any:
    if size is None or isinstance(mean, Tensor) or isinstance(std, Tensor):
        skip(Reason.FORM)
    return P.normal(mean, std, size, **kwargs(named))


pair("arange", _arange, "arange")
pair("linspace", _linspace, "linspace")
pair("linspace/tensor_overload", _linspace, "linspace")
for name in ("eye", "zeros", "ones", "full"):
    pair(name, _making(getattr(P, name)), name)
for name in ("zeros_like", "ones_like", "full_like"):
    pair(name, _making(getattr(P, name)), name)
for name in ("new_zeros", "new_ones", "new_full"):
    pair(name, _making(lambda x, *a, name=name, **k: getattr(x, name)(*a, **k)), name)
for name in ("empty", "empty_like", "randn", "randn_like", "rand_like"):
    pair(name, _making(getattr(P, name)), name, **ANYTHING)
pair("new_empty", _making(lambda x, *a, **k: x.new_empty(*a, **k)), "new_empty", **ANYTHING)
pair("randint", _randint, "randint", **ANYTHING)
pair("normal/number_mean", _normal, "normal", **ANYTHING)
pair(
    "normal/in_place",
    lambda x, mean=0, std=1: P.clone(x).normal_(mean, std),
    "normal_",
    **ANYTHING,
)
pair("uniform", _uniform, "uniform_", **ANYTHING)
pair("bernoulli", lambda x: P.bernoulli(x), "bernoulli", **ANYTHING)

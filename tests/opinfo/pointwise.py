"""Operators that compute each element by itself, beside PyTorch's."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from tests.opinfo.pair import pair
from tests.opinfo.reasons import Reason, skip

import polyop as P
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def _written(name: str) -> str | None:
    return f"{name}_" if hasattr(Tensor, f"{name}_") else None


UNARY = [
    "abs", "acos", "acosh", "angle", "asin", "asinh", "atan", "atanh", "ceil", "clone", "cos",
    "cosh", "exp", "exp2", "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log10",
    "log1p", "log2", "logical_not", "nan_to_num", "positive", "reciprocal", "rsqrt",
    "sigmoid", "sign", "signbit", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc",
]  # fmt: skip
BINARY = [
    "atan2", "bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "copysign", "floor_divide", "fmod", "hypot", "lerp", "logaddexp", "logical_and",
    "logical_or", "logical_xor", "maximum", "minimum", "nextafter", "pow", "remainder",
    "addcmul", "addcdiv", "complex", "isclose", "allclose", "masked_fill",
]  # fmt: skip
RENAMED = {
    "bitwise_not": "bitwise_invert", "conj": "conj", "conj_physical": "conj",
    "eq": "equal", "ge": "greater_equal", "gt": "greater", "le": "less_equal", "lt": "less",
    "max/binary": "maximum", "min/binary": "minimum", "mul": "multiply", "ne": "not_equal",
    "neg": "negative", "nn.functional.relu": "relu", "sgn": "sign", "true_divide": "divide",
    "round": "round", "div/no_rounding_mode": "divide", "clamp": "clip",
    "round/decimals_0": "round", "round/decimals_3": "round", "round/decimals_neg_3": "round",
}  # fmt: skip
OPERATORS = {
    "__radd__": "add", "__rmul__": "multiply", "__rand__": "bitwise_and",
    "__ror__": "bitwise_or", "__rxor__": "bitwise_xor",
}  # fmt: skip
SWAPPED: dict[str, tuple[Fn, str]] = {
    "__rdiv__": (operator.truediv, "divide"), "__rpow__": (operator.pow, "pow"),
    "__rmod__": (operator.mod, "remainder"), "__rsub__": (operator.sub, "subtract"),
    "__rmatmul__": (operator.matmul, "matmul"),
}  # fmt: skip


def _swapped(fn: Fn) -> Fn:
    return lambda x, y: fn(y, x)


def _scaled(fn: Fn) -> Fn:
    """Add or subtract `alpha` times the second argument."""

    def call(x: Any, y: Any, *, alpha: Any = 1, out: Any = None) -> Any:
        return fn(x, y if alpha == 1 else y * alpha)

    return call


def _divided(x: Any, y: Any, *, rounding_mode: str) -> Any:
    return P.floor_divide(x, y) if rounding_mode == "floor" else P.trunc(x / y)


for name in [*UNARY, *BINARY]:
    pair(name, getattr(P, name), name, writes=_written(name))
for name, ours in RENAMED.items():
    pair(name, getattr(P, ours), ours, writes=None if "binary" in name else _written(ours))
for name, ours in OPERATORS.items():
    pair(name, getattr(P, ours), ours)
for name, (fn, ours) in SWAPPED.items():
    pair(name, _swapped(fn), ours)
pair("real", lambda x: x.real, "real", "real_part")
pair("imag", lambda x: x.imag, "imag", "imag_part")
pair("where", lambda x, condition, other: P.where(condition, x, other), "where")
pair("add", _scaled(P.add), "add", writes="add_")
pair("sub", _scaled(P.subtract), "subtract", writes="subtract_")
pair("rsub", lambda x, y, alpha=1: y - x * alpha if alpha != 1 else y - x, "subtract")
pair("div/trunc_rounding", _divided, "divide", "trunc")
pair("div/floor_rounding", _divided, "floor_divide")
pair("clamp_max", lambda x, top: P.clip(x, None, top), "clip")
pair("clamp_min", lambda x, least: P.clip(x, least, None), "clip")
# All samples give a slope and a threshold, which softplus lacks here: neither side gets them.
pair(
    "nn.functional.softplus",
    lambda x, **_: P.softplus(x),
    "softplus",
    theirs=lambda x, **_: torch.nn.functional.softplus(x),
)
pair("equal", P.array_equal, "array_equal")
pair("fill", lambda x, value: P.ops.core.fill(x, value), "fill", writes="fill_")
pair("zero_", lambda x: P.clone(x).zero_(), "zero_")
pair("item", lambda x: x.item(), "item")

CASTS = {
    "bool": P.bool, "byte": P.uint8, "cdouble": P.complex128, "cfloat": P.complex64,
    "char": P.int8, "double": P.float64, "float": P.float32, "half": P.float16, "int": P.int32,
    "long": P.int64, "short": P.int16,
}  # fmt: skip


def _cast(name: str) -> Fn:
    def call(x: Any, memory_format: Any = None) -> Any:
        if memory_format is not None:
            skip(Reason.ARGUMENT)
        return getattr(x, name)() if hasattr(x, name) else P.astype(x, CASTS[name])

    return call


for name in CASTS:
    pair(name, _cast(name), "astype", "to")


def _to(x: Any, *args: Any, memory_format: Any = None) -> Any:
    if memory_format is not None:
        skip(Reason.ARGUMENT)
    return x.to(*[a for a in args if not isinstance(a, bool)])


pair("to", _to, "astype", "to", "to_device", "type_as")

"""ONNX forms of reductions, products and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.namespaces import ops
from polyop.export.onnx.model import OnnxModel, Value
from polyop.export.onnx.registry import Untranslatable, register_onnx

core = ops.core
Fn = Callable[..., Any]
BOOL, INT64 = np.dtype(bool), np.dtype("int64")


def axes_of(model: OnnxModel, x: Value, axis: Any) -> list[int]:
    """Give the axes that a reduction goes over."""
    ndim = model.meta(x).ndim
    if axis is None:
        return list(range(ndim))
    return [a % ndim for a in ([axis] if type(axis) is int else axis)]


def reduce(model: OnnxModel, kind: str, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """Add a reduction; one over no axes changes nothing."""
    return model.op(
        kind, x, model.constant(list(axes), np.int64), keepdims=int(keepdims),
        noop_with_empty_axes=1,
    )  # fmt: skip


def refuse_empty(model: OnnxModel, x: Value, axes: Sequence[int]) -> None:
    """Leave out what fails on nothing: ONNX would give a number."""
    for axis in axes:
        size = model.meta(x).shape[axis]
        if (size if isinstance(size, int) else size.expr.lo) < 1:
            raise Untranslatable("a reduction that may be over nothing")


def summing(kind: str) -> Fn:
    """Give the translation of a sum or product, which has a dtype of its own."""

    def translate(
        model: OnnxModel, x: Value, *, axis: Any, keepdims: bool, dtype: DType | None = None
    ) -> Value:
        given = model.cast(x, model.out.dtype)
        return reduce(model, kind, given, axes_of(model, x, axis), keepdims)

    return translate


def extreme(kind: str) -> Fn:
    """Give the translation of the greatest or least element."""

    def translate(model: OnnxModel, x: Value, *, axis: Any, keepdims: bool) -> Value:
        axes = axes_of(model, x, axis)
        refuse_empty(model, x, axes)
        dtype = model.dtype(x)
        found = reduce(model, kind, x, axes, keepdims)
        if dtype.kind != "f":
            return found
        # One element that is no number makes the whole none.
        nan = reduce(
            model, "ReduceMax", model.cast_any(model.op("IsNaN", x), dtype), axes, keepdims
        )
        is_nan = model.op("Greater", nan, model.constant(0, dtype))
        return model.op("Where", is_nan, model.constant(np.nan, dtype), found)

    return translate


register_onnx(core.sum.default, summing("ReduceSum"))
register_onnx(core.prod.default, summing("ReduceProd"))
register_onnx(core.max.default, extreme("ReduceMax"))
register_onnx(core.min.default, extreme("ReduceMin"))


@register_onnx(core.mean.default)
def mean_onnx(model: OnnxModel, x: Value, *, axis: Any, keepdims: bool) -> Value:
    """Average."""
    axes = axes_of(model, x, axis)
    refuse_empty(model, x, axes)
    return reduce(model, "ReduceMean", model.cast(x, model.out.dtype), axes, keepdims)


def _spread(model: OnnxModel, x: Value, axis: Any, correction: float, keepdims: bool) -> Value:
    if correction:
        raise Untranslatable("correction")
    axes = axes_of(model, x, axis)
    refuse_empty(model, x, axes)
    given = model.cast(x, model.out.dtype)
    centred = model.op("Sub", given, reduce(model, "ReduceMean", given, axes, True))
    return reduce(model, "ReduceMean", model.op("Mul", centred, centred), axes, keepdims)


@register_onnx(core.var.default)
def var_onnx(model: OnnxModel, x: Value, *, axis: Any, correction: float, keepdims: bool) -> Value:
    """Average the squares of deviations."""
    return _spread(model, x, axis, correction, keepdims)


@register_onnx(core.std.default)
def std_onnx(model: OnnxModel, x: Value, *, axis: Any, correction: float, keepdims: bool) -> Value:
    """Take the root of the variance."""
    return model.op("Sqrt", _spread(model, x, axis, correction, keepdims))


def _count(model: OnnxModel, x: Value, axis: Any, keepdims: bool, negated: bool) -> Value:
    true = model.cast(x, BOOL)
    if negated:
        true = model.op("Not", true)
    return reduce(
        model, "ReduceSum", model.cast_any(true, INT64), axes_of(model, x, axis), keepdims
    )


@register_onnx(core.any.default)
def any_onnx(model: OnnxModel, x: Value, *, axis: Any, keepdims: bool) -> Value:
    """Tell whether one is true: of nothing, none is."""
    return model.op("Greater", _count(model, x, axis, keepdims, False), model.constant(0, INT64))


@register_onnx(core.all.default)
def all_onnx(model: OnnxModel, x: Value, *, axis: Any, keepdims: bool) -> Value:
    """Tell whether none is false."""
    return model.op("Equal", _count(model, x, axis, keepdims, True), model.constant(0, INT64))


@register_onnx(core.count_nonzero.default)
def count_nonzero_onnx(model: OnnxModel, x: Value, *, axis: Any, keepdims: bool) -> Value:
    """Count what is true."""
    return model.cast_any(_count(model, x, axis, keepdims, False), model.out.dtype)


def position(kind: str) -> Fn:
    """Give the translation of the place of an extreme."""

    def translate(model: OnnxModel, x: Value, *, axis: int | None, keepdims: bool) -> Value:
        if model.dtype(x).kind == "f":
            raise Untranslatable("ONNX does not say where NaN stands")
        refuse_empty(model, x, axes_of(model, x, axis))
        if axis is None:
            x = model.op("Reshape", x, model.constant([-1], np.int64))
            if keepdims:
                raise Untranslatable("keepdims")
        found = model.op(kind, x, axis=axis or 0, keepdims=int(keepdims))
        return model.cast_any(found, model.out.dtype)

    return translate


register_onnx(core.argmax.default, position("ArgMax"))
register_onnx(core.argmin.default, position("ArgMin"))


@register_onnx(core.softmax.default)
def softmax_onnx(model: OnnxModel, x: Value, axis: int) -> Value:
    """Normalise exponentials."""
    return model.op("Softmax", model.cast(x, model.out.dtype), axis=axis)


@register_onnx(core.log_softmax.default)
def log_softmax_onnx(model: OnnxModel, x: Value, axis: int) -> Value:
    """Take the logarithm of softmax."""
    return model.op("LogSoftmax", model.cast(x, model.out.dtype), axis=axis)


@register_onnx(core.cumulative_sum.default)
def cumulative_sum_onnx(
    model: OnnxModel, x: Value, *, axis: int | None, dtype: Any, include_initial: bool
) -> Value:
    """Sum up to each element."""
    if include_initial or (axis is None and model.meta(x).ndim != 1):
        raise Untranslatable("include_initial")
    given = model.cast(x, model.out.dtype)
    return model.op("CumSum", given, model.constant(axis or 0, np.int64))


# -- products -----------------------------------------------------------------


@register_onnx(core.matmul.default)
def matmul_onnx(model: OnnxModel, a: Value, b: Value) -> Value:
    """Multiply matrices."""
    dtype = model.out.dtype
    return model.op("MatMul", model.cast(a, dtype), model.cast(b, dtype))


@register_onnx(core.vecdot.default)
def vecdot_onnx(model: OnnxModel, a: Value, b: Value, *, axis: int) -> Value:
    """Multiply vectors."""
    dtype = model.out.dtype
    product = model.op("Mul", model.cast(a, dtype), model.cast(b, dtype))
    return reduce(model, "ReduceSum", product, [axis], False)

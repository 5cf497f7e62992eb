"""ONNX forms of pointwise operators: one operator each, or a few."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.namespaces import ops
from polyop.export.onnx.model import OnnxModel, Value
from polyop.export.onnx.registry import Untranslatable, register_onnx

core = ops.core
Fn = Callable[..., Any]


def on_all(name: str, fn: Fn) -> None:
    """Register one translation for all overloads of a built-in operator."""
    for op in getattr(core, name).op_overloads():
        register_onnx(op, fn)


# -- one operand --------------------------------------------------------------


def unary(kind: str) -> Fn:
    """Give the translation to one ONNX operator."""

    def translate(model: OnnxModel, x: Value) -> Value:
        return model.op(kind, model.cast(x, model.out.dtype))

    return translate


UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh",
    "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "exp": "Exp",
    "floor": "Floor", "log": "Log", "logical_not": "Not", "negative": "Neg",
    "reciprocal": "Reciprocal", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin",
    "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
    "positive": "Identity", "clone": "Identity", "contiguous_copy": "Identity",
    "detach": "Identity", "alias": "Identity", "contiguous": "Identity",
}  # fmt: skip
for _name, _kind in UNARY.items():
    on_all(_name, unary(_kind))


def formula(build: Fn) -> Fn:
    """Give the translation to several ONNX operators, on operands of the result's dtype."""

    def translate(model: OnnxModel, *operands: Any) -> Value:
        dtype = model.out.dtype
        found: Value = build(model, dtype, *[model.operand(x, dtype) for x in operands])
        return found

    return translate


def _square(model: OnnxModel, dtype: DType, x: Value) -> Value:
    return model.op("Mul", x, x)


def _rsqrt(model: OnnxModel, dtype: DType, x: Value) -> Value:
    return model.op("Reciprocal", model.op("Sqrt", x))


def _exp2(model: OnnxModel, dtype: DType, x: Value) -> Value:
    return model.op("Pow", model.constant(2, dtype), x)


def _relu(model: OnnxModel, dtype: DType, x: Value) -> Value:
    zero = model.constant(0, dtype)
    return model.op("Where", model.op("Less", x, zero), zero, x)  # NaN stays


def _softplus(model: OnnxModel, dtype: DType, x: Value) -> Value:
    tail = model.op("Exp", model.op("Neg", model.op("Abs", x)))
    rest = model.op("Log", model.op("Add", model.constant(1, dtype), tail))
    return model.op("Add", _relu(model, dtype, x), rest)


def _trunc(model: OnnxModel, dtype: DType, x: Value) -> Value:
    below = model.op("Less", x, model.constant(0, dtype))
    return model.op("Where", below, model.op("Ceil", x), model.op("Floor", x))


def _log_to(base: float) -> Fn:
    def build(model: OnnxModel, dtype: DType, x: Value) -> Value:
        return model.op("Mul", model.op("Log", x), model.constant(1 / np.log(base), dtype))

    return build


for _name, _build in {
    "square": _square, "rsqrt": _rsqrt, "exp2": _exp2, "relu": _relu, "softplus": _softplus,
    "trunc": _trunc, "log2": _log_to(2), "log10": _log_to(10),
}.items():  # fmt: skip
    on_all(_name, formula(_build))


@register_onnx(core.round.default)
def round_onnx(model: OnnxModel, x: Value, decimals: int) -> Value:
    """Round halves to even, as ONNX does."""
    if decimals:
        raise Untranslatable("decimals")
    return model.op("Round", x)


@register_onnx(core.astype.default)
def astype_onnx(model: OnnxModel, x: Value, dtype: DType) -> Value:
    """Convert."""
    return model.cast(x, dtype)


@register_onnx(core.isnan.default)
def isnan_onnx(model: OnnxModel, x: Value) -> Value:
    """Tell where there is no number."""
    return model.op("IsNaN", _floats(model, x))


@register_onnx(core.isinf.default)
def isinf_onnx(model: OnnxModel, x: Value) -> Value:
    """Tell where there is an infinity."""
    return model.op("IsInf", _floats(model, x))


@register_onnx(core.isfinite.default)
def isfinite_onnx(model: OnnxModel, x: Value) -> Value:
    """Tell where there is a finite number."""
    return model.op("Not", model.op("Or", isnan_onnx(model, x), isinf_onnx(model, x)))


def _floats(model: OnnxModel, x: Value) -> Value:
    if model.dtype(x).kind != "f":
        raise Untranslatable("integers")
    return x


# -- two operands -------------------------------------------------------------


def arithmetic(kind: str, **attributes: Any) -> Fn:
    """Give the translation to an ONNX operator on operands of the result's dtype."""

    def translate(model: OnnxModel, a: Any, b: Any) -> Value:
        dtype = model.out.dtype
        return model.op(kind, model.operand(a, dtype), model.operand(b, dtype), **attributes)

    return translate


def _only(kinds: str, fn: Fn) -> Fn:
    """Keep a translation to results of some kinds of dtypes."""

    def translate(model: OnnxModel, *operands: Any) -> Value:
        if model.out.dtype.kind not in kinds:
            raise Untranslatable(f"dtype {model.out.dtype}")
        found: Value = fn(model, *operands)
        return found

    return translate


def _add(model: OnnxModel, a: Any, b: Any) -> Value:
    # Of truth values, NumPy's sum is "or" and its product is "and".
    found: Value = arithmetic("Or" if model.out.dtype.kind == "b" else "Add")(model, a, b)
    return found


def _multiply(model: OnnxModel, a: Any, b: Any) -> Value:
    found: Value = arithmetic("And" if model.out.dtype.kind == "b" else "Mul")(model, a, b)
    return found


def _extreme(kind: str) -> Fn:
    def build(model: OnnxModel, dtype: DType, a: Value, b: Value) -> Value:
        chosen = model.op("Where", model.op(kind, a, b), a, b)
        if dtype.kind != "f":
            return chosen
        # The sum is no number where one of the two is none.
        both = model.op("Add", a, b)
        nan = model.op("Or", model.op("IsNaN", a), model.op("IsNaN", b))
        return model.op("Where", nan, both, chosen)

    return formula(build)


def _remainder(model: OnnxModel, dtype: DType, a: Value, b: Value) -> Value:
    if dtype.kind in "iu":
        return model.op("Mod", a, b)
    zero = model.constant(0, dtype)
    rest = model.op("Mod", a, b, fmod=1)
    signs = model.op("Xor", model.op("Less", rest, zero), model.op("Less", b, zero))
    wrong = model.op("And", signs, model.op("Not", model.op("Equal", rest, zero)))
    return model.op("Where", wrong, model.op("Add", rest, b), rest)


for _name, _fn in {
    "add": _add, "subtract": _only("fiu", arithmetic("Sub")), "multiply": _multiply,
    "divide": _only("f", arithmetic("Div")), "pow": _only("f", arithmetic("Pow")),
    "maximum": _extreme("Greater"), "minimum": _extreme("Less"),
    "fmod": arithmetic("Mod", fmod=1), "remainder": _only("f", formula(_remainder)),
}.items():  # fmt: skip
    on_all(_name, _fn)


def comparison(kind: str, negated: bool = False) -> Fn:
    """Give the translation of a comparison, on operands of their common dtype."""

    def translate(model: OnnxModel, a: Any, b: Any) -> Value:
        dtype = common_dtype(model, a, b)
        found = model.op(kind, model.operand(a, dtype), model.operand(b, dtype))
        return model.op("Not", found) if negated else found

    return translate


def common_dtype(model: OnnxModel, *operands: Any) -> DType:
    """Give the dtype in which NumPy meets its operands; numbers of Python are weak."""
    found = np.result_type(*[model.dtype(x) if isinstance(x, Value) else x for x in operands])
    if {found.kind, *(model.dtype(x).kind for x in operands if isinstance(x, Value))} >= {"i", "u"}:
        raise Untranslatable("signed and unsigned")
    for x in operands:
        if type(x) is int and found.kind in "iu" and not _fits(x, found):
            raise Untranslatable("a number out of range")
    return found


def _fits(value: int, dtype: DType) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


for _name, _kind, _negated in (
    ("equal", "Equal", False), ("not_equal", "Equal", True), ("less", "Less", False),
    ("less_equal", "LessOrEqual", False), ("greater", "Greater", False),
    ("greater_equal", "GreaterOrEqual", False),
):  # fmt: skip
    on_all(_name, comparison(_kind, _negated))


def logical(kind: str) -> Fn:
    """Give the translation of a connective, on truth values."""

    def translate(model: OnnxModel, a: Any, b: Any) -> Value:
        dtype = np.dtype(bool)
        return model.op(kind, model.operand(a, dtype), model.operand(b, dtype))

    return translate


for _name, _kind in {"and": "And", "or": "Or", "xor": "Xor"}.items():
    on_all(f"logical_{_name}", logical(_kind))


def bitwise(of_truth: str, of_bits: str) -> Fn:
    """Give the translation of an operation on bits, or on truth values."""

    def translate(model: OnnxModel, *operands: Any) -> Value:
        dtype = model.out.dtype
        given = [model.operand(x, dtype) for x in operands]
        return model.op(of_truth if dtype.kind == "b" else of_bits, *given)

    return translate


for _name, _of_truth, _of_bits in (
    ("and", "And", "BitwiseAnd"), ("or", "Or", "BitwiseOr"), ("xor", "Xor", "BitwiseXor"),
    ("invert", "Not", "BitwiseNot"),
):  # fmt: skip
    on_all(f"bitwise_{_name}", bitwise(_of_truth, _of_bits))


# -- choices ------------------------------------------------------------------


def where_onnx(model: OnnxModel, condition: Value, a: Any, b: Any) -> Value:
    """Choose by a condition."""
    dtype = model.out.dtype
    chosen = model.cast(condition, np.dtype(bool))
    return model.op("Where", chosen, model.operand(a, dtype), model.operand(b, dtype))


def masked_fill_onnx(model: OnnxModel, x: Value, mask: Value, value: Any) -> Value:
    """Put a value where the mask is true."""
    return where_onnx(model, mask, value, x)


def clip_onnx(model: OnnxModel, x: Value, least: Any, most: Any) -> Value:
    """Bound from both sides; what is no number stays."""
    dtype = model.out.dtype
    found = model.cast(x, dtype)
    for kind, bound in (("Less", least), ("Greater", most)):
        if bound is not None:
            _no_nan(bound)
            end = model.operand(bound, dtype)
            found = model.op("Where", model.op(kind, found, end), end, found)
    return found


def _no_nan(bound: Any) -> None:
    if isinstance(bound, Value) or math.isnan(bound):
        raise Untranslatable("a bound that may be no number")


on_all("where", where_onnx)
on_all("masked_fill", masked_fill_onnx)
on_all("clip", clip_onnx)

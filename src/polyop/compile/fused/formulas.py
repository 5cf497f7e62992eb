"""What ufuncs are in C: one expression per ufunc and kind of dtype.

In an expression `{0}`, `{1}` are the operands, all of the type `{t}`; `{f}` is
the suffix of C's functions for that type, `{u}` its unsigned twin, and `{z}` a zero.

NOTE [Equal bits]
Expressions of `EXACT` give NumPy's bits, but for the sign and payload of a NaN
that is computed. Comparisons are the quiet ones: `<` would raise a flag for NaN.
Those of `CLOSE` are functions of the C library, some of its vector library, each
within four units in the last place of the true value; the last bit of a
result may then depend on where in the array it stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import DType

#: The kinds of dtypes that loops compute with: floats, signed integers, bools.
KINDS: dict[DType, str] = {
    np.dtype(np.float32): "f",
    np.dtype(np.float64): "f",
    np.dtype(np.int32): "i",
    np.dtype(np.int64): "i",
    np.dtype(np.bool_): "b",
}
#: By dtype, the C types of values and of what lies in memory, the function suffix, the unsigned.
TYPES: dict[DType, tuple[str, str, str, str]] = {
    np.dtype(np.float32): ("float", "float", "f", ""),
    np.dtype(np.float64): ("double", "double", "", ""),
    np.dtype(np.int32): ("int32_t", "int32_t", "", "uint32_t"),
    np.dtype(np.int64): ("int64_t", "int64_t", "", "uint64_t"),
    np.dtype(np.bool_): ("_Bool", "uint8_t", "", ""),
}

_COMPARISONS = {
    np.less: ("__builtin_isless({0}, {1})", "{0} < {1}"),
    np.less_equal: ("__builtin_islessequal({0}, {1})", "{0} <= {1}"),
    np.greater: ("__builtin_isgreater({0}, {1})", "{0} > {1}"),
    np.greater_equal: ("__builtin_isgreaterequal({0}, {1})", "{0} >= {1}"),
    np.equal: ("{0} == {1}", "{0} == {1}"),
    np.not_equal: ("{0} != {1}", "{0} != {1}"),
    np.logical_and: ("({0} != 0) & ({1} != 0)",) * 2,
    np.logical_or: ("({0} != 0) | ({1} != 0)",) * 2,
    np.logical_xor: ("({0} != 0) ^ ({1} != 0)",) * 2,
    np.logical_not: ("{0} == 0",) * 2,
}
_FLOATS = {
    np.add: "{0} + {1}",
    np.subtract: "{0} - {1}",
    np.multiply: "{0} * {1}",
    np.divide: "{0} / {1}",
    np.negative: "-{0}",
    np.positive: "{0}",
    np.conjugate: "{0}",
    np.absolute: "__builtin_fabs{f}({0})",
    np.square: "{0} * {0}",
    np.reciprocal: "1 / {0}",
    np.sqrt: "__builtin_sqrt{f}({0})",
    np.floor: "__builtin_floor{f}({0})",
    np.ceil: "__builtin_ceil{f}({0})",
    np.trunc: "__builtin_trunc{f}({0})",
    np.rint: "__builtin_rint{f}({0})",
    np.copysign: "__builtin_copysign{f}({0}, {1})",
    np.sign: "{0} == 0 ? {z} : {0} != {0} ? {0} : __builtin_copysign{f}(1, {0})",
    np.maximum: "__builtin_isgreater({0}, {1}) | ({0} != {0}) ? {0} : {1}",
    np.minimum: "__builtin_isless({0}, {1}) | ({0} != {0}) ? {0} : {1}",
    np.isnan: "{0} != {0}",
    np.isinf: "__builtin_fabs{f}({0}) == __builtin_inf{f}()",
    np.isfinite: "__builtin_isless(__builtin_fabs{f}({0}), __builtin_inf{f}())",
    np.signbit: "__builtin_signbit({0}) != 0",
}
_INTEGERS = {
    np.add: "({t})(({u}){0} + ({u}){1})",
    np.subtract: "({t})(({u}){0} - ({u}){1})",
    np.multiply: "({t})(({u}){0} * ({u}){1})",
    np.square: "({t})(({u}){0} * ({u}){0})",
    np.negative: "({t})(0 - ({u}){0})",
    np.positive: "{0}",
    np.conjugate: "{0}",
    np.absolute: "{0} < 0 ? ({t})(0 - ({u}){0}) : {0}",
    np.sign: "({0} > 0) - ({0} < 0)",
    np.maximum: "{0} >= {1} ? {0} : {1}",
    np.minimum: "{0} <= {1} ? {0} : {1}",
    np.bitwise_and: "{0} & {1}",
    np.bitwise_or: "{0} | {1}",
    np.bitwise_xor: "{0} ^ {1}",
    np.invert: "~{0}",
    np.isnan: "0",
    np.isinf: "0",
    np.isfinite: "1",
}
_BOOLS = {
    np.add: "{0} | {1}",
    np.multiply: "{0} & {1}",
    np.maximum: "{0} | {1}",
    np.minimum: "{0} & {1}",
    np.bitwise_and: "{0} & {1}",
    np.bitwise_or: "{0} | {1}",
    np.bitwise_xor: "{0} ^ {1}",
    np.invert: "!{0}",
    np.absolute: "{0}",
    np.isnan: "0",
    np.isinf: "0",
    np.isfinite: "1",
}
#: Functions of C's library, by ufunc: their names.
FUNCTIONS = {
    np.exp: "exp",
    np.exp2: "exp2",
    np.expm1: "expm1",
    np.log: "log",
    np.log1p: "log1p",
    np.log2: "log2",
    np.log10: "log10",
    np.sin: "sin",
    np.cos: "cos",
    np.tan: "tan",
    np.arcsin: "asin",
    np.arccos: "acos",
    np.arctan: "atan",
    np.arctan2: "atan2",
    np.sinh: "sinh",
    np.cosh: "cosh",
    np.tanh: "tanh",
    np.arcsinh: "asinh",
    np.arccosh: "acosh",
    np.arctanh: "atanh",
    np.hypot: "hypot",
    np.power: "pow",
}

#: NOTE [Equal bits]
EXACT: dict[tuple[Any, str], str] = {
    **{(ufunc, "f"): text for ufunc, (text, _) in _COMPARISONS.items()},
    **{(ufunc, kind): text for ufunc, (_, text) in _COMPARISONS.items() for kind in "ib"},
    **{(ufunc, "f"): text for ufunc, text in _FLOATS.items()},
    **{(ufunc, "i"): text for ufunc, text in _INTEGERS.items()},
    **{(ufunc, "b"): text for ufunc, text in _BOOLS.items()},
}
CLOSE: dict[tuple[Any, str], str] = {
    (ufunc, "f"): f"{name}{{f}}({', '.join(f'{{{i}}}' for i in range(ufunc.nin))})"
    for ufunc, name in FUNCTIONS.items()
}
FORMULAS = {**EXACT, **CLOSE}

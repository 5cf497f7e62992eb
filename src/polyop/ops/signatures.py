"""The signatures that the Array API standard gives its functions, for those who ask by `inspect`.

An entry takes its tensors by name too, and `zeros` its sizes one by one: our
functions take more than the standard says. What they announce is the standard's
own form, so that a program which keeps to it runs on every library.
"""

from __future__ import annotations

import inspect
from typing import Any

from polyop.ops import (
    comparison,
    creation,
    elementwise,
    joining,
    linear,
    reductions,
    rounding,
    select,
    sets,
    standard,
    views,
)
from polyop.ops.methods import BINARY
from polyop.tensor.tensor import Tensor

#: The standard's forms, each with the names of the functions that have it.
FORMS = {
    "x, /": """abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1
        floor imag isfinite isinf isnan log log1p log2 log10 logical_not negative positive real
        reciprocal round sign signbit sin sinh sqrt square tan tanh trunc matrix_transpose nonzero
        unique_all unique_counts unique_inverse unique_values det eigvalsh inv svdvals""",
    "x1, x2, /": """add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift
        bitwise_xor copysign divide equal floor_divide greater greater_equal hypot less less_equal
        logaddexp logical_and logical_or logical_xor maximum minimum multiply nextafter not_equal
        pow remainder subtract matmul outer solve""",
    "x1, x2, /, *, axis=-1": "vecdot cross",
    "x1, x2, /, *, axes=2": "tensordot",
    "x1, x2, /, *, invert=False, assume_unique=False": "isin",
    "x1, x2, /, *, side='left', sorter=None": "searchsorted",
    "condition, x1, x2, /": "where",
    "x, /, min=None, max=None": "clip",
    "x, /, *, axis=None, keepdims=False": "all any argmax argmin count_nonzero max mean min",
    "x, /, *, axis=None, dtype=None, keepdims=False": "prod sum",
    "x, /, *, axis=None, correction=0.0, keepdims=False": "std var",
    "x, /, *, axis=None, dtype=None, include_initial=False": "cumulative_prod cumulative_sum",
    "x, /, *, axis=-1, descending=False, stable=True": "argsort sort",
    "x, /, *, axis=-1, n=1, prepend=None, append=None": "diff",
    "x, indices, /, *, axis=-1": "take_along_axis",
    "arrays, /, *, axis=0": "concat stack",
    "x, /, axis=0": "expand_dims",
    "x, /, *, axis=None": "flip",
    "x, /, axis": "squeeze",
    "x, /, axes": "permute_dims",
    "x, /, shape": "broadcast_to",
    "x, /, shape, *, copy=None": "reshape",
    "x, /, *, k=0": "tril triu",
    "x, /, *, upper=False": "cholesky",
    "x, /, *, offset=0, dtype=None": "trace",
    "x, /, *, axis=None, keepdims=False, ord=2": "vector_norm",
    "shape, *, dtype=None, device=None, requires_grad=False": "empty ones zeros",
    "x, /, *, dtype=None, device=None, requires_grad=False": "empty_like ones_like zeros_like",
    "start, stop, /, num, *, dtype=None, device=None, endpoint=True, requires_grad=False":
        "linspace",
}  # fmt: skip


class Announced(inspect.Signature):
    """A signature that is worked out when somebody asks for it: few programs do."""

    __slots__ = ("form",)
    form: str

    def __getattr__(self, name: str) -> Any:
        if name not in {"_parameters", "_return_annotation"}:
            raise AttributeError(name)
        found = inspect.signature(eval(f"lambda {self.form}: None"))  # noqa: S307 - our own text
        super().__init__(list(found.parameters.values()))
        return getattr(self, name)


def announced(form: str) -> Announced:
    """Give the signature of a function as one to be worked out later."""
    made = Announced.__new__(Announced)
    made.form = form
    return made


SIGNATURES = {
    name: made
    for form, names in FORMS.items()
    for made in [announced(form)]
    for name in names.split()
}


def announce(*families: dict[str, Any]) -> None:
    """Give those functions of some modules their signatures that the standard knows."""
    for family in families:
        for name in SIGNATURES.keys() & family.keys():
            family[name].__signature__ = SIGNATURES[name]


announce(
    *map(
        vars,
        (comparison, creation, elementwise, joining, linear, reductions, rounding, select, sets,
         standard, views),
    )
)  # fmt: skip

for _name in [f"__{prefix}{name}__" for prefix in ("", "i", "r") for name in BINARY]:
    getattr(Tensor, _name).__signature__ = SIGNATURES["add"]

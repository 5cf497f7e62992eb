"""The signatures that the Array API standard gives its functions, for those who ask by `inspect`.

An entry takes its tensors by name too, and `zeros` its sizes one by one: our
functions take more than the standard says. What they announce is the standard's
own form, so that a program which keeps to it runs on every library.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from polyop.ops import (
    comparison,
    creation,
    elementwise,
    joining,
    linalg,
    linear,
    reductions,
    rounding,
    searching,
    select,
    sets,
    standard,
    statistics,
    views,
)
from polyop.ops.methods import BINARY
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]

#: The standard's forms, each with the names of the functions that have it.
FORMS: list[tuple[Fn, str]] = [
    (
        lambda x, /: x,
        "abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor "
        "imag isfinite isinf isnan log log1p log2 log10 logical_not negative positive real "
        "reciprocal round sign signbit sin sinh sqrt square tan tanh trunc matrix_transpose "
        "nonzero unique_all unique_counts unique_inverse unique_values det eigvalsh inv svdvals",
    ),
    (
        lambda x1, x2, /: (x1, x2),
        "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor "
        "copysign divide equal floor_divide greater greater_equal hypot less less_equal logaddexp "
        "logical_and logical_or logical_xor maximum minimum multiply nextafter not_equal pow "
        "remainder subtract matmul outer solve",
    ),
    (lambda x1, x2, /, *, axis=-1: (x1, x2, axis), "vecdot cross"),
    (lambda x1, x2, /, *, axes=2: (x1, x2, axes), "tensordot"),
    (lambda x1, x2, /, *, invert=False: (x1, x2, invert), "isin"),
    (
        lambda x1, x2, /, *, side="left", sorter=None: (x1, x2, side, sorter),
        "searchsorted",
    ),
    (lambda condition, x1, x2, /: (condition, x1, x2), "where"),
    (lambda x, /, min=None, max=None: (x, min, max), "clip"),
    (
        lambda x, /, *, axis=None, keepdims=False: (x, axis, keepdims),
        "all any argmax argmin count_nonzero max mean min",
    ),
    (
        lambda x, /, *, axis=None, dtype=None, keepdims=False: (x, axis, dtype, keepdims),
        "prod sum",
    ),
    (
        lambda x, /, *, axis=None, correction=0.0, keepdims=False: (x, axis, correction, keepdims),
        "std var",
    ),
    (
        lambda x, /, *, axis=None, dtype=None, include_initial=False: (
            (x, axis, dtype, include_initial)
        ),
        "cumulative_prod cumulative_sum",
    ),
    (
        lambda x, /, *, axis=-1, descending=False, stable=True: (x, axis, descending, stable),
        "argsort sort",
    ),
    (
        lambda x, /, *, axis=-1, n=1, prepend=None, append=None: (x, axis, n, prepend, append),
        "diff",
    ),
    (lambda x, indices, /, *, axis=-1: (x, indices, axis), "take_along_axis"),
    (lambda arrays, /, *, axis=0: (arrays, axis), "concat stack"),
    (lambda x, /, axis=0: (x, axis), "expand_dims"),
    (lambda x, /, *, axis=None: (x, axis), "flip"),
    (lambda x, /, axis: (x, axis), "squeeze"),
    (lambda x, /, axes: (x, axes), "permute_dims"),
    (lambda x, /, shape: (x, shape), "broadcast_to"),
    (lambda x, /, shape, *, copy=None: (x, shape, copy), "reshape"),
    (lambda x, /, *, k=0: (x, k), "tril triu"),
    (lambda x, /, *, upper=False: (x, upper), "cholesky"),
    (lambda x, /, *, offset=0, dtype=None: (x, offset, dtype), "trace"),
    (
        lambda x, /, *, axis=None, keepdims=False, ord=2: (x, axis, keepdims, ord),
        "vector_norm",
    ),
    (
        lambda shape, *, dtype=None, device=None, requires_grad=False: (
            (shape, dtype, device, requires_grad)
        ),
        "empty ones zeros",
    ),
    (
        lambda x, /, *, dtype=None, device=None, requires_grad=False: (
            (x, dtype, device, requires_grad)
        ),
        "empty_like ones_like zeros_like",
    ),
    (
        lambda start, stop, /, num, *, dtype=None, device=None, endpoint=True, requires_grad=False: (
            (start, stop, num, dtype, device, endpoint, requires_grad)
        ),
        "linspace",
    ),
]  # fmt: skip

class Announced(inspect.Signature):
    """A signature that is worked out when somebody asks for it: few programs do."""

    __slots__ = ("form",)
    form: Fn

    def __getattr__(self, name: str) -> Any:
        if name not in {"_parameters", "_return_annotation"}:
            raise AttributeError(name)
        self.__init__(list(inspect.signature(self.form).parameters.values()))  # type: ignore[misc]
        return getattr(self, name)


def announced(form: Fn) -> Announced:
    """Give the signature of a function as one to be worked out later."""
    made = Announced.__new__(Announced)
    made.form = form
    return made


SIGNATURES = {name: announced(form) for form, names in FORMS for name in names.split()}


def announce(*families: dict[str, Any]) -> None:
    """Give those functions of some modules their signatures that the standard knows."""
    for family in families:
        for name in SIGNATURES.keys() & family.keys():
            family[name].__signature__ = SIGNATURES[name]


announce(
    *map(
        vars,
        (comparison, creation, elementwise, joining, linalg, linear, reductions, rounding,
         searching, select, sets, standard, statistics, views),
    )
)  # fmt: skip

for _name in [f"__{prefix}{name}__" for prefix in ("", "i", "r") for name in BINARY]:
    getattr(Tensor, _name).__signature__ = SIGNATURES["add"]

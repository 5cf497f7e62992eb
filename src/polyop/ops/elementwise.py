"""Operators that compute each element by itself: one table per family.

Binary operators have three overloads: of two tensors, of a tensor and a number,
and of a number and a tensor. A number has no dtype of its own and takes part
in promotion as NumPy's Python numbers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.ops.define import define
from polyop.ops.shapes import broadcast, pointwise_strides, promote
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta

Fn = Callable[..., Any]
POINTWISE = (Tag.pointwise,)


def pointwise_meta(name: str, dtype_of: Fn = promote) -> Fn:
    """Give the fake rule of a pointwise operator; `dtype_of` maps dtypes to the result's."""

    def fake(*args: Any) -> Meta:
        metas = [a for a in args if isinstance(a, Meta)]
        shape = broadcast(name, *[m.shape for m in metas])
        dtype = dtype_of(*[a.dtype if isinstance(a, Meta) else a for a in args])
        strides = pointwise_strides(shape, metas)
        return metas[0].space.meta(shape, dtype, strides, metas[0].device)

    return fake


def unary(name: str, kernel: Fn, grad: str | None, dtype_of: Fn = promote) -> Fn:
    """Define an operator of one tensor; `grad` is the text of its gradient, or None."""
    return define(
        f"{name}(Tensor x) -> Tensor",
        kernel,
        fake=pointwise_meta(name, dtype_of),
        grad=None if grad is None else {"x": grad},
        tags=POINTWISE,
    )


def binary(name: str, kernel: Fn, grads: tuple[str, str] | None, dtype_of: Fn = promote) -> Fn:
    """Define an operator of two tensors, or of a tensor and a number."""
    fake = pointwise_meta(name, dtype_of)
    a, b = grads or ("", "")

    def overload(signature: str, texts: dict[str, str]) -> Fn:
        grad = None if grads is None else texts
        return define(
            f"{name}{signature} -> Tensor", kernel, fake=fake, grad=grad, tags=POINTWISE
        )

    entry = overload("(Tensor a, Tensor b)", {"a": a, "b": b})
    overload(".Scalar(Tensor a, Scalar b)", {"a": a})
    overload(".ScalarTensor(Scalar a, Tensor b)", {"b": b})
    return entry


add = binary("add", np.add, ("g", "g"))
multiply = binary("multiply", np.multiply, ("g * conj(b)", "g * conj(a)"))
sin = unary("sin", np.sin, "g * conj(cos(x))")
cos = unary("cos", np.cos, "-g * conj(sin(x))")
exp = unary("exp", np.exp, "g * conj(r)")
negative = unary("negative", np.negative, "-g")

"""How families of pointwise operators are defined: one tensor, two, or one and a number.

A number has no dtype of its own and takes part in promotion as NumPy's Python
numbers do; beside `bfloat16`, of which NumPy knows nothing, as beside its own floats.

NOTE [The kernel knows its dtypes]
The dtype of a fake result is asked from the kernel, once for each combination
of dtypes, by running it on arrays without elements. A second table of dtype
rules would have to repeat NumPy's promotion, the exceptions of each ufunc, and
those of `ml_dtypes`, and would drift from what the kernel does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError
from polyop.ops.define import define
from polyop.ops.shapes import broadcast, pointwise_strides, promote
from polyop.schema.base_values import example_of
from polyop.schema.tags import Tag
from polyop.symbolic import SymBool, SymFloat, SymInt
from polyop.tensor.meta import Meta
from polyop.warn import warn_each

Fn = Callable[..., Any]
POINTWISE = (Tag.pointwise,)

#: What stands for a number when only its type matters.
_NUMBERS: dict[type, Any] = {
    **dict.fromkeys((bool, SymBool), True),
    **dict.fromkeys((int, SymInt), 1),
    **dict.fromkeys((float, SymFloat), 1.0),
    complex: 1j,
}


def unary(name: str, kernel: Fn, grad: str | None) -> Fn:
    """Define an operator of one tensor; `grad` is the text of its gradient, or None."""
    return pointwise(f"{name}(Tensor x)", kernel, None if grad is None else {"x": grad})


def binary(
    name: str,
    kernel: Fn,
    grads: tuple[str, str] | None,
    number_grads: tuple[str, str] | None = None,
) -> Fn:
    """Define an operator of two tensors, of a tensor and a number, and the other way round.

    Args:
        name: of the operator.
        kernel: on two bare arrays, or an array and a number.
        grads: the texts of the gradients of both tensors; None if there are none.
        number_grads: the texts when the other argument is a number, where they differ.
    """
    a, b = grads or ("", "")
    a_beside, b_beside = number_grads or (a, b)

    def overload(signature: str, texts: Mapping[str, str]) -> Fn:
        return pointwise(f"{name}{signature}", kernel, texts if grads else None)

    entry = overload("(Tensor a, Tensor b)", {"a": a, "b": b})
    overload(".Scalar(Tensor a, Scalar b)", {"a": a_beside})
    overload(".ScalarTensor(Scalar a, Tensor b)", {"b": b_beside})
    return entry


def pointwise(
    signature: str,
    kernel: Fn,
    grad: Mapping[str, str] | None = None,
    steps: tuple[int, ...] = (),
) -> Fn:
    """Define a pointwise operator with one result.

    Args:
        signature: its schema without the result.
        kernel: on bare arrays.
        grad: the text of each gradient; None if there is none.
        steps: for a kernel of several ufuncs, the positions of the tensors in the order in
            which they join the result: each step may lay out its result anew.
    """
    name, _, arguments = signature.rstrip(")").partition("(")
    if "Scalar" in arguments and "Tensor" in arguments:
        kernel = with_numbers(kernel, arguments)
    fake = pointwise_meta(name, dtype_of_kernel(name, kernel))
    if steps:
        fake = _in_steps(fake, pointwise_meta(name, promote), steps)
    return define(f"{signature} -> Tensor", kernel, fake=fake, grad=grad, tags=POINTWISE)


def with_numbers(kernel: Fn, arguments: str) -> Fn:
    """Have numbers leave a small float what it is, as NumPy has them leave floats of its own.

    Args:
        kernel: on bare arrays and numbers.
        arguments: of the schema.
    """
    kinds = [argument.split()[0] for argument in arguments.split(", ")]
    if isinstance(kernel, np.ufunc) and kinds == ["Tensor", "Scalar"]:

        def on_number(a: Any, b: Any, out: Any = None) -> Any:
            if a.dtype.kind == "V":
                b = _fitted(b, a.dtype)
                if out is not None:
                    require_real(b, out)
            return kernel(a, b) if out is None else kernel(a, b, out)

        on_number.ufunc = kernel  # type: ignore[attr-defined]  # it may write over the array
        return on_number
    if isinstance(kernel, np.ufunc) and kinds == ["Scalar", "Tensor"]:
        return lambda a, b: kernel(a if b.dtype.kind != "V" else _fitted(a, b.dtype), b)

    @wraps(kernel)
    def on_several(*args: Any) -> Any:
        dtypes = [a.dtype for a in args if hasattr(a, "dtype")]
        if all(dtype.kind != "V" for dtype in dtypes):
            return kernel(*args)
        dtype = np.result_type(*dtypes)
        return kernel(*[_fitted(a, dtype) for a in args])

    return on_several


def require_real(value: Any, target: Any) -> None:
    """Refuse complex numbers beside a small float that is written, as NumPy's own floats do.

    Raises:
        TypeError: there are some; NumPy would write their real parts.
    """
    if target.dtype.kind == "V" and np.iscomplexobj(value):
        raise TypeError(f"Cannot cast complex numbers to {target.dtype}")


def warn_lost(op: str, value: DType, target: DType) -> None:
    """Warn of imaginary parts that a write loses, where NumPy does not do it itself."""
    if value.kind == "c" and target.kind not in "cb":
        warn_each(
            np.exceptions.ComplexWarning,
            f"{op} writes {value.name} to {target.name}: the imaginary parts are lost",
        )


def _fitted(value: Any, dtype: DType) -> Any:
    """Give a number in the dtype of a small float; anything else as it is."""
    fits = dtype.kind == "V" and (value.__class__ is float or value.__class__ is int)
    return dtype.type(value) if fits else value


def pointwise_meta(name: str, dtype_of: Fn) -> Fn:
    """Give the fake rule of a pointwise operator.

    Args:
        name: of the operator, for errors.
        dtype_of: maps the arguments, dtypes in the place of tensors, to the result's dtype.
    """

    def fake(*args: Any) -> Meta:
        metas = [a for a in args if isinstance(a, Meta)]
        shape = broadcast(name, *[m.shape for m in metas])
        dtype = dtype_of(*[a.dtype if isinstance(a, Meta) else a for a in args])
        strides = pointwise_strides(shape, metas)
        return metas[0].space.meta(shape, dtype, strides, metas[0].device)

    return fake


def _in_steps(whole: Fn, join: Fn, steps: tuple[int, ...]) -> Fn:
    def fake(*args: Any) -> Meta:
        result: Meta = whole(*args)
        joined, *rest = [args[i] for i in steps if isinstance(args[i], Meta)]
        for meta in rest:
            joined = join(joined.but(dtype=result.dtype), meta.but(dtype=result.dtype))
        return result.but(strides=joined._strides if rest else result._strides)

    return fake


def dtype_of_kernel(name: str, kernel: Fn) -> Fn:
    """Give the dtype rule of a pointwise kernel: NOTE [The kernel knows its dtypes]."""
    known: dict[Any, DType] = {}

    def dtype_of(*args: Any) -> DType:
        # Numbers by type: 2 == 2.0 == True, and a symbolic one must not be compared.
        key = tuple([a.__class__ if a.__class__ in _NUMBERS else a for a in args])
        try:
            return known[key]
        except KeyError:
            found = known[key] = _ask(name, kernel, args)
            return found
        except TypeError:  # another library's symbol, which has no hash
            return _ask(name, kernel, args)

    return dtype_of


def _ask(name: str, kernel: Fn, args: tuple[Any, ...]) -> DType:
    try:
        found: DType = kernel(*map(_empty, args)).dtype
    except TypeError as error:
        raise ArgumentError(
            f"core::{name} does not take these dtypes",
            op=f"core::{name}",
            seen=", ".join(a.name if isinstance(a, np.dtype) else repr(a) for a in args),
            fix="convert an argument with astype",
        ) from error
    return found


def _empty(value: Any) -> Any:
    if isinstance(value, np.dtype):
        return np.empty(0, value)
    if value.__class__ in _NUMBERS:
        return _NUMBERS[value.__class__]
    example = example_of(value)
    return value if example is None else example

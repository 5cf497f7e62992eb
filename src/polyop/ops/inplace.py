"""Operators that write their first argument, generated from their functional twins.

`add_` is `add` with its result written to the first argument: it must have
that argument's shape, and NumPy must be able to cast it (`same_kind`).
`INPLACE_TWINS` says for each which functional operator computes the same; the
twin's result is then cast to the written tensor's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import ArgumentError
from polyop.ops import (  # noqa: F401 - they define the twins
    comparison,
    elementwise,
    indexing,
    rounding,
    select,
)
from polyop.ops.define import ON_TENSORS, define, operator_of
from polyop.ops.pointwise import require_real, warn_lost
from polyop.ops.shapes import broadcast
from polyop.ops.view_inverses import in_front, refuse_repeated, zero_like
from polyop.ops.views import front, reshape
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta
from polyop.tensor.storage import Version

Fn = Callable[..., Any]
Array = Any
WRITES = (Tag.inplace, Tag.pointwise)

#: By the name of an operator that writes: its functional twin.
INPLACE_TWINS: dict[str, OpOverload] = {}

BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "remainder",
    "pow",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "bitwise_right_shift",
]
UNARY = [
    "abs",
    "ceil",
    "clip",
    "conj",
    "cos",
    "exp",
    "expm1",
    "floor",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_not",
    "masked_fill",
    "negative",
    "nan_to_num",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "bitwise_invert",
    "lerp",
    "addcmul",
    "addcdiv",
]


# -- generated ----------------------------------------------------------------


def define_inplace(twin: OpOverload) -> Fn:
    """Define the operator that writes the result of `twin` to its first argument."""
    schema = twin._schema
    first, *rest = [str(a) for a in schema.positional]
    rest += ["*", *map(str, schema.keyword_only)] if schema.keyword_only else []
    name = schema.name.partition("::")[2] + "_"
    overload = f".{schema.overload_name}" if schema.overload_name else ""
    written = first.replace("Tensor", "Tensor(a!)", 1)
    kernel = next(iter(twin.kernels().values()))
    entry: Fn = define(
        f"{name}{overload}({', '.join([written, *rest])}) -> Tensor(a!)",
        _writing(name, kernel.fn or np.copy),
        fake=_writing_meta(name, twin.rule("meta")),
        tags=WRITES,
    )
    INPLACE_TWINS[operator_of(entry).name()] = twin
    return entry


def _writing(name: str, fn: Fn) -> Fn:
    """Make the kernel; a ufunc of two arguments writes by itself, other results are copied in."""

    def copied(x: Array, *args: Any) -> None:
        try:
            found = fn(x, *args)
            if found.dtype is not x.dtype:
                require_real(found, x)
            np.copyto(x, found)
        except (TypeError, ValueError) as error:
            refuse_write(name, x, args, error)

    def direct(x: Array, y: Any) -> None:
        try:
            if y.dtype is not x.dtype:
                require_real(y, x)
            fn(x, y, x)
        except (TypeError, ValueError) as error:
            refuse_write(name, x, (y,), error)

    def with_number(x: Array, y: Any) -> None:
        try:
            fn(x, y, x)
        except (TypeError, ValueError) as error:
            refuse_write(name, x, (y,), error)

    writes = copied
    if hasattr(fn, "ufunc"):  # of an array and a number: see `with_numbers`
        writes = with_number
    elif isinstance(fn, np.ufunc) and fn.nin == 2:
        writes = direct
    if np.power not in (fn, getattr(fn, "ufunc", None)):
        return writes

    def power(x: Array, y: Any) -> None:
        # NumPy meets the negative exponent that it refuses when it has written half of them.
        (copied if x.dtype.kind in "iu" else writes)(x, y)

    return power


def can_write(found: DType, target: DType) -> bool:
    """Tell whether results may be cast to a written dtype.

    Of small floats NumPy believes that they hold complex numbers.
    """
    small = target.kind == "V" and found.kind == "c"
    return not small and np.can_cast(found, target, "same_kind")


def refuse_write(name: str, x: Array, args: tuple[Any, ...], error: Exception) -> None:
    """Raise the error of a result that cannot be written.

    Raises:
        MutationError: the tensor's elements are not its own.
        ArgumentError: the result has another shape, or a dtype that cannot be cast.
    """
    if not x.flags.writeable:
        refuse_repeated(name, x)
    if isinstance(error, ArgumentError):
        raise error
    others = ", ".join(f"{getattr(a, 'dtype', type(a).__name__)}{np.shape(a)}" for a in args)
    raise ArgumentError(
        f"the result of core::{name} cannot be written to its first argument",
        op=f"core::{name}",
        declared=f"{x.dtype}{x.shape}",
        seen=f"with {others}: {error}",
        fix="use the operator that returns a new tensor",
    ) from None


def _writing_meta(name: str, rule: Fn) -> Fn:
    def fake(x: Meta, *args: Any) -> Meta:
        found = rule(x, *args)
        if not can_write(found.dtype, x.dtype):
            raise ArgumentError(
                f"the result of core::{name} cannot be written to its first argument",
                op=f"core::{name}",
                declared=x.dtype,
                seen=found.dtype,
                fix="use the operator that returns a new tensor",
            )
        return x.space.meta(found.shape, x.dtype, x._strides, x.device)

    return fake


def _define_all(names: list[str]) -> dict[str, Fn]:
    entries: dict[str, Fn] = {}
    for definition in list(DEFINITIONS.values()):
        op = definition.op
        name = op._schema.name.partition("::")[2]
        first = op._schema.arguments[0] if op._schema.arguments else None
        if op.is_builtin and name in names and first is not None and str(first.type) == "Tensor":
            entries.setdefault(name + "_", define_inplace(op))
    return entries


#: By name: the entry of each generated operator.
INPLACE: dict[str, Fn] = _define_all([*BINARY, *UNARY])
add_, subtract_, multiply_, divide_ = (INPLACE[f"{n}_"] for n in BINARY[:4])


# -- filling and copying ------------------------------------------------------


def _fill(x: Array, value: Any) -> Array:
    return np.full(x.shape, value, x.dtype)


def _copy(x: Array, src: Array) -> Array:
    full = np.empty(x.shape, x.dtype)
    _copy_(full, src)
    return full


def _copy_(x: Array, src: Array) -> None:
    try:
        if src.ndim > x.ndim:
            raise ValueError("it has more axes")
        if x.dtype.kind == "V":
            warn_lost("core::copy_", src.dtype, x.dtype)
        np.copyto(x, src, casting="unsafe")
    except ValueError as error:
        refuse_write("copy_", x, (src,), error)


def _fill_(x: Array, value: Any) -> None:
    try:
        x.fill(value)
    except (TypeError, ValueError) as error:
        refuse_write("fill_", x, (value,), error)


def _zero_(x: Array) -> None:
    _fill_(x, 0)


def _same_meta(x: Meta, *args: Any) -> Meta:
    shapes = [a.shape for a in args if isinstance(a, Meta)]
    return x.space.meta(broadcast("copy_", x.shape, *shapes), x.dtype, None, x.device)


def _copied_meta(x: Meta, src: Meta) -> Meta:
    if len(src.shape) > len(x.shape):
        raise ArgumentError(
            "a tensor takes no copy of one with more axes",
            op="core::copy_", argument="src", declared=f"at most {len(x.shape)} axes",
            seen=f"shape {tuple(src.shape)}", fix="take the axes of one element off: src.reshape",
        )  # fmt: skip
    return _same_meta(x, src)


def _copy_batched(info: Any, in_dims: Any, x: Any, src: Any) -> Any:
    """Give `x` the batch too: the result has its shape, whatever `src` has."""
    x = in_front(info, in_dims[0], x)
    if in_dims[1] is not None:
        src = front(src, in_dims[1])
        src = reshape(src, [src.shape[0], *[1] * (x.ndim - src.ndim), *src.shape[1:]])
    return copy(x, src), 0


def _define_twins(
    name: str,
    signature: str,
    kernels: tuple[Fn, Fn],
    grad: Any,
    vmap: Fn | None = None,
    *,
    fake: Fn = _same_meta,
) -> tuple[Fn, Fn]:
    functional: Fn = define(
        f"{name}(Tensor x{signature}) -> Tensor",
        kernels[0],
        fake=fake,
        grad=grad,
        vmap=vmap,
        tags=(Tag.pointwise,),
    )
    writing: Fn = define(
        f"{name}_(Tensor(a!) x{signature}) -> Tensor(a!)",
        kernels[1],
        fake=fake,
        tags=WRITES,
    )
    INPLACE_TWINS[operator_of(writing).name()] = operator_of(functional)
    return functional, writing


#: `copy(x, src)` is `src` in the shape and dtype of `x`.
copy, copy_ = _define_twins(
    "copy", ", Tensor src", (_copy, _copy_), {"src": "g"}, _copy_batched, fake=_copied_meta
)
fill, fill_ = _define_twins("fill", ", Scalar value", (_fill, _fill_), {})
zero_ = define("zero_(Tensor(a!) x) -> Tensor(a!)", _zero_, fake=lambda x: x, tags=WRITES)
INPLACE_TWINS["core::zero_"] = operator_of(zero_like)
INPLACE_TWINS["core::index_put_"] = operator_of(indexing.index_put)


def _before_write(x: Any, other: Any) -> tuple[Any, Any]:
    """Copy what is going to be written if a gradient reads it, and what shares its memory."""
    if not (x.requires_grad or getattr(other, "requires_grad", False)):
        return x, other
    clone, version = ON_TENSORS["clone"], getattr(other, "version", None)
    former = clone(x)
    if other is x:
        return former, former
    shared = version.__class__ is Version and version is x.version
    return former, clone(other) if shared else other


def matmul_into(x: Any, other: Any, /) -> Any:
    """Write the product with another matrix: `x @= other`.

    Raises:
        ArgumentError: the product has another shape, or a dtype that cannot be cast.
    """
    found = ON_TENSORS["matmul"](*_before_write(x, other))
    same = tuple(found.shape) == tuple(x.shape)
    if not same or not can_write(found.dtype, x.dtype):
        raise ArgumentError(
            "a product of matrices cannot be written to its first argument",
            op="core::matmul",
            declared=f"{x.dtype}{tuple(x.shape)}",
            seen=f"{found.dtype}{tuple(found.shape)}",
            fix="use the operator that returns a new tensor",
        )
    return copy_(x, found)

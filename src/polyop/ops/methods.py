"""Operators as methods of `Tensor`.

Python's own operators are the entries themselves, without a function between.
Other methods have PyTorch's names and orders of arguments, and take its words
(`dim`, `keepdim`) beside ours (`axis`, `keepdims`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop.devices import as_dtype
from polyop.dispatch.bind import REFLECTED
from polyop.dispatch.context import word
from polyop.errors import ArgumentError, UsageTypeError
from polyop.ops import (  # noqa: F401 - the families whose operators become methods
    broadcasting,
    closeness,
    comparison,
    conversions,
    elementwise,
    indexing,
    joining,
    linear,
    reductions,
    rounding,
    select,
    sets,
    splitting,
    subscripts,
    view_inverses,
    views,
)
from polyop.ops.define import ON_TENSORS, operator_of
from polyop.ops.door import takes
from polyop.ops.inplace import INPLACE, copy_, fill_, matmul_into, zero_
from polyop.ops.late_methods import LateMethod
from polyop.ops.method_words import attach, attach_by_words, by_words
from polyop.ops.numpy_functions import numpy_function
from polyop.ops.random import bernoulli, normal_, uniform_
from polyop.ops.splitting import sizes_of
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def reflected(fn: Fn) -> Fn:
    """Swap the arguments."""

    def method(self: Any, other: Any, /) -> Any:
        return fn(other, self)

    return method


# -- Python's operators ---------------------------------------------------------

BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow", "matmul": "matmul",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
COMMUTATIVE = {"add", "mul", "and", "or", "xor"}
COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
#: Comparisons with their operands exchanged.
TURNED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_invert"}


def _attach_operators() -> None:
    for short, name in BINARY.items():
        entry = ON_TENSORS[name]
        attach(f"__{short}__", entry)
        attach(f"__r{short}__", entry if short in COMMUTATIVE else reflected(entry))
        attach(f"__i{short}__", INPLACE.get(f"{name}_", matmul_into))
        REFLECTED[operator_of(entry)] = f"__r{short}__"
    for short, name in (COMPARISONS | UNARY).items():
        attach(f"__{short}__", ON_TENSORS[name])
    for short, turned in TURNED.items():
        REFLECTED[operator_of(ON_TENSORS[COMPARISONS[short]])] = f"__{turned}__"
    attach("__getitem__", subscripts.get_item)
    attach("__setitem__", subscripts.set_item)


# -- methods that are entries ---------------------------------------------------

#: Other names of operators.
NAMES = {
    "sub": "subtract", "mul": "multiply", "div": "divide", "true_divide": "divide",
    "mm": "matmul", "bmm": "matmul", "neg": "negative", "absolute": "abs", "clamp": "clip",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "bitwise_not": "bitwise_invert",
    "copy": "clone",
} | COMPARISONS  # fmt: skip
ENTRIES = [
    "abs", "acos", "acosh", "add", "addcdiv", "addcmul", "alias", "angle", "asin", "asinh", "atan",
    "atan2", "atanh", "bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "ceil", "clip", "clone", "conj", "copysign", "cos", "cosh", "detach", "divide",
    "equal", "erf", "erfc", "exp", "expm1", "floor", "floor_divide", "fmod", "gelu", "greater",
    "greater_equal", "hypot", "index_put", "isfinite", "isinf", "isnan", "lerp", "less",
    "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "masked_fill", "matmul", "maximum", "minimum", "multiply",
    "nan_to_num", "negative", "nextafter", "not_equal", "positive", "pow", "reciprocal", "relu",
    "remainder", "round", "rsqrt", "sigmoid", "sign", "signbit", "silu", "sin", "sinh", "softplus",
    "sqrt", "square", "subtract", "sum_to", "tan", "tanh", "trunc",
]  # fmt: skip


def _attach_entries() -> None:
    for name in ENTRIES:
        if name in ON_TENSORS:
            attach(name, ON_TENSORS[name])
    attach("conj", elementwise.conj)  # formulas mean more by the name
    for name, other in NAMES.items():
        attach(name, ON_TENSORS[other])
    for name, entry in INPLACE.items():
        attach(name, entry)
        for short, other in NAMES.items():
            if f"{other}_" == name:
                attach(f"{short}_", entry)
    writing = (copy_, fill_, zero_, uniform_, normal_, indexing.index_put_)
    for entry in (*writing, bernoulli):
        attach(entry.__name__, entry)


# -- along axes -------------------------------------------------------------------

#: Methods of operators with keywords only: PyTorch's order of the arguments.
ALONG = {
    "sum": ("axis", "keepdims", "dtype"), "mean": ("axis", "keepdims"),
    "prod": ("axis", "keepdims"),
    "max": ("axis", "keepdims"), "min": ("axis", "keepdims"), "any": ("axis", "keepdims"),
    "all": ("axis", "keepdims"), "argmax": ("axis", "keepdims"), "argmin": ("axis", "keepdims"),
    "count_nonzero": ("axis", "keepdims"), "logsumexp": ("axis", "keepdims"),
    "cumulative_sum": ("axis", "dtype"), "cumulative_prod": ("axis", "dtype"),
    "argsort": ("axis", "descending", "stable"), "sort": ("axis", "descending", "stable"),
    "softmax": ("axis",), "log_softmax": ("axis",),
}  # fmt: skip
ALSO = {"amax": "max", "amin": "min", "cumsum": "cumulative_sum", "cumprod": "cumulative_prod"}


def _spread(name: str) -> Fn:
    """Make `std` or `var`, which divide by `n - 1` as methods; a truth value is `unbiased`."""

    def method(
        self: Any,
        dim: Any = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        axis: Any = None,
        correction: float | None = None,
        keepdims: bool = False,
    ) -> Any:
        if dim.__class__ is bool:
            dim, unbiased = None, dim
        if (dim is not None and axis is not None) or (correction, unbiased).count(None) == 0:
            raise UsageTypeError(
                f"{name}() got one argument under two names",
                declared=f"{name}(dim or axis, unbiased or correction, keepdim or keepdims)",
                fix="give one of the two",
            )
        if correction is None:
            correction = float(unbiased is not False)
        axis = dim if axis is None else axis
        return ON_TENSORS[name](
            self, axis=axis, correction=correction, keepdims=keepdim or keepdims
        )

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Give what `polyop.{name}` gives, by default with a correction of one."
    return method


def _attach_along() -> None:
    for name, order in ALONG.items():
        attach_by_words(name, name, *order)
    for name, other in ALSO.items():
        attach_by_words(name, other, *ALONG[other])
    for name in ("std", "var"):
        attach(name, _spread(name))
    for name in ("topk", "take_along_axis"):
        attach_by_words(name, name)
    attach("gather", _gather)


def _gather(self: Any, dim: int, index: Any) -> Any:
    """Take along an axis the elements at the places in `index`."""
    return ON_TENSORS["take_along_axis"](self, index, axis=dim)


# -- shapes -----------------------------------------------------------------------


def _reshape(self: Any, *shape: Any) -> Any:
    """Give the elements in another shape; a view where possible."""
    return views.reshape(self, sizes_of(shape))


def _view(self: Any, *shape: Any, dtype: Any = None) -> Any:
    """Give a view of another shape; of a dtype, one that has it already.

    Raises:
        UsageTypeError: the elements would have to be read as others.
    """
    if dtype is None:
        try:
            return views.view(self, sizes_of(shape))
        except ArgumentError:
            dtype = _only_dtype(shape)
            if dtype is None:
                raise
    elif shape:
        raise UsageTypeError(
            "view() takes a shape or a dtype",
            seen=f"the shape {shape} and dtype={dtype}",
            fix="take one view of the other: x.view(dtype).view(shape)",
        )
    if as_dtype(dtype) == self.dtype:
        return views.alias(self)
    raise UsageTypeError(
        "a Tensor is not viewed as one of another dtype: its bytes would be read as other numbers",
        declared=self.dtype,
        seen=dtype,
        fix="convert the numbers by x.astype(dtype), take x.real and x.imag of complex ones, or "
        "read the bytes of an array: polyop.from_numpy(x.numpy().view(dtype))",
    )


def _only_dtype(shape: Sequence[Any]) -> Any:
    """Give the dtype that stands where a shape does, or None."""
    if len(shape) != 1 or shape[0] is None:
        return None
    if isinstance(shape[0], str):
        return shape[0]
    try:
        return as_dtype(shape[0])
    except UsageTypeError:
        return None


def _permute(self: Any, *dims: Any) -> Any:
    """Give the axes in another order."""
    return views.permute_dims(self, sizes_of(dims))


def _tile(self: Any, *repeats: Any) -> Any:
    """Repeat the whole tensor along each axis."""
    return joining.tile(self, sizes_of(repeats))


@takes("Tensor other")
def _expand_as(self: Any, other: Any) -> Any:
    """Broadcast to the shape of another tensor."""
    return views.broadcast_to(self, list(other.shape))


@takes("Tensor other")
def _view_as(self: Any, other: Any) -> Any:
    """Give a view of another tensor's shape."""
    return views.view(self, list(other.shape))


@takes("Tensor other")
def _reshape_as(self: Any, other: Any) -> Any:
    """Reshape to another tensor's shape."""
    return views.reshape(self, list(other.shape))


def _contiguous(self: Any) -> Any:
    """Give the tensor itself if its elements lie in order, else such a copy."""
    now = word()
    # A program meets other layouts than its trace, unless it is guarded.
    if now.functional is not None or not (now.recorder is None or now.recorder.knows_layouts):
        return views.contiguous(self)
    return self if self.is_contiguous() else view_inverses.contiguous_copy(self)


def _all_axes_reversed(self: Any) -> Any:
    """Give the axes in reverse order, as a view."""
    return views.permute_dims(self, list(range(self.ndim))[::-1])


def _roll(self: Any, shifts: Any, dims: Any = None) -> Any:
    """Shift elements along axes."""
    return joining.roll(self, shifts, axis=dims)


def _flip(self: Any, *given: Any, dims: Any = None, axis: Any = None) -> Any:
    """Read backwards along axes; without any named, along all."""
    named = dims if axis is None else axis
    axes = given or (() if named is None else (named,))
    return views.flip(self, sizes_of(axes) if axes else None)


def _diagonal(self: Any, offset: int = 0, dim1: int = 0, dim2: int = 1, **axes: Any) -> Any:
    """Give a diagonal of two axes as the last axis of a view."""
    return views.diagonal(self, offset, **{"axis1": dim1, "axis2": dim2} | axes)


def _masked_select(self: Any, mask: Any) -> Any:
    """Give the elements where a mask holds."""
    x, mask = joining.broadcast_arrays(self, mask)
    return subscripts.get_item(x, mask)


def _where(self: Any, condition: Any, other: Any) -> Any:
    """Keep elements where a condition holds, and take those of another tensor elsewhere."""
    return ON_TENSORS["where"](condition, self, other)


SHAPES: dict[str, Fn] = {
    "reshape": _reshape, "view": _view, "permute": _permute, "tile": _tile, "repeat": _tile,
    "expand": splitting.expand, "expand_as": _expand_as, "view_as": _view_as,
    "reshape_as": _reshape_as, "contiguous": _contiguous, "t": splitting.t, "roll": _roll,
    "flip": _flip, "diagonal": _diagonal, "masked_select": _masked_select, "where": _where,
    "ravel": splitting.ravel, "moveaxis": splitting.moveaxis, "movedim": splitting.moveaxis,
}  # fmt: skip
WORDED: dict[str, Fn] = {
    "permute_dims": views.permute_dims, "transpose": views.transpose, "swapaxes": views.transpose,
    "unsqueeze": views.expand_dims, "expand_dims": views.expand_dims, "squeeze": views.squeeze,
    "broadcast_to": views.broadcast_to, "select": views.select,
    "flatten": splitting.flatten, "unflatten": splitting.unflatten, "split": splitting.split,
    "chunk": splitting.chunk, "unbind": splitting.unbind, "narrow": splitting.narrow,
    "index_select": indexing.index_select, "index_add": indexing.index_add,
    "index_copy": indexing.index_copy, "take": indexing.take, "isclose": closeness.isclose,
    "allclose": closeness.allclose, "tril": joining.tril, "triu": joining.triu,
    "put_along_axis": subscripts.put_along_axis,
}  # fmt: skip

#: Functions of other families that are methods under their own names.
FUNCTIONS: dict[Any, Sequence[str]] = {
    linear: ("outer", "mv", "dot", "vecdot"),
    sets: ("argwhere",),
}


def _attach_shapes() -> None:
    for name, method in SHAPES.items():
        if name not in Tensor.__slots__:
            attach(name, method)
    for name, method in WORDED.items():
        attach(name, by_words(method))
    for family, names in FUNCTIONS.items():
        for name in names:
            found = getattr(family, name, None)
            if found is not None:
                attach(name, by_words(found))
    for name in ("trace", "inv", "det", "cholesky"):
        attach(name, LateMethod(name, f"polyop.ops.linalg:{name}", by_words))
    attach("nonzero", sets.argwhere)
    attach("T", property(_all_axes_reversed))
    attach("mT", property(views.matrix_transpose))
    attach("__array_function__", numpy_function)


_attach_operators()
_attach_entries()
_attach_along()
_attach_shapes()

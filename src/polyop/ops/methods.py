"""Operators as methods of `Tensor`.

Python's own operators are the entries themselves, without a function between.
Other methods have PyTorch's names and orders of arguments, and take its words
(`dim`, `keepdim`) beside ours (`axis`, `keepdims`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from polyop.devices import Device, as_dtype
from polyop.dispatch.late_operators import LATE_OPERATORS
from polyop.ops import (  # noqa: F401 - the families whose operators become methods
    broadcasting,
    closeness,
    comparison,
    elementwise,
    factories,
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
from polyop.ops.creation import new_elsewhere, on_device, tensor
from polyop.ops.define import ON_TENSORS
from polyop.ops.inplace import INPLACE, copy_, fill_, matmul_into, zero_
from polyop.ops.late_methods import LateMethod
from polyop.ops.random import bernoulli, normal_, uniform_
from polyop.ops.splitting import sizes_of
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]

#: PyTorch's words for arguments.
WORDS = {
    "dim": "axis", "keepdim": "keepdims", "dims": "axis", "dim0": "axis1", "dim1": "axis2",
    "start_dim": "start_axis", "end_dim": "end_axis", "shifts": "shift", "diagonal": "k",
}  # fmt: skip


def attach(name: str, method: Any) -> None:
    """Make something an attribute of `Tensor`."""
    setattr(Tensor, name, method)


def by_words(fn: Fn, *order: str) -> Fn:
    """Take PyTorch's words; `order` names the positional ones of a keyword-only function."""

    @wraps(fn)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            if not args:
                return fn(self)
            return fn(self, **dict(zip(order, args, strict=False))) if order else fn(self, *args)
        named = {WORDS.get(word, word): value for word, value in kwargs.items()}
        if order:
            named |= dict(zip(order, args, strict=False))
            return fn(self, **named)
        return fn(self, *args, **named)

    return method


def attach_by_words(name: str, op: str, *order: str) -> None:
    """Make an operator a method: now, or when it is asked for if it is defined then."""
    place = LATE_OPERATORS.get(f"core::{op}")
    if place is None:
        attach(name, by_words(ON_TENSORS[op], *order))
    else:
        attach(name, LateMethod(name, f"{place}:{op}", lambda fn: by_words(fn, *order)))


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
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_invert"}


def _attach_operators() -> None:
    for short, name in BINARY.items():
        entry = ON_TENSORS[name]
        attach(f"__{short}__", entry)
        attach(f"__r{short}__", entry if short in COMMUTATIVE else reflected(entry))
        attach(f"__i{short}__", INPLACE.get(f"{name}_", matmul_into))
    for short, name in (COMPARISONS | UNARY).items():
        attach(f"__{short}__", ON_TENSORS[name])
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
    """Make `std` or `var`, which as methods divide by `n - 1`."""

    def method(
        self: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, **rest: Any
    ) -> Any:
        axis = rest.get("axis", dim)
        correction = rest.get("correction", float(unbiased))
        keepdims = rest.get("keepdims", keepdim)
        return ON_TENSORS[name](self, axis=axis, correction=correction, keepdims=keepdims)

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
    attach("gather", lambda self, dim, index: ON_TENSORS["take_along_axis"](self, index, axis=dim))


# -- shapes -----------------------------------------------------------------------


def _reshape(self: Any, *shape: Any) -> Any:
    """Give the elements in another shape; a view where possible."""
    return views.reshape(self, sizes_of(shape))


def _view(self: Any, *shape: Any) -> Any:
    """Give a view of another shape."""
    return views.view(self, sizes_of(shape))


def _permute(self: Any, *dims: Any) -> Any:
    """Give the axes in another order."""
    return views.permute_dims(self, sizes_of(dims))


def _tile(self: Any, *repeats: Any) -> Any:
    """Repeat the whole tensor along each axis."""
    return joining.tile(self, sizes_of(repeats))


def _expand_as(self: Any, other: Any) -> Any:
    """Broadcast to the shape of another tensor."""
    return views.broadcast_to(self, list(other.shape))


def _view_as(self: Any, other: Any) -> Any:
    """Give a view of another tensor's shape."""
    return views.view(self, list(other.shape))


def _reshape_as(self: Any, other: Any) -> Any:
    """Reshape to another tensor's shape."""
    return views.reshape(self, list(other.shape))


def _contiguous(self: Any) -> Any:
    """Give the tensor itself if its elements lie in order, else such a copy."""
    return self if self.is_contiguous() else view_inverses.contiguous_copy(self)


def _all_axes_reversed(self: Any) -> Any:
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


# -- dtypes, devices, relatives ---------------------------------------------------


def _to(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Convert to a dtype, a device, or those of another tensor; itself if nothing changes."""
    dtype, device = kwargs.get("dtype"), kwargs.get("device")
    for given in args:
        if isinstance(given, Tensor):
            dtype, device = given.dtype, given.device
        elif isinstance(given, Device) or (isinstance(given, str) and _is_device(given)):
            device = given
        elif not isinstance(given, bool):
            dtype = given
    made = self if device is None else on_device(self, device)
    if dtype is not None and as_dtype(dtype) != made.dtype:
        return ON_TENSORS["astype"](made, as_dtype(dtype))
    return made.clone() if kwargs.get("copy") and made is self else made


def _is_device(name: str) -> bool:
    return name.partition(":")[0] in {"cpu", "cuda", "xla", "mps", "xpu", "privateuseone", "meta"}


def _converter(dtype: Any) -> Fn:
    def method(self: Any) -> Any:
        return _to(self, dtype)

    method.__doc__ = f"Convert to {dtype}."
    return method


def _type(self: Any, dtype: Any) -> Any:
    """Convert to a dtype."""
    return _to(self, as_dtype(dtype))


def _new(make: Fn, value: float | None) -> Fn:
    def method(self: Any, *size: Any, dtype: Any = None, device: Any = None, **rest: Any) -> Any:
        if "size" in rest:
            size = (rest.pop("size"),)
        if device is None and not rest and hasattr(self.payload, "library"):
            made = new_elsewhere(self, size, value, as_dtype(dtype or self.dtype))
            if made is not None:
                return made
        device = self.device if device is None else device
        return make(*size, dtype=dtype or self.dtype, device=device, **rest)

    return method


def _new_tensor(self: Any, data: Any, *, dtype: Any = None, **rest: Any) -> Any:
    """Make a tensor of some data, with this one's dtype."""
    return tensor(data, dtype=dtype or self.dtype, **rest)


def _to_device(self: Any, device: Any, /, *, stream: Any = None) -> Any:
    """Give the tensor on a device; there are no streams here."""
    return on_device(self, device)


def _attach_conversions() -> None:
    names = ("float", "double", "half", "long", "int", "short", "bool")
    for name in names:
        attach(name, _converter(name))
    attach("to", _to)
    attach("to_device", _to_device)
    attach("cpu", lambda self: on_device(self, "cpu"))
    attach("type", _type)
    attach("type_as", lambda self, other: _to(self, other.dtype))
    attach("astype", lambda self, dtype, copy=True: _to(self, dtype, copy=copy))
    for name, value in (("empty", 0), ("zeros", 0), ("ones", 1), ("full", None)):
        attach(f"new_{name}", _new(getattr(factories, name), value))
    attach("new_tensor", _new_tensor)


_attach_operators()
_attach_entries()
_attach_along()
_attach_shapes()
_attach_conversions()

"""Filled tensors: zeros, ones, ranges. Those like a given tensor are in `ops/likes.py`.

Each comes from an operator (`core::zeros`, ...), so traces record it and fake
modes answer it. The public functions read sizes given one by one or as one
sequence, and make tensors on the device `meta`, which hold nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import CPU, META, Device, DType, as_dtype
from polyop.dispatch.context import word
from polyop.errors import UsageError
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.splitting import sizes_of
from polyop.ops.view_metas import refuse
from polyop.symbolic import SymInt, sym_max
from polyop.tensor.meta import META_SPACE, Meta, Size
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]
Array = Any
FLOAT32, INT64, BOOL = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)
COMPLEX64 = np.dtype(np.complex64)


# -- devices and dtypes -------------------------------------------------------


def dtype_of_number(*numbers: Any) -> DType:
    """Give the dtype of a tensor made of Python numbers: float32 and int64, not float64."""
    known = _OF_CLASSES.get(tuple([n.__class__ for n in numbers]))
    if known is not None:
        return known
    if all(isinstance(n, bool) for n in numbers):
        return BOOL
    if all(isinstance(n, (int, SymInt)) for n in numbers):
        return INT64
    return COMPLEX64 if any(isinstance(n, complex) for n in numbers) else FLOAT32


#: Of the commonest numbers.
_OF_CLASSES: dict[tuple[type, ...], DType] = {
    (float,): FLOAT32, (float, float): FLOAT32, (float, int): FLOAT32, (int,): INT64
}  # fmt: skip


def on_meta(device: Device | None) -> bool:
    """Tell whether what a kernel makes shall hold nothing.

    Raises:
        UsageError: the device is another one that has no memory here.
    """
    if device is None or device is CPU:
        return False
    if device is META:
        return True
    raise UsageError(
        f"polyop makes no tensors on the device {device}",
        declared="cpu, meta, or any device inside a fake mode",
        seen=device,
        fix="make it on the CPU, or register a backend for the device",
    )


# -- operators ----------------------------------------------------------------


def _factory(name: str, signature: str, kernel: Fn, describe: Fn) -> Fn:
    """Define an operator that makes a tensor, and the public way to call it.

    Args:
        name: of the operator.
        signature: of its static arguments, without dtype and device.
        kernel: `(static arguments, dtype or None) -> array`.
        describe: `(static arguments, dtype or None) -> (shape, dtype)`.
    """

    def on_arrays(*args: Any) -> Array:
        if args[-1] is not None and on_meta(args[-1]):
            shape, dtype = describe(*args[:-1])
            return META_SPACE.meta(tuple(shape), dtype, None, META)
        return kernel(*args[:-1])

    def fake(*args: Any) -> Meta:
        device = args[-1]
        shape, dtype = describe(*args[:-1])
        mode = word().fake
        space = META_SPACE if mode is None else mode.space
        found: Meta = space.meta(tuple(shape), dtype, None, device or CPU)
        return found

    entry = define(
        f"{name}({signature}, *, ScalarType? dtype=None, Device? device=None) -> Tensor",
        on_arrays,
        fake=fake,
        grad={},
    )

    def make(*statics: Any, dtype: Any = None, device: Any = None, grad: bool = False) -> Any:
        device = None if device is None else Device(device)
        dtype = None if dtype is None else as_dtype(dtype)
        made = entry(*statics, dtype=dtype, device=device)
        return made.requires_grad_() if grad else made

    return make


def _sized(size: Sequence[Size], dtype: DType | None) -> Any:
    check_size("zeros", size)
    return size, dtype or FLOAT32


def check_size(op: str, size: Sequence[Size]) -> None:
    """Refuse a negative size.

    Raises:
        ArgumentError: there is one.
    """
    for n in size:
        if isinstance(n, int) and n < 0:
            refuse(op, "a size is not negative", argument="size", seen=tuple(size))


def of_ones(shape: Any, dtype: DType) -> Array:
    """Make what `np.ones` makes, in a fifth of its time."""
    made = np.empty(shape, dtype)
    made.fill(1)
    return made


def _filled(size: Sequence[Size], value: Any, dtype: DType | None) -> Any:
    return _sized(size, dtype or dtype_of_number(value))


def _arange_described(start: Any, stop: Any, step: Any, dtype: DType | None) -> Any:
    if step == 0:
        refuse("arange", "the step is not zero", argument="step", seen=step)
    if any(isinstance(n, complex) for n in (start, stop, step)):
        refuse("arange", "complex numbers have no order", argument="stop", seen=(start, stop, step))
    span = stop - start
    if any(isinstance(n, float) for n in (start, stop, step)):
        length: Size = max(math.ceil(span / step), 0)
    else:
        length = -(-span // step)
        length = sym_max(length, 0) if isinstance(length, SymInt) else max(length, 0)
    return (length,), dtype or dtype_of_number(start, stop, step)


def _arange(start: Any, stop: Any, step: Any, dtype: DType | None) -> Array:
    (length,), found = _arange_described(start, stop, step, dtype)
    make: Any = np.arange  # its overloads say less than it takes
    return make(start, stop, step, found)[:length]


def _linspace(start: Any, stop: Any, num: Any, endpoint: bool, dtype: DType | None) -> Array:
    dtype = dtype or FLOAT32
    if start.__class__ is not float or stop.__class__ is not float or dtype.kind != "f":
        return np.linspace(start, stop, num, endpoint, dtype=dtype)
    parts = num - 1 if endpoint else num
    span = stop - start
    step = span / parts if parts > 0 else 0.0
    if step == 0.0 or not math.isfinite(span):
        return np.linspace(start, stop, num, endpoint, dtype=dtype)
    # What NumPy does with two numbers, without its looks at arrays of starts.
    y = np.arange(0.0, num)
    y *= step
    y += start
    if endpoint:
        y[-1] = stop
    return y.astype(dtype, copy=False)


_zeros = _factory("zeros", "SymInt[] size", lambda size, d: np.zeros(*_sized(size, d)), _sized)
_ones = _factory("ones", "SymInt[] size", lambda size, d: of_ones(*_sized(size, d)), _sized)
_empty = _factory("empty", "SymInt[] size", lambda size, d: np.empty(*_sized(size, d)), _sized)
_full = _factory(
    "full",
    "SymInt[] size, Scalar value",
    lambda size, value, d: np.full(size, value, _filled(size, value, d)[1]),
    _filled,
)
_range = _factory("arange", "Scalar start, Scalar stop, Scalar step", _arange, _arange_described)
_line = _factory(
    "linspace",
    "Scalar start, Scalar stop, SymInt num, bool endpoint",
    _linspace,
    lambda start, stop, num, _, d: ((num,), d or dtype_of_number(start + 0.0, stop)),
)
_eye = _factory(
    "eye",
    "SymInt n, SymInt m, int k",
    lambda n, m, k, d: np.eye(n, m, k, d or FLOAT32),
    lambda n, m, _, d: ((n, m), d or FLOAT32),
)


# -- filled with numbers ------------------------------------------------------


def _size(size: tuple[Any, ...], shape: Any) -> list[Any]:
    """Read sizes one by one, as one sequence, or by the standard's word for them."""
    return sizes_of(size if shape is None else (shape,))


def zeros(
    *size: Any,
    shape: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a tensor of zeros; sizes one by one, or as one sequence."""
    return _zeros(_size(size, shape), dtype=dtype, device=device, grad=requires_grad)


def ones(
    *size: Any,
    shape: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a tensor of ones; sizes one by one, or as one sequence."""
    return _ones(_size(size, shape), dtype=dtype, device=device, grad=requires_grad)


def empty(
    *size: Any,
    shape: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a tensor whose elements may be anything."""
    return _empty(_size(size, shape), dtype=dtype, device=device, grad=requires_grad)


def full(
    shape: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a tensor of one number, which a tensor may hold: gradients flow to it."""
    size = list(shape) if isinstance(shape, Sequence) else [shape]
    if isinstance(fill_value, Tensor):
        made = _full_of(size, fill_value, dtype, device)
        return made.requires_grad_() if requires_grad else made
    return _full(size, fill_value, dtype=dtype, device=device, grad=requires_grad)


def _full_of(size: list[Any], value: Any, dtype: Any, device: Any) -> Any:
    """Spread a tensor; what is made is written like any new tensor, so it is a copy."""
    value = value if dtype is None else ON_TENSORS["astype"](value, as_dtype(dtype))
    value = value if device is None else on_device(value, device)
    return ON_TENSORS["clone"](ON_TENSORS["broadcast_to"](value, size))


def on_device(x: Any, device: Any) -> Any:
    """Give a tensor on a device: itself, or a copy there; on `meta`, one without data."""
    device = Device(device)
    return x if device is x.device else ON_TENSORS["to_device"](x, device)


def arange(
    start: Any,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make the numbers from `start` up to `stop`, which is left out."""
    if isinstance(start, Tensor) or isinstance(stop, Tensor) or isinstance(step, Tensor):
        start, stop, step = _numbers("arange", start, stop, step)
    ends = (0, start) if stop is None else (start, stop)
    return _range(*ends, step, dtype=dtype, device=device, grad=requires_grad)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int | None = None,
    *,
    steps: int | None = None,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
    requires_grad: bool = False,
) -> Any:
    """Make `num` (or `steps`) numbers that lie evenly from `start` to `stop`."""
    if isinstance(start, Tensor) or isinstance(stop, Tensor):
        start, stop = _numbers("linspace", start, stop)
    count = num if num is not None else steps
    if count is None:
        refuse("linspace", "linspace needs the number of its elements", argument="num")
    if isinstance(count, int) and count < 0:
        refuse("linspace", "a size is not negative", argument="num", seen=count)
    dtype = dtype or dtype_of_number(start + 0.0, stop)
    return _line(start, stop, count, endpoint, dtype=dtype, device=device, grad=requires_grad)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a matrix with ones on a diagonal."""
    n_cols = n_rows if n_cols is None else n_cols
    return _eye(n_rows, n_cols, k, dtype=dtype, device=device, grad=requires_grad)


def _numbers(what: str, *ends: Any) -> list[Any]:
    """Look into the tensors without axes among the ends of a range: no gradient flows to them."""
    return [x._constant(what) if isinstance(x, Tensor) and not x.ndim else x for x in ends]

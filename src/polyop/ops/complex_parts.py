"""The two parts of complex numbers: views, and what makes complex numbers of them.

`x.real` and `x.imag` show the memory of a complex tensor, as in NumPy and PyTorch, so that
writes to them are writes to `x`. The functions `real` and `imag` copy, and take real numbers too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import MutationError
from polyop.ops import view_metas as metas
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.method_words import attach
from polyop.ops.pointwise import pointwise
from polyop.ops.views import VIEW_INVERSES
from polyop.tensor.meta import Meta, normal_strides

Array = np.ndarray[Any, Any]
Fn = Callable[..., Any]


def part_of(dtype: DType) -> DType:
    """Give the dtype of the parts of complex numbers, in their own order of bytes."""
    return np.empty(0, dtype).real.dtype


def complex_kernel(real: Array, imag: Array) -> Array:
    """Put two parts side by side, where arithmetic would make NaN of what is infinite."""
    dtype = np.result_type(real, imag)
    if dtype.kind != "f" or dtype.itemsize < 4:
        metas.refuse(
            "complex", f"there are no complex numbers of {dtype.name}", argument="real",
            declared="float32 or float64", seen=(real.dtype.name, imag.dtype.name),
            fix="convert the parts first: x.astype(polyop.float32)",
        )  # fmt: skip
    found: Array = np.nditer(  # lays it out as a ufunc would
        [real, imag, None],
        ["zerosize_ok"],
        [["readonly"], ["readonly"], ["writeonly", "allocate"]],
        op_dtypes=[None, None, np.result_type(dtype, np.complex64)],
    ).operands[2]
    found.real, found.imag = real, imag
    return found


complex_ = pointwise(
    "complex(Tensor real, Tensor imag)",
    complex_kernel,
    {"real": "real_part(g)", "imag": "imag_part(g)"},
)


def _require_complex(name: str, dtype: Any) -> None:
    if dtype.kind != "c":
        metas.refuse(
            name, "only complex numbers have parts of their own", argument="x",
            declared="complex64 or complex128", seen=dtype, fix="call polyop.real or polyop.imag",
        )  # fmt: skip


def _part(name: str, take: Callable[[Array], Array]) -> Fn:
    def kernel(x: Array) -> Array:
        _require_complex(name, x.dtype)
        return take(x)

    return kernel


def _part_meta(name: str) -> Fn:
    def fake(x: Meta) -> Meta:
        _require_complex(name, x.dtype)
        strides = normal_strides(x.shape, [2 * stride for stride in x.strides])
        return x.space.meta(x.shape, part_of(x.dtype), strides, x.device)

    return fake


def _part_batched(part: Callable[[], Fn]) -> Fn:
    def batched(info: Any, in_dims: Sequence[Any], x: Any) -> Any:
        return part()(x), in_dims[0]

    return batched


real_part: Fn = define(
    "real_part(Tensor(a) x) -> Tensor(a)",
    _part("real_part", lambda x: x.real),
    fake=_part_meta("real_part"),
    grad={"x": "complex(g, zero_like(g))"},
    vmap=_part_batched(lambda: real_part),
)
imag_part: Fn = define(
    "imag_part(Tensor(a) x) -> Tensor(a)",
    _part("imag_part", lambda x: x.imag),
    fake=_part_meta("imag_part"),
    grad={"x": "complex(zero_like(g), g)"},
    vmap=_part_batched(lambda: imag_part),
)

VIEW_INVERSES["core::real_part"] = lambda base, value: complex_(value, imag_part(base))
VIEW_INVERSES["core::imag_part"] = lambda base, value: complex_(real_part(base), value)


# -- attributes -----------------------------------------------------------------


def _real(self: Any) -> Any:
    """Give the real parts: a view of complex numbers, and real numbers themselves."""
    return real_part(self) if self.dtype.kind == "c" else self


def _imag(self: Any) -> Any:
    """Give the imaginary parts: a view of complex numbers, and zeros for real ones."""
    return imag_part(self) if self.dtype.kind == "c" else ON_TENSORS["imag"](self)


def _set_real(self: Any, value: Any) -> None:
    _real(self)[...] = value


def _set_imag(self: Any, value: Any) -> None:
    if self.dtype.kind != "c":
        raise MutationError(
            "real numbers have no imaginary part that could be set",
            seen=f"a tensor of {self.dtype.name}",
            fix="make it complex first: x.astype(polyop.complex128)",
        )
    imag_part(self)[...] = value


attach("real", property(_real, _set_real))
attach("imag", property(_imag, _set_imag))

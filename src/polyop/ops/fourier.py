"""Fourier transforms.

Three operators compute: from complex to complex numbers, from real ones to half
of a spectrum, and back. How a sum is scaled is a word of theirs: "none",
"ortho" (by the root of the number of elements), or "full" (by that number); the
gradient of each is scaled alike. All else is composed of these, of padding and
of cutting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError
from polyop.ops.axes import batch_first, call, normal_axes, past, real_axis
from polyop.ops.define import define
from polyop.ops.door import takes
from polyop.ops.elementwise import conj
from polyop.ops.factories import FLOAT32, arange
from polyop.ops.formulas import Built, formula
from polyop.ops.joining import pad
from polyop.ops.rounding import astype
from polyop.ops.shapes import normal_axis
from polyop.ops.views import slice_axis
from polyop.tensor.meta import Meta

Fn = Callable[..., Any]
Array = Any
_numpy: Any = np.fft  # its stubs want literal words

COMPLEX: dict[str, DType] = {"float32": np.dtype(np.complex64), "float64": np.dtype(np.complex128)}
REAL: dict[str, DType] = {"complex64": np.dtype(np.float32), "complex128": np.dtype(np.float64)}
#: By direction and the standard's word, how a transform is scaled.
SCALING = {
    True: {"backward": "none", "ortho": "ortho", "forward": "full"},
    False: {"backward": "full", "ortho": "ortho", "forward": "none"},
}
#: The words of NumPy for a scaling, of transforms that go forward and back.
_FORWARD = {"none": "backward", "ortho": "ortho", "full": "forward"}
_BACK = {"none": "forward", "ortho": "ortho", "full": "backward"}


def _other(name: str, dtype: DType, table: dict[str, DType]) -> DType:
    """Give the dtype of a result that is complex if the argument is real, or the reverse.

    Raises:
        ArgumentError: the operator does not take such a dtype.
    """
    found = table.get(dtype.name)
    if found is None:
        problem = f"core::{name} takes {' or '.join(table)}"
        fix = "convert it with .astype(...)"
        raise ArgumentError(problem, op=f"core::{name}", seen=dtype.name, fix=fix)
    return found


def _some(name: str, sizes: Sequence[Any]) -> None:
    if any(isinstance(n, int) and n < 1 for n in sizes):
        raise ArgumentError(
            f"core::{name} needs at least one element along each axis",
            op=f"core::{name}",
            seen=tuple(sizes),
        )


# -- complex numbers ----------------------------------------------------------------


def _c2c(x: Array, axes: Sequence[int], scaling: str, forward: bool) -> Array:
    _other("fft_c2c", x.dtype, REAL)
    axes = normal_axes("fft_c2c", axes, x.ndim)
    _some("fft_c2c", [x.shape[a] for a in axes])
    for axis in axes:  # as often as there are axes; NumPy does the same
        transform = _numpy.fft if forward else _numpy.ifft
        x = transform(x, axis=axis, norm=(_FORWARD if forward else _BACK)[scaling])
    return np.array(x, order="C")


def _c2c_fake(x: Meta, axes: Sequence[int], scaling: str, forward: bool) -> Meta:
    _other("fft_c2c", x.dtype, REAL)
    _some("fft_c2c", [x.shape[a] for a in normal_axes("fft_c2c", axes, x.ndim)])
    return x.but(strides=None)


def _c2c_vmap(info: Any, in_dims: Sequence[Any], x: Any, axes: Sequence[int], *rest: Any) -> Any:
    dim = in_dims[0]
    moved = [past(a, dim) for a in normal_axes("fft_c2c", axes, len(x.shape) - 1)]
    return fft_c2c(x, moved, *rest), dim


fft_c2c = define(
    'fft_c2c(Tensor x, int[] axes, str scaling="none", bool forward=True) -> Tensor',
    _c2c,
    fake=_c2c_fake,
    grad={"x": "fft_c2c(g, axes, scaling, not forward)"},
    vmap=_c2c_vmap,
)


# -- half of a spectrum -------------------------------------------------------------


def _r2c(x: Array, axis: int, scaling: str) -> Array:
    _other("fft_r2c", x.dtype, COMPLEX)
    _some("fft_r2c", [x.shape[real_axis("fft_r2c", axis, x.ndim)]])
    return np.asarray(_numpy.rfft(x, axis=axis, norm=_FORWARD[scaling]), order="C")


def _r2c_fake(x: Meta, axis: int, scaling: str) -> Meta:
    dtype = _other("fft_r2c", x.dtype, COMPLEX)
    at = real_axis("fft_r2c", axis, x.ndim)
    _some("fft_r2c", [x.shape[at]])
    shape = (*x.shape[:at], x.shape[at] // 2 + 1, *x.shape[at + 1 :])
    return x.but(shape=shape, dtype=dtype, strides=None)


def _c2r(x: Array, axis: int, n: int, scaling: str) -> Array:
    _other("fft_c2r", x.dtype, REAL)
    _half(x.shape[real_axis("fft_c2r", axis, x.ndim)], n)
    return np.asarray(_numpy.irfft(x, n, axis, _BACK[scaling]), order="C")


def _half(size: Any, n: Any) -> None:
    known = isinstance(size, int) and isinstance(n, int)
    if known and (n < 1 or size != n // 2 + 1):
        raise ArgumentError(
            f"{n} real numbers have a spectrum of which {n // 2 + 1} are kept",
            op="core::fft_c2r",
            argument="n",
            seen=f"{size} complex numbers",
        )


def _c2r_fake(x: Meta, axis: int, n: Any, scaling: str) -> Meta:
    dtype = _other("fft_c2r", x.dtype, REAL)
    at = real_axis("fft_c2r", axis, x.ndim)
    _half(x.shape[at], n)
    return x.but(shape=(*x.shape[:at], n, *x.shape[at + 1 :]), dtype=dtype, strides=None)


def _along(name: str) -> Fn:
    """Give the batching rule of an operator `(x, axis, ...)`."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any, axis: int, *rest: Any) -> Any:
        at = normal_axis(name, axis, len(x.shape) - 1)
        return call(name, batch_first(x, in_dims[0]), at + 1, *rest), 0

    return batched


@formula
def fft_r2c_grad(of: Built, g: Any, size: Any, axis: int, scaling: str) -> Any:
    """Go back from half of a spectrum, whose other half is zero."""
    at = axis % len(g.shape)
    missing = [*g.shape]
    missing[at] = size - g.shape[at]
    zeros = of.zeros_of(g, missing)
    return of.real(of.fft_c2c(of.concat([g, zeros], at), [at], scaling, False))


@formula
def fft_c2r_grad(of: Built, g: Any, n: Any, axis: int, scaling: str) -> Any:
    """Go forward; what stands for two elements of the whole spectrum counts twice."""
    found = of.fft_r2c(g, axis, scaling)
    at = axis % len(g.shape)
    ones = [1] * (len(g.shape) - 1 - at)
    twice = of.twice(found, n).reshape([found.shape[at], *ones])
    return found * twice


@formula
def zeros_of(of: Built, x: Any, shape: Sequence[Any]) -> Any:
    """Make zeros like an array, or like a tensor."""
    return np.zeros(shape, x.dtype) if isinstance(x, np.ndarray) else x.new_zeros(list(shape))


@formula
def twice(of: Built, x: Any, n: Any) -> Any:
    """Give for each frequency of half a spectrum how often it stands in the whole one."""
    k = _counted(x, n // 2 + 1)
    # Nothing, and with an even number the middle, are their own opposites.
    return of.where((k == 0) | (k * 2 == n), 1.0, 2.0).astype(REAL[x.dtype.name])


def _counted(x: Any, size: Any) -> Any:
    return np.arange(size) if isinstance(x, np.ndarray) else arange(size, device=x.device)


fft_r2c = define(
    'fft_r2c(Tensor x, int axis=-1, str scaling="none") -> Tensor',
    _r2c,
    fake=_r2c_fake,
    grad={"x": "fft_r2c_grad(g, x.shape[axis], axis, scaling)"},
    vmap=_along("fft_r2c"),
)
fft_c2r = define(
    'fft_c2r(Tensor x, int axis, SymInt n, str scaling="none") -> Tensor',
    _c2r,
    fake=_c2r_fake,
    grad={"x": "fft_c2r_grad(g, n, axis, scaling)"},
    vmap=_along("fft_c2r"),
)


# -- what all transforms do first ---------------------------------------------------


def _floating(x: Any) -> Any:
    """Compute with integers as float64, and with halves as float32."""
    if x.dtype.kind in "biu":
        return astype(x, np.dtype(np.float64))
    return x if x.dtype.name in COMPLEX or x.dtype.kind == "c" else astype(x, FLOAT32)


def _complex(x: Any) -> Any:
    x = _floating(x)
    return x if x.dtype.kind == "c" else astype(x, COMPLEX[x.dtype.name])


def _real(x: Any) -> Any:
    if x.dtype.kind == "c":
        raise ArgumentError(
            "this transform takes real numbers",
            argument="x",
            seen=x.dtype.name,
            fix="call fft, or take the real part",
        )
    return _floating(x)


def _scaling(norm: str, *, forward: bool) -> str:
    if norm not in SCALING[forward]:
        raise ArgumentError(
            "a transform is scaled on its way forward, on its way back, or by half both times",
            argument="norm",
            declared=", ".join(SCALING[forward]),
            seen=norm,
        )
    return SCALING[forward][norm]


def _length(n: Any) -> list[Any] | None:
    """Give the size of the one axis of a transform, if it is said."""
    if isinstance(n, int) and n < 1:
        raise ArgumentError("a transform has at least one element", argument="n", seen=n)
    return None if n is None else [n]


def _resized(x: Any, n: Any, axis: int) -> Any:
    """Cut an axis, or fill it up with zeros."""
    if n is None:
        return x
    at = real_axis("fft", axis, len(x.shape))
    if n is x.shape[at] or n == x.shape[at]:
        return x
    _length(n)
    if n < x.shape[at]:
        return slice_axis(x, at, 0, n, 1)
    widths = [(0, n - x.shape[at] if i == at else 0) for i in range(len(x.shape))]
    return pad(x, widths)


def _which(x: Any, s: Any, axes: Any) -> tuple[list[Any], list[int]]:
    """Give sizes and axes of a transform along several axes."""
    ndim = len(x.shape)
    s = [s] if isinstance(s, int) else s
    axes = [axes] if isinstance(axes, int) else axes
    if axes is None:
        axes = range(ndim) if s is None else range(ndim - len(s), ndim)
    axes = list(normal_axes("fft", list(axes), ndim))
    sizes = [x.shape[a] for a in axes] if s is None else list(s)
    if len(sizes) != len(axes):
        raise ArgumentError(
            "there is one size for each axis", argument="s", declared=len(axes), seen=sizes
        )
    whole = [isinstance(n, int) and n == -1 for n in sizes]  # the axis as it is
    return [x.shape[a] if w else n for n, a, w in zip(sizes, axes, whole, strict=True)], axes


def _halving(name: str, x: Any, s: Any, axes: Any) -> tuple[list[Any], list[int]]:
    """Give sizes and axes, the last of which has half of a spectrum.

    Raises:
        ArgumentError: there is none.
    """
    sizes, found = _which(x, s, axes)
    if not found:
        raise ArgumentError(
            f"core::{name} needs an axis of which half is kept",
            op=f"core::{name}",
            argument="axes",
            declared="at least one",
            seen=f"axes={axes}, s={s}, shape {tuple(x.shape)}",
            fix="call fftn or ifftn",
        )
    return sizes, found


def _many(x: Any, s: Any, axes: Any, norm: str, *, forward: bool) -> Any:
    sizes, axes = _which(x, s, axes)
    x = _complex(x)
    for n, axis in zip(sizes, axes, strict=True):
        x = _resized(x, n, axis)
    return fft_c2c(x, axes, _scaling(norm, forward=forward), forward)


# -- public ------------------------------------------------------------------------


@takes("Tensor x, SymInt? n, int axis, str norm")
def fft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Transform along one axis.

    Args:
        x: real or complex numbers.
        n: the number of elements, to which the axis is cut or filled with zeros.
        axis: the axis.
        norm: "backward" scales the inverse, "forward" this one, "ortho" both by a root.

    Raises:
        ArgumentError: no such axis or norm, or no elements.
    """
    return _many(x, _length(n), [axis], norm, forward=True)


@takes("Tensor x, SymInt? n, int axis, str norm")
def ifft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Undo `fft`."""
    return _many(x, _length(n), [axis], norm, forward=False)


@takes("Tensor x, SymInt[1]? s, int[1]? axes, str norm")
def fftn(x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    """Transform along several axes; `s` has their sizes, -1 for an axis as it is."""
    return _many(x, s, axes, norm, forward=True)


@takes("Tensor x, SymInt[1]? s, int[1]? axes, str norm")
def ifftn(x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    """Undo `fftn`."""
    return _many(x, s, axes, norm, forward=False)


@takes("Tensor x, SymInt? n, int axis, str norm")
def rfft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Transform real numbers, and keep the half of the spectrum that says it all."""
    scaling = _scaling(norm, forward=True)
    return fft_r2c(_resized(_real(x), n, axis), axis, scaling)


@takes("Tensor x, SymInt? n, int axis, str norm")
def irfft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Undo `rfft`; `n` is the number of real elements, by default an even one."""
    return _to_real(_complex(x), n, axis, _scaling(norm, forward=False))


def _to_real(x: Any, n: Any, axis: int, scaling: str) -> Any:
    real_axis("fft", axis, len(x.shape))
    n = 2 * (x.shape[axis] - 1) if n is None else n
    _length(n)
    return fft_c2r(_resized(x, n // 2 + 1, axis), axis, n, scaling)


@takes("Tensor x, SymInt[1]? s, int[1]? axes, str norm")
def rfftn(x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    """Transform real numbers along several axes; the last of these is halved."""
    sizes, axes = _halving("rfftn", x, s, axes)
    x = rfft(x, n=sizes[-1], axis=axes[-1], norm=norm)
    return fftn(x, s=sizes[:-1], axes=axes[:-1], norm=norm) if axes[:-1] else x


@takes("Tensor x, SymInt[1]? s, int[1]? axes, str norm")
def irfftn(x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    """Undo `rfftn`; `s` has the sizes of the real result."""
    sizes, axes = _halving("irfftn", x, s, axes)
    if axes[:-1]:
        x = ifftn(x, s=sizes[:-1], axes=axes[:-1], norm=norm)
    return irfft(x, n=None if s is None else sizes[-1], axis=axes[-1], norm=norm)


@takes("Tensor x, SymInt? n, int axis, str norm")
def hfft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Transform the half of a signal whose other half is its mirrored conjugate."""
    return _to_real(conj(_complex(x)), n, axis, _scaling(norm, forward=True))


@takes("Tensor x, SymInt? n, int axis, str norm")
def ihfft(x: Any, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    """Undo `hfft`."""
    return conj(fft_r2c(_resized(_real(x), n, axis), axis, _scaling(norm, forward=False)))


__all__ = [
    "fft", "fftn", "hfft", "ifft", "ifftn", "ihfft", "irfft", "irfftn", "rfft", "rfftn",
]  # fmt: skip

"""Random tensors. Without `generator`, numbers come from the process's default one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import CPU, META, Device, DType, as_dtype
from polyop.dispatch.bits import OTHER, WRAPPED
from polyop.errors import ArgumentError
from polyop.ops.creation import FLOAT32, INT64, on_meta, zeros_like
from polyop.ops.define import define, operator_of
from polyop.ops.door import takes
from polyop.ops.factories import check_size
from polyop.ops.generator import draw
from polyop.ops.inplace import INPLACE_TWINS, refuse_write
from polyop.ops.splitting import sizes_of
from polyop.schema.tags import Tag
from polyop.tensor.meta import META_SPACE, Meta
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]
Array = Any
SEEDED = (Tag.nondeterministic_seeded,)


def _floats(generator: Any, method: str, size: Sequence[int], dtype: DType | None) -> Array:
    dtype = dtype or FLOAT32
    if dtype.kind == "c":
        parts = [
            _floats(generator, method, size, np.dtype(f"f{dtype.itemsize // 2}")) for _ in "ri"
        ]
        scale = 0.5**0.5 if method == "standard_normal" else 1.0
        return ((parts[0] + 1j * parts[1]) * scale).astype(dtype)
    if dtype.kind not in "fV":
        raise ArgumentError(
            "random numbers are floats", op="core::rand", argument="dtype", seen=dtype
        )
    native = dtype if dtype.name in {"float32", "float64"} else FLOAT32
    return draw(generator, method, tuple(size), native).astype(dtype, copy=False)


# -- new tensors --------------------------------------------------------------


def _define_sized(name: str, signature: str, kernel: Fn, default: DType) -> Fn:
    """Define an operator that makes a random tensor of a size, and the way to call it."""

    def on_arrays(*args: Any) -> Array:
        *statics, size, generator, dtype, device = args
        check_size(name, size)
        if on_meta(device):
            return META_SPACE.meta(tuple(size), dtype or default, None, META)
        return kernel(generator, *statics, size, dtype or default)

    def fake(*args: Any) -> Meta:
        *_, size, _, dtype, device = args
        check_size(name, size)
        return META_SPACE.meta(tuple(size), dtype or default, None, device or CPU)

    entry = define(
        f"{name}({signature}SymInt[] size, *, Generator? generator=None, "
        "ScalarType? dtype=None, Device? device=None) -> Tensor",
        on_arrays,
        fake=fake,
        grad={},
        tags=SEEDED,
    )

    def make(
        *args: Any,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Any:
        device = None if device is None else Device(device)
        dtype = None if dtype is None else as_dtype(dtype)
        made = entry(*args, generator=generator, dtype=dtype, device=device)
        return made.requires_grad_() if requires_grad else made

    make.__name__ = make.__qualname__ = name  # for what Python says of a call
    return make


def _integers(generator: Any, low: int, high: int, size: Sequence[int], dtype: DType) -> Array:
    if low >= high:
        raise ArgumentError(
            "no integer lies in an empty range", op="core::randint", declared="low < high",
            seen=f"{low} to {high}",
        )  # fmt: skip
    return draw(generator, "integers", low, high, tuple(size)).astype(dtype, copy=False)


_rand = _define_sized("rand", "", lambda g, size, d: _floats(g, "random", size, d), FLOAT32)
_randn = _define_sized(
    "randn", "", lambda g, size, d: _floats(g, "standard_normal", size, d), FLOAT32
)
_randint = _define_sized("randint", "int low, int high, ", _integers, INT64)
_randperm = _define_sized(
    "randperm",
    "",
    lambda g, size, d: draw(g, "permutation", size[0]).astype(d, copy=False),
    INT64,
)


def rand(*size: Any, **options: Any) -> Any:
    """Make random numbers from 0 to 1; sizes one by one, or as one sequence."""
    return _rand(sizes_of(size), **options)


def randn(*size: Any, **options: Any) -> Any:
    """Make random numbers of the normal distribution."""
    return _randn(sizes_of(size), **options)


@takes("Any low, Any high, SymInt[1]? size")
def randint(low: int, high: Any, size: Any = None, **options: Any) -> Any:
    """Make random integers from `low` to `high`, which is left out."""
    if size is None:
        low, high, size = 0, low, high
    return _randint(low, high, sizes_of((size,)), **options)


def randperm(n: int, **options: Any) -> Any:
    """Make a random order of 0 to `n - 1`."""
    return _randperm([n], **options)


@takes("Tensor x")
def rand_like(x: Any, **options: Any) -> Any:
    """Make random numbers from 0 to 1 in the shape and library of a tensor."""
    return _like(x, rand, _uniform, 1.0, options)


@takes("Tensor x")
def randn_like(x: Any, **options: Any) -> Any:
    """Make random numbers of the normal distribution in the shape and library of a tensor."""
    return _like(x, randn, _normal, 0.5**0.5, options)


def _like(x: Any, make: Fn, fill: Fn, scale: float, options: dict[str, Any]) -> Any:
    """Make random numbers beside a tensor; `fill` draws for one that another library holds."""
    options = {"dtype": x.dtype, "device": x.device} | options
    if not _is_held(x) or Device(options["device"] or CPU) != x.device:
        return make(list(x.shape), **options)
    dtype = as_dtype(options["dtype"] or FLOAT32)
    if dtype.kind not in "fVc":
        return make(list(x.shape), **options)  # refuses it
    generator, part = options.get("generator"), dtype
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
    outline = zeros_like(x, dtype=part)
    made = fill(outline, generator=generator)
    if dtype.kind == "c":
        made = (made + fill(outline, generator=generator) * 1j) * scale
    return made.requires_grad_() if options.get("requires_grad") else made


def _is_held(x: Any) -> bool:
    """Tell whether another library's array is at the bottom of a tensor."""
    while isinstance(x, Tensor) and x.keys & WRAPPED:
        x = x.payload.value
    return isinstance(x, Tensor) and bool(x.keys & OTHER)


@takes("float mean, float std, SymInt[1] size")
def normal(mean: float, std: float, size: Any, **options: Any) -> Any:
    """Make random numbers of a normal distribution."""
    return randn(sizes_of((size,)), **options) * std + mean


# -- from tensors -------------------------------------------------------------


def _bernoulli(x: Array, generator: Any) -> Array:
    if x.size and not ((x >= 0) & (x <= 1)).all():
        raise ArgumentError(
            "a probability lies from 0 to 1", op="core::bernoulli", argument="x (position 0)",
            seen=f"{x.min()} to {x.max()}",
        )  # fmt: skip
    return (draw(generator, "random", x.shape) < x).astype(x.dtype)


bernoulli = define(
    "bernoulli(Tensor x, *, Generator? generator=None) -> Tensor",
    _bernoulli,
    fake=lambda x, _: x.space.meta(x.shape, x.dtype, None, x.device),
    grad={},
    tags=SEEDED,
)


def _define_writing(name: str, signature: str, kernel: Fn) -> tuple[Fn, Fn]:
    """Define an operator that gives a filled tensor, and one that fills it; both end history."""
    signature = f"{signature}, *, Generator? generator=None"

    def filled(x: Array, *args: Any) -> Array:
        made = np.empty(x.shape, x.dtype)
        fill(made, *args)
        return made

    def fill(x: Array, *args: Any) -> None:
        *statics, generator = args
        try:
            np.copyto(x, kernel(generator, x.shape, *statics), casting="same_kind")
        except (TypeError, ValueError) as error:
            refuse_write(f"{name}_", x, tuple(statics), error)

    functional = define(
        f"{name}(Tensor x{signature}) -> Tensor",
        filled,
        fake=lambda x, *_: x.space.meta(x.shape, x.dtype, None, x.device),
        grad={},
        tags=SEEDED,
    )
    writing = define(
        f"{name}_(Tensor(a!) x{signature}) -> Tensor(a!)",
        fill,
        fake=lambda x, *_: x,
        tags=(*SEEDED, Tag.inplace),
    )
    INPLACE_TWINS[operator_of(writing).name()] = operator_of(functional)
    return functional, writing


_uniform, uniform_ = _define_writing(
    "uniform",
    ", float low=0.0, float high=1.0",
    lambda g, shape, low, high: draw(g, "uniform", low, high, shape),
)
_normal, normal_ = _define_writing(
    "normal",
    ", float mean=0.0, float std=1.0",
    lambda g, shape, mean, std: draw(g, "normal", mean, std, shape),
)

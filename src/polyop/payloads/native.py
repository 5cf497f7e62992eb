"""Operators over the payload's own namespace, written once for all libraries.

A native kernel gets a `Call` and the operator's arguments, arrays in the place of tensors. The
operator's fake rule has run before: shapes and dtypes are right, mistakes are raised, and the
result's dtype is known, to which arguments are converted. So promotion is NumPy's everywhere.
What a kernel cannot do as NumPy does it, it refuses by `Unsupported`; then the exchange answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.ops.axes import SINGLE, is_half
from polyop.payloads.library import Array, Library
from polyop.payloads.unknown import UnknownSize
from polyop.schema.base_values import example_of

Fn = Callable[..., Any]
NUMBERS = frozenset({bool, int, float, complex})


class Unsupported(Exception):  # noqa: N818 - an answer of a kernel, which nobody else sees
    """A native kernel cannot compute what NumPy would."""


class Call:
    """One call of a native kernel.

    Attributes:
        library: of the arrays.
        xp: its namespace.
        like: an array among the arguments.
        wanted: the meta of the result, or of each; None if sizes depend on data.
    """

    __slots__ = ("library", "like", "wanted", "xp")

    def __init__(self, library: Library, like: Array, wanted: Any) -> None:
        self.library = library
        self.xp = library.xp
        self.like = like
        self.wanted = wanted

    @property
    def dtype(self) -> DType:
        """The dtype of the one result."""
        found: DType = self.wanted.dtype
        return found

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape of the one result."""
        return tuple(self.wanted.shape)

    def dtype_of(self, x: Any) -> Any:
        """Give the dtype of an array; a number stands for itself."""
        if x.__class__ in NUMBERS:
            return x
        example = example_of(x)
        return self.library.dtype(x) if example is None else example

    def common(self, *values: Any) -> DType:
        """Give the dtype in which arrays and numbers meet."""
        dtypes = [self.dtype_of(x) for x in values]
        found = np.result_type(*dtypes)
        if found.kind == "f" and all(isinstance(d, np.dtype) and d.kind in "iu" for d in dtypes):
            raise Unsupported  # 64-bit integers with and without sign, which NumPy compares exactly
        return found

    def to(self, x: Any, dtype: DType) -> Array:
        """Give an array or a number as an array of a dtype."""
        if x.__class__ in NUMBERS:
            return self.number(x, dtype)
        if example_of(x) is not None:
            return self.full((), x, dtype)
        dtype = self.library.canonical(dtype)
        return x if self.library.dtype(x) == dtype else self.library.astype(x, dtype)

    def to_wide(self, x: Any) -> Array:
        """Give an array or a number in the result's dtype, or in single precision for half."""
        return self.to(x, SINGLE if is_half(self.dtype) else self.dtype)

    def number(self, value: Any, dtype: DType) -> Array:
        """Make an array without axes."""
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            raise Unsupported
        return self.library.number(value, dtype, self.like)

    def full(self, shape: Sequence[Any], value: Any, dtype: DType | None = None) -> Array:
        """Make an array of one number."""
        return self.library.full(shape, value, dtype or self.dtype, self.like)

    def broadcast(self, x: Array, shape: Sequence[Any] | None = None) -> Array:
        """Repeat an array to a shape, by default the result's."""
        shape = self.shape if shape is None else tuple(shape)
        if any(n.__class__ is UnknownSize for n in shape):
            raise Unsupported
        return x if tuple(x.shape) == shape else self.function("broadcast_to")(x, shape)

    def function(self, name: str) -> Fn:
        """Give a function of the Array API: the library's own word for it, if it has one."""
        found: Fn | None = self.library.own.get(name)
        return getattr(self.xp, name) if found is None else found


def sizes_known(x: Array) -> bool:
    """Tell whether no size is NaN, which stands for those that Dask has not computed."""
    return all(n == n for n in x.shape)  # noqa: PLR0124 - NaN alone is not


#: By operator: its native kernel. Overloads that differ in numbers only share one.
NATIVE: dict[str, Fn] = {}


def native(*names: str) -> Callable[[Fn], Fn]:
    """File the native kernel of built-in operators."""

    def file(fn: Fn) -> Fn:
        NATIVE.update({f"core::{name}": fn for name in names})
        return fn

    return file


def native_kernel(name: str) -> Fn | None:
    """Give the native kernel of an operator, by its full name."""
    return NATIVE.get(name) or NATIVE.get(name.partition(".")[0])

"""What the system must know of an array library; the standard's own answers.

A `Library` says what its namespace of the Array API is, how dtypes and devices are called there,
and whether memory is shared and written. No library is ever imported to answer: an array of one
that nobody has imported cannot exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from polyop.devices import CPU, DTYPES, Device, DType
from polyop.errors import ArgumentError

Array = Any


class Library:
    """A library whose arrays know their namespace of the Array API.

    Attributes:
        name: how it is called in errors and tables.
        writes: whether views share memory, which is written in place; else a write gives a tensor
            another array.
        lazy: whether arrays are recipes, computed when data is looked at.
        clamps: whether an index out of range, or a singular matrix, goes by in silence.
    """

    name = ""
    writes = False
    lazy = False
    clamps = False

    def __init__(self, namespace: Callable[[], Any], name: str) -> None:
        self._namespace = namespace
        self.name = name

    def __repr__(self) -> str:
        return f"Library({self.name})"

    @cached_property
    def own(self) -> dict[str, Callable[..., Any]]:
        """What the namespace lacks, or does not do as NumPy, by name."""
        return {}

    @cached_property
    def xp(self) -> Any:
        """The namespace of the Array API."""
        return self._namespace()

    # -- dtypes ---------------------------------------------------------------

    @cached_property
    def _natives(self) -> dict[DType, Any]:
        found = {d: getattr(self.xp, name, None) for name, d in self._names()}
        return {d: native for d, native in found.items() if native is not None}

    @cached_property
    def _dtypes(self) -> dict[Any, DType]:
        return {native: d for d, native in self._natives.items()}

    def _names(self) -> list[tuple[str, DType]]:
        return [(d.name, d) for d in DTYPES.values()]

    def dtype(self, array: Array) -> DType:
        """Give the dtype of an array as NumPy's."""
        try:
            return self._dtypes[array.dtype]
        except KeyError:
            self.unknown(array.dtype)

    def unknown(self, dtype: Any) -> NoReturn:
        """Refuse a dtype without a counterpart.

        Raises:
            ArgumentError: always.
        """
        raise ArgumentError(
            f"{self.name} has no dtype that stands for {dtype}",
            declared=", ".join(d.name for d in self._natives),
            seen=str(dtype),
            fix=self.way_out(dtype),
        )

    def way_out(self, dtype: Any) -> str:
        """Say what becomes of an array of a dtype without a counterpart."""
        return "convert it with astype first"

    def native(self, dtype: DType) -> Any:
        """Give the library's own dtype."""
        try:
            return self._natives[dtype]
        except KeyError:
            self.unknown(dtype)

    def canonical(self, dtype: DType) -> DType:
        """Give the dtype that the library has in the place of one."""
        return dtype

    def astype(self, x: Array, dtype: DType) -> Array:
        """Convert an array."""
        return self.xp.astype(x, self.native(dtype), copy=False)

    def check(self, array: Array) -> None:
        """Refuse an array that is not dense."""

    # -- what an array is ---------------------------------------------------------

    def is_concrete(self, array: Array) -> bool:
        """Tell whether an array has data that can be looked at."""
        return True

    def device(self, array: Array) -> Device:
        """Give where an array is."""
        return CPU

    def strides(self, array: Array) -> tuple[Any, ...] | None:
        """Give the strides in elements; None if the library has no word for them."""
        return None

    def in_order(self, array: Array) -> bool:
        """Tell whether the elements of an array with strides lie in order."""
        return True

    def laid_out(self, array: Array, strides: tuple[Any, ...] | None) -> Array:
        """Give an array whose elements lie by strides, or in order; else a copy of it.

        The strides are those of memory without gaps. A library without strides has no say.
        """
        return array

    def shares(self, a: Array, b: Array) -> bool:
        """Tell whether two arrays share memory that is written."""
        return a is b and self.writes

    def view_like(self, base: Array, seen: np.ndarray[Any, Any]) -> Array | None:
        """Give the view that shows what a NumPy array in the same memory does; None without one."""
        return None

    def runs_again(self) -> bool:
        """Tell whether the library will run what calls a second time, for its gradients."""
        return False

    # -- making and changing ------------------------------------------------------

    def detach(self, array: Array) -> Array:
        """Give an array to which the library's own gradients do not flow."""
        return array

    def behind(self, former: Array, new: Array) -> Array:
        """Give a new value that the library's own gradients take for the former one."""
        return new

    def plain(self, array: Array) -> Array:
        """Give an array whose memory holds its elements, without the library's own gradients."""
        return self.detach(array)

    def records(self, array: Array) -> bool:
        """Tell whether the library's own gradients flow to what is computed of an array now."""
        return False

    def ready(self, array: Array) -> Array:
        """Give an array as the library computes with it rightly: itself, if nothing is amiss."""
        return array

    def sizes(self, array: Array) -> tuple[Any, ...]:
        """Give the shape."""
        return tuple(array.shape)

    def copy(self, array: Array) -> Array:
        """Give an array of its own memory; itself, if it can never be written."""
        return self.xp.asarray(array, copy=True)

    def write(self, array: Array, value: Array) -> Array:
        """Give the array that holds a new value: the same, if memory is written in place."""
        return value

    def get(self, array: Array, key: tuple[Any, ...]) -> Array:
        """Choose by indices."""
        return array[key]

    def put(self, array: Array, key: tuple[Any, ...], value: Array, *, add: bool = False) -> Array:
        """Give an array of which a part is replaced, or added to."""
        if add:
            raise NotImplementedError
        made = self.xp.asarray(array, copy=True)
        made[key] = value
        return made

    def seed(self, device: Any) -> int:
        """Draw a number from the library's own stream; only those that have one do."""
        raise NotImplementedError

    def number(self, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array without axes."""
        return self.xp.asarray(value, dtype=self.native(dtype), device=like.device)

    def full(self, shape: Any, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array of one number."""
        return self.xp.full(tuple(shape), value, dtype=self.native(dtype), device=like.device)

    def defer(self, fn: Callable[..., Any], args: list[Any], wanted: Any) -> Any:
        """Make recipes of one task; only lazy libraries do."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Give the data: a read-only view, for a tensor over such an array never writes it."""
        found = np.asarray(np.from_dlpack(array))
        found.flags.writeable = False
        return found

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Make an array from NumPy's; it is copied if it could be written."""
        device = None if like is None else like.device
        return self.xp.asarray(array, dtype=self.native(array.dtype), device=device, copy=True)

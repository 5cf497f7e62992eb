"""What fits the types with a name of their own.

What a Tensor is, and what a symbolic number or a generator, is told from higher
floors.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

from polyop.devices import Device, Layout, MemoryFormat, as_dtype
from polyop.errors import UsageError
from polyop.schema.literals import Word
from polyop.schema.types import ANNOTATIONS, GENERATOR, BaseType, Type

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
OUTSIDE = "an integer outside 64 bits"


class Mismatch(Exception):  # noqa: N818 - the caller makes the error
    """A value that does not fit a type; the caller makes the user's error of it."""

    def __init__(self, expected: Type, value: Any, reason: str = "") -> None:
        super().__init__(expected, value)  # no text yet: that of a tensor is a look at its data
        self.expected = expected
        self.value = value
        self.reason = reason

    @property
    def overflows(self) -> bool:
        """Whether the value is an integer that is too large, or too small."""
        return self.reason.endswith(OUTSIDE)


class Known:
    """What higher floors have told: Tensors, symbolic numbers, generators."""

    is_tensor: Callable[[Any], bool] = staticmethod(lambda _: False)
    item: Callable[[Any], int | None] = staticmethod(lambda _: None)
    sym_int: tuple[type, ...] = ()
    sym_float: tuple[type, ...] = ()
    sym_bool: tuple[type, ...] = ()
    generators: tuple[type, ...] = ()
    unknown: tuple[type, ...] = ()


def set_tensor_predicate(
    is_tensor: Callable[[Any], bool], item: Callable[[Any], int | None]
) -> None:
    """Tell what a Tensor is.

    Args:
        is_tensor: says whether a value is one.
        item: gives the int in a zero-dimensional integer Tensor, else None.
    """
    Known.is_tensor = staticmethod(is_tensor)
    Known.item = staticmethod(item)


def register_symbolic(int_cls: type, float_cls: type, bool_cls: type) -> None:
    """Tell what symbolic numbers are."""
    Known.sym_int, Known.sym_float, Known.sym_bool = (int_cls,), (float_cls,), (bool_cls,)


def example_of(value: Any) -> bool | int | float | None:
    """Give a number of the kind that a symbol stands for; None for what is no symbol."""
    if isinstance(value, Known.sym_bool):
        return True
    if isinstance(value, Known.sym_int):
        return 1
    return 1.0 if isinstance(value, Known.sym_float) else None


def register_unknown(cls: type) -> None:
    """Tell what stands for a size that nobody knows; it raises where a number is asked of it."""
    Known.unknown = (cls,)


def register_generator(cls: type) -> None:
    """Let objects of `cls` be values of `Generator`, and `cls` its annotation."""
    Known.generators = (*Known.generators, cls)
    ANNOTATIONS[cls] = GENERATOR


def convert_base(schema_type: BaseType, value: Any) -> Any:
    """Give a value of a type with a name as kernels get it."""
    return _BASE[schema_type.name](schema_type, value)


def _tensor(schema_type: Type, value: Any) -> Any:
    if Known.is_tensor(value):
        return value
    raise Mismatch(schema_type, value)


def _int(schema_type: Type, value: Any) -> int:
    number = _as_int(value)
    if number is None:
        raise Mismatch(schema_type, value)
    if not INT_MIN <= number <= INT_MAX:
        raise Mismatch(schema_type, value, OUTSIDE)
    return number


def _as_int(value: Any) -> int | None:
    if isinstance(value, (int, np.integer, np.bool_, *Known.sym_int, *Known.unknown)):
        number: Any = value
        return int(number)  # a symbolic size is guarded here: `int` takes no symbols
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    return Known.item(value) if Known.is_tensor(value) else None


def _sym_int(schema_type: Type, value: Any) -> Any:
    return value if isinstance(value, Known.sym_int) else _int(schema_type, value)


def _float(schema_type: Type, value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, Known.sym_float + Known.sym_int):
        return value
    if isinstance(value, (int, np.integer, np.bool_, *Known.unknown)):
        return _finite(schema_type, value)
    raise Mismatch(schema_type, value)


def _finite(schema_type: Type, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Mismatch(schema_type, value, "an integer too large for a float") from None


def _bool(schema_type: Type, value: Any) -> Any:
    if isinstance(value, (bool, *Known.sym_bool)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise Mismatch(schema_type, value)


def _complex(schema_type: Type, value: Any) -> complex:
    if isinstance(value, int | float | complex | np.number):
        return complex(value)
    raise Mismatch(schema_type, value)


def _str(schema_type: Type, value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Word):
        return value
    raise Mismatch(schema_type, value)


def _scalar(schema_type: Type, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | float | complex):
        return value
    if isinstance(value, Known.sym_int + Known.sym_float + Known.sym_bool):
        return value
    if isinstance(value, (int, *Known.unknown)):  # elements of uint64 are numbers too
        number: Any = value
        return number if INT_MAX < number <= UINT_MAX else _int(schema_type, number)
    raise Mismatch(schema_type, value)


def _dtype(schema_type: Type, value: Any) -> Any:
    if value is None:  # NumPy would read it as float64
        raise Mismatch(schema_type, value)
    try:
        return as_dtype(value)
    except (UsageError, TypeError) as error:
        raise Mismatch(schema_type, value) from error


def _device(schema_type: Type, value: Any) -> Device:
    try:
        return Device(value)
    except UsageError as error:
        raise Mismatch(schema_type, value) from error


def _layout(schema_type: Type, value: Any) -> Any:
    return _member(schema_type, Layout, value)


def _memory_format(schema_type: Type, value: Any) -> Any:
    return _member(schema_type, MemoryFormat, value)


def _member(schema_type: Type, cls: type[Enum], value: Any) -> Enum:
    try:
        return cls(str(value) if isinstance(value, str) else value)
    except ValueError:
        raise Mismatch(schema_type, value) from None


def _generator(schema_type: Type, value: Any) -> Any:
    # `np.random` is imported by its first use, which takes long: asked last, and alone.
    if isinstance(value, Known.generators) or isinstance(value, np.random.Generator):  # noqa: SIM101
        return value
    raise Mismatch(schema_type, value)


def _any(schema_type: Type, value: Any) -> Any:
    if isinstance(value, Word):
        raise Mismatch(schema_type, value)
    return value


def _none(schema_type: Type, value: Any) -> None:
    if value is not None:
        raise Mismatch(schema_type, value)


_BASE: dict[str, Callable[[Type, Any], Any]] = {
    "Tensor": _tensor,
    "int": _int,
    "SymInt": _sym_int,
    "float": _float,
    "bool": _bool,
    "complex": _complex,
    "str": _str,
    "Scalar": _scalar,
    "ScalarType": _dtype,
    "Layout": _layout,
    "MemoryFormat": _memory_format,
    "Device": _device,
    "Generator": _generator,
    "Any": _any,
    "NoneType": _none,
}

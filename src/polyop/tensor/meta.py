"""`Meta`: a tensor without data, as a frozen and interned description.

Two metas of one space are equal exactly if they are the same object, so a
memo may use them as keys at the price of an identity hash. A space belongs to
one fake mode, with the memo of the results that were computed in it; metas of
two modes never mix, and what a mode remembered goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.devices import CPU, Device, DType
from polyop.dispatch.context import word
from polyop.errors import DataDependentOutputError, OutOfRangeError, UsageTypeError
from polyop.symbolic import SymInt

Size = int | SymInt
Shape = tuple[Size, ...]


class MetaSpace:
    """Where the metas of one fake mode are interned, and its results remembered."""

    __slots__ = ("__weakref__", "memo", "mode", "table")

    def __init__(self, mode: Any = None) -> None:
        self.table: dict[Any, Meta] = {}
        self.memo: dict[Any, Any] = {}
        self.mode = mode

    def __reduce__(self) -> str:
        if self is META_SPACE:
            return "META_SPACE"
        raise UsageTypeError(
            "what a fake mode knows of values is not pickled, and neither are graphs that hold it",
            fix="write polyop.export.save(program, path), or trace without symbolic sizes",
        )

    def meta(
        self,
        shape: Shape,
        dtype: DType,
        strides: Shape | None = None,
        device: Device = CPU,
    ) -> Meta:
        """Give the meta of these facts; `strides` in elements, None if contiguous."""
        key = (shape, dtype, strides, device)
        try:
            known = self.table.get(key)  # no KeyError: most are new, since results have memos
            if known is not None:
                return known
            made = self.table[key] = Meta(shape, dtype, strides, device, self)
            return made
        except TypeError:  # a size is a symbol of another library, which has no hash
            return Meta(shape, dtype, strides, device, self)


class Meta:
    """Shape, dtype, strides and device of a tensor without data.

    `strides` counts elements; None means contiguous, which costs nothing.
    """

    __slots__ = ("_strides", "device", "dtype", "memo", "shape", "space")

    def __init__(
        self, shape: Shape, dtype: DType, strides: Shape | None, device: Device, space: MetaSpace
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._strides = strides
        self.device = device
        self.space = space
        self.memo = space.memo  # one attribute less on the hot path

    def __reduce__(self) -> tuple[Any, ...]:
        return self.space.meta, (self.shape, self.dtype, self._strides, self.device)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def base(self) -> None:
        """Nothing: what has no data owns none."""
        return

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self._strides is None

    @property
    def strides(self) -> Shape:
        """The strides, in elements."""
        return contiguous_strides(self.shape) if self._strides is None else self._strides

    def but(self, **changes: Any) -> Meta:
        """Give this meta with some facts changed."""
        facts: dict[str, Any] = {
            "shape": self.shape, "dtype": self.dtype, "strides": self._strides,
            "device": self.device,
        }  # fmt: skip
        facts |= changes
        return self.space.meta(**facts)

    @property
    def tracer(self) -> Any:
        """What traces the function whose tensor it is of, or None; none traces a rule."""
        mode = self.space.mode
        return None if mode is None or word().rule is not None else mode.tracer

    def look(self, what: str) -> Any:
        """Refuse a look at the data.

        Raises:
            DataDependentOutputError: always; it names the rule that looks, if one runs.
        """
        rule = word().rule
        name = rule.op.name() if rule is not None else ""
        raise DataDependentOutputError(
            f"{what}() looks at data that a tensor on the device {self.device} does not have"
            if self.space.mode is None
            else f"{what}() looks at the data of a fake tensor, which has none",
            op=name,
            seen=repr(self),
            source=rule.source if rule is not None else "",
            fix="compute the result's shape from shapes alone; for a size that depends on data, "
            "call polyop.library.get_ctx().new_dynamic_size()"
            if rule is not None
            else "give it tensors that have data, or make an operator of what looks at data: "
            "polyop.custom_op, with a fake rule",
        )

    def __repr__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        text += "" if self._strides is None else f" strides={self._strides}"
        return text if self.device is CPU else f"{text} on {self.device}"


#: The space of tensors on the device `meta`, which need no mode.
META_SPACE = MetaSpace()


def contiguous_strides(shape: Sequence[Size]) -> Shape:
    """Give the strides, in elements, of a tensor whose elements lie in order."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (max(size, 1) if isinstance(size, int) else size)
    return tuple(reversed(strides))


def normal_strides(shape: Shape, strides: Sequence[Size]) -> Shape | None:
    """Give None for strides that are contiguous, else the strides as a tuple.

    The stride of an axis of size one says nothing, and none does where there are no elements.
    """
    step: Size = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if isinstance(size, int) and size == 1:
            continue
        # By identity first: a symbolic comparison may add a guard.
        if stride is not step and not (type(stride) is type(step) is int and stride == step):
            empty = any(isinstance(n, int) and n == 0 for n in shape)
            return None if empty else tuple(strides)
        step = step * size
    return None


def same_layout(shape: Shape, a: Shape, b: Shape) -> bool:
    """Tell whether two strides say the same; those of an axis of size one say nothing."""
    return all(n == 1 or m == k for n, m, k in zip(shape, a, b, strict=True))


def memory_order(strides: Shape) -> tuple[list[int], list[int]]:
    """Give the order of axes in which elements lie in order, and the order back."""
    order = sorted(range(len(strides)), key=lambda i: -strides[i])
    return order, sorted(range(len(order)), key=order.__getitem__)


def element_strides(array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Give a NumPy array's strides, in elements."""
    size = array.itemsize
    return tuple(s // size for s in array.strides)


def at_axis(facts: Sequence[Any], axis: Any) -> Any:
    """Give the fact of one axis.

    Raises:
        OutOfRangeError: there is no such axis.
    """
    try:
        return facts[axis]
    except (IndexError, TypeError):
        raise OutOfRangeError(
            f"axis {axis!r} is out of range for {len(facts)} axes",
            argument="dim",
            declared=f"{-len(facts)} to {len(facts) - 1}" if facts else "none",
            seen=repr(axis),
        ) from None


def meta_of_array(array: np.ndarray[Any, Any], space: MetaSpace, device: Device = CPU) -> Meta:
    """Describe an array."""
    strides = None
    if not array.flags.c_contiguous:
        strides = normal_strides(array.shape, element_strides(array))
    return space.meta(array.shape, array.dtype, strides, device)


def meta_of(tensor: Any, space: MetaSpace, device: Device | None = None) -> Meta:
    """Describe a tensor of any payload."""
    payload = tensor.payload
    if payload.__class__ is Meta:
        found: Meta = payload
        return space.meta(found.shape, found.dtype, found._strides, device or found.device)
    if payload.__class__ is np.ndarray:
        return meta_of_array(payload, space, device or CPU)
    shape: Shape = tuple(tensor.shape)
    strides = None if tensor.is_contiguous() else normal_strides(shape, tensor.stride())
    return space.meta(shape, tensor.dtype, strides, device or tensor.device)

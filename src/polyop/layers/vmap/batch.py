"""One batch of a vmap: the payload of batched tensors, and the level that they belong to.

A batched tensor looks like one sample; `value` holds all samples, along
`axis`. Its key set is `BATCHED` alone: what the value is made of is read again
when a rule calls operators on it, so autograd, fakes and traces compose with
vmap by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NoReturn

from polyop import tree
from polyop.devices import Device, DType
from polyop.dispatch.bits import BATCHED, LEVELS
from polyop.dispatch.context import AUTOGRAD, PLAIN, Word, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import VmapError
from polyop.layers.levels import Level
from polyop.tensor.meta import Shape, normal_strides
from polyop.tensor.printing import PRINTER
from polyop.tensor.tensor import Tensor

#: Runs a call at a level: all arguments are there, in schema order.
Plan = Callable[["VmapLevel", OpOverload, Sequence[Any]], Any]
#: Finds the plan of an operator; set by `layer.py`, which knows all kinds of plans.
PLANS: list[Callable[[OpOverload], Plan]] = []


class Batch:
    """The payload of a batched tensor.

    Attributes:
        value: the tensor that holds all samples.
        axis: the axis of `value` that counts them.
        level: the vmap that the axis belongs to.
    """

    __slots__ = ("axis", "level", "value")
    value: Tensor
    axis: int
    level: VmapLevel

    @property
    def shape(self) -> Shape:
        """The shape of one sample."""
        shape = self.value.payload.shape
        return (*shape[: self.axis], *shape[self.axis + 1 :])

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self.value.dtype

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return self.value.device

    @property
    def strides(self) -> Shape:
        """The strides of one sample, in elements."""
        strides = self.value.stride()
        return (*strides[: self.axis], *strides[self.axis + 1 :])

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements of one sample lie in order."""
        return normal_strides(self.shape, self.strides) is None

    @property
    def base(self) -> None:
        """Nothing: the memory is the value's."""
        return

    def look(self, what: str) -> NoReturn:
        """Refuse a look at the data: it differs from sample to sample.

        Raises:
            VmapError: always.
        """
        raise VmapError(
            f"{what}() looks at one value, but this tensor holds {self.level.batch_size} "
            "of them inside vmap",
            seen=f"a batched tensor of shape {self.shape}",
            fix="compute with operators (where instead of if), or do this outside of vmap",
        )


@dataclass(frozen=True, slots=True)
class VmapInfo:
    """What a batching rule gets to know of the vmap.

    Attributes:
        batch_size: how many samples there are.
        randomness: `"error"`, `"different"` or `"same"`.
        kwarg_dims: the batch axis of each keyword-only argument, by name.
    """

    batch_size: Any
    randomness: str
    kwarg_dims: Mapping[str, Any] = field(default_factory=dict)


class VmapLevel(Level):
    """A running vmap."""

    kind = "vmap"
    escape_error = VmapError
    __slots__ = ("_info", "batch_size", "randomness")
    _info: VmapInfo

    def __init__(self, batch_size: Any, randomness: str) -> None:
        # Without the base's `__init__`, a frame that every mapped call would pay.
        self.outer = outer = word()
        self.depth = len(outer.levels)
        self.alive = True
        self._below = None
        self.batch_size = batch_size
        self.randomness = randomness

    @property
    def info(self) -> VmapInfo:
        """What rules get to know."""
        try:
            return self._info
        except AttributeError:
            self._info = VmapInfo(self.batch_size, self.randomness)
            return self._info

    def inner_word(self) -> Word:
        """Give the word that the function runs under."""
        outer = self.outer
        if outer is PLAIN:  # the word of most calls, in this frame
            inside = Word(LEVELS)
            inside.levels, inside.within = (self,), PLAIN.within
            self._below = (inside, PLAIN)
            return inside
        # What autograd must not see outside, it does not see inside.
        unwatched = outer.exclude.bits & AUTOGRAD.bits
        return super().inner_word() if unwatched else self.watched_word(outer)

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call once for the whole batch."""
        return plan_of(op)(self, op, args)


def plan_of(op: OpOverload) -> Plan:
    """Give the way in which an operator is batched, found once per operator."""
    plan: Plan | None = op.notes.get("vmap")
    if plan is None:
        plan = op.note("vmap", PLANS[0])
    return plan


# -- in and out of a level ----------------------------------------------------


def batched(value: Tensor, axis: int, level: VmapLevel) -> Tensor:
    """Give the tensor whose samples lie along an axis of `value`."""
    record = Batch()
    record.value = value
    record.axis = axis
    record.level = level
    t = Tensor()
    t.payload = record
    t.keys = BATCHED
    t.version = 0
    return t


def peel(x: Any, level: VmapLevel, op: OpOverload | None = None) -> tuple[Any, int | None]:
    """Give a tensor without the level, and the axis that the level had in it.

    By identity: a batch of another level is a constant to this one.
    """
    record = x.payload if isinstance(x, Tensor) else None
    if record.__class__ is not Batch:
        return x, None
    if record.level is level:
        return record.value, record.axis
    if not record.level.alive:
        record.level.escaped(op)
    return x, None


def peel_all(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Peel every argument; the axes of lists and records are nested alike."""
    values: list[Any] = [*args]
    dims: list[Any] = [None] * len(values)
    for i, arg in enumerate(values):
        kind = arg.__class__
        if kind in _NUMBERS:
            continue
        record = arg.payload if kind is Tensor else None
        if record.__class__ is Batch and record.level is level:  # as in `peel`, in this frame
            values[i], dims[i] = record.value, record.axis
        else:
            values[i], dims[i] = _peel_argument(arg, level, op)
    return values, dims


def _peel_argument(arg: Any, level: VmapLevel, op: OpOverload) -> tuple[Any, Any]:
    if isinstance(arg, Tensor):
        return peel(arg, level, op)
    kind = arg.__class__
    if kind is list or kind is tuple:
        items, dims = peel_all(level, op, arg)
        return kind(items), dims
    if not isinstance(arg, (list, tuple, dict)) and not _is_record(arg):
        return arg, None
    if isinstance(arg, dict):
        named = {k: _peel_argument(x, level, op) for k, x in arg.items()}
        return {k: v for k, (v, _) in named.items()}, {k: d for k, (_, d) in named.items()}
    if _is_record(arg):
        parts = {k: _peel_argument(getattr(arg, k), level, op) for k in tree.fields_of(kind)}
        values = tree.with_fields(arg, {k: v for k, (v, _) in parts.items()})
        return values, tree.bare_record(kind, {k: d for k, (_, d) in parts.items()})
    value = tree.map_leaves(lambda x: peel(x, level, op)[0], arg)
    return value, tree.map_leaves(lambda x: peel(x, level, op)[1], arg)


_NUMBERS = {int, float, bool, str, NoneType}


def _is_record(arg: Any) -> bool:
    return hasattr(arg, "__dataclass_fields__")


def dims_in(dims: Any) -> list[int]:
    """Give the batch axes in nested axes."""
    if isinstance(dims, int):
        return [dims]
    if isinstance(dims, (list, tuple)):
        return [d for item in dims for d in dims_in(item)]
    return [] if dims is None else [d for d in tree.leaves(dims) if isinstance(d, int)]


def _text(t: Tensor) -> str:
    record = t.payload
    return f"BatchedTensor(size={record.level.batch_size}, axis={record.axis}, {record.value!r})"


PRINTER.texts[Batch] = _text

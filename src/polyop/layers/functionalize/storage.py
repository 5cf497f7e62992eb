"""Functional tensors: a value that is replaced where others would be written.

All tensors that share memory share a `Storage`, which holds the current value
of the base. A view is the chain of view operators that leads to it from the
base; it is computed again after a write, and a write to it is carried back
along the chain by the inverse of each view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polyop.devices import Device, DType
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import FUNCTIONAL
from polyop.dispatch.operator import OpOverload
from polyop.errors import MutationError
from polyop.layers.levels import Level
from polyop.ops.views import VIEW_INVERSES
from polyop.tensor.meta import Shape
from polyop.tensor.printing import PRINTER
from polyop.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """A view operator, which of its arguments the tensor is, and the others.

    Attributes:
        op: the operator.
        args: all its arguments; the tensor's own place is not read.
        position: the tensor's place.
        item: which of several views, or None.
    """

    op: OpOverload
    args: tuple[Any, ...]
    position: int
    item: int | None = None

    def apply(self, base: Tensor) -> Tensor:
        """Give the view of a base."""
        args = list(self.args)
        args[self.position] = base
        views = dispatch(self.op, args)
        view: Tensor = views if self.item is None else views[self.item]
        return view

    def invert(self, base: Tensor, new: Tensor) -> Tensor:
        """Give the base after its view was written.

        Raises:
            MutationError: the view has no inverse.
        """
        inverse = VIEW_INVERSES.get(self.op.name())
        if inverse is None or self.item is not None:
            raise MutationError(
                f"a write through {self.op.name()} cannot be functionalized: no operator "
                "puts a part of it back into its base",
                op=self.op._schema,
                source=self.op.source,
                fix="write the base, or copy the view with .clone() first",
            )
        statics = [a for i, a in enumerate(self.args) if i != self.position]
        made: Tensor = inverse(base, new, *statics)
        return made


@dataclass(frozen=True, slots=True)
class Unknown:
    """A view that an operator gave while it wrote: how to take it again is not known."""

    op: OpOverload

    def apply(self, base: Tensor) -> Tensor:
        """Refuse to take it again.

        Raises:
            MutationError: always.
        """
        raise MutationError(
            f"a view that {self.op.name()} gave is used after a write to the same memory, "
            "or returned beside it",
            op=self.op._schema,
            source=self.op.source,
            fix="copy the result of the operator (.clone()), or let it return nothing, and take "
            "the view by a view operator",
        )

    def invert(self, base: Tensor, new: Tensor) -> Tensor:
        """Refuse a write."""
        return self.apply(base)


class Storage:
    """The current value of a base, how often it was replaced, and who sees the write."""

    __slots__ = ("generation", "hidden", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.generation = 0
        self.hidden = False  # whether autograd is not to see the write at the end

    def replace(self, new: Tensor) -> None:
        """Give the base a new value; views of it are taken again."""
        self.value = new
        self.generation += 1


#: The views that lead from a base to a tensor.
Chain = tuple[Step | Unknown, ...]


class Functional:
    """The payload of a functional tensor.

    Attributes:
        storage: shared with all its aliases.
        chain: the views that lead here from the base.
        level: the functionalization that it belongs to.
    """

    __slots__ = ("_seen", "_value", "chain", "level", "storage")

    def __init__(
        self, storage: Storage, chain: Chain, level: Level, value: Tensor | None = None
    ) -> None:
        self.storage = storage
        self.chain = chain
        self.level = level
        self._seen = -1 if value is None else storage.generation
        self._value = value

    def value(self) -> Tensor:
        """Give the current value, computed again if the base was replaced."""
        if not self.chain:
            return self.storage.value
        if self._seen != self.storage.generation or self._value is None:
            self._value = replay(self.storage.value, self.chain)
            self._seen = self.storage.generation
        return self._value

    def replace(self, new: Tensor) -> None:
        """Give this tensor, and so its base and all aliases, a new value."""
        values = [self.storage.value]
        for step in self.chain[:-1]:
            values.append(step.apply(values[-1]))
        for step, base in zip(reversed(self.chain), reversed(values), strict=False):
            new = step.invert(base, new)
        self.storage.replace(new)

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return tuple(self._shown().payload.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self._shown().dtype

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return self._shown().device

    @property
    def strides(self) -> Shape:
        """The strides, in elements."""
        return tuple(self._shown().stride())

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self._shown().is_contiguous()

    @property
    def base(self) -> None:
        """Nothing: a functional tensor owns no memory."""
        return

    def _shown(self) -> Tensor:
        # A write changes no shape, so an older value says it as well.
        if self.chain and self._value is not None:
            return self._value
        return self.value()

    def look(self, what: str) -> Any:
        """Look at the data of the current value."""
        if not self.level.alive:
            self.level.escaped()
        return self.value()._data(what)


def replay(base: Tensor, chain: Chain) -> Tensor:
    """Follow a chain of views."""
    for step in chain:
        base = step.apply(base)
    return base


def functional(storage: Storage, chain: Chain, level: Level, value: Tensor | None = None) -> Tensor:
    """Make a functional tensor."""
    t = Tensor()
    t.payload = Functional(storage, chain, level, value)
    t.keys = FUNCTIONAL
    t.version = 0
    return t


PRINTER.texts[Functional] = lambda t: f"FunctionalTensor({t.payload.value()!r})"

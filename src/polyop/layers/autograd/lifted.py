"""Tensors that a level of differentiation watches, and what its kinds of levels share.

A wrapper has the tensor below and its level; it owns no memory, and says of itself what the tensor
below says.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from polyop import tree
from polyop.dispatch.bits import LIFTED
from polyop.layers.autograd.aliases import Views
from polyop.layers.levels import Level
from polyop.tensor.tensor import Tensor


class Lifted:
    """The payload of a tensor that a gradient level watches.

    Attributes:
        value: the tensor below.
        level: whose it is.
        views: the living views of its memory, if it owns it and has any.
    """

    __slots__ = ("level", "value", "views")
    value: Tensor
    level: LiftingLevel
    views: Views | None

    @property
    def shape(self) -> Any:
        """The shape of the tensor below."""
        return self.value.payload.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the tensor below."""
        return self.value.payload.dtype

    @property
    def device(self) -> Any:
        """The device of the tensor below."""
        return self.value.device

    @property
    def strides(self) -> Any:
        """The strides of the tensor below."""
        return self.value.stride()

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self.value.is_contiguous()

    @property
    def base(self) -> None:
        """Nothing: a wrapper owns no memory."""
        return

    def look(self, what: str) -> Any:
        """Look at the data of the tensor below."""
        if not self.level.alive:
            self.level.escaped()
        return self.value._data(what)

    def __repr__(self) -> str:
        return f"<grad level {self.level.depth}: {self.value!r}>"


class LiftingLevel(Level):
    """A running derivative, whose tensors have a `Lifted` as their payload."""

    __slots__ = ()

    def watching(self) -> AbstractContextManager[Any]:
        """Give the context in which a write is followed as the level follows a call."""
        return nullcontext()

    def owns(self, value: Any) -> bool:
        """Tell whether a value is a tensor of this level."""
        return (
            isinstance(value, Tensor) and value.keys & LIFTED != 0 and value.payload.level is self
        )

    def peel(self, value: Any) -> Any:
        """Take this level's wrapper off, wherever it is in a value."""
        if isinstance(value, Tensor):
            own = value.keys & LIFTED and value.payload.level is self
            return value.payload.value if own else value
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__(map(self.peel, value))
        if value is None or isinstance(value, (int, float, str, complex)):
            return value
        return tree.map_leaves(lambda x: self.peel(x) if isinstance(x, Tensor) else x, value)

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        raise NotImplementedError

    def wrap_all(self, out: Any) -> Any:
        """Wrap results."""
        if isinstance(out, Tensor):
            return self.wrap(out)
        if out.__class__ is list or out.__class__ is tuple:
            return out.__class__(map(self.wrap_all, out))
        if out is None or isinstance(out, (int, float, str, complex)):
            return out
        return tree.map_leaves(lambda x: self.wrap(x) if isinstance(x, Tensor) else x, out)

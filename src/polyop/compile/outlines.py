"""What a traceable wrapper is besides the tensors inside it (S165)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from polyop import tree
from polyop.errors import CaptureError
from polyop.symbolic import is_symbolic
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor


class Inward(BaseException):
    """A capture meets wrappers: the call is one of the tensors inside them."""


#: Gives what a value that is no tensor is known by.
Static = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Outline:
    """A wrapper without its tensors: what makes one again of others."""

    cls: Any
    context: Any
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    inner: tuple[tuple[str, Outline | None], ...]

    def key(self, static: Static) -> Any:
        """Give what it is equal by."""
        inner = tuple((name, part and part.key(static)) for name, part in self.inner)
        return self.cls, static(self.context), self.shape, self.strides, inner

    def build(self, tensors: Iterator[Tensor]) -> Any:
        """Make a wrapper of the next tensors."""
        made = {name: part.build(tensors) if part else next(tensors) for name, part in self.inner}
        return self.cls.__tensor_unflatten__(made, self.context, self.shape, self.strides)


def outline_of(t: Any) -> Outline | None:
    """Give the outline of a wrapper, or None for anything else."""
    if not is_traceable_wrapper_subclass(t):
        return None
    inner = tuple((name, outline_of(x)) for name, x in inner_tensors(t))
    context = t.__tensor_flatten__()[1]
    return Outline(type(t), context, tuple(t.shape), tuple(t.stride()), inner)


def lasting(outline: Outline | None) -> Outline | None:
    """Check that an outline can be kept: its sizes are numbers, its context holds no tensor.

    Raises:
        CaptureError: one is not.
    """
    if outline is None:
        return None
    if any(map(is_symbolic, (*outline.shape, *outline.strides))):
        raise CaptureError(
            f"the shape of a {outline.cls.__name__} depends on data",
            seen=repr(outline.shape),
            fix="return the tensors inside",
        )
    if any(isinstance(x, Tensor) or is_symbolic(x) for x in tree.leaves(outline.context)):
        raise CaptureError(
            f"the context of a {outline.cls.__name__} holds what is computed",
            seen=f"{outline.context!r:.80}",
            fix="name its tensors in __tensor_flatten__",
        )
    for _, part in outline.inner:
        lasting(part)
    return outline


def parts_of(leaf: Any) -> list[Any]:
    """Give the tensors inside a wrapper, or the value itself."""
    if not is_traceable_wrapper_subclass(leaf):
        return [leaf]
    return [part for _, x in inner_tensors(leaf) for part in parts_of(x)]


def kind_of(leaf: Any, static: Static) -> Any:
    """Give what selects the compiled function of a call, for one argument."""
    if not isinstance(leaf, Tensor):
        return type(leaf), static(leaf)
    return tuple(leaf.shape), tuple(leaf.stride()), look_of(leaf, static)


def look_of(leaf: Any, static: Static) -> Any:
    """Give what a tensor is known by apart from its strides: two of a kind are built alike."""
    wrapper = is_traceable_wrapper_subclass(leaf)
    context = static(leaf.__tensor_flatten__()[1]) if wrapper else None
    inner = [(name, look_of(x, static)) for name, x in inner_tensors(leaf)] if wrapper else []
    return type(leaf), context, tuple(leaf.shape), leaf.dtype, leaf.device, tuple(inner)


def firsts(leaves: Sequence[Any]) -> tuple[int, ...]:
    """Give for each leaf the number of the first that is the same tensor."""
    known: dict[int, int] = {}
    return tuple(
        known.setdefault(id(leaf), i) if isinstance(leaf, Tensor) else i
        for i, leaf in enumerate(leaves)
    )

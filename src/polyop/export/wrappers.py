"""Traceable wrappers among the arguments and results of a program: the tensors inside them are.

A graph knows plain tensors. So a wrapper is a container on the way into a
program and out of it: its leaves are the tensors inside, and all else that it
is belongs to the structure. The function that is exported gets a wrapper of
the graph's inputs, so that what its class does with a call is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optree

from polyop import tree
from polyop.dispatch.bits import GRAD, SUBCLASS
from polyop.errors import CaptureError
from polyop.symbolic import is_symbolic
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor
from polyop.tree.containers import NAMESPACE


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """What a wrapper is besides the tensors inside it."""

    cls: Any
    context: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    names: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Form) or self.cls is not other.cls:
            return False
        mine, its = (
            (self.shape, self.strides, self.names),
            (other.shape, other.strides, other.names),
        )
        return mine == its and _same(self.context, other.context)

    def __hash__(self) -> int:
        return hash((self.cls, self.shape, self.names))

    def __repr__(self) -> str:
        context = "" if self.context is None else f", {self.context!r}"
        return f"{self.cls.__qualname__} of shape {self.shape}{context}"


@dataclass(frozen=True, eq=False, slots=True)
class Wrapped:
    """A wrapper as a container."""

    form: Form
    parts: tuple[Any, ...]

    def build(self) -> Any:
        """Make the wrapper of what is inside."""
        form = self.form
        parts = [x.build() if isinstance(x, Wrapped) else x for x in self.parts]
        inner = dict(zip(form.names, parts, strict=True))
        return form.cls.__tensor_unflatten__(inner, form.context, form.shape, form.strides)


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """A result that is one of the wrappers among the arguments."""

    number: int


# A container of optree's has a length; these are containers for it alone.
_register: Any = optree.register_pytree_node
_register(
    Wrapped,
    lambda wrapped: (wrapped.parts, wrapped.form, wrapped.form.names),
    lambda form, parts: Wrapped(form, tuple(parts)),
    namespace=NAMESPACE,
)
_register(
    Given, lambda given: ((), given.number), lambda number, _: Given(number), namespace=NAMESPACE
)


class OfContainers:
    """A function of wrappers as one of containers, which a program can be made of."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on wrappers, and take its results apart."""
        given: list[Any] = []
        args, kwargs = together((args, kwargs), given)
        return apart(self.f(*args, **kwargs), given)


def apart(value: Any, given: Sequence[Any] = ()) -> Any:
    """Put a container in the place of each wrapper in a tree.

    Raises:
        CaptureError: a tensor of a subclass that is no traceable wrapper.
    """
    leaves, spec = tree.flatten(value)
    if not any(map(_is_subclass, leaves)):
        return value
    numbers = {id(wrapper): Given(n) for n, wrapper in enumerate(given)}
    return tree.unflatten(spec, [numbers.get(id(leaf)) or _apart(leaf) for leaf in leaves])


def together(value: Any, made: list[Any], given: Sequence[Any] = ()) -> Any:
    """Put a wrapper in the place of each container in a tree, and note those that were made."""

    def again(leaf: Any) -> Any:
        if isinstance(leaf, Wrapped):
            made.append(leaf.build())
            return made[-1]
        return given[leaf.number] if isinstance(leaf, Given) else leaf

    leaves, spec = tree.flatten(value, is_leaf=_stands_for_a_wrapper)
    return tree.unflatten(spec, map(again, leaves))


def wrappers_of(value: Any) -> list[Any]:
    """List the wrappers in a tree."""
    return [leaf for leaf in tree.leaves(value) if _is_subclass(leaf)]


def has_wrappers(spec: Any) -> bool:
    """Tell whether a structure has wrappers in it."""
    whole = tree.unflatten(spec, range(spec.num_leaves))
    return any(map(_stands_for_a_wrapper, tree.leaves(whole, is_leaf=_stands_for_a_wrapper)))


def refuse_gradients(values: Iterable[Any]) -> None:
    """Refuse tensors that require grad beside wrappers, of which a graph sees the inside alone.

    Raises:
        CaptureError: one does, or a tensor inside one.
    """
    for value in values:
        inside = tree.leaves(apart(value))
        if any(isinstance(x, Tensor) and x.keys & GRAD for x in [value, *inside]):
            raise CaptureError(
                f"a {type(value).__name__} requires grad, and a program of wrappers has no "
                "gradients",
                seen=repr(value),
                fix="detach it, and what is inside it; or export a function of the tensors "
                "inside the wrappers",
            )


def refuse_wrappers(results: Iterable[Any]) -> None:
    """Refuse wrappers that a transform gave, where none is among the arguments.

    Raises:
        CaptureError: one is there.
    """
    for leaf in results:
        if _is_subclass(leaf):
            raise CaptureError(
                f"a {type(leaf).__name__} is a result, and none is an argument",
                seen=repr(leaf),
                fix="pass what it is made of as an argument, or return the tensors inside it",
            )


def _apart(leaf: Any) -> Any:
    if not _is_subclass(leaf):
        return leaf
    cls = type(leaf)
    if not is_traceable_wrapper_subclass(leaf):
        raise CaptureError(
            f"a {cls.__name__} is an argument or result of a program, which knows plain tensors",
            seen=repr(leaf),
            fix=f"give {cls.__name__} the methods __tensor_flatten__ and __tensor_unflatten__",
        )
    shape, strides = tuple(leaf.payload.shape), tuple(leaf.stride())
    if any(map(is_symbolic, (*shape, *strides))):
        raise CaptureError(
            f"a {cls.__name__} is a result of a size that may change",
            seen=repr(shape),
            fix="return the tensors inside it",
        )
    inner = inner_tensors(leaf)
    form = Form(cls, leaf.__tensor_flatten__()[1], shape, strides, tuple(name for name, _ in inner))
    return Wrapped(form, tuple(_apart(x) for _, x in inner))


def _is_subclass(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.keys & SUBCLASS != 0


def _stands_for_a_wrapper(value: Any) -> bool:
    return isinstance(value, (Wrapped, Given))


def _same(a: Any, b: Any) -> bool:
    """Tell whether two contexts are equal; arrays, which cannot tell, are by identity alone."""
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except Exception:  # whatever an author's class does
        return False

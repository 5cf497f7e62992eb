"""Traceable wrappers among the arguments and results of a program: the tensors inside them are.

A graph knows plain tensors. So a wrapper is a container on the way into a
program and out of it: its leaves are the tensors inside, and all else that it
is belongs to the structure. The function that is exported gets a wrapper of
the graph's inputs, so that what its class does with a call is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optree

from polyop import tree
from polyop.dispatch.bits import GRAD, SUBCLASS
from polyop.errors import CaptureError, UsageError, an
from polyop.symbolic import is_symbolic
from polyop.tensor.meta import contiguous_strides, normal_strides
from polyop.tensor.storage import bump
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor
from polyop.tree.containers import NAMESPACE

#: Strides of elements in order, whatever the shape.
IN_ORDER = "in order"


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """What a wrapper is besides the tensors inside it.

    Attributes:
        shape: its sizes; or the number of the part inside whose shape it has.
        strides: in elements; or the number of the part whose strides it has, or `IN_ORDER`.
    """

    cls: Any
    context: Any
    shape: tuple[int, ...] | int
    strides: tuple[int, ...] | int | str
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
        shape = f" of shape {self.shape}" if isinstance(self.shape, tuple) else ""
        return f"{self.cls.__qualname__}{shape}{context}"


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
        shape = form.shape if isinstance(form.shape, tuple) else tuple(parts[form.shape].shape)
        strides: Any = form.strides
        if isinstance(strides, int):
            strides = tuple(parts[strides].stride())
        elif isinstance(strides, str):
            strides = contiguous_strides(shape)
        return form.cls.__tensor_unflatten__(inner, form.context, shape, strides)

    def shape(self) -> tuple[Any, ...]:
        """Give the shape of the wrapper."""
        form = self.form
        if isinstance(form.shape, tuple):
            return form.shape
        part = self.parts[form.shape]
        return part.shape() if isinstance(part, Wrapped) else tuple(part.shape)


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
    wrappers, given = givens_of(spec)
    return bool(wrappers or given)


def givens_of(spec: Any) -> tuple[int, list[Given]]:
    """Count the wrappers in a structure, and list those that are arguments."""
    whole = tree.unflatten(spec, range(spec.num_leaves))
    leaves = tree.leaves(whole, is_leaf=_stands_for_a_wrapper)
    count = sum(isinstance(x, Wrapped) for x in leaves)
    return count, [x for x in leaves if isinstance(x, Given)]


def refuse_gradients(values: Iterable[Any]) -> None:
    """Refuse tensors that require grad beside wrappers, of which a graph sees the inside alone.

    Raises:
        CaptureError: one does, or a tensor inside one.
    """
    for value in values:
        inside = tree.leaves(apart(value))
        if any(isinstance(x, Tensor) and x.keys & GRAD for x in [value, *inside]):
            raise CaptureError(
                f"{an(type(value).__name__)} requires grad, and a program of wrappers has no "
                "gradients: its graph is of the tensors inside, and the gradient is what the "
                "class makes of it",
                seen=repr(value),
                fix="export a function that gives the gradient too: x = x.detach()"
                ".requires_grad_() and polyop.autograd.grad inside it; or detach it",
            )


def refuse_wrappers(results: Iterable[Any]) -> None:
    """Refuse wrappers that a transform gave, where none is among the arguments.

    Raises:
        CaptureError: one is there.
    """
    for leaf in results:
        if _is_subclass(leaf):
            raise CaptureError(
                f"{an(type(leaf).__name__)} is a result, and none is an argument",
                seen=repr(leaf),
                fix="pass what it is made of as an argument, or return the tensors inside it",
            )


def _apart(leaf: Any) -> Any:
    if not _is_subclass(leaf):
        return leaf
    cls = type(leaf)
    if not is_traceable_wrapper_subclass(leaf):
        raise CaptureError(
            f"{an(cls.__name__)} is an argument or result of a program, which knows plain tensors",
            seen=repr(leaf),
            fix=f"give {cls.__name__} the methods __tensor_flatten__ and __tensor_unflatten__",
        )
    inner = inner_tensors(leaf)
    shape, strides = _layout(leaf, [x for _, x in inner])
    if any(map(is_symbolic, tree.leaves((shape, strides)))):
        raise CaptureError(
            f"{an(cls.__name__)} is a result of a size that may change, and not that of a tensor "
            "inside it",
            seen=repr(tuple(leaf.payload.shape)),
            fix="return the tensors inside it",
        )
    form = Form(cls, leaf.__tensor_flatten__()[1], shape, strides, tuple(name for name, _ in inner))
    return Wrapped(form, tuple(_apart(x) for _, x in inner))


def _layout(leaf: Any, inner: Sequence[Any]) -> tuple[Any, Any]:
    """Give the shape and strides of a wrapper, by those of what is inside where they are equal."""
    shape, strides = tuple(leaf.payload.shape), tuple(leaf.stride())
    alike = [i for i, x in enumerate(inner) if _equal(tuple(x.shape), shape)]
    if _equal(strides, contiguous_strides(shape)) or normal_strides(shape, strides) is None:
        return alike[0] if alike else shape, IN_ORDER
    steps = [i for i in alike if _equal(tuple(inner[i].stride()), strides)]
    return alike[0] if alike else shape, steps[0] if steps else strides


def _equal(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Compare sizes; symbolic ones by how they are written, so that no guard is added."""
    return len(a) == len(b) and all(
        str(x) == str(y) if is_symbolic(x) or is_symbolic(y) else x == y
        for x, y in zip(a, b, strict=True)
    )


def dims_inside(path: str, value: Wrapped, shapes: Any) -> Any:
    """Give the dimensions of the tensors inside a wrapper, by attribute.

    Those of the wrapper are those of each tensor inside that has its shape; of
    one that has as many axes, they are those of the axes of the same size.

    Raises:
        UsageError: the sizes of the wrapper are not those of a tensor inside it, or one of those
            has axes of its own.
    """
    form = value.form
    if not shapes:
        return None
    if not isinstance(form.shape, int):
        raise UsageError(
            f"dynamic_shapes has dimensions for {path}, whose sizes are not those of a tensor "
            "inside it, and are fixed",
            seen=repr(shapes),
            fix="export a function of the tensors inside it",
        )
    if isinstance(shapes, Mapping) and all(isinstance(name, str) for name in shapes):
        return shapes
    outer = value.shape()
    by_axis = _by_axis(path, outer, shapes)
    return {
        name: _follow(f"{path}.{name}", outer, part, by_axis)
        for name, part in zip(form.names, value.parts, strict=True)
    }


def _by_axis(path: str, outer: Sequence[int], shapes: Any) -> dict[int, Any]:
    count = len(outer)
    if isinstance(shapes, (tuple, list)) and len(shapes) == count:
        return dict(enumerate(shapes))
    good = isinstance(shapes, Mapping) and all(
        type(axis) is int and -count <= axis < count for axis in shapes
    )
    if good:
        return {axis % count: dim for axis, dim in shapes.items()}
    raise UsageError(
        f"dynamic_shapes does not match {path}",
        declared="a dict from axes or attributes, or one entry for each axis",
        seen=f"{shapes!r}, for {count} axes",
    )


def _follow(path: str, outer: Sequence[int], part: Any, by_axis: Mapping[int, Any]) -> Any:
    shape = part.shape() if isinstance(part, Wrapped) else tuple(part.shape)
    if len(shape) != len(outer):
        raise UsageError(
            f"dynamic_shapes does not say which sizes of {path} change",
            declared=f"{len(outer)} axes",
            seen=f"{len(shape)} axes",
            fix="give the dimensions by attribute: a dict from the names of the tensors inside",
        )
    return {axis: dim for axis, dim in by_axis.items() if shape[axis] == outer[axis]}


def count_writes(wrappers: Iterable[Any], written: Sequence[Any]) -> None:
    """Count a write to each wrapper of which a tensor inside was written."""
    for wrapper in wrappers:
        inside = tree.leaves(apart(wrapper))
        if any(x is y for x in inside for y in written):
            bump(wrapper)


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

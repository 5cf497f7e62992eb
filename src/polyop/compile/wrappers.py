"""Compiled functions of traceable wrappers: the program is one of the tensors inside (S165).

Each kind of call, by the classes, contexts and shapes of its wrappers, has a
compiled function of its own, from inner tensors to inner tensors. A program
gives, as its first result, the number of the description by which the others
become wrappers again; so that programs of several descriptions may stand
beside each other. Where a gradient is wanted autograd must see the wrappers,
and the call is eager.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, NO_GRAD, NUMPY
from polyop.dispatch.context import word
from polyop.dispatch.lock import LOCK
from polyop.errors import CaptureError
from polyop.symbolic import is_symbolic
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Outline:
    """A wrapper without its tensors: what makes one again of others."""

    cls: Any
    context: Any
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    inner: tuple[tuple[str, Outline | None], ...]

    def key(self, static: Callable[[Any], Any]) -> Any:
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


def parts_of(leaf: Any) -> list[Any]:
    """Give the tensors inside a wrapper, or the value itself."""
    if not is_traceable_wrapper_subclass(leaf):
        return [leaf]
    return [part for _, x in inner_tensors(leaf) for part in parts_of(x)]


def can_go_inside(leaves: Sequence[Any]) -> bool:
    """Tell whether there are wrappers, all of them of plain tensors, and no gradient is wanted."""
    if int(word()) & ~NO_GRAD or not any(map(is_traceable_wrapper_subclass, leaves)):
        return False
    tensors = [x for leaf in leaves for x in [leaf, *parts_of(leaf)] if isinstance(x, Tensor)]
    if word().grad and any(x.keys & GRAD for x in tensors):
        return False
    inside = [x for leaf in leaves for x in parts_of(leaf) if isinstance(x, Tensor)]
    return all(not x.keys & ~(NUMPY | GRAD) for x in inside)


def refuse_wrappers(leaves: Sequence[Any]) -> None:
    """Refuse wrappers that cannot go inside, outside of transforms and traces.

    Raises:
        CaptureError: there is one.
    """
    wrapper = next((x for x in leaves if is_traceable_wrapper_subclass(x)), None)
    if wrapper is not None and not int(word()) & ~NO_GRAD:
        raise CaptureError(
            "a wrapper subclass cannot be captured where its gradient is wanted, or where it does "
            "not hold plain tensors",
            seen=type(wrapper).__name__,
            fix="call it under no_grad, or compile without fullgraph=True",
        )


Described = tuple[tuple[Outline | int | None, ...], Any]


class Inside:
    """A function of wrappers as one of the tensors inside them.

    Attributes:
        outputs: how results become wrappers again, one description per kind of result.
    """

    def __init__(self, leaves: Sequence[Any], spec: Any, static: Callable[[Any], Any]) -> None:
        self.inputs = [outline_of(leaf) for leaf in leaves]
        self.spec = spec
        self.static = static
        self.outputs: list[Described] = []
        self._numbers: dict[Any, int] = {}

    def function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Give the function to compile. It names `fn`, so that what `fn` reads is guarded."""
        box = self

        def inside(*given: Any) -> Any:
            return box.run(fn, given)

        return inside

    def run(self, fn: Callable[..., Any], given: Sequence[Any]) -> list[Any]:
        """Call the function on wrappers of some tensors, and take its results apart."""
        rest = iter(given)
        leaves = [outline.build(rest) if outline else next(rest) for outline in self.inputs]
        args, kwargs = tree.unflatten(self.spec, leaves)
        out, structure = tree.flatten(fn(*args, **kwargs))
        described: list[Outline | int | None] = []
        flat: list[Any] = []
        for leaf in out:
            same = [i for i, x in enumerate(leaves) if x is leaf and self.inputs[i]]
            described.append(same[0] if same else known(outline_of(leaf)))
            flat += [] if same else parts_of(leaf)
        return [self._number(tuple(described), structure), *flat]

    def _number(self, described: tuple[Outline | int | None, ...], structure: Any) -> int:
        """Give the number of a description, the same one each time."""
        key = (structure, *(one.key(self.static) if isinstance(one, Outline) else one
                            for one in described))  # fmt: skip
        with LOCK:
            if key not in self._numbers:
                self.outputs.append((described, structure))
                self._numbers[key] = len(self.outputs) - 1
            return self._numbers[key]

    def give(self, leaves: Sequence[Any], results: Sequence[Any]) -> Any:
        """Make the results of the function again, of those of the program."""
        described, structure = self.outputs[results[0]]
        rest = iter(results[1:])
        done = []
        for one in described:
            if isinstance(one, int):
                done.append(leaves[one])
            else:
                done.append(one.build(rest) if one else next(rest))
        return tree.unflatten(structure, done)


def known(outline: Outline | None) -> Outline | None:
    """Check that an outline can be kept: its sizes are numbers.

    Raises:
        CaptureError: a size depends on data.
    """
    if outline and any(map(is_symbolic, (*outline.shape, *outline.strides))):
        raise CaptureError(
            f"the shape of a {outline.cls.__name__} depends on data",
            seen=repr(outline.shape),
            fix="return the tensors inside",
        )
    return outline


def run_inside(owner: Any, fn: Any, leaves: Sequence[Any], spec: Any, static: Any) -> Any:
    """Run a call of a compiled function by the compiled function of the tensors inside."""
    self_of = getattr(fn, "__self__", None)
    kind = (spec, static(self_of), tuple(kind_of(leaf, static) for leaf in leaves))
    with LOCK:
        found = owner.insides.get(kind)
        if found is None:
            if len(owner.insides) >= owner.limit:
                owner.insides.clear()
            box = Inside(leaves, spec, static)
            # Shapes are part of the kind, so one program serves it.
            made = type(owner)(
                box.function(fn), owner.fullgraph, False, owner.backend, owner.options
            )
            found = owner.insides[kind] = box, made
    box, made = found
    return box.give(leaves, made(*[part for leaf in leaves for part in parts_of(leaf)]))


def kind_of(leaf: Any, static: Callable[[Any], Any]) -> Any:
    """Give what selects the compiled function of a call, for one argument."""
    if isinstance(leaf, Tensor):
        found = leaf.__tensor_flatten__() if is_traceable_wrapper_subclass(leaf) else None  # type: ignore[attr-defined]
        inner = [(name, kind_of(x, static)) for name, x in inner_tensors(leaf)] if found else []
        context = static(found[1]) if found else None
        return type(leaf), context, tuple(leaf.shape), leaf.stride(), leaf.dtype, tuple(inner)
    return type(leaf), static(leaf)

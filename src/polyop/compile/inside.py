"""A function of wrappers as one of the tensors inside them, which a program can be made of.

A program gives, as its first result, the number of the description by which
the others become wrappers again; so that programs of several descriptions may
stand beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from polyop import tree
from polyop.compile.outlines import (
    Outline,
    Static,
    firsts,
    lasting,
    outline_of,
    parts_of,
)
from polyop.compile.recording import Capture
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import word
from polyop.dispatch.lock import LOCK
from polyop.errors import CaptureError
from polyop.objects.environment import environment, root_of, tensors_of
from polyop.tensor.storage import bump, version_of
from polyop.tensor.subclass import is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor

#: Stands where a number of a description would, before results that are whole already.
WHOLE = -1


class Switch(BaseException):
    """A capture finds that the call runs in another way: with gradients, or eagerly.

    Attributes:
        joint: whether with gradients.
        problem: why, for errors.
    """

    def __init__(self, joint: bool, problem: str = "") -> None:
        super().__init__(problem)
        self.joint, self.problem = joint, problem


One: TypeAlias = Outline | int | Tensor | None


class Described(NamedTuple):
    """How the results of a program become those of its function.

    Attributes:
        results: per leaf, the outline of a wrapper, the number of the argument that it is, the
            wrapper itself if it is a variable of the function, or None for what has no outline.
        structure: of the results.
        written: the numbers of the wrappers among the arguments that are written.
    """

    results: tuple[One, ...]
    structure: Any
    written: tuple[int, ...]

    def key(self, static: Static) -> Any:
        """Give what it is equal by."""
        return self.structure, self.written, keys_of(self.results, static)

    def built(self, leaves: Sequence[Any], flat: Iterable[Any]) -> list[Any]:
        """Make the results of those of a program, whose writes the wrappers count."""
        for i in self.written:
            bump(leaves[i])
        return built(self.results, iter(flat), leaves)


def keys_of(described: Sequence[Any], static: Static) -> tuple[Any, ...]:
    """Give what outlines, and what stands beside them, are equal by."""
    return tuple(
        one.key(static)
        if isinstance(one, Outline)
        else ("variable", id(one))
        if isinstance(one, Tensor)
        else one
        for one in described
    )


class Inside:
    """A function of wrappers as one of the tensors inside them.

    Attributes:
        outputs: how results become wrappers again, one description per kind of result.
    """

    def __init__(self, leaves: Sequence[Any], spec: Any, static: Static) -> None:
        self.inputs = [outline_of(leaf) for leaf in leaves]
        self.same = firsts(leaves)
        self.spec = spec
        self.static = static
        self.outputs: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Give the function to compile. It names `fn`, so that what `fn` reads is guarded."""
        box = self

        def inside(*given: Any) -> Any:
            return box.run(fn, given)

        inside.__name__ = getattr(fn, "__name__", "the function")  # errors name it
        inside.__module__ = root_of(fn)  # whose code is looked at
        return inside

    def run(self, fn: Callable[..., Any], given: Sequence[Any]) -> list[Any]:
        """Call the function on wrappers of some tensors, and take its results apart.

        Raises:
            Switch: in a capture, a result requires grad.
        """
        leaves = self.leaves_of(given)
        counts = self.counts(leaves)
        args, kwargs = tree.unflatten(self.spec, leaves)
        out = fn(*args, **kwargs)
        self.check(leaves, given)
        results, structure = tree.flatten(out)
        new = [x for x in results if not any(x is leaf for leaf in leaves)]
        if any(grows(part) for x in new for part in [x, *parts_of(x)]):
            if not isinstance(word().tracer, Capture):
                return [WHOLE, out]
            raise Switch(word().grad, "a tensor that requires grad is a result")
        variables = tensors_of(environment(fn, leaves)) if any(map(_is_real, results)) else ()
        described, flat = self.taken_apart(leaves, results, variables)
        written = self.written(leaves, counts)
        return [self.number(Described(described, structure, written)), *flat]

    def leaves_of(self, given: Sequence[Any]) -> list[Any]:
        """Make the arguments again; what was given twice is the same wrapper twice."""
        rest = iter(given)
        leaves: list[Any] = []
        for i, outline in enumerate(self.inputs):
            made = outline.build(rest) if outline else next(rest)
            leaves.append(leaves[self.same[i]] if self.same[i] < i else made)
        return leaves

    def counts(self, leaves: Sequence[Any]) -> list[int]:
        """Give how often each wrapper was written."""
        return [version_of(x) if self.inputs[i] else 0 for i, x in enumerate(leaves)]

    def written(self, leaves: Sequence[Any], counts: Sequence[int]) -> tuple[int, ...]:
        """Give the wrappers that were written since they were counted."""
        now = self.counts(leaves)
        return tuple(i for i, n in enumerate(counts) if now[i] != n and self.same[i] == i)

    def check(self, leaves: Sequence[Any], given: Sequence[Any]) -> None:
        """Refuse a function that puts other tensors into a wrapper that it was given.

        Raises:
            Switch: it does, in a capture.
            CaptureError: it does, outside of one.
        """
        now = [part for leaf in leaves for part in parts_of(leaf)]
        if len(now) == len(given) and all(a is b for a, b in zip(now, given, strict=True)):
            return
        problem = "the function puts another tensor into a wrapper that it was given"
        if isinstance(word().tracer, Capture):
            raise Switch(False, problem)
        raise CaptureError(problem, fix="write the tensor inside it instead: inner.copy_(value)")

    def taken_apart(
        self, leaves: Sequence[Any], results: Sequence[Any], variables: Iterable[Tensor]
    ) -> tuple[tuple[One, ...], list[Any]]:
        """Describe results, and give the tensors that they are made of."""
        kept = set(map(id, variables))
        described: list[One] = []
        flat: list[Any] = []
        for leaf in results:
            same = [i for i, x in enumerate(leaves) if x is leaf and self.by_number(i)]
            if id(leaf) in kept or same:
                described.append(same[0] if same else leaf)
                continue
            described.append(lasting(outline_of(leaf)))
            flat += _bare(leaf)
        return tuple(described), flat

    def by_number(self, i: int) -> bool:
        """Tell whether an argument that is a result is given back by its number."""
        return self.inputs[i] is not None

    def number(self, described: Any) -> int:
        """Give the number of a description, the same one each time."""
        key = described.key(self.static)
        with LOCK:
            if key not in self._numbers:
                self.outputs.append(described)
                self._numbers[key] = len(self.outputs) - 1
            return self._numbers[key]

    def give(self, leaves: Sequence[Any], results: Sequence[Any]) -> Any:
        """Make the results of the function again, of those of the program."""
        if results[0] == WHOLE:
            return results[1]
        described = self.outputs[results[0]]
        return tree.unflatten(described.structure, described.built(leaves, results[1:]))


def _is_real(leaf: Any) -> bool:
    """Tell whether a value is a wrapper of tensors with data: in a capture, one from outside."""
    parts = parts_of(leaf) if is_traceable_wrapper_subclass(leaf) else []
    return bool(parts) and all(x.payload.__class__ is np.ndarray for x in parts)


def _bare(leaf: Any) -> list[Any]:
    """Give the tensors inside a result.

    Raises:
        Switch: one requires grad, where the wrapper does not.
    """
    parts = parts_of(leaf)
    if not any(part is not leaf and grows(part) for part in parts):
        return parts
    raise Switch(False, "a tensor inside a result requires grad itself")


def built(described: Sequence[One], rest: Iterator[Any], leaves: Sequence[Any]) -> list[Any]:
    """Make described values of tensors, and of the arguments that they are."""
    done = []
    for one in described:
        if isinstance(one, int):
            done.append(leaves[one])
        elif isinstance(one, Outline):
            done.append(one.build(rest))
        else:
            done.append(next(rest) if one is None else one)
    return done


def grows(value: Any) -> bool:
    """Tell whether a value is a tensor that requires grad."""
    return isinstance(value, Tensor) and value.keys & GRAD != 0

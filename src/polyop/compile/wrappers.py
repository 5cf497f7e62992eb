"""Compiled functions of traceable wrappers: the program is one of the tensors inside (S165).

Each kind of call, by the classes, contexts and shapes of its wrappers, has a
compiled function of its own, from inner tensors to inner tensors. Where a
gradient is wanted, it is one with the way back in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from polyop import tree
from polyop.compile.inside import Inside, Switch
from polyop.compile.joint import Joint
from polyop.compile.outlines import firsts, kind_of, parts_of
from polyop.compile.refusals import run_for
from polyop.dispatch.bits import GRAD, NO_GRAD, NUMPY
from polyop.dispatch.context import word
from polyop.dispatch.lock import LOCK
from polyop.errors import CaptureError, SubgraphError
from polyop.tensor.subclass import is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor
from polyop.tree.same import key_orders

#: How often a call that cannot be captured with its gradient is captured again, and how often
#: a program is made for gradients of another kind than expected.
MOST_TRIES = 3


def can_go_inside(leaves: Sequence[Any]) -> bool:
    """Tell whether there are wrappers, all of them of plain tensors without gradients."""
    if int(word()) & ~NO_GRAD or not any(map(is_traceable_wrapper_subclass, leaves)):
        return False
    allowed = NUMPY if word().grad else NUMPY | GRAD
    return all(_is_plain(leaf, allowed) for leaf in leaves if isinstance(leaf, Tensor))


def _is_plain(leaf: Tensor, allowed: int) -> bool:
    if not is_traceable_wrapper_subclass(leaf):
        return not leaf.keys & ~(NUMPY | GRAD)
    return all(not x.keys & ~allowed for x in parts_of(leaf))


def refuse_wrappers(leaves: Sequence[Any]) -> None:
    """Refuse wrappers that cannot go inside, outside of transforms and traces.

    Raises:
        CaptureError: there is one.
    """
    wrapper = next((x for x in leaves if is_traceable_wrapper_subclass(x)), None)
    if wrapper is not None and not int(word()) & ~NO_GRAD:
        raise CaptureError(
            "a wrapper subclass cannot be captured where it does not hold plain tensors, or one "
            "of them requires grad itself",
            seen=type(wrapper).__name__,
            fix="let the wrapper require grad, call it under no_grad, or compile without "
            "fullgraph=True",
        )


class Eager:
    """A kind of call that no program can be made of."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


class WithGradient:
    """A kind of call whose gradient is wanted: its programs, and how often they were made."""

    def __init__(self, owner: Any, fn: Any, leaves: Sequence[Any], spec: Any, static: Any) -> None:
        self.owner, self.fn, self.failures, self.learned = owner, fn, 0, 0
        self.make = partial(Joint, spec=spec, static=static)
        self.box = self.make(leaves)
        self.program = self._program()

    def _program(self) -> Any:
        owner, box = self.owner, self.box
        backend = box.backend(owner.backend, owner.aliasing)
        return type(owner)(box.function(self.fn), True, False, backend, owner.options)

    def learn(self, leaves: Sequence[Any], expected: Any) -> None:
        """Make further programs for gradients that look like these."""
        with LOCK:
            if self.learned < MOST_TRIES:
                self.learned += 1
                self.box = self.make(leaves, expected=expected)
                self.program = self._program()

    def run(self, fn: Any, leaves: Sequence[Any], args: Any, kwargs: Any) -> Any:
        """Run a call by its programs, or eagerly if it cannot be captured."""
        strict = self.owner.fullgraph
        if self.failures >= MOST_TRIES and not strict:
            return fn(*args, **kwargs)
        with LOCK:
            box, program = self.box, self.program
        try:
            ready = box.ready(program, leaves)
        except (CaptureError, SubgraphError, Switch) as error:
            self.failures += 1
            if not strict:
                return fn(*args, **kwargs)
            if box.own is not None:
                run_for(box.own, fn, args, kwargs)
            raise refusal(error) if isinstance(error, Switch) else error from None
        return box.call(ready, fn, leaves, partial(self.learn, leaves))


def refusal(switch: Switch) -> CaptureError:
    """Make the error of `fullgraph=True` for what cannot be captured."""
    return CaptureError(
        f"wrapper subclasses cannot be captured here: {switch.problem}",
        fix="pass it as an argument, or compile without fullgraph=True",
    )


Found: TypeAlias = "Eager | WithGradient | tuple[Inside, Any]"


def run_inside(owner: Any, fn: Any, leaves: Sequence[Any], spec: Any, static: Any) -> Any:
    """Run a call of a compiled function by the compiled function of the tensors inside."""
    self_of = getattr(fn, "__self__", None)
    grows = word().grad and any(isinstance(x, Tensor) and x.keys & GRAD for x in leaves)
    wants = tuple(isinstance(x, Tensor) and x.keys & GRAD for x in leaves)
    looks = tuple(kind_of(leaf, static) for leaf in leaves)
    orders = key_orders(tree.unflatten(spec, leaves))
    kind = spec, orders, static(self_of), word().grad, wants, firsts(leaves), looks
    first = WithGradient if grows else _without_gradient
    found = _found(owner, kind, partial(first, owner, fn, leaves, spec, static))
    try:
        return _run(owner, found, fn, leaves, spec)
    except Switch as switch:
        made = WithGradient(owner, fn, leaves, spec, static) if switch.joint else None
        found = owner.insides[kind] = made or Eager(switch.problem)
        return _run(owner, found, fn, leaves, spec)


def _found(owner: Any, kind: Any, make: Callable[[], Found]) -> Found:
    with LOCK:
        if kind not in owner.insides or _outgrown(owner.insides[kind], owner.limit):
            if len(owner.insides) >= owner.limit:
                owner.insides.clear()
            owner.insides[kind] = make()
        found: Found = owner.insides[kind]
        return found


def _outgrown(found: Found, limit: int) -> bool:
    """Tell whether a kind of call has described more results than programs are kept."""
    if isinstance(found, Eager):
        return False
    box: Inside = found.box if isinstance(found, WithGradient) else found[0]
    return len(box.outputs) > limit


def _without_gradient(owner: Any, fn: Any, leaves: Sequence[Any], spec: Any, static: Any) -> Found:
    box = Inside(leaves, spec, static)
    # Shapes are part of the kind, so one program serves it.
    return box, type(owner)(box.function(fn), owner.fullgraph, False, owner.backend, owner.options)


def _run(owner: Any, found: Found, fn: Any, leaves: Sequence[Any], spec: Any) -> Any:
    args, kwargs = tree.unflatten(spec, leaves)
    if isinstance(found, WithGradient):
        return found.run(fn, leaves, args, kwargs)
    if isinstance(found, Eager):
        if owner.fullgraph:
            raise refusal(Switch(False, found.problem))
        return fn(*args, **kwargs)
    box, made = found
    return box.give(leaves, made(*[part for leaf in leaves for part in parts_of(leaf)]))

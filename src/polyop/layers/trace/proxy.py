"""`ProxyMode`: the tracing mode before dispatch (S114, S209).

It meets a call before autograd and decompositions do, so that an operator
that decomposes is one node, and grad mode and autocast are part of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from polyop.devices import DType
from polyop.dispatch.below import below_passed, whole_of
from polyop.dispatch.bind import code_of
from polyop.dispatch.bits import EXCLUDE_SHIFT, INFERENCE
from polyop.dispatch.context import Word, run_under, set_word, word
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.dispatch.resolve import keyset_of
from polyop.dispatch.results import tensors_in
from polyop.graph import GraphModule
from polyop.graph.node import CALL_FUNCTION
from polyop.layers.autocast import autocast, autocast_dtypes
from polyop.layers.trace.tracer import FAILURES, Tracer


class ProxyMode(DispatchMode):
    """Records the calls that it meets.

    Args:
        tracer: what keeps the graph.
    """

    mode_key = ModeKey.PROXY

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.grad = word().grad
        self.held: bool | None = None
        self.autocast = autocast_dtypes(word())

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call with this mode off, and add its node."""
        given = kwargs or {}
        instead = self.tracer.table.get(whole_of(op))
        if instead is not None:
            return run_under(with_pre_dispatch(word(), self), instead, *args, **given)
        if types:
            # A graph knows no classes of tensors. What the class does is recorded where it does
            # it: below autograd, and below autocast.
            return run_under(self.beneath(), op, *args, **given)
        if op._schema.is_mutable:
            for tensor in tensors_in((args, given)):
                self.tracer.before_write(tensor)
        try:
            result = op(*args, **given)
        except FAILURES as error:
            self.tracer.note_failure(error)
            raise
        self.note(word())
        self.tracer.record(_called(op, args, given), args, given, _inside(result))
        return result

    def beneath(self) -> Word:
        """Give the word in which calls below autograd and autocast are recorded."""
        now = word()
        self.note_grad(now.grad)
        self.note_autocast({})
        others = tuple([None if mode is self else mode for mode in now.pre])
        return now.but(tracer=self.tracer, pre=others if any(others) else ())

    def note(self, now: Word) -> None:
        """Add nodes that set grad mode and autocast, if they are not what they were."""
        self.note_grad(now.grad)
        if now.autocast or self.autocast:
            self.note_autocast(autocast_dtypes(now))

    @contextmanager
    def holding(self, grad: bool) -> Iterator[None]:
        """Have the calls of a block be in one grad mode, whatever the block sets."""
        former = self.held
        self.held = grad if former is None else former
        try:
            yield
        finally:
            self.held = former

    def note_grad(self, grad: bool) -> None:
        """Add a node that sets grad mode, if that is not what it was at the last call."""
        grad = grad if self.held is None else self.held
        if grad != self.grad:
            self.grad = grad
            self._call(set_grad_mode, grad)

    def note_autocast(self, dtypes: dict[str, DType | None]) -> None:
        """Add nodes that set autocast, for the device types where it is not what it was."""
        for kind in self.autocast.keys() - dtypes.keys():
            self._call(set_autocast, kind, None, False)
        for kind, dtype in dtypes.items():
            if kind not in self.autocast or self.autocast[kind] != dtype:
                self._call(set_autocast, kind, dtype, True)
        self.autocast = dtypes

    def _call(self, target: Callable[..., None], *args: Any) -> None:
        self.tracer.graph.create_node(CALL_FUNCTION, target, args)


def _called(op: OpOverload, args: Any, kwargs: Any) -> OpOverload:
    """Give an operator without the kernels that are excluded where it is called."""
    now = int(word())
    if not now >> EXCLUDE_SHIFT and not now & INFERENCE:
        return op
    code = code_of((args, kwargs))
    return below_passed(op, keyset_of(code | now), keyset_of(code))


def _inside(result: Any) -> Any:
    """Give what a functionalization wrapped of a new tensor, which is what the graph knows."""
    level = word().functional
    while level is not None:
        result, level = level.peel(result), level.outer.functional
    return result


def set_grad_mode(grad: bool) -> None:
    """Set grad mode for the nodes that follow; a program ends in the mode in which it began."""
    set_word(word().with_grad if grad else word().without_grad)


def set_autocast(device_type: str, dtype: DType | None, enabled: bool) -> None:
    """Set autocast for the nodes that follow; a program ends in the one in which it began."""
    set_word(autocast(device_type, dtype, enabled).word())


#: Passes keep them, though nobody reads what they give.
set_grad_mode.is_impure = True  # type: ignore[attr-defined]
set_autocast.is_impure = True  # type: ignore[attr-defined]


class PreDispatchModule(GraphModule):
    """A program that may set grad mode or autocast; an exception in it leaves them as they were."""

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        return run_under(word(), super().__call__, *inputs)

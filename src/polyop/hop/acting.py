"""Who acts on a call of a higher-order operator, where the keys leave it open (S118 to S120)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from polyop import tree
from polyop.dispatch.bits import BATCHED, FAKE, LIFTED, SUBCLASS, WRAPPED
from polyop.dispatch.context import Word, word
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.python_key import dispatches
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.levels import Level
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.tensor import Tensor


def tensors_of(args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Give the tensor leaves of a call."""
    return (leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor))


def innermost_level(args: Any, kwargs: Any) -> Level:
    """Give the deepest transform of a call: one that runs, or one that an argument belongs to."""
    levels: list[Level] = list(word().levels[-1:])
    levels += [t.payload.level for t in tensors_of(args, kwargs) if t.keys & WRAPPED]
    return max(levels, key=lambda level: level.depth)


def modes_of(now: Word) -> Iterator[tuple[Any, Word]]:
    """Give the modes from the innermost outward, each with the word of what it calls."""
    yield from now.chain
    if now.tracer is not None:
        yield now.tracer, now.but(modes=(), infra=(), tracer=None)
    if now.fake is not None:
        yield now.fake, now.but(modes=(), infra=(), tracer=None, fake=None)


def python_tensors(args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Give the fakes of a call, and the tensors of classes that answer calls."""
    for tensor in tensors_of(args, kwargs):
        if tensor.keys & FAKE or (tensor.keys & SUBCLASS and dispatches(type(tensor))):
            yield tensor


def of_class(value: Any) -> bool:
    """Tell whether a value is a tensor of a class of its own, or stands for one in a transform."""
    while isinstance(value, Tensor) and value.keys & (BATCHED | LIFTED):
        value = value.payload.value
    return isinstance(value, Tensor) and type(value) is not Tensor


def rule_wanted(name: str, mode: Any) -> tuple[str, str]:
    """Say what a mode without a rule for an operator is, and how its author gives it one."""
    op, kind = f"polyop.ops.higher_order.{name}", type(mode).__name__
    if isinstance(mode, FakeTensorMode):
        return "fakes", f"give it one: polyop.library.register_fake({op}, fn)"
    if isinstance(mode, (Tracer, ProxyMode)):
        return "traces", (
            "make it with polyop.extend.register_higher_order(name, eager), which records what "
            "`eager` calls, or calls its `trace`"
        )
    fix = f"give it one: {op}.py_impl({kind})(rule), which gets the mode first"
    if isinstance(mode, DispatchMode):
        fix += (
            f"; or set {kind}.supports_higher_order_operators = True to get it in "
            f"{kind}.__dispatch__"
        )
    return f"the mode {kind}", fix

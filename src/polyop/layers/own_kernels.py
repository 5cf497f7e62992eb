"""Kernels that an author registered at the keys of transforms act there (S80, S100).

A level has its own way of running an operator. Where the operator has a kernel at the level's key
(FuncTorchBatched for vmap, the autograd key of the call's backend for a gradient, Functionalize),
that kernel runs instead, on the wrapped tensors: what it calls has the level's ways again. A kernel
that goes on below autograd comes to BackMode, where the level is taken off and the operator is
called anew. A rule that `py_impl` was given for the transform itself goes before all (S109).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import BATCHED, EXCLUDE_SHIFT, FUNCTIONAL, LIFTED, SET_MASK, WRAPPED
from polyop.dispatch.context import DEFAULT_EXCLUDE, run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import AUTOCAST_KEYS, DispatchKey, autograd_key_for
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import Handler
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import Way, backends_of
from polyop.dispatch.results import tensors_in
from polyop.dispatch.shortened import shortened
from polyop.dispatch.table import Kernel
from polyop.lazy import load


def own_kernels(way: Way) -> dict[int, Handler]:
    """Give the handlers of kernels at the keys of the levels in a call, by the level's bit."""
    backend = max(backends_of(way.code))
    # What is made of operators is differentiated through them, so its kernel acts as well.
    keys = {
        BATCHED: (DispatchKey.FuncTorchVmapMode, DispatchKey.FuncTorchBatched),
        LIFTED: (autograd_key_for(backend),),
    }
    found = {
        bit: own_rule(way, bit, own_kernel(way, *among))
        for bit, among in keys.items()
        if way.code & bit
    }
    return {bit: handler for bit, handler in found.items() if handler is not None}


def own_kernel(way: Way, *keys: DispatchKey) -> Handler | None:
    """Give the handler of the kernel at the first of some keys that has one and is not excluded.

    What the level does by itself is no kernel; a fallback that somebody registered is one.
    """
    for key in keys:
        kernel = way.op.table[key].kernel
        if kernel is not None and kernel.fn is not None and not is_off(way.code, key):
            here = way._replace(steps=()).told(key, kernel)
            made: Handler = PARTS.kernel_handler(here, key, kernel)
            return made
    return None


def autocast_kernel(way: Way) -> Handler | None:
    """Give the handler of the autocast kernel that is still to act on a call, if there is one."""
    for key, step in way.steps:
        if key in AUTOCAST_KEYS and isinstance(step, Kernel) and not step.fallthrough:
            here = way._replace(steps=()).told(key, step)
            made: Handler = PARTS.kernel_handler(here, key, step)
            return made
    return None


def own_rule(way: Way, bit: int, otherwise: Handler | None) -> Handler | None:
    """Give the handler of the operator's rules for the transforms of a bit, if it has any."""
    op = way.op
    table = op.__dict__.get("functorch_table", {})  # not by attribute, which would make it
    rules = {kind.value: fn for kind, fn in table.items() if kind in _KINDS[bit]}
    if not rules:
        return otherwise
    interpreter = load("polyop.hop.rules:Interpreter")

    def run(*args: Any) -> Any:
        level = max((t.payload.level for t in tensors_in(args) if t.keys & WRAPPED), key=_depth)
        rule = rules.get(level.kind)
        # Where the rule took its level off, it does not call itself.
        if rule is not None and level in word().levels:
            given, named = shortened(op, args)
            return rule(interpreter(level), *given, **named)
        return level.run(op, args) if otherwise is None else otherwise(*args)

    return run


_depth = attrgetter("depth")
#: The transforms whose tensors have a bit.
_KINDS = {
    BATCHED: (TransformType.Vmap,),
    LIFTED: (TransformType.Grad, TransformType.Jvp),
    FUNCTIONAL: (TransformType.Functionalize,),
}


def is_off(code: int, key: DispatchKey) -> bool:
    """Tell whether somebody took a key out of every call, as `exclude_keys` does."""
    changed = code >> EXCLUDE_SHIFT & SET_MASK
    return changed != 0 and DispatchKeySet.from_bits(changed ^ DEFAULT_EXCLUDE.bits).has(key)


def bit_of(level: Any) -> int:
    """Give the bit of the tensors that a level wraps."""
    return BATCHED if level.kind == "vmap" else LIFTED


def call_anew(level: Any, op: Any, args: Sequence[Any]) -> Any:
    """Call an operator with a level off; what is below autograd records nothing."""
    if level.kind == "vmap" or op._schema.is_mutable:
        return level.run(op, args)
    return level.wrap_all(run_under(level.below(), dispatch, op, [level.peel(a) for a in args]))

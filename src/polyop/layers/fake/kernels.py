"""The kernels that answer calls without data: as a rule, or by what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from polyop.dispatch.bind import code_of
from polyop.dispatch.context import word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way, keyset_of, told_keys
from polyop.dispatch.table import Kernel
from polyop.layers.fake.compute import by_name


def decomposition(op: OpOverload) -> Kernel | None:
    """Give the kernel that is made of operators, where none by hand goes before it (S85)."""
    kernel = op.places.top(DispatchKey.CompositeImplicitAutograd)
    if kernel is None or kernel.fallthrough or rule_kernel(op) is not None:
        return None
    return kernel


def stays_whole(op: OpOverload) -> bool:
    """Tell whether a kernel goes before what an operator is made of, so a call is one call.

    So it is where autograd does not see what it is made of, by a fallthrough of the backend's.
    """
    cut = op.places.top(DispatchKey.AutogradCPU)
    if cut is not None and cut.fallthrough:
        return True
    return bool({DispatchKey.CPU, DispatchKey.CompositeExplicitAutograd} & set(op.kernels()))


def decomposed(way: Way, kernel: Kernel) -> Handler:
    """Make the handler that runs a kernel made of operators, on the way as it is."""
    fn = kernel.fn
    assert fn is not None
    if kernel.with_keyset:
        fn = partial(fn, told_keys(way.op, way.keys, way.acted[-1]))
    return by_name(way.op, fn)


def rule_kernel(op: OpOverload) -> Kernel | None:
    """Give the kernel that was put by hand for all backends, below autograd."""
    top = op.places.top
    kernel = top(DispatchKey.CompositeExplicitAutogradNonFunctional)
    kernel = kernel or top(DispatchKey.CompositeExplicitAutograd)
    # A `custom_op`'s own function looks into data.
    return None if kernel is None or kernel.makes_op or kernel.fallthrough else kernel


def as_rule(op: OpOverload, kernel: Kernel) -> Callable[..., Any]:
    """Give a kernel as a rule of fakes; it is told the keys of what it gets, if it asks."""
    fn = kernel.fn
    assert fn is not None
    if not kernel.with_keyset:
        return fn

    def rule(*args: Any, **kwargs: Any) -> Any:
        keys = keyset_of(code_of((args, kwargs)) | word())
        return fn(told_keys(op, keys, DispatchKey.Python), *args, **kwargs)

    return rule

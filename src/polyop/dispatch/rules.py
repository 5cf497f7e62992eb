"""`register_...`: one function per slot, the same for every kind of operator (S46).

Each takes an operator in any form (name, overload, packet, `CustomOpDef`),
checks the rule, files it under its slot, and returns the function, so that it
decorates. The layer that needs a rule asks for its slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library, kernel_keys, owner_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator, put
from polyop.dispatch.results import kernel_source
from polyop.dispatch.table import Kernel
from polyop.errors import RegistrationError, UsageError, UsageTypeError
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.source import Source, caller, source_of

Rule = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class AutogradRule:
    """An author's gradient: `backward(ctx, *grads)` and `setup_context`, or None for either."""

    backward: Rule | None
    setup_context: Rule | None


def _file(op: OpOverload, slot: Any, rule: Any, source: Source, lib: Library | None) -> None:
    name = op._schema.qualified_name
    put(name, slot, Kernel(rule, source, owner_of(lib, name)))


def _registering(op: Any, slot: str, func: Rule | None, lib: Library | None) -> Any:
    """File a function under a slot, now or when it decorates."""
    found = as_operator(op)

    def register(fn: Rule) -> Rule:
        if not callable(fn):
            raise UsageTypeError(f"a {slot} rule is a function", op=found.name(), seen=repr(fn))
        _file(found, slot, fn, source_of(fn), lib)
        return fn

    return register if func is None else register(func)


def register_kernel(
    op: Any, device_types: Any, func: Rule | None = None, /, *, lib: Library | None = None
) -> Any:
    """Register a kernel for one or several device types; None makes it the default (S50).

    Args:
        op: the operator, in any form.
        device_types: `"cpu"`, `["cpu", "cuda"]`, or None.
        func: the kernel; without it, the call decorates.
        lib: the library that owns the registration.

    Raises:
        UsageError: an unknown device type, or an operator without tensors and
            without an argument `device`.
    """
    found = as_operator(op)
    keys = kernel_keys(device_types)

    def register(fn: Rule) -> Rule:
        if not callable(fn):
            raise UsageTypeError("a kernel is a function", op=found.name(), seen=repr(fn))
        name = found._schema.qualified_name
        kernel = Kernel(fn, source_of(fn), owner_of(lib, name))
        if device_types is not None:
            select_backend(found, lib)
        for key in keys:
            put(name, key, kernel)
        return fn

    return register if func is None else register(func)


def select_backend(op: OpOverload, lib: Library | None = None) -> None:
    """Let a call without tensors find its backend by its argument `device` (S51, S104)."""
    arguments = op._schema.arguments
    if any(leaf_kind(a.type) != "static" for a in arguments):
        return
    position = device_position(op)
    if position is None:
        raise UsageError(
            f"{op.name()} has no Tensor argument, so a kernel for one device needs an "
            "argument that says which device a call is for",
            op=op._schema,
            source=op.source,
            fix="add an argument device: polyop.device",
        )

    def select(keys: DispatchKeySet, /, *args: Any, **kwargs: Any) -> Any:
        device = kwargs["device"] if "device" in kwargs else args[position]
        chosen = kernel_keys("cpu" if device is None else device.type)
        return op.redispatch(DispatchKeySet(chosen), *args, **kwargs)

    name = op._schema.qualified_name
    put(
        name,
        DispatchKey.BackendSelect,
        Kernel(select, caller(), owner_of(lib, name), with_keyset=True),
    )


def device_position(op: OpOverload) -> int | None:
    """Give the position of the argument `device`."""
    for i, argument in enumerate(op._schema.arguments):
        if argument.name == "device" and str(argument.type) in {"Device", "Device?"}:
            return i
    return None


def register_fake(
    op: Any,
    func: Rule | None = None,
    /,
    *,
    lib: Library | None = None,
    _stacklevel: int = 1,
    allow_override: bool = True,
) -> Any:
    """Register the rule that gives the results' shapes, dtypes, strides and devices (S141).

    The rule has the operator's signature, gets tensors without data, and
    returns tensors without data, made by operators only.

    Raises:
        RegistrationError: the operator decomposes, so it needs none.
        DuplicateRegistrationError: it has one, with `allow_override=False`.
    """
    found = as_operator(op)

    def register(fn: Rule) -> Rule:
        if not callable(fn):
            raise UsageTypeError("a fake rule is a function", op=found.name(), seen=repr(fn))
        name = found._schema.qualified_name
        kernel = Kernel(fn, source_of(fn), owner_of(lib, name))
        put(name, "fake", kernel, allow_override=allow_override)
        return fn

    return register if func is None else register(func)


def register_autograd(
    op: Any,
    backward: Rule | None,
    /,
    *,
    setup_context: Rule | None = None,
    lib: Library | None = None,
) -> None:
    """Register the gradient: `backward(ctx, *grads)`, and what it keeps (S124).

    Args:
        op: the operator, in any form.
        backward: gets one gradient per result, and returns one gradient (or
            None) per argument; None says that results do not require grad.
        setup_context: `(ctx, inputs, output)`; keeps in `ctx` what backward needs.
        lib: the library that owns the registration.

    Raises:
        RegistrationError: the operator writes its arguments.
        UsageTypeError: a rule is no function.
    """
    found = as_operator(op)
    for rule in (backward, setup_context):
        if rule is not None and not callable(rule):
            raise UsageTypeError("a rule is a function", op=found.name(), seen=repr(rule))
    if backward is not None and (found._schema.is_mutable or Tag.out in found.tags):
        raise RegistrationError(
            f"{found.name()} writes {', '.join(a.name for a in found._schema.written)}, "
            "so it cannot have a gradient",
            op=found._schema,
            source=kernel_source(found),
            fix="give the gradient to an operator that returns new tensors, and call it from here",
        )
    source = caller() if backward is None else source_of(backward)
    _file(found, "backward", AutogradRule(backward, setup_context), source, lib)


def register_vmap(
    op: Any, func: Rule | None = None, /, *, lib: Library | None = None
) -> Any:
    """Register `func(info, in_dims, *args, **kwargs) -> (output, out_dims)` (S155)."""
    return _registering(op, "vmap", func, lib)


def register_jvp(op: Any, func: Rule | None = None, /, *, lib: Library | None = None) -> Any:
    """Register `jvp(ctx, *tangents)`, run after the same `setup_context` as backward (S132)."""
    return _registering(op, "jvp", func, lib)


def register_autocast(
    op: Any, device_type: str, cast_inputs: Any, /, *, lib: Library | None = None
) -> None:
    """Cast floating arguments to a dtype while autocast is on for a device type (S53)."""
    found = as_operator(op)
    if not isinstance(device_type, str):
        raise UsageTypeError("a device type is a string", op=found.name(), seen=repr(device_type))
    _file(found, f"autocast:{device_type}", cast_inputs, caller(), lib)


def register_dispatch(
    op: Any, cls: type, func: Rule | None = None, /, *, lib: Library | None = None
) -> Any:
    """Register the rule of one operator for a Tensor subclass or a mode (S54)."""
    found = as_operator(op)

    def register(fn: Rule) -> Rule:
        slot = f"dispatch:{cls.__module__}.{cls.__qualname__}"
        _file(found, slot, fn, source_of(fn), lib)
        return fn

    return register if func is None else register(func)


def register_samples(op: Any, func: Any = None, /, *, lib: Library | None = None) -> Any:
    """Register sample inputs for the laws: a function, or a list of argument lists."""
    found = as_operator(op)

    def register(samples: Any) -> Any:
        source = source_of(samples) if callable(samples) else caller()
        _file(found, "samples", samples, source, lib)
        return samples

    return register if func is None else register(func)

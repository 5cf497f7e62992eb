"""`register_...`: one function per slot, the same for every kind of operator (S46).

Each takes an operator in any form (name, overload, packet, `CustomOpDef`),
checks the rule, files it under its slot, and returns the function, so that it
decorates. The layer that needs a rule asks for its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from polyop.devices import Device, DType, as_dtype
from polyop.dispatch.bind import bind, code_of
from polyop.dispatch.class_slots import make_slot
from polyop.dispatch.context import word
from polyop.dispatch.implementations import acts
from polyop.dispatch.keys import DispatchKey, autocast_key_for, key_for_device, parse_key
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library, Owner, owner_of
from polyop.dispatch.library_functions import check_device_argument, kernel_keys
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parameters import checked_backward, checked_setup
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import as_operator, put_kernel, put_rule
from polyop.dispatch.resolve import Way, keyset_of
from polyop.dispatch.results import kernel_source
from polyop.dispatch.table import Kernel, Place, compute_entry, mask_of
from polyop.errors import (
    MissingKernelError,
    OperatorGoneError,
    RegistrationError,
    UsageError,
    UsageTypeError,
    an,
)
from polyop.lazy import load
from polyop.schema.model import MISSING
from polyop.schema.tags import Tag
from polyop.source import Source, caller, source_of
from polyop.warn import warn_needless

Rule = Callable[..., Any]


class AutogradRule(NamedTuple):
    """An author's gradient: `backward(ctx, *grads)` and `setup_context`, or None for either."""

    backward: Rule | None
    setup_context: Rule | None


def _file(
    op: OpOverload,
    slot: Place,
    rule: Any,
    source: Source,
    lib: Library | None,
    *,
    allow_override: bool = True,
) -> None:
    kernel = Kernel(rule, source, owner_of(lib, op.places))
    put_rule(op, slot, kernel, allow_override=allow_override)
    there = op.places.top(DispatchKey.Autograd) if slot in {"backward", "jvp"} else None
    if there is not None and (slot == "backward" or there.fallthrough):
        # The newest at a key acts (S37): from now on polyop itself, by this rule.
        put_rule(op, DispatchKey.Autograd, kernel._replace(fn=None))


def _check_rule(op: OpOverload, slot: str, rule: Any) -> None:
    if not callable(rule):
        raise UsageTypeError(
            f"{an(slot)} rule is a function",
            op=op._schema,
            seen=f"{rule!r:.80}",
            source=op.source,
            fix=f"give a function, or decorate one with register_{slot}",
        )


def _registering(
    op: Any, slot: str, func: Rule | None, lib: Library | None, *, allow_override: bool = True
) -> Any:
    """File a function under a slot, now or when it decorates."""
    found = as_operator(op)

    def register(fn: Rule) -> Rule:
        _check_rule(found, slot, fn)
        _file(found, slot, fn, source_of(fn), lib, allow_override=allow_override)
        return fn

    return register if func is None else register(func)


def register_kernel(
    op: Any,
    device_types: Any,
    func: Rule | None = None,
    /,
    *,
    lib: Library | None = None,
    library: str | None = None,
) -> Any:
    """Register a kernel for one or several device types; None makes it the default (S50).

    Args:
        op: the operator, in any form.
        device_types: `"cpu"`, `["cpu", "cuda"]`, or None.
        func: the kernel; without it, the call decorates.
        lib: the library that owns the registration.
        library: the name of an array library, such as `"torch"` or `"jax"`: the kernel then gets
            that library's own arrays, on these devices or on any, and returns such. It goes before
            a kernel without a library, which computes on tensors over NumPy's arrays.

    Raises:
        UsageError: an unknown device type, an operator without tensors and without an argument
            `device`, or a library whose arrays cannot do what the operator does.
        UsageTypeError: `func` is no function.
    """
    found = as_operator(op)
    if isinstance(device_types, Iterator):  # it is asked for more than once
        device_types = list(device_types)
    keys = kernel_keys(device_types)
    check_device_argument(found._schema, device_types, found.source)

    def register(fn: Rule) -> Rule:
        _check_rule(found, "kernel", fn)
        if library is not None:
            put_of_library = load("polyop.dispatch.library_kernels:register")
            put_of_library(found, device_types, library, fn, lib)
            return fn
        put_kernel(found, keys, Kernel(fn, source_of(fn), owner_of(lib, found.places)))
        return fn

    return register if func is None else register(func)


class KernelHandle(NamedTuple):
    """The kernel that acted at a key when `get_kernel` was asked; it goes on working (S55)."""

    op: OpOverload
    key: DispatchKey
    kernel: Kernel

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel on arguments, bound and converted as a call of the operator does."""
        return self._run(None, args, kwargs)

    def call_boxed(self, keyset: DispatchKeySet, /, *args: Any, **kwargs: Any) -> Any:
        """Call it as if `keyset` had been extracted from the arguments."""
        return self._run(keyset, args, kwargs)

    def _run(self, keyset: DispatchKeySet | None, args: Any, kwargs: Any) -> Any:
        self._check_alive()
        values = bind(self.op, args, kwargs)
        code = code_of(values) | word()
        keys = keyset_of(code) & mask_of(self.op.table) if keyset is None else keyset
        way = Way(self.op, code, keys, (), (self.key,))
        return PARTS.kernel_handler(way, self.key, self.kernel)(*values)

    def _check_alive(self) -> None:
        owner = self.kernel.owner
        if not (owner.alive if isinstance(owner, Owner) else self.op.alive):
            raise OperatorGoneError(
                f"the kernel of {self.op.name()} for {self.key} is gone with its owner",
                op=self.op._schema,
                source=self.kernel.source,
                fix="ask get_kernel again",
            )


def get_kernel(op: Any, dispatch_key: DispatchKey | str) -> KernelHandle:
    """Give the kernel that acts at a key now (S55).

    Raises:
        UsageError: an unknown key.
        OperatorNotFoundError: no such operator.
        MissingKernelError: no kernel acts there.
    """
    found, place = as_operator(op), parse_key(dispatch_key)
    entry = compute_entry(found.name(), found.kernels(), place)
    if entry.kernel is None or entry.kernel.fn is None:
        found.missing(
            "kernel",
            MissingKernelError,
            problem=f"{found.name()} has no kernel at {place} ({entry.reason.value})",
            declared=f"kernels at: {', '.join(map(str, found.kernels())) or 'none'}",
        )
    return KernelHandle(found, place, entry.kernel)


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

    The rule has the operator's signature, gets tensors without data, and returns
    such, made by operators only; for the tags `inplace` and `out` none is needed
    (S146). The operator may be a higher-order one, whose rules no library owns,
    and stay (S177).

    Raises:
        RegistrationError: the operator decomposes, so it needs none.
        DuplicateRegistrationError: it has one, with `allow_override=False` or of higher order.
        UsageError: a library for the rule of a higher-order operator.
    """
    if getattr(op, "namespace", "") == "higher_order":
        if lib is not None:
            raise UsageError(
                "the rules of a higher-order operator belong to it, and to no library",
                op=op, seen=repr(lib), fix="leave lib out",
            )  # fmt: skip
        return load("polyop.hop.rules:register_fake")(op, func)
    warn_needless(found := as_operator(op))
    return _registering(found, "fake", func, lib, allow_override=allow_override)


def register_autograd(
    op: Any,
    backward: Any = MISSING,
    /,
    *,
    setup_context: Rule | None = None,
    lib: Library | None = None,
) -> Any:
    """Register the gradient: `backward(ctx, *grads)`, and what it keeps (S124).

    It acts instead of what was registered at `Autograd` before.

    Args:
        op: the operator, in any form.
        backward: gets one gradient per result, and returns one gradient (or
            None) per argument; None says that results do not require grad;
            without it, the call decorates.
        setup_context: `(ctx, inputs, output)`; keeps in `ctx` what backward needs.
        lib: the library that owns the registration.

    Raises:
        RegistrationError: the operator writes its arguments.
        UsageTypeError: a rule is no function.
    """
    found = as_operator(op)

    def register(fn: Rule | None) -> Rule | None:
        for rule in (fn, setup_context):
            if rule is not None:
                _check_rule(found, "autograd", rule)
        _check_gradient(found, fn)
        source, schema = caller() if fn is None else source_of(fn), found._schema
        called = fn and checked_backward(schema, fn, source)
        setup = setup_context and checked_setup(schema, setup_context, source_of(setup_context))
        _file(found, "backward", AutogradRule(called, setup), source, lib)
        return fn

    return register if backward is MISSING else register(backward)


def _check_gradient(found: OpOverload, backward: Rule | None) -> None:
    """Refuse the gradient of an operator that writes its arguments."""
    if backward is not None and (found._schema.is_mutable or Tag.out in found.tags):
        raise RegistrationError(
            f"{found.name()} writes {', '.join(a.name for a in found._schema.written)}, "
            "so it cannot have a gradient",
            op=found._schema,
            source=kernel_source(found),
            fix="give the gradient to an operator that returns new tensors, and call it from here",
        )


def register_vmap(op: Any, func: Rule | None = None, /, *, lib: Library | None = None) -> Any:
    """Register `func(info, in_dims, *args, **kwargs) -> (output, out_dims)` (S155)."""
    return _registering(op, "vmap", func, lib)


def register_jvp(op: Any, func: Rule | None = None, /, *, lib: Library | None = None) -> Any:
    """Register `jvp(ctx, *tangents)`, run after the same `setup_context` as backward (S132)."""
    return _registering(op, "jvp", func, lib)


def register_autocast(
    op: Any, device_type: str, cast_inputs: Any, /, *, lib: Library | None = None
) -> None:
    """Cast floating arguments to a dtype while autocast is on for a device type (S53).

    Args:
        op: the operator, in any form.
        device_type: `"cpu"`, ...
        cast_inputs: the dtype, or its name.
        lib: the library that owns the registration.

    Raises:
        UsageTypeError: the device type is no string, or `cast_inputs` no floating dtype.
        UsageError: a device type without autocast.
    """
    found = as_operator(op)
    key = autocast_key(device_type)
    dtype = _floating(found, cast_inputs)
    cast = PARTS.autocast_kernel(found, Device(device_type), key, dtype)
    with LOCK:
        _file(found, f"autocast:{device_type}", dtype, caller(), lib)
        _file(found, key, cast, caller(), lib)


def _floating(op: OpOverload, given: Any) -> DType:
    """Read the dtype that floating arguments are cast to; another kind would change values."""
    dtype = None if given is None else as_dtype(given)
    if dtype is None or not (dtype.kind == "f" or "float" in dtype.name):
        raise UsageTypeError(
            "autocast casts floating arguments, so it needs a floating dtype",
            op=op._schema,
            argument="cast_inputs",
            seen=f"{given!r:.80}",
            source=op.source,
            fix='give one, such as "float16"',
        )
    return dtype


def autocast_key(device_type: Any) -> DispatchKey:
    """Give the autocast key of a device type."""
    if not isinstance(device_type, str):
        raise UsageTypeError("a device type is a string", seen=repr(device_type), fix='write "cpu"')
    key = autocast_key_for(key_for_device(device_type))
    if key is None:
        raise UsageError(f"the device type {device_type!r} has no autocast")
    return key


def register_dispatch(
    op: Any, cls: type, func: Rule | None = None, /, *, lib: Library | None = None
) -> Any:
    """Register the rule of one operator for a Tensor subclass or a mode (S54)."""
    found = as_operator(op)
    if not isinstance(cls, type) or not acts(cls):
        raise UsageTypeError(
            "a dispatch rule is for a Tensor subclass or for a mode's class",
            op=found._schema,
            seen=f"{cls!r:.80}",
            source=found.source,
            fix="give the class of those that the rule is for",
        )
    slot = make_slot(cls)

    def register(fn: Rule) -> Rule:
        _check_rule(found, "dispatch", fn)
        _file(found, slot, fn, source_of(fn), lib)
        return fn

    return register if func is None else register(func)


def register_samples(op: Any, func: Any = None, /, *, lib: Library | None = None) -> Any:
    """Register sample inputs for the laws: a function, or a list of argument lists.

    Raises:
        UsageTypeError: neither is given.
    """
    found = as_operator(op)

    def register(samples: Any) -> Any:
        source = source_of(samples) if callable(samples) else caller()
        if not callable(samples):
            check_samples(found, samples, source)
        # A list, because an iterator gives its items once.
        _file(found, "samples", samples if callable(samples) else list(samples), source, lib)
        return samples

    return register if func is None else register(func)


def check_samples(op: OpOverload, samples: Any, source: Any) -> None:
    """Refuse what is no list of argument lists.

    Raises:
        UsageTypeError: so it is.
    """
    single = isinstance(samples, (str, bytes, Mapping, PARTS.Tensor))
    if single or not isinstance(samples, Iterable):
        raise UsageTypeError(
            f"the samples of {op.name()} are no list of argument lists",
            op=op._schema,
            declared="a list of argument lists, or a function that gives one",
            seen=type(samples).__name__,
            source=source,
            fix="write [(x,), (y,)], with the arguments of a call in each",
        )

"""`custom_op`: an operator from a function, its schema read from the annotations (S43 to S45)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from polyop.dispatch import rules
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import check_qualname, kernel_keys, ordered_tags
from polyop.dispatch.operator import LOCK, OpOverload
from polyop.dispatch.registry import (
    DEFINITIONS,
    define,
    disown,
    places_of,
    put,

)
from polyop.dispatch.table import Kernel
from polyop.errors import DuplicateRegistrationError, PolyopWarning, UsageError, UsageTypeError
from polyop.schema.infer import check_written, infer
from polyop.schema.model import FunctionSchema
from polyop.schema.parse import parse_schema
from polyop.schema.tags import Tag, check_tags
from polyop.source import Source, caller, source_of
from polyop.warn import warn_once

Fn = Callable[..., Any]


class CustomOpDef:
    """An operator made of a function: call it, and register its rules.

    It keeps the function's name, docstring and signature.
    """

    def __init__(self, op: OpOverload, fn: Fn) -> None:
        self._opoverload = op
        self._init_fn = fn
        self.__wrapped__ = fn
        for name in ("__name__", "__doc__", "__module__", "__qualname__"):
            if hasattr(fn, name):
                setattr(self, name, getattr(fn, name))

    @property
    def _qualname(self) -> str:
        return self._opoverload._schema.qualified_name

    @property
    def _schema(self) -> FunctionSchema:
        return self._opoverload._schema

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags, `pt2_compliant_tag` first."""
        return self._opoverload.tags

    @property
    def functional(self) -> Any:
        """The functional twin of an operator that writes (S174)."""
        return self._opoverload.functional

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    def __reduce__(self) -> Any:
        return (_find, (self._qualname,))

    def __copy__(self) -> CustomOpDef:
        return self

    def __deepcopy__(self, memo: Any) -> CustomOpDef:
        return self

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # From the second call on, the entry itself is this object's `__call__`.
        entry = self._opoverload.entry
        call = {"__call__": staticmethod(entry), "__module__": CustomOpDef.__module__}
        self.__class__ = type("CustomOpDef", (CustomOpDef,), call)
        return entry(*args, **kwargs)

    # -- rules ----------------------------------------------------------------

    def register_kernel(self, device_types: Any, fn: Fn | None = None, /) -> Any:
        """Register a kernel for device types; see `polyop.library.register_kernel`."""
        return rules.register_kernel(self._opoverload, device_types, fn)

    def register_fake(self, fn: Fn | None = None, /) -> Any:
        """Register the fake rule; see `polyop.library.register_fake`."""
        return rules.register_fake(self._opoverload, fn)

    def register_autograd(
        self, backward: Fn | None, /, *, setup_context: Fn | None = None
    ) -> None:
        """Register the gradient; see `polyop.library.register_autograd`."""
        rules.register_autograd(self._opoverload, backward, setup_context=setup_context)

    def register_vmap(self, fn: Fn | None = None, /) -> Any:
        """Register the batching rule; see `polyop.library.register_vmap`."""
        return rules.register_vmap(self._opoverload, fn)

    def register_jvp(self, fn: Fn | None = None, /) -> Any:
        """Register the forward derivative; see `polyop.library.register_jvp`."""
        return rules.register_jvp(self._opoverload, fn)

    def register_autocast(self, device_type: str, cast_inputs: Any, /) -> None:
        """Register the autocast rule; see `polyop.library.register_autocast`."""
        rules.register_autocast(self._opoverload, device_type, cast_inputs)

    def register_dispatch(self, cls: type, fn: Fn | None = None, /) -> Any:
        """Register the rule for a class; see `polyop.library.register_dispatch`."""
        return rules.register_dispatch(self._opoverload, cls, fn)

    register_torch_dispatch = register_dispatch

    def samples(self, fn: Any = None, /) -> Any:
        """Register sample inputs for `polyop check`: a function that gives argument lists."""
        return rules.register_samples(self._opoverload, fn)


def custom_op(
    name: str,
    fn: Fn | None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: Any = None,
    schema: str | None = None,
    tags: Any = None,
    version: int = 1,
    replace: bool = False,
) -> Any:
    """Make an operator of a function that frameworks cannot see through.

    Args:
        name: `"namespace::name"`, or with `.overload`.
        fn: the function, a kernel on tensors; without it, the call decorates.
        mutates_args: the names of the arguments that it writes, or `"unknown"`.
        device_types: the devices that it is for; None makes it the default.
        schema: the schema, if it is not to be read from the annotations.
        tags: facts that other parts may read.
        version: of the operator; versions live side by side.
        replace: whether another schema may take the place of this name.

    Returns:
        A `CustomOpDef`.

    Raises:
        UsageError: the name has another form, or a device type is unknown.
        InferenceError: the annotations give no schema.
        DuplicateRegistrationError: the name has another schema, from another module.

    Example:
        >>> import numpy as np, polyop
        >>> @polyop.custom_op("doc_custom::sin", mutates_args=())
        ... def sin(x: polyop.Tensor) -> polyop.Tensor:
        ...     return polyop.from_numpy(np.sin(x.numpy()))
        >>> sin(polyop.zeros(2))
        tensor([0., 0.])
    """
    check_qualname(name)
    source = caller()

    def make(function: Fn) -> CustomOpDef:
        if not callable(function):
            raise UsageTypeError("an operator is made of a function", op=name, seen=repr(function))
        plan = _read(name, function, mutates_args, schema, ordered_tags(tags), version)
        op = _define(*plan, source, function, replace=replace)
        _put_kernel(op, function, device_types)
        return CustomOpDef(op, function)

    return make if fn is None else make(fn)


def _read(
    name: str,
    fn: Fn,
    mutates_args: Any,
    text: str | None,
    tags: tuple[Tag, ...],
    version: int,
) -> tuple[FunctionSchema, tuple[Tag, ...]]:
    """Read schema and tags; nothing is changed yet."""
    full = name if version == 1 or "@" in name else f"{name}@{version}"
    if text is None:
        schema = infer(fn, mutates_args=mutates_args, name=full, tags=tags)
    else:
        schema = parse_schema(full + text)
        check_written(schema, mutates_args)
        check_tags(schema, frozenset(tags))
    first = (Tag.pt2_compliant_tag,)
    return schema, first + tuple(t for t in tags if t not in first)


def _define(
    schema: FunctionSchema,
    tags: tuple[Tag, ...],
    source: Source,
    fn: Fn,
    *,
    replace: bool,
) -> OpOverload:
    """Define the operator, or find the one that this definition repeats (S44)."""
    with LOCK:
        name = schema.qualified_name
        owner = places_of(name)
        there = DEFINITIONS.get(name)
        if there is None:
            return define(schema, tags, source, owner)
        if there.op._schema == schema and not replace:
            if all(known is not owner for known, _ in there.owners):
                there.owners.append((owner, source))
            there.op.tags = tags
            return there.op
        if not replace:
            if there.op.source.file != source.file:
                raise DuplicateRegistrationError(
                    f"{name} is defined already, with another schema",
                    op=there.op._schema,
                    declared=there.op._schema,
                    seen=schema,
                    source=f"{there.op.source}; again at {source}",
                    fix="choose another name, or pass replace=True",
                )
            warn_once(
                PolyopWarning,
                f"{name} was defined anew with another schema, at {source}; "
                "handles of the former one raise OperatorGoneError",
                key=(name, str(schema)),
            )
        op = define(schema, tags, source, owner, replace=True)
        DEFINITIONS[name].owners[:] = [(places_of(name), source)]
        return op


def _put_kernel(op: OpOverload, fn: Fn, device_types: Any) -> None:
    name = op._schema.qualified_name
    if device_types is None:
        kernel = Kernel(fn, source_of(fn), places_of(name))
        put(name, DispatchKey.CompositeExplicitAutograd, kernel)
        return
    try:
        kernel_keys(device_types)
        rules.register_kernel(op, device_types, fn)
    except UsageError:
        # Refused after the definition: leave nothing behind.
        from_registry(name)
        raise


def from_registry(name: str) -> None:
    """Take back a definition that has no kernel yet."""
    with LOCK:
        there = DEFINITIONS.get(name)
        if there is not None and not there.op.kernels():
            disown(places_of(name))


def _find(name: str) -> CustomOpDef:
    """Find an operator again, for pickles."""
    op = DEFINITIONS[name].op if name in DEFINITIONS else rules.as_operator(name)
    kernel = op.places.top(DispatchKey.CompositeExplicitAutograd) or next(
        iter(op.kernels().values())
    )
    assert kernel.fn is not None
    return CustomOpDef(op, kernel.fn)




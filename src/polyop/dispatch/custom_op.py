"""`custom_op`: an operator from a function, its schema read from the annotations (S43 to S45)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from polyop.dispatch import rules
from polyop.dispatch.absent import found_or_absent
from polyop.dispatch.keys import DispatchKey, key_for_device
from polyop.dispatch.late_operators import bring
from polyop.dispatch.library import check_function, check_namespace, ordered_tags
from polyop.dispatch.library_functions import (
    check_device_argument,
    kernel_keys,
    schema_after,
)
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.own_call import first_call
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import (
    DEFINITIONS,
    PLACES,
    check_qualname,
    define,
    find_operator,
    join,
    places_of,
    put_kernel,
    split_name,
)
from polyop.dispatch.switch import KernelSwitch
from polyop.dispatch.table import Kernel, Places
from polyop.dispatch.told import Told
from polyop.errors import DuplicateRegistrationError, PolyopWarning, UsageError
from polyop.lazy import load
from polyop.records import NamedTuple
from polyop.schema.infer import check_written, infer, open_signature
from polyop.schema.model import MISSING, FunctionSchema
from polyop.schema.tags import Tag, check_tags
from polyop.source import Source, caller, source_of
from polyop.warn import warn_once

Fn = Callable[..., Any]


class CustomOpDef(Told):
    """An operator made of a function: call it, and register its rules.

    It keeps the function's name, docstring and signature.
    """

    def __init__(self, op: OpOverload, fn: Fn) -> None:
        self._opoverload = op
        self._init_fn = fn
        self.__wrapped__ = fn
        said = _called(fn)
        self.__doc__ = getattr(said, "__doc__", None)
        self.__name__ = getattr(said, "__name__", op.__name__)
        self.__qualname__ = getattr(said, "__qualname__", op.__qualname__)
        self.__module__ = getattr(said, "__module__", op.__module__)
        if said is not fn:
            self.__signature__ = open_signature(fn)

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
        return (_find, (self._qualname, self.__module__))

    def __copy__(self) -> CustomOpDef:
        return self

    def __deepcopy__(self, memo: Any) -> CustomOpDef:
        return self

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the operator."""
        # From the second call on, the entry itself is this object's `__call__`.
        return first_call(self, CustomOpDef, self._opoverload)(*args, **kwargs)

    # -- rules ----------------------------------------------------------------

    def register_kernel(
        self, device_types: Any, fn: Fn | None = None, /, *, library: str | None = None
    ) -> Any:
        """Register a kernel for device types; see `polyop.library.register_kernel`."""
        return rules.register_kernel(self._opoverload, device_types, fn, library=library)

    def register_fake(self, fn: Fn | None = None, /) -> Any:
        """Register the fake rule; see `polyop.library.register_fake`."""
        return rules.register_fake(self._opoverload, fn)

    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> KernelSwitch:
        """Switch the kernel of a device type off or on, at once (S52).

        Calls for that device use the default kernel while it is off. As a
        context manager, the former state comes back at the end of the block.
        """
        switch = KernelSwitch(self._opoverload, key_for_device(device_type))
        switch.set(enabled)
        return switch

    def register_autograd(
        self, backward: Any = MISSING, /, *, setup_context: Fn | None = None
    ) -> Any:
        """Register the gradient; see `polyop.library.register_autograd`."""
        return rules.register_autograd(self._opoverload, backward, setup_context=setup_context)

    def register_vmap(self, func: Fn | None = None) -> Any:
        """Register the batching rule; see `polyop.library.register_vmap`."""
        return rules.register_vmap(self._opoverload, func)

    def register_jvp(self, fn: Fn | None = None, /) -> Any:
        """Register the forward derivative; see `polyop.library.register_jvp`."""
        return rules.register_jvp(self._opoverload, fn)

    def register_decomposition(self, fn: Fn | None = None, /) -> Any:
        """Register what it is made of; see `polyop.library.register_decomposition`."""
        register = load("polyop.dispatch.decompositions:register_decomposition")(self._opoverload)
        return register if fn is None else register(fn)

    def register_autocast(self, device_type: str, cast_inputs: Any) -> None:
        """Register the autocast rule; see `polyop.library.register_autocast`."""
        rules.register_autocast(self._opoverload, device_type, cast_inputs)

    def register_dispatch(self, cls: type, fn: Fn | None = None, /) -> Any:
        """Register the rule for a class; see `polyop.library.register_dispatch`."""
        return rules.register_dispatch(self._opoverload, cls, fn)

    register_torch_dispatch = register_dispatch

    def register_index(self, signature: str, /) -> None:
        """Say which axes meet; see `polyop.library.register_index`."""
        load("polyop.dispatch.index_signature:register_index")(self._opoverload, signature)

    def register_chunks(self, *rule: Any) -> Any:
        """Say how calls may be cut; see `polyop.library.register_chunks`."""
        return load("polyop.dispatch.chunk_rule:register_chunks")(self._opoverload, *rule)

    def register_effect(self, effect: Any) -> None:
        """Register the effect; see `polyop.library.register_effect`."""
        load("polyop.objects.effects:register_effect")(self._opoverload, effect)

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
    index: str | None = None,
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
        index: which axes meet, such as `"(m,n),(n,k)->(m,k)"`; see `register_index`.

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
    check_namespace(name.partition("::")[0], "FRAGMENT")
    _check_version(name, version)
    keys = kernel_keys(device_types)
    asked = Asked(
        name, mutates_args, device_types, schema, tags, version, replace, index, keys, caller()
    )
    return partial(_make, asked) if fn is None else _make(asked, fn)


def _called(fn: Fn) -> Fn:
    """Give the function that a partial calls, whose name, text and module speak for it."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


class Asked(NamedTuple):
    """What `custom_op` was asked for, the keys of the devices, and where."""

    name: str
    mutates_args: str | Iterable[str]
    device_types: Any
    schema: str | None
    tags: Any
    version: int
    replace: bool
    axes: str | None
    keys: list[DispatchKey]
    source: Source


def _make(asked: Asked, fn: Fn) -> CustomOpDef:
    """Make the operator of a function; what may be refused is looked at before."""
    check_function(fn, asked.name)
    schema, tags = _read(asked, fn)
    check_device_argument(schema, asked.device_types, asked.source)
    if asked.axes is not None:
        load("polyop.dispatch.index_text:read_index")(schema, asked.source, asked.axes)
    bring(schema.name)
    with LOCK:
        op = _define(schema, tags, asked, fn)
        put_kernel(op, asked.keys, Kernel(fn, source_of(fn), op.places, makes_op=True))
        if asked.axes is not None:
            load("polyop.dispatch.index_signature:register_index")(op, asked.axes)
    PARTS.defined(op)
    return CustomOpDef(op, fn)


def _check_version(name: str, version: Any) -> None:
    if version.__class__ is int and version == 1 and "@" not in name:
        return
    said = split_name(name)[2]
    if type(version) is not int or version < 1 or (said and version not in {1, said}):
        raise UsageError(
            "a version is a positive integer, said once",
            op=name,
            seen=f"version={version!r}",
            fix='write custom_op("ns::name", version=2), or "ns::name@2"',
        )


def _read(asked: Asked, fn: Fn) -> tuple[FunctionSchema, tuple[Tag, ...]]:
    """Read schema and tags; nothing is changed yet."""
    name, mutates_args, version = asked.name, asked.mutates_args, asked.version
    tags = ordered_tags(asked.tags)
    base, overload, said = split_name(name)
    full = name if version == 1 or said else f"{name}@{version}"
    if asked.schema is None:
        parsed = (base, overload, said or version)
        schema = infer(fn, mutates_args=mutates_args, name=full, tags=tags, parsed=parsed)
    else:
        schema = schema_after(full, asked.schema)
        check_written(schema, mutates_args)
        check_tags(schema, frozenset(tags))
    first = (Tag.pt2_compliant_tag,)
    return schema, first + tuple(t for t in tags if t not in first)


def _define(schema: FunctionSchema, tags: tuple[Tag, ...], asked: Asked, fn: Fn) -> OpOverload:
    """Define the operator, or find the one that this definition repeats (S44)."""
    name, module = schema.qualified_name, getattr(_called(fn), "__module__", "") or ""
    source, replace = asked.source, asked.replace
    there = DEFINITIONS.get(name)
    if there is not None and there.op.is_builtin and not replace:
        raise DuplicateRegistrationError(
            f"{name} is an operator of polyop's own",
            op=there.op._schema,
            source=f"{there.op.source}; again at {source}",
            fix="choose a namespace of your own, or give it a kernel: register_kernel",
        )
    repeats = there is not None and there.op._schema == schema and not replace
    # One that starts anew has none of the rules that are there.
    rules_there = PLACES.get(name) if there is None or repeats else None
    (rules_there or Places(name)).check(asked.keys, source)
    if there is not None and repeats:
        DEFINITIONS[name] = there._replace(module=module)
        there.op.source = source
        return join(there, places_of(name), source, tags)
    if there is not None and not replace:
        _check_same_module(there.op, there.module, schema, source=source, fn=fn)
    return define(schema, tags, source, None, replace=True, module=module)


def _check_same_module(
    op: OpOverload, module: str, schema: FunctionSchema, *, source: Source, fn: Fn
) -> None:
    """Let a module define its own operator anew, with a warning; refuse another's."""
    name = schema.qualified_name
    if not module or module != getattr(_called(fn), "__module__", ""):
        raise DuplicateRegistrationError(
            f"{name} is defined already, with another schema",
            op=op._schema,
            declared=op._schema,
            seen=schema,
            source=f"{op.source}; again at {source}",
            fix="choose another name, or pass replace=True",
        )
    warn_once(
        PolyopWarning,
        f"{name} was defined anew with another schema, at {source}; "
        "handles of the former one raise OperatorGoneError",
        key=(name, str(schema)),
    )


def _find(name: str, module: str = "") -> Any:
    """Find an operator again, for pickles."""
    return found_or_absent(_find, _find_here, (name,), module)


def _find_here(name: str) -> CustomOpDef:
    base, overload, version = split_name(name)
    op = find_operator(base, overload, version or 1)
    kernel = op.places.top(DispatchKey.CompositeExplicitAutograd)
    fn = kernel.fn if kernel else next((k.fn for k in op.kernels().values()), None)
    return CustomOpDef(op, op if fn is None else fn)

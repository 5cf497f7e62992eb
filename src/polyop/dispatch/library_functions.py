"""`define` and `impl`: what a library does, as functions, for code that keeps no library (S42)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from polyop.devices import DEVICE_TYPES, Device
from polyop.dispatch.factories import device_position
from polyop.dispatch.keys import DispatchKey, key_for_device, parse_key
from polyop.dispatch.late_operators import bring
from polyop.dispatch.library import (
    Library,
    check_function,
    check_library,
    check_namespace,
    kernel_of,
    ordered_tags,
    owner_of,
)
from polyop.dispatch.lock import LOCK
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import DEFINITIONS, as_operator, check_qualname, full_name, put_all
from polyop.dispatch.registry import define as define_schema
from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.schema.model import FunctionSchema
from polyop.schema.parse import parse_definition
from polyop.schema.tags import check_tags
from polyop.schema.types import leaf_kind
from polyop.source import caller


def define(
    qualname: Any,
    schema: Any,
    *,
    lib: Library | None = None,
    tags: Any = (),
    replace: bool = False,
) -> str | None:
    """Define an operator `ns::name[.overload]` with a schema that begins with `(` (S42).

    Raises:
        UsageError: the name or the schema has another form.
        SchemaSyntaxError: the text is no schema.
        DuplicateRegistrationError: the name has another schema.
    """
    if isinstance(qualname, Library):
        return qualname.define(schema, tags=tags)
    check_qualname(qualname)
    check_namespace(qualname.partition("::")[0], "FRAGMENT")
    parsed = schema_after(qualname, schema)
    if lib is not None:
        check_library(lib)._check_defines(qualname.partition("::")[0], schema)
    checked = ordered_tags(tags)
    check_tags(parsed, frozenset(checked))
    bring(parsed.name)
    with LOCK:
        owner = owner_of(lib, parsed.qualified_name)
        op = define_schema(parsed, checked, caller(), owner, replace=replace)
    PARTS.defined(op)
    return None


def schema_after(name: str, text: Any) -> FunctionSchema:
    """Read a schema that begins with `(`, after the operator's name."""
    if not isinstance(text, str):
        fix = 'write "(Tensor x) -> Tensor"'
        raise UsageTypeError("a schema is text", op=name, seen=f"{text!r:.80}", fix=fix)
    if not text.lstrip().startswith("("):
        raise UsageError(
            "the schema begins with '(' here, because the name is given apart",
            op=name,
            seen=repr(text),
            fix=f'give {name!r} the schema "(Tensor x) -> Tensor"',
        )
    return parse_definition(name + text)


def impl(
    qualname: Any,
    types: Any,
    func: Callable[..., Any] | None = None,
    *,
    lib: Library | None = None,
) -> Any:
    """Register a kernel for device types, `"default"`, or keys (S42); decorates without `func`.

    Raises:
        UsageError: an unknown device type or key, or one device for an operator without tensors
            and without an argument `device`.
    """
    if isinstance(qualname, Library):
        library, key = qualname, "" if func is None else func
        if not isinstance(key, (str, DispatchKey)):
            raise UsageTypeError(
                "after a library and a name comes the key, and what comes back decorates",
                op=types,
                seen=f"{func!r:.80}",
                fix="write lib.impl(name, fn, key), or impl(lib, name, key)(fn)",
            )

        def register_in(fn: Callable[..., Any]) -> Callable[..., Any]:
            library.impl(types, fn, key)
            return fn

        return register_in
    if isinstance(qualname, str):
        check_qualname(qualname)
        name = full_name(qualname)
        bring(name)
    else:
        name = as_operator(qualname)._schema.qualified_name
    if lib is not None:
        check_library(lib)._full_name(name)
    given = list(types) if isinstance(types, Iterator) else types  # asked for more than once
    keys, devices = kernel_keys(given), _device_types(given)

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        check_function(fn, name)
        with LOCK:
            there = DEFINITIONS.get(name)
            if there is not None:
                check_device_argument(there.op._schema, devices, there.op.source)
            put_all(name, keys, kernel_of(fn, owner_of(lib, name)))
        return fn

    return register if func is None else register(func)


def check_device_argument(schema: FunctionSchema, device_types: Any, source: object) -> None:
    """Refuse kernels for devices where no argument could say which device a call is for (S51)."""
    if device_types is None or any(leaf_kind(a.type) != "static" for a in schema.arguments):
        return
    if device_position(schema) is None:
        raise UsageError(
            f"{schema.qualified_name} has no Tensor argument, so a kernel for one device needs "
            "an argument that says which device a call is for",
            op=schema,
            seen=f"device_types={device_types!r}",
            source=source,
            fix="add an argument device: polyop.device, or leave device_types out",
        )


def kernel_keys(types: Any) -> list[DispatchKey]:
    """Give the keys that device types, `"default"` or key names stand for."""
    if types is None:
        return [DispatchKey.CompositeExplicitAutograd]
    if not isinstance(types, (str, DispatchKey, Device, Iterable)):
        raise UsageTypeError("device types are strings", seen=repr(types), fix='write "cpu"')
    keys = [_kernel_key(name) for name in _names(types)]
    if not keys:
        raise UsageError(
            "no device type is given, so the kernel would serve nothing",
            seen=repr(types),
            fix='write "cpu", or None for every device',
        )
    return keys


def _names(types: Any) -> Iterable[Any]:
    return [types] if isinstance(types, (str, DispatchKey, Device)) else types


def _device_types(types: Any) -> list[str] | None:
    """List those that name a device which calls run on, or None; kernels for `meta` are fakes."""
    names = () if types is None else _names(types)
    others = {*DispatchKey.__members__, "default", "meta"}
    devices = [str(name) for name in names if not isinstance(name, DispatchKey)]
    return [name for name in devices if name not in others] or None


def _kernel_key(name: Any) -> DispatchKey:
    if isinstance(name, DispatchKey):
        return name
    if isinstance(name, Device):
        return key_for_device(name)
    if name == "default":
        return DispatchKey.CompositeExplicitAutograd
    for read in (key_for_device, parse_key):
        try:
            return read(name)
        except UsageError:
            continue
    raise UsageError(
        f"{name!r} is neither a device type nor a dispatch key{nearest(name, DEVICE_TYPES)}",
        declared=", ".join(DEVICE_TYPES),
        fix='write "cpu", or None for every device',
    )

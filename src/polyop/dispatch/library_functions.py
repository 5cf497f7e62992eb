"""`define` and `impl`: what a library does, as functions, for code that keeps no library (S42)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from polyop.devices import DEVICE_TYPES, Device
from polyop.dispatch.keys import DispatchKey, key_for_device, parse_key
from polyop.dispatch.late_operators import bring
from polyop.dispatch.library import Library, check_function, kernel_of, ordered_tags, owner_of
from polyop.dispatch.lock import LOCK
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import as_operator, full_name, put
from polyop.dispatch.registry import define as define_schema
from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.schema.parse import parse_schema
from polyop.schema.tags import check_tags
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
    if not isinstance(schema, str) or not schema.lstrip().startswith("("):
        raise UsageError(
            "the schema begins with '(' here, because the name stands before it",
            op=qualname,
            seen=repr(schema),
            fix='write define("ns::name", "(Tensor x) -> Tensor")',
        )
    parsed = parse_schema(qualname + schema)
    checked = ordered_tags(tags)
    check_tags(parsed, frozenset(checked))
    bring(parsed.name)
    with LOCK:
        owner = owner_of(lib, parsed.qualified_name)
        op = define_schema(parsed, checked, caller(), owner, replace=replace)
    PARTS.defined(op)
    return None


def check_qualname(name: Any) -> None:
    """Refuse a name that is not like `ns::name[.overload][@version]`."""
    text = name if isinstance(name, str) else ""
    space, found, rest = text.partition("::")
    parts = rest.partition("@")[0].split(".")
    if (
        not found
        or not space.isidentifier()
        or len(parts) > 2
        or not all(map(str.isidentifier, parts))
    ):
        raise UsageError(
            f"{name!r} is no operator name",
            declared="namespace::name, or namespace::name.overload",
            fix='write it like "mylib::crop"',
        )


def impl(
    qualname: Any,
    types: Any,
    func: Callable[..., Any] | None = None,
    *,
    lib: Library | None = None,
) -> Any:
    """Register a kernel for device types, `"default"`, or keys (S42); decorates without `func`.

    Raises:
        UsageError: an unknown device type or key.
    """
    if isinstance(qualname, Library):
        library, key = qualname, func if isinstance(func, (str, DispatchKey)) else ""

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
    keys = kernel_keys(types)

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        check_function(fn, name)
        with LOCK:
            kernel = kernel_of(fn, owner_of(lib, name))
            for key in keys:
                put(name, key, kernel)
        return fn

    return register if func is None else register(func)


def kernel_keys(types: Any) -> list[DispatchKey]:
    """Give the keys that device types, `"default"` or key names stand for."""
    if types is None:
        return [DispatchKey.CompositeExplicitAutograd]
    if not isinstance(types, (str, DispatchKey, Device, Iterable)):
        raise UsageTypeError("device types are strings", seen=repr(types), fix='write "cpu"')
    names = [types] if isinstance(types, (str, DispatchKey, Device)) else types
    return [_kernel_key(name) for name in names]


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

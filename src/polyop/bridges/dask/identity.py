"""What a call is to Dask: calls that mean the same have one token, in every process.

Functions that Dask names by module and name have one token before and after an edit, so a cluster
would give the results of the old kernel for the new one. Here a kernel is its code; and where its
module is a script or a notebook, also what it reads there: other functions, operators, and values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any
from uuid import uuid4

import cloudpickle
from dask.tokenize import normalize_token, tokenize

from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.index_signature import index_of
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Kernel
from polyop.layers.functionalize.twin import mutable_of
from polyop.schema.tags import Tag

#: The script of a process, and what its own processes call it.
SCRIPT = {"__main__": "__main__", "__mp_main__": "__main__"}
#: What is being described: it may lead back to itself.
Within = frozenset[int]
_NOTHING: Within = frozenset()


def goes_by_value(module: str) -> bool:
    """Tell whether no other process could import a module, or should not."""
    return module in SCRIPT or module in cloudpickle.list_registry_pickle_by_value()


def token_parts(op: OpOverload) -> Any:
    """Give what the token of an operator's calls is made of.

    Calls that draw random numbers have each their own.
    """
    if Tag.nondeterministic_seeded in op.tags:
        return uuid4().hex
    return _parts(op) if mutable_of(op) is None else (_parts(mutable_of(op)), str(op._schema))


def digest_of(op: OpOverload) -> str:
    """Give a text that two operators share if schemas, kernels and fake rules are the same."""
    found: str = tokenize(_parts(op))
    return found


def _parts(op: Any, within: Within = _NOTHING) -> Any:
    within = within | {id(op)}
    # The last of a place is the one that acts.
    rules = {
        getattr(place, "name", place): kernel
        for place, kernel in op.places.items()
        if isinstance(place, DispatchKey) or place == "fake"
    }
    index = index_of(op)
    text = "" if index is None else index.text
    return str(op._schema), text, *((n, _of_kernel(rules[n], within)) for n in sorted(rules))


def _of_kernel(kernel: Kernel, within: Within) -> Any:
    """Give what a kernel is: its code, or the file that it was compiled from."""
    if isinstance(kernel.fn, (FunctionType, partial)):
        return of_function(kernel.fn, within)
    try:
        changed = os.stat(kernel.source.file).st_mtime_ns
    except OSError:
        changed = 0
    return type(kernel.fn).__qualname__, str(kernel.source), changed


def of_function(fn: Callable[..., Any] | None, within: Within = _NOTHING) -> Any:
    """Give what a function is: its name, its code, what it closes over, and what it reads."""
    if isinstance(fn, partial):
        return "partial", of_function(fn.func, within), normalize_token((fn.args, fn.keywords))
    if not isinstance(fn, FunctionType):
        return normalize_token(fn)
    within = within | {id(fn)}
    cells = [_cell(cell, within) for cell in fn.__closure__ or ()]
    defaults = normalize_token((fn.__defaults__, fn.__kwdefaults__))
    read = _read(fn, within) if goes_by_value(fn.__module__) else ()
    return _named(fn), _code(fn.__code__), defaults, cells, read


def _named(thing: Any) -> Any:
    return SCRIPT.get(thing.__module__, thing.__module__), thing.__qualname__


def _cell(cell: Any, within: Within) -> Any:
    try:
        return _of_value(cell.cell_contents, within)
    except ValueError:  # not bound yet
        return None


# -- what a function of a script reads ----------------------------------------------------------


def _read(fn: FunctionType, within: Within) -> Any:
    names = sorted(set(_names(fn.__code__)) & fn.__globals__.keys())
    return [(name, _of_value(fn.__globals__[name], within)) for name in names]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_value(value: Any, within: Within) -> Any:
    """Give what a value is; of what a module defines that others import, its name."""
    if isinstance(value, CustomOpDef):
        value = value._opoverload
    if isinstance(value, ModuleType):
        return value.__name__
    if id(value) in within:
        return "itself", getattr(value, "__name__", "")
    if isinstance(value, OpOverload):
        return _parts(value, within) if value.alive else str(value._schema)
    if isinstance(value, FunctionType):
        return of_function(value, within)
    if isinstance(value, type):
        return _of_class(value, within)
    return normalize_token(value) if _is_data(value) else _pickled(value)


def _of_class(cls: type, within: Within) -> Any:
    if not goes_by_value(cls.__module__):
        return _named(cls)
    within = within | {id(cls)}
    members = sorted((n, m) for n, m in vars(cls).items() if isinstance(m, FunctionType))
    return _named(cls), [(name, of_function(member, within)) for name, member in members]


def _is_data(value: Any) -> bool:
    # Of what Dask has no rule for, it would pickle; where that fails, each time is another.
    return type(value).__module__ in {"builtins", "numpy", "ml_dtypes"} or hasattr(
        value, "__dask_tokenize__"
    )


def _pickled(value: Any) -> Any:
    try:
        return cloudpickle.dumps(value)
    except Exception:  # pickling runs what others wrote
        return _named(type(value))


def _code(code: CodeType) -> Any:
    constants = tuple(map(_constant, code.co_consts))
    return code.co_code.hex(), code.co_names, code.co_varnames, constants


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    # The order of a set is another one in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

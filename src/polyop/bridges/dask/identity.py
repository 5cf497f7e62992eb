"""What a call is to Dask: calls that mean the same have one token, in every process.

Functions that Dask names by module and name have one token before and after an edit, so a cluster
would give the results of the old kernel for the new one. Here a kernel is its code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import Any
from uuid import uuid4

from dask.tokenize import normalize_token, tokenize

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Kernel
from polyop.layers.functionalize.twin import mutable_of
from polyop.schema.tags import Tag


def token_parts(op: OpOverload) -> Any:
    """Give what the token of an operator's calls is made of.

    Calls that draw random numbers have each their own.
    """
    if Tag.nondeterministic_seeded in op.tags:
        return uuid4().hex
    return _parts(op) if mutable_of(op) is None else (_parts(mutable_of(op)), str(op._schema))


def digest_of(op: OpOverload) -> str:
    """Give a text that two operators share if their schemas and kernels are the same."""
    found: str = tokenize(_parts(op))
    return found


def _parts(op: Any) -> Any:
    # The last of a place is the one that acts.
    kernels = {place.name: k for place, k in op.places.items() if isinstance(place, DispatchKey)}
    return str(op._schema), *((name, _of_kernel(kernels[name])) for name in sorted(kernels))


def _of_kernel(kernel: Kernel) -> Any:
    """Give what a kernel is: its code, or the file that it was compiled from."""
    if isinstance(kernel.fn, (FunctionType, partial)):
        return of_function(kernel.fn)
    try:
        changed = os.stat(kernel.source.file).st_mtime_ns
    except OSError:
        changed = 0
    return type(kernel.fn).__qualname__, str(kernel.source), changed


def of_function(fn: Callable[..., Any] | None) -> Any:
    """Give what a function is: its name, its code, and what it closes over."""
    if isinstance(fn, partial):
        return "partial", of_function(fn.func), normalize_token((fn.args, fn.keywords))
    if not isinstance(fn, FunctionType):
        return normalize_token(fn)
    cells = [_cell(cell) for cell in fn.__closure__ or ()]
    defaults = normalize_token((fn.__defaults__, fn.__kwdefaults__))
    return fn.__module__, fn.__qualname__, _code(fn.__code__), defaults, cells


def _cell(cell: Any) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # not bound yet
        return None
    if isinstance(value, FunctionType):
        return value.__module__, value.__qualname__, _code(value.__code__)
    return str(value._schema) if isinstance(value, OpOverload) else normalize_token(value)


def _code(code: CodeType) -> Any:
    constants = tuple(map(_constant, code.co_consts))
    return code.co_code.hex(), code.co_names, code.co_varnames, constants


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    # The order of a set is another one in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

"""The names that a function has for the tensors and objects which it closes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from polyop.graph.node import identifier
from polyop.objects.fakes import original_of
from polyop.schema.opaque import is_reference
from polyop.tensor.tensor import Tensor

#: How many objects deep tensors are looked for.
DEEPEST = 4


def tensor_names(f: Callable[..., Any]) -> dict[int, str]:
    """Give a name for each tensor and opaque object that a function reads from outside, by id."""
    found: dict[int, str] = {}
    taken: set[str] = set()
    for name, value in _reads(f):
        for path, tensor in _tensors(name, value, 0):
            key = id(original_of(tensor))  # another export may have its fakes there now
            if key not in found and path not in taken:
                found[key] = path
                taken.add(path)
    return found


def _reads(f: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(f, partial):
        yield from _reads(f.func)
        return
    if isinstance(f, MethodType):
        yield from _attributes(f.__self__)
        f = f.__func__
    elif not isinstance(f, FunctionType):
        yield from _attributes(f)
        return
    if isinstance(f, FunctionType):
        yield from zip(f.__code__.co_freevars, map(_content, f.__closure__ or ()), strict=False)
        scope = f.__globals__
        yield from ((n, scope[n]) for n in f.__code__.co_names if n in scope)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    own = getattr(owner, "__dict__", None)
    if type(own) is dict:
        yield from own.items()


def _tensors(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor) or is_reference(value):
        yield path, value
    elif depth < DEEPEST and not isinstance(value, (ModuleType, type, FunctionType, str, int)):
        parts: Any = _attributes(value)
        if isinstance(value, dict):
            parts = value.items()
        elif isinstance(value, (list, tuple)):
            parts = enumerate(value)
        for name, part in list(parts):
            yield from _tensors(f"{path}.{identifier(f'{name}')}", part, depth + 1)

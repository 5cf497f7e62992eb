"""Tensors that a function uses and does not get, written between a call and its gradient.

A gradient that runs the function again would read what they hold by then. A
trace knows what it met; of a function that runs by itself, looked at is what
its code names: closures, globals, defaults, and attributes of the objects there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from types import CodeType, FunctionType, MemberDescriptorType, MethodType
from typing import Any, NamedTuple

from polyop.errors import AutogradError
from polyop.graph import GraphModule
from polyop.graph.module import tensors_held
from polyop.hop.closures import content_of, globals_of
from polyop.source import PACKAGE, source_of
from polyop.tensor.storage import version_of
from polyop.tensor.tensor import Tensor


class Used(NamedTuple):
    """A tensor that a call used.

    Attributes:
        name: what the function calls it, if that is known.
        tensor: the tensor.
        version: how often it had been written.
    """

    name: str
    tensor: Tensor
    version: int


def used_now(tensors: Iterable[tuple[str, Tensor]]) -> list[Used]:
    """Note how often tensors have been written."""
    return [Used(name, x, version_of(x)) for name, x in tensors]


def refuse_written(op: Any, used: Sequence[Used], fn: Any = None) -> None:
    """Refuse a gradient that would run a function on other values than the call did.

    Raises:
        AutogradError: a tensor that the call used was written since.
    """
    for name, tensor, version in used:
        now = version_of(tensor)
        if now != version:
            called = f"{name!r}, which" if name else "a tensor that"
            raise AutogradError(
                f"{called} the function of {op} uses and does not get, was written after the "
                "call, and the gradient runs the function again",
                op=op,
                argument=name,
                declared=f"version {version} in the call",
                seen=f"version {now}, shape {tuple(tensor.shape)}",
                source="" if fn is None else source_of(fn),
                fix="write to a clone, or after backward",
            )


def named_tensors(fn: Any) -> list[tuple[str, Tensor]]:
    """List the tensors that the code of a function names, and of the methods that it calls."""
    walk = _Walk()
    walk.visit("", fn, frozenset())
    return list(walk.found.values())


class _Walk:
    """What has been found, and what has been visited under which names."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, Tensor]] = {}
        self.seen: set[tuple[int, frozenset[str]]] = set()

    def visit(self, name: str, value: Any, names: frozenset[str]) -> None:
        """Look at a value; `names` are the attributes that the code around it reads."""
        if isinstance(value, Tensor):
            self.found.setdefault(id(value), (name, value))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self.visit(name, value.__self__, attributes_of(value.__func__))
            self.visit(name, value.__func__, names)
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.visit(name, part, names)
        elif isinstance(value, (list, tuple, dict)):
            if self._is_new(value, names):
                for item in value.values() if isinstance(value, dict) else value:
                    if item.__class__ not in _ATOMS:  # of which there may be many
                        self.visit(name, item, names)
        elif _is_program(value):
            for tensor in tensors_held(value):
                self.visit(name, tensor, names)
        elif _is_users(value) and self._is_new(value, names):
            self._object(name, value, names)

    def _is_new(self, value: Any, names: frozenset[str]) -> bool:
        key = id(value), names
        known = key in self.seen
        self.seen.add(key)
        return not known

    def _function(self, fn: FunctionType) -> None:
        if fn.__code__.co_filename.startswith(PACKAGE) or not self._is_new(fn, frozenset()):
            return  # what is written here keeps nothing that changes
        names = attributes_of(fn)
        for free, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            self.visit(free, content_of(cell), names)
        for free in globals_of(fn.__code__):
            value = fn.__globals__.get(free)
            # Functions of other modules are not followed: what is behind them has no end.
            if not isinstance(value, FunctionType) or value.__globals__ is fn.__globals__:
                self.visit(free, value, names)
        for value in (fn.__defaults__, fn.__kwdefaults__):
            self.visit(fn.__name__, value, names)

    def _object(self, name: str, owner: Any, names: frozenset[str]) -> None:
        own = fields_of(owner)
        for key in names & own.keys():
            self.visit(f"{name}.{key}", own[key], names)
        for key in (*names, "__call__"):
            member = getattr(type(owner), key, None)
            if isinstance(member, MemberDescriptorType):
                self.visit(f"{name}.{key}", getattr(owner, key, None), names)
            method = member.fget if isinstance(member, property) else member
            if isinstance(method, FunctionType):
                self.visit(name, owner, attributes_of(method))
                self.visit(name, method, names)


def fields_of(owner: Any) -> dict[str, Any]:
    """Give the attributes that an object has in a dict; its class has no say."""
    try:
        own = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}
    return own if type(own) is dict else {}


def attributes_of(fn: Any) -> frozenset[str]:
    """Name the attributes that the code of a function reads."""
    code = getattr(fn, "__code__", None)
    return frozenset() if code is None else _attributes(code)


@functools.lru_cache(maxsize=4096)
def _attributes(code: CodeType) -> frozenset[str]:
    inner = [_attributes(c) for c in code.co_consts if isinstance(c, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _is_program(value: Any) -> bool:
    """Tell whether a value has a graph, which knows what it reads."""
    owner = type(value)
    ours = f"{owner.__module__}.".startswith("polyop.")
    return ours and (owner is GraphModule or hasattr(owner, "graph_module"))


def _is_users(value: Any) -> bool:
    """Tell whether a value is an object of a class that is not ours."""
    module = type(value).__module__
    return not isinstance(value, type) and not f"{module}.".startswith(_OURS)


_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})
_OURS = ("polyop.", "builtins.", "numpy.")

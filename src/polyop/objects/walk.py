"""Everything that a function may read: its variables, what they hold, and the code behind them.

From the function the walk goes to what its code names, and on: to functions
wherever they are kept, to the methods of objects whose names some code on the
way has, to what containers hold. Of other libraries it sees data that is at
hand, and no code. What is too long to be looked at, or tells nobody its state,
is named, and the function then runs as it is.
"""

from __future__ import annotations

import builtins
import io
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from enum import Enum
from functools import cached_property, lru_cache, partial, partialmethod
from types import (
    BuiltinMethodType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, TypeAlias
from weakref import ref

import numpy as np

from polyop.dispatch.parts import PARTS
from polyop.objects.guards import guards_of
from polyop.objects.held import Held, held, is_short, kind_of
from polyop.objects.names import is_users, named
from polyop.objects.own_fields import own_fields
from polyop.objects.reads import (
    GONE,
    Cache,
    Code,
    Fields,
    Kept,
    Lookup,
    Names,
    Read,
    Unseen,
    Variable,
    kept,
    member_of,
    read,
)
from polyop.objects.state import State
from polyop.schema.opaque import is_input
from polyop.tensor.tensor import Tensor

One: TypeAlias = Read | Held | Kept | Names | Code | Lookup | Cache | Unseen | State
#: The most reads that are looked at.
MOST = 20_000
#: How far the walk goes into objects of other libraries, and the longest container there.
DEEPEST = 4
LONGEST_THERE = 100
_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), type(...)})
_OPEN = (SimpleNamespace,)
_CACHE = type(lru_cache(len))
#: Words for attributes whose names are made at run time.
_DYNAMIC = frozenset({"getattr", "attrgetter", "methodcaller", "vars", "dir", "__dict__"})
#: What changes with each use, and does not show it.
_SILENT = (random.Random, np.random.Generator, np.random.RandomState, io.IOBase)


class Walk:
    """What has been found, and where to go on.

    Args:
        root: the top package of the function, which counts as the user's.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.found: dict[tuple[int, type, str], One] = {}
        self.waiting: list[tuple[Any, int, str]] = []
        self.seen: dict[int, Any] = {}
        self.names: set[str] = set()
        self.classes: dict[type, None] = {}
        self.modules: dict[int, ModuleType] = {}
        #: What tells nobody its state; that matters where code names it.
        self.silent: list[tuple[str, Any]] = []

    def run(self, start: Any) -> tuple[One, ...]:
        """Walk from some values."""
        self.waiting += [(value, DEEPEST, "") for value in reversed(start)]
        known = -1
        while self.waiting or known != len(self.names):
            known = len(self.names)
            while self.waiting and len(self.found) < MOST:
                self._visit(*self.waiting.pop())
            if len(self.found) >= MOST:
                self._unseen("", f"more than {MOST} values")
                break
            self._look_up()
        for name, value in self.silent:
            if name in self.names:
                self._unseen(name, f"of type {type(value).__name__}")
        return tuple(self.found.values())

    def _add(self, one: One) -> None:
        self.found.setdefault((id(one.scope), one.__class__, one.name), one)

    def _unseen(self, name: str, what: str) -> None:
        self._add(Unseen(self, name, what))

    def _later(self, value: Any, left: int, name: str = "") -> None:
        if value.__class__ not in _ATOMS and id(value) not in self.seen:
            self.waiting.append((value, left, name))

    def _read(self, scope: Any, name: str, left: int = DEEPEST) -> None:
        one = read(scope, name)
        self._add(one)
        if isinstance(one.value, Tensor):
            self.seen[id(one.value)] = one.value
        self._later(one.value, left, name)

    def _is_silent(self, value: Any) -> bool:
        """Tell whether an object changes with each use, and does not show it."""
        cls = type(value)
        if isinstance(value, _SILENT) or hasattr(cls, "__next__"):
            return isinstance(value, _SILENT) or not is_users(cls.__module__, self.root)
        return PARTS.is_array(value) and not cls.__module__.startswith("jax")  # which never change

    # -- values ---------------------------------------------------------------

    def _visit(self, value: Any, left: int, name: str) -> None:
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, ModuleType):
            self.modules[id(value)] = value
        elif isinstance(value, Tensor):
            self._add(kept(value))
        else:
            parts = _parts(value)
            for part in parts:
                self._later(part, left)
            if kind_of(value) is not None or isinstance(value, tuple):
                self._container(value, left, name)
            elif self._is_silent(value):
                self.silent.append((name, value))
            elif isinstance(value, ContextVar):
                self._read(Variable(value), "")
            elif isinstance(value, _CACHE):
                self._add(Cache(value, value.cache_info().misses))
            if not parts:
                self._object(value, left)

    def _container(self, value: Any, left: int, name: str) -> None:
        if not isinstance(value, tuple):
            try:
                if left < DEEPEST and not is_short(value, LONGEST_THERE):
                    self.silent.append((name, value))
                    return
                one = held(value, name) if is_short(value) else None
            except Exception:  # such as a memoryview that was released
                self.silent.append((name, value))
                return
            if one is None:
                self._unseen(name, f"a {type(value).__name__} that is too long to be looked at")
                return
            self._add(one)
            self._items(one, left)
            if isinstance(value, defaultdict):
                self._read(Fields(value), "default_factory")
            return
        for item in value:
            self._later(item, left, name)

    def _items(self, one: Held, left: int) -> None:
        """Go on to what a container holds."""
        if not isinstance(one.content, tuple):
            return
        names = [key if isinstance(key, str) else one.name for key in one.keys or ()]
        for key in one.keys or ():
            self._later(key, left)
        for name, item in zip(names or [one.name] * len(one.content), one.content, strict=True):
            self._later(item, left, name)

    def _function(self, fn: FunctionType) -> None:
        if fn.__code__.co_filename.startswith("<polyop "):
            return  # what is written here looks after itself
        found = named(fn.__code__)
        own = is_users(fn.__module__, self.root)
        for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=False):
            self._read(cell, name)
        if not own:  # it holds a user's function at most
            self._later(getattr(fn, "__wrapped__", None), DEEPEST)
            return
        self.names |= found.names.union(fn.__code__.co_freevars)
        space = fn.__globals__
        for name in found.variables:
            if name in space or not hasattr(builtins, name):
                self._read(space, name)
            elif name in {"eval", "exec"}:
                self._unseen(name, "code that is only known when it runs")
        for name in found.names & sys.modules.keys():
            self._later(sys.modules[name], DEEPEST)
        more = bool(fn.__dict__)
        self._add(Code(fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__, more))
        self._later(fn.__defaults__, DEEPEST)
        self._later(fn.__kwdefaults__, DEEPEST)
        if more:
            self._later(fn.__dict__, DEEPEST)

    # -- objects --------------------------------------------------------------

    def _class(self, cls: type) -> None:
        for base in (*cls.__mro__, type(cls)):
            if is_users(base.__module__, self.root):
                for field in data_of(base):
                    self._read(Fields(cls), field)
        if not issubclass(cls, Tensor):  # whose code is traced as a layer, and runs no more
            self.classes[cls] = None

    def _object(self, owner: Any, left: int) -> None:
        cls = type(owner)
        users = is_users(cls.__module__, self.root)
        if is_input(owner):
            inner = Walk(self.root)
            inner.seen[id(owner)] = owner
            inner._inside(owner, left)
            while inner.waiting and len(inner.found) < MOST:
                inner._visit(*inner.waiting.pop())
            self._add(State(owner, guards_of(owner), tuple(inner.found.values())))
            return
        if users or isinstance(owner, _OPEN):
            self.classes[cls] = None
            self._inside(owner, DEEPEST)
        elif left > 0 and cls.__module__.partition(".")[0] not in {"polyop", "builtins", "numpy"}:
            self._inside(owner, left - 1)

    def _inside(self, owner: Any, left: int) -> None:
        for scope, name in _fields(owner):
            if read(scope, name).value is not GONE:
                self._read(scope, name, left)
        own = getattr(owner, "__dict__", None)
        if type(own) is not dict:
            return
        ours = own_fields(owner)
        if not ours:
            self._add(Names(own, frozenset(own), owner, type(owner)))
        for name in own.keys() - ours:
            self._read(own, name, left)

    # -- what is reached by a name --------------------------------------------

    def _look_up(self) -> None:
        """Go to the methods, and what modules have, by the names that are known so far."""
        for cls in list(self.classes):
            kind: type = type(cls)
            for base in (*cls.__mro__, *kind.__mro__):
                if base is not type and is_users(base.__module__, self.root):
                    self._members(base)
        for module in list(self.modules.values()):
            self._module(module)

    def _members(self, cls: type) -> None:
        every = not self.names.isdisjoint(_DYNAMIC)
        for name, value in list(vars(cls).items()):
            if not hasattr(type(value), "__get__"):
                continue
            if every or name in self.names or (name[:2] == name[-2:] == "__" and _is_code(value)):
                if (id(cls), Lookup, name) not in self.found:
                    self._add(Lookup(cls, name, member_of(cls, name)))
                self._later(value, DEEPEST, name)

    def _module(self, module: ModuleType) -> None:
        top = module.__name__.partition(".")[0]
        if top == "polyop":
            return
        own = vars(module)
        users = is_users(top, self.root)
        for key in self.names & own.keys():
            value = own[key]
            if users:
                self._read(own, key)
            elif isinstance(getattr(value, "__self__", None), _SILENT):
                self.silent.append((key, value))
            elif isinstance(value, ModuleType):
                if value.__name__ == "numpy.random":
                    self._later(value, 0)
            elif not callable(value) and top != "numpy":
                self._read(own, key, 1)


def _is_code(value: Any) -> bool:
    return isinstance(value, (FunctionType, staticmethod, classmethod, property))


def _parts(value: Any) -> tuple[Any, ...]:
    """Give what a callable or descriptor is made of."""
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, (partial, partialmethod)):
        return value.func, value.args, value.keywords, value.__dict__
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, cached_property):
        return (value.func,)
    if isinstance(value, ref):
        return (value(),)
    if isinstance(value, _CACHE):
        return (value.__wrapped__,)
    own = getattr(type(value), "__module__", "")
    if f"{own}.".startswith("polyop."):  # a compiled function around another
        fn = getattr(value, "__dict__", {}).get("fn")
        return () if fn is None else (fn,)
    bound = getattr(value, "__self__", None) if type(value) in _BOUND else None
    return () if bound is None or isinstance(bound, ModuleType) else (bound,)


_BOUND = (BuiltinMethodType, MethodWrapperType)


def _fields(owner: Any) -> Iterator[tuple[Fields, str]]:
    """List the slots of an object, and the data of its class that it has no own values for."""
    own = getattr(owner, "__dict__", {})
    for cls in type(owner).__mro__:
        slots = [n for n, v in list(vars(cls).items()) if isinstance(v, MemberDescriptorType)]
        yield from ((Fields(owner), name) for name in slots)
        yield from ((Fields(cls), name) for name in data_of(cls) if name not in own)


def data_of(cls: type) -> list[str]:
    """List the names of a class that hold data."""
    if f"{cls.__module__}.".startswith(("polyop.", "builtins.", "numpy.")):
        return []
    ours = {n for base in cls.__mro__ if base.__module__.startswith("polyop.") for n in vars(base)}
    return [
        name
        for name, value in list(vars(cls).items())
        if name[:2] != "__"
        and name not in ours
        and not hasattr(type(value), "__get__")
        and not (name[0] == "_" and issubclass(cls, Enum))
    ]

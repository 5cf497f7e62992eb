"""Everything that a function may read: its variables, what they hold, and the code behind them.

From the function the walk goes to what its code names, and on: to functions
wherever they are kept, to the methods of objects whose names some code on the
way has, to what containers hold. Of other libraries it sees data that is at
hand, and no code. What is too long to be looked at, or tells nobody its state,
is named, and the function then runs as it is.
"""

from __future__ import annotations

import builtins
import sys
from abc import ABCMeta
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from types import FunctionType, MemberDescriptorType, ModuleType, SimpleNamespace
from typing import Any, TypeAlias
from weakref import ProxyTypes, ref

from polyop.objects.guards import guards_of
from polyop.objects.held import Held, held, is_short, kind_of
from polyop.objects.made_of import (
    CACHE,
    NOW,
    SILENT,
    data_of,
    home_of,
    is_code,
    is_decimal,
    is_log,
    is_silent,
    is_told_anew,
    is_users_class,
    others_of,
    parts_of,
)
from polyop.objects.names import is_users, named
from polyop.objects.own_fields import own_fields
from polyop.objects.reads import (
    Absent,
    Cache,
    Code,
    Kept,
    Members,
    Names,
    Read,
    Unseen,
    cache,
    kept,
    members,
    read,
)
from polyop.objects.scopes import ARITHMETIC, GONE, Fields, Kin, Referent, Slot, Variable
from polyop.objects.settings import Asked, is_setting
from polyop.objects.state import State
from polyop.schema.opaque import is_input
from polyop.tensor.tensor import Tensor

One: TypeAlias = Read | Held | Kept | Names | Code | Members | Absent | Cache | Unseen | State
#: The most reads that are looked at.
MOST = 20_000
#: How far the walk goes into objects of other libraries, and the longest container there.
DEEPEST = 4
LONGEST_THERE = 100
_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), type(...)})
_OPEN = (SimpleNamespace,)
#: Words for attributes whose names are made at run time.
_DYNAMIC = frozenset({"getattr", "attrgetter", "methodcaller", "vars", "dir", "__dict__"})
#: What functions and classes tell of themselves, and keep in no dict.
_TOLD = frozenset({"__name__", "__qualname__", "__doc__", "__module__", "__annotations__"})
#: What runs when an object is made, which nobody does of a class that code does not have.
_MAKING = frozenset({"__init__", "__new__", "__post_init__"})
#: The name that code has for a value, or the id of what the value is in.
Called: TypeAlias = str | int


class Walk:
    """What has been found, and where to go on.

    Args:
        root: the top package of the function, which counts as the user's.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.found: dict[tuple[int, type, str], One] = {}
        self.waiting: list[tuple[Any, int]] = []
        self.seen: dict[int, Any] = {}
        self.names: set[str] = set()
        #: Those that code does more with than give an attribute a value.
        self.used: set[str] = set()
        #: By the id of a value, what it is called.
        self.called: dict[Called, dict[Called, None]] = {}
        #: Whether code has the class, and not only objects of it.
        self.classes: dict[type, bool] = {}
        #: By id, functions that run when an object is made, of classes that code does not have.
        self.past: set[int] = set()
        self.modules: dict[int, ModuleType] = {}
        #: What was asked of which class about those that count as its own.
        self.related: dict[type, set[str]] = {}
        #: What tells nobody its state; that matters where code names it.
        self.silent: list[Any] = []
        self.settings = Asked()
        #: By the id of a function or class, what was asked of it.
        self.told: dict[int, set[str]] = {}
        #: The long containers of other libraries.
        self.long: list[Any] = []

    def run(self, start: Any) -> tuple[One, ...]:
        """Walk from some values."""
        for value in reversed(start):
            self._later(value, DEEPEST)
        known = -1
        while self.waiting or known != len(self.names):
            known = len(self.names)
            while self.waiting and len(self.found) < MOST:
                self._visit(*self.waiting.pop())
            if len(self.found) >= MOST:
                self._unseen("", f"more than {MOST} values")
                break
            self._look_up()
        self._judge()
        for one in self.settings.reads(self._names_of):
            self._add(one)
        for module in self.modules.values():
            own = vars(module)
            if is_users(own.get("__name__"), self.root):
                self._add(Absent(own, frozenset(self.names - own.keys())))
        return tuple(self.found.values())

    def _judge(self) -> None:
        """Name what tells nobody its state, where code names it, or may without a word."""
        every = not self.names.isdisjoint(_DYNAMIC)
        for value in self.silent:
            if isinstance(value, type) and NOW.isdisjoint(self.used):
                continue  # a date, which is no clock by itself
            for name in self._names_of(value):
                if every or not name or name in self.used:
                    self._unseen(name, f"of type {type(value).__name__}")
        for value in self.long:
            for own in self.called[id(value)]:
                if own in self.used:
                    self._unseen(str(own), f"of type {type(value).__name__}")

    def _add(self, one: One) -> None:
        self.found.setdefault((id(one.scope), one.__class__, one.name), one)

    def _unseen(self, name: str, what: str) -> None:
        self._add(Unseen(self, name, what))

    def _later(self, value: Any, left: int, name: Called = "") -> None:
        if type(value) in _ATOMS:
            return
        self.called.setdefault(id(value), {})[name] = None
        if id(value) not in self.seen:
            self.waiting.append((value, left))

    def _names_of(self, value: Any) -> Iterator[str]:
        """List what a value is called, and what it is in."""
        waiting: list[Called] = [id(value)]
        for one in waiting:  # which grows
            for name in self.called.get(one, ()):
                if isinstance(name, str):
                    yield name
                elif name not in waiting:
                    waiting.append(name)

    def _read(
        self, scope: Any, name: str, left: int = DEEPEST, called: Called | None = None
    ) -> None:
        one = read(scope, name)
        self._add(one)
        if isinstance(one.value, Tensor):
            self.seen[id(one.value)] = one.value
        self._later(one.value, left, name if called is None else called)

    # -- values ---------------------------------------------------------------

    def _visit(self, value: Any, left: int) -> None:
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if is_decimal(value):
            self._add(read(ARITHMETIC, ""))
        if type(value) in ProxyTypes or is_told_anew(value):  # a proxy may be of nothing more
            self.silent.append(value)
        elif is_setting(value):
            self.settings.values.append(value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif type(value) is ref:
            self._read(Referent(value), "", left, id(value))
        elif isinstance(value, type):
            self._class(value, had=True)
        elif isinstance(value, ModuleType):
            self.modules[id(value)] = value
            self._class(type(value))
        elif isinstance(value, Tensor):
            self._add(kept(value))
        elif kind_of(value) is not None or isinstance(value, tuple):
            self._container(value, left)
            self._object(value, left)
        elif is_silent(value, self.root):
            self.silent.append(value)
        else:
            self._other(value, left)

    def _other(self, value: Any, left: int) -> None:
        parts = parts_of(value)
        for part in parts:
            self._later(part, left, id(value))
        if isinstance(value, ContextVar):
            self._read(Variable(value), "", called=id(value))
        elif isinstance(value, CACHE):
            self._add(cache(value))
        if not parts:
            self._object(value, left)

    def _container(self, value: Any, left: int) -> None:
        if isinstance(value, tuple):
            for item in value:
                self._later(item, left, id(value))
            return
        name = next(self._names_of(value), "")
        try:
            if left < DEEPEST and not is_short(value, LONGEST_THERE):
                self.long.append(value)
                return
            one = held(value, name) if is_short(value) else None
        except Exception:  # such as a memoryview that was released
            self.silent.append(value)
            return
        if one is None:
            self._unseen(name, f"a {type(value).__name__} that is too long to be looked at")
            return
        self._add(one)
        if isinstance(one.content, tuple):
            for item in (*(one.keys or ()), *one.content):
                self._later(item, left, id(value))
        if isinstance(value, defaultdict):
            self._read(Fields(value), "default_factory")

    def _function(self, fn: FunctionType) -> None:
        if fn.__code__.co_filename.startswith("<polyop "):
            return  # what is written here looks after itself
        found = named(fn.__code__)
        space = fn.__globals__
        own = is_users(space.get("__name__"), self.root)
        for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=False):
            self._read(cell, name)
        if not own:  # it holds a user's function at most
            self._later(getattr(fn, "__wrapped__", None), DEEPEST, id(fn))
            return
        self.names |= found.names.union(fn.__code__.co_freevars)
        self.settings.of(found)
        if id(fn) not in self.past:
            self._use(fn)
        for name in found.variables:
            if name in space or not hasattr(builtins, name):
                self._read(space, name)
            elif name in {"eval", "exec"}:
                self._unseen(name, "code that is only known when it runs")
        for name in found.imported(str(space.get("__package__") or "")) & sys.modules.keys():
            self._read(sys.modules, name)
        more = bool(fn.__dict__)
        self._add(Code(fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__, more))
        self._later(fn.__defaults__, DEEPEST)
        self._later(fn.__kwdefaults__, DEEPEST)
        if more:
            self._later(fn.__dict__, DEEPEST)

    def _use(self, fn: FunctionType) -> None:
        found, free = named(fn.__code__), fn.__code__.co_freevars
        self.used |= (found.names - found.stored).union(free)

    # -- objects --------------------------------------------------------------

    def _class(self, cls: type, *, had: bool = False) -> None:
        kind: type = type(cls)
        for base in (*cls.__mro__, *kind.__mro__):
            if is_users_class(base, self.root) and (id(base), Members, "") not in self.found:
                self._add(members(base, others_of(base)))
                for name in data_of(base):
                    self._later(vars(base)[name], DEEPEST, name)
        if not issubclass(cls, Tensor):  # whose code is traced as a layer, and runs no more
            self.classes[cls] = self.classes.get(cls, False) or had

    def _object(self, owner: Any, left: int) -> None:
        cls = type(owner)
        if is_log(owner):
            self._levels(owner)
        elif is_input(owner):
            inner = Walk(self.root)
            inner.seen[id(owner)] = owner
            inner._inside(owner, left)
            while inner.waiting and len(inner.found) < MOST:
                inner._visit(*inner.waiting.pop())
            self._add(State(owner, guards_of(owner), tuple(inner.found.values())))
        elif is_users_class(cls, self.root) or isinstance(owner, _OPEN):
            self._class(cls)
            self._inside(owner, DEEPEST)
        elif left > 0 and home_of(cls).partition(".")[0] not in {"polyop", "builtins", "numpy"}:
            self._inside(owner, left - 1, id(owner))

    def _levels(self, log: Any) -> None:
        """Read what a log answers: whether it takes a record."""
        while log is not None:
            for name in vars(log).keys() & {"level", "disabled"}:
                self._read(vars(log), name)
            log = getattr(log, "parent", None)

    def _inside(self, owner: Any, left: int, called: Called | None = None) -> None:
        """Go on to what an object has; code names that, unless it is a library's."""
        own = getattr(owner, "__dict__", None)
        for cls in type(owner).__mro__:
            users = is_users_class(cls, self.root)
            for name, value in list(vars(cls).items()):
                if isinstance(value, MemberDescriptorType):
                    slot = Slot(owner, value)
                    if users or slot.get(name, GONE) is not GONE:  # a library fills its own late
                        self._read(slot, name, left, called)
            if not users:
                for name in data_of(cls):
                    if name not in (own or ()):
                        self._read(Fields(cls), name, left, called)
        if own is None and is_users_class(type(owner), self.root):
            self._read(Fields(owner), "__class__")
        if type(own) is not dict or own is not owner.__dict__:
            return
        ours = own_fields(owner)
        if not ours:
            self._add(Names(own, frozenset(own), owner, type(owner)))
        for name in own.keys() - ours:
            self._read(own, name, left, called)

    # -- what is reached by a name --------------------------------------------

    def _look_up(self) -> None:
        """Go to the methods, and what modules have, by the names that are known so far."""
        for one in [one for one in self.found.values() if isinstance(one, (Code, Members))]:
            for name in _TOLD & self.names - self.told.get(id(one.scope), set()):
                self.told.setdefault(id(one.scope), set()).add(name)
                self._read(Fields(one.scope), name)
        for cls, had in list(self.classes.items()):
            kind: type = type(cls)
            made = had or not self.names.isdisjoint({"type", "__class__"})
            for base in (*cls.__mro__, *kind.__mro__):
                if is_users_class(base, self.root):
                    self._members(base, made=made)
            if is_users_class(cls, self.root):
                self._relatives(cls)
        for module in list(self.modules.values()):
            self._module(module)

    def _members(self, cls: type, *, made: bool) -> None:
        every = not self.names.isdisjoint(_DYNAMIC)
        for name, value in list(vars(cls).items()):
            special = name[:2] == name[-2:] == "__"
            if not hasattr(type(value), "__get__") and not (special and name in self.names):
                continue
            if every or name in self.names or (special and is_code(value)):
                if name in _MAKING and isinstance(value, FunctionType):
                    self._making(value, made=made or name in self.names)
                self._later(value, DEEPEST, name)

    def _making(self, fn: FunctionType, *, made: bool) -> None:
        if made and id(fn) in self.past:
            self._use(fn)
        elif not made and id(fn) not in self.seen:
            self.past.add(id(fn))

    def _relatives(self, cls: type) -> None:
        asked = {"__subclasses__"} & self.names
        if isinstance(cls, ABCMeta) and not self.names.isdisjoint({"isinstance", "issubclass"}):
            asked.add("register")
        for name in asked - self.related.get(cls, set()):
            self.related.setdefault(cls, set()).add(name)
            self._read(Kin(cls), name)

    def _module(self, module: ModuleType) -> None:
        own = vars(module)
        top = str(own.get("__name__")).partition(".")[0]
        if top == "polyop":
            return
        users = is_users(top, self.root)
        if users and "__getattr__" in own:
            self._read(own, "__getattr__")
        for key in self.names & own.keys():
            value = own[key]
            if users:
                self._read(own, key)
            elif isinstance(getattr(value, "__self__", None), SILENT) or is_told_anew(value):
                self._later(value, 0, key)
            elif isinstance(value, ModuleType):
                if value.__name__ == "numpy.random":
                    self._later(value, 0)
            elif is_setting(value) or (not callable(value) and top != "numpy"):
                self._read(own, key, 1)

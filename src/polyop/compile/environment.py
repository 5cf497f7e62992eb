"""What a captured function reads besides its arguments, and whether it is still the same.

A capture runs the function once; a number that it read from a global or a
closure is part of the graph. So the values that the code names are looked at
before each run: plain values by equality, small containers by what they hold,
tensors and functions by identity. What changes during the capture is put back,
since the call then runs without it. What other libraries keep is not seen; a
change there is the caller's word (`docs/architecture.md`).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeAlias

from polyop.dispatch.bits import SUBCLASS
from polyop.objects.guards import guards_of
from polyop.schema.opaque import is_input
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor

#: Values of these types are compared; others count as the same while they are the same object.
PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple)
CONTAINERS = (list, dict, set)
#: What a class may keep for its objects that a program can rely on.
DATA = (*PLAIN, *CONTAINERS, Tensor)
#: The most reads, the deepest attribute, and the longest container that are looked at.
MOST = 1000
DEEPEST = 4
LONGEST = 100


class Fields:
    """The attributes of what keeps them in no dict of its own: an object with slots, a class."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, name: str, default: Any) -> Any:
        """Give an attribute."""
        return getattr(self.owner, name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.owner, name, value)

    def pop(self, name: str, default: Any) -> None:
        """Take an attribute away."""
        if hasattr(self.owner, name):
            delattr(self.owner, name)


@dataclass(frozen=True, slots=True)
class Read:
    """One name that the code reads: where it is found, what it was, and what that held."""

    scope: Any  # a dict, or a cell
    name: str
    value: Any
    content: Any = None

    def same(self) -> bool:
        """Tell whether the name still has the value."""
        now = _value(self.scope, self.name)
        if now is self.value:
            return self.content is None or _alike(_content(now), self.content)
        return _alike(now, self.value) if isinstance(now, PLAIN) else False

    untouched = same

    def restore(self) -> None:
        """Give the name what it had."""
        if self.same():
            return
        if isinstance(self.value, CONTAINERS):
            _refill(self.value, self.content)
        if not isinstance(self.scope, (dict, Fields)):
            self.scope.cell_contents = self.value
        elif self.value is _GONE:
            self.scope.pop(self.name, None)
        else:
            self.scope[self.name] = self.value


@dataclass(frozen=True, slots=True)
class Names:
    """The names of an object's attributes."""

    scope: dict[str, Any]
    names: frozenset[str]
    name: str = ""

    def same(self) -> bool:
        """Tell whether there are no more and no fewer."""
        return self.scope.keys() == self.names

    untouched = same

    def restore(self) -> None:
        """Take away those that are new."""
        for name in self.scope.keys() - self.names:
            del self.scope[name]


@dataclass(frozen=True, slots=True)
class State:
    """An opaque object: a program relies on what it is guarded by, a capture changes nothing."""

    scope: Any
    guards: tuple[Any, ...]
    inside: tuple[Any, ...]
    name: str = ""

    def same(self) -> bool:
        """Tell whether what programs rely on is as it was."""
        return guards_of(self.scope) == self.guards

    def untouched(self) -> bool:
        """Tell whether all that can be seen of the object is as it was."""
        return all(one.untouched() for one in self.inside)

    def restore(self) -> None:
        """Give the attributes what they had."""
        for one in self.inside:
            one.restore()


One: TypeAlias = Read | Names | State
_GONE = object()


def read(scope: Any, name: str) -> Read:
    """Look at a name."""
    value = _value(scope, name)
    return Read(scope, name, value, _content(value))


def _value(scope: Any, name: str) -> Any:
    if isinstance(scope, (dict, Fields)):
        return scope.get(name, _GONE)
    try:
        return scope.cell_contents
    except ValueError:
        return _GONE


def _content(value: Any) -> Any:
    """Give what may change in a value while it stays the same object."""
    if isinstance(value, Tensor):
        return (value.keys, *_inner(value)) if value.keys & SUBCLASS else value.keys
    if type(value) not in CONTAINERS or len(value) > LONGEST:
        return len(value) if type(value) in CONTAINERS else None
    if isinstance(value, dict):
        return (*value, *value.values())
    return tuple(value)


def _inner(value: Any) -> list[Any]:
    """List what a traceable wrapper is made of."""
    if not is_traceable_wrapper_subclass(value):
        return []
    context = value.__tensor_flatten__()[1]
    return [context, *[y for _, x in inner_tensors(value) for y in (x, *_inner(x))]]


def _alike(now: Any, was: Any) -> bool:
    """Tell whether two values are interchangeable: 1, 1.0 and True are not, nor 0.0 and -0.0."""
    if now is was:
        return True
    if type(now) is not type(was) or not isinstance(now, PLAIN):
        return False
    if isinstance(now, tuple):
        return len(now) == len(was) and all(map(_alike, now, was))
    return repr(now) == repr(was) if isinstance(now, (float, complex)) else bool(now == was)


def _refill(container: Any, content: Any) -> None:
    if isinstance(content, int):
        return  # too long to be kept
    container.clear()
    if isinstance(container, dict):
        half = len(content) // 2
        container.update(zip(content[:half], content[half:], strict=True))
    elif isinstance(container, set):
        container.update(content)
    else:
        container.extend(content)


def environment(fn: Callable[..., Any], leaves: Iterable[Any] = ()) -> tuple[One, ...]:
    """List what a function, and the functions that it calls, read.

    Args:
        fn: the function.
        leaves: its arguments; the attributes of those that are objects count too.
    """
    found: dict[tuple[int, str], One] = {}
    waiting: list[Any] = [fn]
    seen: set[int] = set()
    for leaf in leaves:
        if not is_input(leaf):  # the program takes it, and the capture has its fake
            _add(found, _attributes(leaf), waiting)
    while waiting and len(found) < MOST:
        current = waiting.pop()
        if id(current) not in seen:
            seen.add(id(current))
            _add(found, _reads(current), waiting)
    return tuple(found.values())


def tensors_in(reads: Iterable[One]) -> set[int]:
    """Give the ids of the tensors that were read, or are in a container or wrapper that was."""
    return set(map(id, tensors_of(reads)))


def objects_in(reads: Iterable[One]) -> set[int]:
    """Give the ids of the opaque objects that were read."""
    return {id(one.scope) for one in reads if isinstance(one, State)}


def tensors_of(reads: Iterable[One]) -> list[Tensor]:
    """List the tensors that were read, or are in a container or wrapper that was, each once."""
    found: dict[int, Tensor] = {}
    for one in reads:
        if isinstance(one, Read):
            content = one.content if isinstance(one.content, tuple) else ()
            own = one.value if isinstance(one.value, tuple) else ()
            values = (one.value, *content, *own)
            found |= {id(x): x for x in values if isinstance(x, Tensor)}
    return list(found.values())


def _add(found: Any, reads: Iterator[One], waiting: list[Any]) -> None:
    for one in reads:
        found.setdefault((id(one.scope), one.name), one)
        if isinstance(one, Read) and _is_users(one.value):
            waiting.append(one.value)


def _is_users(value: Any) -> bool:
    if not isinstance(value, (FunctionType, MethodType, partial)) and not hasattr(value, "fn"):
        return False
    return not str(getattr(value, "__module__", "")).startswith(("polyop.ops.", "numpy"))


def _reads(fn: Any) -> Iterator[One]:
    if isinstance(fn, partial):
        yield from _attributes(fn.func)
        fn = fn.func
    if not isinstance(fn, (FunctionType, MethodType)):
        # An object that is called, or a compiled function around another.
        yield from _attributes(fn)
        fn = getattr(fn, "fn", None) or getattr(type(fn), "__call__", None)  # noqa: B004
    if isinstance(fn, MethodType):
        yield from _attributes(fn.__self__)
        fn = fn.__func__
    if not isinstance(fn, FunctionType):
        return
    names = list(_names(fn.__code__))
    for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=False):
        yield from _named(cell, name, names)
    for name in names:
        if name in fn.__globals__ or not hasattr(builtins, name):
            yield from _named(fn.__globals__, name, names)
    yield from _attributes(fn.__defaults__ or ())
    for name in fn.__kwdefaults__ or ():
        yield from _named(fn.__kwdefaults__, name, names)


def _named(scope: Any, name: str, names: Collection[str]) -> Iterator[One]:
    one = read(scope, name)
    yield one
    if isinstance(one.value, ModuleType):
        yield from _of_module(one.value, names)
    else:
        yield from _attributes(one.value)


def _of_module(module: ModuleType, names: Collection[str]) -> Iterator[One]:
    """List the data of a module that code which has it may read."""
    if f"{module.__name__}.".startswith(("polyop.", "numpy.")):
        return
    own = vars(module)
    for name in names:
        if (
            name in own
            and not isinstance(own[name], (type, ModuleType))
            and not callable(own[name])
        ):
            yield read(own, name)
            yield from _attributes(own[name])


def _names(code: CodeType) -> Iterator[str]:
    """List the names in a function's code, and in the functions written inside it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _attributes(owner: Any, depth: int = 0) -> Iterator[One]:
    """List the attributes of a plain object, such as the weights of a layer, and of theirs."""
    if isinstance(owner, (list, dict, tuple)) and len(owner) <= LONGEST and depth < DEEPEST:
        # A copy: a collection, or another thread, may change it meanwhile.
        for item in list(owner.values() if isinstance(owner, dict) else owner):
            if type(item) in CONTAINERS:
                yield read({"items": item}, "items")
            if not isinstance(item, ModuleType):
                yield from _attributes(item, depth + 1)
        return
    if isinstance(owner, type):
        yield from (read(Fields(owner), name) for name in _data_of(owner))
        return
    if isinstance(owner, (FunctionType, MethodType, ModuleType, Tensor, *PLAIN)):
        return
    if is_input(owner):
        yield State(owner, guards_of(owner), tuple(_inside(owner, depth)))
    else:
        yield from _inside(owner, depth)


def _inside(owner: Any, depth: int) -> Iterator[One]:
    if f"{type(owner).__module__}.".startswith(("polyop.", "builtins.", "numpy.")):
        return
    for scope, name in _fields(owner):
        one = read(scope, name)
        if one.value is not _GONE:
            yield one
            if depth < DEEPEST:
                yield from _attributes(one.value, depth + 1)
    own = getattr(owner, "__dict__", None)
    if type(own) is not dict:
        return
    yield Names(own, frozenset(own))
    for name, value in list(own.items()):
        yield read(own, name)
        if depth < DEEPEST:
            yield from _attributes(value, depth + 1)


def _fields(owner: Any) -> Iterator[tuple[Fields, str]]:
    """List the slots of an object, and the data of its class that it has no own values for."""
    own = getattr(owner, "__dict__", {})
    for cls in type(owner).__mro__:
        slots = [n for n, v in list(vars(cls).items()) if isinstance(v, MemberDescriptorType)]
        yield from ((Fields(owner), name) for name in slots)
        yield from ((Fields(cls), name) for name in _data_of(cls) if name not in own)


def _data_of(cls: type) -> list[str]:
    """List the names of a class that hold data."""
    if f"{cls.__module__}.".startswith(("polyop.", "builtins.", "numpy.")):
        return []
    named = list(vars(cls).items())
    return [name for name, v in named if isinstance(v, DATA) and not name.startswith("__")]

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

from polyop.objects.guards import guards_of
from polyop.objects.reads import CONTAINERS, GONE, LONGEST, PLAIN, Fields, Names, Read, read
from polyop.schema.opaque import is_input
from polyop.tensor.tensor import Tensor

#: What a class may keep for its objects that a program can rely on.
DATA = (*PLAIN, *CONTAINERS, Tensor)
#: The most reads, and the deepest attribute, that are looked at.
MOST = 1000
DEEPEST = 4


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


def put_back(reads: Iterable[One]) -> str:
    """Give what was read its values again; name the first that had changed."""
    changed = [one for one in reads if not one.untouched()]
    for one in changed:
        one.restore()
    return (changed[0].name or "attributes") if changed else ""


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
    if not isinstance(fn, FunctionType) or fn.__code__.co_filename.startswith("<polyop "):
        return  # what is written here looks after itself
    names = list(_names(fn.__code__))
    for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=False):
        yield from _named(cell, name, names)
    own = f"{fn.__module__}.".startswith("polyop.")  # it holds a user's function at most
    for name in () if own else names:
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
        if one.value is not GONE:
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
    ours = {n for base in cls.__mro__ if base.__module__.startswith("polyop.") for n in vars(base)}
    return [n for n, v in named if isinstance(v, DATA) and n[:2] != "__" and n not in ours]

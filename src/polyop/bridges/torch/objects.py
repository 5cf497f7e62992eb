"""Operator objects in Dynamo's eyes: one thing each, as PyTorch's own operators are.

NOTE [Objects that Dynamo knows]
Dynamo can follow an object's `__call__` with what PyTorch documents, and then guards each thing
that it reads on its way: a dozen, at each call of the compiled program. Told of the classes of
our objects, by names that PyTorch does not promise, it guards the class alone: each object has
one of its own, and gets another when its operator's rules change. Where a name is gone, objects
forward, and Dynamo follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, finalize, ref

import torch

from polyop.bridges.calls import ANY
from polyop.bridges.torch.watch import QUICK as WATCH
from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.lock import LOCK
from polyop.dispatch.namespaces import OpNamespace, Ops
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.own_call import CHANGED, QUICK, TELL, own_class, renew
from polyop.lazy import load

Wrap = Callable[[Any, Any], Any]
_OBJECTS: tuple[type, ...] = (CustomOpDef, OpOverload, OpOverloadPacket)
_NAMESPACES: tuple[type, ...] = (Ops, OpNamespace)


class Asked(NamedTuple):
    """A call that Dynamo meets.

    Attributes:
        one: the operator, or all overloads of its name.
        args: Dynamo's variables of the arguments.
        kwargs: those by name.
        outside: whether dual numbers may come from outside of the compiled region.
    """

    one: OpOverload | OpOverloadPacket
    args: Sequence[Any]
    kwargs: dict[str, Any]
    outside: bool

    def values(self) -> tuple[list[Any], dict[str, Any]]:
        """Give what arguments are to a schema; constants are guarded from then on."""
        named = {name: _stand_in(v) for name, v in self.kwargs.items()}
        return [_stand_in(v) for v in self.args], named


#: What gives the function that a compiler reads in the place of a call.
Read = Callable[[Asked], Callable[..., Any]]


class Names(NamedTuple):
    """Names of Dynamo that it does not promise.

    Attributes:
        tables: by class, what makes a variable of an object; one for each of its settings.
        build: makes a variable of a value.
        variable: the class of such variables.
        by_class: the guard of an object's class.
        level: the guard of the level of duals.
        guard: adds a guard.
    """

    tables: Sequence[dict[Any, Wrap]]
    build: Callable[[Any, Any], Any]
    variable: type[Any]
    by_class: Any
    level: Any
    guard: Callable[[Any], None]


def _found() -> Names:
    builder = load("torch._dynamo.variables.builder:VariableBuilder")
    guards = load("torch._dynamo.guards:GuardBuilder")
    config = load("torch._dynamo.config")
    tables = []
    for setting in (True, False):
        with config.patch(trace_numpy=setting):
            tables.append(builder._type_dispatch())
    everywhere = load("torch._dynamo.source:GlobalStateSource")()
    return Names(
        tables,
        load("torch._dynamo.variables.base:VariableTracker").build,
        load("torch._dynamo.variables.user_defined:UserDefinedObjectVariable"),
        guards.TYPE_MATCH,
        load("torch._guards:Guard")(everywhere, guards.DUAL_LEVEL),
        load("torch._dynamo.guards:install_guard"),
    )


class Objects:
    """What Dynamo is told of operator objects."""

    def __init__(self, names: Names, read: Read) -> None:
        self.names = names
        #: By what may change: the objects that a compiler has met, and what it was then.
        self.met: WeakKeyDictionary[Any, tuple[WeakSet[Any], Any]] = WeakKeyDictionary()
        #: By operator, its objects that have a class of their own.
        self.callers: WeakKeyDictionary[Any, WeakSet[Any]] = WeakKeyDictionary()
        self.namespace = _namespace_variable(names.variable)
        self.operator = _operator_variable(names, read, self.namespace)
        for cls in _OBJECTS:
            self._tell(cls, self.wrap)
        for cls in _NAMESPACES:
            self._tell(cls, self.wrap_namespace)
        with LOCK:
            TELL.append(self.has_own_class)
            CHANGED.append(self.changed)
            for caller in list(QUICK):
                self.has_own_class(caller)

    def _tell(self, cls: type, wrap: Wrap) -> None:
        for table in self.names.tables:
            table[cls] = wrap

    def has_own_class(self, caller: Any) -> None:
        """Tell Dynamo of the class of an object, for as long as object and operator live.

        The class has the entry, and so the operator and all that it has: what Dynamo's tables
        hold of a removed operator would never be freed.
        """
        one = _one(caller)
        if isinstance(one, OpOverload) and not one.alive:
            return
        self.callers.setdefault(one, WeakSet()).add(caller)
        self._tell(type(caller), self.wrap)
        finalize(caller, self._forget, ref(type(caller))).atexit = False

    def _forget(self, cls: ref[type]) -> None:
        known = cls()
        for table in self.names.tables if known is not None else ():
            table.pop(known, None)

    def _removed(self, one: Any) -> None:
        self.met.pop(one, None)
        for caller in self.callers.pop(one, ()):
            self._forget(ref(type(caller)))
            if caller in QUICK:
                QUICK.discard(caller)
                caller.__class__ = type(caller).__bases__[0]

    def wrap(self, builder: Any, value: Any) -> Any:
        """Make Dynamo's variable of an operator object."""
        with LOCK:
            if value not in QUICK:
                packet = isinstance(value, OpOverloadPacket)
                own_class(value, type(value), None if packet else _one(value).entry)
            for one in (_one(value), *_operators(value)):
                self.met.setdefault(one, (WeakSet(), _state(one)))[0].add(value)
        builder.install_guards(self.names.by_class)
        return self.operator(value, source=builder.source)

    def changed(self, one: Any) -> None:
        """Give objects that a compiler has met another class, if their operator is another."""
        if isinstance(one, OpOverload) and not one.alive:
            self._removed(one)
            return
        callers, state = self.met.get(one, (None, None))
        if callers is None or state == _state(one):
            return
        del self.met[one]
        for caller in list(callers):
            self._forget(ref(type(caller)))
            renew(caller)

    def wrap_namespace(self, builder: Any, value: Any) -> Any:
        """Make Dynamo's variable of what operators are attributes of."""
        builder.install_guards(self.names.by_class)
        return self.namespace(value, source=builder.source)


def _one(value: Any) -> Any:
    return value._opoverload if isinstance(value, CustomOpDef) else value


def _operators(value: Any) -> list[OpOverload]:
    one = _one(value)
    return one.op_overloads() if isinstance(one, OpOverloadPacket) else [one]


def _state(one: Any) -> Any:
    """Give whether an operator lives; of a packet, its operators.

    Rules need no look: what is compiled with one goes when it changes (`anew.py`), and an object
    that got another class while another thread compiles would break the guard made there.
    """
    return one.op_overloads() if isinstance(one, OpOverloadPacket) else one.alive


def _stand_in(variable: Any) -> Any:
    try:
        kind = variable.python_type()
        if issubclass(kind, torch.Tensor):
            return ANY
        if kind in {list, tuple}:
            return [_stand_in(item) for item in variable.items]
        if kind in {int, float, bool} and not variable.is_python_constant():
            return kind(1)
        return variable.as_python_constant()
    except (AttributeError, NotImplementedError):
        return variable  # no schema takes it


def _namespace_variable(base: Any) -> Any:
    class NamespaceVariable(base):  # type: ignore[misc]
        """What operators are attributes of."""

        def var_getattr(self, tx: Any, name: str) -> Any:
            """Give an attribute."""
            getattr(self.value, name, None)  # the first look-up takes a lock
            return super().var_getattr(tx, name)

    return NamespaceVariable


def _operator_variable(names: Names, read: Read, base: Any) -> Any:
    class OperatorVariable(base):  # type: ignore[misc]
        """An operator object."""

        def call_function(self, tx: Any, args: Any, kwargs: Any) -> Any:
            """Call what is read in its place."""
            names.guard(names.level)
            outside = tx.output.dual_level >= 0 and not WATCH.transforms()
            fn = read(Asked(_one(self.value), args, kwargs, outside))
            return names.build(tx, fn).call_function(tx, args, kwargs)

        def call_method(self, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
            """Call a method."""
            if name == "__call__":
                return self.call_function(tx, args, kwargs)
            return super().call_method(tx, name, args, kwargs)

    return OperatorVariable


def tell(read: Read) -> str:
    """Tell Dynamo of operator objects, and say what hinders it; nothing if nothing does."""
    try:
        Objects(_found(), read)
    except Exception as error:  # any name may be gone, or mean something else
        return f"{type(error).__name__}: {error}"
    return ""

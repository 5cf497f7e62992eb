"""An operator's own implementations, by who acts: a key, a mode, a subclass, a transform.

`py_impl` says for one operator what a dispatch key, a mode, a class of tensors
or a transform does with it. Kernels go before those of libraries, whenever
these came. What was decided is kept in `_dispatch_cache`, and any registration
on the operator forgets it (S108 to S112).

The tables are made when they are first asked for: few operators have any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from enum import Enum
from functools import cached_property
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from polyop.dispatch.context import run_under, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.table import fallthrough_kernel, resolve_key
from polyop.errors import DuplicateRegistrationError, ModeError, UsageTypeError
from polyop.lazy import load
from polyop.source import source_of

Fn = TypeVar("Fn", bound=Callable[..., Any])
_PACKAGE = __name__.partition(".")[0]
#: What a call at a key comes to: a function, or the key whose kernel acts.
Decided = Callable[..., Any] | DispatchKey


class TransformType(Enum):
    """The kinds of transforms that an operator may have a rule for."""

    Vmap = "vmap"
    Grad = "func.grad"
    Jvp = "func.jvp"
    Functionalize = "func.functionalize"


#: What a rule at the key Python may be for, and where it is; looked up at a registration.
ACTORS = [
    "polyop.dispatch.modes:DispatchMode",
    "polyop.tensor.tensor:Tensor",
    "polyop.layers.fake.mode:FakeTensorMode",
    "polyop.layers.trace.tracer:Tracer",
]
#: What an operator has only once something used `py_impl`, or asked for what it decides.
BY_PY_IMPL = {"py_kernels", "_dispatch_cache"}


class PyKernels(MutableMapping[DispatchKey, Callable[..., Any]]):
    """The function of each key of an operator, alias keys too; what is changed here acts."""

    def __init__(self, op: Implementations) -> None:
        self._op = op
        self.fns: dict[DispatchKey, Callable[..., Any]] = {}

    def __getitem__(self, key: DispatchKey) -> Callable[..., Any]:
        return self.fns[key]

    def __iter__(self) -> Iterator[DispatchKey]:
        return iter(self.fns)

    def __len__(self) -> int:
        return len(self.fns)

    def __repr__(self) -> str:
        return repr(self.fns)

    def __setitem__(self, key: DispatchKey, fn: Callable[..., Any]) -> None:
        register = self._op.py_impl(key)
        with LOCK:
            old = self.pop(key, None)
            try:
                register(fn)
            except UsageTypeError:  # what is refused leaves what was there
                if old is not None:
                    register(old)
                raise

    def __delitem__(self, key: DispatchKey) -> None:
        with LOCK:
            del self.fns[key]
            self._op.changed()


def acts(cls: type) -> bool:
    """Tell whether a class is one of modes or tensors, who may have rules of their own."""
    return issubclass(cls, tuple(load(place) for place in ACTORS))


class Implementations:
    """The part of an operator that `py_impl` fills."""

    #: The positions of arguments for opaque objects.
    objects: tuple[int, ...] = ()

    @cached_property
    def py_kernels(self) -> PyKernels:
        """The function of each key, alias keys too."""
        return PyKernels(self)

    @cached_property
    def python_key_table(self) -> dict[type, Callable[..., Any]]:
        """The rule of each class of modes or tensors."""
        return {}

    @cached_property
    def functorch_table(self) -> dict[TransformType, Callable[..., Any]]:
        """The rule of each transform."""
        return {}

    @cached_property
    def _dispatch_cache(self) -> dict[DispatchKey, Decided]:
        return {}

    def name(self) -> str:
        """Give the qualified name."""
        raise NotImplementedError

    def has_kernel_for_dispatch_key(self, k: DispatchKey) -> bool:
        """Whether a kernel is registered at this very key."""
        raise NotImplementedError

    def changed(self) -> None:
        """Forget what was decided."""
        raise NotImplementedError

    def gone(self) -> NoReturn:
        """Raise the error of a removed operator."""
        raise NotImplementedError

    @cached_property
    def onward(self) -> Any:
        """What a call goes on with, and what its node runs: an author's `__call__` acts once."""
        definers = [cls for cls in type(self).__mro__ if "__call__" in vars(cls)]
        own: Any = next(cls for cls in definers if cls.__module__.partition(".")[0] == _PACKAGE)
        return self if own is definers[0] else own.__call__.__get__(self)

    # -- registering ----------------------------------------------------------

    def py_impl(self, k: Any) -> Callable[[Fn], Fn]:
        """Give this operator an implementation for a key, mode, subclass or transform.

        Args:
            k: a `DispatchKey`: the function is its kernel, and `fallthrough_kernel` passes the
                key over. A mode's class: it is called
                `fn(mode, *args, **kwargs)`. A Tensor subclass: `fn(*args, **kwargs)`. A
                `TransformType`: `fn(interpreter, *args, **kwargs)`, where
                `with interpreter.lower():` takes the transform off.

        Raises:
            DuplicateRegistrationError: there is one.
            UsageTypeError: the key is Python, or it is none of these; `fallthrough_kernel` is
                given for anything but a key.
            OperatorGoneError: the operator was removed.
        """
        if not getattr(self, "alive", True):
            self.gone()
        table, kind = self._table_for(k)

        def register(fn: Fn) -> Fn:
            if not callable(fn):
                raise UsageTypeError("an implementation is a function", op=self.name(), seen=fn)
            if fn is fallthrough_kernel and table is not self.py_kernels.fns:
                raise UsageTypeError(
                    "fallthrough_kernel passes a dispatch key over, and this is none",
                    op=self.name(),
                    seen=repr(k),
                    fix="give no rule: a mode, subclass or transform without one does what it "
                    "does for every operator",
                )
            with LOCK:
                if k in table:
                    self._taken(k, kind, table[k])
                self._check_place(k, fn)
                table[k] = fn
                self._put(k, fn)
                self.changed()
            return fn

        return register

    def _table_for(self, by: Any) -> tuple[dict[Any, Callable[..., Any]], str]:
        if isinstance(by, DispatchKey) and by is not DispatchKey.Python and by:
            return self.py_kernels.fns, "kernel"
        if isinstance(by, TransformType):
            return self.functorch_table, "rule"
        if isinstance(by, type) and acts(by):
            return self.python_key_table, "rule"
        python = by is DispatchKey.Python
        raise UsageTypeError(
            "modes and subclasses act at the key Python, each by its own rule"
            if python
            else "an implementation is for a key, a mode, a Tensor subclass or a transform",
            op=self.name(),
            seen=repr(by),
            fix="give py_impl the class of the mode or subclass"
            if python
            else "give a DispatchKey, such as DispatchKey.CPU, a class, or a TransformType",
        )

    def _taken(self, by: Any, kind: str, there: Callable[..., Any]) -> None:
        label = getattr(by, "__name__", by)
        raise DuplicateRegistrationError(
            f"{self.name()} has a {kind} for {label} already",
            op=self.name(),
            source=source_of(there),
            fix="one operator has one implementation for each",
        )

    def _check_place(self, by: Any, fn: Callable[..., Any]) -> None:
        """Refuse an implementation that may not stand where it goes."""

    def _put(self, by: Any, fn: Callable[..., Any]) -> None:
        """Tell the operator of a new implementation."""

    def py_functionalize_impl(self, fn: Fn) -> Fn:
        """Give this operator its functionalization, in all three forms (S110).

        Args:
            fn: called `fn(ctx, *args, **kwargs)`; `ctx` is a `FunctionalizeAPI`.

        Raises:
            DuplicateRegistrationError: there is one.
        """
        forms = load("polyop.hop.functionalize_api:forms_of")(fn)
        with LOCK:
            for by in forms:  # all or none
                table, kind = self._table_for(by)
                if by in table:
                    self._taken(by, kind, table[by])
            for by, form in forms.items():
                self.py_impl(by)(form)
        return fn

    # -- looking up -----------------------------------------------------------

    def _get_dispatch(self, key: DispatchKey) -> Decided:
        """Give what a call at a key comes to, and keep it (S111).

        Raises:
            MissingKernelError: no kernel and no fallback serves the key.
            OperatorGoneError: the operator was removed.
        """
        if not getattr(self, "alive", True):
            self.gone()
        if key is DispatchKey.Python:
            # Of an object, as of a rule for some modes, only the call knows what acts.
            plain = not self.python_key_table and not self.objects
            return self._keep(key, key if plain else self._by_mode)
        if key is DispatchKey.PreDispatch and load("polyop.dispatch.pre_dispatch:acts")(word()):
            return self._by_mode_before
        by = resolve_key(self, key)
        found: Decided = self.py_kernels.get(by, by)
        if found is fallthrough_kernel:
            found = by
        # Which mode is set before dispatch differs from call to call.
        return found if key is DispatchKey.PreDispatch else self._keep(key, found)

    def _keep(self, key: DispatchKey, found: Decided) -> Decided:
        with LOCK:
            self._dispatch_cache[key] = found
            _cached.add(self)
        return found

    def _uncache_dispatch(self, key: DispatchKey) -> None:
        """Forget one key; a registration may change several, and forgets all."""
        self._dispatch_cache.pop(key, None)

    def _by_mode(self, *args: Any, **kwargs: Any) -> Any:
        """Run the rule for the innermost mode, or the mode's `__dispatch__`, with the mode off."""
        now = word()
        if not now.chain:
            raise ModeError(
                f"{self.name()} is dispatched to a mode, and none is entered",
                op=self.name(),
                fix="enter one first: with mode: ...",
            )
        mode, below = now.top
        return self._asked(mode, below, args, kwargs)

    def _by_mode_before(self, *args: Any, **kwargs: Any) -> Any:
        """Do the same with the current mode of the pre-dispatch stack."""
        chain = load("polyop.dispatch.pre_dispatch:chain")(word())
        if not chain:
            raise ModeError(
                f"{self.name()} is dispatched to a mode before dispatch, and none is set",
                op=self.name(),
                fix="set one first: set_mode_pre_dispatch(mode)",
            )
        mode, below = chain[0]
        return self._asked(mode, below, args, kwargs)

    def _asked(self, mode: Any, below: Any, args: Any, kwargs: Any) -> Any:
        rule = self.rule_for(type(mode))
        if rule is None:
            return run_under(below, mode.__dispatch__, self, (), args, kwargs)
        return run_under(below, rule, mode, *args, **kwargs)

    def rule_for(self, cls: type) -> Callable[..., Any] | None:
        """Give the rule for a class of modes or tensors; a derived class has a rule of its own."""
        table: dict[type, Callable[..., Any]] = self.__dict__.get("python_key_table", {})
        # A tracer has no `__dispatch__` that would do it instead: the rule for all serves it.
        asked = (cls,) if hasattr(cls, "__dispatch__") else cls.__mro__
        return next((table[c] for c in asked if c in table), None) if table else None

    def _forget(self) -> None:
        """Empty the cache."""
        cache = self.__dict__.get("_dispatch_cache")
        if cache:
            cache.clear()


_cached: WeakSet[Implementations] = WeakSet()


def get_cached_ops() -> set[Implementations]:
    """Give the operators that have something in their `_dispatch_cache`."""
    with LOCK:
        return {op for op in _cached if op._dispatch_cache}


def reset_cached_ops() -> None:
    """Empty the `_dispatch_cache` of all operators."""
    with LOCK:
        for op in list(_cached):
            op._forget()
        _cached.clear()

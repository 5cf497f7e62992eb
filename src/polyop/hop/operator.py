"""`HigherOrderOperator`: an operator that takes functions, and decides by its own table.

It has no schema, so no entry is written for it: a call ORs the codes of its
tensors, wherever they are in the arguments, with the word's, and runs what was
decided for that code. Layers do not know it; what each of them does with a
call is a rule of the operator (`py_impl`), and the order in which they are
asked is that of the keys (S117 to S123).
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar, NoReturn, TypeVar

from polyop.dispatch.bind import code_of
from polyop.dispatch.bits import FAKE, WRAPPED
from polyop.dispatch.context import note_failure, run_under, word
from polyop.dispatch.keys import AUTOCAST_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet, full_keyset
from polyop.dispatch.lock import LOCK
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OperatorBase
from polyop.dispatch.own_call import note_captured
from polyop.dispatch.pre_dispatch import chain as pre_dispatch_chain
from polyop.dispatch.refusals import check_name
from polyop.dispatch.resolve import LEVEL_KEYS, excluded, keyset_of
from polyop.dispatch.table import fallthrough_kernel, resolve_key
from polyop.errors import (
    DuplicateRegistrationError,
    MissingKernelError,
    MissingSchemaError,
    SubgraphError,
    UnhandledDispatchError,
    UsageTypeError,
)
from polyop.graph import GraphModule
from polyop.hop.acting import innermost_level, modes_of, python_tensors, rule_wanted, tensors_of
from polyop.hop.rules import AutogradKernel, Interpreter, beneath, transform_of
from polyop.layers.trace.outside import brought_in, is_outside
from polyop.source import Source, construction_of
from polyop.tensor.tensor import Tensor

Fn = TypeVar("Fn", bound=Callable[..., Any])
Handler = Callable[..., Any]

FRONT = DispatchKey.FuncTorchDynamicLayerFrontMode
#: The keys that pass a higher-order operator by, unless it has a kernel there.
PASSED_BY = DispatchKeySet(
    DispatchKey.PythonDispatcher, DispatchKey.PythonTLSSnapshot, DispatchKey.ADInplaceOrView,
    DispatchKey.BackendSelect, AUTOCAST_KEYS,
)  # fmt: skip
#: The names of further operators whose programs may be kept across processes (`cacheable`).
cacheable_operators: set[str] = set()
#: Classes of arguments that hold no tensors.
_PLAIN = frozenset({FunctionType, GraphModule, int, float, bool, str, complex, type(None)})


class HigherOrderOperator(OperatorBase):
    """Base of operators that take functions or graphs among their arguments.

    Subclass it, define `__call__` so that it calls `super().__call__`, make one
    object, and give that its rules by `py_impl`, `py_autograd_impl`,
    `py_functionalize_impl` and `register_fake`.

    Args:
        name: it appears as `polyop.ops.higher_order.<name>`.
        cacheable: whether compiled programs with it may be kept.
        supports_training_input_mutation: whether it may write inputs while gradients flow.

    Raises:
        UsageTypeError: the class does not define `__call__`.
        DuplicateRegistrationError: the name is in use, and that is another file and line.

    Example:
        >>> import polyop
        >>> from polyop.extend import DispatchKey, HigherOrderOperator
        >>> class Twice(HigherOrderOperator):
        ...     def __call__(self, fn, x):
        ...         return super().__call__(fn, x)
        >>> twice = Twice("readme_twice")
        >>> @twice.py_impl(DispatchKey.CompositeImplicitAutograd)
        ... def twice_eager(fn, x):
        ...     return fn(fn(x))
        >>> twice(lambda x: x * 3, polyop.ones(2))
        tensor([9., 9.])
    """

    #: Where its one object is made, if its constructor does not tell.
    made_at: ClassVar[Source | None] = None

    def __init__(
        self, name: str, *, cacheable: bool = False, supports_training_input_mutation: bool = False
    ) -> None:
        if type(self).__call__ is HigherOrderOperator.__call__:
            raise UsageTypeError(
                f"{type(self).__name__} does not define __call__",
                op=name,
                fix="subclass HigherOrderOperator, and define a __call__ that calls super's",
            )
        check_name(type(self), name)
        self._name = self.__name__ = name
        self.namespace = self._ns = "higher_order"
        self.__module__ = "polyop.ops.higher_order"
        self.__qualname__ = f"higher_order::{name}"
        self.source = self.made_at or construction_of(self)
        self.supports_training_input_mutation = supports_training_input_mutation
        self.non_fallthrough_keys = full_keyset - PASSED_BY
        self._cacheable = cacheable
        self._memo: dict[int, Handler] = {}
        _announce(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "cacheable" in cls.__dict__:
            raise UsageTypeError(
                f"{cls.__name__} overrides cacheable",
                fix="pass cacheable=True to the constructor",
            )

    # -- names ----------------------------------------------------------------

    def name(self) -> str:
        """Give the name."""
        return self._name

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"<HigherOrderOperator(op='higher_order.{self._name}')>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_find, (self._name,))

    def __copy__(self) -> HigherOrderOperator:
        return self

    def __deepcopy__(self, memo: Any) -> HigherOrderOperator:
        return self

    # -- calls ----------------------------------------------------------------

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it; subclasses say what its arguments are."""
        code: int = word()
        for value in args:
            kind = value.__class__
            if kind is Tensor:
                code |= value.keys
            elif kind not in _PLAIN:
                code |= code_of((value,))
        if kwargs:
            code |= code_of((kwargs,))
        try:
            return (self._memo.get(code) or self._resolve(code))(*args, **kwargs)
        except SubgraphError as error:  # where nothing is traced, the functions may do more
            note_failure(error)
            raise

    def dispatch(self, key: DispatchKey, /, *args: Any, **kwargs: Any) -> Any:
        """Run what acts at a key (S118).

        Raises:
            MissingKernelError: nothing does, or it is passed over.
            UnhandledDispatchError: all rules at the key Python returned `NotImplemented`.
        """
        found = self._at(key)
        if found is fallthrough_kernel:
            self._passed(key)
        return found(*args, **kwargs)

    def _passed(self, key: DispatchKey) -> NoReturn:
        kernels = [k.name for k, fn in self.py_kernels.items() if fn is not fallthrough_kernel]
        self._missing(
            f"{self._name} passes {key.name} over, and nothing acts below",
            f"kernels at: {', '.join(kernels) or 'none'}",
            "call it on what one of these keys serves, or give it a kernel with py_impl",
        )

    def _resolve(self, code: int) -> Handler:
        """Decide who acts on a call, and remember it."""
        with LOCK:
            found = self._highest(keyset_of(code))
            if isinstance(found, AutogradKernel):
                found = found.of(code)
            self._memo[int(code)] = found  # never the word, which holds modes (S107)
            return found

    def _highest(self, keys: DispatchKeySet) -> Handler:
        """Give what acts at the highest key that is not passed over."""
        keys &= self.non_fallthrough_keys
        while (found := self._at(key := keys.highest())) is fallthrough_kernel:
            if not key:
                self._passed(key)
            keys = keys.remove(key)
        return found

    def _at(self, key: DispatchKey) -> Handler:
        found = self._dispatch_cache.get(key)
        if found is not None and not isinstance(found, DispatchKey):
            return found
        special = {FRONT: self._front, DispatchKey.Python: self._python,
                   DispatchKey.PreDispatch: self._pre_dispatch}  # fmt: skip
        return special.get(key) or self._kernel(key)

    def _kernel(self, key: DispatchKey) -> Handler:
        by = resolve_key(self, key)
        found = self.py_kernels.get(by)
        if found is None:
            at = f"{by.name} (for {key.name})" if by is not key else key.name
            self._missing(
                f"{self._name} has no kernel at {at}",
                f"kernels at: {', '.join(k.name for k in self.py_kernels) or 'none'}",
                f"give it one with py_impl(DispatchKey.{by.name}) or at an alias key, or let the "
                f"key pass it by: {self._name}.fallthrough(DispatchKey.{key.name})",
            )
        return self._keep(key, found)  # type: ignore[return-value]

    def _missing(self, problem: str, declared: str, fix: str) -> NoReturn:
        raise MissingKernelError(
            problem, op=self._name, declared=declared, source=self.source, fix=fix
        )

    # -- transforms -----------------------------------------------------------

    def _front(self, *args: Any, **kwargs: Any) -> Any:
        """Run the rule for the innermost transform."""
        tracer = word().recorder
        if tracer is not None and any(
            is_outside(t, tracer.outside) for t in tensors_of(args, kwargs)
        ):
            args, kwargs = brought_in(tracer, (args, kwargs))
            return self.onward(*args, **kwargs)
        level = innermost_level(args, kwargs)
        if not level.alive:
            level.escaped()
        if level not in word().levels:  # its rule took it off, and is not to call itself
            code = code_of((args, kwargs)) | word()
            return beneath(self._highest(keyset_of(code) - LEVEL_KEYS), code)(*args, **kwargs)
        kind = transform_of(level)
        rule = self.functorch_table.get(kind)
        if rule is None:
            self._missing(
                f"{self._name} has no rule for {level.kind}",
                f"rules for: {', '.join(t.value for t in self.functorch_table) or 'none'}",
                f"give it one with py_impl(TransformType.{kind.name})",
            )
        return rule(Interpreter(level), *args, **kwargs)

    # -- modes and subclasses -------------------------------------------------

    def _python(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the modes from the innermost outward, then the subclasses (S119, S120)."""
        asked: list[str] = []
        for mode, below in modes_of(word()):
            result = run_under(below, self._by_mode_rule, mode, args, kwargs)
            if result is not NotImplemented:
                return result
            asked.append(type(mode).__name__)
        for tensor in python_tensors(args, kwargs):
            if tensor.keys & FAKE:
                mode = tensor.payload.space.mode
                result = self._by_mode_rule(mode, args, kwargs)
            else:
                result = self._subclass_rule(type(tensor))(*args, **kwargs)
            if result is not NotImplemented:
                return result
            asked.append(type(tensor).__name__)
            if tensor.keys & FAKE:
                break  # what its mode says of a fake is final
        raise UnhandledDispatchError(
            f"nobody handles {self._name}",
            op=self._name,
            seen=f"{', '.join(asked)}: each returned NotImplemented" if asked else "no mode",
            source=self.source,
            fix=f"give one of them a rule: {self._name}.py_impl(its class)",
        )

    def _by_mode_rule(self, mode: Any, args: Any, kwargs: Any) -> Any:
        rule = self.rule_for(type(mode))
        if rule is not None:
            return rule(mode, *args, **kwargs)
        if getattr(mode, "supports_higher_order_operators", False):
            return mode.__dispatch__(self, [], args, kwargs)
        return self._no_rule(mode)

    def _no_rule(self, mode: Any) -> NoReturn:
        met, fix = rule_wanted(self._name, mode)
        self._missing(
            f"{self._name} has no rule for {met}",
            f"rules for: {', '.join(c.__name__ for c in self.python_key_table) or 'none'}",
            fix,
        )

    def _subclass_rule(self, cls: type) -> Handler:
        rule = self.rule_for(cls)
        if rule is None:
            self._missing(
                f"{self._name} has no rule for the subclass {cls.__name__}",
                f"rules for: {', '.join(c.__name__ for c in self.python_key_table) or 'none'}",
                f"give it one with {self._name}.py_impl({cls.__name__})",
            )
        return rule

    def _pre_dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Hand the call to the current mode of the stack; else its own kernel, or go on below."""
        now, code = word(), code_of((args, kwargs)) | word()
        # What belongs to a transform goes there first, and comes back from it.
        if now.pre and not code & WRAPPED and not excluded(code).has(DispatchKey.Python):
            mode, below = pre_dispatch_chain(now)[0]
            rule = self.rule_for(type(mode)) or self._no_rule(mode)
            return run_under(below, rule, mode, *args, **kwargs)
        own = self.py_kernels.get(DispatchKey.PreDispatch)
        if own is not None and own is not fallthrough_kernel:
            return own(*args, **kwargs)
        return self._highest(keyset_of(code).remove(DispatchKey.PreDispatch))(*args, **kwargs)

    # -- registering ----------------------------------------------------------

    def fallthrough(self, dispatch_key: DispatchKey) -> None:
        """Let a key pass this operator by; `py_impl` of it takes it back in."""
        with LOCK:
            self.non_fallthrough_keys = self.non_fallthrough_keys.remove(dispatch_key)
            self.changed()

    def py_autograd_impl(self, fn: Fn) -> Fn:
        """Say what a call does whose gradients are wanted; others go on below autograd (S122).

        Raises:
            DuplicateRegistrationError: there is such a rule.
        """
        self.py_impl(DispatchKey.Autograd)(AutogradKernel(self, fn))
        return fn

    def _put(self, by: Any, fn: Handler) -> None:
        through = fn is fallthrough_kernel  # at an alias key, other kernels may still act
        if isinstance(by, DispatchKey) and not through and not self.non_fallthrough_keys.has(by):
            self.non_fallthrough_keys = self.non_fallthrough_keys.add(by)

    def changed(self) -> None:
        """Forget what was decided."""
        note_captured(self._memo)
        self._memo.clear()
        self._forget()

    def has_kernel_for_dispatch_key(self, k: DispatchKey) -> bool:
        """Whether a kernel is registered at this very key."""
        return k in self.py_kernels

    def has_kernel_for_any_dispatch_key(self, ks: DispatchKeySet) -> bool:
        """Whether a kernel is registered at one of the keys, alias keys aside."""
        return any(k <= DispatchKey.PythonDispatcher and ks.has(k) for k in self.py_kernels)

    # -- facts ----------------------------------------------------------------

    def gen_schema(self, *args: Any, **kwargs: Any) -> Any:
        """Give the schema of one call; callers may read its lack as "writes nothing".

        Raises:
            MissingSchemaError: the class does not define it.
        """
        raise MissingSchemaError(
            f"{self._name} has no schema for a call",
            op=self._name,
            source=self.source,
            fix="it may be left out if the operator writes nothing and returns nothing it was "
            "given; else define gen_schema(*args, **kwargs), with HopSchemaGenerator",
        )

    @property
    def has_schema(self) -> bool:
        """Whether its class defines `gen_schema`."""
        return type(self).gen_schema is not HigherOrderOperator.gen_schema

    def cacheable(self) -> bool:
        """Whether compiled programs with it may be kept."""
        return self._cacheable or self._name in cacheable_operators


# -- names --------------------------------------------------------------------


def _announce(hop: HigherOrderOperator) -> None:
    table = ops.higher_order.table
    with LOCK:
        name, there = hop.name(), table.get(hop.name())
        if there is not None and there.source != hop.source:
            raise DuplicateRegistrationError(
                f"there is a higher-order operator {name} already",
                op=name,
                source=f"{there.source}; again at {hop.source}",
                fix="choose another name",
            )
        table[name] = hop


def _find(name: str) -> Any:
    """Find an operator again, for pickles."""
    return getattr(ops.higher_order, name)

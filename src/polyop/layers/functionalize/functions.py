"""`autograd.Function` under functionalization: one call below, whose forward writes nothing (S137).

Who differentiates or maps the function sees a call of a `Function`. What its
forward writes of its arguments comes out as new values, which take the place
of the arguments here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from types import new_class
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import run_under
from polyop.errors import MutationError
from polyop.layers.autograd.function import APPLY, Function, Traits, traits_of
from polyop.layers.functionalize.api import Inputs
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import Storage, Unknown, functional
from polyop.ops.inplace import copy_
from polyop.tensor.storage import bump, share
from polyop.tensor.tensor import Tensor


def apply_at_functionalization(
    level: FunctionalLevel, cls: type[Function], args: Sequence[Any]
) -> Any:
    """Apply a `Function` below a functionalization, and wrap what it gives.

    Raises:
        MutationError: it writes an argument in a way that cannot be followed.
    """
    leaves, spec = tree.flatten(tuple(args))
    call = Call(cls, level, leaves)
    if cls not in _made:
        _made[cls] = without_writes(cls)
    token = _CALL.set(call)
    try:
        out = run_under(level.below(), _made[cls].apply, *tree.unflatten(spec, call.values))
    finally:
        _CALL.reset(token)
    results, out_spec = tree.flatten(out)
    for i, new in call.unseen.items():
        call.replace(i, new)
    return tree.unflatten(out_spec, [call.wrapped(k, x) for k, x in enumerate(results)])


APPLY[FunctionalLevel] = apply_at_functionalization


class Call:
    """One call, and what its forward did with the arguments; these, and results, by number.

    Attributes:
        returned: of the results that are arguments, which.
        shared: of the results that are views of arguments, of which.
        written: the arguments that have a new value, which is a result.
        unseen: the new values of others, through which no gradient flows.
    """

    def __init__(self, cls: type[Function], level: FunctionalLevel, args: Sequence[Any]) -> None:
        self.traits = traits_of(cls)
        self.level = level
        self.args = args
        self.values = [level.peel(x) for x in args]
        self.returned: dict[int, int] = {}
        self.shared: dict[int, int] = {}
        self.written: set[int] = set()
        self.unseen: dict[int, Tensor] = {}

    # -- forward --------------------------------------------------------------

    def run(self, fn: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Call a function that writes nothing but new values."""
        leaves, spec = tree.flatten(tuple(args))
        inner = FunctionalLevel(self.level.copy_views)
        inputs = Inputs([x for x in leaves if isinstance(x, Tensor)], inner)
        given = [inputs.wrapped.get(id(x), x) for x in leaves]
        try:
            out = run_under(inner.inner_word(), fn, *tree.unflatten(spec, given))
            results, out_spec = tree.flatten(out)
            numbers = {id(x): i for i, x in reversed([*enumerate(given)])}
            self._note(results, given, numbers)
            self._note_writes(inputs, leaves, given)
            plain = [self._plain(k, x, leaves, inner) for k, x in enumerate(results)]
        finally:
            inner.alive = False
        return tree.unflatten(out_spec, plain)

    def _note(self, results: Sequence[Any], given: Sequence[Any], numbers: dict[int, int]) -> None:
        """Note which results are arguments, or share their memory."""
        memory = {id(x.payload.storage): i for i, x in enumerate(given) if _is_functional(x)}
        for k, x in enumerate(results):
            if _is_functional(x):
                if id(x) in numbers:
                    self.returned[k] = numbers[id(x)]
                elif id(x.payload.storage) in memory:
                    self.shared[k] = memory[id(x.payload.storage)]

    def _note_writes(self, inputs: Inputs, leaves: Sequence[Any], given: Sequence[Any]) -> None:
        """Note the arguments that have a new value; refuse what cannot be followed."""
        for base, storage in inputs.storages.values():
            if storage.value is base:
                continue
            ids = {id(x) for x in given if _is_functional(x) and x.payload.storage is storage}
            if len(ids) > 1 or self._is_given_twice():
                self.refuse("writes memory that two of its arguments share", "give it a clone")
            (i,) = (i for i, x in enumerate(given) if id(x) in ids)
            if i in self.returned.values():
                self.written.add(i)
            elif _is_plain(leaves[i]) and leaves[i] is self.values[i]:
                self.unseen[i] = storage.value
            else:
                self.refuse("writes an argument that it does not return", "return it")

    def _is_given_twice(self) -> bool:
        """Tell whether arguments share memory that their values, which are copies, do not."""
        storages = [id(x.payload.storage) for x in self.args if self.level.owns(x)]
        return self.level.copy_views and len(set(storages)) < len(storages)

    def _plain(self, k: int, x: Any, leaves: Sequence[Any], inner: FunctionalLevel) -> Any:
        i = self.returned.get(k)
        return inner.peel(x) if i is None or i in self.written else leaves[i]

    def inputs_of(self, args: Sequence[Any], out: Any) -> tuple[Any, ...]:
        """Give the arguments as they are after forward."""
        leaves, spec = tree.flatten(tuple(args))
        results = tree.leaves(out)
        for i, new in self.unseen.items():
            leaves[i] = new
        for k, i in self.returned.items():
            if i in self.written:
                leaves[i] = results[k]
        return tuple(tree.unflatten(spec, leaves))

    # -- results --------------------------------------------------------------

    def wrapped(self, k: int, value: Any) -> Any:
        """Wrap a result; what shares memory with an argument is known as a view of it."""
        if not isinstance(value, Tensor):
            return value
        i = self.returned.get(k, self.shared.get(k))
        if i is None:
            return self.level.wrap(value)
        arg = self.args[i]
        if k in self.returned and i in self.written:
            self.replace(i, value)
            return arg
        if not self.level.owns(arg):
            return value
        if value is self.values[i]:
            return arg
        storage = arg.payload.storage
        step = Given(self.traits, value, storage, storage.generation)
        t = functional(storage, (*arg.payload.chain, step), self.level, value)
        t.version = share(arg)
        return t

    def replace(self, i: int, new: Tensor) -> None:
        """Give an argument, and all who share its memory, a new value."""
        arg = self.args[i]
        if self.level.owns(arg):
            bump(arg)
            arg.payload.replace(new)
        else:  # the function closes over it, so it is not ours to replace
            run_under(self.level.below(), copy_, arg, new)

    def refuse(self, why: str, fix: str) -> NoReturn:
        """Raise the error of a write that cannot be followed."""
        who = self.traits
        raise MutationError(
            f"{who} {why} under {self.level.kind}", op=who, source=who.source, fix=fix
        )


#: The call that is running.
_CALL: ContextVar[Call] = ContextVar("call")
#: The functions without writes that were made, as the traits of every class are kept.
_made: dict[type[Function], type[Function]] = {}


def without_writes(cls: type[Function]) -> type[Function]:
    """Give the `Function` that gives new values for what it would write."""

    @wraps(cls.forward)
    def forward(*args: Any) -> Any:
        return _CALL.get().run(cls.forward, args)

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        setup = traits_of(cls).setup
        assert setup is not None
        setup(ctx, _CALL.get().inputs_of(inputs, output), output)

    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _CALL.get().run(partial(cls.vmap, info, in_dims), args)  # type: ignore[attr-defined]

    methods: dict[str, Any] = {"forward": forward, "setup_context": setup_context}
    if hasattr(cls, "vmap"):
        methods["vmap"] = vmap
    body = {name: staticmethod(method) for name, method in methods.items()}
    made: type[Function] = new_class(cls.__name__, (cls,), exec_body=lambda ns: ns.update(body))
    return made


def _is_functional(value: Any) -> bool:
    return isinstance(value, Tensor) and isinstance(
        getattr(value.payload, "level", None), FunctionalLevel
    )


def _is_plain(value: Tensor) -> bool:
    return not value.keys & (GRAD | WRAPPED)


@dataclass(frozen=True, slots=True)
class Given(Unknown):
    """A view of an argument that a `Function` gave: only it can give another."""

    op: Traits  # type: ignore[assignment]
    value: Tensor
    storage: Storage
    generation: int

    def apply(self, base: Tensor) -> Tensor:
        """Give the view, as long as its memory was not written.

        Raises:
            MutationError: it was.
        """
        if self.storage.generation != self.generation:
            self._refuse("is used after a write to the same memory")
        return self.value

    def invert(self, base: Tensor, new: Tensor) -> Tensor:
        """Refuse a write."""
        self._refuse("is written")

    def _refuse(self, why: str) -> NoReturn:
        raise MutationError(
            f"a view that {self.op} gave of its argument {why}",
            op=self.op, source=self.op.source, fix="let forward give a clone",
        )  # fmt: skip

"""A rule whose parameters do not fit its operator: the call that meets it is told so (S1).

What a function takes is known from its signature, but a signature may say less than
the truth, and a rule that is never called does no harm. So nothing is refused when it is
registered: a function that does not look right is called through `Unfit`, which looks
again at how the call failed. All others are called as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from polyop.dispatch.class_slots import PREFIX
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.table import Kernel, Place
from polyop.errors import UsageTypeError
from polyop.schema.model import FunctionSchema
from polyop.source import Source

if TYPE_CHECKING:
    from polyop.dispatch.operator import OpOverload

Fn = Callable[..., Any]


class Given(NamedTuple):
    """What a rule is given, by name: by position, then by keyword; and what the rule is called."""

    rule: str
    positional: Sequence[str]
    named: Sequence[str] = ()

    def __str__(self) -> str:
        return f"({', '.join([*self.positional, *(['*', *self.named] if self.named else [])])})"

    def fits(self, fn: Fn) -> bool:
        """Tell whether a function takes that; one that does not say takes all."""
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            return True
        try:
            signature.bind(*self.positional, **dict.fromkeys(self.named))
        except TypeError:
            return False
        return True


def fitted(op: OpOverload, places: Collection[Place], kernel: Kernel) -> Kernel:
    """Give a kernel or rule, behind `Unfit` if it does not take what the operator gives it."""
    if kernel.fn is None or op.is_builtin or kernel.payload or kernel.takes_op:
        return kernel
    place = next(iter(places), None)
    if place is None or _is_plain(kernel.fn, op._schema, place, keyset=kernel.with_keyset):
        return kernel
    given = _given(op._schema, place, keyset=kernel.with_keyset)
    if given is None:
        return kernel
    return kernel._replace(fn=checked(op._schema, given, kernel.fn, kernel.source))


def checked(schema: FunctionSchema, given: Given, fn: Fn, source: Source) -> Fn:
    """Give a function, behind `Unfit` if it does not take what it is given."""
    fn = fn.fn if isinstance(fn, Unfit) else fn
    return fn if schema.is_vararg or given.fits(fn) else Unfit(schema, given, fn, source)


#: What a rule is given before the arguments, in number.
_BEFORE = {"fake": 0, "vmap": 2}


def _is_plain(fn: Any, schema: FunctionSchema, place: Place, *, keyset: bool) -> bool:
    """Tell whether a function takes just the arguments by position, as nearly all do."""
    before = int(keyset) if isinstance(place, DispatchKey) else _BEFORE.get(place)
    if before is None or schema.keyword_only:
        return False
    return _takes_just(fn, before + len(schema.arguments))


def _takes_just(fn: Any, n: int) -> bool:
    """Tell whether a plain function has so many parameters; `inspect` takes ten times as long."""
    if fn.__class__ is not FunctionType or fn.__dict__:
        return False
    code = fn.__code__
    return code.co_argcount == n and not code.co_kwonlyargcount


def _given(schema: FunctionSchema, place: Place, *, keyset: bool) -> Given | None:
    names = [a.name for a in schema.positional]
    named = [a.name for a in schema.keyword_only]
    if isinstance(place, DispatchKey) or place.startswith("kernel:"):
        return Given("kernel", [*(["keyset"] if keyset else []), *names], named)
    if place == "fake":
        return Given("fake rule", names, named)
    if place == "vmap":
        return Given("vmap rule", ["info", "in_dims", *names], named)
    if place == "jvp":
        return Given("jvp rule", ["ctx", *[f"d_{name}" for name in (*names, *named)]])
    if place.startswith(PREFIX):
        return Given("dispatch rule", ["mode_or_class", "op", "types", "args", "kwargs"])
    return None


def checked_backward(schema: FunctionSchema, fn: Fn, source: Source) -> Fn:
    """Give a backward, behind `Unfit` if it does not take a context and the gradients."""
    if _takes_just(fn, 1 + len(schema.returns)):
        return fn
    several = len(schema.returns) != 1
    names = [f"grad{i}" if several else "grad" for i in range(len(schema.returns))]
    return checked(schema, Given("backward", ["ctx", *names]), fn, source)


#: What `setup_context` is given by name, each or not; other names are given three by position.
SETUP = ("ctx", "inputs", "keyword_only_inputs", "output")


def checked_setup(schema: FunctionSchema, fn: Fn, source: Source) -> Fn:
    """Give a `setup_context`, behind `Unfit` if it can be called neither way (S124)."""
    if _takes_just(fn, 3) or Given("", SETUP).fits(fn):
        return fn
    try:
        names = [p.name for p in inspect.signature(fn).parameters.values() if p.default is p.empty]
    except (TypeError, ValueError):
        return fn
    given = Given("setup_context", ["ctx", "inputs", "output"])
    return fn if set(names) <= set(SETUP) else checked(schema, given, fn, source)


class Unfit:
    """Calls a function that does not take, by its signature, what it is given."""

    def __init__(self, schema: FunctionSchema, given: Given, fn: Fn, source: Source) -> None:
        update_wrapper(self, fn)
        self.schema = schema
        self.given = given
        self.fn = fn
        self.source = source

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it all the same.

        Raises:
            UsageTypeError: it could not be called.
        """
        try:
            return self.fn(*args, **kwargs)
        except TypeError as error:
            if has_run(self.fn, error):
                raise
            raise self._told() from error

    def _told(self) -> UsageTypeError:
        schema, given = self.schema, self.given
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return UsageTypeError(
            f"the {given.rule} of {schema.qualified_name} does not take what it is given",
            op=schema,
            declared=f"{given.rule}{given}",
            seen=f"{name}{inspect.signature(self.fn)}",
            source=self.source,
            fix=f"write it with the parameters {given}",
        )


def has_run(fn: Fn, error: TypeError) -> bool:
    """Tell whether an error comes from inside a function, and not from the call of it."""
    below = error.__traceback__ and error.__traceback__.tb_next
    if below is None:
        return False
    inner: Any = inspect.unwrap(fn)
    code = getattr(inner, "__code__", None)
    while below is not None:
        if below.tb_frame.f_code is code:
            return True
        below = below.tb_next
    # A decorator's function has run; what it said may be that the inner one cannot be called.
    return not str(error).startswith(f"{getattr(inner, '__qualname__', '')}()")

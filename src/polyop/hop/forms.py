"""What the operators with several functions have in common: the form of a call, and its checks.

NOTE [Flat forms]
Users give trees, and functions of trees. A call that is recorded, batched or
differentiated is first brought into its flat form: each group of operands a
tuple of leaves, each function one of leaves that gives a tuple of leaves,
with the tensors that it closes over among its operands where a layer must see
them. Rules work on flat forms alone; results get their structure at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from inspect import signature
from typing import Any, NamedTuple, NoReturn

from polyop import tree
from polyop.dispatch.bits import BATCHED, FAKE, GRAD, LIFTED, WRAPPED
from polyop.dispatch.parameters import Given, has_run
from polyop.errors import PolyopError, SubgraphError, UsageTypeError
from polyop.layers.trace.make_fx import leaf_names
from polyop.ops.rounding import clone
from polyop.source import Source, source_of
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]
Group = tuple[Any, ...]


class Form(NamedTuple):
    """A call: its functions, its operands by group, its options.

    The last group goes behind the other operands of every function.
    """

    functions: tuple[Fn, ...]
    groups: tuple[Group, ...]
    options: dict[str, Any]

    @property
    def leaves(self) -> list[Any]:
        """All operands."""
        return tree.leaves(self.groups)

    @property
    def is_flat(self) -> bool:
        """Whether the functions are of leaves."""
        return all(isinstance(fn, Flat) for fn in self.functions)

    def given(self, leaves: Sequence[Any]) -> Form:
        """Give the same call of other operands."""
        rest = iter(leaves)
        groups = tuple(tuple(next(rest) for _ in group) for group in self.groups)
        return self._replace(groups=groups)


class Flat:
    """A function of leaves, which gives a tuple of leaves.

    Args:
        fn: the function, of trees.
        spec: the structure of its arguments, or None if they are leaves.
        name: what errors call it.

    Attributes:
        result: the structure of what it gave last.
        source: the function that it was made of, which tells what its own function gave.
        recorded: whether it runs inside a step of autograd.
        repeats: whether it runs a function that has run before, for a gradient.
        used: the tensors that a trace found it to use and not to get.
        needed: for each leaf of its call whether it requires grad; None if that is not known.
    """

    def __init__(self, fn: Fn, spec: Any = None, name: str = "") -> None:
        self.__wrapped__ = fn
        self.spec = spec
        self.name = name or getattr(fn, "name", "") or getattr(fn, "__name__", "a function")
        self.result: Any = None
        self.source: Flat | None = None
        self.recorded = False
        self.repeats = False
        self.used: list[Tensor] = []
        self.needed: Sequence[bool] | None = None

    def __call__(self, *leaves: Any) -> Group:
        """Call the function."""
        out = self.__wrapped__(*self.arguments(leaves))
        flat, self.result = tree.flatten(out)
        return tuple(flat)

    def arguments(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Give the arguments of the function, and then what it closed over."""
        if self.spec is None:
            return leaves
        count = self.spec.num_leaves
        return (*tree.unflatten(self.spec, leaves[:count]), *leaves[count:])

    def leaf_names(self, operands: Sequence[Any]) -> list[str]:
        """Name the leaves of the operands, as the function does."""
        return leaf_names(self.__wrapped__, tuple(self.arguments(tuple(operands))))

    def remade(self, fn: Fn) -> Flat:
        """Give a function that was made of this one, for the same place."""
        made = Flat(fn, None, self.name)
        made.source = self
        made.recorded, made.repeats, made.used = self.recorded, self.repeats, self.used
        return made

    @property
    def told(self) -> Any:
        """The structure of what the user's own function gave last, whoever acts around it."""
        return self.result if self.source is None else self.source.told

    def inside(self, *, repeats: bool = False) -> Flat:
        """Give the same function for use inside a step of autograd."""
        again = copy(self)
        again.recorded, again.repeats = True, repeats or self.repeats
        return again


def flat(fn: Fn, spec: Any = None, name: str = "") -> Flat:
    """Give the flat form of a function."""
    return fn if isinstance(fn, Flat) else Flat(fn, spec, name)


def closed(fn: Flat) -> Flat:
    """Give a function of leaves whose results share no memory with its operands."""

    def own(*given: Any) -> Group:
        ids = {id(x) for x in given}
        return tuple(_own(x, ids) for x in fn(*given))

    own.__wrapped__ = fn  # type: ignore[attr-defined]
    return fn.remade(own)


def _own(value: Any, ids: set[int]) -> Any:
    shared = isinstance(value, Tensor) and (id(value) in ids or id(value._base) in ids)
    return clone(value) if shared else value


# -- what leaves are ----------------------------------------------------------


def innermost_keys(value: Any) -> int:
    """Give the bits of a tensor and of all that it wraps; 0 for another value."""
    bits = 0
    while isinstance(value, Tensor):
        bits |= value.keys
        if not value.keys & WRAPPED:
            break
        value = inside(value)
    return bits


def inside(value: Tensor) -> Tensor:
    """Give the tensor that a tensor of a transform wraps."""
    record = value.payload
    found: Tensor = record.value() if callable(record.value) else record.value
    return found


def graded(form: Form) -> bool:
    """Tell whether an operand requires grad, which only the trace of a gradient may know itself."""
    fns: Any = form.functions
    if any(fn.repeats for fn in fns):
        return any(fn.needed is None for fn in fns)
    keys = GRAD | LIFTED
    return any(fn.recorded for fn in fns) or any(innermost_keys(x) & keys for x in form.leaves)


def is_fake(value: Any) -> bool:
    """Tell whether a value is a fake, or wraps one."""
    return bool(innermost_keys(value) & FAKE)


def is_batched(value: Any) -> bool:
    """Tell whether a value differs from sample to sample of some vmap."""
    return bool(innermost_keys(value) & BATCHED)


def describe(value: Any) -> str:
    """Write what a leaf is, for errors."""
    if isinstance(value, Tensor):
        return f"{value.dtype.name}{list(value.shape)}"
    return f"{type(value).__name__} {value!r:.40}"


def outline(spec: Any) -> str:
    """Write a structure with a star for each leaf."""
    text = str(spec).removeprefix("PyTreeSpec(").removesuffix(")")
    return text.partition(", namespace=")[0]


def breach(problem: str, op: Any, fn: Any = None, **parts: Any) -> NoReturn:
    """Raise the error of functions that do not fit a call (S180, S182)."""
    source = "" if fn is None else written_at(fn)
    raise SubgraphError(problem, op=op, source=source, **parts)


def written_at(fn: Any) -> Source:
    """Give the place where the user's own function is written, whatever is wrapped around it."""
    while hasattr(fn, "__wrapped__"):
        fn = fn.__wrapped__
    return source_of(fn)


def refuse_parameters(op: Any, error: TypeError, form: Form) -> None:
    """Tell of a function of a call, which failed, that could not be called with what it gets.

    Raises:
        UsageTypeError: there is one.
    """
    if isinstance(error, PolyopError):
        return
    for name, fn, operands in zip(op.names, form.functions, op.arguments(form), strict=True):
        gets = Given(name, [f"operand{i}" for i in range(len(operands))])
        if not gets.fits(fn) and not has_run(fn, error):
            raise UsageTypeError(
                f"{name} of {op} does not take what it is given", op=op, argument=name,
                declared=f"{name}{gets}", seen=f"{getattr(fn, '__name__', name)}{signature(fn)}",
                source=written_at(fn), fix="give it one parameter for each operand",
            ) from error  # fmt: skip


def same_structure(op: Any, first: tuple[str, Any], second: tuple[str, Any], fn: Any) -> None:
    """Check that two structures are equal.

    Raises:
        SubgraphError: they are not.
    """
    (name, spec), (other, found) = first, second
    if spec != found:
        breach(
            f"{name} and {other} of {op} have different structures", op, fn, argument=other,
            declared=f"{name}: {outline(spec)}", seen=f"{other}: {outline(found)}",
            fix="give the same containers, with as many tensors",
        )  # fmt: skip


def path_of(spec: Any, i: int) -> str:
    """Name a leaf of a structure."""
    return tree.paths(tree.unflatten(spec, list(range(spec.num_leaves))))[i]

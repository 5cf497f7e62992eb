"""The words and the order of arguments that methods of `Tensor` take: PyTorch's, beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from polyop.dispatch.late_operators import LATE_OPERATORS
from polyop.errors import UsageTypeError
from polyop.ops.define import ON_TENSORS
from polyop.ops.late_methods import LateMethod
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]

#: PyTorch's words for arguments.
WORDS = {
    "dim": "axis", "keepdim": "keepdims", "dims": "axis", "dim0": "axis1", "dim1": "axis2",
    "start_dim": "start_axis", "end_dim": "end_axis", "shifts": "shift", "diagonal": "k",
}  # fmt: skip


def attach(name: str, method: Any) -> None:
    """Make something an attribute of `Tensor`."""
    setattr(Tensor, name, method)


def by_words(fn: Fn, *order: str) -> Fn:
    """Take PyTorch's words; `order` names the positional ones of a keyword-only function."""

    @wraps(fn)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            if not args:
                return fn(self)
            if order and len(args) == 1 and args[0].__class__ is not bool:
                return fn(self, **{order[0]: args[0]})
        named = {WORDS.get(word, word): value for word, value in kwargs.items()} if kwargs else {}
        if not order:
            return fn(self, *args, **named)
        if args:
            _check(fn.__name__, order, args, named)
            named |= zip(order, args, strict=False)
        return fn(self, **named)

    return method


def _check(name: str, order: Sequence[str], args: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuse values without a place, and truth values in the place of an axis.

    Raises:
        UsageTypeError: there are more values than `order` has names, one is given twice, or the
            axis is a truth value, which another word's value would be.
    """
    twice = [word for word in order[: len(args)] if word in named]
    if len(args) > len(order) or twice:
        raise UsageTypeError(
            f"{name}() got {f'{twice[0]!r} twice' if twice else 'too many arguments'}",
            declared=f"{name}({', '.join(order)})",
            seen=f"{len(args)} by position, {', '.join(named) or 'none'} by name",
            fix="give each argument once",
        )
    if order[0] == "axis" and args[0].__class__ is bool:
        raise UsageTypeError(
            f"{name}() takes an axis first, not a truth value",
            declared=f"{name}({', '.join(order)})",
            seen=args[0],
            fix="name the argument that is meant",
        )


def attach_by_words(name: str, op: str, *order: str) -> None:
    """Make an operator a method: now, or when it is asked for if it is defined then."""
    place = LATE_OPERATORS.get(f"core::{op}")
    if place is None:
        attach(name, by_words(ON_TENSORS[op], *order))
    else:
        attach(name, LateMethod(name, f"{place}:{op}", lambda fn: by_words(fn, *order)))

"""The door of functions in front of operators: what their arguments are, as schemas say it.

Such a function asks its tensors for axes and sizes before an operator sees them, so
what is no tensor fails somewhere inside. The door looks at the arguments only then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from polyop.errors import ArgumentError, IntegerRangeError, PolyopError
from polyop.schema.model import Argument
from polyop.schema.parse import parse_schema
from polyop.schema.values import Mismatch, convert
from polyop.source import PACKAGE

F = TypeVar("F", bound=Callable[..., Any])
#: What Python raises for a value that is something else than a function takes it for.
BARE = (AttributeError, TypeError, ValueError, LookupError, OverflowError)


def takes(arguments: str) -> Callable[[F], F]:
    """Say what a function takes; another value gets the error that an operator has for it.

    Args:
        arguments: as in a schema, `"Tensor x, int axis"`; some may be left out, and defaults are
            the function's own.
    """

    def put(fn: F) -> F:
        @wraps(fn)
        def through(*args: Any, **kwargs: Any) -> Any:
            try:
                return fn(*args, **kwargs)
            except BARE as error:
                if not isinstance(error, PolyopError) and _is_ours(error):
                    _check(fn, arguments, args, kwargs)
                raise

        return through  # type: ignore[return-value]

    return put


def _is_ours(error: BaseException) -> bool:
    """Tell whether it was code of ours that met the value, and no user's own."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    file = "" if place is None else place.tb_frame.f_code.co_filename
    return file.startswith((PACKAGE, "<polyop "))


def _check(fn: Any, arguments: str, args: Any, kwargs: Any) -> None:
    """Refuse a value that does not fit.

    Raises:
        ArgumentError: there is one.
    """
    name = fn.__name__.strip("_")
    schema = parse_schema(f"core::{name}({arguments}) -> ()")
    try:
        given = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError:
        return  # what Python says of a call without its arguments
    names = list(given.signature.parameters)
    for argument in schema.arguments:
        if argument.name not in given.arguments:
            continue  # a default
        value = given.arguments[argument.name]
        try:
            convert(argument.type, value)
        except Mismatch as mismatch:
            _refuse(name, argument, names.index(argument.name), value, mismatch)


def _refuse(name: str, argument: Argument, i: int, value: Any, mismatch: Mismatch) -> None:
    kind = IntegerRangeError if mismatch.overflows else ArgumentError
    wanted = str(argument.type)
    raise kind(
        f"core::{name} cannot take {type(value).__name__} as argument {argument.name!r}"
        + (f": {mismatch.reason}" if mismatch.reason else ""),
        op=f"core::{name}",
        argument=f"{argument.name} (position {i})",
        declared=wanted,
        seen=f"{value!r:.120} ({type(value).__name__})",
        fix="make it a tensor: polyop.asarray(...)"
        if wanted.startswith("Tensor")
        else f"give a value of type {wanted}",
    ) from None


__all__ = ["takes"]

"""Which operators have an ONNX translation, and how authors add one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from polyop.dispatch.registry import as_operator
from polyop.errors import DuplicateRegistrationError
from polyop.source import source_of

Fn = TypeVar("Fn", bound=Callable[..., Any])

#: By operator, the function that adds its ONNX operators to a model.
TRANSLATIONS: dict[Any, Callable[..., Any]] = {}


@overload
def register_onnx(op: Any) -> Callable[[Fn], Fn]: ...
@overload
def register_onnx(op: Any, fn: Fn) -> Fn: ...
def register_onnx(op: Any, fn: Fn | None = None) -> Fn | Callable[[Fn], Fn]:
    """Say what an operator is in ONNX; usable as a decorator.

    Args:
        op: the operator.
        fn: called as `fn(model, *args, **kwargs)` with the operator's arguments, ONNX
            values in the place of tensors and sizes; gives a value, or a tuple of them. It adds
            operators with `model.op("Add", a, b)`, and makes constants with `model.constant(...)`.
            It raises `Untranslatable` for arguments that ONNX cannot do.

    Raises:
        DuplicateRegistrationError: the operator has a translation, from another place.
    """

    def register(translation: Fn) -> Fn:
        found = as_operator(op)
        known = TRANSLATIONS.get(found)
        if known is not None and source_of(known) != source_of(translation):
            raise DuplicateRegistrationError(
                f"{found} has an ONNX translation",
                op=found,
                seen=source_of(translation),
                source=source_of(known),
            )
        TRANSLATIONS[found] = translation
        return translation

    return register if fn is None else register(fn)


class Untranslatable(Exception):  # noqa: N818 - it says "not this one", and never leaves the backend
    """These arguments of an operator have no ONNX form; the call stays outside."""

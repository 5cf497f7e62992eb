"""`export::access_subclass_inner_tensor`: a tensor inside a wrapper, as an operator (S194)."""

from __future__ import annotations

from polyop.dispatch.library import Library
from polyop.errors import ObjectError, UsageTypeError, an, nearest
from polyop.lazy import load
from polyop.tensor.tensor import Tensor

LIBRARY = Library("export", "FRAGMENT")
NAME = "access_subclass_inner_tensor"
LIBRARY.define(f"{NAME}(Tensor src_subclass_tensor, str attr) -> Tensor")


def access_subclass_inner_tensor(src_subclass_tensor: Tensor, attr: str) -> Tensor:
    """Give a tensor inside a traceable wrapper: itself, with its gradient.

    Raises:
        UsageTypeError: the tensor is no traceable wrapper.
        ObjectError: it has no tensor of that name.
    """
    if not load("polyop.tensor.subclass:is_traceable_wrapper_subclass")(src_subclass_tensor):
        raise UsageTypeError(
            f"{NAME} takes a traceable wrapper",
            op=f"export::{NAME}",
            argument="src_subclass_tensor",
            declared="a subclass with __tensor_flatten__ and __tensor_unflatten__",
            seen=type(src_subclass_tensor).__name__,
        )
    found = getattr(src_subclass_tensor, attr, None)
    if not isinstance(found, Tensor):
        names = list(src_subclass_tensor.__tensor_flatten__()[0])  # type: ignore[attr-defined]
        raise ObjectError(
            f"{an(type(src_subclass_tensor).__name__)} has no tensor {attr!r}"
            f"{nearest(attr, names)}",
            op=f"export::{NAME}",
            argument="attr",
            declared=", ".join(names),
            seen="nothing" if found is None else type(found).__name__,
        )
    return found


for _key in ("Autograd", "Python"):
    LIBRARY.impl(NAME, access_subclass_inner_tensor, _key)

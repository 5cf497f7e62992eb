"""Written functions are hidden from Dynamo, which would compile what runs inside of a kernel.

Where it has given up on a call, Python runs it, and Dynamo looks at each function that is called
then. PyTorch's documented way to keep it out costs each call two microseconds; marking the code
costs none, by a name that PyTorch does not promise, so that the other way stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakSet

import torch

#: The functions that are written for PyTorch.
WRITTEN: WeakSet[Callable[..., Any]] = WeakSet()
#: Who is told of each.
TELL: list[Callable[[Callable[..., Any]], None]] = []
_untraced: Any = torch.compiler.disable


def announce(fn: Any) -> Any:
    """Let a written function be known, and give it."""
    WRITTEN.add(fn)
    for tell in TELL:
        tell(fn)
    return fn


def hide(fn: Any) -> None:
    """Keep Dynamo out of a function, and of all that it calls."""
    if not mark(fn.__code__):
        _replace(fn)


def hide_all() -> None:
    """Hide the functions that are written, and those that will be."""
    TELL.append(hide)
    for fn in list(WRITTEN):
        hide(fn)


def mark(code: Any) -> bool:
    """Mark code as not to be looked at; False if PyTorch has no such mark."""
    inner: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
    skip = getattr(getattr(inner, "_FrameAction", None), "SKIP", None)
    strategy = getattr(inner, "_FrameExecStrategy", None)
    mark = getattr(inner, "set_code_exec_strategy", None)
    if skip is None or strategy is None or mark is None:
        return False
    mark(code, strategy(skip, skip))
    return True


def _replace(fn: Any) -> None:
    """Let a function call what it was, without Dynamo."""
    whole = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__)
    fn.__globals__["hidden"] = _untraced(whole)
    scope: dict[str, Any] = {}
    exec("def f(*given): return hidden(*given)", scope)  # noqa: S102 - a constant
    fn.__code__ = scope["f"].__code__

"""Who watches a call in PyTorch: its transforms, duals and modes, asked as cheaply as it can be.

NOTE [Names without a promise]
What PyTorch documents answers all of it, for each tensor, at half a microsecond a question. Names
of its own answer at a tenth of that. They are looked up by name, tried once in a thread where
nothing is active, and taken if all of them say what they should; else the documented ones do it,
and `QUICK.reason` says why. No result depends on which are used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Thread
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Test = Callable[[Any], bool]
forward_ad: Any = torch.autograd.forward_ad  # without types
debug_unwrap: Any = torch.func.debug_unwrap
unpack_dual: Any = forward_ad.unpack_dual


class Watch(NamedTuple):
    """The questions.

    Attributes:
        wrapped: whether a tensor is the value of a transform, be it a past one.
        transforms: whether a transform runs, so that a plain tensor may be one that it captures.
        below: a context in which PyTorch records nothing, and looks for nothing to record.
        modes: whether anything is active that sees the calls of PyTorch's operators.
        levels: has `_current_level`, which is below zero while no dual exists; None if unknown.
        reason: why these are the documented ones; nothing if they are not.
    """

    wrapped: Test
    transforms: Callable[[], bool]
    below: Callable[[], AbstractContextManager[Any]]
    modes: Callable[[], bool]
    levels: Any
    reason: str


def documented(reason: str) -> Watch:
    """Give the answers that are made of documented names."""
    return Watch(
        lambda t: debug_unwrap(t, recurse=False) is not t,
        lambda: True,
        nullcontext,
        lambda: True,
        None,
        reason,
    )


def is_dual(t: Any) -> bool:
    """Tell whether a tensor carries a tangent."""
    return unpack_dual(t).tangent is not None


def _found() -> Watch:
    # Without types, and AttributeError where PyTorch has another name.
    inner: Any = torch._C
    stack, included = inner._len_torch_dispatch_stack, inner._dispatch_tls_is_dispatch_key_included
    early = inner.DispatchKey.PreDispatch

    def modes() -> bool:
        return bool(stack() or included(early))

    return Watch(
        inner._functorch.is_functorch_wrapped_tensor,
        inner._are_functorch_transforms_active,
        inner._AutoDispatchBelowAutograd,
        modes,
        forward_ad,
        "",
    )


def _holds(watch: Watch) -> bool:
    """Try the questions, where nothing is active before."""
    inner: Any = torch._C._functorch
    mode: Any = TorchDispatchMode
    x = torch.ones(1, requires_grad=True)
    seen = [not watch.wrapped(x) and not watch.transforms() and not watch.modes()]
    # A transform by hand: entering one of `torch.func` reads the whole compiler.
    level = inner._grad_increment_nesting()
    try:
        value = inner._wrap_for_grad(x, level)
        seen.append(watch.wrapped(value) and watch.transforms())
    finally:
        inner._grad_decrement_nesting()
    with watch.below():
        seen.append(not (x * 2).requires_grad and torch.is_grad_enabled())
    seen.append((x * 2).requires_grad and not watch.transforms())
    with mode():
        seen.append(watch.modes())
    guard: Any = torch._C._IncludeDispatchKeyGuard
    with guard(torch._C.DispatchKey.PreDispatch):
        seen.append(watch.modes())
    before = forward_ad._current_level  # the process's: what is active in any thread is
    if before < 0:
        with forward_ad.dual_level():
            seen.append(forward_ad._current_level >= 0)
    return all(seen) and not watch.modes() and forward_ad._current_level == before


def _chosen() -> Watch:
    answers: list[Watch] = []

    def choose() -> None:
        try:
            found = _found()
            held = _holds(found)
        except Exception as error:  # any name may be gone, or mean something else
            answers.append(documented(f"{type(error).__name__}: {error}"))
        else:
            answers.append(
                found if held else documented("a private name of it means another thing")
            )

    # In a thread of its own: what is active here, as in a transform, is not active there.
    thread = Thread(target=choose)
    thread.start()
    thread.join()
    return answers[0]


#: What is asked in this process.
QUICK = _chosen()

"""PyTorch's kernel for autograd, with a short way past it for calls that nobody records.

`torch.library.register_autograd` makes a kernel that takes five microseconds to find that there is
nothing to record; compiled programs meet it at each call. The short way asks the same question
first, by names that PyTorch does not promise; without them its own kernel stays as it is. Where
nothing but the kernel for NumPy's arrays is below, it calls that at once.

Of duals PyTorch's kernel knows nothing, and would give results without a tangent in silence: where
any exist they are looked for first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.listed import Asks
from polyop.bridges.torch.watch import QUICK

_grads = torch.is_grad_enabled
_below: Any = QUICK.below
Pushed = Callable[[Sequence[Any], dict[str, Any]], Any]


class Shortening:
    """Stands for a library while PyTorch registers its kernel there.

    Args:
        library: the library.
        target: the operator.
        kernel: on NumPy's arrays; None if there are others.
        pushed: of the arguments: the results with their tangents, `NotImplemented` without duals.
        wanted: whether a gradient of any argument is asked for; None if nothing can tell.
    """

    def __init__(
        self,
        library: Any,
        target: Any,
        kernel: Callable[..., Any] | None,
        pushed: Pushed,
        wanted: Asks | None,
    ) -> None:
        self.library = library
        self.target = target
        self.pushed = pushed
        self.wanted = wanted
        self.direct = Direct(target.name(), kernel)

    def impl(self, name: str, kernel: Any, key: str, **named: Any) -> None:
        """Register a kernel, with the short way before it."""
        if key == "Autograd" and named == {"with_keyset": True}:
            kernel = shortened(kernel, self)
        self.library.impl(name, kernel, key, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


class Direct:
    """The kernel for tensors on the CPU, for as long as no library has put another there."""

    __slots__ = ("impls", "kernel", "name", "seen")

    def __init__(self, name: str, kernel: Callable[..., Any] | None) -> None:
        self.name = name
        self.impls: Any = getattr(torch.library, "_impls", None)
        self.kernel = None if self.impls is None else kernel
        self.seen = -1

    def look(self) -> bool:
        """Look for another kernel, since libraries have got some."""
        self.seen = len(self.impls)
        if torch._C._dispatch_has_kernel_for_dispatch_key(self.name, "CPU"):
            self.kernel = None
        return self.kernel is not None

    def stop(self) -> None:
        """Leave the choice of the kernel to PyTorch."""
        self.kernel = None


def shortened(kernel: Callable[..., Any], short: Shortening) -> Callable[..., Any]:
    """Give a kernel that runs what is below at once, where no argument is recorded.

    Args:
        kernel: PyTorch's, for what is recorded.
        short: what else it needs to know.
    """
    inner: Any = torch._C
    target, direct, pushed, wanted = short.target, short.direct, short.pushed, short.wanted
    after = getattr(inner, "_after_autograd_keyset", None)
    redispatch = getattr(getattr(target, "_handle", None), "redispatch_boxed", None)
    if QUICK.reason or not (wanted and redispatch) or after is None:
        return announce(_looking(kernel, pushed))  # type: ignore[no-any-return]
    plain = inner.DispatchKeySet(inner.DispatchKey.CPU).raw_repr()
    known: dict[int, bool] = {}
    impls, levels = direct.impls, QUICK.levels

    def unrecorded(keyset: Any, *args: Any, **named: Any) -> Any:
        if levels._current_level >= 0:
            out = pushed(args, named)
            if out is not NotImplemented:
                return out
        if named or (_grads() and wanted(*args)):
            return kernel(keyset, *args, **named)
        found = direct.kernel
        if found is not None:
            raw = keyset.raw_repr()
            if raw not in known:
                known[raw] = (keyset & after).raw_repr() == plain
            if known[raw] and (direct.seen == len(impls) or direct.look()):
                return found(*args)
        with _below():
            return redispatch(keyset & after, *args)

    return announce(unrecorded)  # type: ignore[no-any-return]


def unwritten(
    target: Any, refuse: Callable[[Sequence[Any], dict[str, Any]], None], wanted: Asks | None
) -> Any:
    """Give the kernel for autograd of an operator that writes; None if PyTorch's names are gone.

    Args:
        target: the operator.
        refuse: raises where a write would not be seen by a gradient.
        wanted: whether a gradient of any argument is asked for; None if nothing can tell.
    """
    inner: Any = torch._C
    after = getattr(inner, "_after_autograd_keyset", None)
    redispatch = getattr(target, "redispatch", None)
    if QUICK.reason or not (wanted and redispatch) or after is None:
        return None
    levels = QUICK.levels

    def written(keyset: Any, *args: Any, **named: Any) -> Any:
        if named or (_grads() and wanted(*args)) or levels._current_level >= 0:
            refuse(args, named)
        with _below():
            return redispatch(keyset & after, *args, **named)

    return announce(written)


def _looking(kernel: Callable[..., Any], pushed: Pushed) -> Callable[..., Any]:
    def looking(keyset: Any, *args: Any, **named: Any) -> Any:
        out = pushed(args, named)
        return kernel(keyset, *args, **named) if out is NotImplemented else out

    return looking

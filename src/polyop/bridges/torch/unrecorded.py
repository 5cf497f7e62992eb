"""PyTorch's kernel for autograd, with a short way past it for calls that nobody records.

`torch.library.register_autograd` makes a kernel that takes five microseconds to find that there is
nothing to record; compiled programs meet it at each call. The short way asks the same question
first, by names that PyTorch does not promise; without them its own kernel stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.watch import QUICK

_grads = torch.is_grad_enabled
_below: Any = QUICK.below


class Shortening:
    """Stands for a library while PyTorch registers its kernel there."""

    def __init__(self, library: Any, target: Any) -> None:
        self.library = library
        self.target = target

    def impl(self, name: str, kernel: Any, key: str, **named: Any) -> None:
        """Register a kernel, with the short way before it."""
        if key == "Autograd" and named == {"with_keyset": True}:
            kernel = shortened(kernel, self.target)
        self.library.impl(name, kernel, key, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


def shortened(kernel: Callable[..., Any], target: Any) -> Callable[..., Any]:
    """Give a kernel that runs what is below at once, where no argument is recorded."""
    inner: Any = torch._C
    wanted = getattr(inner, "_any_requires_grad", None)
    after = getattr(inner, "_after_autograd_keyset", None)
    redispatch = getattr(getattr(target, "_handle", None), "redispatch_boxed", None)
    if QUICK.reason or not (wanted and redispatch) or after is None:
        return kernel

    def unrecorded(keyset: Any, *args: Any, **named: Any) -> Any:
        if named or (_grads() and wanted(*args)):
            return kernel(keyset, *args, **named)
        with _below():
            return redispatch(keyset & after, *args)

    return announce(unrecorded)  # type: ignore[no-any-return]

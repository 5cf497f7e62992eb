"""Kernels at FuncTorchVmapMode act on every call inside vmap, also without batched tensors (S100)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.bits import BATCHED, LEVELS
from polyop.dispatch.context import word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import Handler
from polyop.dispatch.resolve import Way
from polyop.layers.own_kernels import own_kernel
from polyop.layers.vmap.batch import VmapLevel


class VmapModeLayer:
    """Hands calls inside vmap to the kernel at its key; those with batches are the levels'."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if there is such a kernel and a level may be running."""
        if not way.code & LEVELS or way.code & BATCHED:
            return None
        kernel = own_kernel(way, DispatchKey.FuncTorchVmapMode)
        if kernel is None:
            return None
        below = way.handler()

        def run(*args: Any) -> Any:
            # Of all transforms that run, the innermost one is asked.
            levels = word().levels
            inside = bool(levels) and isinstance(levels[-1], VmapLevel)
            return kernel(*args) if inside else below(*args)

        return run

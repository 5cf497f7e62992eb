"""Kernels at FuncTorchVmapMode: they act on all calls inside vmap, batched or not (S100)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.bits import BATCHED, LEVELS
from polyop.dispatch.context import run_under, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import Handler
from polyop.dispatch.resolve import Way
from polyop.layers.levels import innermost
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
            now, deepest = word(), innermost(args)
            running = [level for level in now.levels if isinstance(level, VmapLevel)]
            # A gradient that runs inside of the vmap goes first, if the call is its own.
            if not running or (deepest is not None and deepest.depth > running[-1].depth):
                return below(*args)
            return run_under(now.but(levels=now.levels[: running[-1].depth + 1]), kernel, *args)

        return run

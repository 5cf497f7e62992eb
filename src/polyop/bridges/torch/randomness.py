"""Random operators inside of `torch.func.vmap`: refused, drawn for each sample, or once (S160).

PyTorch asks no rule about a call whose arguments all samples share. So calls of an
`autograd.Function` get an argument of which each sample has its own, and PyTorch's operator has a
kernel at the key of a running vmap, which sees every call in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from polyop.bridges.torch.arrays import Call, split
from polyop.bridges.torch.batching import batched, refuse_random
from polyop.bridges.torch.draws import is_random
from polyop.bridges.torch.kernel import filled
from polyop.bridges.torch.written import BARE
from polyop.lazy import load

debug_unwrap: Any = torch.func.debug_unwrap
#: By names that PyTorch does not promise: the transform that runs, and its tensors.
_RUNNING = "torch._functorch.pyfunctorch:retrieve_current_functorch_interpreter"


class About(NamedTuple):
    """What a rule is told of a vmap."""

    batch_size: Any
    randomness: str


def _keys() -> Any:
    """Give the keys of a running vmap, under which its rules do not run."""
    key, keys = torch._C.DispatchKey, torch._C.DispatchKeySet
    return keys(key.FuncTorchBatched) | keys(key.FuncTorchVmapMode)


def each_its_own(call: Call, row: Sequence[Any]) -> Sequence[Any]:
    """Give a random operator an argument for each sample, where each draws its own.

    Args:
        call: inside of transforms.
        row: the tensors among its arguments.

    Raises:
        VmapError: a vmap around it does not say how.
    """
    if not is_random(call.op):
        return row
    try:
        one = torch.rand(())
    except RuntimeError:
        refuse_random(call.op)
    if debug_unwrap(one, recurse=False) is one:
        return row
    # The same values; a batch, wherever the condition is one.
    return [torch.where(one < 2, row[0], row[0]), *row[1:]]


def vmap_kernel(bridge: Any) -> Callable[..., Any]:
    """Give PyTorch's kernel of a random operator where a vmap runs.

    Args:
        bridge: of the operator.
    """

    def run(*args: Any, **named: Any) -> Any:
        try:
            vmap = load(_RUNNING)()
            about, level = About(vmap.batch_size(), vmap.randomness()), vmap.level()
        except (AttributeError, ImportError):
            refuse_random(bridge.op)
        row, kept = split(bridge.plan, filled(bridge.plan, args, named))
        call = Call(bridge.op, bridge.plan, bridge.target, kept)
        inner: Any = torch._C._functorch
        pairs = [inner._unwrap_batched(t, level) for t in row]
        token = BARE.set(True)
        try:
            with torch._C._ExcludeDispatchKeyGuard(_keys()):
                outs, dims = batched(
                    about, call, [t for t, _ in pairs], [d for _, d in pairs], bridge.target
                )
        finally:
            BARE.reset(token)
        whole = [
            t if d is None else inner._add_batch_dim(t, d, level)
            for t, d in zip(outs, dims, strict=True)
        ]
        return call.answer(whole)

    return run

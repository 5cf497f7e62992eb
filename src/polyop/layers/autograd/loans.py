"""Tensors from outside of `func.grad` and `func.jvp` that are written inside.

`out = zeros(n); out[0] = f(x)` writes a tensor that the level knows nothing of, with a value that
has a derivative. So the level takes the tensor over: it and all views of it become wrappers of the
level around copies of their values, and the write is one at the level. When the function is done,
what is still in use gets its body back, and the memory gets the value: whoever else has the
tensor, or its memory, sees what was written.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop import tree
from polyop.dispatch.bits import GRAD, LIFTED
from polyop.dispatch.context import run_under
from polyop.errors import MutationError, PolyopError, VmapError
from polyop.layers.autograd.holders import holders_of
from polyop.ops.define import ON_TENSORS
from polyop.ops.inplace import copy_
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor


class Loan(NamedTuple):
    """A tensor that a level took over, and its body."""

    tensor: Tensor
    body: Tensor


#: A base, and then its views.
Group = list[Loan]


def lending(level: Any, func: Callable[..., Any], *args: Any) -> Any:
    """Run the function of a level, which may take over what it writes; results stay wrappers."""
    level.loans = []
    try:
        out = func(*args)
    except BaseException:  # its frames keep what they wrote alive: that this is refused is no news
        _give_all_back(level, None)
        raise
    refused = _give_all_back(level, out) if level.loans else None
    level.loans = None
    if refused is not None:
        raise refused
    return out


def borrow(level: Any, target: Tensor) -> Sequence[Tensor]:
    """Make a tensor one of a level, with all that share its memory.

    Returns:
        The base and its views; nothing if the level may not take them over.
    """
    groups: list[Group] | None = getattr(level, "loans", None)
    root = target
    while getattr(root, "view_of", None) is not None:
        root = root.view_of[0]
    if groups is None:
        return ()
    holders = _holders(root)
    family = [root, *(t for t in holders if getattr(t, "view_of", None) is not None)]
    if _has_strangers(holders, family):
        return ()
    if target is not root and not any(t is target for t in family):
        family.append(target)
    if not all(_is_free(level, t) for t in family):
        return ()
    groups.append([_take_over(level, t) for t in family])
    return family


def _is_free(level: Any, tensor: Tensor) -> bool:
    """Tell whether no `backward` and no level inside knows the tensor, and it can be written."""
    payload = tensor.payload
    if tensor.keys & LIFTED and payload.level.depth > level.depth:
        return False  # a result of a transform inside, which it is still to take apart
    writeable = payload.__class__ is not np.ndarray or payload.flags.writeable
    known = tensor.keys & GRAD and not tensor.keys & LIFTED  # an outer level records the way back
    return type(tensor) is Tensor and not known and writeable


def _has_strangers(holders: Sequence[Tensor], family: Sequence[Tensor]) -> bool:
    """Tell whether a tensor shares the memory in a way that nobody noted."""
    # What a node or a trace saved has the payload of a tensor of the family.
    payloads = {id(t.payload) for t in family}
    return any(id(t.payload) not in payloads for t in holders)


def _holders(root: Tensor) -> list[Tensor]:
    """Give the living tensors that share the memory of a base, bases of views before them."""
    version = root.version
    if version.__class__ is not Version:
        return []
    holders = holders_of(version, [root], sys.getrefcount(version) - 2)
    return sorted([t for t in holders if t is not root], key=_depth)


def _depth(tensor: Tensor) -> int:
    depth = 0
    while getattr(tensor, "view_of", None) is not None:
        tensor, depth = tensor.view_of[0], depth + 1
    return depth


def _take_over(level: Any, tensor: Tensor) -> Loan:
    body = Tensor()
    body.payload, body.keys, body.version = tensor.payload, tensor.keys, tensor.version
    _copy_marks(tensor, body)
    # What the level records must not change when the memory gets its new value at the end.
    value = run_under(level.outer, ON_TENSORS["clone"], body)
    tensor.payload, tensor.keys = level.wrap(value).payload, LIFTED
    return Loan(tensor, body)


def _copy_marks(source: Tensor, target: Tensor) -> None:
    """Copy what a trace, or a gradient outside, has noted of a tensor."""
    for name in ("graph_node", "grad_node"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


# -- when the function is done ------------------------------------------------


def _give_all_back(level: Any, out: Any) -> PolyopError | None:
    """Give all tensors their bodies; give the first error of an outer level that refuses one."""
    groups: list[Group] = level.loans
    level.loans = None
    kept = {id(leaf) for leaf in tree.leaves(out)}
    refused: PolyopError | None = None
    while groups:
        found = run_under(level.outer, _give_back, groups.pop(), kept)
        refused = refused or found
    return refused


def _give_back(group: Group, kept: set[int]) -> PolyopError | None:
    value, body = group[0].tensor.payload.value, group[0].body
    lent = [(weakref.ref(loan.tensor), loan.body) for loan in group]
    group.clear()  # now they live only where the program has them
    if not _put_back(lent, kept):
        return None
    refused = _written(lent[0][0](), kept, body, value)
    if refused is None:
        return None
    gc.collect()  # what only a cycle of dead objects holds is read by nobody
    return refused if _put_back(lent, kept) else None


def _put_back(lent: Sequence[tuple[weakref.ref[Tensor], Tensor]], kept: set[int]) -> bool:
    """Give living tensors their bodies; tell whether anybody can see the memory."""
    living = [(t, own) for ref, own in lent if (t := ref()) is not None and id(t) not in kept]
    for tensor, own in living:
        tensor.payload, tensor.keys, tensor.version = own.payload, own.keys, own.version
        _copy_marks(own, tensor)
    return bool(living) or _is_seen(lent[0][1], [own.payload for _, own in lent[1:]])


def _written(base: Tensor | None, kept: set[int], body: Tensor, value: Any) -> PolyopError | None:
    """Write the value; give the error if an outer level refuses, without what it holds alive."""
    try:
        # Of the tensor itself where it can be: outer levels and gradients know it, not the body.
        copy_(base if base is not None and id(base) not in kept else body, value)
    except (MutationError, VmapError) as error:
        return error.with_traceback(None)
    return None


def _is_seen(body: Tensor, views: Sequence[Any]) -> bool:
    """Tell whether anything else has the array of a body, or its memory."""
    array = body.payload
    if array.__class__ is not np.ndarray:
        return False
    if array.base is not None:
        return True
    ours = sum(view.base is array for view in views)
    # Beside one that nobody else has: how many references a call adds depends on who runs frames.
    alone = Tensor()
    alone.payload = other = np.empty(0)
    return _references(array) > _references(other) + ours


def _references(array: Any) -> int:
    return sys.getrefcount(array)

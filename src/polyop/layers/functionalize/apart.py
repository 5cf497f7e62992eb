"""Parts of one memory that do not meet, told by the views that they are, whatever the sizes are."""

from __future__ import annotations

from math import inf
from typing import Any

from polyop.layers.functionalize.storage import Chain, Step, Unknown


def apart(a: Chain, b: Chain) -> bool:
    """Tell whether two views of one base are known to have no element in common.

    They are where they part at two places, or at two ranges, along one axis. No size is asked: a
    program may get another one.
    """
    for ours, theirs in zip(a, b, strict=False):
        if not same_view(ours, theirs):
            return _are_apart(ours, theirs)
    return False


def begins_with(chain: Chain, start: Chain) -> bool:
    """Tell whether a chain of views begins with another one, and their histories are the same."""
    if len(start) > len(chain):
        return False
    pairs = zip(chain, start, strict=False)
    return all(x is y or (getattr(x, "own", None) is None and same_view(x, y)) for x, y in pairs)


def same_view(ours: Step | Unknown, theirs: Step | Unknown) -> bool:
    """Tell whether two steps are known to be the same view."""
    if not isinstance(ours, Step) or not isinstance(theirs, Step):
        return False
    there = ours.op is theirs.op and ours.position == theirs.position and ours.path == theirs.path
    return there and all(map(_equal, ours.args, theirs.args))


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(_equal, x, y))
    return x is y or (type(x) is type(y) is int and x == y)


def _are_apart(ours: Step | Unknown, theirs: Step | Unknown) -> bool:
    a, b = _range(ours), _range(theirs)
    if a is None or b is None or a[0] != b[0]:
        return False
    return _ends_before(a[2], b[1]) or _ends_before(b[2], a[1])


def _ends_before(stop: float, start: float) -> bool:
    """Tell whether a stop is at or before a start, both counted from the same end."""
    return (stop < 0) == (start < 0) and stop <= start


def _range(step: Step | Unknown) -> tuple[int, int, float] | None:
    """Give an axis, and the start and stop of the range that a view is of it."""
    if not isinstance(step, Step) or step.op.name() not in {"core::select", "core::slice"}:
        return None
    name = step.op.name()
    axis, start, stop = *step.args[1:3], step.args[3] if name == "core::slice" else None
    start = 0 if start is None else start
    if type(start) is not int or type(stop) not in {int, type(None)}:
        return None
    if name == "core::select" and start != -1:
        stop = start + 1
    return axis, start, inf if stop is None else stop

"""Warnings at the user's own line, most of them once per operator and cause (S4)."""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from polyop.errors import GradientWarning, PolyopWarning
from polyop.forks import process_lock
from polyop.source import PACKAGE

_given: set[object] = set()
_lock = process_lock()
_given_of: WeakKeyDictionary[object, set[object]] = WeakKeyDictionary()


def warn_once(kind: type[PolyopWarning], message: str, *, key: object, of: object = None) -> None:
    """Warn, unless this key was warned of before; what is known of an object goes with it."""
    with _lock:
        given = _given if of is None else _given_of.setdefault(of, set())
        if key in given:
            return
        given.add(key)
    warnings.warn(message, kind, stacklevel=_depth())


def warn_each(kind: type[Warning], message: str) -> None:
    """Warn at the user's own line, as often as Python's filters let it."""
    warnings.warn(message, kind, stacklevel=_depth())


def warn_needless(op: Any) -> None:
    """Warn of a fake rule for an operator that gives back what it wrote."""
    for tag in op.tags:
        if tag.name in {"inplace", "out"}:
            warn_each(
                PolyopWarning,
                f"{op.name()} has the tag {tag.name}, and needs no fake rule: it gives back what "
                "it wrote; the rule is used",
            )


def warn_constant(what: str) -> None:
    """Warn that a gradient or a tangent ends in a Python number."""
    warn_each(
        GradientWarning,
        f"{what}() of a tensor with a derivative gives a constant, through which none flows; "
        "say so with .item(), or compute by operators",
    )


#: Packages between a user and polyop: they call its operators for their arrays.
FRAMEWORKS = frozenset({"dask", "distributed", "jax", "jaxlib", "torch"})


def _depth() -> int:
    """Count the frames from `warnings.warn` to the user's; 3.11 has no `skip_file_prefixes`."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame):
        depth, frame = depth + 1, frame.f_back
    return depth


def _is_inside(frame: FrameType) -> bool:
    """Tell whether a frame is of polyop's, or of a framework's that calls it."""
    if frame.f_code.co_filename.startswith((PACKAGE, "<polyop ")):
        return True
    return str(frame.f_globals.get("__name__")).partition(".")[0] in FRAMEWORKS

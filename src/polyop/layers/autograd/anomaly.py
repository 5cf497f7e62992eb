"""Anomaly mode: a backward that fails, or gives NaN, says where its forward ran.

The mode is a bit of the context's word, so that no call pays for it while it
is off. While it is on, each recorded call notes its place beside its node, and
the engine runs on tensors and looks at every gradient that it sends on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from polyop.dispatch.bits import ANOMALY, FAKE, GRAD
from polyop.dispatch.context import Word, entered, entered_at_once, run_under, word
from polyop.dispatch.operator import Handler
from polyop.dispatch.results import tensors_in
from polyop.errors import AutogradError
from polyop.layers.autograd.node import Node, next_seq
from polyop.ops.define import ON_TENSORS
from polyop.source import PACKAGE
from polyop.tensor.tensor import Tensor

#: Where the call of a node ran: the lines of its stack, those of this package left out.
PLACES: WeakKeyDictionary[Node, tuple[str, ...]] = WeakKeyDictionary()


class detect_anomaly(entered):
    """Notes where forward ran; errors of a backward, and NaN in a gradient, then show it.

    Backward runs slower, on tensors. Calls recorded before the block have no place.

    Args:
        check_nan: whether a gradient with a NaN raises `AutogradError`.

    Example:
        >>> import numpy, polyop
        >>> x = polyop.tensor(0.0, requires_grad=True)
        >>> with detect_anomaly(), numpy.errstate(divide="ignore", invalid="ignore"):
        ...     y = polyop.sqrt(x * 0.0) * 0.0
        ...     try:
        ...         y.backward()
        ...     except polyop.errors.AutogradError as error:
        ...         print(error.problem)
        the backward of core::sqrt gives NaN for its differentiable input 0
    """

    __slots__ = ("_check_nan",)

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan

    def word(self) -> Word:
        """Give the current word with anomaly mode on."""
        return word().but(anomaly="nan" if self._check_nan else "place")


class set_detect_anomaly(entered_at_once):
    """Turns anomaly mode on or off: at once, or for a block or function.

    Args:
        mode: whether it is on.
        check_nan: whether a gradient with a NaN raises `AutogradError`.
    """

    __slots__ = ("_mode",)

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._mode = ("nan" if check_nan else "place") if mode else ""
        super().__init__()

    def word(self) -> Word:
        """Give the current word with anomaly mode as asked."""
        return word().but(anomaly=self._mode)


def is_anomaly_enabled() -> bool:
    """Tell whether anomaly mode is on."""
    return bool(word() & ANOMALY)


def is_anomaly_check_nan_enabled() -> bool:
    """Tell whether anomaly mode looks for NaN."""
    return word().anomaly == "nan"


# -- forward ------------------------------------------------------------------


def noting(handler: Handler) -> Handler:
    """Note the place of what a handler records."""

    def run(*args: Any) -> Any:
        before = next_seq()
        out = handler(*args)
        note_results((args, out), before)
        return out

    return run


def note_results(values: Any, before: int) -> None:
    """Note this place for the nodes of tensors that were made after a number."""
    nodes = {t.grad_node for t in tensors_in(values) if t.keys & GRAD}
    fresh = [n for n in _with_mains(nodes) if n.seq > before and n not in PLACES]
    if fresh:
        place = stack()
        PLACES.update(dict.fromkeys(fresh, place))


def _with_mains(nodes: set[Node]) -> Iterator[Node]:
    """Give the nodes, and those of the calls that they are results of."""
    for n in nodes:
        yield n
        main = getattr(n, "n0", None)
        if main.__class__ is Node:
            yield main


def stack() -> tuple[str, ...]:
    """Give the lines of the stack outside this package, innermost last."""
    frames = traceback.extract_stack()
    own = [f for f in frames if not f.filename.startswith((PACKAGE, "<polyop "))]
    return tuple(traceback.format_list(own))


# -- backward -----------------------------------------------------------------


def watched_step(
    step: Callable[..., None], n: Node, g: Any, grads: dict[Node, Any], send: Callable[..., None]
) -> None:
    """Run one node's backward: errors tell the place, and NaN is an error.

    Args:
        step: runs the backward with a table and a push of its own.
        n: the node.
        g: its gradient.
        grads: the table of the run.
        send: puts a gradient into the table of the run.

    Raises:
        AutogradError: a gradient has a NaN, and the mode looks for them.
    """
    own: dict[Node, Any] = {}
    try:
        step(n, g, own, _nothing)
    except Exception as error:
        error.add_note(_told(n))
        raise
    if word().anomaly == "nan":
        for i, value in enumerate(own.values()):
            if any(_has_nan(t) for t in tensors_in(value)):
                _refuse(n, i)
    for node, value in own.items():
        send(node, value)


def _has_nan(t: Tensor) -> bool:
    if t.keys & FAKE or t.dtype.kind not in "fcV":
        return False
    return bool(run_under(word().but(anomaly="", grad=False), _any_nan, t))


def _any_nan(t: Tensor) -> Any:
    return ON_TENSORS["any"](ON_TENSORS["isnan"](t))


def _refuse(n: Node, i: int) -> None:
    place = PLACES.get(n)
    error = AutogradError(
        f"the backward of {_name(n)} gives NaN for its differentiable input {i}",
        op=n.op,
        source=place[-1].strip().splitlines()[0] if place else "",
        fix="look at the forward call that the note shows; its inputs are outside of where the "
        "gradient is defined, or overflow",
    )
    error.add_note(_told(n))
    raise error


def _told(n: Node) -> str:
    place = PLACES.get(n)
    if place is None:
        return f"The forward of {_name(n)} was recorded outside of anomaly mode."
    return f"The forward of {_name(n)} ran here:\n{''.join(place).rstrip()}"


def _name(n: Node) -> str:
    name = getattr(n.op, "name", None)
    return str(name() if callable(name) else name or n.op)


def _nothing(node: Node) -> None:
    pass

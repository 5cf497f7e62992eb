"""A trace inside a running trace: what it does is in its own program, and in no other.

So the trace around it must not depend on what the inner one did: neither on what it wrote to
tensors of the outer one, nor on what it computed and left outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.errors import CaptureError
from polyop.graph.node import PLACEHOLDER
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.tensor import Tensor


def refuse_lost_writes(outer: Any, inner: Tracer, given: Sequence[tuple[Any, Any]]) -> None:
    """Refuse an inner trace that wrote tensors of the outer one.

    Args:
        outer: what recorded when the inner trace began; a trace, or nothing that is concerned.
        inner: the inner trace, which has run.
        given: tensors of the outer trace, with the inputs of the inner one that share memory.

    Raises:
        CaptureError: the outer program would lose the write.
    """
    if not isinstance(outer, Tracer):
        return
    outer.inner.append(inner.graph)
    lost = [*inner.written_constants(), *(t for t, own in given if _is_written(own))]
    if any(map(outer.is_tracked, lost)):
        error = CaptureError(
            "a trace inside a trace writes a tensor of the function around it",
            seen="a write that the outer program would lose",
            fix="trace a function of that tensor's clone, or write after the inner trace",
        )
        outer.note_failure(error)
        raise error


def _is_written(value: Any) -> bool:
    return isinstance(value, Tensor) and value.graph_node.op != PLACEHOLDER

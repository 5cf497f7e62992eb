"""What a traced function asks of its arguments beside their data is asked of the caller's.

A trace has tensors of its own for its inputs, which are leaves without gradients.
Where the caller's say otherwise, a plain answer is part of the program as all
that is specialized; an answer that is a tensor, or is set, is in no program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from polyop.errors import CaptureError
from polyop.layers.trace.tracer import Tracer
from polyop.source import PACKAGE, caller
from polyop.tensor.tensor import Tensor


class Callers:
    """The arguments of a trace, by the ids of the inputs that stand for them.

    Args:
        tracer: what records the function.
        pairs: inputs, and what they stand for, if answers are part of the program. Without
            them others look after these, and here it is a matter of what no program has.
    """

    def __init__(self, tracer: Tracer, pairs: Iterable[tuple[Any, Any]] | None = None) -> None:
        self.tracer = tracer
        self.real: dict[int, tuple[Any, Tensor]] | None = None
        if pairs is not None:
            self.real = {id(x): (x, real) for x, real in pairs if isinstance(real, Tensor)}

    def answer(self, tensor: Tensor, name: str, found: Any) -> Any:
        """Give an attribute of the caller's tensor.

        Raises:
            CaptureError: it is another tensor, or a count.
        """
        if self.real is None:
            if name == "_version" and not _is_own():
                self._refuse("the traced function reads ._version", "read ._version")
            return found
        known = self.real.get(id(tensor))
        if known is None or _is_own() or (name == "grad" and found is not None):
            return found  # the function made the tensor, or the gradient
        answer = getattr(known[1], name)
        if answer is found or isinstance(answer, bool):
            return answer
        if answer != found:
            self._refuse(f"the traced function reads .{name} of an argument", f"read .{name}")
        return found

    def assigned(self, tensor: Tensor, name: str) -> None:
        """Refuse to set an attribute of an argument: no program does that.

        Raises:
            CaptureError: always, for an argument.
        """
        if (self.real is None or id(tensor) in self.real) and not _is_own():
            self._refuse(f"the traced function sets .{name} of an argument", f"set .{name}")

    def _refuse(self, problem: str, what: str) -> NoReturn:
        error = CaptureError(
            problem,
            source=caller(),
            fix=f"{what} outside of the traced function, and pass what follows from it",
        )
        self.tracer.note_failure(error)
        raise error


def _is_own() -> bool:
    """Tell whether code of this package asks, which knows what it gets."""
    return sys._getframe(4).f_code.co_filename.startswith((PACKAGE, "<polyop "))

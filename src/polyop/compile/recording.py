"""What records a captured function, and answers what it asks.

A program repeats neither a look at data nor a change outside it, so both end
the capture. What the function asks of a tensor's history (`.grad`, `.is_leaf`)
is asked of the tensor that the caller gave, not of the fake that stands for it:
a gradient that is there becomes a further input, any other answer a guard.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn, TypeAlias

from polyop.dispatch.bits import GRAD, NUMPY
from polyop.dispatch.context import word
from polyop.errors import CaptureError, SubgraphError
from polyop.graph import Node
from polyop.graph.node import PLACEHOLDER
from polyop.layers.autograd.node import node_of
from polyop.layers.trace.tracer import Tracer
from polyop.objects.weakly import Weak, real
from polyop.source import PACKAGE, caller
from polyop.tensor.meta import Meta
from polyop.tensor.printing import PRINTER
from polyop.tensor.subclass import is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor, of_array

#: Where a tensor is found: the number of an argument, or the tensor itself, from outside.
Source: TypeAlias = int | Tensor | Weak


class Answer(NamedTuple):
    """What a program relies on of a tensor.

    Attributes:
        source: which tensor.
        name: the attribute.
        value: what it gave.
    """

    source: Source
    name: str
    value: Any

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Tell whether the attribute of a call's tensor is the same."""
        found: bool = getattr(found_at(self.source, leaves), self.name) is self.value
        return found


def found_at(source: Source, leaves: Sequence[Any]) -> Any:
    """Give the tensor that a source names.

    Raises:
        Gone: it is held weakly, and dead.
    """
    return leaves[source] if isinstance(source, int) else real(source)


class DataLook(BaseException):
    """Captured code looked at data; no `except Exception` in that code stops it."""

    def __init__(self, what: str, place: object) -> None:
        super().__init__(f"{what}() at {place}")
        self.what, self.place = what, place


class SideEffect(CaptureError):  # noqa: N818 - users see it as its base
    """The function changed something outside it, which a program would not repeat."""


class Filled(SideEffect):
    """The function filled a cache outside it, which the next call may find full."""


class Capture(Tracer):
    """A tracer for which every look at data ends the capture, of constants too.

    The data of a constant would become part of the program, and the program
    would not notice when it changes.
    """

    looks_to_print = True
    knows_layouts = True
    whole_calls = False  # autograd meets the program, and none of its calls
    stray = SideEffect  # eagerly, threads do as they do

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Any, Any]] = []
        #: By the id of its fake, the number of an argument, and the argument.
        self.given: dict[int, tuple[int, Tensor]] = {}
        #: By the id of a tensor, the input that its gradient is.
        self.grads: dict[int, Tensor] = {}
        self.answers: dict[tuple[int, str], Answer] = {}
        self.lacks: dict[int, Source] = {}  # whose gradients should have been inputs

    def answer(self, tensor: Tensor, name: str, found: Any) -> Any:
        """Give an attribute of the tensor that the caller has, and rely on it.

        Raises:
            CaptureError: it is nothing that a program can rely on.
        """
        if _is_own(sys._getframe(3)):
            return found
        source, real = self._source_of(tensor, name)
        if real is None or (name == "grad" and _is_traced(found)):
            return found  # the function made it
        answer = getattr(real, name) if real is not tensor else found
        if name == "grad" and answer is not None:
            return self._gradient(source, real, answer)
        rests = isinstance(answer, bool) or answer is None or not isinstance(source, int)
        if name == "_version" or not rests:
            self._refuse(f"the function reads .{name} of {_called(source)}", name)
        self.answers[id(real), name] = Answer(source, name, answer)
        return answer if isinstance(answer, bool) and not answer else found

    def _source_of(self, tensor: Tensor, name: str) -> tuple[Source, Tensor | None]:
        """Find the tensor that is asked in truth; None if the function made it."""
        if id(tensor) in self.given:
            return self.given[id(tensor)]
        if not _is_traced(tensor) and not is_traceable_wrapper_subclass(tensor):
            return tensor, tensor
        node = getattr(tensor, "graph_node", None)
        inner = node is not None and node.op == PLACEHOLDER and node.graph is not self.graph
        if inner or is_traceable_wrapper_subclass(tensor):
            self._refuse(f"the function reads .{name} of {_called(-1)}", name)
        return tensor, None

    def _gradient(self, source: Source, real: Tensor, grad: Tensor) -> Tensor:
        if id(real) in self.grads:
            return self.grads[id(real)]
        if type(grad) is not Tensor or grad.keys & ~(GRAD | NUMPY):
            self._refuse(f"the function reads .grad of {_called(source)}", "grad")
        self.lacks[id(real)] = source
        return stand_in_for(grad)

    def assigned(self, tensor: Tensor, name: str) -> None:
        """End the capture, unless the function made the tensor itself.

        Raises:
            SideEffect: it did not.
        """
        if _is_own(sys._getframe(3)) or (_is_traced(tensor) and id(tensor) not in self.given):
            return
        error = SideEffect(
            f"the function sets .{name} of a tensor that it did not make",
            source=caller(),
            fix=f"set .{name} outside of the compiled function",
        )
        self.note_failure(error)
        raise error

    def _refuse(self, problem: str, name: str) -> NoReturn:
        error = CaptureError(
            problem,
            source=caller(),
            fix=f"read .{name} outside of the compiled function, and pass what follows from it",
        )
        self.note_failure(error)
        raise error

    def look(self, tensor: Tensor, what: str) -> NoReturn:
        """End the capture."""
        error = DataLook(what, caller())
        self.note_failure(error)
        raise error

    def refuse_failure(self) -> None:
        """Raise what was noted; what a subgraph may not do is none, once the function caught it."""
        if isinstance(self.failure, SubgraphError):
            problem, op, source = self.failure.problem, self.failure.op, self.failure.source
            raise CaptureError(problem, op=op, source=source) from self.failure
        super().refuse_failure()

    def lift(self, tensor: Tensor) -> Node:
        """Give the node of a constant, and note its history, and the gradient that it has."""
        if id(tensor) not in self._lifted:
            grad = tensor.grad if tensor.keys & GRAD else None  # type: ignore[attr-defined]
            self.kept.append((tensor, node_of(tensor), grad))
        return super().lift(tensor)

    def restore(self) -> str:
        """Take away what the capture left on constants; tell what that was, if anything."""
        left = ""
        for tensor, node, grad in self.kept:
            if node_of(tensor) is not node:
                tensor.keys &= ~GRAD
                if node is not None:
                    tensor.keys, tensor.grad_node = tensor.keys | GRAD, node
                left = "the function writes what has a gradient to a tensor that is no argument"
            if node is not None and tensor.grad is not grad:  # type: ignore[attr-defined]
                tensor.grad = grad  # type: ignore[attr-defined]
                left = "backward() in the function adds to the .grad of a tensor from outside"
        return left


def stand_in_for(grad: Tensor) -> Tensor:
    """Give a fake of a gradient, for a capture that only finds out which gradients are read."""
    fake: Tensor = word().fake.from_tensor(grad)
    return fake


def _is_own(frame: FrameType) -> bool:
    """Tell whether code of this package asks, which knows what it gets."""
    return frame.f_code.co_filename.startswith((PACKAGE, "<polyop "))


def _is_traced(value: Any) -> bool:
    """Tell whether a tensor is a fake, which a capture made."""
    return isinstance(value, Tensor) and value.payload.__class__ is Meta


def _called(source: Source) -> str:
    return "an argument" if isinstance(source, int) else "a tensor from outside"


def _print(tensor: Tensor, plain: Callable[[Tensor], str] = PRINTER.texts[Meta]) -> str:
    """Give the text of a tensor without data; in a capture, that is a look at data."""
    tracer = word().tracer
    if tracer is None or not getattr(tracer, "looks_to_print", False):
        return plain(tensor)
    array = tracer.look(tensor, "repr")
    return PRINTER.text(of_array(array))


PRINTER.texts[Meta] = _print

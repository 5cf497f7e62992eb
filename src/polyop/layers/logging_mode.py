"""Calls as lines of text: a mode and a Tensor subclass that record what they meet (S167)."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from polyop import tree
from polyop.dispatch.modes import DispatchMode
from polyop.graph.node import called
from polyop.graph.text import short_dtype
from polyop.tensor.subclass import make_wrapper_subclass, return_and_correct_aliasing
from polyop.tensor.tensor import Tensor


class Log:
    """Lines of text, and the numbers of the tensors in them, in the order of their first use.

    Attributes:
        lines: the lines.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._seen: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._count = count()

    def of(self, tensor: Tensor) -> str:
        """Give the name, dtype and shape of a tensor."""
        known = self._seen.get(id(tensor))
        if known is None or known[0]() is not tensor:
            # An id is free for another tensor once its own is gone; a name is not.
            known = self._seen[id(tensor)] = weakref.ref(tensor), f"${next(self._count)}"
        return f"{known[1]}: {short_dtype(tensor.dtype)}[{', '.join(map(str, tensor.shape))}]"

    def add(self, result: Any, call: str) -> None:
        """Add the line of a call."""
        self.lines.append(f"{self.text(result)} = {call}")

    def text(self, value: Any) -> str:
        """Spell an argument or result."""
        if isinstance(value, Tensor):
            return self.of(value)
        if isinstance(value, (list, tuple)):
            inner = ", ".join(map(self.text, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        return repr(value)

    def call(self, op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Spell a call."""
        given = [self.text(a) for a in args]
        given += [f"{name}={self.text(value)}" for name, value in kwargs.items()]
        return f"{op.name()}({', '.join(given)})"


class LoggingMode(DispatchMode):
    r"""Records each call of its block as a line of text.

    Attributes:
        lines: the lines, in order.

    Example:
        >>> import polyop
        >>> with LoggingMode() as log:
        ...     _ = polyop.sin(polyop.zeros(2)) * 2
        >>> print("\n".join(log.lines))
        $0: f32[2] = core::zeros([2])
        $1: f32[2] = core::sin($0: f32[2])
        $2: f32[2] = core::multiply.Scalar($1: f32[2], 2)
    """

    #: Calls of higher-order operators are recorded too.
    supports_higher_order_operators = True

    def __init__(self) -> None:
        self.log = Log()
        self.lines = self.log.lines

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call, and record it."""
        call = self.log.call(op, args, kwargs or {})
        try:
            result = called(op)(*args, **(kwargs or {}))
        except BaseException as error:
            self.lines.append(f"{type(error).__name__} = {call}")
            raise
        self.log.add(result, call)
        return result


class LoggingTensor(Tensor):
    """A tensor whose calls are recorded, wherever it goes; results are such tensors too.

    Args:
        inner: the tensor that it stands for.
        log: where the lines go; by default a log of its own.

    Attributes:
        inner: the tensor that computes.
        log: that of all tensors that came of it.
    """

    inner: Tensor
    log: Log

    def __new__(cls, inner: Tensor, log: Log | None = None) -> LoggingTensor:
        """Wrap a tensor."""
        made = make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner.detach() if inner.requires_grad else inner
        made.log = Log() if log is None else log
        return made

    @property
    def lines(self) -> list[str]:
        """The lines of all tensors that came of the same one."""
        return self.log.lines

    def __repr__(self) -> str:
        return f"LoggingTensor({self.inner!r})"

    def __tensor_flatten__(self) -> tuple[list[str], Log]:
        """Name the tensor inside, and what else it keeps."""
        return ["inner"], self.log

    @classmethod
    def __tensor_unflatten__(
        cls, inner: Mapping[str, Tensor], context: Log, shape: Any, strides: Any
    ) -> LoggingTensor:
        """Make one of another tensor inside."""
        return cls(inner["inner"], context)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call on the tensors inside, and record it."""
        kwargs = kwargs or {}
        log = next(x.log for x in tree.leaves((args, kwargs)) if isinstance(x, LoggingTensor))
        args_in, kwargs_in = tree.map_leaves(_inner, (args, kwargs))
        call = log.call(op, args_in, kwargs_in)
        out = op(*args_in, **kwargs_in)
        log.add(out, call)
        wrapped = tree.map_leaves(lambda x: _wrapped(x, log), out)
        return return_and_correct_aliasing(op, args, kwargs, wrapped)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, LoggingTensor) else x


def _wrapped(x: Any, log: Log) -> Any:
    return LoggingTensor(x, log) if isinstance(x, Tensor) else x

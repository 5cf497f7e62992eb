"""Gradients of gradients run a function again, which must still be the one that was captured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from polyop.errors import AutogradError
from polyop.graph import GraphModule
from polyop.graph.node import GET_ATTR
from polyop.graph.purity import is_unseen, is_write
from polyop.objects.loose import Guard
from polyop.objects.weakly import Weak, real
from polyop.tensor.storage import version_of
from polyop.tensor.tensor import Tensor


class Origin(NamedTuple):
    """What a program was captured of.

    Attributes:
        repeatable: whether it writes and draws nothing.
        reads: what the function reads besides its arguments.
        constants: the tensors among that, or what holds them weakly.
        weak: what is held weakly; once one of it is dead, the function never is the same.
    """

    repeatable: bool
    reads: tuple[Guard, ...]
    constants: tuple[Tensor | Weak, ...]
    weak: tuple[Weak, ...] = ()

    def check(
        self,
        fn: Callable[..., Any],
        tensors: Iterable[Tensor],
        before: list[int],
        *,
        same: bool = True,
    ) -> None:
        """Check that the function would compute again what the program computed.

        Args:
            fn: the function.
            tensors: what it was given.
            before: the versions of these, and of the constants, in the call.
            same: whether the gradients that it reads are those of the call.

        Raises:
            AutogradError: it would not.
        """
        if not self.repeatable or before != self.versions(tensors):
            problem = "repeat its writes or random draws, or meet tensors that were written since"
            fix = "call the function itself, not the compiled one"
        elif not same or not all(read.same() for read in self.reads):
            problem = "read values besides its arguments that have changed since"
            fix = "pass them as arguments, or change them after the gradient was taken"
        else:
            return
        raise AutogradError(
            "a gradient of a gradient, or of other wrappers than were captured, needs the compiled "
            f"function again, which would {problem}",
            seen=getattr(fn, "__name__", ""), fix=fix,
        )  # fmt: skip

    def versions(self, tensors: Iterable[Tensor]) -> list[int]:
        """Give how often tensors, and the constants, were written."""
        return [version_of(real(x)) for x in (*tensors, *self.constants)]


def origin_of(reads: Sequence[Guard], forward: GraphModule, *rest: GraphModule) -> Origin:
    """Give what a program is of: its forward graph decides whether it can be repeated."""
    read = [(m, n) for m in (forward, *rest) for n in m.graph.nodes if n.op == GET_ATTR]
    values = {id(value): value for value in (m.get_attr(n.target) for m, n in read)}
    constants = tuple(x for x in values.values() if isinstance(x, Tensor))
    acts = any(is_write(n) and not is_unseen(n) for n in forward.graph.nodes)
    return Origin(not acts, tuple(reads), constants)

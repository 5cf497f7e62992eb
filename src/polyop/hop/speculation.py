"""Running a function for samples that may not have chosen it: nothing may be seen of it outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.operator import OpOverload
from polyop.errors import SubgraphError
from polyop.graph.node import called
from polyop.hop.closures import free_tensors
from polyop.hop.forms import describe
from polyop.ops.select import where
from polyop.ops.views import reshape
from polyop.tensor.tensor import Tensor


class EffectGuard(DispatchMode):
    """Inside it, operators with an effect are refused.

    Args:
        op: the operator whose functions run, for errors.
    """

    supports_higher_order_operators = True

    def __init__(self, op: Any) -> None:
        self.op = op

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse an operator with an effect, and call the others."""
        if _acts(op):
            self._refuse(op)
        if isinstance(op, OpOverload):
            return op(*args, **(kwargs or {}))
        run = getattr(op, "at_data", None)
        if run is not None:
            form = op.parse(*args, **(kwargs or {}))
            if op.watched(form):
                fns = tuple(fn.remade(self._guarded(fn)) for fn in form.functions)
                return op.again(form._replace(functions=fns))
        with self:  # what its functions call is met here again
            return (run or getattr(op, "eager", called(op)))(*args, **(kwargs or {}))

    def _guarded(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function of a call that stays whole, which runs inside the guard."""

        @wraps(fn, updated=())
        def run(*args: Any) -> Any:
            with self:
                return fn(*args)

        return run

    def _refuse(self, op: Any) -> NoReturn:
        raise SubgraphError(
            f"{op.name()} acts on the world, and {self.op} runs it for samples that did not "
            "choose it",
            op=self.op,
            seen=op.name(),
            fix="decide by something that is the same for all samples, or leave the operator out",
        )


def _acts(op: Any) -> bool:
    if not isinstance(op, OpOverload):
        return getattr(op, "effect", None) is not None
    rule = op.places.top("effect")
    return rule is not None and rule.fn is not None


@contextmanager
def speculating(
    op: Any, functions: Sequence[Callable[..., Any]], operands: Any
) -> Iterator[list[Tensor]]:
    """Run functions for all samples: effects, and writes to what was there, are refused.

    Gives the tensors that were there.

    Raises:
        SubgraphError: there is one.
    """
    seen = [t for t in tree.leaves(operands) if isinstance(t, Tensor)]
    seen += [t for fn in functions for _, t in free_tensors(fn)]
    before = [t._version for t in seen]
    with EffectGuard(op):
        yield seen
    for t, version in zip(seen, before, strict=True):
        if t._version != version:
            raise SubgraphError(
                f"a function of {op} writes its input, and runs for samples that did not choose it",
                op=op,
                seen=describe(t),
                fix="return a new tensor: use the operator without the underscore",
            )


def choose(op: Any, pred: Tensor, yes: Any, no: Any, what: str) -> Any:
    """Give for each sample the one leaf or the other.

    Raises:
        SubgraphError: they have different shapes or dtypes.
    """
    if isinstance(yes, Tensor) and isinstance(no, Tensor):
        if tuple(yes.shape) == tuple(no.shape) and yes.dtype == no.dtype:
            return where(reshape(pred, ()), yes, no)
    elif type(yes) is type(no) and yes == no:
        return yes
    raise SubgraphError(
        f"{what} of {op} differ, and each sample needs one of them",
        op=op,
        declared=describe(yes),
        seen=describe(no),
        fix="return tensors of one shape and dtype",
    )

"""`checkpoint`: backward runs a function again, instead of keeping what it computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop import tree
from polyop.dispatch.bits import FAKE_MODE, GRAD, LIFTED, PRE_DISPATCH, TRACE
from polyop.dispatch.context import AUTOGRAD, run_under, word
from polyop.errors import SubgraphError
from polyop.hop.control import WATCHED
from polyop.hop.forms import Form, innermost_keys
from polyop.hop.steps import check_function
from polyop.hop.wraps import Wrapper
from polyop.layers.autocast import same_autocast
from polyop.ops.random import Drawn, drawing, stand, state_of
from polyop.ops.views import detach
from polyop.source import source_of
from polyop.tensor.tensor import Tensor

#: Who takes down what a function does, instead of what it gives; modes see a run like any other.
RECORDED = TRACE | PRE_DISPATCH | FAKE_MODE


class Checkpoint(Wrapper):
    """Calls a function, of which nothing but the operands is kept for backward.

    Backward runs it again, with the same numbers from every generator that drew, and under the
    autocast of the call.

    Args:
        fn: the function; tensors that it closes over count as operands.
        operands: what it is called with.

    Raises:
        SubgraphError: it uses a tensor that requires grad, and that neither is an operand nor
            in its closure, such as an attribute of an object.
        AutogradError: in backward inside a trace, if it draws random numbers.

    Example:
        >>> import polyop
        >>> x = polyop.ones(2).requires_grad_()
        >>> polyop.hop.checkpoint(lambda x: (x * x).sum(), x).backward()
        >>> x.grad
        tensor([2., 2.])
    """

    def __call__(self, fn: Callable[..., Any], *operands: Any) -> Any:
        """Call the function."""
        if not word().grad and not word() & WATCHED:
            return fn(*operands)
        return self.whole(self.parse(fn, *operands))

    def parse(self, fn: Callable[..., Any], *operands: Any) -> Form:
        """Give the form of a call, checked."""
        check_function(self, fn, "fn")
        return Form((fn,), (operands,), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (*form.functions, *form.groups[0]), {}

    def watched(self, form: Form) -> bool:
        """Keep each call whole."""
        return True

    def ready(self, fn: Any) -> Any:
        """Let the function draw the same numbers each time, under the same autocast."""
        return Replayed(self, fn)


class Replayed:
    """A function that draws the same random numbers each time it runs, under one autocast."""

    def __init__(self, hop: Checkpoint, fn: Callable[..., Any]) -> None:
        self.__wrapped__ = fn
        self.hop = hop
        self.drawn: Drawn | None = None
        self.autocast = same_autocast()

    def __call__(self, *operands: Any) -> Any:
        """Call the function."""
        return run_under(self.autocast.word(), self._again, operands)

    def _again(self, operands: Any) -> Any:
        if word() & RECORDED:
            return self.__wrapped__(*operands)
        if self.drawn is None:
            out, self.drawn = drawing(self._first, operands)
            return out
        now = [(generator, state_of(generator)) for generator, _ in self.drawn.values()]
        try:
            for generator, state in self.drawn.values():
                stand(generator, state)
            return self.__wrapped__(*operands)
        finally:
            for generator, state in now:
                stand(generator, state)

    def _first(self, operands: Any) -> Any:
        """Run it for the results; what still requires grad there is no operand."""
        if any(innermost_keys(x) & LIFTED for x in tree.leaves(operands)):
            return self.__wrapped__(*operands)  # what is detached would lose its derivative
        bare = tree.map_leaves(lambda x: detach(x) if isinstance(x, Tensor) else x, operands)
        now = word()
        seeing = now.but(grad=True, exclude=now.exclude - AUTOGRAD)
        out = run_under(seeing, self.__wrapped__, *bare)
        for leaf in tree.leaves(out):
            if innermost_keys(leaf) & GRAD:
                raise SubgraphError(
                    f"the function of {self.hop} uses a tensor that requires grad, and that is "
                    "neither an operand nor in its closure",
                    op=self.hop,
                    source=source_of(self.__wrapped__),
                    fix="pass it as an operand",
                )
        return out


checkpoint = Checkpoint("checkpoint")

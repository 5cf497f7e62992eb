"""`checkpoint`: backward runs a function again, instead of keeping what it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from polyop import tree
from polyop.dispatch.bits import FAKE_MODE, GRAD, LIFTED, PRE_DISPATCH, TRACE, WRAPPED
from polyop.dispatch.context import AUTOGRAD, run_under, word
from polyop.errors import SubgraphError
from polyop.hop.control import WATCHED
from polyop.hop.forms import Form, Group, innermost_keys
from polyop.hop.lifting import Lifted
from polyop.hop.stale import Used, named_tensors, refuse_written, used_now
from polyop.hop.steps import check_function
from polyop.hop.wraps import Wrapper
from polyop.layers.autocast import same_autocast
from polyop.layers.autograd.node import edges
from polyop.ops.generator import Drawn, drawing, stand, state_of
from polyop.ops.views import detach
from polyop.source import source_of
from polyop.tensor.storage import version_of
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
        AutogradError: in backward, if a tensor that it uses was written since; inside a trace, if
            it draws random numbers.

    Example:
        >>> import polyop
        >>> x = polyop.ones(2).requires_grad_()
        >>> polyop.hop.checkpoint(lambda x: (x * x).sum(), x).backward()
        >>> x.grad
        tensor([2., 2.])
    """

    replays = True

    def __call__(self, fn: Callable[..., Any], *operands: Any) -> Any:
        """Call the function."""
        if not word().grad and not word() & WATCHED:
            return fn(*operands)
        if any(getattr(level, "always", False) for level in word().levels):
            return fn(*operands)  # that level keeps all, and looks through grad modes
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

    def recorded(self, form: Form) -> Group:
        """Call it as one step of autograd, which the function may ask its operands about."""
        fn: Any = form.functions[0]
        while fn is not None and not isinstance(fn, Replayed):
            fn = getattr(fn, "__wrapped__", None)
        if fn is not None:  # a derivative of it has other operands
            flags = [isinstance(x, Tensor) and x.requires_grad for x in form.leaves]
            fn.recorded |= {i for i, flag in enumerate(flags) if flag}
        return super().recorded(form)

    def ready(self, fn: Any, name: str, form: Form) -> Any:
        """Let the function draw the same numbers each time, under the same autocast."""
        return Replayed(self, fn)


class Replayed:
    """A function that draws the same random numbers each time it runs, under one autocast.

    What it reads besides its operands must be what it was; what it writes itself is its own affair.
    """

    def __init__(self, hop: Checkpoint, fn: Callable[..., Any]) -> None:
        self.__wrapped__ = fn
        self.hop = hop
        self.drawn: Drawn | None = None
        self.recorded: set[int] = set()  # the operands that require grad where it was called
        self.used: list[Used] = []
        self.autocast = same_autocast()

    def __call__(self, *operands: Any) -> Any:
        """Call the function."""
        return run_under(self.autocast.word(), self._again, operands)

    def _again(self, operands: Any) -> Any:
        refuse_written(self.hop, self.used, self._user)
        if word() & RECORDED:
            return self.__wrapped__(*operands)
        if self.drawn is None:
            before = used_now(named_tensors(self._user))
            named = [x.tensor for x in before if not x.tensor.keys & GRAD]
            out, self.drawn = drawing(self._first, operands, named)
            self.used = [x for x in before if version_of(x.tensor) == x.version]
            return out
        now = [(generator, state_of(generator)) for generator, _ in self.drawn.values()]
        try:
            for generator, state in self.drawn.values():
                stand(generator, state)
            return self.__wrapped__(*operands)
        finally:
            for generator, state in now:
                stand(generator, state)

    @property
    def _user(self) -> Callable[..., Any]:
        fn = self.__wrapped__
        return fn.__wrapped__ if isinstance(fn, Lifted) else fn

    def _first(self, operands: Any, named: list[Tensor]) -> Any:
        """Run it for the results; what still requires grad there is no operand."""
        leaves = tree.leaves(operands)
        if any(innermost_keys(x) & LIFTED for x in leaves):
            return self.__wrapped__(*operands)  # what is detached would lose its derivative
        tensors = [(i, x) for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        recorded = set() if any(x.keys & WRAPPED for _, x in tensors) else self.recorded
        bare = {id(x): _apart(x, recorded=i in recorded) for i, x in tensors}
        now = word()
        seeing = now.but(grad=True, exclude=now.exclude - AUTOGRAD)
        given = tree.map_leaves(lambda x: bare.get(id(x), x), operands)
        out = run_under(seeing, self.__wrapped__, *given)
        starts = {x.grad_node for x in bare.values() if x.keys & GRAD}
        for leaf in tree.leaves(out):
            if innermost_keys(leaf) & GRAD and not (leaf.keys & GRAD and begins_at(leaf, starts)):
                raise SubgraphError(
                    f"the function of {self.hop} uses a tensor that requires grad, and that is "
                    "neither an operand nor in its closure",
                    op=self.hop,
                    source=source_of(self.__wrapped__),
                    fix="pass it as an operand",
                )
        self._refuse_gained([*named, *[bare[id(x)] for i, x in tensors if i not in recorded]])
        back = {id(bare[id(x)]): x for _, x in tensors}
        for leaf in tree.leaves(out):
            _without_history(leaf, back, starts)
        return tree.map_leaves(lambda x: back.get(id(x), x), out)

    def _refuse_gained(self, tensors: Iterable[Tensor]) -> None:
        """Refuse writes that gave a tensor from outside a history, which ends in the run."""
        for x in tensors:
            if x.keys & GRAD and x.grad_node.seq:
                raise SubgraphError(
                    f"the function of {self.hop} writes a tensor that it did not make, and the "
                    "history of what it writes would be lost",
                    op=self.hop,
                    seen=f"shape {tuple(x.shape)}",
                    source=source_of(self._user),
                    fix="return a new tensor, and write outside of the function",
                )


def _apart(x: Tensor, *, recorded: bool) -> Tensor:
    """Give an operand without its history; the function may ask whether it requires grad."""
    bare: Tensor = detach(x)
    return bare.requires_grad_() if recorded else bare


def begins_at(tensor: Tensor, starts: set[Any]) -> bool:
    """Tell whether a tensor was computed from some leaves alone."""
    seen, todo = {tensor.grad_node}, [tensor.grad_node]
    while todo:
        node = todo.pop()
        if not node.seq and node not in starts:
            return False
        new = [n for n in edges(node) if n not in seen] if node.seq else []
        seen.update(new)
        todo += new
    return True


def _without_history(value: Any, operands: dict[int, Tensor], starts: set[Any]) -> None:
    """Take the history of the run from a result, and from what it is a view of.

    What was there before has a history of its own, or none, and stays as it is. A view of a
    stand-in for an operand becomes one of the operand.
    """
    x = None if id(value) in operands else value
    while isinstance(x, Tensor):
        if x.keys & GRAD:
            if not begins_at(x, starts):
                break
            x.keys &= ~GRAD
            del x.grad_node
        base, *step = getattr(x, "view_of", None) or (None,)
        if id(base) in operands:
            x.view_of = (operands[id(base)], *step)
            break
        x = base


checkpoint = Checkpoint("checkpoint")

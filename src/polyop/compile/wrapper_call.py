"""A call of a compiled function of wrappers as one node of autograd, and its way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from polyop import tree
from polyop.compile.again import Origin
from polyop.compile.inside import Described, built, keys_of
from polyop.compile.outlines import Outline, Static, lasting, look_of, outline_of, parts_of
from polyop.dispatch.context import run_under, word
from polyop.layers.autograd import Function
from polyop.layers.autograd.between import grad_between
from polyop.layers.autograd.node import SUBCLASS_NODES
from polyop.tensor.tensor import Tensor


class Example(NamedTuple):
    """What the gradient of a result is like: its outline, and the tensors inside."""

    outline: Outline | None
    parts: tuple[tuple[Any, ...], ...]


class Joined(NamedTuple):
    """How a program with gradients meets those who call it.

    Attributes:
        forward: how its results become those of the function.
        roots: the numbers of the results that require grad, each tensor once.
        parameters: what requires grad and is no argument.
        tangents: what the gradients of the roots look like.
        gradients: per argument that requires grad, and per parameter, how its gradient is built.
        present: which of these gradients there are.
    """

    forward: Described
    roots: tuple[int, ...] = ()
    parameters: tuple[Tensor, ...] = ()
    tangents: tuple[Any, ...] = ()
    gradients: tuple[Outline | None, ...] = ()
    present: tuple[bool, ...] = ()

    def key(self, static: Static) -> Any:
        """Give what it is equal by."""
        parameters = tuple(map(id, self.parameters))
        made = keys_of(self.gradients, static)
        return self.forward.key(static), self.roots, parameters, self.tangents, made, self.present


class Back(NamedTuple):
    """The way back of one run: the program, what it reads, and what it was captured of."""

    run: Callable[..., Any]
    saved: list[Any]
    origin: Origin


class Box(Protocol):
    """What a call needs of the function that was captured."""

    spec: Any
    static: Static
    wanted: tuple[int, ...]


class Call:
    """A call of a program: what its gradient needs, and what is needed to make it again."""

    def __init__(
        self, box: Box, ready: tuple[Joined, list[Any]], fn: Any, leaves: Any, learn: Any
    ) -> None:
        self.box, self.fn, self.leaves, self.learn = box, fn, leaves, learn
        self.joined, flat = ready
        self.back: Back = next(x for x in flat if isinstance(x, Back))
        self.results = self.joined.forward.built(leaves, flat)
        self.versions = self.back.origin.versions(self.tensors())

    def tensors(self) -> list[Tensor]:
        """List what the function reads, and what is inside."""
        given = [*self.leaves, *self.joined.parameters]
        return [x for leaf in given if isinstance(leaf, Tensor) for x in [leaf, *parts_of(leaf)]]

    def fits(self, grads: Sequence[Any]) -> bool:
        """Tell whether gradients of the results are like those that the program is for."""
        if any(g is None for g in grads):
            return False
        if tuple(look_of(g, self.box.static) for g in grads) == self.joined.tangents:
            return True
        self.learn(tuple(map(example_of, grads)))
        return False

    def again(self, grads: Sequence[Any]) -> list[Any]:
        """Compute the gradients from the function itself; they may have gradients."""
        self.back.origin.check(self.fn, self.tensors(), self.versions)
        args, kwargs = tree.unflatten(self.box.spec, self.leaves)
        recorded = word().grad
        results = tree.leaves(run_under(word().with_grad, self.fn, *args, **kwargs))
        pairs = [(results[i], g) for i, g in zip(self.joined.roots, grads, strict=True)]
        pairs = [(root, g) for root, g in pairs if g is not None]
        wanted = [*(self.leaves[i] for i in self.box.wanted), *self.joined.parameters]
        roots, given = [root for root, _ in pairs], [g for _, g in pairs]
        return list(grad_between(roots, wanted, given, create_graph=recorded))

    def built(self, flat: Iterable[Any]) -> list[Any]:
        """Make the gradients of those of the tensors inside."""
        rest = iter(flat)
        pairs = zip(self.joined.gradients, self.joined.present, strict=True)
        return [built([one], rest, ())[0] if there else None for one, there in pairs]


class WrapperCall(Function):
    """The one node that autograd sees of a compiled call of wrappers."""

    @staticmethod
    def forward(ctx: Any, call: Call, *_: Tensor) -> Any:
        """Hand out the results, and keep what the way back reads."""
        saved = call.back.saved
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.places = [i for i, value in enumerate(saved) if isinstance(value, Tensor)]
        ctx.others = [None if isinstance(value, Tensor) else value for value in saved]
        ctx.save_for_backward(*[value for value in saved if isinstance(value, Tensor)])
        call.back = call.back._replace(saved=[])
        return tuple(call.results[i] for i in call.joined.roots)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the backward program, or the function again where it is for something else."""
        call: Call = ctx.call
        if word().grad or not call.fits(grads):
            return (None, *call.again(grads))
        saved = list(ctx.others)
        for place, value in zip(ctx.places, ctx.saved_tensors, strict=True):
            saved[place] = value
        return (None, *call.built(call.back.run(*saved, *[x for g in grads for x in parts_of(g)])))


def grown(call: Call) -> list[Any]:
    """Give the results of a call, those that require grad by the way of autograd."""
    joined = call.joined
    tensors = [*(call.leaves[i] for i in call.box.wanted), *joined.parameters]
    made = WrapperCall.apply(call, *tensors)
    results, call.results = call.results, []
    for i, result in zip(joined.roots, made, strict=True):
        SUBCLASS_NODES.add(result.grad_node)  # so the way back is on tensors, not on arrays
        before = results[i]
        results = [result if x is before else x for x in results]
    return results


def example_of(tensor: Tensor) -> Example:
    """Note what a tensor is like."""
    parts = tuple((tuple(x.shape), x.dtype, x.device) for x in parts_of(tensor))
    return Example(lasting(outline_of(tensor)), parts)

"""`func.grad` and its kin: gradients as functions, in any nesting with each other and `vmap`.

Each running gradient is a level. Its inputs are wrapped; an operator on
wrapped tensors runs on what is inside, where outer levels see it, and the
wrapper of its result gets the history. Backward then runs on the tensors of
the level below, so second gradients, batches and traces need no code here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import ANOMALY, GRAD, LIFTED
from polyop.dispatch.context import AUTOGRAD, Word, reset_word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.resolve import resolve
from polyop.errors import AutogradError, UsageError, UsageTypeError
from polyop.layers.autograd.aliases import Views, note_views, write
from polyop.layers.autograd.anomaly import note_results
from polyop.layers.autograd.chosen import Argnums, Fn, by_leaves
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.loans import lending
from polyop.layers.autograd.node import Node, leaf_node, next_seq
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.levels import Level, tensor_places
from polyop.layers.rows import Build, taken_apart
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable


class Lifted:
    """The payload of a tensor that a gradient level watches.

    Attributes:
        value: the tensor below.
        level: whose it is.
        views: the living views of its memory, if it owns it and has any.
    """

    __slots__ = ("level", "value", "views")
    value: Tensor
    level: GradLevel
    views: Views | None

    @property
    def shape(self) -> Any:
        """The shape of the tensor below."""
        return self.value.payload.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the tensor below."""
        return self.value.payload.dtype

    @property
    def device(self) -> Any:
        """The device of the tensor below."""
        return self.value.device

    @property
    def strides(self) -> Any:
        """The strides of the tensor below."""
        return self.value.stride()

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self.value.is_contiguous()

    @property
    def base(self) -> None:
        """Nothing: a wrapper owns no memory."""
        return

    def look(self, what: str) -> Any:
        """Look at the data of the tensor below."""
        if not self.level.alive:
            self.level.escaped()
        return self.value._data(what)

    def __repr__(self) -> str:
        return f"<grad level {self.level.depth}: {self.value!r}>"


class GradLevel(Level):
    """One running gradient."""

    kind = "func.grad"
    #: What it took over from outside (`loans.py`); unset where it takes nothing.
    __slots__ = ("loans",)
    loans: Any

    def inner_word(self) -> Word:
        """Give the word of the function: recorded, whatever is so outside."""
        outer = self.outer
        return self.watched_word(outer if outer.grad else outer.with_grad)

    def below_of(self, now: Word) -> Word:
        """Make the word below, where grad mode is what it is outside."""
        # A kernel that goes on below autograd does so for its own level only.
        exclude = now.exclude - AUTOGRAD | self.outer.exclude & AUTOGRAD
        return now.but(
            levels=now.levels[: self.depth], grad=now.grad and self.outer.grad, exclude=exclude
        )

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on what is inside the wrappers, and record it."""
        if op._schema.is_mutable:
            return write(self, op, args, _is_leaf)
        now = word()
        # Found before the call, which may take the operator's rules away.
        found = recorder_of(op) if now.grad else None
        before = next_seq() if now & ANOMALY else 0
        token = set_word(self.below())
        try:
            values, out = self.run_below(op, args)
            results = self.wrap_all(out)
            if found is not None:
                found.record(
                    args, values, out, results, kept=True, node_of=self.node_of, plain=False
                )
                if before:
                    note_results(results, before)
        finally:
            reset_word(token)
        note_views(self, op, args, out, results)
        return results

    def run_below(self, op: OpOverload, args: Sequence[Any]) -> tuple[list[Any], Any]:
        """Call an operator on what is inside the wrappers; give that, and what comes of it."""
        try:
            places = op.notes["lowered"]
        except KeyError:
            places = op.note("lowered", _places)
        if places is None:
            values = [*map(self.peel, args)]
            return values, dispatch(op, values)
        code, values = int(word()), [*args]  # as `dispatch` does it, in the same loop
        for i in places:
            x = args[i]
            if x is not None:
                if x.keys & LIFTED and x.payload.level is self:
                    values[i] = x = x.payload.value
                code |= x.keys
        return values, (op.memo.get(code) or resolve(op, code))(*values)

    def node_of(self, tensor: Tensor) -> Node | None:
        """Give the node of a tensor of this level."""
        if tensor.keys & LIFTED and tensor.payload.level is self and tensor.keys & GRAD:
            found: Node = tensor.grad_node
            return found
        return None

    def peel(self, value: Any) -> Any:
        """Take this level's wrapper off, wherever it is in a value."""
        if isinstance(value, Tensor):
            own = value.keys & LIFTED and value.payload.level is self
            return value.payload.value if own else value
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__(map(self.peel, value))
        if value is None or isinstance(value, (int, float, str, complex)):
            return value
        return tree.map_leaves(lambda x: self.peel(x) if isinstance(x, Tensor) else x, value)

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        record = Lifted()
        record.value, record.level, record.views = value, self, None
        t = Tensor()
        t.payload, t.keys, t.version = record, LIFTED, 0
        return t

    def wrap_all(self, out: Any) -> Any:
        """Wrap results."""
        if isinstance(out, Tensor):
            return self.wrap(out)
        if out.__class__ is list or out.__class__ is tuple:
            return out.__class__(map(self.wrap_all, out))
        if out is None or isinstance(out, (int, float, str, complex)):
            return out
        return tree.map_leaves(lambda x: self.wrap(x) if isinstance(x, Tensor) else x, out)

    def watched(self, value: Tensor) -> Tensor:
        """Wrap an input, as a leaf."""
        t = self.wrap(value)
        t.keys |= GRAD
        t.grad_node = leaf_node(value.dtype)
        return t


def _places(op: OpOverload) -> tuple[int, ...] | None:
    """Give the places of tensors, if nothing else of a call's arguments is in its code."""
    return None if op.objects else tensor_places(op)


def _is_leaf(tensor: Tensor) -> bool:
    """Tell whether a tensor is an input of its level."""
    return tensor.keys & GRAD != 0 and tensor.grad_node.seq == 0


# -- the transforms -----------------------------------------------------------


def vjp(func: Fn, *primals: Any, has_aux: bool = False) -> Any:
    """Give the result, and the function from its gradient to those of the inputs.

    Args:
        func: of tensors, or trees of them.
        primals: its arguments.
        has_aux: whether it returns `(result, aux)`.

    Returns:
        `(result, vjp_fn)`, or `(result, vjp_fn, aux)`.

    Raises:
        UsageTypeError: an input has no gradient.
    """
    leaves, build = taken_apart(primals)
    ran = recorded(func, leaves, build, has_aux=has_aux)

    def pull(cotangents: Any, *, retain_graph: bool = True) -> Any:
        given = taken_apart(cotangents)[0]
        if len(given) != len(ran.results):
            raise UsageError(
                "there must be one gradient per result",
                declared=f"{len(ran.results)} results", seen=f"{len(given)} gradients",
            )  # fmt: skip
        return build(ran.pulled(given, retain=retain_graph))

    value = ran.build(ran.values())
    return (value, pull, ran.level.peel(ran.aux)) if has_aux else (value, pull)


class Recorded(NamedTuple):
    """One run of a function at a level of its own.

    Attributes:
        level: that it was recorded at.
        leaves: the inputs in a row.
        lifted: the same at the level.
        results: what it gave, at the level, in a row.
        build: makes of a row what the function gave.
        aux: what it gave beside.
    """

    level: GradLevel
    leaves: Sequence[Tensor]
    lifted: Sequence[Tensor]
    results: Sequence[Any]
    build: Build
    aux: Any

    def values(self) -> list[Any]:
        """Give the results, below the level."""
        return [*map(self.level.peel, self.results)]

    def pulled(self, given: Sequence[Tensor], *, retain: bool) -> list[Tensor]:
        """Give the gradients of the inputs from those of the results.

        Raises:
            UsageTypeError: a result is no tensor.
            AutogradError: a gradient has not its result's shape.
        """
        nodes = map(self._node, range(len(given)), given)
        roots = [(n, g) for n, g in zip(nodes, given, strict=True) if n is not None]
        # A level has no other leaves than its inputs, so nothing has to be left out on the way.
        found = run(roots, retain=retain, create_graph=True, under=word())
        return [
            found[t.grad_node] if t.grad_node in found else ON_TENSORS["zeros_like"](leaf)
            for t, leaf in zip(self.lifted, self.leaves, strict=True)
        ]

    def _node(self, i: int, g: Tensor) -> Node | None:
        """Give the node of a result, which its gradient must fit."""
        result = self.results[i]
        if not isinstance(result, Tensor):
            raise UsageTypeError(
                f"result {i} of a differentiated function is no Tensor",
                seen=type(result).__name__, fix="return it as aux, with has_aux=True",
            )  # fmt: skip
        if tuple(g.shape) != tuple(result.shape):
            raise AutogradError(
                "a gradient has the wrong shape",
                declared=f"shape {tuple(result.shape)}", seen=f"shape {tuple(g.shape)}",
            )  # fmt: skip
        return self.level.node_of(result)


def recorded(func: Fn, leaves: Sequence[Any], build: Build, *, has_aux: bool) -> Recorded:
    """Run a function of what `build` makes of the leaves, and keep the way back.

    Raises:
        UsageTypeError: an input has no gradient.
    """
    level = GradLevel()
    lifted = [_watch(level, i, leaf) for i, leaf in enumerate(leaves)]
    # As `enter_level` does it, whose block costs more than a small call.
    token = set_word(level.inner_word())
    try:
        out = lending(level, func, *build(lifted))
    finally:
        level.end()
        reset_word(token)
    out, aux = with_aux(out) if has_aux else (out, None)
    return Recorded(level, leaves, lifted, *taken_apart(out), aux)


def _watch(level: GradLevel, i: int, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor) or not is_differentiable(leaf.dtype):
        raise UsageTypeError(
            f"input {i} of a gradient is no floating-point or complex Tensor",
            seen=str(leaf.dtype) if isinstance(leaf, Tensor) else f"{type(leaf).__name__}",
            fix="differentiate with respect to floating-point tensors only (argnums)",
        )
    return level.watched(leaf)


def with_aux(out: Any) -> tuple[Any, Any]:
    """Give `(result, aux)` as a function returned it, or refuse."""
    if not isinstance(out, tuple) or len(out) != 2:
        raise UsageError(
            "with has_aux=True a function returns (result, aux)", seen=type(out).__name__
        )
    return out


def grad_and_value(func: Fn, argnums: Argnums = 0, has_aux: bool = False) -> Fn:
    """Give the function of the gradient and the value of a scalar function.

    Args:
        func: returns a tensor without axes.
        argnums: which arguments to differentiate; a tuple gives a tuple.
        has_aux: whether it returns `(result, aux)`.
    """

    def both(*args: Any, **kwargs: Any) -> Any:
        of_leaves, leaves, build = by_leaves(func, argnums, args, kwargs)
        ran = recorded(of_leaves, leaves, tuple, has_aux=has_aux)
        value = ran.build(ran.values())
        grads = build(ran.pulled([_one_of(value)], retain=False))
        return grads, ((value, ran.level.peel(ran.aux)) if has_aux else value)

    return both


def _one_of(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise UsageTypeError(
            "func.grad needs a function that returns a Tensor", seen=type(value).__name__
        )
    if tuple(value.shape) != ():
        raise UsageError(
            "func.grad needs a function that returns a tensor without axes",
            seen=f"shape {tuple(value.shape)}",
            fix="sum the result, or use func.vjp",
        )
    one: Tensor = ON_TENSORS["ones_like"](value)
    return one


def value_and_grad(func: Fn, argnums: Argnums = 0, has_aux: bool = False) -> Fn:
    """Give the function of the value and the gradient; see `grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    def swapped(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return value, grads

    return swapped


def grad(func: Fn, argnums: Argnums = 0, has_aux: bool = False) -> Fn:
    """Give the gradient of a scalar function, as a function.

    Args:
        func: returns a tensor without axes.
        argnums: which arguments to differentiate; a tuple gives a tuple.
        has_aux: whether it returns `(result, aux)`; then so does the gradient.

    Example:
        >>> import polyop
        >>> polyop.func.grad(lambda x: (x * x).sum())(polyop.ones(2))
        tensor([2., 2.])
    """
    both = grad_and_value(func, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient

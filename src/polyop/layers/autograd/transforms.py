"""`func.grad` and its kin: gradients as functions, in any nesting with each other and `vmap`.

Each running gradient is a level. Its inputs are wrapped; an operator on
wrapped tensors runs on what is inside, where outer levels see it, and the
wrapper of its result gets the history. Backward then runs on the tensors of
the level below, so second gradients, batches and traces need no code here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import ANOMALY, GRAD, LIFTED
from polyop.dispatch.context import AUTOGRAD, Word, reset_word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError, UsageError, UsageTypeError
from polyop.layers.autograd.aliases import Views, note_views, write
from polyop.layers.autograd.anomaly import note_results
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.loans import lending
from polyop.layers.autograd.node import Node, leaf_node, next_seq
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.levels import Level, enter_level
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable

Fn = Callable[..., Any]


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
        levels, exclude = (*self.outer.levels, self), self.outer.exclude - AUTOGRAD
        return self.outer.but(levels=levels, grad=True, below=False, exclude=exclude)

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
        # Found before the call, which may take the operator's rules away.
        found = recorder_of(op) if word().grad else None
        before = next_seq() if word() & ANOMALY else 0
        token = set_word(self.below())
        try:
            values = [self.peel(a) for a in args]
            out = dispatch(op, values)
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
    level = GradLevel()
    leaves, spec = tree.flatten(primals)
    lifted = [_watch(level, i, leaf) for i, leaf in enumerate(leaves)]
    with enter_level(level):
        out = lending(level, func, *tree.unflatten(spec, lifted))
    aux = None
    if has_aux:
        out, aux = with_aux(out)
    results, out_spec = tree.flatten(out)

    def pull(cotangents: Any, *, retain_graph: bool = True) -> Any:
        given = tree.leaves(cotangents)
        if len(given) != len(results):
            raise UsageError(
                "there must be one gradient per result",
                declared=f"{len(results)} results", seen=f"{len(given)} gradients",
            )  # fmt: skip
        grads = _pull(level, results, given, lifted, leaves, retain=retain_graph)
        found = tree.unflatten(spec, grads)
        return found

    value = tree.unflatten(out_spec, [level.peel(r) for r in results])
    return (value, pull, level.peel(aux)) if has_aux else (value, pull)


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


def _pull(
    level: GradLevel,
    results: Sequence[Tensor],
    given: Sequence[Tensor],
    lifted: Sequence[Tensor],
    leaves: Sequence[Tensor],
    *,
    retain: bool,
) -> list[Tensor]:
    roots = []
    for result, g in zip(results, given, strict=True):
        node = level.node_of(result)
        if tuple(g.shape) != tuple(result.shape):
            raise AutogradError(
                "a gradient has the wrong shape",
                declared=f"shape {tuple(result.shape)}", seen=f"shape {tuple(g.shape)}",
            )  # fmt: skip
        if node is not None:
            roots.append((node, g))
    wanted = [t.grad_node for t in lifted]
    found = run(roots, retain=retain, create_graph=True, wanted=frozenset(wanted), under=word())
    return [
        found[node] if node in found else ON_TENSORS["zeros_like"](leaf)
        for node, leaf in zip(wanted, leaves, strict=True)
    ]


def grad_and_value(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """Give the function of the gradient and the value of a scalar function.

    Args:
        func: returns a tensor without axes.
        argnums: which arguments to differentiate; a tuple gives a tuple.
        has_aux: whether it returns `(result, aux)`.
    """

    def both(*args: Any, **kwargs: Any) -> Any:
        places = places_of(argnums, len(args))
        chosen = tuple(args[i] for i in places)

        def of_chosen(*values: Any) -> Any:
            full = list(args)
            for i, value in zip(places, values, strict=True):
                full[i] = value
            return func(*full, **kwargs)

        value, pull, *aux = vjp(of_chosen, *chosen, has_aux=has_aux)
        grads = pull(_one_of(value), retain_graph=False)
        grads = grads if isinstance(argnums, tuple) else grads[0]
        return grads, ((value, aux[0]) if has_aux else value)

    return both


def places_of(argnums: int | tuple[int, ...], count: int) -> list[int]:
    """Give the places of the chosen arguments, counted from the front."""
    places = list(argnums) if isinstance(argnums, tuple) else [argnums]
    for i in places:
        if not isinstance(i, int) or not -count <= i < count:
            raise UsageError(
                f"argnums {argnums} does not fit {count} arguments",
                declared=f"{-count} to {count - 1}", seen=repr(i),
            )  # fmt: skip
    return [i % count for i in places]


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


def value_and_grad(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """Give the function of the value and the gradient; see `grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    def swapped(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return value, grads

    return swapped


def grad(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
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

"""`func.grad` and its kin: gradients as functions, in any nesting with each other and `vmap`.

Each running gradient is a level (`grad_level.py`). Backward runs on the tensors of the level below,
so second gradients, batches and traces need no code here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from polyop import tree
from polyop.dispatch.context import set_word, word
from polyop.errors import AutogradError, UsageError, UsageTypeError
from polyop.layers.autograd.chosen import Argnums, Fn, by_leaves
from polyop.layers.autograd.engine import refuse_complex, run
from polyop.layers.autograd.grad_level import GradLevel
from polyop.layers.autograd.loans import lending
from polyop.layers.autograd.node import Node
from polyop.layers.rows import Build, taken_apart
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable


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
        given, laid = taken_apart(cotangents)
        if len(given) != len(ran.results):
            raise UsageError(
                "there must be one gradient per result",
                declared=f"{len(ran.results)} results", seen=f"{len(given)} gradients",
                fix="lay the gradients out as the function's result",
            )  # fmt: skip
        if laid is not ran.build and tree.structure(cotangents) != tree.structure(value):
            raise UsageError(
                "gradients have another structure than results",
                declared=tree.outline(value), seen=tree.outline(cotangents),
                fix="lay the gradients out as the function's result",
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
        if not isinstance(g, Tensor):
            raise UsageTypeError(
                f"the gradient of result {i} is no Tensor", seen=type(g).__name__,
                fix="make it one: polyop.asarray(...)",
            )  # fmt: skip
        if tuple(g.shape) != tuple(result.shape):
            raise AutogradError(
                "a gradient has the wrong shape",
                declared=f"shape {tuple(result.shape)}", seen=f"shape {tuple(g.shape)}",
                fix="give a gradient of the result's shape",
            )  # fmt: skip
        if g.dtype.kind == "c" and result.dtype.kind != "c":
            raise AutogradError(
                f"the gradient of result {i} is complex, and the result is not",
                declared=str(result.dtype), seen=str(g.dtype), fix="give its real part",
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
    outer = word()
    try:
        set_word(level.inner_word())
        out = lending(level, func, *build(lifted))
    finally:
        set_word(outer)
        level.end()
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
    refuse_complex(value.dtype, "the result")
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

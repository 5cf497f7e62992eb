"""What `gradcheck` looks at beside finite differences: batches of gradients, and their dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.errors import GradcheckError
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.layers.autograd.transforms import vjp
from polyop.lazy import load
from polyop.tensor.tensor import Tensor, of_array

Fn = Callable[..., Any]
Array = np.ndarray[Any, Any]
#: How many gradients a batch holds.
SIZE = 2


def check_dtypes(results: Sequence[Tensor], checked: Sequence[Tensor]) -> None:
    """Check that each gradient has the dtype of its input.

    Raises:
        GradcheckError: one has another.
    """
    for j, result in enumerate(results):
        if result.keys & GRAD:
            for i, g in enumerate(_gradients(result, checked, of_array(_draw(result)))):
                if g.dtype != checked[i].dtype:
                    _differ(
                        "a gradient has another dtype than its input", j, i, g.dtype,
                        checked[i].dtype,
                    )  # fmt: skip


def check_batched(results: Sequence[Tensor], checked: Sequence[Tensor], near: Fn) -> None:
    """Check that backward under `vmap` gives what it gives for one gradient after the other.

    Args:
        results: of the function.
        checked: the inputs.
        near: tells whether two arrays are close.

    Raises:
        GradcheckError: it gives something else, or fails.
    """
    for j, result in enumerate(results):
        if not result.keys & GRAD:
            continue
        seeds = np.stack([_draw(result, k) for k in range(SIZE)])
        each = [_gradients(result, checked, of_array(seed)) for seed in seeds]
        try:
            found = _gradients(result, checked, of_array(seeds), is_grads_batched=True)
        except Exception as error:
            raise _fails("backward", j, error) from error
        for i, g in enumerate(found):
            one_by_one = np.stack([row[i].numpy(force=True) for row in each])
            if not near(g.numpy(force=True), one_by_one):
                _differ("a batch of gradients differs from single ones", j, i, g, one_by_one)


def check_batched_forward(of_one: Fn, tensor: Tensor, i: int, near: Fn) -> None:
    """Check that forward mode under `vmap` gives what it gives for one tangent after the other.

    Args:
        of_one: the function of this input; gives a tuple of tensors.
        tensor: the input.
        i: its number.
        near: tells whether two arrays are close.

    Raises:
        GradcheckError: it gives something else, or fails.
    """
    tangents = np.stack([_draw(tensor, k) for k in range(SIZE)])
    at = tensor.detach()

    def pushed(tangent: Tensor) -> Any:
        return jvp(of_one, (at,), (tangent,))[1]

    each = [pushed(of_array(t)) for t in tangents]
    try:
        found = load("polyop.layers.vmap.api:vmap")(pushed)(of_array(tangents))
    except Exception as error:
        raise _fails("forward mode", 0, error) from error
    for j, slope in enumerate(found):
        one_by_one = np.stack([row[j].numpy(force=True) for row in each])
        if not near(slope.numpy(force=True), one_by_one):
            _differ("a batch of tangents differs from single ones", j, i, slope, one_by_one)


def pulled(
    results_of: Fn,
    kept: Sequence[int],
    args: Sequence[Any],
    starts: Sequence[Tensor],
    wanted: Sequence[bool],
) -> Any:
    """Give the gradients of a function inside a transform, where they may be differentiated.

    Args:
        results_of: gives the function's tensors for its arguments.
        kept: which of them have a gradient.
        args: its arguments.
        starts: the gradients of those results.
        wanted: for each leaf of the arguments whether its gradient is asked for.
    """
    leaves, spec = tree.flatten(list(args))

    def of_wanted(*moved: Any) -> Any:
        rest = iter(moved)
        given = [next(rest) if asked else x for x, asked in zip(leaves, wanted, strict=True)]
        out = results_of(tree.unflatten(spec, given))
        return tuple([out[j] for j in kept])

    asked_for = [x for x, asked in zip(leaves, wanted, strict=True) if asked]
    return vjp(of_wanted, *asked_for)[1](tuple(starts))


def _gradients(
    result: Tensor, checked: Sequence[Tensor], seed: Tensor, **options: Any
) -> list[Tensor]:
    options |= {"retain_graph": True, "materialize_grads": True}
    found: Any = grad([result], checked, [seed], **options)
    return list(found)


def _draw(like: Tensor, k: int = 0) -> Array:
    rng = np.random.default_rng(k)
    made: Array = rng.standard_normal(like.payload.shape)
    if like.dtype.kind == "c":
        made = made + 1j * rng.standard_normal(like.payload.shape)
    return np.asarray(made, like.dtype)


def _differ(problem: str, j: int, i: int, seen: Any, declared: Any) -> NoReturn:
    raise GradcheckError(
        f"{problem}: result {j}, input {i}", argument=f"result {j}, input {i}",
        declared=declared, seen=seen, fix="correct the gradient, or the vmap rules that it calls",
    )  # fmt: skip


def _fails(what: str, j: int, error: Exception) -> GradcheckError:
    return GradcheckError(
        f"{what} of result {j} fails under vmap: {error}", argument=f"result {j}",
        fix="give the operators in it a vmap rule, or leave this check out",
    )  # fmt: skip

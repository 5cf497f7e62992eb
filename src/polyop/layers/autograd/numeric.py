"""`gradcheck`: gradients against finite differences, in double precision (S139).

Complex tensors are looked at as pairs of real numbers, in inputs and results,
so one comparison of real matrices serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import run_under, word
from polyop.errors import AutogradError, GradcheckError, PolyopWarning, UsageError
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.layers.autograd.numeric_batches import (
    check_batched,
    check_batched_forward,
    check_dtypes,
    pulled,
)
from polyop.tensor.tensor import Tensor, is_differentiable, of_array
from polyop.warn import warn_once

Fn = Callable[..., Any]
Matrix = np.ndarray[Any, Any]


class Tolerances(NamedTuple):
    """The step of differences, and how far gradients may be from them and from themselves."""

    eps: float
    atol: float
    rtol: float
    nondet: float


def gradcheck(
    func: Fn,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the gradients of a function with finite differences.

    Args:
        func: of the inputs; returns tensors.
        inputs: a tuple of arguments; those that require grad are checked.
        eps: the step of the differences.
        atol: the absolute tolerance.
        rtol: the relative tolerance.
        raise_exception: whether a mismatch raises; otherwise it gives False.
        nondet_tol: how far two runs of the same backward may differ.
        check_undefined_grad: whether backward must bear that a result has no gradient.
        check_grad_dtypes: whether gradients must have the dtypes of their inputs.
        check_batched_grad: whether backward must give the same under `vmap`.
        check_batched_forward_grad: whether forward mode must.
        check_forward_ad: whether forward mode is checked too.
        check_backward_ad: whether backward is checked.
        fast_mode: accepted; the whole Jacobian is compared all the same.
        masked: not True; gradients of sparse tensors are those of dense ones.

    Raises:
        GradcheckError: a gradient differs; it shows result, input and both Jacobians.
        UsageError: no input requires grad, nothing is to be checked, or `masked` is True.
    """
    _refuse_masked("gradcheck", masked)
    _refuse_nothing(check_backward_ad, check_forward_ad, check_batched_forward_grad)
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = _checked(args)
    limits = Tolerances(eps, atol, rtol, nondet_tol)
    near = partial(np.allclose, rtol=rtol, atol=atol, equal_nan=True)
    try:
        if check_backward_ad:
            _check(func, args, checked, limits)
            if check_undefined_grad:
                _check_undefined(func, args, checked)
            if check_grad_dtypes:
                check_dtypes(_results(func, args), checked)
            if check_batched_grad:
                check_batched(_results(func, args), checked, near)
        if check_forward_ad:
            _check_forward(func, args, checked, limits)
        if check_batched_forward_grad:
            for i, tensor in enumerate(checked):
                check_batched_forward(_of_one(func, args, tensor), tensor, i, near)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _refuse_nothing(
    check_backward_ad: bool, check_forward_ad: bool, check_batched_forward_grad: bool
) -> None:
    if not (check_backward_ad or check_forward_ad) or (
        check_batched_forward_grad and not check_forward_ad
    ):
        raise UsageError(
            "gradcheck checks backward, or forward mode, or both; batches of tangents are forward "
            "mode's", op="gradcheck",
            seen=f"{check_backward_ad=}, {check_forward_ad=}, {check_batched_forward_grad=}",
            fix="pass check_forward_ad=True, or leave check_backward_ad=True",
        )  # fmt: skip


def _refuse_masked(name: str, masked: bool | None) -> None:
    if masked:
        raise UsageError(
            "polyop has no gradients of the stored elements of sparse tensors alone", op=name,
            argument="masked", seen=repr(masked), fix="leave masked out",
        )  # fmt: skip


def _checked(args: Sequence[Any]) -> list[Tensor]:
    found = [t for t in tree.leaves(list(args)) if isinstance(t, Tensor) and t.keys & GRAD]
    if not found:
        raise UsageError(
            "gradcheck needs an input that requires grad", seen=f"{len(args)} inputs",
            fix="call requires_grad_() on the inputs to check",
        )  # fmt: skip
    for t in found:
        if t.dtype.name not in {"float64", "complex128"}:
            warn_once(
                PolyopWarning,
                f"gradcheck in {t.dtype} is not exact enough; use float64",
                key=("gradcheck", t.dtype.name),
            )
    return found


def _results(func: Fn, args: Sequence[Any]) -> list[Tensor]:
    out = func(*args)
    leaves = tree.leaves(out)
    return [t for t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype)]


def _check(func: Fn, args: Sequence[Any], checked: list[Tensor], limits: Tolerances) -> None:
    results = _results(func, args)
    for i, tensor in enumerate(checked):
        numerical = _numerical(func, args, tensor, limits.eps)
        for j, result in enumerate(results):
            analytical = _analytical(result, tensor)
            again = _analytical(result, tensor)
            where = (
                f"result {j} (shape {tuple(result.shape)}), input {i} (shape {tuple(tensor.shape)})"
            )
            if np.abs(analytical - again).max(initial=0.0) > limits.nondet:
                _differ("two runs of the same backward differ", where, analytical, again, "again")
            if not np.allclose(analytical, numerical[j], limits.rtol, limits.atol, equal_nan=True):
                _differ(
                    "the gradient differs from finite differences", where, analytical, numerical[j],
                    "numerical",
                )  # fmt: skip


def _check_forward(
    func: Fn, args: Sequence[Any], checked: list[Tensor], limits: Tolerances
) -> None:
    for i, tensor in enumerate(checked):
        numerical = _numerical(func, args, tensor, limits.eps)
        pushed = [_pushed(func, args, tensor, seed) for seed in _seeds(tensor)]
        for j, expected in enumerate(numerical):
            found = np.array([row[j] for row in pushed]).reshape(expected.shape)
            if not np.allclose(found, expected, limits.rtol, limits.atol, equal_nan=True):
                where = f"result {j}, input {i} (shape {tuple(tensor.shape)})"
                _differ(
                    "the forward derivative differs from finite differences", where, found,
                    expected, "numerical",
                )  # fmt: skip


def _pushed(func: Fn, args: Sequence[Any], tensor: Tensor, tangent: Matrix) -> list[Matrix]:
    """Give the tangents of all results, each as a row of real numbers."""
    _, slopes = jvp(_of_one(func, args, tensor), (tensor.detach(),), (of_array(tangent),))
    return [_real(d.numpy(force=True)).astype(float) for d in slopes]


def _of_one(func: Fn, args: Sequence[Any], tensor: Tensor) -> Fn:
    """Give the function of one input, which gives a tuple of tensors."""

    def of_one(moved: Tensor) -> Any:
        return tuple(
            _results(func, tree.map_leaves(lambda t: moved if t is tensor else t, list(args)))
        )

    return of_one


def _differ(problem: str, where: str, one: Matrix, other: Matrix, name: str) -> None:
    raise GradcheckError(
        f"{problem}: {where}",
        argument=where,
        declared=f"{name} Jacobian\n{other}",
        seen=f"analytical Jacobian\n{one}",
        fix="correct the gradient, or the tolerances if the function is not smooth here",
    )


def _real(array: Any) -> Matrix:
    """Give an array as a row of real numbers."""
    flat = np.asarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _numerical(func: Fn, args: Sequence[Any], tensor: Tensor, eps: float) -> list[Matrix]:
    """Give for each result the matrix of differences: inputs by results."""
    start = tensor.numpy(force=True).copy()
    step = _real(np.zeros_like(start))
    rows: list[list[Matrix]] = []
    for k in range(step.size):
        moved = []
        for sign in (1, -1):
            shift = np.zeros_like(step)
            shift[k] = sign * eps
            value = start + shift.view(start.dtype).reshape(start.shape)
            moved.append(_values(func, args, tensor, value))
        rows.append([(a - b) / (2 * eps) for a, b in zip(*moved, strict=True)])
    return [np.array(column) for column in zip(*rows, strict=True)] if rows else _empty(func, args)


def _empty(func: Fn, args: Sequence[Any]) -> list[Matrix]:
    return [np.zeros((0, _real(r.numpy(force=True)).size)) for r in _results(func, args)]


def _values(func: Fn, args: Sequence[Any], tensor: Tensor, value: Any) -> list[Matrix]:
    moved = of_array(value)
    replaced = tree.map_leaves(lambda t: moved if t is tensor else t, list(args))
    results = run_under(word().without_grad, _results, func, replaced)
    return [_real(r.numpy(force=True)).astype(float) for r in results]


def _analytical(result: Tensor, tensor: Tensor) -> Matrix:
    """Give the matrix of gradients: inputs by results."""
    columns = []
    for seed in _seeds(result):
        columns.append(_real(_gradient(result, tensor, seed)))
    count = _real(tensor.numpy(force=True)).size
    return np.array(columns, dtype=float).T if columns else np.zeros((count, 0))


def _gradient(result: Tensor, tensor: Tensor, seed: Matrix) -> Any:
    if not result.keys & GRAD:
        return np.zeros(tuple(tensor.shape), tensor.dtype)
    (g,) = grad(result, tensor, of_array(seed), retain_graph=True, materialize_grads=True)
    assert g is not None
    return g.numpy(force=True)


def _seeds(result: Tensor) -> Iterator[Matrix]:
    """Give one gradient for each real number of a result."""
    for k in range(_real(result.numpy(force=True)).size):
        seed: Matrix = np.zeros(result.payload.shape, result.dtype)
        flat = seed.reshape(-1)
        if result.dtype.kind == "c":
            flat[k // 2] = 1j if k % 2 else 1
        else:
            flat[k] = 1
        yield seed


def _check_undefined(func: Fn, args: Sequence[Any], checked: list[Tensor]) -> None:
    """Check that backward works when only some results have a gradient."""
    results = [r for r in _results(func, args) if r.keys & GRAD]
    if len(results) < 2:
        return
    for j, result in enumerate(results):
        seed = of_array(np.ones(tuple(result.shape), result.dtype))
        try:
            grad(result, checked, seed, retain_graph=True, allow_unused=True)
        except (AutogradError, TypeError, AttributeError) as error:
            raise GradcheckError(
                f"backward fails if only result {j} has a gradient: {error}",
                argument=f"result {j}",
                fix="let backward bear None, or leave gradients materialized",
            ) from error


def gradgradcheck(
    func: Fn,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Compare second gradients with finite differences; see `gradcheck`.

    Args:
        func: of the inputs; returns tensors.
        inputs: a tuple of arguments.
        grad_outputs: where gradients begin; None for random ones.
        eps: the step of the differences.
        atol: the absolute tolerance.
        rtol: the relative tolerance.
        gen_non_contig_grad_outputs: whether random ones lie apart in memory.
        raise_exception: whether a mismatch raises.
        nondet_tol: how far two runs of the same backward may differ.
        check_undefined_grad: whether the second backward must bear absent gradients.
        check_grad_dtypes: whether second gradients must have the dtypes of their inputs.
        check_batched_grad: whether the second backward must give the same under `vmap`.
        check_fwd_over_rev: whether forward mode over backward is checked too.
        check_rev_over_rev: whether backward over backward is checked.
        fast_mode: accepted, as `gradcheck` does.
        masked: not True.
    """
    _refuse_masked("gradgradcheck", masked)
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [any(t is x for x in _checked(args)) for t in tree.leaves(list(args))]
    out = _results(func, args)
    kept = [j for j, r in enumerate(out) if r.keys & GRAD]
    results = [out[j] for j in kept]
    apart = gen_non_contig_grad_outputs
    seeds = _random(results, apart=apart) if grad_outputs is None else [*_as_tuple(grad_outputs)]
    count = len(args)

    def first(*both: Any) -> Any:
        values, starts = both[:count], both[count:]
        out = [r for r in _results(func, values) if r.keys & GRAD]
        wanted = [t for t in tree.leaves(list(values)) if isinstance(t, Tensor) and t.keys & GRAD]
        return grad(out, wanted, starts, create_graph=True, materialize_grads=True)

    def recorded(*both: Any) -> Any:
        if any(isinstance(t, Tensor) and t.keys & WRAPPED for t in tree.leaves(list(both))):
            # Inside a transform no tensor becomes a leaf.
            return pulled(partial(_results, func), kept, both[:count], both[count:], checked)
        # Differences move inputs without history; the first gradient needs one.
        fresh = [_leaf_like(f, a) for f, a in zip(both, [*args, *seeds], strict=True)]
        return run_under(word().with_grad, first, *fresh)

    return gradcheck(
        recorded, (*args, *seeds), eps=eps, atol=atol, rtol=rtol, nondet_tol=nondet_tol,
        raise_exception=raise_exception, check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
    )  # fmt: skip


def _leaf_like(value: Any, original: Any) -> Any:
    """Let a moved input require grad where the original does."""
    if isinstance(value, Tensor) and original.keys & GRAD and not value.keys & GRAD:
        return value.requires_grad_()
    return value


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _random(results: Sequence[Tensor], *, apart: bool) -> list[Tensor]:
    rng = np.random.default_rng(0)
    made = []
    for result in results:
        shape = result.payload.shape
        seed: Matrix = rng.standard_normal(shape) + 0.5
        if result.dtype.kind == "c":
            seed = seed + 1j * rng.standard_normal(shape)
        array = np.asarray(seed, result.dtype)
        if apart:  # every second element of a larger array
            array = np.stack([array, array], -1)[..., 0]
        made.append(of_array(array).requires_grad_())
    return made

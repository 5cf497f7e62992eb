"""The derivatives: both modes, both orders, one mode through the other, and batches of gradients.

All results of an operator get random weights, so that none can be wrong unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tests.opinfo.compare import Both, Difference, compare_all, noise, ours_of, varied
from tests.opinfo.reasons import Reason, skip
from torch.autograd import forward_ad

import polyop
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def _differentiable(both: Both) -> list[int]:
    places = both.sample.differentiable()
    if not places:
        skip(Reason.NOT_SMOOTH)
    return places


def _fresh(both: Both, places: Sequence[int]) -> list[torch.Tensor]:
    return [both.given[i].clone().requires_grad_() for i in places]


def _results_with_gradient(out: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    smooth = [x for x in out if x.requires_grad]
    if not smooth:
        skip(Reason.NOT_SMOOTH)
    return smooth


def gradient(both: Both) -> Reason | None:
    """Compare the gradients of random weights on all results."""
    places = _differentiable(both)
    x = _fresh(both, places)
    out = both.theirs_by(places)(*x)
    smooth = _results_with_gradient(out)
    weights = noise(out, 1)
    chosen = [w for w, o in zip(weights, out, strict=True) if o.requires_grad]
    theirs = torch.autograd.grad(smooth, x, chosen, allow_unused=True)
    full = [_or_zero(t, i) for t, i in zip(theirs, x, strict=True)]
    fn = both.ours_by(places, ours_of(both.given))
    value, pull = polyop.func.vjp(fn, *ours_of(x))
    given = _fitting(ours_of(weights), value)
    return compare_all("gradient", pull(given), full)


def _or_zero(found: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if found is None else found


def _fitting(weights: Sequence[Tensor], value: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Give weights the dtypes of our results, which promotion may have changed."""
    if [tuple(w.shape) for w in weights] != [tuple(v.shape) for v in value]:
        raise Difference("the differentiable results have other shapes")
    return tuple([polyop.astype(w, v.dtype) for w, v in zip(weights, value, strict=True)])


def forward(both: Both) -> Reason | None:
    """Compare derivatives along random tangents."""
    places = _differentiable(both)
    if not both.info.supports_forward_ad:
        skip(Reason.NO_ORACLE)
    x = [both.given[i].clone() for i in places]
    along = noise(x, 2)
    mode: Any = forward_ad  # untyped
    with mode.dual_level():
        duals = [mode.make_dual(a, t) for a, t in zip(x, along, strict=True)]
        unpacked = [mode.unpack_dual(o) for o in both.theirs_by(places)(*duals)]
        theirs = [_or_zero(u.tangent, u.primal) for u in unpacked]
    if all(u.tangent is None for u in unpacked):
        skip(Reason.NOT_SMOOTH)
    fn = both.ours_by(places, ours_of(both.given))
    _, ours = polyop.func.jvp(fn, tuple(ours_of(x)), tuple(ours_of(along)))
    return compare_all("tangent", ours, theirs)


def second(both: Both) -> Reason | None:
    """Compare gradients of gradients, by the arguments and by the weights."""
    places = _differentiable(both)
    if not both.info.supports_gradgrad:
        skip(Reason.NO_ORACLE)
    x = _fresh(both, places)
    out = both.theirs_by(places)(*x)
    smooth = _results_with_gradient(out)
    weights = [w.requires_grad_() for w in noise(out, 1)]
    chosen = [w for w, o in zip(weights, out, strict=True) if o.requires_grad]
    first = torch.autograd.grad(smooth, x, chosen, create_graph=True, allow_unused=True)
    full = [_or_zero(t, i) for t, i in zip(first, x, strict=True)]
    again = noise(full, 3)
    kept = [(f, w) for f, w in zip(full, again, strict=True) if f.requires_grad]
    if not kept:
        skip(Reason.NOT_SMOOTH)
    wanted = [*x, *weights]
    theirs = torch.autograd.grad(
        [f for f, _ in kept], wanted, [w for _, w in kept], allow_unused=True
    )
    theirs_full = [_or_zero(t, i) for t, i in zip(theirs, wanted, strict=True)]
    fn = both.ours_by(places, ours_of(both.given))

    def pulled(*given: Any) -> Any:
        inputs, w = given[: len(places)], given[len(places) :]
        value, pull = polyop.func.vjp(fn, *inputs)
        return pull(_fitting(w, value))

    _, pull = polyop.func.vjp(pulled, *ours_of(wanted))
    return compare_all("second gradient", pull(tuple(ours_of(again))), theirs_full)


def mixed(both: Both) -> Reason | None:
    """Compare the derivative of a gradient along random tangents."""
    places = _differentiable(both)
    if not both.info.supports_fwgrad_bwgrad:
        skip(Reason.NO_ORACLE)
    x = [both.given[i].clone() for i in places]
    theirs_fn = both.theirs_by(places)
    weights = noise(theirs_fn(*x), 1)
    if not weights:
        skip(Reason.NOT_SMOOTH)
    along = noise(x, 2)

    def their_gradient(*given: torch.Tensor) -> Any:
        return torch.func.vjp(theirs_fn, *given)[1](tuple(weights))

    theirs: Any = torch.func.jvp(their_gradient, tuple(x), tuple(along))[1]
    gradient = _gradient(both.ours_by(places, ours_of(both.given)), len(places))

    def our_gradient(*given: Tensor) -> Any:
        return gradient(*given, *ours_of(weights))

    _, ours = polyop.func.jvp(our_gradient, tuple(ours_of(x)), tuple(ours_of(along)))
    return compare_all("tangent of the gradient", ours, theirs)


def _gradient(fn: Fn, count: int) -> Fn:
    """Make a function of arguments and weights that gives the gradient."""

    def gradient(*given: Tensor) -> Any:
        value, pull = polyop.func.vjp(fn, *given[:count])
        return pull(_fitting(given[count:], value))

    return gradient


def batched(both: Both) -> Reason | None:
    """Compare the gradients of a batch of two samples with PyTorch's, one by one."""
    places = _differentiable(both)
    x = [both.given[i].clone() for i in places]
    theirs_fn = both.theirs_by(places)
    rows = [x, [a.clone() if both.pair.alike else varied(a) for a in x]]
    weights = [noise(theirs_fn(*row), 4 + i) for i, row in enumerate(rows)]
    if not weights[0]:
        skip(Reason.NOT_SMOOTH)
    looped = [
        torch.func.vjp(theirs_fn, *row)[1](tuple(w)) for row, w in zip(rows, weights, strict=True)
    ]
    theirs = [torch.stack(column) for column in zip(*looped, strict=True)]
    stacked = [torch.stack(p) for p in (*zip(*rows, strict=True), *zip(*weights, strict=True))]
    gradient = _gradient(both.ours_by(places, ours_of(both.given)), len(places))
    return compare_all("gradients", polyop.func.vmap(gradient)(*ours_of(stacked)), theirs)

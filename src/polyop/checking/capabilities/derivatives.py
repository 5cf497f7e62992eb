"""Gradients, gradients of gradients and tangents by our own layers: what others must give.

A gradient of a gradient is taken with respect to the first one's cotangents too, so that it says
something of linear operators; with these it is also the tangent (`forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.checking.capabilities.subject import Subject, compare, data, noise
from polyop.checking.law import DoesNotApply
from polyop.checking.sample import Array
from polyop.errors import PolyopError
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor, of_array

Wrap = Callable[[Array], Tensor]


class Derivatives(NamedTuple):
    """What was found.

    Attributes:
        outs: the numbers of the results that have a gradient.
        found: arrays, one for each tensor that was asked for.
    """

    outs: list[int]
    found: list[Any]


def first(subject: Subject, wrap: Wrap = of_array) -> Derivatives:
    """Give the gradient of each wanted tensor."""
    tensors, outs, results, cots = _start(subject, wrap)
    grads = grad(results, tensors, [wrap(c) for c in cots], allow_unused=True)
    return Derivatives(outs, _filled(grads, tensors))


def second(subject: Subject, wrap: Wrap = of_array) -> Derivatives:
    """Give the gradients of the gradients, of each wanted tensor and of each cotangent."""
    outs, grads, among, tensors = _twice(subject, wrap)
    weights = noise([data(t) for t in tensors], 2)
    return Derivatives(outs, _pulled(grads, among, weights, wrap))


def forward(subject: Subject, wrap: Wrap = of_array) -> Derivatives:
    """Give the tangent of each result, as the gradient of the gradient."""
    outs, grads, among, tensors = _twice(subject, wrap)
    moved = noise([data(t) for t in tensors], 3)
    found = _pulled(grads, among, moved, wrap)
    return Derivatives(outs, found[len(tensors) :])


def pushed(subject: Subject, wrap: Wrap = of_array) -> Derivatives:
    """Give the tangent of each result by forward mode."""
    outs = _start(subject, wrap)[1]
    arrays = [wrap(a) for a in subject.copies()]
    f = chosen(subject, arrays, outs)
    primals = tuple(arrays[i] for i in subject.wanted)
    tangents = tuple(wrap(t) for t in noise([data(p) for p in primals], 3))
    _, found = jvp(f, primals, tangents)
    return Derivatives(outs, list(found))


def chosen(subject: Subject, arrays: Sequence[Any], outs: Sequence[int]) -> Callable[..., Any]:
    """Give the call as a function of the wanted arrays alone, with the results that are asked."""
    call, wanted = subject.function(), subject.wanted

    def f(*moved: Any) -> tuple[Any, ...]:
        whole = list(arrays)
        for i, x in zip(wanted, moved, strict=True):
            whole[i] = x
        leaves = subject.leaves(call(*whole))
        return tuple([leaves[i][1] for i in outs])

    return f


def _start(subject: Subject, wrap: Wrap) -> tuple[list[Tensor], list[int], list[Any], list[Array]]:
    given = [wrap(a) for a in subject.copies()]
    tensors = [given[i].requires_grad_() for i in subject.wanted]
    leaves = [t for _, t in subject.leaves(subject.function()(*given))]
    outs = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.requires_grad]
    if not outs:
        raise DoesNotApply("no result has a gradient")
    results = [leaves[i] for i in outs]
    cots = noise([np.asarray(data(subject.results[i][1])) for i in outs], 1)
    return tensors, outs, results, cots


def _twice(
    subject: Subject, wrap: Wrap
) -> tuple[list[int], list[Tensor | None], list[Tensor], list[Tensor]]:
    tensors, outs, results, cots = _start(subject, wrap)
    given = [wrap(c).requires_grad_() for c in cots]
    grads = grad(results, tensors, given, create_graph=True, allow_unused=True)
    return outs, list(grads), [*tensors, *given], tensors


def _pulled(
    grads: Sequence[Tensor | None], among: Sequence[Tensor], weights: Sequence[Array], wrap: Wrap
) -> list[Any]:
    pairs = [
        (g, wrap(np.asarray(w, data(g).dtype)))
        for g, w in zip(grads, weights, strict=True)
        if g is not None and g.requires_grad
    ]
    if not pairs:
        raise DoesNotApply("the gradient does not depend on anything")
    found = grad([g for g, _ in pairs], among, [w for _, w in pairs], allow_unused=True)
    return _filled(found, among)


def _filled(grads: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    pairs = zip(grads, tensors, strict=True)
    return [np.zeros_like(data(t)) if g is None else data(g) for g, t in pairs]


def named(found: Sequence[Any], what: str) -> list[tuple[str, Any]]:
    """Give values with names."""
    return [(f"{what} {i}", value) for i, value in enumerate(found)]


def tangents_of(subject: Subject) -> Derivatives:
    """Give the tangents that forward mode must give.

    They are taken from backward, which knows nothing of a rule for forward mode; by that rule where
    backward cannot be differentiated, or numbers are complex, for which both differ in convention.
    """
    complex_too = any(a.dtype.kind == "c" for a in subject.arrays)
    if not complex_too:
        try:
            return forward(subject)
        except PolyopError:
            pass
    return pushed(subject)


def agree(subject: Subject, got: Sequence[Any], wanted: Sequence[Any], what: str) -> None:
    """Compare a library's derivatives with ours on NumPy.

    Raises:
        Differs: they are not the same.
    """
    compare(subject, named(got, what), named(wanted, what))

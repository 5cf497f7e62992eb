"""What a backward does with the gradients that it is given, whatever their values.

Finite differences see one gradient that comes in, with all results at once. A
right backward gives the same when it runs again and when fewer arguments ask,
is linear in what comes in, and takes the gradient of one result alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from polyop.checking.compare import Tolerance, array_difference
from polyop.checking.differences import rounds
from polyop.checking.law import Case
from polyop.checking.sample import Array, array_of
from polyop.checking.slope import Slope, gradients_of, weights
from polyop.dispatch.keys import AUTOGRAD_KEYS, DispatchKey
from polyop.errors import GradcheckError
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, of_array

#: How many times another gradient is given. A power of two, so that products are exact.
SCALE = -64.0


def gradient_source(case: Case) -> Any:
    """Give the place of the gradient, None if none is registered."""
    op = case.op
    for slot in ("backward", "formula", "decomposition"):
        if op.rule(slot) is not None:
            return op.rule_source(slot)
    for key in (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd, *AUTOGRAD_KEYS):
        if op.places.top(key) is not None:
            return op.rule_source(key)
    return None


def compare_alone(slope: Slope) -> None:
    """Compare with the gradients when each argument alone requires grad.

    Raises:
        GradcheckError: one is another.
    """
    for i, told in zip(slope.targets, slope.gradients(), strict=True):
        alone = replace(slope, targets=[i]).gradients()[0]
        zeros = np.zeros_like(slope.start[i])
        compare_one(
            slope, i, told=zeros if alone is None else alone, seen=zeros if told is None else told,
            problem="is another when no other argument requires grad",
            fix="give each gradient in its own place, whatever ctx.needs_input_grad says",
        )  # fmt: skip


def compare_runs(slope: Slope) -> None:
    """Run backward again: it leaves what it is given, repeats itself, and is linear.

    Raises:
        GradcheckError: it does not.
    """
    found, inputs = slope.terms(slope.start)
    pairs = [(t, w) for t, w in zip(found, weights(found), strict=True) if t.requires_grad]
    if not pairs:
        return
    terms, scale = zip(*pairs, strict=True)
    before = [array_of(w).tobytes() for w in scale]
    first, again = (_run(terms, inputs, scale) for _ in range(2))
    if [array_of(w).tobytes() for w in scale] != before:
        raise GradcheckError(
            f"the backward of {slope.case.name} writes the gradient that it is given",
            op=slope.case.op._schema,
            source=gradient_source(slope.case),
            fix="work on a copy (g.clone()): others are given the same gradient",
        )
    for i, a, b in zip(slope.targets, first, again, strict=True):
        compare_one(
            slope, i, told=b, seen=a,
            problem="is another when backward runs again (retain_graph=True)",
            fix="leave what is saved in ctx as it is",
        )  # fmt: skip
    _compare_scaled(slope, first, _run(terms, inputs, [_scaled(w) for w in scale]))
    if len(terms) > 1:
        parts = [_run([t], inputs, [w]) for t, w in zip(terms, scale, strict=True)]
        _compare_parts(
            slope, first, parts,
            problem="is another when each result alone is differentiated, and summed",
            fix="in backward, take the gradient of a result that is not used for zero, "
            "be it None or not",
        )  # fmt: skip
    halves = [_run(terms, inputs, [_half(w, k) for w in scale]) for k in (0, 1)]
    _compare_parts(
        slope, first, halves,
        problem="is another when each half of the incoming gradient, with zeros for the rest, "
        "is taken alone, and summed",
        fix="multiply the incoming gradient by the derivative, and add nothing to it",
    )  # fmt: skip


def _run(terms: Sequence[Tensor], inputs: Sequence[Tensor], scale: Sequence[Tensor]) -> list[Array]:
    """Give the gradients for some results; the graph is kept."""
    given = grad(terms, inputs, scale, allow_unused=True, retain_graph=True, materialize_grads=True)
    return [array_of(g) for g in given if g is not None]  # with zeros in the place of None


def _scaled(w: Tensor) -> Tensor:
    array = array_of(w)
    return of_array(np.asarray(array * SCALE, array.dtype))


def _half(w: Tensor, k: int) -> Tensor:
    """Give every second element, from the one of that number, among zeros."""
    array = array_of(w)
    kept = np.arange(array.size).reshape(array.shape) % 2 == k
    return of_array(np.asarray(np.where(kept, array, 0), array.dtype))


def _compare_scaled(slope: Slope, first: Sequence[Array], scaled: Sequence[Array]) -> None:
    """Compare with the gradients of a gradient that is larger, and of the other sign.

    A kernel that rounds coarsely, as images are rounded, may have a backward that does.
    """
    near = (slope.precision.rtol, slope.precision.atol)
    for i, a, b in zip(slope.targets, first, scaled, strict=True):
        told = np.asarray(b / SCALE, b.dtype)
        if not np.isfinite(b).all():  # eight and sixteen bits soon hold no larger one
            continue
        if array_difference(told, a, near) and rounds(slope, i):
            continue
        compare_one(
            slope, i, told=told, seen=a,
            problem=f"is not linear: of {SCALE:g} times the incoming gradient it is not "
            f"{SCALE:g} times as large",
            fix="multiply the incoming gradient by the derivative, and do nothing else to it",
            tolerance=near,
        )  # fmt: skip


def _compare_parts(
    slope: Slope,
    first: Sequence[Array],
    parts: Sequence[Sequence[Array]],
    *,
    problem: str,
    fix: str,
) -> None:
    """Compare with the sum of the gradients of the parts of what comes in."""
    near = slope.precision
    for i, a, each in zip(slope.targets, first, zip(*parts, strict=True), strict=True):
        if not all(np.isfinite(part).all() for part in each):
            continue
        told = np.asarray(sum(each), a.dtype)
        largest = max([float(np.abs(part).max(initial=0.0)) for part in each])
        room = (near.rtol, near.atol + near.rtol * largest)
        if array_difference(told, a, room) and rounds(slope, i):
            continue
        compare_one(slope, i, told=told, seen=a, problem=problem, fix=fix, tolerance=room)


def compare_one(
    slope: Slope,
    target: int,
    *,
    told: Array,
    seen: Array,
    problem: str,
    fix: str,
    tolerance: Tolerance = (None, None),
) -> None:
    """Compare the gradient for one argument with the same one, found otherwise.

    Raises:
        GradcheckError: it is another.
    """
    differs = array_difference(told, seen, tolerance)
    if differs:
        raise GradcheckError(
            f"the gradient of {slope.case.name} for {slope.name(target)!r} {problem}",
            op=slope.case.op._schema,
            argument=slope.name(target),
            declared="the same gradient",
            seen=differs,
            source=gradient_source(slope.case),
            fix=fix,
        )


# -- the gradient of a gradient for what comes in ------------------------------


def compare_incoming(slope: Slope) -> None:
    """Differentiate the gradients with respect to the incoming ones, in which they are linear.

    What is linear is its own derivative, along where it is.

    Raises:
        GradcheckError: the derivative is another.
    """
    found, inputs = slope.terms(slope.start)
    terms = [t for t in found if t.requires_grad]
    incoming = [w.requires_grad_() for w in weights(terms)]
    if not incoming:
        return
    made = grad(terms, inputs, incoming, create_graph=True, allow_unused=True)
    gradients = [g for g in made if g is not None]
    slopes = zip(incoming, gradients_of(gradients, incoming), strict=True)
    products = [_product(w, d) for w, d in slopes if d is not None]
    wanted = [_product(g, array_of(w)) for g, w in zip(gradients, weights(gradients), strict=True)]
    told, seen = (float(sum(p.sum() for p in row)) for row in (products, wanted))
    room = slope.precision.atol + slope.precision.rtol * sum(np.abs(p).sum() for p in wanted)
    if np.isfinite(seen) and not abs(told - seen) <= room:
        raise GradcheckError(
            f"the second gradient of {slope.case.name} for the incoming gradient is wrong",
            op=slope.case.op._schema,
            argument=", ".join(map(slope.name, slope.targets)),
            declared=f"{told:.8g} along the incoming gradient (the backward)",
            seen=f"{seen:.8g} (the gradient itself, which is linear in it)",
            source=gradient_source(slope.case),
            fix="compute in backward by operators on the incoming gradient, without .detach() "
            "or .numpy()",
        )


def _product(t: Tensor, by: Array) -> Array:
    """Multiply, as numbers of two parts where they are complex."""
    return np.asarray((np.conj(array_of(t)) * by).real)

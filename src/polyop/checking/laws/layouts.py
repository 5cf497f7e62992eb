"""The law of layouts: where elements lie in memory changes neither results nor gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polyop.checking.compare import compare_leaves, reordered
from polyop.checking.inputs import RELAYS, Relay, layouts
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.forward import fresh, function_of, random_like
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.libraries import compare_libraries
from polyop.checking.rarer import expanded
from polyop.checking.sample import Array, Sample, array_of
from polyop.checking.slope import Slope, weights
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor, of_array

Leaves = list[tuple[str, Any]]


@law("test_layouts", "A result does not depend on where and how the arguments lie in memory.")
def layouts_law(case: Case) -> str | None:
    """Call with copies that lie otherwise, expanded ones too, and with other libraries' arrays."""
    case.needs_repeats()
    note = compare_libraries(case)
    if not any(array_of(t).size > 1 for t in case.sample.tensors()):
        if note:
            return note
        raise DoesNotApply("no tensor of the sample has several elements")
    wanted = outcome(case, case.sample.copy())
    for name, sample in layouts(case.sample):
        compare_results(case, name, outcome(case, sample.copy()), wanted)
    for name, there, sample in _expanded(case):
        found = attempt(there, sample)
        if found is not None:
            compare_results(case, name, found, outcome(there, there.sample.copy()))
    if gradient_source(case) is not None and not case.op._schema.is_mutable:
        compare_gradients(case)
    if case.op.rule("jvp") is not None and not case.op._schema.is_mutable:
        compare_tangents(case)
    return note


def compare_results(case: Case, name: str, found: Leaves, wanted: Leaves) -> None:
    """Compare results with those for contiguous arguments.

    Raises:
        OpCheckError: they differ.
    """
    _compare(
        case,
        found,
        wanted,
        f"{{}} of {case.name} differs for {name} arguments",
        op=case.op._schema,
        declared="the same values as for contiguous arguments",
        source=case.kernel_source,
        fix="read elements by index, or begin with a contiguous copy "
        "(numpy.ascontiguousarray) before raw memory is used",
    )


def _expanded(case: Case) -> Iterator[tuple[str, Case, Sample]]:
    """Give expanded arguments, each behind a case with the same values laid out densely."""
    for name, sample in expanded(case.sample):
        dense = sample.map(lambda t: of_array(array_of(t).copy()))
        there = Case(case.op, dense, case.rtol, case.atol)
        if attempt(there, dense) is not None and there.repeats:
            yield name, there, sample


def attempt(case: Case, sample: Sample) -> Leaves | None:
    """Call on a copy; None if the operator refuses it."""
    try:
        return outcome(case, sample.copy())
    except Exception:  # any refusal says nothing
        return None


def _compare(case: Case, got: Leaves, wanted: Leaves, problem: str, **parts: Any) -> None:
    """Compare with room for sums that go along memory, and so are taken in another order."""
    terms = max([array_of(t).size for t in case.sample.tensors()], default=1)
    told = case.rtol is not None
    near = [case.tolerance if told else reordered(value, terms) for _, value in wanted]
    compare_leaves(got, wanted, near, problem, **parts)


#: A sample, and how the incoming gradients lie.
Given = tuple[Sample, Relay]


def compare_gradients(case: Case) -> None:
    """Compare gradients where arguments, and then incoming gradients, lie otherwise.

    Raises:
        OpCheckError: they differ.
    """
    base = case.sample
    made: list[tuple[str, Given]]
    made = [(f"{name} arguments", (s, _as_it_is)) for name, s in layouts(base)]
    made += [(f"{name} incoming gradients", (base, relay)) for name, relay in RELAYS.items()]
    _compare_gradients(case, (base, _as_it_is), made)
    # As those of a sum come in.
    _compare_gradients(case, (base, _filled), [("expanded incoming gradients", (base, _spread))])
    for name, there, sample in _expanded(case):
        dense = (there.sample, _as_it_is)
        _compare_gradients(case, dense, [(f"{name} arguments", (sample, _as_it_is))])


def _compare_gradients(case: Case, dense: Given, made: Sequence[tuple[str, Given]]) -> None:
    try:
        wanted = gradients(case, *dense)
    except Exception:  # a gradient that fails is another law's affair
        return
    for said, given in made:
        _compare(
            case,
            gradients(case, *given),
            wanted,
            f"{{}} of {case.name} differs for {said}",
            op=case.op._schema,
            declared="the same gradient as for contiguous ones",
            source=gradient_source(case),
            fix="compute with operators, or read elements by index in backward",
        )


def compare_tangents(case: Case) -> None:
    """Compare forward mode where tangents lie otherwise.

    Raises:
        OpCheckError: it differs.
    """
    try:
        wanted = _tangents(case, _as_it_is)
    except Exception:  # forward mode that fails is another law's affair
        return
    for name, relay in RELAYS.items():
        _compare(
            case,
            _tangents(case, relay),
            wanted,
            f"{{}} of {case.name} differs for {name} tangents",
            op=case.op._schema,
            declared="the same tangent as for contiguous ones",
            source=case.op.rule_source("jvp"),
            fix="compute with operators, or read elements by index in the jvp",
        )


def _tangents(case: Case, relay: Relay) -> Leaves:
    slope = Slope(case, case.sample, targets_of(case.sample), 1)
    arrays = [slope.start[i] for i in slope.targets]
    along = [of_array(relay(a)) for a in random_like(arrays, 11)]
    _, made = jvp(function_of(slope, slope.targets), fresh(arrays), tuple(along))
    return [(f"tangent {i}", t) for i, t in enumerate(made)]


def _as_it_is(array: Array) -> Array:
    return array


def _spread(array: Array) -> Array:
    """Give one element in place of all, which lies there once."""
    return np.broadcast_to(array.reshape(-1)[:1].reshape((1,) * array.ndim), array.shape)


def _filled(array: Array) -> Array:
    return _spread(array).copy()


def gradients(case: Case, sample: Sample, relay: Relay) -> Leaves:
    """Give the gradients of weighted results, with the weights laid out by `relay`."""
    given = sample.copy()
    inputs = {i: t for i, t in enumerate(given.tensors()) if i in targets_of(case.sample)}
    for t in inputs.values():
        t.requires_grad_()
    found = [t for _, t in outcome(case, given) if isinstance(t, Tensor) and t.requires_grad]
    if not found or not inputs:
        return []
    scale = [of_array(relay(array_of(w))) for w in weights(found)]
    made = grad(found, list(inputs.values()), scale, allow_unused=True)
    names = [f"the gradient for {case.sample_name(i)!r}" for i in inputs]
    return list(zip(names, made, strict=True))

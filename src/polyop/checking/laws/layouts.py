"""The law of layouts: where elements lie in memory changes neither results nor gradients."""

from __future__ import annotations

from typing import Any

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import RELAYS, Relay, layouts
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.libraries import compare_libraries
from polyop.checking.sample import Array, Sample, array_of
from polyop.checking.slope import weights
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, of_array


@law("test_layouts", "A result does not depend on where and how the arguments lie in memory.")
def layouts_law(case: Case) -> str | None:
    """Call with transposed, sliced, reversed and unaligned copies, and with other libraries'."""
    case.needs_repeats()
    note = compare_libraries(case)
    if not any(array_of(t).size > 1 for t in case.sample.tensors()):
        if note:
            return note
        raise DoesNotApply("no tensor of the sample has several elements")
    wanted = outcome(case, case.sample.copy())
    for name, sample in layouts(case.sample):
        compare_leaves(
            outcome(case, sample.copy()),
            wanted,
            case.tolerance,
            f"{{}} of {case.name} differs for {name} arguments",
            op=case.op._schema,
            declared="the same values as for contiguous arguments",
            source=case.kernel_source,
            fix="read elements by index, or begin with a contiguous copy "
            "(numpy.ascontiguousarray) before raw memory is used",
        )
    if gradient_source(case) is not None and not case.op._schema.is_mutable:
        compare_gradients(case)
    return note


def compare_gradients(case: Case) -> None:
    """Compare gradients where arguments, and then incoming gradients, lie otherwise.

    Raises:
        OpCheckError: they differ.
    """
    try:
        wanted = gradients(case, case.sample, _as_it_is)
    except Exception:  # a gradient that fails is another law's affair
        return
    cases: list[tuple[str, Sample, Relay]]
    cases = [(f"{name} arguments", s, _as_it_is) for name, s in layouts(case.sample)]
    cases += [(f"{name} incoming gradients", case.sample, r) for name, r in RELAYS.items()]
    for said, sample, relay in cases:
        compare_leaves(
            gradients(case, sample, relay),
            wanted,
            case.tolerance,
            f"{{}} of {case.name} differs for {said}",
            op=case.op._schema,
            declared="the same gradient as for contiguous ones",
            source=gradient_source(case),
            fix="compute with operators, or read elements by index in backward",
        )


def _as_it_is(array: Array) -> Array:
    return array


def gradients(case: Case, sample: Sample, relay: Relay) -> list[tuple[str, Any]]:
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

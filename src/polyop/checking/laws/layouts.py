"""The law of layouts: where elements lie in memory does not change the result."""

from __future__ import annotations

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import layouts
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.sample import array_of


@law("test_layouts", "A result does not depend on how the arguments lie in memory.")
def layouts_law(case: Case) -> None:
    """Call with transposed, sliced, reversed and unaligned copies of the sample."""
    case.needs_repeats()
    if not any(array_of(t).size > 1 for t in case.sample.tensors()):
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

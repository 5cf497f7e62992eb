"""The law of autocast: a call under it is the call on arguments that were cast by hand."""

from __future__ import annotations

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import cast
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.laws.fake import compare_fake
from polyop.checking.sample import Sample
from polyop.layers.autocast import autocast
from polyop.tensor.tensor import is_floating


@law("test_autocast", "Under autocast a call gives what it gives for arguments cast by hand.")
def autocast_law(case: Case) -> None:
    """Compare results, and their fakes, for single-precision arguments."""
    dtype = case.op.rule("autocast:cpu")
    if dtype is None:
        raise DoesNotApply("no dtype is registered for autocast on the CPU")
    case.needs_repeats()
    if not any(is_floating(t.dtype) for t in case.sample.tensors()):
        raise DoesNotApply("no tensor of the sample is floating")
    single = cast(case.sample, "float32")
    wanted = outcome(case, by_hand(single.copy(), dtype.name))
    with autocast("cpu"):
        got = outcome(case, single.copy())
        compare_fake(case, single.copy(), " under autocast")
    compare_leaves(
        [leaf for leaf in got if not leaf[0].startswith("argument")],
        [leaf for leaf in wanted if not leaf[0].startswith("argument")],
        case.tolerance,
        f"{{}} of {case.name} differs under autocast",
        op=case.op._schema,
        declared=f"what it is for arguments of {dtype.name}",
        source=case.op.rule_source("autocast:cpu"),
        fix="compute in the dtype of the arguments, whatever was seen in another call",
    )


def by_hand(sample: Sample, dtype: str) -> Sample:
    """Cast the floating tensors; complex ones stay as they are."""
    given = cast(sample, dtype)
    pairs = zip(sample.tensors(), given.tensors(), strict=True)
    return sample.rebuilt([new if is_floating(old.dtype) else old for old, new in pairs])

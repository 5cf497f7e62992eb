"""The law of autocast: a call under it is the call on arguments that were cast by hand."""

from __future__ import annotations

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import cast
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.fake import compare_fake
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.precision import (
    ROOMS,
    Look,
    Looked,
    differing,
    gradient_error,
    gradients_at,
    value_error,
    values_of,
)
from polyop.checking.sample import Sample
from polyop.checking.slope import Slope
from polyop.layers.autocast import autocast
from polyop.tensor.tensor import is_floating


@law("test_autocast", "Under autocast a call gives what it gives for arguments cast by hand.")
def autocast_law(case: Case) -> None:
    """Compare results, their fakes and gradients, for single-precision arguments."""
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
    if dtype.name in ROOMS:
        _compare_precise(case, by_hand(single, dtype.name), dtype.name)


def _compare_precise(case: Case, low: Sample, dtype: str) -> None:
    """Compare results and gradients under autocast with those in float64 on the same numbers.

    Raises:
        OpCheckError: they differ by far more than rounding.
    """

    def under(look: Look) -> Look:
        def cast_first(sample: Sample) -> Looked:
            with autocast("cpu"):
                return look(cast(sample, "float32"))

        return cast_first

    values = values_of(case)
    found = differing(low, dtype, values, under(values))
    if found is not None:
        raise value_error(case, found, f"{dtype} under autocast")
    if case.op._schema.is_mutable or gradient_source(case) is None:
        return
    gradients = gradients_at(Slope(case, low, targets_of(case.sample), 1))
    found = differing(low, dtype, gradients, under(gradients))
    if found is not None:
        raise gradient_error(case, found, f"{dtype} under autocast")


def by_hand(sample: Sample, dtype: str) -> Sample:
    """Cast the floating tensors; complex ones stay as they are."""
    given = cast(sample, dtype)
    pairs = zip(sample.tensors(), given.tensors(), strict=True)
    return sample.rebuilt([new if is_floating(old.dtype) else old for old, new in pairs])

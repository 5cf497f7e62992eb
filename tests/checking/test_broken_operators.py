"""Every broken operator is found: by the right law alone, with the line and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

import polyop.assembly  # noqa: F401
from polyop.checking.find import find
from polyop.checking.law import LAWS
from polyop.checking.run import OperatorReport, check_operator
from polyop.cli import main
from polyop.errors import (
    AliasError,
    ArgumentError,
    AutogradError,
    DataDependentOutputError,
    GradcheckError,
    MetadataMismatchError,
    MissingGradientError,
    MutationError,
    OpCheckError,
    PolyopError,
    ReturnError,
)

FOLDER = Path(__file__).parents[1] / "broken_operators"

#: File: the one law that is broken, the error inside, and parts of its text in order.
BROKEN: dict[str, tuple[str, type[PolyopError], tuple[str, ...]]] = {
    "writes_one_bit": (
        "test_schema",
        MutationError,
        (
            "writes its argument 'x', which its schema does not declare",
            "argument: x",
            "declared: not written",
            "element [0, 1] was 0.28 and became 0.2800000000000001 (1 of 6 changed)",
            "writes_one_bit.py:",
            "work on a copy (x.clone()), or declare the write: mutates_args=('x',)",
        ),
    ),
    "aliases_input": (
        "test_schema",
        AliasError,
        ("the result of", "shares storage with argument 'x'", "no sharing", "return a copy"),
    ),
    "aliases_other_layout": (
        "test_schema",
        AliasError,
        ("the result of", "shares storage with argument 'x'", "no sharing", "return a copy"),
    ),
    "second_result_aliases": (
        "test_schema",
        AliasError,
        ("result 1 of", "shares storage with result 0", "return a copy"),
    ),
    "writes_kept_global": (
        "test_schema",
        AliasError,
        (
            "the result of",
            "shares storage with the result of an earlier call",
            "give back a new tensor on each call",
        ),
    ),
    "fake_wrong_shape": (
        "test_faketensor",
        MetadataMismatchError,
        (
            "is wrong about the shape of the result",
            "declared: shape [2, 3] (the fake rule)",
            "shape [2] (the kernel)",
            "fake_wrong_shape.py:",
            "make the fake rule give the kernel's shape",
        ),
    ),
    "fake_wrong_dtype": (
        "test_faketensor",
        MetadataMismatchError,
        ("is wrong about the dtype of the result", "dtype float64 (the fake", "dtype bool (the k"),
    ),
    "fake_wrong_stride": (
        "test_faketensor",
        MetadataMismatchError,
        ("is wrong about the strides of the result", "strides [3, 1]", "strides [1, 2]"),
    ),
    "fake_only_at_sample": (
        "test_faketensor",
        MetadataMismatchError,
        (
            "is wrong about the shape of the result at size 2 -> 5, 3 -> 8",
            "shape [2, 3] (the fake rule)",
            "shape [5, 8] (the kernel)",
            "compute the shape from the arguments' shapes (x.shape), not from the sample's",
        ),
    ),
    "fake_reads_data": (
        "test_faketensor",
        DataDependentOutputError,
        ("item() looks at the data of a fake tensor", "fake_reads_data.py:", "new_dynamic_size"),
    ),
    "gradient_off_by_factor": (
        "test_gradient",
        GradcheckError,
        (
            "for 'x' is wrong: every element is 3 times what it should be",
            "argument: x",
            "(the backward)",
            "(finite differences)",
            "gradient_off_by_factor.py:",
            "divide the gradient for 'x' by 3 in the backward",
        ),
    ),
    "gradient_missing": (
        "test_gradient",
        MissingGradientError,
        (
            "has no gradient, though x of the sample requires grad",
            "gradient_missing.py:",
            "add polyop.library.register_autograd('broken::gradient_missing', backward)",
            "register_autograd('broken::gradient_missing', None)",
        ),
    ),
    "gradient_none": (
        "test_gradient",
        GradcheckError,
        ("for 'y' is missing", "no gradient at", "return a gradient for 'y' from backward"),
    ),
    "gradients_too_many": (
        "test_gradient",
        AutogradError,
        ("wrong number of gradients", "gradients_too_many.py:"),
    ),
    "second_gradient_lost": (
        "test_second_order",
        GradcheckError,
        ("the second gradient of", "for 'x' is missing", "without .detach() or .numpy()"),
    ),
    "incoming_gradient_detached": (
        "test_second_order",
        GradcheckError,
        (
            "for the incoming gradient is wrong",
            "argument: x",
            "declared: 0 along",
            "without .detach",
        ),
    ),
    "second_jvp_lost": (
        "test_second_order",
        GradcheckError,
        ("second forward derivative", "argument: x", "second_jvp_lost.py:", "without .detach"),
    ),
    "jvp_without_sign": (
        "test_gradient",
        GradcheckError,
        ("the forward derivative of", "'x' is wrong", "with the other sign", "compare the jvp"),
    ),
    "gradient_ignores_number": (
        "test_gradient",
        GradcheckError,
        ("for 'x' is wrong", "(finite differences, with p=2.5)", "compare the backward"),
    ),
    "gradient_of_last_call": (
        "test_gradient",
        GradcheckError,
        ("for 'x' is another when another call came between", "keep what backward needs in ctx"),
    ),
    "gradient_of_written": (
        "test_gradient",
        GradcheckError,
        ("is silently another when 'x' is written before backward", "by ctx.save_for_backward"),
    ),
    "gradient_of_two_only": (
        "test_gradient",
        GradcheckError,
        ("for 'xs[2]' is wrong", "declared: 0 at", "with xs of length 3"),
    ),
    "decomposition_differs": (
        "test_decomposition",
        OpCheckError,
        (
            "the result of the decomposition of",
            "differs from the kernel's",
            "declared: what the kernel gives",
            "(6 of 6 elements differ)",
            "decomposition_differs.py:",
            "compare the two",
        ),
    ),
    "vmap_wrong_in_dims": (
        "test_vmap",
        OpCheckError,
        (
            "under vmap differs from the loop with in_dims=1",
            "declared: what a loop over the batch gives",
            "vmap_wrong_in_dims.py:",
            "move each batched axis from in_dims[i]",
        ),
    ),
    "nondeterministic": (
        "test_determinism",
        OpCheckError,
        (
            "gives another result for the same arguments",
            "argument: the result",
            "deterministic (no tag says otherwise)",
            "nondeterministic.py:",
            "tags=(Tag.nondeterministic_seeded,)",
        ),
    ),
    "not_thread_safe": (
        "test_threads",
        OpCheckError,
        ("gives another result while other threads call it", "guard it with a lock"),
    ),
    "index_reduces_loop": (
        "test_index",
        ReturnError,
        (
            "result 0 of broken::index_reduces_loop does not fit (n)->() for loops (2,): "
            "loop 0 missing",
            "declared: shape (2,)",
            "seen:     shape ()",
            "index_reduces_loop.py:",
            "correct the kernel, or the index signature",
        ),
    ),
    "index_swaps_axes": (
        "test_index",
        ReturnError,
        ("does not fit (m),(n)->(m,n): axis m", "shape (2, 3)", "shape (3, 2)"),
    ),
    "index_mixes_loops": (
        "test_index",
        OpCheckError,
        (
            "mixes loops, for loops (2,): element [0] is not that of its call",
            "(n)->(n): each element of a stack as if it were alone",
            "index_mixes_loops.py:",
            "count axes from the last (axis=-1)",
        ),
    ),
    "pointwise_sums": (
        "test_pointwise",
        OpCheckError,
        (
            "the result of broken::pointwise_sums at [0, 1] depends on x[0, 0]",
            "argument: x",
            "each element of its own place: the operator is tagged pointwise",
            "pointwise_sums.py:",
            "take Tag.pointwise off the operator",
        ),
    ),
    "index_takes_any_size": (
        "test_index",
        ArgumentError,
        (
            "takes sizes that (n),(n)->(n) refuses: axis n",
            "argument: y",
            "axis n of size 7",
            "size 9, and no error",
            "or name the axes otherwise",
        ),
    ),
    "reads_raw_memory": (
        "test_layouts",
        OpCheckError,
        ("the result of", "differs for transposed arguments", "numpy.ascontiguousarray"),
    ),
}


def report_of(name: str) -> OperatorReport:
    (found,) = find(str(FOLDER / f"{name}.py"))
    return check_operator(found.op, found.samples, problem=found.problem)


def test_every_broken_operator_is_listed() -> None:
    """Each file of broken operators has its expected verdict, and `right.py` none."""
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert files == {*BROKEN, "right"}


@pytest.mark.parametrize("name", BROKEN)
def test_one_law_is_broken_and_says_what_to_change(name: str) -> None:
    """S206: a fault breaks its own law and no other; the text has all parts, in order."""
    law, cause, parts = BROKEN[name]
    (found,) = report_of(name).broken
    assert found.law == law
    error = found.verdict.error
    assert isinstance(error, OpCheckError)
    assert isinstance(error.__cause__, cause)
    text = str(error)
    assert text.startswith(f"{law}: ")
    assert f"broken::{name}" in text
    place = 0
    for part in parts:
        assert part in text[place:], f"{part!r} is not in, or not here:\n{text}"
        place = text.index(part, place)


@pytest.mark.parametrize("name", BROKEN)
def test_the_command_fails(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """S207: `polyop check` exits with 1 where a law is broken, and prints why."""
    assert main(["check", str(FOLDER / f"{name}.py")]) == 1
    out = capsys.readouterr().out
    assert f"broken::{name}" in out
    assert BROKEN[name][0] in out
    assert "fix:" in out


def test_right_operators_hold_every_law(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: `polyop check` exits with 0 where every law holds or does not apply."""
    assert main(["check", str(FOLDER / "right.py")]) == 0
    assert "3 operators, 0 broken laws" in capsys.readouterr().out


def test_every_law_holds_somewhere() -> None:
    """Each law is one that some right operator is held to: none is vacuous."""
    held = {
        finding.law
        for found in find(str(FOLDER / "right.py"))
        for finding in check_operator(found.op, found.samples).findings
        if finding.verdict.kind == "holds"
    }
    assert held == set(LAWS)

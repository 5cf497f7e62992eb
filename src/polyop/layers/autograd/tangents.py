"""How tangents go through operators, decided once per operator from its rules (S132).

An author's `jvp` comes first. Built-in operators have their gradient as text:
of a pointwise operator the same text gives the tangent, for its Jacobian is
diagonal; linear and bilinear operators act on the tangent themselves. All
others are transposed (`transpose.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import Handler, OpOverload
from polyop.errors import MissingGradientError
from polyop.layers.autograd.author import AuthorRecorder, flatten_results
from polyop.layers.autograd.author_tangents import AuthorTangents
from polyop.layers.autograd.extremes import ExtremeTangents
from polyop.layers.autograd.folded import SumTangents
from polyop.layers.autograd.linear import BilinearTangents, LinearTangents, ViewTangents
from polyop.layers.autograd.powers import NumberPowerTangents, PowerTangents, ProductTangents
from polyop.layers.autograd.quick_transpose import AuthorTransposed
from polyop.layers.autograd.recorders import Fallback, MissingRecorder, recorder_of
from polyop.layers.autograd.text_tangents import TextTangents
from polyop.layers.autograd.transpose import Called, transposed
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, is_differentiable

Tangents = Sequence[Any]
#: `(values, tangents) -> (results, a tangent or None for each)`; the results in a row.
TangentRule = Callable[[Sequence[Any], Tangents], tuple[Any, Sequence[Any]]]

_FIRST = """
    alias broadcast_to contiguous contiguous_copy deviation diagonal diagonal_grad expand_dims
    expand_to flip half_tril hermitian_part index index_grad matrix_transpose mean_grad
    mean_or_zero moveaxis permute_dims reshape scatter_along_axis select select_grad slice
    slice_grad spread squeeze sum_to take_along_axis transpose tril triu cumulative_sum
    suffix_sum pad concat stack conj real imag real_part imag_part positive
    to_device fft_c2c fft_r2c fft_c2r
"""
#: Of the operators that are linear in some arguments together: how many, counted from the first.
LINEAR: dict[str, tuple[int, ...]] = {
    **{f"core::{name}": (0,) for name in _FIRST.split()},
    **dict.fromkeys(("core::select_scatter", "core::slice_scatter"), (0, 1)),
    **dict.fromkeys(("core::diagonal_scatter", "core::complex"), (0, 1)),
    "core::index_put": (0, 2),
    "core::put_along_axis": (0, 2),
}
#: Operators of two tensors that are linear in each.
BILINEAR = {f"core::{name}" for name in ("matmul", "matmul_left", "matmul_right", "vecdot")}
#: The text of tangents where it is no other; `g` is the tangent of the argument.
FORWARD: dict[str, dict[str, str]] = {
    "core::softmax": {"x": "r * (g - sum(g * r, axis=[axis], keepdims=True))"},
    "core::log_softmax": {"x": "g - sum(g * exp(r), axis=[axis], keepdims=True)"},
    "core::logsumexp": {
        "x": "sum(g * shares(x, r, axis, keepdims), axis=axis, keepdims=keepdims)"
    },
    "core::max": {
        "x": "sum(where((top := peaks(x, r, axis, keepdims)), g, 0), axis=axis, keepdims=keepdims) "
        "/ count_nonzero(top, axis=axis, keepdims=keepdims)"
    },
    "core::var": {
        "x": "sum(g * deviation(x, axis, correction), axis=axis, keepdims=keepdims)"
    },
    "core::std": {
        "x": "sum(g * deviation(x, axis, correction), axis=axis, keepdims=keepdims) "
        "* (varying(r, x, axis) * 0.5 / (r + (r == 0)))"
    },
    "core::prod": {"x": "sum(g * prod_others(x, axis), axis=axis, keepdims=keepdims)"},
    "core::sort": {
        "x": "take_along_axis(g, argsort(x, axis=axis, descending=descending, stable=stable), "
        "axis=axis)"
    },
    "core::norm2": {
        "x": "sum(g * x, axis=axis, keepdims=keepdims) * above(r) / (r + (r == 0))"
    },
}  # fmt: skip
FORWARD["core::min"] = FORWARD["core::max"]


class StepTangents(TextTangents):
    """The rule of `sign`, which is flat where numbers are real."""

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Run the operator; its tangent is zero."""
        if values[0].payload.dtype.kind == "c":
            return super().at_once(call, values, tangents)
        return call(*values), (None,)


#: The rules of texts that large arrays do not need.
RULES: dict[str, type[TextTangents]] = {
    "core::max": ExtremeTangents,
    "core::min": ExtremeTangents,
    "core::prod": ProductTangents,
    "core::pow": PowerTangents,
    "core::pow.Scalar": NumberPowerTangents,
    "core::sign": StepTangents,
}
SUMS = {"core::sum", "core::mean"}


def tangent_rule(op: OpOverload) -> TangentRule:
    """Give the rule of an operator."""
    try:
        found: TangentRule = op.notes["tangents"]
    except KeyError:
        found = op.note("tangents", _rule_of)
    return found


def _rule_of(op: OpOverload) -> TangentRule:
    jvp = op.rule("jvp")
    if jvp is not None:
        return AuthorTangents(op, jvp)
    recorder = recorder_of(op)
    if recorder is None:
        return _constant(op)
    if isinstance(recorder, MissingRecorder):
        return _missing(op)
    if isinstance(recorder, AuthorRecorder):
        return AuthorTransposed(op, recorder, called(op), _transposing(op))
    return _built_in(op)


def _built_in(op: OpOverload) -> TangentRule:
    name = op.name()
    if name in SUMS:
        return SumTangents(op, (0,))
    if name == "core::view":
        return ViewTangents(op)
    if name in LINEAR:
        return LinearTangents(op, LINEAR[name])
    if name == "core::negative":  # of complex numbers as well
        return TextTangents(op, op.rule("formula").text, LinearTangents(op, (0,)))
    if name in BILINEAR:
        return BilinearTangents(op)
    texts = FORWARD.get(name)
    if texts is None and Tag.pointwise in op.tags:
        texts = op.rule("formula").text
    if texts is None:
        return _transposing(op)
    return RULES.get(name, TextTangents)(op, texts, _transposing(op))


def called(op: OpOverload) -> Called:
    """Say who is transposed."""
    fix = f"give it a rule with polyop.library.register_jvp({op.name()!r}, jvp)"
    return Called(op.name(), op._schema, op.rule_source("backward"), fix)


# -- rules --------------------------------------------------------------------


def _constant(op: OpOverload) -> TangentRule:
    """Make the rule of an operator through which no gradient flows."""

    def rule(values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        out = dispatch(op, values)
        return out, [None] * len(flatten_results(out)[0])

    return rule


def _missing(op: OpOverload) -> TangentRule:
    """Make the rule of an operator without a gradient: its tangent is not known."""

    def rule(values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        out = dispatch(op, values)
        flat = flatten_results(out)[0]
        floating = [t for t in flat if isinstance(t, Tensor) and is_differentiable(t.dtype)]
        if floating and Fallback.mode != "nothing":
            _no_rule(op)
        return out, [None] * len(flat)

    return rule


def _no_rule(op: OpOverload) -> NoReturn:
    have = ", ".join(sorted(set(op.slots()))) or "none"
    op.missing(
        "jvp",
        MissingGradientError,
        problem=f"{op.name()} has neither a jvp nor a backward rule (it has: {have}), "
        "and a tangent goes through it",
        fix=f"add one with polyop.library.register_jvp({op.name()!r}, jvp), "
        f"or say that there is no gradient: register_autograd({op.name()!r}, None)",
    )


def _transposing(op: OpOverload) -> TangentRule:
    """Make the rule that transposes the backward."""
    who = called(op)

    def rule(values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        return pushed(who, lambda *args: dispatch(op, args), values, tangents)

    return rule


def pushed(
    who: Called, call: Callable[..., Any], values: Sequence[Any], tangents: Tangents
) -> tuple[Any, Sequence[Any]]:
    """Run a call, and give its results with the tangents that its transposed backward gives.

    Args:
        who: what is called.
        call: of all arguments.
        values: the arguments, trees of tensors and others.
        tangents: the same trees, with a tangent or None for each leaf.
    """
    leaves, spec = tree.flatten(list(values))
    found = leaves_beside(values, tangents)
    moving = [i for i, t in enumerate(found) if t is not None]

    def of_moving(*given: Any) -> Any:
        full = list(leaves)
        for i, value in zip(moving, given, strict=True):
            full[i] = value
        return call(*tree.unflatten(spec, full))

    out, linear = transposed(who, of_moving, [leaves[i] for i in moving])
    return out, linear([found[i] for i in moving], retain=False)


def leaves_beside(value: Any, tangent: Any) -> list[Any]:
    """Give the tangent of each leaf of a tree."""
    if tangent is None:
        return [None] * len(tree.leaves(value))
    if value.__class__ in {list, tuple}:
        pairs = zip(value, tangent, strict=True)
        return [t for v, d in pairs for t in leaves_beside(v, d)]
    if isinstance(value, Tensor):
        return [tangent]
    parts = zip(tree.children(value)[1] or (), tree.children(tangent)[1] or (), strict=True)
    return [t for v, d in parts for t in leaves_beside(v, d)]


#: Rules that know calls on plain arrays.
AtOnce = (
    LinearTangents
    | ViewTangents
    | BilinearTangents
    | TextTangents
    | AuthorTransposed
    | AuthorTangents
)

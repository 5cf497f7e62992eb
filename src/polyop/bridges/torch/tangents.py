"""Forward mode on PyTorch's tensors: the author's `jvp`, or the transpose of backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from polyop.bridges.torch.arrays import QUIET, array_of, of_array
from polyop.bridges.torch.gradient import Kept, backward, context_of
from polyop.bridges.torch.schema import our_dtype
from polyop.dispatch.context import run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError
from polyop.layers.autograd.author_tangents import Author, laid_beside
from polyop.layers.autograd.recorders import missing_gradient
from polyop.layers.rule_notes import note_rule
from polyop.tensor.meta import META_SPACE
from polyop.tensor.tensor import Tensor, of_meta

unpack_dual: Any = torch.autograd.forward_ad.unpack_dual


def tangents(ctx: Any, given: Sequence[Any]) -> tuple[Any, ...]:
    """Give the tangent of each result, of the tangents of the tensors among the arguments.

    Raises:
        MissingGradientError: there is neither `jvp` nor backward.
        AutogradError: forward mode is nested, where PyTorch would give zeros.
    """
    kept: Kept = ctx.kept
    _refuse_nested(kept.call.op)
    rule = kept.call.op.rule("jvp")
    if rule is None:
        return _transposed(ctx, given)
    needs = [g is not None for g in given]
    saved = [of_array(t) for t in ctx.saved_tensors]
    needed = tuple(kept.call.mirrored(needs, absent=False))
    own = context_of(kept, saved, needed, forward=True)
    mirrored = kept.call.mirrored([of_array(g) for g in given])
    op = kept.call.op
    try:
        found = run_under(QUIET, rule, own, *mirrored)
    except Exception as error:
        note_rule(error, op, "jvp")
        raise
    out = kept.call.answer([_meta(f) for f in kept.results])
    row = laid_beside(Author(op._schema, op.rule_source("jvp")), own, out, found)
    like = next(g for g in given if g is not None)
    return tuple([array_of(op, "jvp", t, like) for t in row])


def _meta(fact: tuple[Any, torch.dtype]) -> Tensor:
    return of_meta(META_SPACE.meta(tuple(fact[0]), our_dtype(fact[1])))


def _refuse_nested(op: OpOverload) -> None:
    """Refuse forward mode in forward mode: PyTorch gives zeros for any function with a jvp."""
    functorch = getattr(torch._C, "_functorch", None)
    stack = getattr(functorch, "get_interpreter_stack", lambda: None)() or []
    levels = [level for level in stack if str(level.key()).endswith("Jvp")]
    if len(levels) > 1:
        raise AutogradError(
            f"{op.name()} cannot be differentiated in nested forward mode: PyTorch would give "
            "zeros",
            op=op._schema,
            seen=f"{len(levels)} levels of torch.func.jvp",
            fix="use reverse mode for one of them, as in jacfwd(jacrev(f))",
        )


def _transposed(ctx: Any, given: Sequence[Any]) -> tuple[Any, ...]:
    """Give tangents by the transpose of backward, which is linear in what comes back."""
    kept: Kept = ctx.kept
    needs = [g is not None for g in given]
    smooth = [
        i
        for i, (_, dtype) in enumerate(kept.results)
        if _is_smooth(dtype) and i not in kept.constant
    ]
    if not smooth:
        return (None,) * len(kept.results)
    if kept.recorder is None:
        missing_gradient(kept.call.op)
    zeros: list[Any] = [torch.zeros(s, dtype=d, device=kept.device) for s, d in kept.results]
    if not kept.zeros:
        zeros = [z if i in smooth else None for i, z in enumerate(zeros)]

    # Without their own tangents: operators in each other's backward would ask for these for ever.
    saved = [None if t is None else unpack_dual(t).primal for t in ctx.saved_tensors]

    def pull(*probes: Any) -> Any:
        whole = list(zeros)
        for i, probe in zip(smooth, probes, strict=True):
            whole[i] = probe
        found = backward(ctx, needs, whole, saved)
        pairs = zip(found, given, strict=True)
        return [torch.zeros_like(t) if g is None else g for g, t in pairs if t is not None]

    vjp: Any = torch.func.vjp
    _, transpose = vjp(pull, *[zeros[i] for i in smooth])
    found = transpose([t for t in given if t is not None])
    row: list[Any] = [None] * len(zeros)
    for i, tangent in zip(smooth, found, strict=True):
        row[i] = tangent
    return tuple(row)


def _is_smooth(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex

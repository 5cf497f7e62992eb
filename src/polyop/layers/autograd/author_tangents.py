"""Tangents that authors give: `jvp`, run after the same `setup_context` as backward (S132)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.rules import AutogradRule
from polyop.layers.autograd.arrays import cast_tensor
from polyop.layers.autograd.author import AuthorRecorder, flatten_results
from polyop.layers.autograd.context import Context, refuse
from polyop.layers.autograd.mirror import describe
from polyop.tensor.tensor import Tensor, is_differentiable


class ForwardContext(Context):
    """The context of an author's `jvp`: what `setup_context` kept, and nothing of a graph."""

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`; what is saved for backward is there as well."""
        self.save_for_backward(*tensors)


class Author(NamedTuple):
    """Whose tangents are laid beside results, in errors."""

    schema: Any
    source: Any


class AuthorTangents:
    """The rule of an operator with an author's `jvp`."""

    def __init__(self, op: OpOverload, jvp: Callable[..., Any]) -> None:
        self.op = op
        self.jvp = jvp
        self.author = Author(op._schema, op.rule_source("jvp"))
        rule: AutogradRule | None = op.rule("backward")
        setup = None if rule is None else rule.setup_context
        # The recorder knows how a `setup_context` of any form is called.
        self.recorder = AuthorRecorder(op, AutogradRule(jvp, setup))

    def __call__(self, values: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Run the operator, then `setup_context`, then the rule."""
        out = dispatch(self.op, values)
        ctx = ForwardContext()
        ctx.needs_input_grad = tuple(map(needs, tangents))
        at = self.recorder
        if at.setup is not None:
            at.setup(ctx, at._inputs(values), at._keywords(values), out)
        return out, laid_beside(self.author, ctx, out, self.jvp(ctx, *tangents))


def needs(tangent: Any) -> Any:
    """Give a bool for each argument, mirrored."""
    if tangent.__class__ in {list, tuple}:
        return [needs(t) for t in tangent]
    if tangent.__class__ is dict:
        return {k: needs(t) for k, t in tangent.items()}
    return tangent is not None


def laid_beside(who: Author, ctx: Context, out: Any, given: Any) -> list[Any]:
    """Give the tangent, or None, of each result in a row.

    Raises:
        AutogradError: what the author returned does not fit the results.
    """
    flat, shape = flatten_results(out)
    if out.__class__ is not tuple:
        given = given if given.__class__ is tuple and len(given) == 1 else (given,)
    if given.__class__ is not tuple or len(given) != len(shape):
        _unfit(who, f"{len(shape)}, one per result", given)
    found: list[Any] = []
    for place, tangent in zip(shape, given, strict=True):
        if place.__class__ is not list:
            found.append(tangent)
        elif tangent is None:
            found += [None] * len(place)
        else:
            if tangent.__class__ not in {list, tuple} or len(tangent) != len(place):
                _unfit(who, f"a list of {len(place)}", tangent)
            found += tangent
    return [
        _checked(who, i, t, d, without=id(t) in ctx._without)
        for i, (t, d) in enumerate(zip(flat, found, strict=True))
    ]


def _checked(who: Author, i: int, result: Any, tangent: Any, *, without: bool) -> Any:
    if tangent is None:
        return None
    if not isinstance(tangent, Tensor) or not isinstance(result, Tensor):
        _unfit(who, f"a Tensor for result {i}, or None", tangent)
    if tuple(tangent.shape) != tuple(result.shape):
        _unfit(who, f"shape {tuple(result.shape)} for result {i}", tangent)
    if without or not is_differentiable(result.dtype):
        return None
    return cast_tensor(tangent, result.dtype)


def _unfit(who: Author, declared: str, given: Any) -> NoReturn:
    raise refuse(
        who.schema, "jvp returned tangents that do not fit the results",
        declared=declared, seen=describe(given), source=who.source,
        fix="return one tangent per result, of its shape, and None where there is none",
    )  # fmt: skip

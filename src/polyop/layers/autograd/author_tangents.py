"""Tangents that authors give: `jvp`, run after the same `setup_context` as backward (S132)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.rules import AutogradRule
from polyop.layers.autograd.arrays import cast_tensor
from polyop.layers.autograd.author import AuthorRecorder, flatten_results, whole
from polyop.layers.autograd.context import Context, refuse
from polyop.layers.autograd.mirror import describe, fields_of, note_cast
from polyop.layers.rule_notes import note_rule
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
        return self._beside(dispatch(self.op, values), values, tangents)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same where all tensors are plain arrays, and nobody watches."""
        return self._beside(call(*values), values, tangents)

    def _beside(
        self, out: Any, values: Sequence[Any], tangents: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        ctx = ForwardContext()
        ctx.needs_input_grad = tuple(map(needs, values, tangents))
        self.recorder.set_up(ctx, values, out)
        try:
            given = whole(self.op, "jvp", ctx, self.jvp(ctx, *tangents))
        except Exception as error:
            note_rule(error, self.op, "jvp")
            raise
        if _is_plain_pair(out, given) and not ctx._without:
            return out, (given,)
        return out, laid_beside(self.author, ctx, out, given)


def _is_plain_pair(out: Any, tangent: Any) -> bool:
    """Tell whether a tangent is an array of its result's shape and dtype, as nearly all are."""
    if not out.__class__ is tangent.__class__ is Tensor:
        return False
    r, d = out.payload, tangent.payload
    if not r.__class__ is d.__class__ is np.ndarray or r.shape != d.shape:
        return False
    return r.dtype is d.dtype and r.dtype.kind in "fc"


def needs(value: Any, tangent: Any) -> Any:
    """Give a bool for each tensor of an argument, mirrored as backward has it."""
    if value.__class__ is Tensor:
        return tangent is not None
    if value.__class__ in {list, tuple}:
        parts = [None] * len(value) if tangent is None else tangent
        return [needs(v, t) for v, t in zip(value, parts, strict=True)]
    named = value if isinstance(value, dict) else fields_of(value)
    if named is None:
        return tangent is not None
    moved = tangent if isinstance(tangent, dict) else fields_of(tangent) or {}
    return {name: needs(v, moved.get(name)) for name, v in named.items()}


def laid_beside(who: Author, ctx: Context, out: Any, given: Any) -> list[Any]:
    """Give the tangent, or None, of each result in a row.

    Raises:
        AutogradError: what the author returned does not fit the results.
    """
    # A `Function` has no schema: a tuple is several results.
    several = out.__class__ is tuple and len(getattr(who.schema, "returns", ())) != 1
    results = out if several else (out,)
    flat = flatten_results(out)[0]
    if not several:
        alone = given.__class__ is tuple and len(given) == 1
        # A tuple of one may be the tangents of a container with one tensor.
        mirror = isinstance(given[0], Tensor) and not isinstance(out, Tensor) if alone else True
        given = (given,) if mirror else given
    if given.__class__ is not tuple or len(given) != len(results):
        _unfit(who, f"{len(results)}, one per result", given)
    pairs = zip(results, given, strict=True)
    found = [t for result, tangent in pairs for t in _in_a_row(who, result, tangent)]
    return [
        _checked(who, i, t, d, without=id(t) in ctx._without)
        for i, (t, d) in enumerate(zip(flat, found, strict=True))
    ]


def _in_a_row(who: Author, result: Any, given: Any) -> list[Any]:
    """Give the tangents of the parts of a result, in the order of its leaves."""
    names, parts = tree.children(result)
    if parts is None:
        if result is None and given is not None:
            _unfit(who, "None, as the result is", given)
        return [] if result is None else [given]
    if given is None:
        return [None] * len(tree.leaves(result))
    given = _parts_of(who, result, names, given)
    pairs = zip(parts, given, strict=True)
    return [t for part, tangent in pairs for t in _in_a_row(who, part, tangent)]


def _parts_of(who: Author, result: Any, names: Sequence[Any], given: Any) -> list[Any]:
    if result.__class__ in {list, tuple}:
        if given.__class__ not in {list, tuple} or len(given) != len(names):
            _unfit(who, f"a {type(result).__name__} of {len(names)}", given)
        return list(given)
    named = fields_of(given)
    named = given if named is None else named
    keys = list(result) if isinstance(result, dict) else list(fields_of(result) or ())
    if not isinstance(named, dict) or not set(named) <= set(keys):
        _unfit(who, f"a dict with {', '.join(map(str, keys))}", given)
    ordered = names if isinstance(result, dict) else keys
    return [named.get(key) for key in ordered]


def _checked(who: Author, i: int, result: Any, tangent: Any, *, without: bool) -> Any:
    if tangent is None:
        return None
    if not isinstance(tangent, Tensor) or not isinstance(result, Tensor):
        _unfit(who, f"a Tensor for result {i}, or None", tangent)
    if tuple(tangent.shape) != tuple(result.shape):
        _unfit(who, f"shape {tuple(result.shape)} for result {i}", tangent)
    if without or not is_differentiable(result.dtype):
        return None
    if tangent.dtype != result.dtype:
        note_cast(f"result {i}", result.dtype, tangent.dtype)
    return cast_tensor(tangent, result.dtype)


def _unfit(who: Author, declared: str, given: Any) -> NoReturn:
    raise refuse(
        who.schema, "jvp returned tangents that do not fit the results",
        declared=declared, seen=describe(given), source=who.source,
        fix="return one tangent per result, of its shape, and None where there is none",
    )  # fmt: skip

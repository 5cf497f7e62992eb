"""The author's gradient in JAX: a second primitive, linear in the tangents.

NOTE [One linear primitive, two directions]
Differentiating a call binds the operator, runs `setup_context`, and binds a primitive of what was
kept and of the tangents. Its transpose is the author's backward. Its value is the author's `jvp`;
without one it is the transpose, by JAX, of that backward, so that forward mode needs no rule where
backward is made of operators. Its own derivative and its batches are those of its value. An
operator with a `jvp` alone has no second primitive: JAX transposes what the `jvp` computes.

PyTorch's gradient of a complex number, which authors write, is the conjugate of JAX's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from polyop import tree
from polyop.bridges.jax.contexts import JaxContext, Kept, array_of, put_together, taken_apart
from polyop.bridges.jax.frames import Frame, tensor_over
from polyop.bridges.jax.meshes import aligned, probe, raised, typed, varying
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.layers.autograd.author import RUNNING, AuthorRecorder
from polyop.layers.autograd.author_tangents import Author, AuthorTangents, laid_beside
from polyop.layers.autograd.mirror import needs_of, spec_of
from polyop.layers.autograd.recorders import missing_gradient, recorder_of
from polyop.layers.rule_notes import note_rule
from polyop.tensor.meta import META_SPACE
from polyop.tensor.tensor import Tensor, is_differentiable, of_meta

QUIET = PLAIN.without_grad


class Slope:
    """The derivative of one call without its arrays.

    Attributes:
        frame: of the call.
        kept: the static piece of the author's context.
        inputs: shape and dtype of each operand of the call.
        outputs: of each result.
        spec: how the results lie.
        moving: the operands that have tangents.
        smooth: the results that have.
    """

    __slots__ = ("_key", "frame", "inputs", "kept", "moving", "outputs", "smooth", "spec")

    def __init__(  # noqa: PLR0917 - what a derivative is
        self, frame: Frame, kept: Kept, inputs: Any, outputs: Any, spec: Any, moving: Any,
        smooth: Any,
    ) -> None:  # fmt: skip
        self.frame = frame
        self.kept = kept
        self.inputs = inputs
        self.outputs = outputs
        self.spec = spec
        self.moving = moving
        self.smooth = smooth
        self._key = (frame, kept.key, inputs, outputs, spec, moving, smooth)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Slope) and self._key == other._key)

    def __repr__(self) -> str:
        return f"Slope({self.frame!r}, moving={self.moving})"

    @property
    def op(self) -> OpOverload:
        """The operator."""
        return self.frame.op

    def results(self, flat: Sequence[Any]) -> tuple[Any, ...]:
        """Give what belongs to the results, in a row, as one value for each."""
        found = tree.unflatten(self.spec, flat)
        return found if len(self.op._schema.returns) != 1 else (found,)


def tangents(
    slopes: Any, primals: Sequence[Any], tangents: Sequence[Any], frame: Frame, outs: Any
) -> list[Any]:
    """Give the tangents of the results of a call.

    Args:
        slopes: the operator's linear primitive.
        primals: the operands.
        tangents: theirs.
        frame: of the call.
        outs: the results in a row, and how they lie.

    Raises:
        MissingGradientError: the operator has no gradient.
    """
    flat, spec = outs
    op = frame.op
    moving = tuple([i for i, t in enumerate(tangents) if _is_moving(t)])
    none = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in flat]
    recorder = recorder_of(op)
    forward = op.rule("jvp") is not None
    flows = moving and any(is_differentiable(x.dtype) for x in flat)
    if not flows or (recorder is None and not forward):
        return none
    author = recorder if isinstance(recorder, AuthorRecorder) else None
    if author is None and not forward:
        missing_gradient(op)
    ctx, without = _set_up(frame, author, primals, moving, flat, spec)
    smooth = tuple(
        [i for i, x in enumerate(flat) if i not in without and is_differentiable(x.dtype)]
    )
    residuals, kept = taken_apart(op, ctx)
    slope = Slope(frame, kept, _facts(primals), _facts(flat), spec, moving, smooth)
    operands = aligned([*residuals, *[tangents[i] for i in moving]])
    found = push(*operands, slope=slope) if author is None else slopes.bind(*operands, slope=slope)
    for i, t in zip(smooth, found, strict=True):
        none[i] = t
    return none


def _is_moving(tangent: Any) -> bool:
    return not isinstance(tangent, ad.Zero) and tangent.dtype != jax.dtypes.float0


def _facts(arrays: Sequence[Any]) -> tuple[Any, ...]:
    return tuple([(tuple(x.shape), np.dtype(x.dtype)) for x in arrays])


def _set_up(  # noqa: PLR0917 - what was called, and what came
    frame: Frame, author: AuthorRecorder | None, primals: Any, moving: Any, flat: Any, spec: Any
) -> tuple[JaxContext, set[int]]:
    """Run the author's `setup_context`; give the context, and which results have no gradient."""
    recorder = author or _forward_recorder(frame.op)
    ctx = JaxContext()
    given = [tensor_over(x) for x in primals]
    values = frame.values(given)
    moved: Any = {id(given[i]): given[i] for i in moving}
    ctx.needs_input_grad = tuple([needs_of(spec_of(v, lambda t: moved.get(id(t)))) for v in values])
    results = [tensor_over(x) for x in flat]
    if recorder.setup is not None:
        run_under(QUIET, recorder.set_up, ctx, values, tree.unflatten(spec, results))
    return ctx, {i for i, t in enumerate(results) if id(t) in ctx._without}


def _forward_recorder(op: OpOverload) -> AuthorRecorder:
    """Give what calls the `setup_context` of an operator that has no backward."""
    return AuthorTangents(op, op.rule("jvp")).recorder


# -- the linear primitive -----------------------------------------------------------------------


def make_slopes(name: str) -> Any:
    """Make an operator's linear primitive."""
    p: Any = Primitive(f"{name} tangents")
    p.multiple_results = True
    p.def_impl(push)
    p.def_abstract_eval(_abstract)
    mlir.register_lowering(p, mlir.lower_fun(push, multiple_results=True))
    ad.primitive_transposes[p] = _transpose
    ad.primitive_jvps[p] = _jvp
    batching.primitive_batchers[p] = _batch
    return p


def _abstract(*operands: Any, slope: Slope) -> list[Any]:
    return [typed(slope.frame, slope.outputs[i], operands) for i in slope.smooth]


def push(*operands: Any, slope: Slope) -> list[Any]:
    """Give the tangents of the smooth results."""
    n = len(operands) - len(slope.moving)
    residuals, given = operands[:n], operands[n:]
    axes = frozenset[Any]().union(*map(varying, operands))
    if slope.op.rule("jvp") is not None:
        return [raised(x, axes) for x in _by_author(slope, residuals, given)]
    probes = [probe(slope.frame, slope.outputs[i], operands) for i in slope.smooth]

    def back(*cotangents: Any) -> tuple[Any, ...]:
        found = pull(slope, residuals, cotangents)
        pairs = zip(found, [slope.inputs[i] for i in slope.moving], strict=True)
        return tuple([raised(jnp.zeros(*f) if g is None else g, axes) for g, f in pairs])

    return list(jax.linear_transpose(back, *probes)(tuple(raised(t, axes) for t in given)))


def _by_author(slope: Slope, residuals: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    op = slope.op
    rule = op.rule("jvp")
    ctx = put_together(slope.kept, residuals, forward=True)
    moving = dict(zip(slope.moving, given, strict=True))
    row = [tensor_over(moving[i]) if i in moving else None for i in range(len(slope.inputs))]
    mirrored = [_tangent(v) for v in slope.frame.values(row)]
    try:
        found = run_under(QUIET, rule, ctx, *mirrored)
    except Exception as error:
        note_rule(error, op, "jvp")
        raise
    out = tree.unflatten(slope.spec, [_meta(f) for f in slope.outputs])
    flat = laid_beside(Author(op._schema, op.rule_source("jvp")), ctx, out, found)
    return [
        jnp.zeros(*slope.outputs[i]) if flat[i] is None else array_of(op, "jvp", flat[i])
        for i in slope.smooth
    ]


def _tangent(value: Any) -> Any:
    """Give the tangents among the leaves of an argument, mirrored; None if it has none at all."""
    if value is None or isinstance(value, Tensor):
        return value
    if not any(isinstance(leaf, Tensor) for leaf in tree.leaves(value)):
        return None
    if value.__class__ in {list, tuple}:
        return value.__class__([_tangent(v) for v in value])
    return tree.map_leaves(_tangent, value)


def _meta(fact: Any) -> Tensor:
    return of_meta(META_SPACE.meta(*fact))


def pull(slope: Slope, residuals: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    """Give the cotangent of each moving operand, or None, by the author's backward.

    Args:
        slope: of the call.
        residuals: what was kept.
        cotangents: of the smooth results; None or a zero for none.
    """
    op = slope.op
    recorder = recorder_of(op)
    assert isinstance(recorder, AuthorRecorder)
    ctx = put_together(slope.kept, residuals)
    flat: list[Any] = [None] * len(slope.outputs)
    for i, ct in zip(slope.smooth, cotangents, strict=True):
        flat[i] = None if ct is None or isinstance(ct, ad.Zero) else tensor_over(_turned(ct))
    if ctx._materialize:
        facts = zip(flat, slope.outputs, strict=True)
        flat = [tensor_over(jnp.zeros(*f)) if g is None else g for g, f in facts]
    token = RUNNING.set(op)
    try:
        given = run_under(QUIET, recorder.backward, ctx, *slope.results(flat))
    except Exception as error:
        note_rule(error, op, "backward")
        raise
    finally:
        RUNNING.reset(token)
    metas = [_meta(fact) for fact in slope.inputs]
    places = {id(metas[i]): i for i in slope.moving}
    specs = [spec_of(v, lambda t: _Place.of(places.get(id(t)))) for v in slope.frame.values(metas)]
    running: Any = _Running(specs)
    found: dict[int, Any] = {
        place.number: array_of(op, "backward", d)
        for place, d in run_under(QUIET, lambda: list(recorder.matched(running, given)))
    }
    return [_turned(found[i]) if i in found else None for i in slope.moving]


class _Place:
    """Stands for the node of an operand."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def of(cls, number: int | None) -> Any:
        """Give a place, or None for what does not move."""
        return None if number is None else cls(number)


class _Running:
    """Stands for the node that runs."""

    def __init__(self, specs: list[Any]) -> None:
        self.s1 = specs


def _turned(x: Any) -> Any:
    """Turn a complex gradient from JAX's convention to PyTorch's, or back."""
    return jnp.conj(x) if jnp.iscomplexobj(x) else x


def _transpose(cotangents: Sequence[Any], *operands: Any, slope: Slope) -> list[Any]:
    n = len(operands) - len(slope.moving)
    found = pull(slope, operands[:n], cotangents)
    pairs = zip(found, operands[n:], strict=True)
    given = [ad.Zero(x.aval) if g is None else raised(g, varying(x.aval)) for g, x in pairs]
    return [None] * n + given


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, slope: Slope) -> Any:
    moving = [i for i, t in enumerate(tangents) if _is_moving(t)]

    def along(*moved: Any) -> tuple[Any, ...]:
        whole = list(primals)
        for i, x in zip(moving, moved, strict=True):
            whole[i] = x
        return tuple(push(*whole, slope=slope))

    outs, found = jax.jvp(
        along, tuple([primals[i] for i in moving]), tuple([tangents[i] for i in moving])
    )
    return list(outs), list(found)


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, slope: Slope) -> Any:
    outs = jax.vmap(partial(push, slope=slope), in_axes=tuple(axes))(*operands)
    return outs, [0] * len(outs)

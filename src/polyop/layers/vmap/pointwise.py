"""Pointwise operators: the batch is one more axis, so the operator itself is the rule.

What remains is to line the axes up. The common call (all batched along axis 0,
equal ranks) is done by a function that is generated per operator; all others
bring the batch to the front and put in axes of size one where ranks differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import BATCHED
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.write import Shape, base_scope, call_text, indent, make_function, shape_of
from polyop.layers.vmap.batch import Batch, VmapLevel, batched, peel_all
from polyop.ops.views import broadcast_to, expand_dims, moveaxis
from polyop.tensor.tensor import Tensor


def front(value: Any, axis: int) -> Any:
    """Give a tensor with the batch at the front; always another object if it moves."""
    return value if axis == 0 else moveaxis(value, axis, 0)


def run_pointwise(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run a pointwise operator on lined-up values."""
    values, dims = peel_all(level, op, args)
    if not op.is_builtin:
        values, dims = spread(values, dims)
    result = dispatch(op, line_up(values, dims))
    if result.__class__ is tuple:
        return tuple([batched(r, 0, level) for r in result])
    return batched(result, 0, level)


def spread(values: Sequence[Any], dims: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Give tensors without a batch one, where all samples have one shape.

    An author's rules are written for such samples: its gradient need not sum over a batch that only
    some arguments have, and its fake rule may read any of them.
    """
    pairs = [*zip(values, dims, strict=True)]
    shapes = [_sample(v.payload.shape, d) for v, d in pairs if isinstance(v, Tensor)]
    if all(shape == shapes[0] for shape in shapes):
        size = next(v.payload.shape[d] for v, d in pairs if d is not None)
        whole = [size, *shapes[0]]
        pairs = [
            (broadcast_to(v, whole), 0) if d is None and isinstance(v, Tensor) else (v, d)
            for v, d in pairs
        ]
    return [v for v, _ in pairs], [d for _, d in pairs]


def _sample(shape: Any, dim: int | None) -> tuple[Any, ...]:
    return tuple(shape) if dim is None else (*shape[:dim], *shape[dim + 1 :])


def line_up(values: Sequence[Any], dims: Sequence[Any], at_least: int = 0) -> list[Any]:
    """Bring batches to the front and all batched tensors to one rank."""
    rank = max([at_least, *(_rank(v, d) for v, d in zip(values, dims, strict=True))])
    return [
        v if d is None else with_rank(front(v, d), rank) for v, d in zip(values, dims, strict=True)
    ]


def _rank(value: Any, dim: int | None) -> int:
    if not isinstance(value, Tensor):
        return 0
    return len(value.payload.shape) - (dim is not None)


def with_rank(value: Any, rank: int) -> Any:
    """Put axes of size one behind the batch until a sample has `rank` axes."""
    for _ in range(rank - len(value.payload.shape) + 1):
        value = expand_dims(value, 1)
    return value


# -- the common call ----------------------------------------------------------


def fast_pointwise(op: OpOverload, general: Handler) -> Handler | None:
    """Generate the handler of an operator with one new result and no lists."""
    shape = shape_of(op._schema)
    tensors = shape.of("tensor")
    plain = set(shape.kinds) <= {"tensor", "static"} and tensors
    if not plain or result_forms(op._schema) != (("new", -1),):
        return None
    scope = base_scope(op, general=general, entry=op.entry, Batch=Batch, BATCHED=BATCHED)
    text = "\n".join(
        [f"def f({', '.join(shape.names)}):", *indent(_text(shape, tensors, op.is_builtin))]
    )
    return make_function(text, scope, op._opname, [a.name for a in op._schema.arguments])


def _text(shape: Shape, tensors: Sequence[str], builtin: bool) -> list[str]:
    first, others = tensors[0], tensors[1:]
    lines = [f"_x{a} = {a}.payload" for a in tensors]
    tests = [f"_x{first}.__class__ is Batch", f"_x{first}.level.alive"]
    for a in others:
        tests += [f"_x{a}.__class__ is Batch", f"_x{a}.level is _x{first}.level"]
        tests += [f"_x{a}.axis == _x{first}.axis"]
    body = [f"_v{a} = _x{a}.value" for a in tensors]
    inner = _wrapping(shape, tensors, f"_x{first}")
    if others:
        ranks = [
            f"(_v{a} is _v{first} or len(_v{a}.payload.shape) == len(_v{first}.payload.shape))"
            for a in others
        ]
        inner = [f"if {' and '.join(ranks)}:", *indent(inner)]
    lines += [f"if {' and '.join(tests)}:", *indent([*body, *inner])]
    if len(tensors) == 2 and builtin:
        lines += [*_one_batched(shape, first, others[0]), *_one_batched(shape, others[0], first)]
    return [*lines, f"return general({', '.join(shape.names)})"]


def _one_batched(shape: Shape, a: str, b: str) -> list[str]:
    """Lines for a batch along axis 0 beside a tensor without one, and of no higher rank."""
    tests = [
        f"_x{a}.__class__ is Batch and _x{b}.__class__ is not Batch",
        f"not _x{a}.axis and _x{a}.level.alive",
        f"len(_x{b}.shape) < len(_x{a}.value.payload.shape)",
    ]
    values = [f"_v{a} = _x{a}.value; _v{b} = {b}"]
    body = [*values, *_wrapping(shape, [a, b], f"_x{a}")]
    return [f"if {' and '.join(tests)}:", *indent(body)]


def _wrapping(shape: Shape, tensors: Sequence[str], first: str) -> list[str]:
    """Lines that call the operator on the values and wrap its result."""
    saved = [f"{a} = _v{a}" for a in tensors]
    return [
        "_o = Batch()",
        *saved,
        f"_o.value = {call_text(shape, payloads=False, kernel='entry')}",
        f"_o.axis = {first}.axis; _o.level = {first}.level",
        "_t = Tensor(); _t.payload = _o; _t.keys = BATCHED; _t.version = 0",
        "return _t",
    ]

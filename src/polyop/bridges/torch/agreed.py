"""Kernels are held to their fake rules, from the moment that PyTorch has traced one.

What a compiler made goes on with the shapes and dtypes that a fake rule has said, so a kernel that
gives others would be wrong in silence. Calls of operators that nobody has traced are not compared,
for nobody relies on what their rules say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn
from weakref import WeakSet

import numpy as np

from polyop import tree
from polyop.bridges.torch.arrays import each
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import MetadataMismatchError
from polyop.layers.fake.handlers import plan_of
from polyop.layers.fake.mode import FakeTensorMode
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_meta

#: The operators whose fake rules PyTorch has asked.
TRACED: WeakSet[OpOverload] = WeakSet()
#: A table of what was said is begun anew when it has this many.
MOST = 1 << 12


class Said(NamedTuple):
    """What a fake rule says of a tensor; a size that depends on data is None."""

    shape: tuple[int | None, ...]
    dtype: Any
    device: str


def traced(op: OpOverload) -> None:
    """Let kernels be compared with the fake rule from now on."""
    if op not in TRACED:
        TRACED.add(op)
        op.notes.pop("torch kernel", None)  # the next call asks which form it has


def agree(op: OpOverload, values: Sequence[Any], rows: Sequence[Any]) -> None:
    """Refuse results that are not as the fake rule says.

    Args:
        op: the operator.
        values: the arguments of our schema, with tensors of ours.
        rows: the results of our schema, each for itself, as tensors of ours.

    Raises:
        MetadataMismatchError: a result is not.
    """
    known = op.notes.get("torch said") or op.note("torch said", lambda _: {})
    key = hashed([each(_fact, v) for v in values])
    try:
        wanted = known[key]
    except KeyError:
        if len(known) >= MOST:
            known.clear()
        wanted = known[key] = _said(op, values)
    except TypeError:  # an argument without a hash
        wanted = _said(op, values)
    if wanted is None:
        return
    if len(rows) != len(wanted):
        differs(op, "the number of results", len(wanted), len(rows))
    for i, (row, said) in enumerate(zip(rows, wanted, strict=True)):
        _compare(op, f"result {i}", row, said)


def in_a_row(op: OpOverload, out: Any) -> list[Any]:
    """Give what a call of ours returned, or a fake rule, as one value for each result."""
    return [out] if len(op._schema.returns) == 1 else list(out or ())


def hashed(value: Any) -> Any:
    """Give a key for a value of a schema: equal for values of one type that are equal."""
    if value.__class__ is list or value.__class__ is tuple:
        return tuple([hashed(v) for v in value])
    return value.__class__, value


def _fact(value: Any) -> Any:
    return _fact_of(value) if isinstance(value, Tensor) else value


def _fact_of(t: Tensor) -> Said:
    found = t.payload
    if found.__class__ is np.ndarray:
        return Said(found.shape, found.dtype, "cpu")
    shape: Any = tuple(t.shape)
    return Said(shape, t.dtype, str(t.device))


def _said(op: OpOverload, values: Sequence[Any]) -> list[Any] | None:
    """Ask the fake rule; None if there is none that answers."""
    plan = plan_of(op)
    if plan is None:
        return None
    space = FakeTensorMode(shape_env=ShapeEnv()).space

    def described(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return of_meta(space.meta(tuple(value.shape), value.dtype, None, value.device))

    given = [tree.map_leaves(described, v) for v in values]
    try:
        found = run_under(PLAIN, plan.run, space, given)
    except Exception:  # it says nothing of these arguments, which no compiler has seen then
        return None
    return [each(_as_said, row) for row in in_a_row(op, found)]


def _as_said(meta: Any) -> Any:
    if not isinstance(meta, Meta):
        return None
    shape: Any = tuple([n if n.__class__ is int else None for n in meta.shape])
    return Said(shape, meta.dtype, str(meta.device))


def _compare(op: OpOverload, what: str, found: Any, said: Any) -> None:
    if said.__class__ is list:
        rows = found if isinstance(found, list | tuple) else [found]
        if len(rows) != len(said):
            differs(op, f"the number of tensors in {what}", len(said), len(rows))
        for i, (row, one) in enumerate(zip(rows, said, strict=True)):
            _compare(op, f"{what}[{i}]", row, one)
        return
    if said is None or not isinstance(found, Tensor):
        return
    seen = _fact_of(found)
    if seen == said:
        return
    wanted = zip(seen.shape, said.shape, strict=False)
    same = len(seen.shape) == len(said.shape)
    if not same or any(n is not None and m != n for m, n in wanted):
        shown = tuple(["any" if n is None else n for n in said.shape])
        differs(op, f"the shape of {what}", shown, seen.shape)
    if seen.dtype != said.dtype:
        differs(op, f"the dtype of {what}", said.dtype, seen.dtype)
    if seen.device != said.device:
        differs(op, f"the device of {what}", said.device, seen.device)


def differs(op: OpOverload, what: str, declared: object, seen: object) -> NoReturn:
    """Refuse a result that is not what the fake rule says."""
    raise MetadataMismatchError(
        f"{what} of {op.name()} is not what its fake rule says",
        op=op._schema,
        declared=declared,
        seen=seen,
        source=op.rule_source("fake"),
        fix="let the fake rule and the kernel give the same shapes and dtypes",
    )

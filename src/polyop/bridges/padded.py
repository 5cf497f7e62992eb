"""`padded`: an operator whose size depends on data, as one whose size is known.

Compilers of arrays need sizes before there is data. So the size that depends on data becomes the
largest that it may be, the rest is filled, and how many there really are is one more result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn
from weakref import WeakKeyDictionary

import numpy as np

from polyop import tree
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, as_operator
from polyop.errors import (
    ArgumentError,
    DynamicOutputShapeError,
    KernelError,
    MissingFakeError,
    RegistrationError,
)
from polyop.forks import process_lock
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.fake.handlers import plan_of
from polyop.layers.fake.mode import FakeTensorMode
from polyop.symbolic import ShapeEnv, SymInt
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_array, of_meta

_MADE: WeakKeyDictionary[OpOverload, CustomOpDef] = WeakKeyDictionary()
_LOCK = process_lock()


def padded(op: Any) -> CustomOpDef:
    """Give the operator that fills its results up to a size that is known.

    It takes two more keyword arguments: `max`, how many there are at most (by default what the
    fake rule says: `new_dynamic_size(max=...)`), and `fill`, what stands in the rest. It gives one
    more result, a tensor without axes: how many there are. It runs wherever sizes have to be
    known: under `jax.jit`, `vmap`, in `scan`.

    Args:
        op: the operator, in any form; its results are Tensors, and one size depends on data. Call
            this where the operator is defined, so that exported programs find both.

    Raises:
        RegistrationError: a result is no Tensor, or it writes its arguments.
        MissingFakeError: the operator has no fake rule.

    Example:
        >>> import numpy as np
        >>> import polyop
        >>> @polyop.custom_op("doc::where", mutates_args=())
        ... def where(x: polyop.Tensor) -> polyop.Tensor:
        ...     return polyop.from_numpy(np.flatnonzero(x.numpy()))
        >>> @where.register_fake
        ... def where_fake(x):
        ...     size = polyop.library.get_ctx().new_dynamic_size(max=x.numel())
        ...     return x.new_empty([size], dtype=polyop.int64)
        >>> places, count = padded(where)(np.array([0, 5, 7]), fill=-1)
        >>> places, int(count)
        (array([ 1,  2, -1]), 2)
    """
    found = as_operator(op)
    with _LOCK:
        known = _MADE.get(found)
        if known is None or not known._opoverload.alive:
            known = _MADE[found] = _make(found)
    return known


def is_paddable(op: OpOverload) -> bool:
    """Tell whether the results of an operator are Tensors that could be filled up."""
    return not op._schema.is_mutable and all(str(r.type) == "Tensor" for r in op._schema.returns)


def _make(op: OpOverload) -> CustomOpDef:
    if not is_paddable(op):
        raise RegistrationError(
            f"{op.name()} cannot be padded",
            declared="results that are Tensors, and no argument that is written",
            seen=str(op._schema),
            source=op.source,
        )
    if plan_of(op) is None:
        op.missing("fake", MissingFakeError)
    rule = _Padded(op)
    definition = DEFINITIONS.get(op._schema.qualified_name)
    rule.__module__ = definition.module if definition is not None else ""
    space = "padded" if op.is_builtin else op.namespace
    name = f"{space}::{op._opname}_padded"
    made: CustomOpDef = custom_op(name, rule, mutates_args=(), schema=_schema(op), replace=True)
    made.register_fake(rule.fake)
    if recorder_of(op) is None and "backward" in op.slots():
        made.register_autograd(None)
    return made


def _schema(op: OpOverload) -> str:
    arguments, _, returns = str(op._schema).partition("(")[2].rpartition(") -> ")
    star = "" if op._schema.keyword_only else ", *"
    results = returns if returns.startswith("(") else f"({returns})"
    return f"({arguments}{star}, int? max=None, Scalar fill=0) -> {results[:-1]}, Tensor)"


class _Sizes(NamedTuple):
    """What the fake rule says of the results: their metas, and the one size that is open."""

    metas: list[Meta]
    size: SymInt
    most: Any


class _Bounds:
    """Makes sizes that depend on data; their bounds may be symbols of whoever asks.

    Attributes:
        most: by the id of a size, its bound.
    """

    def __init__(self) -> None:
        self.env = ShapeEnv()
        self.most: dict[int, Any] = {}

    def create_unbacked(self, *, min: Any = 0, max: Any = None, origin: str = "") -> SymInt:
        """Give a new size."""
        made = self.env.create_unbacked(origin=origin)
        self.most[id(made)] = max
        return made


class _Padded:
    """The rules of the padded form of an operator.

    Attributes:
        op: the operator.
    """

    def __init__(self, op: OpOverload) -> None:
        self.op = op

    def __call__(self, *values: Any, max: int | None = None, fill: Any = 0, **named: Any) -> Any:
        """Run the operator on data, and fill its results."""
        given = [*values, *named.values()]
        open_ = self.sizes(given)
        most = self.most(open_, max)
        out = self.op.entry(*values, **named)
        results = [t.numpy() for t in ([out] if isinstance(out, Tensor) else out)]
        pairs = list(zip(results, open_.metas, strict=True))
        count = next(x.shape[i] for x, m in pairs for i, n in enumerate(m.shape) if n is open_.size)
        if count > most:
            _too_many(self.op, count, most)
        done = [of_array(_filled(x, m, open_.size, most, fill)) for x, m in pairs]
        return (*done, of_array(np.asarray(count, np.int64)))

    def fake(self, *values: Any, max: int | None = None, fill: Any = 0, **named: Any) -> Any:
        """Describe the results."""
        given = [*values, *named.values()]
        open_ = self.sizes(given)
        most = self.most(open_, max)
        like: Any = next(t for t in tree.leaves(given) if isinstance(t, Tensor))
        shapes = [[most if n is open_.size else n for n in m.shape] for m in open_.metas]
        pairs = zip(shapes, open_.metas, strict=True)
        done = [like.new_empty(shape, dtype=m.dtype) for shape, m in pairs]
        return (*done, like.new_empty([], dtype=np.dtype(np.int64)))

    def sizes(self, values: Sequence[Any]) -> _Sizes:
        """Run the operator's fake rule, and find the size that it leaves open.

        Raises:
            DynamicOutputShapeError: there is none, or several.
        """
        mode = FakeTensorMode()
        bounds: Any = _Bounds()
        mode.shape_env = bounds

        def described(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            return of_meta(mode.space.meta(tuple(t.shape), t.dtype))

        plan: Any = plan_of(self.op)
        given = [tree.map_leaves(described, v) for v in values]
        found = run_under(PLAIN, plan.run, mode.space, given)
        metas = tree.leaves(found)
        sizes = {id(n): n for m in metas for n in m.shape if isinstance(n, SymInt)}
        if len(sizes) != 1:
            raise DynamicOutputShapeError(
                f"{self.op.name()} has {len(sizes)} sizes that depend on data, and one can be "
                "padded",
                op=self.op._schema,
                seen=", ".join(map(repr, metas)),
                source=self.op.rule_source("fake"),
                fix="let the fake rule make one: get_ctx().new_dynamic_size(max=...)",
            )
        (size,) = sizes.values()
        return _Sizes(metas, size, bounds.most.get(id(size)))

    def most(self, open_: _Sizes, given: Any) -> Any:
        """Give how many there are at most.

        Raises:
            ArgumentError: nobody says it.
        """
        found = open_.most if given is None else given
        if found is None or (isinstance(found, int) and found < 0):
            raise ArgumentError(
                f"the padded form of {self.op.name()} needs to know how many there are at most",
                op=self.op._schema,
                argument="max",
                seen=repr(given),
                source=self.op.rule_source("fake"),
                fix="give max=..., or let the fake rule say it: get_ctx().new_dynamic_size(max=..)",
            )
        return found


def _filled(x: Any, meta: Meta, size: SymInt, most: int, fill: Any) -> Any:
    shape = [most if n is size else have for n, have in zip(meta.shape, x.shape, strict=True)]
    made = np.full(shape, fill, x.dtype)
    made[tuple(slice(n) for n in x.shape)] = x
    return made


def _too_many(op: OpOverload, count: int, most: int) -> NoReturn:
    raise KernelError(
        f"{op.name()} found {count}, and there is place for {most}",
        op=op._schema,
        declared=f"max={most}",
        seen=count,
        source=op.source,
        fix=f"give max={count} or more",
    )

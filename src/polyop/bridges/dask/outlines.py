"""What is known of the results before anything runs: shapes and dtypes, by the fake rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from polyop import tree
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import GuardOnDataDependentError, MissingFakeError, ReturnError
from polyop.layers.fake.compute import Plan
from polyop.layers.fake.handlers import plan_of
from polyop.layers.fake.mode import FakeTensorMode
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import of_meta

#: A table of outlines is begun anew when it has this many.
MOST = 1 << 10
Shape = tuple[float, ...]


class Slot(Enum):
    """What stands in the arguments of a call where an array was."""

    ARRAY = "array"


class Fact(NamedTuple):
    """What is known of an array; a size that depends on data is `nan`."""

    shape: Shape
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    @property
    def is_known(self) -> bool:
        """Whether all sizes are."""
        return not any(map(math.isnan, self.shape))


class Outline(NamedTuple):
    """What is known of the results: of each array in a row, and how they lie."""

    facts: tuple[Fact, ...]
    spec: Any


def fact_of(array: Any) -> Fact:
    """Give what is known of an array of NumPy or Dask."""
    sizes = [n if math.isnan(n) else int(n) for n in array.shape]
    return Fact(tuple(sizes), np.dtype(array.dtype))


def filled(template: Sequence[Any], operands: Iterable[Any]) -> list[Any]:
    """Give the arguments in schema order, with operands in their places."""
    rest = iter(operands)
    return [
        tree.map_leaves(lambda leaf: next(rest) if leaf is Slot.ARRAY else leaf, value)
        for value in template
    ]


class Outlines:
    """The outlines of one call, by the facts of its arrays; those of an old rule are forgotten.

    Args:
        op: the operator.
        template: its arguments, with a slot for each array.
    """

    def __init__(self, op: OpOverload, template: Sequence[Any]) -> None:
        self.op = op
        self.template = template
        self._plan: Plan | None = None
        self._known: dict[Any, Outline] = {}

    def of(self, facts: tuple[Fact, ...]) -> Outline:
        """Give the outline of the results.

        Raises:
            MissingFakeError: the operator has no fake rule.
            GuardOnDataDependentError: the rule asks for a size that nobody knows yet.
            ReturnError: a result is no tensor.
        """
        plan = plan_of(self.op)
        if plan is None:
            self.op.missing("fake", MissingFakeError)
        if plan is not self._plan or len(self._known) >= MOST:
            self._plan, self._known = plan, {}
        known = self._known
        try:
            return known[facts]
        except KeyError:
            made = known[facts] = self._made(plan, facts)
            return made

    def _made(self, plan: Plan, facts: tuple[Fact, ...]) -> Outline:
        env = ShapeEnv()
        space = FakeTensorMode(shape_env=env).space

        def fake(fact: Fact) -> Any:
            # Rules ask whether a size is 1, which would repeat it. Taken for more than that, it is
            # `nan` in the result either way; dtype and number of axes are held against the result.
            sizes: list[Any] = [
                env.create_unbacked(min=2) if math.isnan(n) else n for n in fact.shape
            ]
            return of_meta(space.meta(tuple(sizes), fact.dtype))

        values = filled(self.template, map(fake, facts))
        try:
            made = run_under(PLAIN, plan.run, space, values)
        except GuardOnDataDependentError as error:
            if all(fact.is_known for fact in facts):
                raise
            self._refuse(error, facts)
        leaves, spec = tree.flatten(made)
        return Outline(tuple([self._fact(leaf) for leaf in leaves]), spec)

    def _fact(self, leaf: Any) -> Fact:
        if leaf.__class__ is not Meta:
            raise ReturnError(
                f"{self.op.name()} returns something that is no tensor",
                op=self.op._schema,
                declared=str(self.op._schema).partition(" -> ")[2],
                source=self.op.source,
            )
        return Fact(tuple([n if n.__class__ is int else math.nan for n in leaf.shape]), leaf.dtype)

    def _refuse(self, error: GuardOnDataDependentError, facts: tuple[Fact, ...]) -> Any:
        raise GuardOnDataDependentError(
            f"{self.op.name()} asks for a size that depends on data, and Dask has not computed it",
            op=self.op._schema,
            seen=", ".join(str(fact.shape) for fact in facts),
            source=self.op.rule_source("fake"),
            fix="call x.compute_chunk_sizes() on the array first",
        ) from error

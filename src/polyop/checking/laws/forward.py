"""The forward half of the laws of gradients: what an author's `jvp` gives is the derivative.

So is the derivative of that: a `jvp` of a `jvp` moves the tangents as it moves the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from polyop.checking.differences import (
    FEW_ELEMENTS,
    Moves,
    Reading,
    directions,
    reading,
    rounds,
    through,
)
from polyop.checking.sample import Array, array_of, leaves_named
from polyop.checking.slope import Slope, weighted
from polyop.errors import GradcheckError
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor, is_differentiable, of_array


def compare_forward(slope: Slope, most: int = FEW_ELEMENTS) -> None:
    """Compare the forward derivative with finite differences: along each tensor, then along all.

    Raises:
        GradcheckError: one differs.
    """
    together: dict[int, Array] = {}
    for i in slope.targets:
        for way in directions(slope.start[i], most):
            _compare(slope, {i: way.by}, way.size)
        together[i] = through(slope.start[i])
    if len(together) > 1:
        _compare(slope, together)


def pushed_together(slope: Slope) -> list[Array]:
    """Give the tangents of the results along a random direction."""
    arrays = [slope.start[i] for i in slope.targets]
    function = function_of(slope, slope.targets)
    return [array_of(t) for t in jvp(function, fresh(arrays), fresh(random_like(arrays, 11)))[1]]


def _compare(slope: Slope, moves: Moves, size: float = 1.0) -> None:
    found = reading(slope, _along(slope, moves), moves, size=size)
    if found.wrong and not any(rounds(slope, i) for i in moves):
        _refuse(slope, [slope.name(i) for i in moves], found)


def _along(slope: Slope, moves: Moves) -> float:
    """Give the derivative of the weighted sum along a direction, by forward mode."""
    primals = fresh([slope.start[i] for i in moves])
    _, slopes = jvp(function_of(slope, list(moves)), primals, fresh(list(moves.values())))
    return weighted([array_of(t) for t in slopes], slope.scale)


def function_of(slope: Slope, moving: Sequence[int]) -> Callable[..., tuple[Tensor, ...]]:
    """Give the operator as a function of some of its tensors."""

    def results(*moved: Tensor) -> tuple[Tensor, ...]:
        made = [of_array(a.copy()) for a in slope.start]
        for i, t in zip(moving, moved, strict=True):
            made[i] = t
        out = slope.sample.rebuilt(made).call(slope.case.op)
        leaves = leaves_named(out, len(slope.case.op._schema.returns))
        tensors = [t for _, t in leaves if isinstance(t, Tensor)]
        return tuple(slope.chosen([t for t in tensors if is_differentiable(t.dtype)]))

    return results


def fresh(arrays: Sequence[Array]) -> tuple[Tensor, ...]:
    """Make tensors of copies."""
    return tuple(of_array(a.copy()) for a in arrays)


def _refuse(slope: Slope, names: list[str], found: Reading) -> None:
    op, named = slope.case.op, " and ".join(map(repr, names))
    raise GradcheckError(
        f"the forward derivative of {slope.case.name} for {named}{' together' * (len(names) > 1)} "
        "is wrong",
        op=op._schema,
        argument=", ".join(names),
        declared=f"{found.told:.8g} along a direction (the jvp)",
        seen=f"{found.seen:.8g} (finite differences{', with ' * bool(slope.at)}{slope.at})",
        source=op.rule_source("jvp"),
        fix="compare the jvp with the derivative of the kernel; also what setup_context saves",
    )


# -- twice --------------------------------------------------------------------


@dataclass(frozen=True)
class Pushed(Slope):
    """The forward derivative; after the sample's arrays come the directions of its targets."""

    @cached_property
    def start(self) -> list[Array]:
        """The values and the directions at which the derivative is taken."""
        arrays = [array_of(t) for t in self.sample.tensors()]
        return [*arrays, *random_like([arrays[i] for i in self.targets], 11)]

    def values(self, arrays: Sequence[Array]) -> list[Array]:
        """Give the tangents of the results at other values, along other directions."""
        return [array_of(t) for t in self.tangents(*fresh(self.moving(arrays)))]

    def moving(self, arrays: Sequence[Array]) -> list[Array]:
        """Give the values of the targets, and their directions."""
        return [*(arrays[i] for i in self.targets), *arrays[len(self.sample.tensors()) :]]

    def tangents(self, *moved: Tensor) -> tuple[Tensor, ...]:
        """Give the tangents of the results."""
        n = len(self.targets)
        given: tuple[Tensor, ...] = jvp(function_of(self, self.targets), moved[:n], moved[n:])[1]
        return given


def random_like(arrays: Sequence[Array], seed: int) -> list[Array]:
    """Give directions through all elements."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.uniform(-1.0, 1.0, a.shape)).astype(a.dtype) for a in arrays]


def compare_forward_twice(slope: Slope) -> None:
    """Compare the forward derivative's own derivative, for arguments and tangents that move.

    Raises:
        GradcheckError: it differs.
    """
    pushed = Pushed(slope.case, slope.sample, slope.targets, 1, slope.at)
    by = [through(a, 13) for a in pushed.moving(pushed.start)]
    places = [*slope.targets, *range(len(slope.sample.tensors()), len(pushed.start))]
    try:
        told = jvp(pushed.tangents, fresh(pushed.moving(pushed.start)), fresh(by))[1]
    except Exception:  # it says that it has no derivative
        return
    says = weighted([array_of(t) for t in told], pushed.scale)
    found = reading(pushed, says, dict(zip(places, by, strict=True)))
    if found.wrong and not any(rounds(slope, i) for i in slope.targets):
        op = slope.case.op
        raise GradcheckError(
            f"the second forward derivative of {slope.case.name} is wrong",
            op=op._schema,
            argument=", ".join(map(slope.name, slope.targets)),
            declared=f"{found.told:.8g} along a direction (the jvp of the jvp)",
            seen=f"{found.seen:.8g} (finite differences of the jvp"
            f"{', with ' * bool(slope.at)}{slope.at})",
            source=op.rule_source("jvp"),
            fix="compute in jvp by operators on what was saved and on the tangents, without "
            ".detach() or .numpy()",
        )

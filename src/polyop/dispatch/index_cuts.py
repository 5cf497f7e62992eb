"""How a call may be cut along its loops: into chunks on one machine, or over a mesh of devices.

Only loops are ever cut. Whether the kernel could work on a part of a named axis, even of one that
only goes through, its signature does not say; so each named axis stays in one piece. All of it is
plain data, for whatever cuts arrays or places them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyop.dispatch.index_text import Group
from polyop.errors import UsageError

#: How one tensor is cut: for each axis, the sizes of its pieces.
Cuts = tuple[tuple[int, ...], ...]
#: What stands for loops whose number is not known, as in JAX.
UNKNOWN = "..."


@dataclass(frozen=True)
class Chunks:
    """How a call on chunked arguments is chunked.

    Attributes:
        inputs: the chunks of each Tensor argument, as given.
        results: the chunks of each result.
        whole: for each Tensor argument, its axes that are one chunk: the named ones.
    """

    inputs: tuple[Cuts, ...]
    results: tuple[Cuts, ...]
    whole: tuple[tuple[int, ...], ...]

    @property
    def loops(self) -> int:
        """How many axes in front of each result are loops."""
        return len(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many chunks each loop has."""
        return _longest([self._loop_counts(i) for i in range(len(self.inputs))])

    def blocks(self, place: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Give the place of the block of each argument, for the blocks of the results at `place`.

        Args:
            place: the number of the chunk, for each loop.

        Raises:
            UsageError: there is no such place.
        """
        counts = self.counts
        if len(place) != len(counts) or not all(
            0 <= p < n for p, n in zip(place, counts, strict=True)
        ):
            raise UsageError(
                "there is no such block",
                declared=f"one number for each loop, below {counts}",
                seen=repr(tuple(place)),
            )
        return tuple(self._block(i, place) for i in range(len(self.inputs)))

    def _loop_counts(self, i: int) -> tuple[int, ...]:
        cuts = self.inputs[i]
        return tuple(len(c) for c in cuts[: len(cuts) - len(self.whole[i])])

    def _block(self, i: int, place: Sequence[int]) -> tuple[int, ...]:
        counts = self._loop_counts(i)
        here = place[len(place) - len(counts) :]
        # An axis in one chunk, of size 1 or not, goes to every place.
        loops = [0 if n == 1 else p for p, n in zip(here, counts, strict=True)]
        return (*loops, *(0 for _ in self.whole[i]))


def _longest(counts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    most = max(map(len, counts), default=0)
    padded = [(1,) * (most - len(c)) + c for c in counts]
    return tuple(max(column) for column in zip(*padded, strict=True))


# -- meshes -------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """One right way of laying the tensors of a call over one axis of a mesh.

    Attributes:
        mesh_axis: the axis of the mesh.
        name: the loop that is sharded; None if all tensors are whole everywhere.
        inputs: for each Tensor argument, which of its axes is sharded; None if none is.
        outputs: the same for each result.
    """

    mesh_axis: str
    name: str | None
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]


@dataclass(frozen=True)
class Sharding:
    """The axes of a call's tensors by name: axes of one name are cut alike, or not at all.

    Attributes:
        inputs: the names of all axes of each Tensor argument, loops first; `"..."` stands for
            loops whose number is not known. A loop of size 1 that is repeated has its own name.
        outputs: the same for each result.
        loops: the names that may be sharded.

    Its text is a rule for JAX's `custom_partitioning`, with `whole` as the factors that need
    replication.
    """

    inputs: tuple[Group, ...]
    outputs: tuple[Group, ...]
    loops: Group

    def __str__(self) -> str:
        sides = [", ".join(" ".join(group) for group in side) for side in self._sides()]
        return " -> ".join(sides)

    @property
    def whole(self) -> Group:
        """The names that may not be sharded."""
        every = dict.fromkeys(name for side in self._sides() for group in side for name in group)
        return tuple(name for name in every if name not in self.loops and name != UNKNOWN)

    def _sides(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        return self.inputs, self.outputs

    def placements(self, mesh_axis: str) -> tuple[Placement, ...]:
        """Give each right way of using one axis of a mesh: none, then each loop sharded over it.

        Raises:
            UsageError: the number of loops is not known.
        """
        if any(UNKNOWN in group for group in self.inputs):
            raise UsageError(
                "which loops there are is not known",
                seen=str(self),
                fix="give the shapes of the Tensor arguments: index_of(op).sharding(*shapes)",
            )
        return tuple(self._placement(mesh_axis, name) for name in (None, *self.loops))

    def _placement(self, mesh_axis: str, name: str | None) -> Placement:
        inputs, outputs = (tuple(_place(name, g) for g in side) for side in self._sides())
        return Placement(mesh_axis, name, inputs, outputs)

    def specs(self, placement: Placement) -> tuple[tuple[Any, ...], ...]:
        """Give for each argument and then each result the mesh axis, or None, of each axis."""
        groups, places = self.inputs + self.outputs, placement.inputs + placement.outputs
        return tuple(
            tuple(placement.mesh_axis if i == place else None for i in range(len(group)))
            for group, place in zip(groups, places, strict=True)
        )


def _place(name: str | None, group: Group) -> int | None:
    return group.index(name) if name in group else None


def name_axes(
    inputs: Sequence[Group], outputs: Sequence[Group], shapes: Sequence[Sequence[Any]]
) -> Sharding:
    """Name all axes of all tensors; without shapes, `...` stands for the loops."""
    taken = {name for group in (*inputs, *outputs) for name in group}
    inputs, outputs = ([tuple(map(_spelt, g)) for g in side] for side in (inputs, outputs))
    if not shapes:
        sides = [tuple((UNKNOWN, *group) for group in side) for side in (inputs, outputs)]
        return Sharding(sides[0], sides[1], ())
    found = [tuple(s[: len(s) - len(g)]) for s, g in zip(shapes, inputs, strict=True)]
    most = max(map(len, found))
    names = _free_names("loop", most, taken)
    once = iter(_free_names("repeated", most * len(found), taken))
    # A loop of size 1 everywhere is an axis as any other; beside a longer one it is repeated.
    aligned = [(1,) * (most - len(loops)) + loops for loops in found]
    longer = [any(size != 1 for size in column) for column in zip(*aligned, strict=True)]
    named = []
    for loops, group in zip(found, inputs, strict=True):
        own = list(zip(names, longer, strict=True))[most - len(loops) :]
        pairs = zip(own, loops, strict=True)
        named.append(
            (*(next(once) if n == 1 and long else name for (name, long), n in pairs), *group)
        )
    return Sharding(tuple(named), tuple((*names, *group) for group in outputs), names)


def _spelt(name: str) -> str:
    return f"size{name}" if name.isdigit() else name


def _free_names(stem: str, count: int, taken: set[str]) -> Group:
    while any(f"{stem}{i}" in taken for i in range(count)):
        stem += "_"
    return tuple(f"{stem}{i}" for i in range(count))

"""Trials on Dask: recipes stay recipes, and give NumPy's results when they are computed.

Derivatives and batches are of our own layers, over tensors of Dask's arrays. Of an operator that
writes, the functional twin is tried, for Dask's arrays are never written.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from polyop.checking.capabilities.cells import Differs
from polyop.checking.capabilities.derivatives import (
    agree,
    first,
    pushed,
    second,
    tangents_of,
)
from polyop.checking.capabilities.subject import (
    Leaves,
    Subject,
    batch,
    compare,
    is_array,
    looped,
    tensor_leaves,
)
from polyop.checking.capabilities.trier import TrierBase
from polyop.checking.law import DoesNotApply
from polyop.layers.vmap import vmap
from polyop.lazy import load
from polyop.payloads.api import from_array, to_array

da: Any = load("dask.array")  # without types
_compute: Any = load("dask:compute")
_NO_COMPILER = "Dask has no compiler: a recipe is the program"


class OnDask(TrierBase):
    """Tries capabilities on Dask's arrays, cut into chunks along each axis."""

    library = "dask"

    def array(self, given: Any) -> Any:
        """Give an array of Dask, of two chunks along each axis that has more than one element."""
        chunks = tuple([max(1, (n + 1) // 2) for n in given.shape])
        return da.from_array(np.array(given), chunks=chunks)

    def tensor(self, given: Any) -> Any:
        """Give a tensor over an array of Dask."""
        return from_array(self.array(given))

    def eager(self, subject: Subject) -> str | None:
        """Compare what is computed; before that, nothing is."""
        compare(subject, self._computed(subject), subject.results)
        return "by the functional twin" if subject.twin else None

    def _recipes(self, subject: Subject) -> Leaves:
        leaves = subject.leaves(subject.function()(*self.arrays(subject)))
        for (name, got), (_, wanted) in zip(leaves, subject.results, strict=False):
            if is_array(wanted) and not isinstance(got, da.Array):
                raise Differs(f"{name} is {type(got).__name__}, and no array of Dask")
        return leaves

    def _computed(self, subject: Subject) -> Leaves:
        leaves = self._recipes(subject)
        found = _compute([leaf for _, leaf in leaves], scheduler="threads")[0]
        return [(name, value) for (name, _), value in zip(leaves, found, strict=True)]

    def grad(self, subject: Subject) -> None:
        """Compare gradients over Dask with those over NumPy."""
        agree(subject, first(subject, self.tensor).found, first(subject).found, "gradient")

    def second_order(self, subject: Subject) -> None:
        """Compare gradients of gradients."""
        found = second(subject, self.tensor)
        agree(subject, found.found, second(subject).found, "second gradient")

    def forward_mode(self, subject: Subject) -> None:
        """Compare tangents."""
        agree(subject, pushed(subject, self.tensor).found, tangents_of(subject).found, "tangent")

    def vmap(self, subject: Subject) -> None:
        """Compare `polyop.vmap` over Dask with the loop over NumPy."""
        subject.needs_tensors()
        wanted = looped(subject)
        given = [self.tensor(np.stack(column)) for column in zip(*batch(subject), strict=True)]
        found: Any = vmap(tensor_leaves(subject, subject.function()))(*given)
        names = [name for name, _ in wanted]
        compare(subject, list(zip(names, map(to_array, found), strict=True)), wanted)

    def compile(self, subject: Subject) -> None:
        """Say that there is nothing to compile."""
        raise DoesNotApply(_NO_COMPILER)

    def dynamic_shapes(self, subject: Subject) -> None:
        """Say that recipes are made anew for each shape."""
        raise DoesNotApply(_NO_COMPILER)

    def export(self, subject: Subject) -> None:
        """Send recipes as bytes, as to another process, and compute them."""
        leaves = self._recipes(subject)
        sent = pickle.loads(pickle.dumps([leaf for _, leaf in leaves]))  # noqa: S301 - ours
        found = _compute(sent, scheduler="threads")[0]
        names = [name for name, _ in leaves]
        compare(subject, list(zip(names, found, strict=True)), subject.results)

    def mutation(self, subject: Subject) -> str:
        """Let tensors over Dask's arrays have their new values."""
        subject.needs_tensors()
        writes = Subject(subject.op, subject.sample)
        given = [from_array(a) for a in self.arrays(subject)]
        compare(writes, writes.leaves(writes.function()(*given)), writes.results)
        return "tensors over Dask's arrays get a new one; arrays themselves, by the functional twin"

    def data_dependent_sizes(self, subject: Subject) -> str | None:
        """Compare what is computed, whose sizes are not known before."""
        return self.eager(subject)

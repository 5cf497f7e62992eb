"""Trials on JAX: its own transforms, `jit` and `export`, on its own arrays, in double precision.

Of an operator that writes, the functional twin is tried, for JAX's arrays are never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from polyop.checking.capabilities.cells import Differs
from polyop.checking.capabilities.derivatives import agree, chosen, first, second, tangents_of
from polyop.checking.capabilities.subject import (
    Subject,
    batch,
    compare,
    data,
    is_array,
    looped,
    noise,
    tensor_leaves,
)
from polyop.checking.capabilities.trier import TrierBase
from polyop.checking.law import DoesNotApply
from polyop.payloads.api import from_array, to_array

_struct: Any = jax.ShapeDtypeStruct
_home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
_enable_x64: Any = _home.enable_x64


class OnJax(TrierBase):
    """Tries capabilities on JAX's arrays."""

    library = "jax"

    def trial(self, capability: str) -> Callable[[], str | None]:
        """Give what tries a capability, with 64-bit numbers on."""
        inner = super().trial(capability)

        def outer() -> str | None:
            with _enable_x64(True):
                return inner()

        return outer

    def array(self, given: Any) -> Any:
        """Give an array of JAX."""
        return jnp.asarray(np.array(given))

    def eager(self, subject: Subject) -> str | None:
        """Compare results, which must be JAX's arrays."""
        leaves = subject.leaves(subject.function()(*self.arrays(subject)))
        for (name, got), (_, wanted) in zip(leaves, subject.results, strict=False):
            if is_array(wanted) and not isinstance(got, jax.Array):
                raise Differs(f"{name} is {type(got).__name__}, and no array of JAX")
        compare(subject, leaves, subject.results)
        return "by the functional twin" if subject.twin else None

    # -- derivatives ------------------------------------------------------------------------

    def grad(self, subject: Subject) -> None:
        """Compare `jax.vjp` with our gradient on NumPy."""
        wanted = first(subject)
        _, f, primals, cots = self._start(subject, wanted.outs)
        found = jax.vjp(f, *primals)[1](tuple(cots))
        agree(subject, found, wanted.found, "gradient")

    def second_order(self, subject: Subject) -> None:
        """Compare the gradient of the gradient."""
        wanted = second(subject)
        _, f, primals, cots = self._start(subject, wanted.outs)

        def slope(primals: Any, cots: Any) -> Any:
            return jax.vjp(f, *primals)[1](cots)

        weights = tuple(map(self.array, noise([np.asarray(p) for p in primals], 2)))
        pulled = jax.vjp(slope, tuple(primals), tuple(cots))[1](weights)
        agree(subject, [*pulled[0], *pulled[1]], wanted.found, "second gradient")

    def forward_mode(self, subject: Subject) -> None:
        """Compare `jax.jvp` with the tangents that backward gives."""
        wanted = tangents_of(subject)
        _, f, primals, _ = self._start(subject, wanted.outs)
        moved = tuple(map(self.array, noise([np.asarray(p) for p in primals], 3)))
        _, found = jax.jvp(f, tuple(primals), moved)
        agree(subject, found, wanted.found, "tangent")

    def _start(
        self, subject: Subject, outs: Sequence[int]
    ) -> tuple[list[Any], Callable[..., Any], list[Any], list[Any]]:
        arrays = self.arrays(subject)
        f = chosen(subject, arrays, outs)
        primals = [arrays[i] for i in subject.wanted]
        wanted = [np.asarray(data(subject.results[i][1])) for i in outs]
        return arrays, f, primals, list(map(self.array, noise(wanted, 1)))

    # -- batches, programs ------------------------------------------------------------------

    def vmap(self, subject: Subject) -> None:
        """Compare `jax.vmap` with the loop."""
        subject.needs_tensors()
        wanted = looped(subject)
        given = [self.array(np.stack(column)) for column in zip(*batch(subject), strict=True)]
        found = jax.vmap(tensor_leaves(subject, subject.function()))(*given)
        names = [name for name, _ in wanted]
        compare(subject, list(zip(names, found, strict=True)), wanted)

    def compile(self, subject: Subject) -> None:
        """Compare `jax.jit` with the call, its gradient too."""
        self._same(subject, jax.jit(self._flat(subject)))
        try:
            wanted = first(subject)
        except DoesNotApply:
            return
        _, f, primals, cots = self._start(subject, wanted.outs)
        run = jax.jit(lambda primals, cots: jax.vjp(f, *primals)[1](cots))
        agree(subject, run(tuple(primals), tuple(cots)), wanted.found, "compiled gradient")

    def dynamic_shapes(self, subject: Subject) -> None:
        """Run one exported program of symbolic sizes at two sizes."""
        subject.needs_tensors()
        other = subject.resized()
        program = _export(self._flat(subject))(*symbolic(subject, other))
        for one in (subject, other):
            self._same(one, program.call)

    def export(self, subject: Subject) -> None:
        """Write an exported program as bytes, read it, and run it."""
        program = _export(self._flat(subject))(*self.arrays(subject))
        read = jax.export.deserialize(program.serialize())
        self._same(subject, read.call)

    def _flat(self, subject: Subject) -> Callable[..., Any]:
        subject.needs_tensors()
        return tensor_leaves(subject, subject.function())

    def _same(self, subject: Subject, f: Callable[..., Any]) -> None:
        """Compare what a function gives with the results that are arrays."""
        wanted = [(name, x) for name, x in subject.results if is_array(x)]
        found = f(*self.arrays(subject))
        names = [name for name, _ in wanted]
        compare(subject, list(zip(names, found, strict=True)), wanted)

    # -- what few operators do ------------------------------------------------------------------

    def mutation(self, subject: Subject) -> str:
        """Let tensors over JAX's arrays have their new values."""
        subject.needs_tensors()
        writes = Subject(subject.op, subject.sample)
        given = [from_array(a) for a in self.arrays(subject)]
        leaves = writes.leaves(writes.function()(*given))
        compare(writes, leaves, writes.results)
        if not all(isinstance(to_array(given[i]), jax.Array) for i in writes.written):
            raise Differs("what is written is no array of JAX any more")
        return "tensors over JAX's arrays get a new one; arrays themselves, by the functional twin"

    def data_dependent_sizes(self, subject: Subject) -> str | None:
        """Compare eager results, whose sizes are what they are."""
        self.eager(subject)
        return "not in programs, whose sizes JAX must know"


def _export(f: Callable[..., Any]) -> Callable[..., Any]:
    """Export a function; our target in the program is found again wherever polyop is imported."""
    ours = jax.export.DisabledSafetyCheck.custom_call("polyop")
    made: Callable[..., Any] = jax.export.export(jax.jit(f), disabled_checks=[ours])
    return made


def symbolic(subject: Subject, other: Subject) -> list[Any]:
    """Give what has the sample's shapes and dtypes, with a symbol for each size that may change."""
    sizes = sorted({
        n for a, b in zip(subject.arrays, other.arrays, strict=True)
        for n, m in zip(a.shape, b.shape, strict=True) if n != m
    })  # fmt: skip
    names = [f"n{i}" for i, _ in enumerate(sizes)]
    symbols = jax.export.symbolic_shape(", ".join(names)) if names else ()
    by = dict(zip(sizes, symbols, strict=True))
    return [_struct(tuple([by.get(n, n) for n in a.shape]), a.dtype) for a in subject.arrays]

"""Functions of one sample as functions of whole batches, below a vmap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from polyop.dispatch.context import run_under, word
from polyop.errors import PolyopError
from polyop.hop.forms import Flat, Form, Group, closed
from polyop.layers.fake.mode import FakeTensorMode, mode_inside
from polyop.layers.levels import enter_level
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.layers.vmap.same import CHUNKS, Chunk
from polyop.ops.broadcasting import expand_to
from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.views import expand_dims, moveaxis
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import Tensor, of_meta


def at_axis(value: Tensor, axis: int | None, to: int, size: Any) -> Tensor:
    """Give a value with its batch axis at a place; a value without one is repeated."""
    if axis is None:
        shape = list(value.shape)
        shape.insert(to, size)
        made: Tensor = expand_to(expand_dims(value, to), shape)
        return made
    return value if axis == to else moveaxis(value, axis, to)


@contextmanager
def in_chunk(level: VmapLevel, chunk: Chunk | None) -> Iterator[None]:
    """Let a level draw what the chunk of samples draws that it stands for, if it is one."""
    if chunk is None:
        yield
        return
    CHUNKS[id(level)] = chunk
    try:
        yield
    finally:
        del CHUNKS[id(level)]


def on_batch(
    fn: Flat,
    axes: Sequence[int | None],
    level: VmapLevel,
    found: list[bool] | None = None,
    whole: Sequence[bool] | None = None,
) -> Flat:
    """Give the function of whole batches, which gives batches along axis 0.

    Args:
        fn: the function of one sample.
        axes: the batch axis of each operand.
        level: the vmap.
        found: gets for each result whether it differs from sample to sample.
        whole: of the first results, which are batches even if they do not differ; by default
            all results are.
    """
    chunk = CHUNKS.get(id(level))

    def of_batch(*given: Any) -> Group:
        # A level of its own: gradients call this again when the vmap has ended.
        inner = VmapLevel(level.batch_size, level.randomness)
        pairs = zip(given, axes, strict=True)
        inputs = [x if axis is None else batched(x, axis, inner) for x, axis in pairs]
        with in_chunk(inner, chunk), enter_level(inner):
            out = fn(*inputs)
        differ = [peel(x, inner)[1] is not None for x in out]
        if found is not None:
            found[:] = differ
        if whole is None:
            return tuple(whole_of(x, inner) for x in out)
        made = [d or w for d, w in zip_longest(differ, whole, fillvalue=False)]
        return tuple(whole_of(x, inner) if b else x for x, b in zip(out, made, strict=True))

    of_batch.__wrapped__ = fn  # type: ignore[attr-defined]
    return closed(fn.remade(of_batch))


def whole_of(leaf: Any, level: VmapLevel) -> Any:
    """Give the batch of a result, along axis 0."""
    if not isinstance(leaf, Tensor):
        return leaf
    value, axis = peel(leaf, level)
    return at_axis(value, axis, 0, level.batch_size)


def lasting(op: Any, form: Form, level: VmapLevel) -> list[bool]:
    """Tell which operands differ from sample to sample, at some step; the carry comes first."""
    carry, operands = form.groups[0], [x for group in form.groups for x in group]
    flags = [peel(x, level)[1] is not None for x in operands]
    n = len(carry)
    while not all(f for x, f in zip(carry, flags, strict=False) if isinstance(x, Tensor)):
        found = differing(op, form, -1, flags, level)
        new = [a or b for a, b in zip(flags[:n], found, strict=False)]
        if new == flags[:n]:
            break
        flags[:n] = new
    return flags


def differing(
    op: Any, form: Form, which: int, flags: Sequence[bool], level: VmapLevel
) -> list[bool]:
    """Tell which results of a function differ from sample to sample, if some operands do.

    It runs on fakes, and nothing records it. If it fails, so will the call; then all do.
    """
    modes = (mode_inside(x) for x in form.leaves if isinstance(x, Tensor))
    mode = next(filter(None, modes), word().fake) or FakeTensorMode(
        allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True
    )

    def run() -> list[bool]:
        samples = op.samples(form, mode)[which]
        inner = VmapLevel(level.batch_size, level.randomness)
        pairs = zip(samples, flags, strict=True)
        given = [batched(_wide(mode, x, inner), 0, inner) if f else x for x, f in pairs]
        with enter_level(inner):
            return [peel(x, inner)[1] is not None for x in form.functions[which](*given)]

    plain = word().but(tracer=None, pre=(), modes=(), functional=None, levels=(), fake=mode)
    try:
        found: list[bool] = run_under(plain, run)
        return found
    except PolyopError:
        return [True] * len(flags)


def _wide(mode: FakeTensorMode, x: Tensor, level: VmapLevel) -> Tensor:
    """Give the fake of a batch of samples."""
    return of_meta(mode.meta((level.batch_size, *x.shape), x.dtype, None, x.device))


def in_batch(leaf: Any, axis: int | None, level: VmapLevel) -> Any:
    """Give the tensor whose samples lie along an axis, if it has one for them."""
    if axis is None or not isinstance(leaf, Tensor):
        return leaf
    return batched(leaf, axis, level)


def stack_in_batch(value: Tensor, level: VmapLevel, *, differs: bool = True) -> Tensor:
    """Give the tensor of a stack whose steps are batches; it lies as a stack of batched ones."""
    if not differs:
        return value

    def samples_first() -> Any:
        return contiguous_copy(moveaxis(value, 1, 0))

    return batched(run_under(level.below(), samples_first), 0, level)

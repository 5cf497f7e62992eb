"""`vmap`: a function of one sample becomes a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple

from polyop.dispatch.bits import BATCHED, LEVELS
from polyop.dispatch.context import PLAIN, Word, reset_word, set_word, word
from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.layers.vmap.axes import Input, batch_size, join_chunks, spread_inputs, take
from polyop.layers.vmap.batch import Batch, VmapLevel, batched
from polyop.layers.vmap.results import collect
from polyop.layers.vmap.same import CHUNKS, Chunk
from polyop.tensor.tensor import Tensor
from polyop.tree import TreeSpec, unflatten

RANDOMNESS = ("error", "different", "same")
#: Makes a level whose attributes the caller sets: its `__init__` would be a frame.
_bare = object.__new__
#: What holds in every word inside of one level alone.
_WITHIN = PLAIN.within


class Spec(NamedTuple):
    """What a vmap was asked to do."""

    func: Callable[..., Any]
    in_dims: Any
    out_dims: Any
    randomness: str


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Map a function over an axis of its arguments, in one run for the whole batch.

    Args:
        func: a function of one sample; takes and returns trees of tensors.
        in_dims: the axis to map over, for all arguments or for each: a tree
            with the outer structure of the arguments; None is not mapped.
            Keyword arguments are not mapped.
        out_dims: where results have the mapped axis; None for results that do
            not depend on the sample.
        randomness: `"error"`, `"different"` (per sample) or `"same"` (one draw).
        chunk_size: how many samples run at once; None is all.

    Raises:
        UsageError: an unknown `randomness`, or a `chunk_size` below 1.
        VmapError: in the call, where the axes do not fit the arguments (S154).
    """
    _check_options(func, randomness, chunk_size)
    spec = Spec(func, in_dims, out_dims, randomness)
    mapped = _mapped(spec) if chunk_size is None else _chunked(spec, chunk_size)
    return update_wrapper(mapped, func, updated=())


def _mapped(spec: Spec) -> Callable[..., Any]:
    """Make the function that runs the whole batch at once."""
    func, in_dims, out_dims, randomness = spec
    usual = in_dims == 0 and out_dims == 0

    def mapped(*args: Any, **kwargs: Any) -> Any:
        if usual and len(args) == 1 and not kwargs:
            (x,) = args
            shape = x.payload.shape if x.__class__ is Tensor else ()
            if shape:
                # One tensor along axis 0, written out: `VmapLevel`, its word and `batched`
                # in this frame are a tenth of the budget (PERFORMANCE section 11).
                outer = word()
                level = _bare(VmapLevel)
                level.outer, level.alive = outer, True
                level.batch_size, level.randomness = shape[0], randomness
                if outer is PLAIN:
                    inside = Word(LEVELS)
                    inside.levels, inside.within = (level,), _WITHIN
                    level.depth, level._below = 0, (inside, outer)
                else:
                    level.depth, level._below = len(outer.levels), None
                    inside = level.inner_word()
                record = Batch()
                record.value, record.axis, record.level = x, 0, level
                given = Tensor()
                given.payload, given.keys, given.version = record, BATCHED, 0
                try:
                    token = set_word(inside)
                    out = func(given)
                except BaseException:
                    set_word(outer)
                    level.alive, level._below = False, None
                    raise
                reset_word(token)
                level.alive, level._below = False, None
                if out.__class__ is Tensor:
                    record = out.payload
                    if record.__class__ is Batch and record.level is level and record.axis == 0:
                        return record.value
                return collect(spec, out, level)
        dims = in_dims if in_dims.__class__ is tuple else (in_dims,) * len(args)
        size = _size_of_tensors(dims, args)
        if size is not None:
            return _run_tensors(spec, size, dims, args, kwargs)
        inputs, structure = spread_inputs(spec, args)
        return _run(spec, inputs, structure, kwargs)

    return mapped


def _chunked(spec: Spec, size: int) -> Callable[..., Any]:
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return _in_chunks(spec, size, args, kwargs)

    return mapped


def _check_options(func: Any, randomness: Any, chunk_size: Any) -> None:
    if not callable(func):
        raise UsageTypeError("vmap takes a function", seen=repr(func))
    if randomness not in RANDOMNESS:
        raise UsageError(
            f"{randomness!r} is no randomness{nearest(randomness, RANDOMNESS)}",
            declared=", ".join(RANDOMNESS),
            seen=repr(randomness),
        )
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise UsageError("chunk_size is a number of samples from 1", seen=repr(chunk_size))


def _size_of_tensors(dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """Give the batch size of arguments that are tensors and fit; None for all others."""
    size = None
    if len(dims) != len(args):
        return None
    for x, dim in zip(args, dims, strict=True):
        if x.__class__ is not Tensor:
            return None
        if dim is None:
            continue
        shape = x.payload.shape
        if dim.__class__ is not int or not 0 <= dim < len(shape):
            return None
        if size is None:
            size = shape[dim]
        elif shape[dim] != size:
            return None
    return size


def _run_tensors(
    spec: Spec, size: Any, dims: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the most common call: no trees, axes from 0, nothing to refuse."""
    level = VmapLevel(size, spec.randomness)
    given = [
        x if dim is None else batched(x, dim, level) for x, dim in zip(args, dims, strict=True)
    ]
    outer = word()
    try:
        set_word(level.inner_word())
        out = spec.func(*given, **kwargs)
    finally:
        set_word(outer)
        level.end()
    return _given(spec, out, level)


def _run(
    spec: Spec,
    inputs: list[Input],
    structure: TreeSpec,
    kwargs: dict[str, Any],
    chunk: Chunk | None = None,
) -> Any:
    level = VmapLevel(batch_size(spec, inputs), spec.randomness)
    if chunk is not None:
        CHUNKS[id(level)] = chunk
    leaves = [x.value if x.axis is None else batched(x.value, x.axis, level) for x in inputs]
    outer = word()
    try:
        set_word(level.inner_word())
        out = spec.func(*unflatten(structure, leaves), **kwargs)
    finally:
        set_word(outer)
        level.end()
        CHUNKS.pop(id(level), None)
    return _given(spec, out, level)


def _given(spec: Spec, out: Any, level: VmapLevel) -> Any:
    """Take the level off the results."""
    if out.__class__ is Tensor and spec.out_dims == 0:
        record = out.payload
        if record.__class__ is Batch and record.level is level and record.axis == 0:
            return record.value
    return collect(spec, out, level)


def _in_chunks(spec: Spec, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inputs, structure = spread_inputs(spec, args)
    total = int(batch_size(spec, inputs))
    starts = range(0, total, size) if total else [0]
    drawn: dict[Any, Any] = {}
    outs = [
        _run(spec, [take(x, i, i + size) for x in inputs], structure, kwargs, Chunk(drawn))
        for i in starts
    ]
    return join_chunks(spec.out_dims, outs)

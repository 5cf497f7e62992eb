"""The results of a mapped function: the batch axis goes where `out_dims` says."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from polyop.errors import VmapError
from polyop.layers.rows import taken_apart
from polyop.layers.vmap.axes import Path, spread
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.ops.broadcasting import expand_to
from polyop.ops.views import expand_dims, moveaxis
from polyop.tensor.tensor import Tensor


class Asked(Protocol):
    """What of a vmap's options is read here."""

    @property
    def out_dims(self) -> Any:
        """The axes of the results."""


def collect(spec: Asked, out: Any, level: VmapLevel) -> Any:
    """Take a level off the results, outside of it.

    Raises:
        VmapError: `out_dims` does not fit the results.
    """
    leaves, build = taken_apart(out)
    places = list(spread(spec.out_dims, out, "", "out_dims"))
    done = [
        _result(leaf, dim, path, level) for leaf, (dim, path) in zip(leaves, places, strict=True)
    ]
    return build(done)


def _result(leaf: Any, dim: int | None, where: Path, level: VmapLevel) -> Any:
    if not isinstance(leaf, Tensor):
        if dim is not None:
            _refuse("a mapped function returns Tensors, and this result is none", where,
                    f"out_dims {dim}", f"{leaf!r:.80} ({type(leaf).__name__})",
                    "return a tensor, or give this result None in out_dims")  # fmt: skip
        return leaf
    value, axis = peel(leaf, level)
    if axis == dim:  # as nearly all are
        return value
    if dim is None:
        _refuse("this result differs from sample to sample, and out_dims says that it "
                "does not", where, "out_dims None", f"a batched tensor of shape {leaf.shape}",
                "give this result an axis in out_dims")  # fmt: skip
    rank = len(leaf.payload.shape) + 1
    if not -rank <= dim < rank:
        _refuse(
            "out_dims names an axis that the result does not have",
            where,
            f"out_dims {dim}",
            f"shape {leaf.shape} and the batch",
            f"give an axis from {-rank} to {rank - 1}",
        )
    if axis is None:
        return _repeated(value, dim % rank, level.batch_size)
    return value if axis == dim % rank else moveaxis(value, axis, dim % rank)


def _repeated(value: Tensor, axis: int, size: Any) -> Tensor:
    """Give memory of its own to each sample of a result that does not depend on the sample."""
    shape = list(value.shape)
    shape.insert(axis, size)
    made: Tensor = expand_to(expand_dims(value, axis), shape)
    return made


def _refuse(problem: str, where: Path, declared: object, seen: object, fix: str) -> NoReturn:
    argument = str(where) or "the result"
    raise VmapError(problem, argument=argument, declared=declared, seen=seen, fix=fix)

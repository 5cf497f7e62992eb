"""Operators that write their arguments, inside vmap.

A written argument must hold a value of its own for each sample. The memory is
the caller's: axes are lined up on new tensors that view it, never by moving
the axes of a tensor that somebody else holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bind import bump_in, dispatch
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import VmapError
from polyop.layers.vmap.batch import VmapLevel, dims_in, peel_all
from polyop.layers.vmap.loop import join, run_loop, sample
from polyop.layers.vmap.pointwise import front, line_up
from polyop.layers.vmap.rules import run_rule, wrap_results
from polyop.ops.inplace import INPLACE_TWINS, copy_
from polyop.tensor.tensor import Tensor
from polyop import tree


def written(op: OpOverload) -> list[int]:
    """Give the positions of written arguments."""
    return [i for i, a in enumerate(op._schema.arguments) if a.is_write]


def check_written(op: OpOverload, values: Sequence[Any], dims: Sequence[Any]) -> None:
    """Refuse to write several samples into one place.

    Raises:
        VmapError: a written argument is not batched while another is.
    """
    for i in written(op):
        tensors = [t for t in tree.leaves(values[i]) if isinstance(t, Tensor)]
        if len(dims_in(dims[i])) < len(tensors) and dims_in(list(dims)):
            name = op._schema.arguments[i].name
            raise VmapError(
                f"{op.name()} writes argument {name!r}, which is the same for all samples, "
                "while another argument differs from sample to sample",
                op=op._schema,
                argument=f"{name} (position {i})",
                declared="written, so batched",
                seen="not batched",
                source=op.source,
                fix=f"give {name!r} a batch axis in in_dims, or use the operator that "
                "returns a new tensor",
            )
"""placeholder"""

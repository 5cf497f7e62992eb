"""An error of an author's kernel is told whose kernel it is, and for which library it ran.

A framework calls kernels from its own depths, and the error that comes out is the author's: its
type and text are what callers wait for. So what a reader needs beside them is a note.
"""

from __future__ import annotations

from polyop.dispatch.bits import NUMPY
from polyop.dispatch.entry import first_kernel
from polyop.dispatch.operator import OpOverload
from polyop.layers.rule_notes import add_once

#: What libraries call themselves.
NAMES = {"torch": "PyTorch", "jax": "JAX", "dask": "Dask", "cupy": "CuPy"}


def told(error: Exception, op: OpOverload, library: str, source: object = "") -> None:
    """Add a note to an error: operator, place of its kernel, library; once for each operator.

    Args:
        error: what a kernel raised; one of ours that names the operator needs no note.
        op: the operator.
        library: whose arrays it was called with.
        source: where its kernel is written; else that for NumPy's arrays.
    """
    schema, place = str(op._schema), source or _place_of(op)
    rest = f"written at {place}, for arrays of {NAMES.get(library, library)}"
    add_once(error, schema, f"in the kernel of {schema}, ", rest)


def _place_of(op: OpOverload) -> object:
    kernel = first_kernel(op, NUMPY) if op.alive else None
    return op.source if kernel is None else kernel.source

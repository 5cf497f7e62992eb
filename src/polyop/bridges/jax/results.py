"""What results are, before and after the kernel: metas by the fake rule, arrays by the kernel."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from polyop import tree
from polyop.bridges.jax.frames import JAX, MOST, Frame
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import (
    DynamicOutputShapeError,
    KernelError,
    MetadataMismatchError,
    MissingFakeError,
    ReturnError,
    UsageError,
)
from polyop.layers.fake.handlers import plan_of
from polyop.layers.fake.mode import FakeTensorMode
from polyop.payloads.exchange import to_numpy
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_array, of_meta

Arrays = list["np.ndarray[Any, Any]"]


def outline(frame: Frame, facts: Sequence[Any]) -> tuple[list[Meta], Any]:
    """Give the metas of the results in a row, and how the results lie.

    Args:
        frame: of the call.
        facts: what has the shape and dtype of each operand.

    Raises:
        MissingFakeError: the operator has no fake rule.
        DynamicOutputShapeError: a size depends on data.
        ReturnError: a result is no tensor.
    """
    key = tuple([(tuple(x.shape), x.dtype) for x in facts])
    found: tuple[list[Meta], Any] | None = frame.described.get(key)
    if found is None:
        found = _outline(frame, key)
        if len(frame.described) >= MOST:
            frame.described.clear()
        frame.described[key] = found
    return found


def _outline(frame: Frame, facts: Sequence[Any]) -> tuple[list[Meta], Any]:
    op = frame.op
    plan = plan_of(op)
    if plan is None:
        op.missing("fake", MissingFakeError)
    if not all(n.__class__ is int for shape, _ in facts for n in shape):
        _symbolic(op, [shape for shape, _ in facts])
    space = FakeTensorMode().space
    values = frame.values(of_meta(space.meta(shape, dtype)) for shape, dtype in facts)
    try:
        made = run_under(PLAIN, plan.run, space, values)
    except DynamicOutputShapeError as error:
        raise DynamicOutputShapeError(
            f"a size of the result of {op.name()} depends on data, and JAX compiles for sizes that "
            "are known",
            op=op._schema,
            source=op.rule_source("fake"),
            fix="call it outside of jax.jit, vmap and scan, or write an operator whose result is "
            "padded to a size that is known",
        ) from error
    leaves, spec = tree.flatten(made)
    if any(leaf.__class__ is not Meta for leaf in leaves):
        raise ReturnError(
            f"{op.name()} returns something that is no tensor, and JAX traces arrays alone",
            op=op._schema,
            declared=str(op._schema).partition(" -> ")[2],
            source=op.source,
            fix="call it outside of JAX's transformations, or return a tensor without axes",
        )
    return leaves, spec


def _symbolic(op: OpOverload, shapes: Sequence[Any]) -> NoReturn:
    raise UsageError(
        f"{op.name()} gets a symbolic size of JAX",
        op=op._schema,
        declared="sizes that are known when JAX compiles",
        seen=", ".join(map(str, shapes)),
        fix="export the program for sizes that are numbers",
    )


def canonical(dtype: Any) -> Any:
    """Give the dtype that JAX has in the place of one."""
    return JAX.canonical(dtype)


# -- the kernel -----------------------------------------------------------------------------


def run_kernel(frame: Frame, inputs: Sequence[np.ndarray[Any, Any]]) -> Arrays:
    """Run the kernel on NumPy's arrays, which it must not write; give arrays of their own memory.

    Raises:
        MetadataMismatchError: a result is not as the fake rule says.
    """
    out = run_under(PLAIN, frame.run, map(of_array, inputs))
    tensors = [out] if out.__class__ is Tensor else tree.leaves(out)
    made = [_own(frame, t, inputs) for t in tensors]
    try:
        wanted, _ = outline(frame, inputs)
    except (MissingFakeError, DynamicOutputShapeError):
        return made  # only code that is not compiled comes here: results are what they are
    if len(made) != len(wanted):
        _differs(frame, "the number of results", len(wanted), len(made))
    for i, (array, meta) in enumerate(zip(made, wanted, strict=True)):
        if array.shape != meta.shape:
            _differs(frame, f"the shape of result {i}", meta.shape, array.shape)
        if array.dtype != meta.dtype and canonical(array.dtype) != canonical(meta.dtype):
            _differs(frame, f"the dtype of result {i}", meta.dtype, array.dtype)
    return made


def _own(frame: Frame, t: Any, inputs: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Give a result's array; views of arguments become arrays of their own."""
    if not isinstance(t, Tensor) or t.payload.__class__ is not np.ndarray:
        raise ReturnError(
            f"the kernel of {frame.op.name()} gave something else than a tensor with data",
            op=frame.op._schema,
            seen=f"{type(t).__name__} {t!r:.80}",
            source=frame.op.source,
            fix="return tensors of NumPy's arrays: polyop.from_numpy(result)",
        )
    found: np.ndarray[Any, Any] = t.payload
    if any(
        found is x or (found.base is not None and np.may_share_memory(found, x)) for x in inputs
    ):
        found = found.copy()
    return found if found.flags.c_contiguous else np.ascontiguousarray(found).reshape(found.shape)


def _differs(frame: Frame, what: str, declared: object, seen: object) -> NoReturn:
    raise MetadataMismatchError(
        f"{what} of {frame.op.name()} is not what its fake rule says",
        op=frame.op._schema,
        declared=declared,
        seen=seen,
        source=frame.op.rule_source("fake"),
        fix="let the fake rule and the kernel give the same shapes and dtypes",
    )


def in_program(frame: Frame, *inputs: Any) -> tuple[Any, ...]:
    """Run the kernel for a compiled program, whose memory the inputs are until it returns.

    Raises:
        KernelError: the kernel keeps an input.
    """
    given = [_read_only(np.asarray(x)) for x in inputs]
    counts = [sys.getrefcount(x) for x in given]
    made = tuple([_canonical(x) for x in run_kernel(frame, given)])
    if counts != [sys.getrefcount(x) for x in given]:
        gc.collect()  # what only waits to be collected keeps nothing
        if counts != [sys.getrefcount(x) for x in given]:
            _keeps(frame)
    return made


#: Up to so many bytes a copy costs less than to prove that a result is no view of the argument.
SMALL = 1 << 12


def _read_only(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if x.nbytes <= SMALL:
        x = x.copy()
    x.flags.writeable = False
    return x


def _canonical(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.astype(canonical(x.dtype), copy=False) if x.itemsize >= 8 else x


def _keeps(frame: Frame) -> NoReturn:
    raise KernelError(
        f"the kernel of {frame.op.name()} keeps an argument, or a view of one, after its return",
        op=frame.op._schema,
        declared="memory of a compiled program of JAX, which is used again",
        source=frame.op.source,
        fix="keep a copy: x.clone(), or x.numpy().copy()",
    )


def in_eager(frame: Frame, operands: Sequence[Any]) -> list[Any]:
    """Run the kernel at once, and give JAX's arrays."""
    made = run_kernel(frame, [_read_only(to_numpy(x, what=frame.op.name())) for x in operands])
    return [jax.numpy.asarray(x) for x in made]  # a copy: JAX shares memory only if it is asked to

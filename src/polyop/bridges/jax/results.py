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
from polyop.bridges.padded import is_paddable
from polyop.dispatch.bind import dispatch, payloads_in
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
from polyop.schema.base_values import Known
from polyop.symbolic.check import FOREIGN_FOLDS
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
        UsageError: the rule decides something by a symbolic size, which JAX cannot answer.
    """
    key = tuple([(tuple(x.shape), x.dtype) for x in facts])
    if any(n.__class__ is not int for shape, _ in key for n in shape):
        return symbolic_outline(frame, key)  # symbols of two programs cannot be compared
    known = frame.described  # before the rule is asked, which may change meanwhile
    found: tuple[list[Meta], Any] | None = known.get(key)
    if found is None:
        found = described(frame, key)
        if len(known) >= MOST:
            known.clear()
        known[key] = found
    return found


def described(frame: Frame, facts: Sequence[Any]) -> tuple[list[Meta], Any]:
    """Run the fake rule, or what the operator is made of, on tensors of these shapes and dtypes."""
    op = frame.op
    plan = plan_of(op)
    if plan is None and not op._can_decompose():
        op.missing("fake", MissingFakeError)
    space = FakeTensorMode().space
    values = frame.values(of_meta(space.meta(shape, dtype)) for shape, dtype in facts)
    try:
        if plan is None:
            made = payloads_in(run_under(PLAIN, dispatch, op, values))
        else:
            made = run_under(PLAIN, plan.run, space, values)
    except DynamicOutputShapeError as error:
        _refuse_dynamic(op, error)
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


def _refuse_dynamic(op: OpOverload, error: Exception) -> NoReturn:
    fix = "call it outside of jax.jit, vmap and scan"
    if is_paddable(op):
        fix += (
            ", or take its padded form, whose size is known: "
            f"polyop.library.padded({op.name()!r})(..., max=...)"
        )
    raise DynamicOutputShapeError(
        f"a size of the result of {op.name()} depends on data, and JAX compiles for sizes that "
        "are known",
        op=op._schema,
        source=op.rule_source("fake"),
        fix=fix,
    ) from error


def symbolic_outline(frame: Frame, facts: Sequence[Any]) -> tuple[list[Meta], Any]:
    """Run the fake rule on JAX's symbolic sizes."""
    op = frame.op
    _know_sizes(next(n for shape, _ in facts for n in shape if n.__class__ is not int))
    try:
        return described(frame, facts)
    except jax.errors.InconclusiveDimensionOperation as error:
        raise UsageError(
            f"the fake rule of {op.name()} decides something by a symbolic size, and JAX does not "
            "know the answer",
            op=op._schema,
            seen=f"{', '.join(str(shape) for shape, _ in facts)}: {error!s:.200}",
            source=op.rule_source("fake"),
            fix="say what is known of the sizes: jax.export.symbolic_shape('n', constraints="
            "['n >= 2']); or write the rule without branches, with polyop.sym_min and sym_max",
        ) from error


def _know_sizes(size: Any) -> None:
    """Let JAX's symbolic sizes be sizes to schemas."""
    if not isinstance(size, Known.sym_int):
        Known.sym_int = (*Known.sym_int, type(size))
        FOREIGN_FOLDS[type(size)] = {"max": jax.core.max_dim, "min": jax.core.min_dim}


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
    made = [_own(kernel_array(frame, t), inputs) for t in tensors]
    check_results(frame, inputs, made)
    return made


def check_results(frame: Frame, inputs: Sequence[Any], made: Arrays) -> None:
    """Refuse results that are not as the fake rule says, if it says something of them.

    Raises:
        MetadataMismatchError: one is not.
    """
    wanted = _expected(frame, inputs)
    if wanted is None:
        return  # only code that is not compiled comes here: results are what they are
    check_count(frame, len(wanted), len(made))
    for i, (array, meta) in enumerate(zip(made, wanted, strict=True)):
        if array.shape != meta.shape:
            differs(frame, f"the shape of result {i}", meta.shape, array.shape)
        if array.dtype != meta.dtype and canonical(array.dtype) != canonical(meta.dtype):
            differs(frame, f"the dtype of result {i}", meta.dtype, array.dtype)


def _expected(frame: Frame, inputs: Sequence[Any]) -> list[Meta] | None:
    try:
        return outline(frame, inputs)[0]
    except (MissingFakeError, DynamicOutputShapeError):
        return None


def kernel_array(frame: Frame, t: Any) -> np.ndarray[Any, Any]:
    """Give the array of what a kernel returned.

    Raises:
        ReturnError: it has none.
    """
    if isinstance(t, Tensor) and t.payload.__class__ is np.ndarray:
        found: np.ndarray[Any, Any] = t.payload
        return found
    raise ReturnError(
        f"the kernel of {frame.op.name()} gave something else than a tensor with data",
        op=frame.op._schema,
        seen=f"{type(t).__name__} {t!r:.80}",
        source=frame.op.source,
        fix="return tensors of NumPy's arrays: polyop.from_numpy(result)",
    )


def _own(found: np.ndarray[Any, Any], inputs: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Give a result's array; views of arguments become arrays of their own."""
    if any(
        found is x or (found.base is not None and np.may_share_memory(found, x)) for x in inputs
    ):
        found = found.copy()
    return found if found.flags.c_contiguous else np.ascontiguousarray(found).reshape(found.shape)


def check_count(frame: Frame, declared: int, seen: int) -> None:
    """Refuse a kernel that gives more or fewer results than its fake rule."""
    if declared != seen:
        differs(frame, "the number of results", declared, seen)


def differs(frame: Frame, what: str, declared: object, seen: object) -> NoReturn:
    """Refuse a result that is not what the fake rule says."""
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
    given = [own_if_small(np.asarray(x)) for x in inputs]
    counts = [sys.getrefcount(x) for x in given]
    made = tuple([_canonical(x) for x in run_kernel(frame, given)])
    if counts != [sys.getrefcount(x) for x in given]:
        gc.collect()  # what only waits to be collected keeps nothing
        if counts != [sys.getrefcount(x) for x in given]:
            keeps(frame)
    return made


#: Up to so many bytes a copy costs less than to prove that a result is no view of the argument.
SMALL = 1 << 12


def own_if_small(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give an array that a kernel cannot write, of memory of its own if there is not much."""
    if x.nbytes <= SMALL:
        x = x.copy()
    elif x.flags.writeable:
        x = x.view()
    x.flags.writeable = False
    return x


def _canonical(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.astype(canonical(x.dtype), copy=False) if x.itemsize >= 8 else x


def keeps(frame: Frame) -> NoReturn:
    """Refuse a kernel that keeps memory of a program."""
    raise KernelError(
        f"the kernel of {frame.op.name()} keeps an argument, or a view of one, after its return",
        op=frame.op._schema,
        declared="memory of a compiled program of JAX, which is used again",
        source=frame.op.source,
        fix="keep a copy: x.clone(), or x.numpy().copy()",
    )

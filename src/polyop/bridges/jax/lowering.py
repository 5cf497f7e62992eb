"""How a call stands in a program that JAX compiles: as a foreign function, else as a callback.

The foreign function is taken if what it relies on is there and a program of three elements is
right; then programs can be exported, too. Else JAX calls back into Python by its own means.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NoReturn

import jax
import numpy as np
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir

from polyop.bridges.jax import ffi
from polyop.bridges.jax.forms import text_of
from polyop.bridges.jax.frames import Frame
from polyop.bridges.jax.meshes import PIECE, may_be_cut, no_mesh
from polyop.bridges.jax.results import canonical, in_program, outline
from polyop.errors import PolyopWarning, ProgramFileError, UsageError
from polyop.schema.tags import Tag
from polyop.warn import warn_once


def lower(ctx: Any, *operands: Any, frame: Frame, cut: Any = None) -> Any:
    """Write a call into a program.

    Args:
        ctx: JAX's.
        operands: of the call.
        frame: of the call.
        cut: the call as a function that XLA may cut, or None.

    Raises:
        UsageError: the program is for another process, which could not call it.
    """
    why = _why_not(ctx)
    text = ""
    if not why:
        try:
            text = text_of(frame, wide=_is_wide())
        except ProgramFileError as error:
            why = f"{error.problem}"
    if not why:
        if cut is not None and may_be_cut(ctx) and not _is_exported(ctx):
            return mlir.lower_fun(jaxpr_as_fun(cut), multiple_results=True)(ctx, *operands)
        return _foreign(ctx, operands, frame, text)
    if _is_exported(ctx):
        _refuse_export(frame, why)
    return _called_back(ctx, operands, frame)


def _has_effect(frame: Frame) -> bool:
    # Equal calls with equal results may be merged; those of random numbers must not be.
    return Tag.nondeterministic_seeded in frame.op.tags


def _foreign(ctx: Any, operands: Sequence[Any], frame: Frame, text: str) -> Any:
    rule = jax.ffi.ffi_lowering(ffi.TARGET, has_side_effect=_has_effect(frame))
    return rule(ctx, *operands, call=text)


def _foreign_piece(ctx: Any, *operands: Any, frame: Frame) -> Any:
    return _foreign(ctx, operands, frame, text_of(frame, wide=_is_wide()))


def _outline_piece(*operands: Any, frame: Frame) -> list[Any]:
    metas, _ = outline(frame, operands)
    return [jax.core.ShapedArray(m.shape, canonical(m.dtype)) for m in metas]


PIECE.def_abstract_eval(_outline_piece)
mlir.register_lowering(PIECE, _foreign_piece)


def _is_wide() -> bool:
    return bool(canonical(np.dtype(np.float64)) == np.float64)


def _called_back(ctx: Any, operands: Sequence[Any], frame: Frame) -> Any:
    emit = getattr(mlir, "emit_python_callback", None)
    if emit is None:
        return mlir.lower_fun(partial(_by_pure_callback, frame), multiple_results=True)(
            ctx, *operands
        )
    found, _, _ = emit(
        ctx,
        partial(in_program, frame),
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=_has_effect(frame),
        returns_token=False,
    )
    return found


def _by_pure_callback(frame: Frame, *operands: Any) -> Any:
    outs = jax.eval_shape(lambda *xs: xs, *operands)
    return jax.pure_callback(partial(in_program, frame), outs, *operands)


# -- which way ----------------------------------------------------------------------------------


def _is_exported(ctx: Any) -> bool:
    parameters = getattr(ctx.module_context, "lowering_parameters", None)
    return bool(getattr(parameters, "for_export", False))


def _why_not(ctx: Any) -> str:
    """Say why a call cannot be a foreign function; an empty text if it can."""
    platforms = tuple(getattr(ctx.module_context, "platforms", ("cpu",)))
    if platforms != ("cpu",):
        return f"the program is for {', '.join(platforms)}, and kernels run on the CPU"
    odd = [x.dtype for x in (*ctx.avals_in, *ctx.avals_out) if x.dtype not in ffi.KNOWN]
    if odd:
        return f"it has numbers of the dtype {odd[0]}"
    return tested()


@cache
def tested() -> str:
    """Say why the foreign function is not used; an empty text if it works."""
    why = ffi.unreadable() or _tried()
    if why:
        warn_once(
            PolyopWarning,
            f"compiled programs of JAX call operators by callbacks, and cannot be exported: {why}",
            key="polyop ffi",
        )
    return why


def _tried() -> str:
    """Say what goes wrong in a program of three elements, if anything does."""
    p: Any = Primitive("polyop test")
    p.multiple_results = True
    p.def_abstract_eval(lambda x: [jax.core.ShapedArray(x.shape, x.dtype)] * 2)
    mlir.register_lowering(p, lambda ctx, x: jax.ffi.ffi_lowering(ffi.TARGET)(ctx, x, call=""))
    try:
        # What is traced around this may be about a mesh of devices, and this is not.
        with jax.ensure_compile_time_eval(), no_mesh():
            found = jax.jit(lambda x: p.bind(x + 1))(np.arange(3, dtype=np.int32))
            right = [np.asarray(x).tolist() for x in found] == [[2, 4, 6], [3, 6, 9]]
    except Exception as error:
        return f"a test of it failed: {type(error).__name__}: {error!s:.200}"
    return "" if right else "a test of it gave a wrong result"


def _refuse_export(frame: Frame, why: str) -> NoReturn:
    raise UsageError(
        f"{frame.op.name()} calls back into this process, and jax.export writes programs for "
        "others",
        op=frame.op._schema,
        seen=why,
        source=frame.op.source,
        fix="export a function without it, or the whole program with polyop.export",
    )

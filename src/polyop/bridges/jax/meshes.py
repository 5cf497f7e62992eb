"""A call over several devices: what varies inside of `jax.shard_map`, and what may be cut in `jit`.

Inside of `shard_map` each device calls with its own piece, and types say along which axes of the
mesh a value varies. Under `jit` XLA cuts arrays: along the loops of an index signature it may, and
along all axes where the operator is pointwise; of anything else it would gather the whole on every
device, which is refused with the way out named. Where types say how arrays are cut, since the axes
of their mesh are Explicit, a call becomes a `shard_map` of itself over the pieces of its loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import jax
import jax.experimental.custom_partitioning
import numpy as np
from jax.extend.core import Primitive
from jax.sharding import AxisType, NamedSharding

from polyop.bridges.jax.frames import Frame, shaped
from polyop.bridges.jax.results import outline
from polyop.dispatch.index_cuts import Sharding, name_axes
from polyop.dispatch.index_signature import index_of
from polyop.errors import UsageError
from polyop.schema.tags import Tag

#: JAX's own, which have no types.
custom_partitioning: Any = jax.experimental.custom_partitioning.custom_partitioning
Spec: Any = jax.sharding.PartitionSpec
reshard: Any = getattr(jax, "reshard", None) or getattr(jax.sharding, "reshard", None)
shard_map: Any = jax.shard_map

# -- inside of shard_map ------------------------------------------------------------------------


def varying(x: Any) -> frozenset[Any]:
    """Give the axes of the mesh along which a value, or a type, varies."""
    kind = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    found = getattr(kind, "manual_axis_type", None)
    axes: frozenset[Any] = getattr(kind, "vma", frozenset()) if found is None else found.varying
    return axes


def aligned(operands: Sequence[Any]) -> list[Any]:
    """Let all operands vary along the same axes, as JAX's own functions do.

    The gradient of what varied less is then summed over the rest by JAX.
    """
    if not any(isinstance(x, jax.core.Tracer) for x in operands):
        return list(operands)
    axes = frozenset[Any]().union(*map(varying, operands))
    return [raised(x, axes) for x in operands] if axes else list(operands)


def raised(x: Any, axes: frozenset[Any]) -> Any:
    """Let a value vary along more axes."""
    missing = axes - varying(x)
    return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x


def typed(frame: Frame, fact: Any, operands: Sequence[Any]) -> Any:
    """Give the type of a result, which varies as the operands do.

    Raises:
        UsageError: by its type, an operand lies over several devices.
    """
    shape, dtype = fact
    for x in operands:
        if any(x.sharding.spec):
            _refuse_cut(frame, [x.sharding for x in operands])
        if not x.sharding.mesh.empty:
            whole = NamedSharding(x.sharding.mesh, Spec(*[None] * len(shape)))
            return x.update(shape=shape, dtype=dtype, weak_type=False, sharding=whole)
    return jax.core.ShapedArray(shape, dtype)


def probe(frame: Frame, fact: Any, like: Sequence[Any]) -> Any:
    """Give what stands for a value that varies as others do."""
    kind = typed(frame, fact, [jax.typeof(x) for x in like])
    if kind.sharding.mesh.empty:
        return shaped(*fact)
    named = {n: getattr(kind, n) for n in ("manual_axis_type", "vma") if hasattr(kind, n)}
    return shaped(*fact, sharding=kind.sharding, **named)


def no_mesh() -> AbstractContextManager[Any]:
    """Give a context in which no mesh is set, whatever is traced around it."""
    use: Any = getattr(jax.sharding, "use_abstract_mesh", None)
    return nullcontext() if use is None else use(jax.sharding.AbstractMesh((), ()))


# -- where types say it -------------------------------------------------------------------------

Bind = Callable[[Sequence[Any]], Any]


def spread(frame: Frame, operands: Sequence[Any], bind: Bind) -> list[Any] | None:
    """Give the results of a call whose operands are cut by their types; None if none of them is.

    Args:
        frame: of the call.
        operands: of the call.
        bind: calls with the pieces of the operands.

    Raises:
        UsageError: nothing says how the call may be cut.
    """
    if jax.device_count() == 1 or not any(isinstance(x, jax.core.Tracer) for x in operands):
        return None
    kinds = [jax.typeof(x) for x in operands]
    if not any(any(k.sharding.spec) for k in kinds):
        return None
    axes, known = _axes_of(frame, kinds)
    if not known:
        _refuse_cut(frame, [k.sharding for k in kinds])
    mesh = next(k.sharding.mesh for k in kinds if any(k.sharding.spec))
    cuts = _chosen(axes.loops, zip(axes.inputs, [k.sharding for k in kinds], strict=True))
    given, wanted = (_specs(side, cuts) for side in (axes.inputs, axes.outputs))
    laid = [reshard(x, NamedSharding(mesh, s)) for x, s in zip(operands, given, strict=True)]
    used = {name for entry in cuts.values() for name in _places(entry)}
    if not used:  # only named axes were cut, and those are whole now
        return list(bind(laid))
    call = shard_map(
        lambda *pieces: tuple(bind(pieces)),
        mesh=mesh, in_specs=tuple(given), out_specs=tuple(wanted), axis_names=used,
    )  # fmt: skip
    return list(call(*laid))


def _specs(side: Sequence[Any], cuts: dict[str, Any]) -> list[Any]:
    return [Spec(*[cuts.get(name) for name in group]) for group in side]


def _axes_of(frame: Frame, kinds: Sequence[Any]) -> tuple[Sharding, bool]:
    metas, _ = outline(frame, kinds)
    return _axes(frame, [k.shape for k in kinds], [m.shape for m in metas])


# -- under jit ----------------------------------------------------------------------------------

#: A call with pieces of arrays; what it is in a program, `lowering.py` says.
PIECE: Any = Primitive("polyop piece")
PIECE.multiple_results = True


def cut_of(frame: Frame, operands: Sequence[Any]) -> Any:
    """Give a call as a function that XLA may cut; None where it cannot come to that.

    JAX looks for such functions in what it traced, so one has to be there before it is needed.
    """
    if jax.device_count() == 1 or not any(isinstance(x, jax.core.Tracer) for x in operands):
        return None
    kinds = [jax.typeof(x) for x in operands]
    sizes = [n for k in kinds for n in k.shape]
    inside = any(AxisType.Manual in k.sharding.mesh.axis_types for k in kinds)
    if inside or not all(n.__class__ is int for n in sizes):
        return None
    key = "cut", *[(k.shape, k.dtype) for k in kinds]
    found = frame.described.get(key)
    if found is None:
        axes, known = _axes_of(frame, kinds)
        call = custom_partitioning(partial(_call, frame))
        call.def_partition(
            partial(_partition, frame, axes, known),
            sharding_rule=str(axes),
            need_replication_factors=axes.whole if known else (),
        )
        with jax.ensure_compile_time_eval():
            facts = [shaped(k.shape, k.dtype) for k in kinds]
            found = frame.described[key] = jax.make_jaxpr(call)(*facts)
    return found


def _call(frame: Frame, *pieces: Any) -> tuple[Any, ...]:
    return tuple(PIECE.bind(*pieces, frame=frame))


def may_be_cut(ctx: Any) -> bool:
    """Tell whether XLA may cut the arrays of a program, for devices that are known."""
    context = ctx.module_context.axis_context
    # Inside of shard_map this says no number: there each device has its piece already.
    count = getattr(context, "num_devices", 1)
    return bool(count > 1 and getattr(context, "device_assignment", None) is not None)


def _axes(frame: Frame, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Sharding, bool]:
    """Name the axes of operands and results; tell whether those of one name are known to meet."""
    index = index_of(frame.op)
    if index is not None and len(index.inputs) == len(inputs):
        return index.sharding(*inputs), True
    if index is None and Tag.pointwise in frame.op.tags and _broadcast(inputs, outputs):
        return name_axes([()] * len(inputs), [()] * len(outputs), inputs), True
    groups = [
        tuple(tuple(f"{mark}{i}_{j}" for j in range(len(s))) for i, s in enumerate(shapes))
        for mark, shapes in (("x", inputs), ("y", outputs))
    ]
    return Sharding(groups[0], groups[1], ()), False


def _broadcast(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Tell whether each result has the shape to which the operands are repeated."""
    try:
        return bool(inputs) and {np.broadcast_shapes(*inputs)} == set(outputs)
    except ValueError:
        return False


def _partition(  # noqa: PLR0917 - what JAX gives, behind what is known of the call
    frame: Frame, axes: Sharding, known: bool, mesh: Any, given: Any, wanted: Any
) -> Any:
    """Say how the pieces of a call are computed.

    Raises:
        UsageError: an operand is cut, and nothing says that it may be.
    """
    wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    inputs = [x.sharding for x in given]
    if not known and not all(s.is_fully_replicated for s in inputs):
        _refuse_cut(frame, inputs)
    groups = [*axes.outputs, *axes.inputs]
    cuts = _chosen(axes.loops, zip(groups, [*[y.sharding for y in wanted], *inputs], strict=True))
    made = [NamedSharding(mesh, spec) for spec in _specs(groups, cuts)]
    n = len(axes.outputs)
    return mesh, partial(_call, frame), tuple(made[:n]), tuple(made[n:])


def _chosen(loops: Sequence[str], laid: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Choose for each loop along which axes of the mesh it is cut: those that it has somewhere."""
    cuts: dict[str, Any] = {}
    used: set[str] = set()
    for group, sharding in laid:
        spec = getattr(sharding, "spec", None) or ()
        for name, entry in zip(group, spec, strict=False):
            places = _places(entry)
            if name in loops and entry is not None and name not in cuts and not places & used:
                cuts[name] = entry
                used |= places
    return cuts


def _places(entry: Any) -> set[Any]:
    return set(entry) if isinstance(entry, tuple) else {entry}


def _refuse_cut(frame: Frame, shardings: Sequence[Any]) -> NoReturn:
    specs = [str(getattr(s, "spec", s)) for s in shardings]
    raise UsageError(
        f"{frame.op.name()} gets arrays that lie over several devices, and nothing says how it "
        "may be cut: each device would gather the whole, and compute all of it",
        op=frame.op._schema,
        seen=", ".join(specs),
        source=frame.op.source,
        fix="say which axes meet, polyop.library.register_index(op, '(m,n),(n,k)->(m,k)'), or tag "
        "the operator pointwise; or call it inside of jax.shard_map, where each device has its "
        "piece; or lay its arguments whole: jax.sharding.reshard(x, NamedSharding(mesh, P()))",
    )

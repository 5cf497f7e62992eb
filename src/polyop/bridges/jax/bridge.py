"""Calls of an operator with JAX's arrays, or with tensors of ours over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import jax
import numpy as np

from polyop import tree
from polyop.bridges.held import linked, written
from polyop.bridges.jax import forms, programs
from polyop.bridges.jax.contexts import array_of
from polyop.bridges.jax.eager import remember
from polyop.bridges.jax.frames import FRAMES, JAX, LOCK, is_foreign, is_tensor, split, tensor_over
from polyop.bridges.jax.primitives import Bridge
from polyop.bridges.jax.references import refuse_write, write_references
from polyop.dispatch.context import word
from polyop.dispatch.operator import OpOverload
from polyop.errors import MutationError, UsageError
from polyop.layers.fake.handlers import plan_of
from polyop.layers.payloads.authors import call_held
from polyop.payloads.held import Held
from polyop.payloads.refused import check_argument
from polyop.schema.types import TENSOR, DictType, Type
from polyop.tensor.foreign import is_reference
from polyop.tensor.tensor import Tensor

_BRIDGES: WeakKeyDictionary[OpOverload, Bridge] = WeakKeyDictionary()


def bridge_of(op: OpOverload) -> Bridge:
    """Give the bridge of an operator, made when it is first called with JAX's arrays.

    Raises:
        OperatorGoneError: it was removed.
    """
    found = _BRIDGES.get(op)
    if found is not None:
        return found
    if not op.alive:
        op.gone()
    with LOCK:
        return _BRIDGES.setdefault(op, Bridge(op))


def define(op: OpOverload) -> None:
    """Do nothing yet: a primitive is known to nobody but who binds it."""


def remove(op: OpOverload) -> None:
    """Forget an operator's primitive; programs that JAX compiled with it raise when they call."""
    with LOCK:
        _BRIDGES.pop(op, None)
        FRAMES.pop(op, None)
        forms.forget(op)
        programs.forget(op)


def takes(op: OpOverload, values: Sequence[Any]) -> bool:
    """Tell whether a call goes over JAX's primitive; if not, data is converted.

    Raises:
        UsageError: it has an effect, and JAX traces it.
    """
    leaves = tree.leaves(list(values))
    if any(map(is_reference, leaves)):
        return True
    tensors = any(isinstance(leaf, Tensor) for leaf in leaves)
    odd = op._schema.is_mutable if tensors else False
    if not odd and not bridge_of(op).is_odd and not (tensors and bridge_of(op).views):
        return True
    arrays = [leaf.payload.array if _is_held(leaf) else leaf for leaf in leaves]
    traced = any(isinstance(x, jax.core.Tracer) for x in arrays)
    if op.rule("effect") is not None:
        if traced:
            _refuse_effect(op)
        return False
    if tensors:
        return traced
    known = bridge_of(op).holds_tensors or (_gives_arrays(op) and plan_of(op) is not None)
    return traced or known or op._schema.is_mutable


def _gives_arrays(op: OpOverload) -> bool:
    return all(_is_of_arrays(r.type) for r in op._schema.returns)


def _is_of_arrays(kind: Type) -> bool:
    """Tell whether tensors are all that values of a type hold, records too."""
    parts = (kind.value,) if isinstance(kind, DictType) else kind.parts
    return all(map(_is_of_arrays, parts)) if parts else kind == TENSOR


def _refuse_effect(op: OpOverload) -> NoReturn:
    raise UsageError(
        f"{op.name()} has an effect, and JAX would leave out, merge and move its calls",
        op=op._schema,
        source=op.rule_source("effect"),
        fix="call it outside of JAX's transformations, or let jax.experimental.io_callback with "
        "ordered=True call it on NumPy's arrays",
    )


def call(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with JAX's arrays; its results are such arrays.

    Raises:
        ArgumentError: it writes an argument, which JAX's arrays never let happen; or it gets a
            reference that it does not write.
    """
    if any(map(is_reference, tree.leaves(list(values)))):
        return write_references(op, values)
    if op._schema.is_mutable:
        refuse_write(op, values)
    if word():  # someone watches: through the layers, down to `call_tensors`
        return call_held(op, values)
    operands, frame = split(op, values, is_foreign)
    for x in operands:
        if not isinstance(x.dtype, np.dtype):
            _refuse_dtype(op, values)
    bridge = bridge_of(op)
    outs, spec = bridge.bind(operands, frame)
    if not bridge.is_odd:
        remember(op, values, bridge.primitive.bind, bridge.spec, call)
    return tree.unflatten(spec, outs)


def _refuse_dtype(op: OpOverload, values: Sequence[Any]) -> None:
    """Refuse arrays of a dtype that is JAX's own, as keys of random numbers have."""
    for argument, value in zip(op._schema.arguments, values, strict=True):
        for x in tree.leaves(value):
            if isinstance(x, jax.Array):
                check_argument(op, argument.name, JAX, x)


def call_tensors(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with tensors of ours over JAX's arrays; its results are such tensors."""
    if op._schema.is_mutable:
        return _written(op, values)
    tensors, frame = split(op, values, is_tensor)
    outs, spec = bridge_of(op).bind([array_of(op, "kernel", t) for t in tensors], frame)
    made = tree.unflatten(spec, [tensor_over(x) for x in outs])
    return linked(op, values, made) if bridge_of(op).views else made


def _is_held(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.payload.__class__ is Held


# -- writes, and views of what is traced ------------------------------------------------------


def _written(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call the functional twin, and let each written tensor have its new value."""
    places = [i for i, a in enumerate(op._schema.arguments) if a.is_write]
    targets = [t for i in places for t in tree.leaves(values[i]) if isinstance(t, Tensor)]
    for t in targets:
        if t.payload.__class__ is not Held:
            _refuse_numpy(op, t)
    return written(op, values, call_tensors)


def _refuse_numpy(op: OpOverload, t: Tensor) -> None:
    raise MutationError(
        f"{op.name()} would write what JAX traces into an array of NumPy",
        op=op._schema,
        seen=repr(t)[:120],
        fix="make the tensor that is written one over JAX: polyop.from_array(jnp.asarray(x))",
    )

"""An author's `ctx` in two pieces: arrays, which JAX carries, and all else, which is static."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from polyop import tree
from polyop.bridges.jax.frames import ARRAY, JAX, frozen, tensor_over
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError
from polyop.layers.autograd.context import Context
from polyop.payloads.held import Held
from polyop.payloads.libraries import library_of
from polyop.tensor.tensor import Tensor


class JaxContext(Context):
    """The `ctx` of both modes: what is kept for each is kept apart."""

    _forward: Sequence[Any] | None = None

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`."""
        self._forward = tensors


#: What a context has of its own that is about a graph of ours.
_OF_GRAPHS = frozenset({"_versions", "_names", "_ids", "_without", "_dirty", "_node"})
#: What stands for an array that the author kept as JAX's own.
BARE = object()


class Kept(NamedTuple):
    """The static piece of a context.

    Attributes:
        spec: how the leaves of its attributes lie.
        statics: the leaves, `ARRAY` or `BARE` for what JAX carries.
    """

    spec: Any
    statics: tuple[Any, ...]

    @property
    def key(self) -> Any:
        """What is equal exactly for contexts that mean the same."""
        return self.spec, *[s if s is BARE else frozen(s) for s in self.statics]


def taken_apart(op: OpOverload, ctx: JaxContext) -> tuple[list[Any], Kept]:
    """Give the arrays of a context, and the rest.

    Raises:
        AutogradError: a tensor in it has no array of JAX, nor one of NumPy.
    """
    attributes = {k: v for k, v in vars(ctx).items() if k not in _OF_GRAPHS}
    leaves, spec = tree.flatten(attributes)
    arrays: list[Any] = []
    statics: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            arrays.append(array_of(op, "backward", leaf))
            statics.append(ARRAY)
        elif library_of(leaf) is JAX:
            arrays.append(leaf)
            statics.append(BARE)
        else:
            statics.append(leaf)
    return arrays, Kept(spec, tuple(statics))


def put_together(kept: Kept, arrays: Iterable[Any], *, forward: bool = False) -> JaxContext:
    """Give the context again, for backward or for `jvp`."""
    rest = iter(arrays)
    leaves = [
        tensor_over(next(rest)) if s is ARRAY else next(rest) if s is BARE else s
        for s in kept.statics
    ]
    attributes = tree.unflatten(kept.spec, leaves)
    saved = attributes.pop("_saved", ())
    for_jvp = attributes.pop("_forward", None)
    ctx = JaxContext()
    vars(ctx).update(attributes)
    ctx.save_for_backward(*(for_jvp if forward and for_jvp is not None else saved))
    return ctx


def array_of(op: OpOverload, what: str, t: Any) -> Any:
    """Give JAX's array of a tensor that a rule made.

    Raises:
        AutogradError: it has none.
    """
    payload = getattr(t, "payload", None)
    if payload.__class__ is Held and payload.library is JAX:
        return payload.array
    if payload.__class__ is np.ndarray:
        return jax.numpy.asarray(payload)
    raise AutogradError(
        f"the {what} rule of {op.name()} works with something that is no tensor over JAX's arrays",
        op=op._schema,
        declared="tensors made of the arguments, by operators",
        seen=f"{type(t).__name__} {t!r:.100}",
        source=op.rule_source(what),
        fix="compute it from the arguments, with operators",
    )

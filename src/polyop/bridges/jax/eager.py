"""Calls outside of compiled programs: the kernel runs at once, on NumPy's views of JAX's arrays.

NOTE [Arrays for JAX]
What a kernel gives becomes JAX's by `jax.numpy.asarray`, which copies and costs half of a small
call. Quicker is what `asarray` itself ends in, a function without a promise: it is taken where it
is there and passes a test, for arrays that nobody else holds, since JAX may then use the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from sys import getrefcount
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.xla_client
import numpy as np
from jax.sharding import SingleDeviceSharding

from polyop import tree
from polyop.bridges.jax.frames import MOST, Frame, frozen, split
from polyop.bridges.jax.results import canonical, check_results, kernel_array, own_if_small
from polyop.dispatch.bind import convert_argument
from polyop.dispatch.context import PLAIN, run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.payloads.exchange import to_numpy
from polyop.schema.model import MISSING
from polyop.tensor.tensor import Tensor, of_array

with jax.ensure_compile_time_eval():  # this may be read while JAX traces
    #: The class of JAX's arrays that have data.
    ARRAY_CLASS: Any = type(jnp.zeros(0))
#: Gives arrays to JAX; None where it is not there.
PUT: Any = getattr(jaxlib.xla_client, "batched_device_put", None)


def run(*operands: Any, frame: Frame) -> list[Any]:
    """Run the kernel at once, and give JAX's arrays.

    Raises:
        MetadataMismatchError: a result is not as the fake rule says.
    """
    given = [_viewed(x, frame) for x in operands]
    made = run_under(PLAIN, frame.run, map(of_array, given))
    leaves = [made] if made.__class__ is Tensor else tree.leaves(made)
    del made  # else it holds each result too
    arrays = [_owned(leaves, i, frame) for i in range(len(leaves))]
    check_results(frame, given, arrays)
    place = _place_of(operands)
    if place is None or not puts():
        return [jnp.asarray(x) for x in arrays]
    return [_put(x, *place) for x in arrays]


def _viewed(x: Any, frame: Frame) -> np.ndarray[Any, Any]:
    """Give data that a kernel cannot write."""
    if x.__class__ is ARRAY_CLASS and _is_on_cpu(x.sharding):
        return own_if_small(np.asarray(x))
    return own_if_small(to_numpy(x, what=frame.op.name()))


def _owned(leaves: list[Any], i: int, frame: Frame) -> np.ndarray[Any, Any]:
    """Take the array of a result, copied if anybody else has it."""
    found = kernel_array(frame, leaves[i])
    leaves[i] = None
    # Held here, and by the call that counts.
    if found.base is not None or getrefcount(found) > 2 or not found.flags.c_contiguous:
        found = np.array(found, order="C")
    return found


# -- arrays for JAX -----------------------------------------------------------------------------

_ON_CPU: dict[Any, bool] = {}
_AVALS: dict[Any, Any] = {}


def _is_on_cpu(sharding: Any) -> bool:
    found = _ON_CPU.get(sharding)
    if found is None:
        found = all(d.platform == "cpu" for d in sharding.device_set)
        if len(_ON_CPU) >= MOST:
            _ON_CPU.clear()
        _ON_CPU[sharding] = found
    return found


def _place_of(operands: Sequence[Any]) -> tuple[Any, bool] | None:
    """Give where the results belong, and whether they must stay there; None for JAX's choice."""
    place, committed = None, False
    for x in operands:
        if x.__class__ is not ARRAY_CLASS:
            return None
        sharding = x.sharding
        if place is not sharding and place is not None and place != sharding:
            return None
        place, committed = sharding, committed or x.committed
    return (place, committed) if place.__class__ is SingleDeviceSharding else None


def _put(x: np.ndarray[Any, Any], sharding: Any, committed: bool) -> Any:
    if x.dtype.itemsize >= 8:
        x = x.astype(canonical(x.dtype), copy=False)
    key = x.shape, x.dtype
    aval = _AVALS.get(key)
    if aval is None:
        if len(_AVALS) >= MOST:
            _AVALS.clear()
        aval = _AVALS[key] = jax.core.ShapedArray(x.shape, x.dtype)
    return PUT(aval, sharding, [x], [*sharding.device_set], committed)


@cache
def puts() -> bool:
    """Tell whether the quick way of giving arrays to JAX works."""
    x = np.arange(3, dtype=np.float32)
    try:
        with jax.ensure_compile_time_eval():
            found = _put(x, SingleDeviceSharding(jax.devices("cpu")[0]), False)
        right = isinstance(found, jax.Array) and not found.committed and found.dtype == x.dtype
        return bool(right and np.asarray(found).tolist() == [0.0, 1.0, 2.0])
    except Exception:
        return False


# -- calls with values that need no look at them ------------------------------------------------

#: The classes of values that need no conversion, by the word for a type.
_AS_THEY_ARE = {"Tensor": ARRAY_CLASS, "int": int, "float": float, "bool": bool, "str": str}


class Quick:
    """Calls of one operator with arrays alone, and plain values of the classes that are declared.

    Attributes:
        op: the operator.
        bind: binds its primitive.
        spec: how the results lie; None for one.
        arrays: the places of its arrays.
        statics: of all else.
        slow: answers any call.
    """

    __slots__ = ("arrays", "bind", "frames", "op", "slow", "spec", "statics")

    def __init__(self, op: OpOverload, bind: Any, spec: Any, slow: Callable[..., Any]) -> None:
        kinds = [str(a.type) for a in op._schema.arguments]
        self.op = op
        self.bind = bind
        self.spec = spec if len(op._schema.returns) > 1 else None
        self.arrays = [i for i, kind in enumerate(kinds) if kind == "Tensor"]
        self.statics = [i for i, kind in enumerate(kinds) if kind != "Tensor"]
        self.slow = slow
        self.frames: dict[Any, Frame] = {}

    def __call__(self, *given: Any) -> Any:
        """Call with the values of all arguments, `MISSING` for those that have their default."""
        if word():  # someone watches
            return self.slow(self.op, self.filled(given))
        key = tuple([frozen(given[i]) for i in self.statics]) if self.statics else None
        frame = self.frames.get(key) or self.frame(key, given)
        outs = self.bind(*[given[i] for i in self.arrays], frame=frame)
        return outs[0] if self.spec is None else tree.unflatten(self.spec, outs)

    def filled(self, given: Sequence[Any]) -> list[Any]:
        """Give the values with defaults in their places."""
        defaults = [a.default_value for a in self.op._schema.arguments]
        return [
            v if v is not MISSING else convert_argument(self.op, i, defaults[i])
            for i, v in enumerate(given)
        ]

    def frame(self, key: Any, given: Sequence[Any]) -> Frame:
        """Make the frame of calls with the same plain values."""
        _, found = split(self.op, self.filled(given), lambda v: v.__class__ is ARRAY_CLASS)
        if len(self.frames) >= MOST:
            self.frames.clear()
        self.frames[key] = found
        return found


def remember(
    op: OpOverload, values: Sequence[Any], bind: Any, spec: Any, slow: Callable[..., Any]
) -> None:
    """Let calls with values of these classes, with or without the defaults, need no look."""
    arguments = op._schema.arguments
    pairs = zip(arguments, values, strict=True)
    if not all(v.__class__ is _AS_THEY_ARE.get(str(a.type)) for a, v in pairs):
        return
    quick = Quick(op, bind, spec, slow)
    classes = [v.__class__ for v in values]
    for n in range(len(arguments), -1, -1):
        op.notes[(*classes[:n], *[MISSING.__class__] * (len(arguments) - n))] = quick
        if not n or arguments[n - 1].default_value is MISSING:
            return

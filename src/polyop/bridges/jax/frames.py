"""A call in two pieces: its arrays, which are operands, and all else, which JAX keeps as a param.

JAX compares params, and compiles anew where one is new. So a `Frame` is equal to another exactly
if both mean the same call: `1`, `1.0` and `True` differ, as `0.0` and `-0.0` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np

from polyop import tree
from polyop.bridges.told import told
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.forks import process_lock
from polyop.payloads.held import Held, of_held
from polyop.payloads.libraries import LIBRARIES
from polyop.payloads.library import Library
from polyop.tensor.tensor import Tensor
from polyop.tree.same import Same

ARRAY = object()
#: A table of frames is begun anew when it has this many.
MOST = 1 << 12
JAX: Library = LIBRARIES["jax"][1]


class Frame:
    """One call without its arrays.

    Attributes:
        op: the operator.
        statics: the leaves of the arguments, `ARRAY` for each operand.
    """

    __slots__ = ("_described", "_flat", "_hash", "_names", "key", "op", "spec", "statics")

    def __init__(self, op: OpOverload, spec: Any, statics: Sequence[Any], key: Any) -> None:
        self.op = op
        self.spec = spec
        self.statics = statics
        self.key = key
        self._hash = hash((op, key))
        self._flat = spec.num_nodes == len(statics) + 1  # a list of leaves, none of them absent
        self._names = [a.name for a in op._schema.keyword_only]
        self._described: tuple[object, dict[Any, Any]] = (None, {})

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Frame) and self.op is other.op and self.key == other.key

    @property
    def described(self) -> dict[Any, Any]:
        """The metas of the results that the fake rule gives, by the operands' facts."""
        rules = self.op.notes.get("jax rules") or self.op.note("jax rules", lambda _: object())
        known = self._described
        if known[0] is not rules:  # a rule has changed since
            known = self._described = (rules, {})
        return known[1]

    def __repr__(self) -> str:
        shown = [repr(s) for s in self.statics if s is not ARRAY]
        return f"Frame({', '.join(shown)})"

    def values(self, operands: Iterable[Any]) -> list[Any]:
        """Give the arguments in schema order, with operands in their places."""
        rest = iter(operands)
        leaves = [next(rest) if s is ARRAY else s for s in self.statics]
        found: list[Any] = leaves if self._flat else tree.unflatten(self.spec, leaves)
        return found

    def run(self, operands: Iterable[Any]) -> Any:
        """Call the operator with tensors; what its kernel raises is told whose it is."""
        values = self.values(operands)
        try:
            if not self._names:
                return self.op.entry(*values)
            n = len(values) - len(self._names)
            return self.op.entry(*values[:n], **dict(zip(self._names, values[n:], strict=True)))
        except Exception as error:
            told(error, self.op, "jax")
            raise


#: Shape and dtype, as JAX has them.
shaped: Any = jax.ShapeDtypeStruct

#: By operator: its frames, by what they mean.
FRAMES: WeakKeyDictionary[OpOverload, dict[Any, Frame]] = WeakKeyDictionary()
LOCK = process_lock()


def split(
    op: OpOverload, values: Sequence[Any], is_operand: Callable[[Any], bool]
) -> tuple[list[Any], Frame]:
    """Give the operands of a call, and its frame."""
    leaves, spec = tree.flatten(list(values))
    given = [is_operand(leaf) for leaf in leaves]
    operands = [leaf for leaf, is_one in zip(leaves, given, strict=True) if is_one]
    statics = [ARRAY if one else leaf for leaf, one in zip(leaves, given, strict=True)]
    return operands, _known(op, spec, statics)


def frame_of(op: OpOverload, values: Sequence[Any]) -> Frame:
    """Give the frame of a call whose arguments have `ARRAY` in the place of each operand."""
    leaves, spec = tree.flatten(list(values))
    return _known(op, spec, leaves)


def _known(op: OpOverload, spec: Any, statics: Sequence[Any]) -> Frame:
    key = (spec, *map(frozen, statics))
    with LOCK:
        known = FRAMES.setdefault(op, {})
        found = known.get(key)
        if found is None:
            if len(known) >= MOST:
                known.clear()
            found = known[key] = Frame(op, spec, statics, key)
        return found


def is_foreign(leaf: Any) -> bool:
    """Tell whether a leaf is an array of any library."""
    return bool(PARTS.is_array(leaf))


def is_tensor(leaf: Any) -> bool:
    """Tell whether a leaf is a tensor of ours."""
    return isinstance(leaf, Tensor)


# -- values as keys -------------------------------------------------------------------------


def frozen(value: Any) -> Any:
    """Give a key that is equal exactly for values of one type that mean the same."""
    kind = value.__class__
    if value is ARRAY or kind in _PLAIN:
        return kind, value
    if kind is float:
        return kind, value.hex()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if kind in {list, tuple}:
        return kind, *map(frozen, value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind != "O":
        return kind, value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return kind, Same(value)
    return kind, value


_PLAIN = frozenset({int, bool, str, type(None)})


# -- tensors over JAX's arrays ----------------------------------------------------------------


def tensor_over(array: Any) -> Tensor:
    """Make a tensor over an array of JAX, or over what JAX itself takes for one, as literals."""
    if not isinstance(array, jax.Array):
        array = jax.numpy.asarray(array)
    return of_held(Held(array, JAX))

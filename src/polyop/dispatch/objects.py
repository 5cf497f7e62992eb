"""Operators that take or make opaque objects (S187).

An object may have a state, so a call of such an operator has an effect unless
something else is registered. A call with a fake object is never autograd's
business, nor that of the other layers below which nothing but a kernel knows
the object, unless the operator has a kernel or a rule of its own there.
"""

from __future__ import annotations

from typing import Any

from polyop import tree
from polyop.dispatch.bits import FAKE_OBJECT
from polyop.dispatch.keys import AUTOGRAD_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Places, Reason
from polyop.schema.classes import STAND_INS
from polyop.schema.model import FunctionSchema
from polyop.schema.opaque import makes_objects, object_positions
from polyop.schema.tags import Tag
from polyop.source import Source

#: The keys that a call with a fake object falls through.
PASSED_OVER = (
    *AUTOGRAD_KEYS,
    DispatchKey.ADInplaceOrView,
    DispatchKey.BackendSelect,
    DispatchKey.PythonTLSSnapshot,
    DispatchKey.PythonDispatcher,
    DispatchKey.Functionalize,
)


class ObjectOpOverload(OpOverload):
    """An operator with an argument for objects of a reference class."""

    def __init__(
        self, schema: FunctionSchema, tags: tuple[Tag, ...], source: Source, places: Places
    ) -> None:
        super().__init__(schema, tags, source, places)
        self.objects = object_positions(schema)

    def takes_objects(self) -> bool:
        """Whether an argument is an opaque object."""
        return True

    @property
    def is_impure(self) -> bool:
        """Whether a call may not be removed or merged: always, unless it has no effect (S188)."""
        effect = self.places.top("effect")
        return effect is None or effect.fn is not None or super().is_impure


class ObjectMaker(OpOverload):
    """An operator that gives an object of a reference class: each call gives another."""

    @property
    def is_impure(self) -> bool:
        """Whether a call may not be removed or merged: two objects are not one."""
        return True


def operator_class(schema: FunctionSchema) -> type[OpOverload]:
    """Choose the class of an operator by its schema."""
    if object_positions(schema):
        return ObjectOpOverload
    return ObjectMaker if makes_objects(schema) else OpOverload


def is_fake_object(value: Any) -> bool:
    """Tell whether a value stands for an object of a program that is being traced."""
    return type(value) in STAND_INS


def object_code(value: Any) -> int:
    """Give the code of the objects in an argument: a bit if one is a fake."""
    if type(value) in STAND_INS:
        return FAKE_OBJECT
    if value.__class__ in _CONTAINERS and any(map(is_fake_object, tree.leaves(value))):
        return FAKE_OBJECT
    return 0


_CONTAINERS = (list, tuple, dict)


def without_passed(op: OpOverload, keys: DispatchKeySet) -> DispatchKeySet:
    """Take out of the keys of a call with a fake object what it falls through."""
    for key in keys.leading():  # per functionality, the key that would act
        if passes_over(op, key):
            keys = keys.remove(key)
    return keys


def passes_over(op: OpOverload, key: DispatchKey) -> bool:
    """Tell whether a call with a fake object falls through a key."""
    return key in PASSED_OVER and not _has_own(op, key)


def _has_own(op: OpOverload, key: DispatchKey) -> bool:
    if key in AUTOGRAD_KEYS and (op.rule("backward") or op.rule("jvp") or _owns_kernels(op)):
        return True
    entry = op.table[key]
    return entry.kernel is not None and entry.reason not in _OF_OTHERS


def _owns_kernels(op: OpOverload) -> bool:
    # Made of a function: its gradient is a rule, and without one backward says that it misses.
    return any(kernel.makes_op for kernel in op.kernels().values())


#: Kernels that an operator has at a key without a registration of its own there.
_OF_OTHERS = (Reason.FALLBACK, Reason.FALLTHROUGH, Reason.MISSING)

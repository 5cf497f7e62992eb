"""An operator below kernels that have acted: what a trace records where one of them goes on.

An author's kernel at an autograd key, or at ADInplaceOrView, does something and calls its operator
on the keys that are left. What it does is recorded, and so is that call; a program that called the
operator itself would do it again. So the node calls the operator without the kernels above. It is
an operator to whoever reads the graph: the same signature, kernels and fake rule. Rules that stand
above these kernels, for gradients and batches, are of the whole operator, and none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from polyop.dispatch.keys import AUTOGRAD_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.own_call import CHANGED
from polyop.dispatch.table import FALLBACKS, Entry, Reason, acting
from polyop.errors import CaptureError, MissingRuleError
from polyop.schema.model import FunctionSchema

#: The keys below which a call can go on, by the name that programs have for them: no kernel there
#: or above acts.
FLOORS = {"autograd": min(AUTOGRAD_KEYS), "views": DispatchKey.ADInplaceOrView}
#: Where a kernel acts on plain calls before a trace does.
ABOVE_TRACES = DispatchKeySet([*AUTOGRAD_KEYS, DispatchKey.ADInplaceOrView])
#: The rules that stand above these kernels.
_ABOVE = frozenset(("backward", "formula", "decomposition", "jvp", "vmap"))


class Below(OpOverload):
    """An operator without the kernels at a key and above; made by `below`.

    Attributes:
        whole: the operator.
        floor: the name of the key, one of `FLOORS`.
    """

    def __init__(self, whole: OpOverload, floor: str) -> None:
        super().__init__(_named(whole._schema, floor), whole.tags, whole.source, whole.places)
        self.whole = whole
        self.floor = floor
        self.packet, self.objects = whole.packet, whole.objects

    def __reduce__(self) -> tuple[Any, ...]:
        return (below, (self.whole, self.floor))

    @property
    def table(self) -> Mapping[DispatchKey, Entry]:
        """The entries of the operator, and what polyop itself does from the floor up."""
        found: _TableBelow = self.note("table", _TableBelow)
        return found

    @property
    def functional(self) -> NoReturn:
        """Refuse: a functional twin is one of a whole operator."""
        raise CaptureError(
            f"{self.whole.name()} was recorded below its kernel for {self.floor}, and what it "
            "writes there cannot be functionalized",
            op=self._schema,
            source=self.source,
            fix="functionalize the function before it is traced",
        )

    def rule(self, slot: str) -> Any:
        """Give the rule in a slot that stands below the kernels, or None."""
        return None if slot in _ABOVE else super().rule(slot)

    def missing(
        self, slot: str, error: type[MissingRuleError] = MissingRuleError, **parts: Any
    ) -> NoReturn:
        """Raise the error of a layer that needs a rule which stands above the kernels."""
        if slot in _ABOVE:
            parts["problem"] = (
                f"a call of {self.whole.name()} was recorded below its kernel for {self.floor}, "
                f"and has no {slot} rule there"
            )
            parts["fix"] = (
                "trace the function without a mode, a guard or a gradient inside it: the call is "
                "one node of the operator then, with all its rules"
            )
        super().missing(slot, error, **parts)


def _named(schema: FunctionSchema, floor: str) -> FunctionSchema:
    """Give a schema under the name that nodes have: bridges know an operator by that."""
    overload = f"{schema.overload_name}_" if schema.overload_name else ""
    return schema.but(overload_name=f"{overload}below_{floor}")


class _TableBelow(dict[DispatchKey, Entry]):
    """The entries of an operator below a floor, each taken when it is first asked for."""

    def __init__(self, op: Any) -> None:
        self.whole: Mapping[DispatchKey, Entry] = op.whole.table
        self.floor = FLOORS[op.floor]

    def __missing__(self, key: DispatchKey) -> Entry:
        entry = self.whole[key]
        if key >= self.floor and entry.kernel is not None and entry.kernel.fn is not None:
            own = FALLBACKS.get(key)
            through = own is None or own.fallthrough
            entry = Entry(key, Reason.FALLTHROUGH if through else Reason.FALLBACK, own)
        self[key] = entry
        return entry


def whole_of(op: OpOverload) -> OpOverload:
    """Give the operator that one below kernels is made of, or the operator itself."""
    return op.whole if isinstance(op, Below) else op


def below(op: OpOverload, floor: str) -> Below:
    """Give an operator below a floor, the same object each time."""
    whole = whole_of(op)
    with LOCK:
        known: dict[str, Below] = whole.__dict__.setdefault("belows", {})
        if floor not in known:
            known[floor] = Below(whole, floor)
        return known[floor]


def below_passed(op: OpOverload, keys: DispatchKeySet, plain: DispatchKeySet) -> OpOverload:
    """Give an operator below the kernels that a plain call meets, and this one does not.

    Args:
        op: the operator.
        keys: of the call.
        plain: of a call of the same tensors where nothing is active.
    """
    met = [key for key in acting(plain & ABOVE_TRACES, op.table) if has_own_kernel(op, key)]
    passed = [key for key in met if not keys.has(key)]
    if not passed:
        return op
    return below(op, "views" if DispatchKey.ADInplaceOrView in passed else "autograd")


def has_own_kernel(op: OpOverload, key: DispatchKey) -> bool:
    """Tell whether the kernel that acts at a key is somebody's, and not what polyop does there."""
    kernel = op.table[key].kernel
    return kernel is not None and kernel.fn is not None


def _follow(op: Any) -> None:
    """Let what was made of an operator follow a change of it."""
    for made in getattr(op, "__dict__", {}).get("belows", {}).values():
        made.alive = op.alive
        made.changed()


CHANGED.append(_follow)

"""Operator objects: a name, a schema, and one rule per slot. They decide nothing.

`OpOverload` is one schema; `OpOverloadPacket` is all overloads of one name.
What a call does is decided in `resolve.py` and remembered in `memo`; what
callers run is `entry`, a function written from the schema (`entry.py`).

A call through an object costs a frame if `__call__` forwards. So an object
that is called gets a class of its own whose `__call__` is the entry itself;
`inspect`, `help` and tracebacks see a plain function with the author's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from polyop.dispatch.absent import found_or_absent
from polyop.dispatch.implementations import BY_PY_IMPL, Implementations
from polyop.dispatch.keys import DispatchKey, is_alias_key, parse_key
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.lock import LOCK
from polyop.dispatch.names import OverloadNames, PacketNames
from polyop.dispatch.own_call import first_call, note_captured, tell_changed
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import Entry, Kernel, Places, Table, fallthrough_kernel
from polyop.dispatch.told import Told
from polyop.errors import (
    MissingRuleError,
    OperatorGoneError,
    OperatorNotFoundError,
    UsageError,
    nearest,
)
from polyop.schema.model import FunctionSchema
from polyop.schema.tags import Tag
from polyop.source import Source, caller, source_of

Handler = Callable[..., Any]


#: How many changes of operators there were, of rules, kernels or fallbacks.
CHANGES: list[int] = [0]
#: The slots in which an index signature stands where nothing is registered (S56).
INDEXED = frozenset(("fake", "vmap"))
#: The note of an operator whose kernel above a trace drew, or wrote, when it was traced.
ACTS = "acts"


class OperatorBase(Implementations):
    """What single operators and higher-order operators have in common."""


class OpOverload(OverloadNames, OperatorBase):
    """One schema, and the rules that layers need to know of it.

    Made by the registry, never by hand. Rules are found by place: a
    `DispatchKey` holds a kernel, a word holds a rule (`"fake"`, `"backward"`,
    `"vmap"`, ...).
    """

    def __init__(
        self, schema: FunctionSchema, tags: tuple[Tag, ...], source: Source, places: Places
    ) -> None:
        _refuse_taken(schema, source)
        self._schema = schema
        self.tags = tags
        self.source = source
        self.places = places
        self.memo: dict[int, Handler] = {}
        self.notes: dict[Any, Any] = {}  # what layers keep per operator; emptied with the memo
        self.alive = True
        self.disabled: frozenset[DispatchKey] = frozenset()  # keys whose kernels are off (S52)
        self.switches: tuple[Any, ...] = ()  # who switched them (`switch.py`)
        self.packet: OpOverloadPacket | None = None
        self._entry: Handler | None = None
        self.written = False  # whether the entry has its code (`entry.py`)
        self._table: Table | None = None
        self._overloadname = schema.overload_name or "default"
        self.namespace, _, self._opname = schema.name.partition("::")
        self.__name__ = f"{self._opname}.{self._overloadname}"
        self.__qualname__ = schema.qualified_name
        self.__module__ = f"polyop.ops.{self.namespace}"

    # -- life as an object ----------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return (_find, (self._schema.name, self._schema.overload_name, self._schema.version))

    def __copy__(self) -> OpOverload:
        return self

    def __deepcopy__(self, memo: Any) -> OpOverload:
        return self

    explain, capabilities = Told.explain, Told.capabilities

    @property
    def functional(self) -> Any:
        """The functional twin of an operator that writes (S174)."""
        return PARTS.functional_twin(self)

    @property
    def is_view(self) -> bool:
        """Whether results alias arguments and nothing is written."""
        return self._schema.is_view

    @property
    def is_impure(self) -> bool:
        """Whether a call may not be removed or merged (S198)."""
        return (
            self._schema.is_mutable
            or Tag.nondeterministic_seeded in self.tags
            or self.rule("effect") is not None
            or ACTS in self.notes
        )

    # -- calls ----------------------------------------------------------------

    @property
    def entry(self) -> Handler:
        """The function written from the schema, made on first use."""
        return self._entry or self._write_entry()

    def _write_entry(self) -> Handler:
        # Under the lock: a registration between writing and keeping would be missed.
        with LOCK:
            if self._entry is None:
                self._entry = PARTS.make_entry(self)
                tell_changed(self)
            return self._entry

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it; this is its first call."""
        # From the second call on, the entry itself is this object's `__call__`.
        return first_call(self, type(self), self)(*args, **kwargs)

    def redispatch(self, keyset: DispatchKeySet, /, *args: Any, **kwargs: Any) -> Any:
        """Dispatch on the given keys, whatever context and arguments say (S103)."""
        return PARTS.redispatch(self, keyset, args, kwargs)

    def decompose(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the `CompositeImplicitAutograd` kernel, or give `NotImplemented`."""
        return PARTS.decompose(self, args, kwargs)

    def _can_decompose(self) -> bool:
        kernel = self.places.top(DispatchKey.CompositeImplicitAutograd)
        return kernel is not None and kernel.fn is not None

    # -- rules ----------------------------------------------------------------

    def rule(self, slot: str) -> Any:
        """Give the rule in a slot, or None."""
        found = self.places.top(slot)
        own = None if found is None else found.fn
        if slot in INDEXED:
            index = self.places.top("index")
            return own if index is None else index.fn.rule(slot, own)  # type: ignore[union-attr]
        return own

    def rule_source(self, slot: str | DispatchKey) -> Source:
        """Give the place where a rule was registered, or where the operator was."""
        found = self.places.top(slot)
        return self.source if found is None else found.source

    def slots(self) -> list[str]:
        """Name the slots that have a rule, and the keys that have a kernel."""
        return [p.name if isinstance(p, DispatchKey) else p for p, _ in self.places.items()]

    def missing(
        self, slot: str, error: type[MissingRuleError] = MissingRuleError, **parts: Any
    ) -> NoReturn:
        """Raise the error of a layer that needs a rule and finds none."""
        have = ", ".join(sorted(set(self.slots()))) or "none"
        says: dict[str, Any] = {
            "problem": f"{self.name()} has no {slot} rule (it has: {have})",
            "op": self._schema,
            "source": self.source,
            "fix": f"add one with polyop.library.register_{slot}({self.name()!r}, rule)",
        }
        raise error(**(says | parts))

    # -- kernels --------------------------------------------------------------

    def kernels(self) -> Mapping[DispatchKey, Kernel]:
        """Give the kernel of each key that has one."""
        found = self.places.kernels()
        return (
            {k: v for k, v in found.items() if k not in self.disabled} if self.disabled else found
        )

    @property
    def table(self) -> Mapping[DispatchKey, Entry]:
        """The entry of each run-time key, by the rules of `table.py`."""
        with LOCK:  # one that was made of old kernels must not be kept
            if self._table is None:
                self._table = Table(self.name(), self.kernels())
            return self._table

    def has_kernel_for_dispatch_key(self, k: DispatchKey | str) -> bool:
        """Whether a kernel is registered at this very key."""
        return self.places.top(parse_key(k)) is not None

    def has_kernel_for_any_dispatch_key(self, ks: DispatchKeySet) -> bool:
        """Whether a kernel is registered at one of the keys, alias keys aside."""
        chosen = DispatchKeySet(ks)
        return any(not is_alias_key(k) and chosen.has(k) for k in self.kernels())

    def _check_place(self, by: Any, fn: Handler) -> None:
        if isinstance(by, DispatchKey):
            self.places.check((by,), source_of(fn))

    # -- life -----------------------------------------------------------------

    def note(self, key: Any, make: Callable[[OpOverload], Any]) -> Any:
        """Give what a layer keeps under a key, made anew after each change."""
        with LOCK:  # what was made of old rules must not be kept once they have changed
            if key not in self.notes:
                self.notes[key] = make(self)
            return self.notes[key]

    def changed(self) -> None:
        """Forget what was decided; a call under way ends with what it began with."""
        if not self.alive or self.__dict__.keys() & BY_PY_IMPL:
            self._restore()
        note_captured(self.memo)
        self.memo.clear()
        self.notes.clear()
        CHANGES[0] += 1
        self._table = None
        if self._entry is not None:
            PARTS.rewrite_entry(self, self._entry)
        tell_changed(self)

    def _restore(self) -> None:
        """Put the kernels of `py_impl` over those that came since; they go with the operator."""
        self._forget()
        fns = self.__dict__.get("py_kernels", {})
        for place, kernel in list(self.places.items()):
            if kernel.owner is self and place not in fns:
                self.places.remove(place, kernel)
        for key, fn in fns.items():
            top = self.places.top(key)
            if self.alive and (top is None or top.owner is not self):
                through = fn is fallthrough_kernel
                source = caller() if through else source_of(fn)
                kernel = Kernel(None if through else fn, source, self, fallthrough=through)
                self.places.put(key, kernel)
        if not self.alive:
            self.places.remove_owner(self)

    def remove(self) -> None:
        """Make every handle of this operator raise."""
        self.alive = False
        self.changed()

    def gone(self) -> NoReturn:
        """Raise the error of a removed operator."""
        packet = PARTS.packets.get(self._schema.name)
        successor = packet and packet._all.get(_label(self))
        raise OperatorGoneError(
            f"{self.name()} was removed",
            op=self._schema,
            seen=f"its successor {successor._schema}, of {successor.source}" if successor else "",
            source=self.source,
            fix=f"look it up again: polyop.ops.{packet}" if successor else "define it again",
        )


class OpOverloadPacket(PacketNames, Told):
    """All overloads of one name; a call picks the first that fits (S62)."""

    def __init__(self, qualified_name: str) -> None:
        self._qualified_op_name = qualified_name
        self._all: dict[str, OpOverload] = {}  # by overload name and version: "", "out", "@2"
        self.namespace, _, self.__name__ = qualified_name.partition("::")
        self.__module__ = f"polyop.ops.{self.namespace}"

    def __str__(self) -> str:
        return f"{self.namespace}.{self.__name__}"

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self}')>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_find_packet, (self._qualified_op_name,))

    def __copy__(self) -> OpOverloadPacket:
        return self

    def __deepcopy__(self, memo: Any) -> OpOverloadPacket:
        return self

    def _add(self, op: OpOverload) -> None:
        """Take in an overload."""
        self._all[_label(op)] = op
        self.__dict__.pop(op._overloadname, None)  # another version may be kept there
        op.packet = self
        tell_changed(self)

    def _drop(self, op: OpOverload) -> None:
        """Take out an overload."""
        if self._all.get(_label(op)) is op:
            del self._all[_label(op)]
        self.__dict__.pop(op._overloadname, None)
        tell_changed(self)

    def overloads(self) -> list[str]:
        """Name the overloads, in order of declaration."""
        return list(dict.fromkeys(op._overloadname for op in list(self._all.values())))

    def op_overloads(self) -> list[OpOverload]:
        """Give the newest version of each overload, in order of declaration."""
        newest: dict[str, OpOverload] = {}
        for op in list(self._all.values()):  # a copy: other threads define
            seen = newest.get(op._overloadname)
            if seen is None or seen._schema.version < op._schema.version:
                newest[op._overloadname] = op
        return list(newest.values())

    def versions(self, overload: str = "") -> list[int]:
        """Give the versions of the default overload, or of another (S29)."""
        schemas = [op._schema for op in list(self._all.values())]
        return sorted(s.version for s in schemas if s.overload_name == overload)

    def at(self, version: int, overload: str = "") -> OpOverload:
        """Give one version, of the default overload or of another."""
        for op in list(self._all.values()):
            if op._schema.version == version and op._schema.overload_name == overload:
                return op
        raise OperatorNotFoundError(
            f"{self._qualified_op_name} has no version {version}",
            declared=f"versions {', '.join(map(str, self.versions(overload)))}",
        )

    def __getattr__(self, name: str) -> OpOverload:
        if not name.startswith("__"):
            with LOCK:  # an overload that is removed meanwhile would be kept for good
                for op in self.op_overloads():
                    if op._overloadname == name:
                        self.__dict__[name] = op
                        return op
        raise OperatorNotFoundError(
            f"{self._qualified_op_name} has no overload {name!r}{nearest(name, self.overloads())}",
            declared=", ".join(self.overloads()),
            source=PARTS.waiting(f"{self._qualified_op_name}.{name}"),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.overloads())

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.overloads()})

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the overload that the arguments fit."""
        found = self.op_overloads()
        if len(found) == 1:
            return found[0].entry(*args, **kwargs)
        if not found:
            self.gone()
        return PARTS.call_packet(self, args, kwargs)

    def gone(self) -> NoReturn:
        """Raise the error of a name whose operators were all removed."""
        again = f"look it up again: polyop.ops.{self}"
        raise OperatorGoneError(
            f"{self._qualified_op_name} was removed",
            op=self._qualified_op_name,
            fix=again if self._qualified_op_name in PARTS.packets else "define it again",
        )


def _refuse_taken(schema: FunctionSchema, source: Source) -> None:
    """Refuse an overload that its packet could not show, which has such an attribute (S58)."""
    name = schema.overload_name
    if name and (hasattr(OpOverloadPacket, name) or name in vars(OpOverloadPacket(schema.name))):
        raise UsageError(
            f"{schema.qualified_name} is an attribute of every packet, and no overload's name",
            op=schema,
            seen=f"the overload {name!r}",
            source=source,
            fix=f"choose another name: {schema.name}.{name}_",
        )


def _label(op: OpOverload) -> str:
    version = op._schema.version
    return op._schema.overload_name + (f"@{version}" if version > 1 else "")


def _find_packet(name: str) -> Any:
    """Find all overloads of a name again, for pickles."""
    return found_or_absent(
        _find_packet, lambda name: PARTS.find_operator(name, None, 0).packet, (name,)
    )


def _find(name: str, overload: str, version: int) -> Any:
    """Find an operator again, for pickles."""
    return found_or_absent(_find, PARTS.find_operator, (name, overload, version))

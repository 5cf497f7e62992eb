"""Operators on the way to another process: by name, or by value from a script or a notebook.

A worker finds an operator by its name, and imports the modules that its rules come from, as it
does for functions. What stands in `__main__` is in no module that a worker could import; there the
schema, the kernels and the fake rule go along.
"""

from __future__ import annotations

import importlib
import io
import pickle
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, NoReturn

import cloudpickle

from polyop.bridges.dask.identity import digest_of, goes_by_value
from polyop.dispatch.absent import AbsentOperator, Find
from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.index_signature import IndexSignature, register_index
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import define, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import OperatorNotFoundError
from polyop.export.derived import operator_by_name
from polyop.layers.functionalize.twin import mutable_of
from polyop.schema.model import FunctionSchema
from polyop.schema.tags import Tag
from polyop.source import Source


class Parcel(NamedTuple):
    """An operator as another process finds it.

    Attributes:
        name: of the operator, `ns::op`.
        overload: of the operator.
        version: of the operator.
        is_twin: whether the functional twin of that operator is meant.
        modules: that define it, and its rules.
        source: the place of its definition.
        digest: of the definition, equal for equal ones.
        definition: by value, or None.
    """

    name: str
    overload: str
    version: int
    is_twin: bool
    modules: tuple[str, ...]
    source: str
    digest: str
    definition: bytes | None


class _Definition(NamedTuple):
    schema: FunctionSchema
    tags: tuple[Tag, ...]
    source: Source
    rules: tuple[tuple[DispatchKey | str, tuple[Any, ...]], ...]
    axes: str | None


#: By name: what this process has made of a definition by value, and its digest.
MADE: dict[str, tuple[str, OpOverload]] = {}


# -- sending --------------------------------------------------------------------------------


def parcel_of(op: OpOverload) -> Parcel:
    """Give an operator as another process finds it.

    Raises:
        OperatorGoneError: it was removed.
    """
    own = mutable_of(op) or op
    if not own.alive:
        own.gone()
    schema = own._schema
    modules = _modules(own)
    return Parcel(
        schema.name,
        schema.overload_name,
        schema.version,
        own is not op,
        tuple([name for name in modules if name != "__main__"]),
        str(own.source),
        digest_of(own),
        _definition(own) if any(map(goes_by_value, modules)) else None,
    )


def _modules(op: OpOverload) -> list[str]:
    """Name the modules of an operator's rules."""
    found = [getattr(_inner(kernel.fn), "__module__", None) for _, kernel in op.places.items()]
    names = dict.fromkeys(name for name in found if name)
    return [name for name in names if name.partition(".")[0] not in {"polyop", "builtins"}]


def _inner(fn: Any) -> Any:
    return fn.func if isinstance(fn, partial) else fn


def _definition(op: OpOverload) -> bytes:
    rules: dict[DispatchKey | str, tuple[Any, ...]] = {}
    for place, kernel in op.places.items():
        if isinstance(place, DispatchKey) or place == "fake":
            rules[place] = (kernel.fn, kernel.source, *kernel[3:])
    index = op.rule("index")
    text = index.text if isinstance(index, IndexSignature) else None
    made = _Definition(op._schema, op.tags, op.source, tuple(rules.items()), text)
    into = io.BytesIO()
    _Packer(into, op).dump(made)
    return into.getvalue()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """Lets the operators that a kernel calls travel as it does.

    Args:
        into: what is written.
        op: the operator whose kernels are packed.
    """

    def __init__(self, into: io.BytesIO, op: OpOverload) -> None:
        super().__init__(into)
        self.op = op

    def reducer_override(self, obj: Any) -> Any:
        """Say how an operator is packed: by name where that is going on already, else as here."""
        op = obj._opoverload if isinstance(obj, CustomOpDef) else obj
        if not isinstance(op, OpOverload) or not op.alive:
            return super().reducer_override(obj)
        find, args = obj.__reduce__()
        packing = PACKING.get()
        if op is self.op or op in packing:
            return _later, (find, args)
        token = PACKING.set(packing | {self.op})
        try:
            parcel = parcel_of(op)
        finally:
            PACKING.reset(token)
        if parcel.definition is None:
            return find, args
        return _unpacked, (tuple(parcel), find, args)


#: The operators that are being packed.
PACKING: ContextVar[frozenset[OpOverload]] = ContextVar("packing", default=frozenset())


def _unpacked(parcel: tuple[Any, ...], find: Find, args: tuple[Any, ...]) -> Any:
    """Bring an operator, and give it in the form in which it was packed."""
    found_by(Parcel(*parcel))
    return find(*args)


def _later(find: Find, args: tuple[Any, ...]) -> AbsentOperator:
    """Give what looks for an operator when it is called: it is not made yet."""
    return AbsentOperator(find, args, "", OperatorNotFoundError(f"there is no {args[0]}"))


# -- arriving -------------------------------------------------------------------------------


def found_by(parcel: Parcel) -> OpOverload:
    """Find an operator in this process.

    Raises:
        OperatorNotFoundError: it is not here, and could not be brought.
    """
    own = _own(parcel)
    twin: OpOverload = PARTS.functional_twin(own) if parcel.is_twin else own
    return twin


def _own(parcel: Parcel) -> OpOverload:
    op = _here(parcel)
    if op is not None and (parcel.definition is None or not _is_old(op, parcel)):
        return op
    troubles = []
    for name in parcel.modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module may raise anything
            troubles.append(f"import {name}: {type(error).__name__}: {error}")
    op = _here(parcel)
    if parcel.definition is None:
        return _lost(parcel, troubles) if op is None else op
    if op is not None and not _is_old(op, parcel):
        return op
    try:
        return _make(parcel.definition, parcel.digest)
    except Exception as error:  # unpickling runs what others wrote
        return _lost(parcel, [*troubles, f"{type(error).__name__}: {error}"])


def _here(parcel: Parcel) -> OpOverload | None:
    version = f"@{parcel.version}" if parcel.version > 1 else ""
    overload = f".{parcel.overload}" if parcel.overload else ""
    return operator_by_name(f"{parcel.name}{overload}{version}")


def _is_old(op: OpOverload, parcel: Parcel) -> bool:
    """Tell whether an operator is here by another definition than the client's."""
    made = MADE.get(op.name())
    here = made[0] if made is not None and made[1] is op else digest_of(op)
    return here != parcel.digest


def _make(text: bytes, digest: str) -> OpOverload:
    made: _Definition = pickle.loads(text)  # noqa: S301 - tasks of Dask are code of the client
    with LOCK:
        known = MADE.get(made.schema.qualified_name)
        if known is not None and known[0] == digest and known[1].alive:
            return known[1]  # by another thread
        op = define(made.schema, made.tags, made.source, None, replace=True, module="__main__")
        for place, (fn, source, *flags) in made.rules:
            put_rule(op, place, Kernel(fn, source, op.places, *flags))
        if made.axes is not None:
            register_index(op, made.axes)
        MADE[op.name()] = digest, op
    return op


def _lost(parcel: Parcel, troubles: list[str]) -> NoReturn:
    first = parcel.modules[0] if parcel.modules else "its_module"
    raise OperatorNotFoundError(
        f"there is no operator {parcel.name!r} in this worker",
        op=parcel.name,
        declared=f"found by name, after importing {', '.join(parcel.modules) or 'nothing'}",
        seen="; ".join(troubles),
        source=parcel.source,
        fix="install its module where workers run, and import it there: "
        f'client.run(importlib.import_module, "{first}"), or dask worker --preload {first}',
    )

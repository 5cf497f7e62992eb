"""Operators of authors are made known to a framework when it asks for them.

Making an operator known costs more than defining it, and most operators never meet a framework's
arrays. So it is done when these come, when somebody looks into `torch.ops`, and when PyTorch's
compiler starts, which must know an operator before the first call that it sees. What JAX's
programs call is one function for all operators, known from the beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from weakref import WeakSet

from polyop.bridges.imports import when_imported
from polyop.bridges.places import BRIDGES
from polyop.dispatch.operator import OpOverload
from polyop.lazy import load

#: The operators that PyTorch's compiler does not know yet; those that are gone leave by themselves.
UNKNOWN: WeakSet[OpOverload] = WeakSet()
#: Who is told at each definition.
TELL: list[Callable[[OpOverload], None]] = []


def defined(op: OpOverload) -> None:
    """Remember an operator until a framework asks for it."""
    if not op.is_builtin:
        UNKNOWN.add(op)
        for tell in TELL:
            tell(op)


def removed(op: OpOverload) -> None:
    """Undo what `defined` did, and take an operator out of the frameworks that know it."""
    UNKNOWN.discard(op)
    for place in BRIDGES.values():
        if place in sys.modules:  # else it knows of none
            load(place).remove(op)


def _prepare_namespaces() -> None:
    _tell(load("polyop.bridges.torch.namespaces:announce"))


def _prepare_compiler() -> None:
    let_in = load("polyop.bridges.torch.compiler:let_in")
    if not load("polyop.bridges.torch.compiler:listen")():
        _tell(let_in)


def _tell(tell: Callable[[OpOverload], None]) -> None:
    TELL.append(tell)
    for op in list(UNKNOWN):
        tell(op)


def _prepare_exports() -> None:
    # An export reads Python as the compiler does, and nobody is told when one starts: it meets
    # operators that are not known, and makes them so.
    load("polyop.bridges.torch.compiler:let_in")()


def _prepare_sharding() -> None:
    load("polyop.bridges.torch.sharding:announce")()


def _prepare_programs() -> None:
    # A program that was exported elsewhere may be called before any operator meets an array.
    load("polyop.bridges.jax.ffi")
    load("polyop.bridges.jax.trees")


when_imported("jax", _prepare_programs)
when_imported("torch", _prepare_namespaces)
when_imported("torch._dynamo", _prepare_compiler)
when_imported("torch.export._trace", _prepare_exports)
when_imported("torch.distributed.tensor", _prepare_sharding)

"""Which calls a bridge takes: those of authors' operators with arrays of a framework that has one.

Built-in operators go over a framework's own namespace, and operators that decompose are made of
these; both need no bridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from polyop import tree
from polyop.bridges.own_kernels import own_kernel, run_own
from polyop.bridges.places import BRIDGES, COMPILED
from polyop.bridges.told import told
from polyop.dispatch.bind import convert_argument
from polyop.dispatch.bits import WRAPPED
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library_kernels import has_kernels
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import tensors_in
from polyop.dispatch.table import Kernel
from polyop.layers.payloads import author_handler as exchanging_handler
from polyop.layers.payloads import call_held
from polyop.layers.payloads.facts import library_in
from polyop.lazy import load
from polyop.payloads.held import Held
from polyop.payloads.libraries import library_of
from polyop.schema.types import leaf_kind
from polyop.tensor.foreign import is_reference
from polyop.tensor.tensor import Tensor, of_array

#: The operator whose kernel a framework runs: what it calls itself is no call of the bridge.
AT_KERNEL: ContextVar[OpOverload | None] = ContextVar("at_kernel", default=None)
COMPOSITE = DispatchKey.CompositeImplicitAutograd


def decomposes(op: OpOverload) -> bool:
    """Tell whether an operator is made of others, which need no bridge."""
    return op.is_builtin or op.places.top(COMPOSITE) is not None


def call_foreign(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with other libraries' arrays; the answer is in kind.

    Raises:
        ArgumentError: arrays of two frameworks, or of a library that is unknown.
    """
    leaves = tree.leaves(list(values))
    if decomposes(op) or any(isinstance(leaf, Tensor) for leaf in leaves):
        return call_held(op, values)
    names = {_framework(leaf) for leaf in leaves if PARTS.is_array(leaf)} - {"numpy"}
    place = place_of(op, names.pop()) if len(names) == 1 else None
    if place is None or not load(place).takes(op, values):
        return call_held(op, values)
    _refuse_misfits(op, values)
    return load(place).call(op, values)


def _refuse_misfits(op: OpOverload, values: Sequence[Any]) -> None:
    """Refuse what is no array where tensors are declared; frameworks take None, and numbers."""
    for i, (argument, value) in enumerate(zip(op._schema.arguments, values, strict=True)):
        kind = leaf_kind(argument.type)
        if kind != "static" and not (kind == "tensor" and PARTS.is_array(value)):
            convert_argument(op, i, tree.map_leaves(_standing_in, value))


def _standing_in(leaf: Any) -> Any:
    return ANY if PARTS.is_array(leaf) else leaf


#: Stands for an array where only types are looked at.
ANY = of_array(np.empty(0))
#: These run an author's kernel for their arrays themselves, below their own transforms.
RUN_OWN = frozenset(("torch", "jax"))


def place_of(op: OpOverload, name: str) -> str | None:
    """Give the place of the bridge that takes a library's arrays; None if there is none.

    What has no transforms of its own needs no bridge where the author wrote a kernel for it.
    """
    if name not in RUN_OWN and has_kernels(op, name):
        return None
    return BRIDGES.get(name)


def _framework(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return "numpy"
    if is_reference(array):
        return "jax"
    library = library_of(array)
    return "" if library is None else library.name


def author_handler(way: Way, key: DispatchKey, kernel: Kernel, run: Handler) -> Handler:
    """Make the handler of an author's kernel for tensors over other libraries' arrays."""
    op, below = way.op, exchanging_handler(way, key, kernel, run)
    if op.is_builtin:
        return below
    if op.places.top(COMPOSITE) is not kernel:
        return partial(_bridged, op, below)
    return noted(op, below)


def noted(op: OpOverload, run: Handler) -> Handler:
    """Make the handler of an operator that decomposes: a framework that compiles it is to know."""
    return partial(_noted, op, run)


def _noted(op: OpOverload, run: Handler, *args: Any) -> Any:
    for t in tensors_in(args):
        held = _inside(t).payload
        library = held.library if held.__class__ is Held else None
        if library and library.name in COMPILED and not library.is_concrete(held.array):
            load(COMPILED[library.name]).holds(op)
    return run(*args)


def _inside(tensor: Tensor) -> Tensor:
    """Give what transforms wrap."""
    while tensor.keys & WRAPPED:
        found = tensor.payload.value
        tensor = found() if callable(found) else found
    return tensor


def _bridged(op: OpOverload, below: Handler, *args: Any) -> Any:
    name = library_in(op, args)[0].name
    place = place_of(op, name)
    if place is not None and AT_KERNEL.get() is not op and load(place).takes(op, args):
        return load(place).call_tensors(op, args)
    own = own_kernel(op, args)
    try:
        return below(*args) if own is None else run_own(op, own, args)
    except Exception as error:
        told(error, op, name, "" if own is None else own.source)
        raise

"""Kernels for the arrays of one library: they get these arrays as they are, and return such.

A kernel without a library computes on tensors over NumPy's arrays. A kernel of a library is called
instead where the arrays are that library's, so that nothing is converted: with PyTorch's tensors,
JAX's arrays, in whatever a Triton launcher, a CuPy or a tvm-ffi function takes. The most specific
one is chosen: library and device, then library, then device, then any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import Device
from polyop.dispatch.body import result_forms
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library, owner_of
from polyop.dispatch.library_functions import kernel_keys
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import put_rule
from polyop.dispatch.table import Kernel, compute_entry
from polyop.errors import MissingKernelError, UsageError, UsageTypeError
from polyop.lazy import load
from polyop.source import caller, source_of

Fn = Callable[..., Any]
#: The slots of these kernels begin so; the library follows, then the device type or nothing.
SLOT = "kernel:"
_NOTE = "library kernels"
_DEFAULT = DispatchKey.CompositeExplicitAutograd
#: Bridges that are told of a kernel for their arrays, if they are there.
TOLD = {"torch": "polyop.bridges.torch.bridge"}
#: Libraries whose arrays are never written.
UNWRITTEN = frozenset(("jax", "dask"))


def library_kernel(op: OpOverload, library: str, device: str) -> Kernel | None:
    """Give an operator's own kernel for arrays of a library on a device; None if it has none."""
    kernels = library_kernels(op)
    if not kernels:
        return None
    found: Kernel | None = kernels.get((library, device)) or kernels.get((library, ""))
    return found


def has_kernels(op: OpOverload, library: str) -> bool:
    """Tell whether an operator has a kernel for arrays of a library."""
    return any(name == library for name, _ in library_kernels(op))


def library_kernels(op: OpOverload) -> Mapping[tuple[str, str], Kernel]:
    """Give the kernels by library and device type; an empty one stands for every device."""
    found: Mapping[tuple[str, str], Kernel] | None = op.notes.get(_NOTE)
    if found is None:
        found = op.note(_NOTE, _kernels)
    return found


def _kernels(op: OpOverload) -> dict[tuple[str, str], Kernel]:
    found: dict[tuple[str, str], Kernel] = {}
    for place, kernel in op.places.items():
        if isinstance(place, str) and place.startswith(SLOT):
            library, _, device = place.removeprefix(SLOT).partition(":")
            found[library, device] = kernel
    return found


def register(
    op: OpOverload, device_types: Any, library: Any, fn: Fn, lib: Library | None = None
) -> None:
    """Register a kernel for arrays of a library.

    Raises:
        UsageError: the library's arrays cannot do what the operator does, or NumPy's elsewhere
            than on the CPU.
        UsageTypeError: the library is no name.
    """
    devices = _device_types(device_types)
    _check(op, library, devices)
    owner = owner_of(lib, op.places)
    if library == "numpy":
        put_rule(op, DispatchKey.CPU, Kernel(_on_tensors(fn), source_of(fn), owner))
        return
    with LOCK:
        for device in devices:
            put_rule(op, f"{SLOT}{library}:{device}", Kernel(fn, source_of(fn), owner))
        served = compute_entry(op.name(), op.kernels(), DispatchKey.CPU).kernel
        if served is None:  # calls would be refused before anyone looks at their arrays
            put_rule(op, _DEFAULT, Kernel(_refusing(op), caller(), owner))
    if library in TOLD and TOLD[library] in sys.modules:
        load(f"{TOLD[library]}:kernels_changed")(op)


def _device_types(given: Any) -> list[str]:
    if given is None:
        return [""]
    names = [given] if isinstance(given, str | Device) else list(given)
    kernel_keys(names)  # refuses what is no device type
    return [Device(name).type for name in names]


def _check(op: OpOverload, library: Any, devices: list[str]) -> None:
    if not isinstance(library, str) or not library.isidentifier():
        raise UsageTypeError(
            "a library is the name of a module",
            op=op._schema,
            seen=repr(library),
            fix='write "torch", "jax", "dask", "cupy" or "numpy"',
        )
    if library == "numpy" and devices not in ([""], ["cpu"]):
        raise UsageError(
            "NumPy's arrays are on the CPU",
            op=op._schema,
            seen=f"device types {', '.join(devices)}",
            fix='write register_kernel("cpu", library="numpy")',
        )
    kinds = {kind for kind, _ in result_forms(op._schema)}
    if kinds & {"view", "views", "either"}:
        raise UsageError(
            f"{op.name()} returns views, which each library takes in its own way",
            op=op._schema,
            fix="leave library out, or return new arrays",
        )
    if library in UNWRITTEN and op._schema.is_mutable:
        raise UsageError(
            f"{op.name()} writes its arguments, and arrays of {library} are never written",
            op=op._schema,
            seen=f"library={library!r}",
            fix=f"register the kernel for its functional twin: register_kernel(op.functional, "
            f"..., library={library!r})",
        )


def _on_tensors(fn: Fn) -> Fn:
    """Make a kernel on tensors of one that takes NumPy's arrays."""
    unwrap = tree.map_leaves
    asarray: Fn = load("polyop.payloads.api:from_array")

    def bare(x: Any) -> Any:
        return x.numpy() if isinstance(x, PARTS.Tensor) else x

    def wrapped(x: Any) -> Any:
        return asarray(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x

    def kernel(*args: Any, **named: Any) -> Any:
        out = fn(*unwrap(bare, args), **{k: unwrap(bare, v) for k, v in named.items()})
        return unwrap(wrapped, out)

    return kernel


def _refusing(op: OpOverload) -> Fn:
    """Make a kernel that says for which libraries there are some."""

    def kernel(*args: Any, **named: Any) -> Any:
        have = ", ".join(f"{name} on {device or 'any device'}" for name, device in _kernels(op))
        raise MissingKernelError(
            f"{op.name()} has kernels for arrays of some libraries, and none for these",
            op=op._schema,
            declared=f"kernels for: {have}",
            seen=", ".join(type(a).__name__ for a in args),
            source=op.source,
            fix=f"polyop.library.register_kernel({op.name()!r}, None, fn) serves all others",
        )

    return kernel

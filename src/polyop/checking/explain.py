"""Which kernel a call runs, and why: the way of the call, told without running it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyop import tree
from polyop.bridges.places import BRIDGES
from polyop.dispatch.bind import bind, code_of
from polyop.dispatch.bits import OTHER
from polyop.dispatch.context import word
from polyop.dispatch.keys import DispatchKey, is_alias_key
from polyop.dispatch.library_kernels import library_kernel, library_kernels
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import as_operator
from polyop.dispatch.resolve import DENSE, Way, keyset_of, missing_kernel, way_of
from polyop.dispatch.table import Kernel, Reason
from polyop.errors import MissingKernelError, PolyopError
from polyop.layers.payloads.facts import library_in
from polyop.layers.payloads.plan import payload_route
from polyop.payloads.api import from_array
from polyop.payloads.held import Held
from polyop.payloads.library import Library
from polyop.source import Source
from polyop.tensor.tensor import Tensor

#: What layers do, by the end of their class's name and place.
DOES = {
    "OutsideLayer": "a trace around transforms writes the call down",
    "RandomLayer": "vmap gives each sample its random numbers",
    "VmapModeLayer": "a kernel for vmap itself may act",
    "FunctionalLayer": "functionalize turns writes into new values",
    "LevelsLayer": "a transform (vmap, grad, jvp) takes its wrapper off, and calls again",
    "BackLayer": "a transform is left, and the operator called again",
    "AutogradLayer": "autograd records the call",
    "ModesLayer": "a mode, or a class of tensors, is asked",
    "TraceLayer": "the call becomes a node of a graph",
    "FakeLayer": "the fake rule gives results without data; no kernel runs",
    "MetaLayer": "the fake rule gives results without data; no kernel runs",
}
WITHOUT_KERNEL = frozenset(("FakeLayer", "MetaLayer"))
#: Below these the operator is called again, with other values: what is told ends here.
AGAIN = frozenset(("LevelsLayer", "OutsideLayer", "FunctionalLayer"))
REASONS = {
    Reason.KERNEL: "a kernel is registered for {key}",
    Reason.DEFAULT_BACKEND: "no kernel is registered for {key}, and {by} serves all devices",
    Reason.MATH: "no kernel is registered for {key}, and {by} is made of other operators",
    Reason.FALLBACK: "a fallback serves {key} for all operators",
}


@dataclass(frozen=True)
class Explanation:
    """The way of one call.

    Attributes:
        op: the operator.
        arguments: the arrays among the arguments, each with library, dtype, shape and device.
        library: of the arrays: `"numpy"`, `"torch"`, ...
        device: their device type.
        layers: who acts before the kernel, in order, each with what it does.
        kernel: what runs; None if nothing does.
        key: the dispatch key, or the library and device, for which it was registered.
        why: why it is that one.
        conversions: what is converted on the way.
        passed_over: the other kernels, each with the reason.
        problem: what a call raises, if no kernel serves it.
    """

    op: OpOverload
    arguments: tuple[str, ...]
    library: str
    device: str
    layers: tuple[str, ...]
    kernel: Any
    key: str
    why: str
    source: Source | None = None
    conversions: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        name = getattr(self.kernel, "__qualname__", type(self.kernel).__name__)
        rows = [
            ("called with", self.arguments or ("no arrays",)),
            ("layers", self.layers),
            ("kernel", () if self.kernel is None else (f"{name} at {self.source}",)),
            ("why", (self.why,)),
            ("converted", self.conversions),
            ("passed over", self.passed_over),
            ("raises", (self.problem,) if self.problem else ()),
        ]
        lines = [str(self.op._schema)]
        for title, texts in rows:
            for i, text in enumerate(texts):
                lines.append(f"  {title + ':' if not i else '':<13}{text}")
        return "\n".join(lines)

    __repr__ = __str__


def explain(op: Any, /, *args: Any, **kwargs: Any) -> Explanation:
    """Tell which kernel a call would run, and why; nothing runs.

    Args:
        op: the operator, in any form.
        args: the arguments of the call: tensors, or arrays of any library.
        kwargs: arguments by name.

    Returns:
        An `Explanation`; its text tells all.

    Raises:
        ArgumentError: the arguments do not fit the schema.
    """
    found = as_operator(op)
    values = bind(found, [_wrapped(a) for a in args], {k: _wrapped(v) for k, v in kwargs.items()})
    code = code_of(values) | word()
    way = way_of(found, code)
    library = library_in(found, values)[0] if code & OTHER else None
    layers, step = _layers(way, bridged=_bridge_of(found, library))
    return _told(way, values, library, layers, step)


def _wrapped(value: Any) -> Any:
    return tree.map_leaves(lambda x: from_array(x) if PARTS.is_array(x) else x, value)


def _bridge_of(op: OpOverload, library: Library | None) -> str:
    if library is None or op.is_builtin or library.name not in BRIDGES:
        return ""
    return library.name


# -- who acts ---------------------------------------------------------------------------------

Step = tuple[DispatchKey, Kernel] | str | None


def _layers(way: Way, bridged: str) -> tuple[list[str], Step]:
    """Give the layers that act, and the kernel's step, or why there is none."""
    told = []
    for i, (key, step) in enumerate(way.steps):
        if isinstance(step, Kernel):
            if bridged and not key.name.startswith("Autograd"):
                told.append(f"{bridged}: its own operator {way.op.name()} is called, whose "
                            "autograd, batching and compiler act there")  # fmt: skip
            return told, (key, step)
        name = str(getattr(step, "place", type(step).__name__)).rpartition(":")[2]
        if not _acts(way._replace(steps=way.steps[i + 1 :], acted=(*way.acted, key)), step):
            continue
        told.append(f"{key.name}: {DOES.get(_known(name), name)}")
        if _known(name) in WITHOUT_KERNEL:
            return told, "the call has no data, so the fake rule answers"
        if _known(name) in AGAIN:
            return told, "below this layer the operator is called again: explain it there"
    return told, None


def _known(name: str) -> str:
    return {"trace": "TraceLayer", "fake": "FakeLayer"}.get(name.rpartition(".")[2], name)


def _acts(rest: Way, layer: Any) -> bool:
    try:
        return layer.handler(rest) is not None
    except PolyopError:  # what is below it cannot be; that is told of the kernel
        return True


# -- which kernel ------------------------------------------------------------------------------


def _told(
    way: Way, values: Sequence[Any], library: Library | None, layers: list[str], step: Step
) -> Explanation:
    op = way.op
    name = "numpy" if library is None else library.name
    device = _device(way, values)
    facts: dict[str, Any] = {
        "op": op,
        "arguments": tuple(_arguments(op, values)),
        "library": name,
        "device": device,
        "layers": tuple(layers),
    }
    own = None if library is None else library_kernel(op, name, device)
    if isinstance(step, str):
        return Explanation(**facts, kernel=None, key="", why=step)
    if own is not None:
        exact = (name, device) in library_kernels(op)
        place = f"library {name}" + (f", {device}" if exact else "")
        return Explanation(
            **facts, kernel=own.fn, key=place, source=own.source,
            why=f"it is registered for arrays of {name} on {device if exact else 'any device'}, "
            "which goes before kernels for a device alone",
            passed_over=tuple(_others(op, own, name, device)),
        )  # fmt: skip
    if step is None:
        return Explanation(**facts, kernel=None, key="", why="nobody acts", problem=_missing(way))
    key, kernel = step
    entry = op.table[key]
    why = REASONS.get(entry.reason, "{key}: " + entry.reason.value)
    said = why.format(key=key.name, by=entry.key.name)
    if library is not None and op.is_builtin:
        said = f"over {name} it goes the way {payload_route(op, name)!r}"
        return Explanation(**facts, kernel=None, key=key.name, why=said)
    if library_kernels(op):
        said += f"; none of the kernels for one library is for {name} on {device}"
    return Explanation(
        **facts, kernel=kernel.fn, key=entry.key.name, source=kernel.source, why=said,
        conversions=tuple(_conversions(op, values, library, key)),
        passed_over=tuple(_others(op, kernel, name, device)),
    )  # fmt: skip


def _missing(way: Way) -> str:
    try:
        missing_kernel(way)
    except MissingKernelError as error:
        return error.problem


def _device(way: Way, values: Sequence[Any]) -> str:
    for t in tree.leaves(list(values)):
        if isinstance(t, Tensor):
            return t.device.type
    keys = keyset_of(way.code)
    return next((k.name.lower() for k in DENSE if keys.has(k)), "cpu")


def _arguments(op: OpOverload, values: Sequence[Any]) -> Iterator[str]:
    for argument, value in zip(op._schema.arguments, values, strict=True):
        for t in tree.leaves(value):
            if isinstance(t, Tensor):
                payload = t.payload
                held = payload.__class__ is Held
                of = payload.library.name if held else _kind(payload)
                yield f"{argument.name}: {of} {t.dtype}{list(t.shape)} on {t.device}"


def _kind(payload: Any) -> str:
    return "numpy" if isinstance(payload, np.ndarray) else type(payload).__name__.lower()


def _conversions(
    op: OpOverload, values: Sequence[Any], library: Library | None, key: DispatchKey
) -> Iterator[str]:
    if library is None or op.is_builtin or key not in {DispatchKey.CPU, DispatchKey.Undefined}:
        return
    share = library.writes
    for argument, value in zip(op._schema.arguments, values, strict=True):
        for t in tree.leaves(value):
            if isinstance(t, Tensor) and t.payload.__class__ is Held:
                how = "memory is shared" if share else "read-only"
                yield f"{argument.name}: {library.name} to numpy, {how}"
    results = "memory is shared" if share else "copied"
    yield f"results: numpy to {library.name}, {results}"


def _others(op: OpOverload, chosen: Kernel, name: str, device: str) -> Iterator[str]:
    """Give the kernels that were not chosen, each with the reason."""
    for (library, there), kernel in library_kernels(op).items():
        if kernel is not chosen:
            where = f"library {library}, {there or 'any device'} at {kernel.source}"
            if library != name:
                yield f"{where}: the arrays are {name}'s"
            elif there and there != device:
                yield f"{where}: the arrays are on {device}"
            else:
                yield f"{where}: another one is more specific"
    for key, kernel in op.kernels().items():
        if kernel is not chosen and kernel.fn is not None:
            own = chosen in library_kernels(op).values()
            yield f"{key.name} at {kernel.source}: {_why_not(key, device, own=own)}"


def _why_not(key: DispatchKey, device: str, *, own: bool) -> str:
    if own or is_alias_key(key):
        return "a more specific one is there"
    if key in DENSE and key.name.lower() != device:
        return f"the arrays are on {device}"
    return "it is not a key of this call"

"""Who acts on a call: decided here once, then remembered.

A call arrives as a code (`bits.py`). It is spelled out as a key set, the
operator's table says which keys act, and each acting key gives a step: a
registered kernel, or the layers that the key means. The first step that has
something to do makes the handler; the handler holds the one below it, so a
call makes no look-ups between layers. Cold: clear before fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, Protocol

from polyop.dispatch.bits import (
    BACKEND_SHIFT,
    BACKENDS,
    BATCHED,
    EXCLUDE_SHIFT,
    FAKE,
    FAKE_MODE,
    FUNCTIONAL,
    FUNCTIONALIZE,
    GRAD,
    INCLUDE_SHIFT,
    INFERENCE,
    INFERENCE_TENSOR,
    LEVELS,
    LIFTED,
    MODES,
    NUMPY,
    OTHER,
    SET_MASK,
    SUBCLASS,
    TENSOR_BITS,
    TRACE,
    WRAPPED,
)
from polyop.dispatch.context import AUTOGRAD, DEFAULT_EXCLUDE, DEFAULT_INCLUDE, Word
from polyop.dispatch.keys import (
    DispatchKey,
    autocast_key_for,
    autograd_key_for,
    functionality_of,
)
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import BUILT_IN, Kernel, Reason, acting, ambiguity
from polyop.errors import MissingKernelError


class Layer(Protocol):
    """What a key means. It asks for slots, never which operator it has."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler of this layer, or None if it has nothing to do.

        `way.handler()` is the handler below.
        """


#: The layers of each functionality, in the order in which they act.
LAYERS: dict[Any, list[Layer]] = {}


class Way(NamedTuple):
    """The rest of a call's way: the operator, its code, and the steps to come.

    Attributes:
        op: the operator.
        code: of the call, tensors and context.
        keys: the whole key set.
        steps: what has not acted yet: a key, and its kernel or layer.
        acted: the keys of the layers above.
    """

    op: OpOverload
    code: int
    keys: DispatchKeySet
    steps: tuple[tuple[DispatchKey, Kernel | Layer], ...]
    acted: tuple[DispatchKey, ...] = ()

    def handler(self) -> Handler:
        """Make the handler of the first step that has something to do."""
        for i, (key, step) in enumerate(self.steps):
            rest = self._replace(steps=self.steps[i + 1 :], acted=(*self.acted, key))
            if isinstance(step, Kernel):
                here = rest._replace(acted=self.acted)
                made: Handler | None = PARTS.kernel_handler(here, key, step)
            else:
                made = step.handler(rest)
            if made is not None:
                return made
        return missing_kernel(self)


def resolve(op: OpOverload, code: int) -> Handler:
    """Decide who acts on a call, and remember it."""
    # One lock for deciding and for registering: a handler made from old rules
    # can then never be stored after the rules have changed.
    with LOCK:
        if not op.alive:
            op.gone()
        made = way_of(op, code).handler()
        op.memo[code] = made
        return made


def way_of(op: OpOverload, code: int, keys: DispatchKeySet | None = None) -> Way:
    """Lay out all steps of a call."""
    keys = keyset_of(code) if keys is None else keys
    return Way(op, code, keys, tuple(_steps(op, keys)))


def _steps(op: OpOverload, keys: DispatchKeySet) -> Iterator[tuple[DispatchKey, Kernel | Layer]]:
    for key in acting(keys, op.table):
        entry = op.table[key]
        if entry.reason is Reason.AMBIGUOUS:
            raise ambiguity(op.name(), op.kernels())
        if key is DispatchKey.Meta:
            # Ahead of a kernel for all backends, which would look into data.
            for layer in LAYERS.get(key, ()):
                yield key, layer
        if entry.kernel is not None and entry.kernel is not BUILT_IN:
            yield key, entry.kernel
        else:
            for layer in LAYERS.get(functionality_of(key), ()):
                yield key, layer
    last = op.table[DispatchKey.Undefined].kernel
    if last is not None and not last.fallthrough:
        yield DispatchKey.Undefined, last


# -- codes spelled out --------------------------------------------------------


def keyset_of(code: int) -> DispatchKeySet:
    """Spell out the key set of a call: (include | tensors) - exclude (S92)."""
    tensors = tensor_keys(code & TENSOR_BITS) if code & TENSOR_BITS else DispatchKeySet()
    return (tensors | included(code)) - excluded(code)


def included(code: int) -> DispatchKeySet:
    """Spell out the include set, with the keys that are there while something is active."""
    keys = DispatchKeySet.from_bits(code >> INCLUDE_SHIFT & SET_MASK ^ DEFAULT_INCLUDE.bits)
    if code & (MODES | TRACE | FAKE_MODE | FUNCTIONALIZE):
        keys |= DispatchKeySet([DispatchKey.Python, DispatchKey.PythonTLSSnapshot])
    if code & (LEVELS | WRAPPED):
        front = DispatchKey.FuncTorchDynamicLayerFrontMode
        keys |= DispatchKeySet([front, DispatchKey.FuncTorchDynamicLayerBackMode])
    if code & INFERENCE:
        keys -= DispatchKeySet([DispatchKey.ADInplaceOrView])
    return keys


def excluded(code: int) -> DispatchKeySet:
    """Spell out the exclude set."""
    keys = DispatchKeySet.from_bits(code >> EXCLUDE_SHIFT & SET_MASK ^ DEFAULT_EXCLUDE.bits)
    return keys | AUTOGRAD if code & INFERENCE else keys


def tensor_keys(code: int) -> DispatchKeySet:
    """Spell out the keys of tensors (S79)."""
    keys = DispatchKeySet()
    for backend in backends_of(code):
        keys |= DispatchKeySet([backend])
        autocast = autocast_key_for(backend)
        if autocast is not None:
            keys |= DispatchKeySet([autocast])
        # A tensor that requires grad was not made under inference mode, whatever stands beside it.
        if code & GRAD or not code & INFERENCE_TENSOR:
            keys |= DispatchKeySet([DispatchKey.ADInplaceOrView, autograd_key_for(backend)])
    if code & (FAKE | SUBCLASS):
        keys |= DispatchKeySet([DispatchKey.Python, DispatchKey.PythonTLSSnapshot])
    for bit, key in _WRAPPERS:
        if code & bit:
            keys |= DispatchKeySet([key])
    return keys


_WRAPPERS = (
    (BATCHED, DispatchKey.FuncTorchBatched),
    (LIFTED, DispatchKey.FuncTorchGradWrapper),
    (FUNCTIONAL, DispatchKey.Functionalize),
)


def backends_of(code: int) -> list[DispatchKey]:
    """Give the dense keys of the backends in a code."""
    bits = (code & BACKENDS) >> BACKEND_SHIFT
    if code & NUMPY or (not bits and code & (OTHER | FAKE | SUBCLASS | WRAPPED)):
        bits |= 1
    return [DENSE[i] for i in range(len(DENSE)) if bits >> i & 1]


#: The dense key of each backend, lowest first; the order of `DispatchKeySet`'s bits.
DENSE = (
    DispatchKey.CPU, DispatchKey.CUDA, DispatchKey.XLA, DispatchKey.MPS, DispatchKey.XPU,
    DispatchKey.PrivateUse1, DispatchKey.PrivateUse2, DispatchKey.PrivateUse3, DispatchKey.Meta,
)  # fmt: skip


def word_keys(word: Word) -> DispatchKeySet:
    """Give the keys that a word includes."""
    return included(int(word))


# -- dispatch on a given set --------------------------------------------------


def redispatch(op: OpOverload, keys: DispatchKeySet, args: Any, kwargs: Any) -> Any:
    """Dispatch on given keys; neither context nor arguments are looked at (S103)."""
    values = PARTS.bind(op, args, kwargs)
    code = PARTS.code_of(values)
    return way_of(op, code, keys).handler()(*values)


# -- nobody acts --------------------------------------------------------------


def missing_kernel(way: Way) -> NoReturn:
    """Raise the error of a call that no kernel serves (S90, S91)."""
    op = way.op
    dense = [key for key in DENSE if way.keys.has(key)]
    key = dense[-1] if dense else way.keys.highest()
    devices = sorted({k.name.lower() for k in op.kernels() if k in DENSE}) or ["none"]
    if dense and not way.code & TENSOR_BITS:
        why = "its argument device asks for it"
    elif not way.code & TENSOR_BITS:
        why = "the call has no Tensor, so no device says which kernel to run"
    elif way.acted:
        why = f"nobody acts below {way.acted[-1].name}"
    else:
        why = "every key of the call falls through"
    device = dense[-1].name.lower() if dense else "cpu"
    raise MissingKernelError(
        f"{op.name()} has no kernel for {device} (dispatch key {key.name}): {why}",
        op=op._schema,
        declared=f"kernels for: {', '.join(devices)}",
        source=op.source,
        fix=f"polyop.library.register_kernel({op.name()!r}, {device!r}, fn)",
    )


PARTS.redispatch = redispatch

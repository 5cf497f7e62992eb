"""Who acts on a call: decided here once, then remembered.

A call arrives as a code (`bits.py`). It is spelled out as a key set, the
operator's table says which keys act, and each acting key gives a step: a
registered kernel, or the layers that the key means. The first step that has
something to do makes the handler; the handler holds the one below it, so a
call makes no look-ups between layers. Cold: clear before fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol

from polyop.devices import Device
from polyop.dispatch.bits import (
    BACKEND_SHIFT,
    BACKENDS,
    BATCHED,
    BELOW,
    EXCLUDE_SHIFT,
    FAKE,
    FAKE_MODE,
    FAKE_OBJECT,
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
    PRE_DISPATCH,
    SET_MASK,
    SUBCLASS,
    TENSOR_BITS,
    TRACE,
    WRAPPED,
)
from polyop.dispatch.context import (
    AUTOGRAD,
    DEFAULT_EXCLUDE,
    DEFAULT_INCLUDE,
    Word,
    run_under,
    word,
)
from polyop.dispatch.keys import (
    AUTOGRAD_KEYS,
    DispatchKey,
    autocast_key_for,
    autograd_key_for,
    functionality_of,
)
from polyop.dispatch.keyset import DispatchKeySet, below, down_from, full_keyset
from polyop.dispatch.lock import LOCK
from polyop.dispatch.objects import without_passed
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.table import BUILT_IN, Kernel, Reason, acting, ambiguity, mask_of
from polyop.errors import MissingKernelError
from polyop.records import NamedTuple


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
                here = rest._replace(acted=self.acted).told(key, step)
                made: Handler | None = PARTS.kernel_handler(here, key, step)
            else:
                made = step.handler(rest)
            if made is not None:
                return made
        return missing_kernel(self)

    def told(self, key: DispatchKey, kernel: Kernel) -> Way:
        """Give the way with the keys that a kernel is told, if it asks for them."""
        if not kernel.with_keyset:
            return self
        return self._replace(keys=told_keys(self.op, self.keys, key))


def resolve(op: OpOverload, code: int) -> Handler:
    """Decide who acts on a call, and remember it."""
    # One lock for deciding and for registering: a handler made from old rules
    # can then never be stored after the rules have changed.
    with LOCK:
        if not op.alive:
            op.gone()
        # The code of a call without tensors is the word itself, which holds modes (S107).
        made = way_of(op, int(code)).handler()
        op.memo[int(code)] = made
        return made


def way_of(
    op: OpOverload, code: int, keys: DispatchKeySet | None = None, *, ours: bool = False
) -> Way:
    """Lay out all steps of a call; `ours` leaves out a kernel of the operator's at Python."""
    keys = keyset_of(code) if keys is None else keys
    if code & FAKE_OBJECT:
        keys = without_passed(op, keys)
    return Way(op, code, keys, tuple(_steps(op, keys, ours=ours)))


def told_keys(op: OpOverload, keys: DispatchKeySet, key: DispatchKey) -> DispatchKeySet:
    """Give what a kernel at `key` is told of a key set: who may act, from itself on (S103)."""
    return keys & mask_of(op.table) & down_from(key)


#: The keys whose layers act before a kernel that is registered there.
AHEAD = (DispatchKey.Meta, DispatchKey.PreDispatch)
#: The place of the layers that stand around each registered kernel.
AROUND = "around"


def _steps(
    op: OpOverload, keys: DispatchKeySet, *, ours: bool = False
) -> Iterator[tuple[DispatchKey, Kernel | Layer]]:
    below_autograd = False
    for key in keys.leading():
        entry = op.table[key]
        if entry.reason is Reason.FALLTHROUGH:
            if key in AUTOGRAD_KEYS and op._schema.is_mutable:
                # No kernel acts there, but a write is seen by the history of its tensor (S135).
                for layer in LAYERS.get(functionality_of(key), ()):
                    yield key, layer
            continue
        if key in AUTOGRAD_KEYS and below_autograd:
            continue  # what polyop does at an autograd key goes on below all of them (S99)
        if entry.reason is Reason.MISSING:
            return
        if entry.reason is Reason.AMBIGUOUS:
            yield key, _Claimed()
            return
        if key in AHEAD:
            # Ahead of a kernel for all backends, which would look into data; and a
            # pre-dispatch mode goes before a kernel at its key.
            for layer in LAYERS.get(key, ()):
                yield key, layer
        kernel = None if ours and key is DispatchKey.Python else entry.kernel
        if kernel is not None and kernel.fn is not None:
            for layer in LAYERS.get(AROUND, ()):
                yield key, layer
            yield key, kernel
            return
        for layer in LAYERS.get(functionality_of(key), ()):
            yield key, layer
        below_autograd = below_autograd or key in AUTOGRAD_KEYS
    last = op.table[DispatchKey.Undefined].kernel
    if last is not None and not last.fallthrough:
        yield DispatchKey.Undefined, last


class _Claimed:
    """Stands where two kernels claim the key; it raises when a call gets there (S87)."""

    def handler(self, way: Way) -> NoReturn:
        """Raise the error that names both."""
        raise ambiguity(way.op.name(), way.op.kernels())


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
    if code & PRE_DISPATCH:
        keys |= DispatchKeySet([DispatchKey.PreDispatch])
    if code & INFERENCE:
        keys -= DispatchKeySet([DispatchKey.ADInplaceOrView])
    return keys


_WRAPPERS = (
    (BATCHED, DispatchKey.FuncTorchBatched),
    (LIFTED, DispatchKey.FuncTorchGradWrapper),
    (FUNCTIONAL, DispatchKey.Functionalize),
)
#: What is excluded while the handler of a mode or a subclass runs (S99).
ABOVE_PYTHON = full_keyset - below(DispatchKey.Python) - DispatchKeySet([DispatchKey.Python])
#: The keys of transforms.
LEVEL_KEYS = DispatchKeySet(
    [
        DispatchKey.FuncTorchDynamicLayerFrontMode,
        DispatchKey.FuncTorchDynamicLayerBackMode,
        *(key for _, key in _WRAPPERS),
    ]
)


def excluded(code: int) -> DispatchKeySet:
    """Spell out the exclude set."""
    keys = DispatchKeySet.from_bits(code >> EXCLUDE_SHIFT & SET_MASK ^ DEFAULT_EXCLUDE.bits)
    if code & BELOW:
        # What belongs to a transform goes to it all the same: nobody else knows what it is.
        keys |= ABOVE_PYTHON - LEVEL_KEYS if code & WRAPPED else ABOVE_PYTHON
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
    """Dispatch on given keys; neither context nor arguments add or take any (S103)."""
    if not op.alive:
        op.gone()
    chosen = keys if isinstance(keys, DispatchKeySet) else DispatchKeySet(keys)
    values = PARTS.bind(op, args, kwargs)
    # The keys say who acts; the code tells them on what: a mode that is there, or no grad mode.
    code = PARTS.code_of(values) | word()
    if code & (TRACE | FAKE | PRE_DISPATCH) and not chosen.has(DispatchKey.Python):
        before = code & PRE_DISPATCH and not (chosen & _BEFORE or code & BELOW)
        proxy: Any = word().pre[0] if before else None
        if hasattr(proxy, "beneath"):
            return run_under(proxy.beneath(), redispatch, op, keys, args, kwargs)
        # A trace records this call too, and no kernel can compute with fakes.
        if code & (TRACE | FAKE):
            chosen |= DispatchKeySet([DispatchKey.Python])
            return way_of(op, code & ~(MODES | SUBCLASS), chosen, ours=True).handler()(*values)
    return way_of(op, code, chosen).handler()(*values)


#: The keys where a call meets a trace before dispatch, at once or as the call of a level.
_BEFORE = LEVEL_KEYS | DispatchKeySet([DispatchKey.PreDispatch])


def decompose(op: OpOverload, args: Any, kwargs: Any) -> Any:
    """Run the kernel that is made of operators, or give `NotImplemented` (S61)."""
    kernel = op.places.top(DispatchKey.CompositeImplicitAutograd)
    if kernel is None or kernel.fn is None:
        if not op.alive:
            op.gone()
        return NotImplemented
    values = PARTS.bind(op, args, kwargs)
    made, of = op.notes.get("decompose", (None, None))
    if of is not kernel:
        code = PARTS.code_of(values) | word()
        way = Way(op, code, keyset_of(code) & mask_of(op.table), ())
        made = PARTS.kernel_handler(way, DispatchKey.CompositeImplicitAutograd, kernel)
        made = made if op.is_builtin else PARTS.noted(op, made)
        if not kernel.with_keyset:  # which is told the keys of each call
            op.notes["decompose"] = made, kernel
    return made(*values)


# -- nobody acts --------------------------------------------------------------


def missing_kernel(way: Way) -> NoReturn:
    """Raise the error of a call that no kernel serves (S90, S91)."""
    op, table = way.op, way.op.table
    dense = [key for key in DENSE if way.keys.has(key)]
    refused = [key for key in acting(way.keys, table) if table[key].reason is Reason.MISSING]
    key = (*refused, *reversed(dense), DispatchKey.Undefined)[0]
    off = key in op.disabled
    where = f"{_device(key)} (dispatch key {key})" if key in DENSE else f"the dispatch key {key}"
    raise MissingKernelError(
        f"{op.name()} has no kernel for {where}: "
        + ("the one it has is disabled" if off else _why(way, refused, dense)),
        op=op._schema,
        declared=f"kernels for: {_served(op)}",
        source=op.rule_source(key) if off else op.source,
        fix=f"enable it: set_kernel_enabled({_device(key)!r})" if off else _line_to_write(op, key),
    )


def _served(op: OpOverload) -> str:
    """Name the devices that an operator has a kernel for."""
    kernels = {k: op.table[k].kernel for k in DENSE}
    found = [k for k, kernel in kernels.items() if kernel and kernel is not BUILT_IN]
    found = [k for k in found if op.table[k].reason is not Reason.FALLTHROUGH]
    if len(found) == len(DENSE):
        return "every device"
    return ", ".join(sorted(map(_device, found))) or "none"


def _device(key: DispatchKey) -> str:
    if key is DispatchKey.PrivateUse1:
        return str(Device("privateuseone"))  # the name that it was given
    return key.name.lower()


def _why(way: Way, refused: Sequence[DispatchKey], dense: Sequence[DispatchKey]) -> str:
    if dense and not way.code & TENSOR_BITS:
        return "its argument device asks for it"
    if not way.code & TENSOR_BITS:
        return "the call has no Tensor, so no device says which kernel to run"
    if way.acted:
        return f"nobody acts below {way.acted[-1].name}"
    return "it is the highest key of the call" if refused else "every key of the call falls through"


def _line_to_write(op: OpOverload, key: DispatchKey) -> str:
    if key in DENSE or not key:  # no device says what runs where no key is left
        where = _device(key) if key else None
        return f"polyop.library.register_kernel({op.name()!r}, {where!r}, fn)"
    return f'polyop.library.impl({op.name()!r}, "{key}", fn)'


PARTS.redispatch = redispatch
PARTS.decompose = decompose

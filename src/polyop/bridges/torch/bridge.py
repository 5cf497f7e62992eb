"""An operator as one of PyTorch: defined once, called by one of two paths (`functions.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch

from polyop import tree
from polyop.bridges.torch.arrays import (
    Call,
    arrays_of,
    check_writable,
    each,
    joined,
    of_array,
    placed,
    split,
    torch_values,
)
from polyop.bridges.torch.bare import bare_backward, bare_setup, bare_vmap, refuse_bare
from polyop.bridges.torch.draws import drawn_by_us, is_random
from polyop.bridges.torch.duals import bare, compiled
from polyop.bridges.torch.fake import Fake
from polyop.bridges.torch.functions import Plain, Transformed
from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.listed import asks, listed
from polyop.bridges.torch.namespaces import WAITING
from polyop.bridges.torch.own import kernel_of, refresh, take_nested
from polyop.bridges.torch.parts import Parts, is_made_of_parts
from polyop.bridges.torch.randomness import each_its_own, vmap_kernel
from polyop.bridges.torch.recorded import Target
from polyop.bridges.torch.schema import TORCH, Translation, name_of, torch_dtype, translate
from polyop.bridges.torch.unrecorded import Direct, Shortening, unwritten
from polyop.bridges.torch.written import BARE, has_autocast, is_writable, write_call
from polyop.dispatch.library_kernels import has_kernels
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.errors import (
    DuplicateRegistrationError,
    MutationError,
    PolyopError,
    RegistrationError,
    first_line,
)
from polyop.payloads.held import Held
from polyop.tensor.storage import bump
from polyop.tensor.tensor import Tensor

_library: Any = torch.library.Library
_plain: Any = Plain.apply
_transformed: Any = Transformed.apply
forward_ad: Any = torch.autograd.forward_ad  # without types
unpack_dual: Any = forward_ad.unpack_dual
debug_unwrap: Any = torch.func.debug_unwrap


class Bridge:
    """One operator in PyTorch.

    Attributes:
        op: the operator.
        plan: its schema in PyTorch's words.
        target: the operator of `torch.library`.
        in_parts: whether it is nothing but its parts, to PyTorch too.
    """

    def __init__(self, op: OpOverload) -> None:
        WAITING.discard(op)
        self.op = op
        self.plan: Translation = translate(op)
        self.unseen_text = str(self.unseen())
        self._quick: dict[bool, Callable[..., Any] | None] = {}
        self.direct: Direct | None = None
        self.in_parts = is_made_of_parts(op)
        name = f"{op.namespace}::{name_of(op)}"
        try:
            self.library: Any = _library(op.namespace, "FRAGMENT")
            self._define(name)
        except Exception as error:  # whatever PyTorch has against it, our definition stays
            if hasattr(self, "library"):
                self.library._destroy()
            raise _refused(op, error) from error

    def _define(self, name: str) -> None:
        op, lib, plan = self.op, self.library, self.plan
        known = [getattr(torch.Tag, tag.name, None) for tag in op.tags]
        lib.define(plan.text, tags=tuple(tag for tag in known if tag is not None))
        short_name, _, overload = name_of(op).partition(".")
        packet = getattr(getattr(torch.ops, op.namespace), short_name)
        self.target = getattr(packet, overload or "default")
        if self.in_parts:
            lib.impl(name_of(op), Parts(op, plan), "CompositeImplicitAutograd")
            return
        kernel = kernel_of(op, plan)
        lib.impl(name_of(op), kernel, "CompositeExplicitAutograd")
        take_nested(op, plan, self.target, lib)
        for key in ("Conjugate", "Negative") if op._schema.is_mutable else ():
            # PyTorch would copy such a view, and want a result to copy back.
            lib.impl(name_of(op), torch.library.fallthrough_kernel, key)
        torch.library.register_fake(name, Fake(op, plan), lib=lib)
        if op._schema.is_mutable:
            written = unwritten(self.target, partial(refuse_bare, self), asks(plan))
            if written is not None:
                lib.impl(name_of(op), written, "Autograd", with_keyset=True)
        elif plan.results:
            alone = None if has_kernels(op, "torch") else kernel
            short: Any = Shortening(lib, self.target, alone, partial(bare, self), asks(plan))
            self.direct = short.direct
            own = listed(self)
            if own is not None:
                short.impl(name_of(op), own, "Autograd", with_keyset=True)
            else:
                torch.library.register_autograd(
                    name, bare_backward, setup_context=partial(bare_setup, self), lib=short
                )
        torch.library.register_vmap(name, partial(bare_vmap, self), lib=lib)
        if is_random(op):
            lib.impl(name_of(op), announce(vmap_kernel(self)), "FuncTorchVmapMode")

    # -- calls --------------------------------------------------------------------------

    @property
    def quick(self) -> Callable[..., Any] | None:
        """The call with tensors as they are; None if no text can say it."""
        casts = has_autocast(self.op)  # a rule may have come since
        if casts not in self._quick:
            known = (self.op, self.plan, self.target)
            can, what = is_writable(self.plan), Target(*known, self.single)
            self._quick[casts] = write_call(*known, call, what) if can else None
        return self._quick[casts]

    def invoke(self, values: Sequence[Any]) -> Any:
        """Call with PyTorch's tensors and values, and give its tensors."""
        if self.in_parts:
            return self.target(*values)
        if torch.compiler.is_compiling():
            return compiled(self, values)
        if BARE.get():
            return self.target(*values)
        row, kept = split(self.plan, values)
        call = Call(self.op, self.plan, self.target, kept)
        call.single = self.single
        if any(debug_unwrap(t, recurse=False) is not t for t in row):
            return self._transformed(call, row)
        grads = torch.is_grad_enabled() and any(t.requires_grad for t in row)
        if not grads and not any(unpack_dual(t).tangent is not None for t in row):
            return self.target(*values)
        self.refuse_unseen(row)
        started: list[bool] = []
        try:
            outs = _plain(started, call, *row)
        except RuntimeError:  # a value captured inside of a transform is seen by nobody before
            if started:
                raise
            outs = _transformed(call, *each_its_own(call, row))
        return call.answer(outs)

    def single(self, *values: Any) -> Any:
        """Call for one sample."""
        return self.invoke(values)

    def _transformed(self, call: Call, row: Sequence[Any]) -> Any:
        if self.op._schema.is_mutable:
            self.refuse_unseen(row)
            return self.target(*placed(call.values, row))
        return call.answer(_transformed(call, *each_its_own(call, row)))

    def refuse_unseen(self, row: Sequence[Any]) -> None:
        """Refuse a write that gradients would not see.

        Raises:
            MutationError: the operator writes, and a gradient is asked for.
        """
        if self.is_unseen(row):
            raise self.unseen()

    def is_unseen(self, row: Sequence[Any]) -> bool:
        """Tell whether a call writes what a gradient is asked for."""
        return self.op._schema.is_mutable and any(_is_watched(t) for t in row)

    def unseen(self) -> MutationError:
        """Make the error of a write that gradients would not see."""
        written = ", ".join(a.name for a in self.op._schema.written)
        return MutationError(
            f"{self.op.name()} writes {written}, and a gradient of PyTorch would not see it",
            op=self.op._schema,
            source=self.op.source,
            fix="call it under torch.no_grad(), or on detached tensors; or write an operator "
            "that returns new tensors",
        )


def _is_watched(t: Any) -> bool:
    recorded: bool = torch.is_grad_enabled() and t.requires_grad
    return recorded or unpack_dual(t).tangent is not None


# -- what the other parts ask for -------------------------------------------------------------

#: The bridges, or why there is none.
_BRIDGES: WeakKeyDictionary[OpOverload, Bridge | PolyopError] = WeakKeyDictionary()
#: Who is told of each new bridge.
MADE: list[Callable[[Bridge], None]] = []


def bridge_of(op: OpOverload) -> Bridge:
    """Give the bridge of an operator, defined in PyTorch when it is first asked for.

    Raises:
        ArgumentError: PyTorch's schemas have no word for a type.
        DuplicateRegistrationError: PyTorch has another operator of the name.
        OperatorGoneError: it was removed.
    """
    found = _BRIDGES.get(op)
    if found.__class__ is not Bridge:
        found = _made(op)
    if isinstance(found, Bridge):
        return found
    raise found.with_traceback(None)


def _made(op: OpOverload) -> Bridge | PolyopError:
    with LOCK:
        if not op.alive:
            op.gone()
        found = _BRIDGES.get(op)
        if isinstance(found, Bridge):
            return found
        try:
            made: Bridge | PolyopError = Bridge(op)
        except PolyopError as error:
            made = error
        _BRIDGES[op] = made
        if isinstance(made, Bridge):
            for tell in MADE:
                tell(made)
        return made


def bridges() -> list[Bridge]:
    """Give all bridges that there are."""
    with LOCK:
        return [bridge for bridge in _BRIDGES.values() if isinstance(bridge, Bridge)]


def takes(op: OpOverload, values: Sequence[Any]) -> bool:
    """Tell whether a call goes over PyTorch's operator; without one, only data can be converted.

    Raises:
        ArgumentError: there is none, and a gradient, a transform or a trace asks for it.
        DuplicateRegistrationError: it has another operator of the name, and one is asked for.
    """
    found = _BRIDGES.get(op)
    if isinstance(found, Bridge) or isinstance(found := _made(op), Bridge):
        return True
    for t in tree.leaves(list(values)):
        array = getattr(t.payload, "array", None) if isinstance(t, Tensor) else t
        if isinstance(array, torch.Tensor) and (
            not TORCH.is_concrete(array) or _is_watched(array) or torch.compiler.is_compiling()
        ):
            raise found.with_traceback(None)
    return False


def define(op: OpOverload) -> None:
    """Make an operator known to PyTorch; what hinders it is said when it is called."""
    _made(op)


def kernels_changed(op: OpOverload) -> None:
    """Let PyTorch's operator run the kernels that an operator has now, if it is there."""
    with LOCK:
        found = _BRIDGES.get(op)
        if isinstance(found, Bridge) and not found.in_parts:
            if found.direct is not None:
                found.direct.stop()
            refresh(op, found.plan, found.library)


def remove(op: OpOverload) -> None:
    """Take an operator out of PyTorch."""
    with LOCK:
        found = _BRIDGES.pop(op, None)
        if isinstance(found, Bridge):
            found.library._destroy()


def _refused(op: OpOverload, error: Exception) -> PolyopError:
    text = first_line(error) or type(error).__name__
    known = "multiple times" in text or "already" in text or "Duplicate" in text
    return (DuplicateRegistrationError if known else RegistrationError)(
        f"PyTorch does not take the operator {op.name()}",
        op=op._schema,
        seen=text[:300],
        source=op.source,
        fix="give it another name: PyTorch has one of this name already"
        if known
        else "give it another name or schema",
    )


def call(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with PyTorch's tensors; its results are tensors, or what it wrote."""
    bridge = bridge_of(op)
    given = torch_values(bridge.plan, joined(op, bridge.plan, values))
    given = _autocast(bridge, given)
    result = finished(bridge, given, bridge.invoke(given))
    if (quick := bridge.quick) is not None and _is_plain(bridge, values):
        op.notes[tuple([v.__class__ for v in values])] = quick
    return result


#: The classes of tensors that need no look.
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))


def _is_plain(bridge: Bridge, values: Sequence[Any]) -> bool:
    """Tell whether calls with values of the same classes need no look at them."""
    return all(
        p.kind == "static" or v.__class__ in _PLAIN or (v is None and p.kind == "tensor?")
        for p, v in zip(bridge.plan.places, values, strict=True)
    )


def call_tensors(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with tensors of ours over PyTorch's; its results are such tensors."""
    bridge = bridge_of(op)
    places = zip(bridge.plan.places, values, strict=True)
    written = [t for place, value in places if place.written for t in _tensors(value)]
    for t in written:
        check_writable(op, t, values)
    given = _autocast(bridge, torch_values(bridge.plan, arrays_of(op, bridge.plan, values)))
    out = drawn_by_us(op, bridge.invoke, given)
    for t in written:
        bump(t)
        if t.payload.__class__ is Held:
            t.payload.wrote()
    found = finished(bridge, values, out)
    return tree.map_leaves(lambda t: of_array(t) if isinstance(t, torch.Tensor) else t, found)


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [t for t in values if isinstance(t, Tensor)]


def finished(bridge: Bridge, values: Sequence[Any], out: Any) -> Any:
    """Give the results of our schema: an argument that is written is one of them."""
    forms = bridge.plan.forms
    if all(kind != "argument" for kind, _ in forms):
        return out
    results = iter([out] if len(bridge.plan.results) == 1 else list(out or ()))
    found = [values[i] if kind == "argument" else next(results) for kind, i in forms]
    return found[0] if len(found) == 1 else tuple(found)


def _autocast(bridge: Bridge, values: list[Any]) -> list[Any]:
    """Cast as the author's autocast rule says, where PyTorch's autocast is on."""
    if not torch.is_autocast_enabled("cpu") and not torch.is_autocast_enabled("cuda"):
        return values
    kinds = {t.device.type for v in values for t in tree.leaves(v) if isinstance(t, torch.Tensor)}
    for kind in kinds:
        rule = bridge.op.rule(f"autocast:{kind}")
        if rule is not None and torch.is_autocast_enabled(kind):
            return cast_all(bridge.plan, torch_dtype(rule), kind, values)
    return values


def cast_all(plan: Translation, dtype: torch.dtype, kind: str, values: Sequence[Any]) -> list[Any]:
    """Cast all that is read; of what is written, a cast would hide the write."""
    to = partial(cast, dtype, kind)
    return [v if p.written else each(to, v) for p, v in zip(plan.places, values, strict=True)]


def cast(dtype: torch.dtype, kind: str, value: Any) -> Any:
    """Cast a value as autocast does, if it is a tensor of floats of a kind of device."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.to(dtype) if value.device.type == kind and value.dtype != torch.float64 else value

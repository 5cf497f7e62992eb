"""The author's gradient on PyTorch's tensors: what forward keeps, backward and tangents.

Rules see tensors of ours over PyTorch's, so that what they compute is recorded there, and a
gradient is differentiable as far as it is made of operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from polyop import tree
from polyop.bridges.torch.arrays import QUIET, Call, array_of, of_array, placed
from polyop.bridges.torch.kernel import check
from polyop.dispatch.context import run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import MissingGradientError
from polyop.layers.autograd.author import RUNNING, AuthorRecorder
from polyop.layers.autograd.context import Context, refuse
from polyop.layers.autograd.recorders import missing_gradient, recorder_of
from polyop.layers.autograd.stops import stop_error
from polyop.layers.rule_notes import note_rule
from polyop.payloads.exchange import LOOKS
from polyop.tensor.tensor import Tensor


class BridgeContext(Context):
    """The `ctx` of an author's rules while PyTorch records: what is saved is PyTorch's to keep."""

    _forward: Sequence[Any] | None = None

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`."""
        self._forward = tensors


class Saved:
    """Stands for a tensor that PyTorch keeps: its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Kept(NamedTuple):
    """What a forward kept besides tensors.

    Attributes:
        call: the call.
        recorder: calls the author's functions; None if there are none.
        constant: the numbers of the results through which no gradient flows.
        zeros: whether absent gradients come as zeros.
        attributes: of the context, a `Saved` for each tensor.
        inputs: shape and dtype of each tensor among the arguments.
        results: of each result.
        device: of the results, where there are any.
    """

    call: Call
    recorder: AuthorRecorder | None
    constant: frozenset[int]
    zeros: bool
    attributes: dict[str, Any]
    inputs: list[tuple[Any, torch.dtype]]
    results: list[tuple[Any, torch.dtype]]
    device: Any


#: What a context has besides the author's own attributes; only the first are for rules.
_CARRIED = ("_saved", "_forward")
OWN = frozenset(
    ("_versions", "_names", "_ids", "_without", "_dirty", "_materialize", "_node")
) | {"needs_input_grad"}  # fmt: skip


def setup(ctx: Any, call: Call, row: Sequence[Any], outs: Sequence[Any], needs: Any = None) -> None:
    """Run the author's `setup_context`, and let PyTorch keep what it saved.

    Args:
        ctx: PyTorch's.
        call: the call.
        row: the tensors among its arguments.
        outs: the results in a row.
        needs: for each tensor, whether its gradient is asked for.
    """
    found = recorder_of(call.op)
    if found is None:
        ctx.mark_non_differentiable(*outs)
    recorder = found if isinstance(found, AuthorRecorder) else None
    attributes: dict[str, Any] = {}
    constant = frozenset(range(len(outs)) if found is None else ())
    zeros = True
    if recorder is not None:
        own, constant = _author_setup(ctx, call, recorder, row, outs, needs)
        attributes = {k: v for k, v in own.__dict__.items() if k not in OWN}
        zeros = own._materialize
    arrays: list[Any] = []
    kept = {k: keep(arrays, v) for k, v in attributes.items()}
    ctx.save_for_backward(*arrays)
    if hasattr(ctx, "save_for_forward"):
        ctx.save_for_forward(*arrays)
    device = outs[0].device if outs else None
    try:
        facts = (_facts(row), _facts(outs), device)
    except RuntimeError:  # a nested tensor of a strided layout has no shape
        check(call.op, call.plan, placed(call.values, row))
        raise
    ctx.kept = Kept(call, recorder, constant, zeros, kept, *facts)


def _author_setup(  # noqa: PLR0917 - what `setup` got
    ctx: Any, call: Call, recorder: AuthorRecorder, row: Sequence[Any], outs: Any, needs: Any
) -> tuple[BridgeContext, frozenset[int]]:
    results = [of_array(t) for t in outs]
    out = call.answer(results)
    own = BridgeContext()
    own.needs_input_grad = tuple(call.mirrored([bool(n) for n in needs], absent=False))
    if recorder.setup is not None:
        run_under(QUIET, recorder.set_up, own, call.ours(row), out)
    constant = frozenset(i for i, r in enumerate(results) if id(r) in own._without)
    if constant:
        ctx.mark_non_differentiable(*[outs[i] for i in constant])
    if not own._materialize:
        ctx.set_materialize_grads(False)
    return own, constant


#: What holds no tensor, the quickest told.
_ATOMS = frozenset((int, float, bool, str, type(None)))


def keep(arrays: list[Any], value: Any) -> Any:
    """Give a value with a `Saved` in the place of each tensor over PyTorch's, added to a row."""
    kind = value.__class__
    if kind is Tensor:
        return _kept(arrays, value)
    if kind in _ATOMS:
        return value
    if kind is tuple:
        return tuple([keep(arrays, v) for v in value])
    return tree.map_leaves(lambda v: _kept(arrays, v), value)


def _kept(arrays: list[Any], value: Any) -> Any:
    payload = getattr(value, "payload", None) if isinstance(value, Tensor) else None
    array = getattr(payload, "array", None)
    if array is None:
        return value
    arrays.append(array)
    return Saved(len(arrays) - 1)


def _facts(tensors: Sequence[Any]) -> list[tuple[Any, torch.dtype]]:
    return [(tuple(t.shape), t.dtype) for t in tensors]


def context_of(kept: Kept, saved: Sequence[Any], needs: Any, *, forward: bool = False) -> Any:
    """Give the author's context again.

    Args:
        kept: what forward kept.
        saved: the tensors that PyTorch kept, as the author sees them.
        needs: for each argument, whether its gradient is asked for.
        forward: whether it is for `jvp`.
    """
    own = BridgeContext()
    own._node = Running(kept.call.op, [p.name for p in kept.call.plan.places])
    own.needs_input_grad = needs
    fill(own, kept.attributes, saved, forward=forward)
    return own


def fill(
    own: BridgeContext, attributes: dict[str, Any], saved: Sequence[Any], *, forward: bool = False
) -> None:
    """Give a context what its author has put there, with the tensors that PyTorch kept."""
    for name, value in attributes.items():
        if name not in _CARRIED:
            setattr(own, name, _back(saved, value))
    row = attributes.get("_saved", ())
    row = (attributes.get("_forward") or row) if forward else row
    own.save_for_backward(*[_back(saved, value) for value in row])


def _back(saved: Sequence[Any], value: Any) -> Any:
    if value.__class__ is Saved:
        return saved[value.number]
    if value.__class__ in _ATOMS:
        return value
    return tree.map_leaves(lambda v: saved[v.number] if v.__class__ is Saved else v, value)


class Running(NamedTuple):
    """Who is running, for errors."""

    op: OpOverload
    names: list[str]


# -- backward ---------------------------------------------------------------------------------


def backward(
    ctx: Any, needs: Sequence[bool], grads: Sequence[Any], saved: Sequence[Any] | None = None
) -> list[Any]:
    """Give the gradient of each tensor among the arguments, or None.

    Args:
        ctx: PyTorch's.
        needs: for each tensor, whether its gradient is asked for.
        grads: of the results in a row.
        saved: what PyTorch has kept, if it has been asked for.

    Raises:
        MissingGradientError: the operator has no gradient.
        AutogradError: the author's do not fit.
    """
    kept: Kept = ctx.kept
    if kept.recorder is None:
        return missing_gradient(kept.call.op)
    # Asked for once: PyTorch may compute them anew.
    arrays = ctx.saved_tensors if saved is None else saved
    mirrored = tuple(kept.call.mirrored(needs, absent=False))
    own = context_of(kept, [of_array(t) for t in arrays], mirrored)
    given = kept.call.laid_out([of_array(g) for g in grads])
    recorder = kept.recorder
    looks: list[str] = []
    token, looking = RUNNING.set(kept.call.op), LOOKS.set(looks)
    try:
        found = run_under(QUIET, recorder.backward, own, *given)
    except Exception as error:
        note_rule(error, kept.call.op, "backward")
        raise
    finally:
        RUNNING.reset(token)
        LOOKS.reset(looking)
    row = gradients(kept, found, _watched([*arrays, *grads]), looked=bool(looks))
    return _stopped(kept.call.op, row, own._taken) if own._taken else row


def gradients(kept: Kept, found: Any, watched: Any, *, looked: bool = False) -> list[Any]:
    """Give what backward returned as PyTorch's gradients, one for each tensor.

    Args:
        kept: what forward kept.
        found: what backward returned.
        watched: a tensor whose history it would continue, or None.
        looked: whether it has looked at data, so that its history is not whole.

    Raises:
        AutogradError: it does not fit.
    """
    recorder = kept.recorder
    assert recorder is not None
    call = kept.call
    if len(call.values) == 1 and found.__class__ is tuple and isinstance(call.values[0], list):
        found = found if len(found) == 1 and not isinstance(found[0], Tensor) else (found,)
    grads: list[Any] = [None] * len(kept.inputs)
    triples = zip(recorder.names, call.values, recorder.laid_out(found), strict=True)
    for name, value, given in triples:
        for number, grad in _pairs(call, name, value, given):
            lost = looked or getattr(grad, "payload", None).__class__ is np.ndarray
            grads[number] = _fitting(kept, name, number, grad, watched if lost else None)
    return grads


def _pairs(call: Call, name: str, value: Any, given: Any) -> list[tuple[int, Any]]:
    """Lay gradients beside the tensors of an argument."""
    if given is None:
        return []
    if value.__class__ is list:
        if not isinstance(given, list | tuple) or len(given) != len(value):
            _unfit(call, name, f"a list of {len(value)}", given)
        if all(at is None or hasattr(at, "number") for at in value):
            return [(at.number, g) for at, g in zip(value, given, strict=True) if at is not None]
    number = getattr(value, "number", None)
    if number is None:
        _unfit(call, name, "None, for an argument that is no tensor", given)
    return [(number, given)]


def _fitting(kept: Kept, name: str, number: int, grad: Any, watched: Any) -> Any:
    if grad is None:
        return None
    shape, dtype = kept.inputs[number]
    if not isinstance(grad, Tensor):
        _unfit(kept.call, name, "a Tensor, or None", grad)
    array = array_of(kept.call.op, "backward", grad, torch.empty(0, device=kept.device))
    if len(array.shape) != len(shape) or not all(
        a is b or a == b for a, b in zip(array.shape, shape, strict=True)
    ):
        _unfit(kept.call, name, f"shape {tuple(shape)}", f"shape {tuple(array.shape)}")
    if watched is not None:
        array = _unrecorded(kept.call.op, array, watched)
    if array.dtype is dtype:
        return array
    if array.is_complex() and not dtype.is_complex:
        array = array.real
    return array.to(dtype)


def _watched(tensors: Sequence[Any]) -> Any:
    """Give a tensor whose history backward would continue, or None."""
    if not torch.is_grad_enabled():
        return None
    return next((t for t in tensors if t is not None and t.requires_grad), None)


def _stopped(op: OpOverload, row: Sequence[Any], taken: Sequence[Tensor]) -> list[Any]:
    """Give gradients that refuse one on the way to some tensors (NOTE [Stops])."""
    watched = [t.payload.array for t in taken if t.payload.array.requires_grad]
    if not watched or not torch.is_grad_enabled():
        return [*row]
    number = _stop(op, *watched)
    return [None if g is None else _beside(g, number) for g in row]


class Stop(torch.autograd.Function):
    """A number made of tensors, which refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, op: OpOverload, *taken: Any) -> Any:
        """Give the number."""
        ctx.op = op
        return taken[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Refuse."""
        raise stop_error(ctx.op, "backward")


class Beside(torch.autograd.Function):
    """Gives a gradient again, with one more input."""

    @staticmethod
    def forward(ctx: Any, array: Any, number: Any) -> Any:
        """Give the same values."""
        ctx.save_for_backward(number)
        return array.view_as(array)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Give the gradient, which the data are in too; the number refuses its own."""
        (number,) = ctx.saved_tensors
        return _beside(grad, number), number


_stop: Any = Stop.apply
_beside: Any = Beside.apply


class Unrecorded(torch.autograd.Function):
    """Lets a gradient that was computed in NumPy pass, and refuses to differentiate it."""

    @staticmethod
    def forward(ctx: Any, op: OpOverload, array: Any, _watched: Any) -> Any:
        """Give the same values."""
        ctx.op = op
        return array.clone()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Refuse."""
        op: OpOverload = ctx.op
        op.missing(
            "backward",
            MissingGradientError,
            problem=f"the backward of {op.name()} looks at data, so it has no gradient itself",
            source=op.rule_source("backward"),
            fix="write it with operators",
        )


unpack_dual: Any = torch.autograd.forward_ad.unpack_dual
_unrecorded: Any = Unrecorded.apply


def _unfit(call: Call, name: str, declared: str, seen: Any) -> NoReturn:
    raise refuse(
        call.op,
        f"backward returned a gradient that does not fit {name!r}",
        argument=name,
        declared=declared,
        seen=seen if isinstance(seen, str) else f"{type(seen).__name__} {seen!r:.80}",
        source=call.op.rule_source("backward"),
        fix="return one gradient per argument, of its shape, and None where there is none",
    )

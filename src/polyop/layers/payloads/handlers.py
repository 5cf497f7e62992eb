"""The handlers of built-in operators: calls that read, and calls that write."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from polyop.devices import CPU
from polyop.dispatch.bits import GRAD, INFERENCE, INFERENCE_TENSOR, NO_GRAD
from polyop.dispatch.operator import Handler, OpOverload
from polyop.errors import MutationError
from polyop.layers.fake.handlers import shares
from polyop.layers.payloads.answers import (
    REFUSALS,
    Request,
    answer,
    as_numpy,
    decomposed,
    deferred,
    native,
    no_data,
    refuse_lost,
)
from polyop.layers.payloads.facts import described, fact, library_in, mapped, tensors
from polyop.layers.payloads.plan import Plan, plan
from polyop.ops.factories import on_meta
from polyop.ops.pointwise import warn_lost
from polyop.payloads.exchange import from_numpy
from polyop.payloads.held import Held, Taken, of_held
from polyop.payloads.library import Library
from polyop.payloads.native import Call
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta
from polyop.tensor.storage import bump, share
from polyop.tensor.tensor import Tensor, is_differentiable, of_meta


def handler_of(op: OpOverload, code: int) -> Handler:
    """Make the handler of a built-in operator's calls with arrays of other libraries."""
    found = plan(op)
    if op._schema.is_mutable:
        return partial(_write, found, bool(code & GRAD) and not code & NO_GRAD)
    return partial(_run, found, INFERENCE_TENSOR if code & INFERENCE else 0)


def _run(found: Plan, more: int, *args: Any) -> Any:
    library, like = library_in(found.op, args)
    request = Request(found, library, like, args, described(found, args))
    if _is_moved(request) and on_meta(request.wanted.device):
        return of_meta(request.wanted)  # made without data, whatever the library
    out = answer(request)
    forms = found.forms
    if len(forms) == 1:
        return _wrapped(request, forms[0], out, request.wanted, more)
    metas = [None] * len(forms) if request.wanted is None else request.wanted
    triples = zip(forms, out, metas, strict=True)
    return tuple([_wrapped(request, form, o, w, more) for form, o, w in triples])


def _is_moved(request: Request) -> bool:
    """Tell whether the result is asked for on another device than the CPU and the arrays'."""
    wanted = request.wanted
    if wanted.__class__ is not Meta or wanted.device is CPU:
        return False
    return wanted.device is not request.library.device(request.like)


# -- results --------------------------------------------------------------------------------


def _wrapped(request: Request, form: tuple[str, int], out: Any, wanted: Any, more: int) -> Any:
    """Make tensors of a result's arrays."""
    kind, i = form
    if kind == "view":
        return _view(request, out, wanted, i, more)
    if kind == "list":
        metas = [None] * len(out) if wanted is None else wanted
        return [_new(request, o, w, more) for o, w in zip(out, metas, strict=True)]
    return _new(request, out, wanted, more) if kind == "new" else out


def _new(request: Request, array: Any, wanted: Any, more: int) -> Tensor:
    """Make a tensor of memory that no argument has, laid out as its meta says."""
    library = request.library
    strides = None if wanted is None else wanted._strides
    if library.writes:
        given = [t.payload for v in request.args for t in tensors(v)]
        array = library.laid_out(array, strides)
        if any(held.__class__ is Held and library.shares(array, held.array) for held in given):
            array = library.copy(array)
    t = of_held(Held(array, library, strides))
    t.keys |= more
    return t


def _view(request: Request, array: Any, wanted: Meta, i: int, more: int) -> Tensor:
    """Make a tensor that shares memory with an argument."""
    op, args = request.plan.op, request.args
    base: Tensor = args[i]
    may_copy = Tag.maybe_aliasing_or_mutating in op.tags
    if may_copy and not shares(wanted, fact(base, wanted.space).payload):
        return _new(request, array, wanted, more)
    held: Held = base.payload
    t = of_held(held.view(array, wanted._strides, Taken(held, op, args, i)))
    t.keys |= more
    t.version = share(base)
    t.view_of = (base, op, (*args[:i], *args[i + 1 :]))
    return t


# -- writes ---------------------------------------------------------------------------------


def _write(found: Plan, recorded: bool, *args: Any) -> Any:
    x = args[0]
    if x.payload.__class__ is not Held:
        return _write_numpy(found, recorded, args)
    library, _ = library_in(found.op, args)
    described(found, args)  # raises what NumPy would, before anything is written
    for dtype in {t.dtype for v in args[1:] for t in tensors(v)}:
        warn_lost(found.op.name(), dtype, args[0].dtype)
    value = _value(found, library, args)
    bump(x)
    put(found.op, x, value)
    return x


def _value(found: Plan, library: Library, args: tuple[Any, ...]) -> Any:
    """Give what is to be written: of the operator that does not write, else of a kernel."""
    twin, like = found.twin, args[0].payload.array
    if twin is not None and (twin.native or twin.parts):
        request = Request(twin, library, like, args, described(twin, args))
        try:
            return native(request) if twin.native else decomposed(request)
        except REFUSALS:
            pass
    return _written_by_kernel(Request(found, library, like, args, args[0].payload))


def _written_by_kernel(request: Request) -> Any:
    """Run a kernel that writes, on a copy."""
    plan, library = request.plan, request.library
    if not request.concrete():
        no_data(plan.op, library)
    if is_differentiable(request.wanted.dtype) and request.recorded():
        refuse_lost(plan.op, library)

    def kernel(array: Any, *rest: Any) -> Any:
        copy = np.array(array)
        plan.kernel(copy, *rest)
        return copy

    if library.lazy:
        return deferred(request, kernel)
    return from_numpy(library, kernel(*[mapped(v, as_numpy) for v in request.args]), request.like)


def put(op: OpOverload, x: Tensor, value: Any) -> None:
    """Let a tensor have a new value, in its dtype.

    Raises:
        MutationError: its memory cannot be written.
    """
    held: Held = x.payload
    call = Call(held.library, value, None)
    if call.dtype_of(value).kind == "c" and held.dtype.kind not in "cb":
        value = call.xp.real(value)
    value = call.to(value, held.dtype)
    try:
        held.write(value)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, MutationError):
            raise
        raise MutationError(
            f"{op.name()} cannot write this array of {held.library.name}: {error}",
            op=op._schema,
            seen=repr(held),
            fix="copy it with .clone() first",
        ) from error


def _write_numpy(found: Plan, recorded: bool, args: tuple[Any, ...]) -> Any:
    """Write values of another library's arrays into NumPy's."""
    op, x = found.op, args[0]
    library, _ = library_in(op, args)
    request = Request(found, library, None, args, None)
    if not request.concrete():
        no_data(op, library)
    if recorded or (is_differentiable(x.dtype) and request.recorded()):
        raise MutationError(
            f"{op.name()} writes an array of {library.name} into one of NumPy, and gradients do "
            "not cross there",
            op=op._schema,
            fix="make both tensors of one library, as with polyop.zeros_like(values); or write "
            "what is detached",
        )
    given = [mapped(v, as_numpy) for v in args[1:]]
    bump(x)
    found.kernel(x.payload, *given)
    return x

"""Operators whose fault shows only in a corner: a law finds each, and no other operator.

Each is beside the same operator without its fault, so that the law is shown to see the fault
and nothing else.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.checking.law import LAWS, Case
from polyop.checking.run import opcheck, try_law
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.rules import register_fake
from polyop.errors import OpCheckError
from polyop.objects.effects import EffectType, register_effect
from polyop.tensor.tensor import of_array

Made = tuple[CustomOpDef, tuple[Any, ...]]
NUMBERS = itertools.count()
#: Law, and what makes the operator and its sample, with the fault or without.
HOSTILE: dict[str, tuple[str, Callable[[bool], Made]]] = {}


def hostile(law: str) -> Callable[[Callable[[bool], Made]], Callable[[bool], Made]]:
    def register(make: Callable[[bool], Made]) -> Callable[[bool], Made]:
        HOSTILE[make.__name__] = (law, make)
        return make

    return register


def define(schema: str, kernel: Any, fake: Any = None, **options: Any) -> CustomOpDef:
    name = f"hostile::f{next(NUMBERS)}"
    op: CustomOpDef = custom_op(name, kernel, schema=schema, **{"mutates_args": (), **options})
    op.register_fake(fake or (lambda x, *_: x.new_empty(x.shape)))
    return op


def values(*shape: int) -> Tensor:
    return of_array(np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape))


def differentiable(op: CustomOpDef, backward: Any) -> CustomOpDef:
    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.inputs = inputs
        ctx.save_for_backward(*[x for x in inputs if isinstance(x, Tensor)])

    op.register_autograd(backward, setup_context=setup)
    return op


ONE, TWO = "(Tensor x) -> Tensor", "(Tensor x, Tensor y) -> Tensor"


# -- schema -----------------------------------------------------------------------


@hostile("test_schema")
def write_taken_back(fault: bool) -> Made:
    def kernel(x: Tensor) -> Tensor:
        a = x.numpy() if fault else x.numpy().copy()
        kept = a.copy()
        a[...] = np.abs(a)
        a *= 2
        made = a.copy()
        a[...] = kept
        return of_array(made)

    return define(ONE, kernel), (values(2, 3),)


@hostile("test_schema")
def write_beside_a_declared_one(fault: bool) -> Made:
    def kernel(x: Tensor) -> None:
        a = x.numpy()
        a *= 2
        if fault and a.base is not None:
            a.base.reshape(-1)[-1] = 0

    whole = np.linspace(1.0, 2.0, 12)
    op = define("(Tensor(a!) x) -> ()", kernel, lambda x: None, mutates_args=("x",))
    return op, (of_array(whole[2:8].reshape(2, 3)),)


@hostile("test_schema")
def write_at_other_sizes(fault: bool) -> Made:
    def kernel(x: Tensor) -> Tensor:
        a = x.numpy()
        if fault and a.shape[0] % 2:
            a[0] = 0
        return of_array(a * 2)

    return define(ONE, kernel), (values(4),)


@hostile("test_schema")
def write_in_single_precision(fault: bool) -> Made:
    def kernel(x: Tensor) -> Tensor:
        a = np.asarray(x.numpy(), np.float32)
        if not fault:
            a = a.copy()
        a *= 2
        return of_array(a.astype(x.dtype))

    return define(ONE, kernel), (values(2, 3),)


@hostile("test_schema")
def alias_in_a_list(fault: bool) -> Made:
    def kernel(x: Tensor) -> list[Tensor]:
        a = x.numpy()
        return [of_array(a * 1), of_array(a[:] if fault else a.copy())]

    fake: Any = lambda x: [x.new_empty(x.shape), x.new_empty(x.shape)]  # noqa: E731
    return define("(Tensor x) -> Tensor[]", kernel, fake), (values(2, 3),)


@hostile("test_schema")
def alias_of_no_change(fault: bool) -> Made:
    def kernel(x: Tensor) -> Tensor:
        # `astype` and `clip` that have nothing to do.
        return of_array(x.numpy().astype(np.float32, copy=not fault))

    fake: Any = lambda x: x.new_empty(x.shape, dtype=np.dtype("float32"))  # noqa: E731
    return define(ONE, kernel, fake), (values(2, 3),)


# -- fakes ------------------------------------------------------------------------


@hostile("test_faketensor")
def right_for_squares(fault: bool) -> Made:
    def fake(x: Tensor) -> Tensor:
        return x.new_empty(x.shape if fault else x.shape[::-1])

    return define(ONE, lambda x: of_array(x.numpy().T.copy()), fake), (values(3, 3),)


@hostile("test_faketensor")
def right_for_equal_sizes(fault: bool) -> Made:
    def fake(x: Tensor, y: Tensor) -> Tensor:
        return x.new_empty((x if fault else y).shape)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy().sum() + y.numpy())

    return define(TWO, kernel, fake), (values(3), values(3))


# -- gradients --------------------------------------------------------------------


def multiply(x: Tensor, y: Tensor) -> Tensor:
    return of_array(np.multiply(x.numpy(), y.numpy()))


def square(x: Tensor) -> Tensor:
    return of_array(np.square(x.numpy()))


@hostile("test_gradient")
def gradient_without_broadcast(fault: bool) -> Made:
    def summed(g: Tensor, x: Tensor) -> Tensor:
        if fault and x.shape != g.shape:
            return polyop.broadcast_to(polyop.mean(g, axis=0, keepdims=True), x.shape)
        found: Tensor = polyop.ops.core.sum_to(g, x.shape)
        return found

    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return summed(g * y, x), summed(g * x, y)

    op = define(TWO, multiply, lambda x, y: x * y)
    return differentiable(op, backward), (values(2, 3), values(2, 3) + 1)


@hostile("test_gradient")
def gradient_of_positive_numbers(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * (1 if fault else polyop.sign(x))

    op = define(ONE, lambda x: of_array(np.abs(x.numpy())), abs)
    return differentiable(op, backward), (values(2, 3),)


@hostile("test_gradient")
def gradient_shifted_if_one_is_not_needed(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        if fault and not ctx.needs_input_grad[0]:
            return None, g * y
        return g * y, g * x

    op = define(TWO, multiply, lambda x, y: x * y)
    return differentiable(op, backward), (values(2, 3), values(2, 3) + 1)


@hostile("test_gradient")
def gradient_without_optional(fault: bool) -> Made:
    def kernel(x: Tensor, y: Tensor | None = None) -> Tensor:
        return of_array(x.numpy() * (2 if y is None else y.numpy()))

    def backward(ctx: Any, g: Tensor) -> Any:
        if ctx.inputs[1] is None:
            return g if fault else g * 2, None
        x, y = ctx.saved_tensors
        return g * y, g * x

    op = define(
        "(Tensor x, Tensor? y=None) -> Tensor",
        kernel,
        lambda x, y=None: x * 2 if y is None else x * y,
    )
    return differentiable(op, backward), (values(2, 3), values(2, 3) + 1)


@hostile("test_gradient")
def gradient_that_writes_the_incoming_one(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (g.multiply_(x) if fault else g * x) * 2

    return differentiable(define(ONE, square), backward), (values(2, 3),)


@hostile("test_gradient")
def gradient_that_works_once(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        slope = 2 * x * getattr(ctx, "times", 1)
        if fault:
            ctx.times = 0
        return g * slope

    return differentiable(define(ONE, square), backward), (values(2, 3),)


@hostile("test_layouts")
def gradient_in_memory_order(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        # As a kernel does that reads raw memory.
        slope = x if not fault or x.is_contiguous() else polyop.flip(x)
        return g * slope * 2

    op = define(ONE, square, polyop.square)
    return differentiable(op, backward), (values(2, 3),)


@hostile("test_layouts")
def gradient_of_contiguous_incoming_ones(fault: bool) -> Made:
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        incoming = g if not fault or g.is_contiguous() else polyop.flip(g)
        return incoming * 2 * x

    op = define(ONE, square, polyop.square)
    return differentiable(op, backward), (values(2, 3),)


# -- batches ----------------------------------------------------------------------


def batched(rule: Any, schema: str = TWO, kernel: Any = multiply) -> CustomOpDef:
    op = define(schema, kernel, lambda *given: given[0].new_empty(given[0].shape))
    op.register_vmap(rule)
    return op


@hostile("test_vmap")
def batch_in_the_last_axis(fault: bool) -> Made:
    def rule(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> Any:
        ndim = 2
        moved = [
            t if d is None else t.movedim(0 if fault and d == ndim else d, 0)
            for t, d in zip((x, y), in_dims, strict=True)
        ]
        if fault and ndim in in_dims:
            return x.new_empty((info.batch_size, 2, 3)) * 0, 0
        return moved[0] * moved[1], 0

    return batched(rule), (values(2, 3), values(2, 3) + 1)


@hostile("test_vmap")
def batch_of_two(fault: bool) -> Made:
    def rule(info: Any, in_dims: Any, x: Tensor) -> Any:
        x = x.movedim(in_dims[0], 0)
        if fault and info.batch_size != 2:
            return x, 0
        return x * x, 0

    return batched(rule, ONE, square), (values(2, 3),)


@hostile("test_vmap")
def batch_of_both_or_none(fault: bool) -> Made:
    def rule(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> Any:
        xs, ys = (t if d is None else t.movedim(d, 0) for t, d in zip((x, y), in_dims, strict=True))
        if fault and in_dims[0] is None:
            return ys * ys, 0
        return xs * ys, 0

    return batched(rule), (values(2, 3), values(2, 3) + 1)


@hostile("test_vmap")
def gradient_of_what_has_no_batch(fault: bool) -> Made:
    def rule(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> Any:
        xs, ys = (t if d is None else t.movedim(d, 0) for t, d in zip((x, y), in_dims, strict=True))
        return op(xs, ys), 0

    def fitted(d: Tensor, given: Tensor) -> Tensor:
        if d.ndim == given.ndim:
            return d
        return d[0] if fault else polyop.sum(d, axis=0)

    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return fitted(g * y, x), fitted(g * x, y)

    def fake(x: Tensor, y: Tensor) -> Tensor:
        return x.new_empty((x if x.ndim >= y.ndim else y).shape)

    op = differentiable(define(TWO, multiply, fake), backward)
    op.register_vmap(rule)
    return op, (values(2, 3).requires_grad_(), (values(2, 3) + 1).requires_grad_())


@hostile("test_vmap")
def batch_of_third_argument(fault: bool) -> Made:
    def kernel(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return of_array(x.numpy() * y.numpy() + z.numpy())

    def rule(info: Any, in_dims: Any, *given: Tensor) -> Any:
        x, y, z = (t if d is None else t.movedim(d, 0) for t, d in zip(given, in_dims, strict=True))
        if fault and in_dims[2] == 2 and in_dims[:2] == (0, None):
            return x * y, 0
        return x * y + z, 0

    op = batched(rule, "(Tensor x, Tensor y, Tensor z) -> Tensor", kernel)
    return op, (values(2, 3), values(2, 3) + 1, values(2, 3) + 2)


# -- repetition -------------------------------------------------------------------


@hostile("test_determinism")
def memory_not_filled(fault: bool) -> Made:
    def kernel(x: Tensor) -> Tensor:
        a = x.numpy()
        made = np.empty_like(a) if fault else np.zeros_like(a)
        made[1:-1] = a[1:-1]
        return of_array(made)

    return define(ONE, kernel), (values(40, 7),)


@hostile("test_threads")
def scratch_that_is_shared(fault: bool) -> Made:
    room = np.empty((2, 3))

    def kernel(x: Tensor) -> Tensor:
        scratch = room if fault and x.shape == room.shape else np.empty(x.shape)
        for i in range(x.shape[0]):
            scratch[i] = x.numpy()[i] * 2
        return of_array(scratch.astype(x.dtype))

    return define(ONE, kernel), (values(2, 3),)


@hostile("test_threads")
def another_result_off_the_main_thread(fault: bool) -> Made:
    main = threading.main_thread()

    def kernel(x: Tensor) -> Tensor:
        here = threading.current_thread() is main
        return of_array(x.numpy() * (2 if here or not fault else 3))

    return define(ONE, kernel), (values(2, 3),)


def test_a_fake_that_does_not_broadcast_is_a_note() -> None:
    """S204: where the kernel broadcasts and the rule does not, the finding says so."""
    op = define(TWO, multiply)
    finding = try_law(LAWS["test_faketensor"], [case_of(op, values(2, 3), values(2, 3))])
    assert finding.verdict.kind == "holds"
    assert "x of shape [1, 3]" in finding.verdict.reason
    assert "broadcast in both" in finding.verdict.reason


def case_of(op: CustomOpDef, *given: Any) -> Case:
    return Case(op._opoverload, sample_of(op._opoverload, given, {}))


# -- the laws ---------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_fault_in_a_corner_is_found(name: str) -> None:
    """S202 to S206: a fault that shows only in a corner breaks its law, and names the operator."""
    law, make = HOSTILE[name]
    op, given = make(True)
    with np.errstate(all="ignore"):
        told = opcheck(op, given, raise_exception=False)
    assert isinstance(told[law], OpCheckError), told
    assert op._opoverload.name() in str(told[law])


@pytest.mark.parametrize("name", HOSTILE)
def test_the_same_without_the_fault_is_right(name: str) -> None:
    """S200 to S206: the same operator without its fault breaks no law."""
    op, given = HOSTILE[name][1](False)
    with np.errstate(all="ignore"):
        told = opcheck(op, given, raise_exception=False)
    assert {law: str(error) for law, error in told.items() if error != "SUCCESS"} == {}


def test_determinism_says_nothing_of_effects() -> None:
    """S188, S206: an operator that declares an effect may answer two equal calls differently; the
    laws that compare calls say why they do not apply, and still blame one that declares nothing."""
    count = itertools.count()

    def counted(x: Tensor) -> Tensor:
        return x + next(count)

    for effect, verdict in ((EffectType.ORDERED, "does not apply"), (None, "broken")):
        name = f"hostile_effects::counted_{verdict.split()[0]}"
        op = custom_op(name, counted, mutates_args=())
        register_fake(op, polyop.empty_like)
        register_effect(op, effect)
        case = Case(op._opoverload, sample_of(op._opoverload, (polyop.ones(3),), {}))
        found = [law for law in LAWS.values() if law.name == "test_determinism"]
        assert [try_law(law, [case]).verdict.kind for law in found] == [verdict]

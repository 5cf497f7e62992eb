"""Operators that are right, at samples for which a checker may blame them (S203 to S206)."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.checking import opcheck
from polyop.checking.law import LAWS, Case, Verdict, judge
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.tensor.tensor import Tensor, of_array

_number = count()
RNG = np.random.default_rng(0)


def define(kernel: Any, backward: Any = None, fake: Any = None) -> CustomOpDef:
    op = custom_op(f"right_ones::f{next(_number)}", kernel, mutates_args=())
    op.register_fake(fake or (lambda x, *rest: x.new_empty(x.shape)))
    if backward is not None:
        op.register_autograd(
            backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
        )
    return op


def verdict(law: str, op: CustomOpDef, *args: Any) -> Verdict:
    found = op._opoverload
    return judge(LAWS[law], Case(found, sample_of(found, args, {})))


def doubled(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy() * 2))


def scaled(x: Tensor, y: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy() * y.numpy()))


def scaled_backward(ctx: Any, g: Tensor) -> Any:
    x, y = ctx.saved_tensors
    return g * y, (g * x).sum().reshape(y.shape) if y.ndim == 0 else g * x


def product(x: Tensor, w: Tensor) -> Tensor:
    return of_array(x.numpy() @ w.numpy())


def product_backward(ctx: Any, g: Tensor) -> Any:
    x, w = ctx.saved_tensors
    return g @ w.mT, x.mT @ g


@pytest.mark.parametrize("marked", [(True, False), (False, True)])
def test_a_sample_may_mark_some_tensors_only(marked: tuple[bool, bool]) -> None:
    """S205: traces at other sizes take the gradients that the sample asks for."""
    op = define(product, product_backward, lambda x, w: x.new_empty(x.shape[0], w.shape[1]))
    x, w = (of_array(RNG.normal(size=shape)) for shape in ((3, 4), (4, 5)))
    opcheck(op, (x.requires_grad_(marked[0]), w.requires_grad_(marked[1])))


def test_a_tensor_without_axes_beside_another() -> None:
    """S206: other layouts and signs of a tensor without axes are tensors too."""
    op = define(scaled, scaled_backward)
    x, y = of_array(RNG.normal(size=(2, 3))), of_array(np.asarray(1.5))
    opcheck(op, (x.requires_grad_(), y.requires_grad_()))


def test_a_truth_value_without_axes() -> None:
    """S206: a flag that is a tensor is turned over as one."""

    def kernel(x: Tensor, flag: Tensor) -> Tensor:
        return of_array(np.asarray(np.where(flag.numpy(), x.numpy(), -x.numpy())))

    def backward(ctx: Any, g: Tensor) -> Any:
        return p.where(ctx.saved_tensors[1], g, -g), None

    x = of_array(np.random.default_rng(0).normal(size=3)).requires_grad_()
    opcheck(define(kernel, backward), (x, np.asarray(True)))


def test_the_other_sign_of_a_tensor_without_axes_is_tried() -> None:
    """S206: a gradient that is right for one sign only is told, without axes too."""
    op = define(absolute, lambda ctx, g: g * 1)
    found = verdict("test_gradient", op, of_array(np.asarray(1.5)).requires_grad_())
    assert found.broken
    assert "the other sign" in str(found.error)


def absolute(x: Tensor) -> Tensor:
    return of_array(np.asarray(np.abs(x.numpy())))


@pytest.mark.parametrize("shape", [(2,) * 8, (1,) * 10, (2,) * 10, (2,) * 16, (1,) * 62])
def test_samples_of_many_axes(shape: tuple[int, ...]) -> None:
    """S204: inputs that are made of many axes stay of bearable size."""
    largest = 0

    def kernel(x: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, x.numel())
        return doubled(x)

    kernel.__annotations__ = doubled.__annotations__
    opcheck(define(kernel, lambda ctx, g: g * 2), (of_array(np.ones(shape)).requires_grad_(),))
    assert largest <= 1 << 19


def gathered(x: Tensor, places: Tensor) -> Tensor:
    return of_array(x.numpy()[places.numpy()])


def inverse(places: Tensor) -> Tensor:
    """Invert a permutation; of anything else, not all elements are filled."""
    made = np.empty_like(places.numpy())
    made[places.numpy()] = np.arange(len(made))
    return of_array(made)


def test_indices_that_are_a_permutation() -> None:
    """S205: made indices are none, so what is done with them says nothing."""
    take = define(gathered, fake=lambda x, i: x.new_empty(*i.shape, *x.shape[1:]))
    back = define(inverse)
    op = define(
        gathered,
        lambda ctx, g: (take(g, back(ctx.saved_tensors[1])), None),
        lambda x, i: x.new_empty(*i.shape, *x.shape[1:]),
    )
    x = of_array(RNG.normal(size=4)).requires_grad_()
    opcheck(op, (x, np.array([2, 0, 3, 1])))
    opcheck(back, (np.array([2, 0, 3, 1]),))


def interpolated(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    return of_array(np.interp(x.numpy(), knots.numpy(), values.numpy()).astype(x.dtype))


def interpolated_backward(ctx: Any, g: Tensor) -> Any:
    x, knots, values = (t.detach().numpy() for t in ctx.saved_tensors)
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    share = np.clip((x - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
    found = np.zeros_like(values)
    np.add.at(found, i, (1 - share) * g.detach().numpy())
    np.add.at(found, i + 1, share * g.detach().numpy())
    return None, None, of_array(found)


@pytest.mark.parametrize("step", [1.0, 0.01])
def test_knots_stay_in_order(step: float) -> None:
    """S206: where a sample lists rising numbers, made inputs do so too."""
    op = define(interpolated, interpolated_backward)
    values = of_array(np.random.default_rng(2).normal(size=40)).requires_grad_()
    places = np.array([1.3, 21.2, 32.7]) * step
    found = verdict("test_gradient", op, places, np.arange(40.0) * step, values)
    assert found.kind == "holds", found.reason


def test_results_without_a_gradient_need_none() -> None:
    """S206: where no result is floating, no gradient is missing."""

    def largest(x: Tensor) -> Tensor:
        return of_array(x.numpy().argmax(-1))

    op = define(largest, fake=lambda x: x.new_empty(x.shape[:-1], dtype=p.int64))
    opcheck(op, (of_array(RNG.normal(size=(3, 4))).requires_grad_(),))
    found = verdict("test_gradient", op, of_array(RNG.normal(size=(3, 4))).requires_grad_())
    assert (found.kind, found.reason) == ("does not apply", "no result is floating")


def total(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy().sum(-1)))


def crooked(x: Tensor) -> Tensor:
    """Read memory as if rows came one after another."""
    array = x.numpy()
    flat = array.reshape(-1, order="A").reshape(array.shape)
    return of_array(np.asarray(flat.sum(-1)))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float16", (4, 50)), ("float16", (10, 1000)), ("float32", (500, 500))]
)
def test_sums_round_as_memory_lies(dtype: str, shape: tuple[int, int]) -> None:
    """S206: sums that are taken in another order have room; other values have none."""
    x = of_array(RNG.normal(size=shape).astype(dtype))
    right, wrong = (define(f, fake=lambda x: x.new_empty(x.shape[:-1])) for f in (total, crooked))
    assert not verdict("test_layouts", right, x).broken
    assert "differs for transposed" in verdict("test_layouts", wrong, x).reason


@pytest.mark.parametrize("size", [1, 4, 12, 100, 1000])
def test_stairs_are_stairs_at_all_sizes(size: int) -> None:
    """S206: of a kernel that rounds, finite differences say nothing, however small the sample."""

    def rounded(x: Tensor) -> Tensor:
        return of_array(np.round(x.numpy()))

    x = of_array(RNG.normal(size=size)).requires_grad_()
    found = verdict("test_gradient", define(rounded, lambda ctx, g: g * 1), x)
    assert found.kind == "does not apply"
    assert "rounds so coarsely" in found.reason


@pytest.mark.parametrize("size", [1, 4, 100])
def test_what_is_flat_here_and_moves_there_is_no_stair(size: int) -> None:
    """S206: a gradient that is given where a kernel is cut off is told."""

    def cut(x: Tensor) -> Tensor:
        return of_array(np.maximum(x.numpy(), 0))

    x = of_array(-1 - RNG.uniform(size=size)).requires_grad_()
    assert verdict("test_gradient", define(cut, lambda ctx, g: g * 1), x).broken


def test_a_tag_that_forbids_fakes_is_named() -> None:
    """S204: an operator with a fake rule that is tagged as if it had none is told of the tag."""
    op = custom_op(
        f"right_ones::f{next(_number)}", doubled, mutates_args=(), tags=p.Tag.data_dependent_output
    )
    op.register_fake(lambda x: x.new_empty(x.shape))
    found = str(verdict("test_faketensor", op, np.ones(3)).error)
    assert "the tag data_dependent_output" in found
    assert "take the tag off the operator" in found

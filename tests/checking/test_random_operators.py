"""Operators that draw random numbers, or say that they may: what can still be held to a law."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.checking import opcheck
from polyop.checking.law import LAWS, Case, Verdict, judge
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.errors import OpCheckError
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

_number = count()
TAGS = pytest.mark.parametrize("tag", [Tag.nondeterministic_seeded, Tag.nondeterministic_bitwise])


def define(kernel: Any, tag: Tag = Tag.nondeterministic_seeded) -> CustomOpDef:
    op = custom_op(f"random_ones::f{next(_number)}", kernel, mutates_args=(), tags=tag)
    op.register_fake(lambda x, *rest: x.new_empty(x.shape))
    return op


def values() -> Tensor:
    return of_array(np.random.default_rng(0).normal(size=(3, 4)))


def verdict(law: str, op: CustomOpDef, *args: Any) -> Verdict:
    found = op._opoverload
    return judge(LAWS[law], Case(found, sample_of(found, args, {})))


def doubled(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy() * 2))


def of_numpy(x: Tensor) -> Tensor:
    """Draw from NumPy's own stream."""
    return of_array((x.numpy() * np.random.random_sample(x.shape)).astype(x.dtype))


def of_python(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy() * random.random(), x.dtype))


def of_polyop(x: Tensor) -> Tensor:
    return of_array((x.numpy() * p.rand(*x.shape).numpy()).astype(x.dtype))


def rounding(x: Tensor) -> Tensor:
    """Differ in the last bits, as sums in any order do."""
    return of_array(x.numpy() * np.asarray(1 + 1e-14 * np.random.default_rng().normal(), x.dtype))


@TAGS
def test_a_tag_does_not_hide_a_deterministic_operator(tag: Tag) -> None:
    """S206: what gives the same in many calls is held to the laws as if it had no tag."""
    for factor in (2, -2):
        op = define(doubled, tag)
        op.register_autograd(lambda ctx, g, factor=factor: g * factor)
        assert verdict("test_gradient", op, values()).broken == (factor < 0)
    op.register_vmap(lambda info, dims, x: (x, dims[0]))
    assert verdict("test_vmap", op, values()).broken


@pytest.mark.parametrize("kernel", [of_numpy, of_python, of_polyop])
def test_gradients_of_what_draws(kernel: Any) -> None:
    """S206: with the same numbers in each call, finite differences see a slope."""
    op = define(kernel)
    op.register_autograd(
        lambda ctx, g: -g * ctx.saved_tensors[1] / ctx.saved_tensors[0],
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output),
    )
    found = verdict("test_gradient", op, values())
    assert "is -1 times what it should be" in found.reason
    right = define(kernel)
    right.register_autograd(
        lambda ctx, g: g * ctx.saved_tensors[1] / ctx.saved_tensors[0],
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output),
    )
    opcheck(right, (values().requires_grad_(),))


def test_a_generator_that_is_an_argument_is_fixed() -> None:
    """S206: a generator among the arguments begins anew in each call, and is put back."""

    def kernel(x: Tensor, g: Any) -> Tensor:
        return of_array(x.numpy() * g.draw("random", x.shape).astype(x.dtype))

    op = custom_op(
        f"random_ones::f{next(_number)}", kernel, mutates_args=(),
        schema="(Tensor x, Generator g) -> Tensor", tags=Tag.nondeterministic_seeded,
    )  # fmt: skip
    op.register_autograd(lambda ctx, g: (g, None))
    given = p.Generator(3)
    before = given.get_state()
    assert verdict("test_gradient", op, values(), given).broken
    assert given.get_state() == before


def test_streams_are_put_back() -> None:
    """S201: a check leaves the streams of random numbers where they stood."""
    op = define(of_numpy)
    op.register_autograd(lambda ctx, g: g)
    np.random.seed(1)
    p.manual_seed(1)
    wanted = np.random.random_sample(2), p.rand(2).numpy()
    np.random.seed(1)
    p.manual_seed(1)
    with pytest.raises(OpCheckError):
        opcheck(op, (values().requires_grad_(),), test_utils="test_gradient")
    assert (np.random.random_sample(2) == wanted[0]).all()
    assert (p.rand(2).numpy() == wanted[1]).all()


def test_rounding_in_any_order_is_no_excuse() -> None:
    """S206: results that are near each other in each call are held to laws of values."""
    for sign in (1, -1):
        op = define(rounding, Tag.nondeterministic_bitwise)
        op.register_autograd(lambda ctx, g, sign=sign: g * sign)
        assert verdict("test_gradient", op, values()).broken == (sign < 0)
    assert verdict("test_determinism", op, values()).kind == "does not apply"
    assert verdict("test_threads", op, values()).kind == "does not apply"


def test_a_batch_draws_for_each_sample() -> None:
    """S160: a vmap rule that draws once for all samples is told."""

    def once(info: Any, dims: Any, x: Tensor) -> Any:
        x = x.movedim(dims[0], 0)
        return x * op(p.ones_like(x[0])), 0

    op = define(of_numpy)
    op.register_vmap(once)
    assert "drawn once for a whole batch" in verdict("test_vmap", op, values()).reason
    op = define(of_numpy)
    op.register_vmap(lambda info, dims, x: (op(x), dims[0]))
    told = verdict("test_vmap", op, values())
    assert (told.kind, told.reason) == (
        "does not apply",
        "the operator has the tag nondeterministic_seeded",
    )

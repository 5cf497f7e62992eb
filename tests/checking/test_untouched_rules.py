"""Rules that write what they are given, or give it back: a law tells each.

Each is beside the same operator without its fault. What a user sees is asserted once for a rule
of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, batched, case_of, define, values

import polyop
from polyop.checking.law import LAWS, judge
from polyop.dispatch.custom_op import CustomOpDef
from polyop.errors import AliasError, MutationError
from polyop.tensor.tensor import Tensor, of_array

Rule = Callable[..., Any]


def verdict(law: str, op: CustomOpDef, *given: Any) -> tuple[str, Any]:
    told = judge(LAWS[law], case_of(op, *given))
    return told.reason, told.error and type(told.error.__cause__)


def double(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


def asked(*shape: int) -> Tensor:
    return values(*shape).requires_grad_()


# -- batches and decompositions ---------------------------------------------------


def doubled_batch(write: bool, given_back: bool = False) -> CustomOpDef:
    def rule(info: Any, in_dims: Any, x: Tensor) -> Any:
        made = op(x)
        if write:
            x.mul_(0)
        return (x.mul_(2) if given_back else made), in_dims[0]

    op = batched(rule, ONE, double)
    return op


def test_a_vmap_rule_that_writes_is_told() -> None:
    """S206: a user's tensor is what it was after a vmap."""
    x = polyop.ones(3, 2)
    polyop.vmap(doubled_batch(write=True))(x)
    assert not x.numpy().any()  # so it would be
    said, why = verdict("test_vmap", doubled_batch(write=True), values(2, 3))
    assert "the vmap rule of hostile::" in said and "writes the argument 'x'" in said
    assert why is MutationError
    assert verdict("test_vmap", doubled_batch(write=False), values(2, 3)) == ("", None)


def copy(x: Tensor) -> Tensor:
    return of_array(x.numpy().copy())


def test_a_vmap_rule_that_gives_back_its_argument_is_told() -> None:
    """S206: a later write to the result leaves the argument, in a vmap as in a loop."""
    same = batched(lambda info, in_dims, x: (x, in_dims[0]), ONE, copy)

    def written(x: Tensor) -> Tensor:
        same(x).mul_(5)
        return x * 1

    assert written(polyop.ones(2)).numpy().tolist() == [1, 1]
    assert polyop.vmap(written)(polyop.ones(2, 2)).numpy().tolist() == [[5, 5], [5, 5]]
    said, why = verdict("test_vmap", same, values(2, 3))
    assert "shares storage with argument 'x'" in said and why is AliasError
    right = batched(lambda info, in_dims, x: (x.clone(), in_dims[0]), ONE, copy)
    assert verdict("test_vmap", right, values(2, 3)) == ("", None)


@pytest.mark.parametrize("fault", [True, False])
def test_a_decomposition_that_gives_back_its_argument_is_told(fault: bool) -> None:
    """S206: what an operator is made of copies where the kernel does."""
    op = define(ONE, copy)
    op.register_decomposition((lambda x: x) if fault else (lambda x: x.clone()))
    said, why = verdict("test_decomposition", op, values(2, 3))
    assert ("shares storage" in said, why) == ((True, AliasError) if fault else (False, None))


# -- gradients ----------------------------------------------------------------------


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.x, ctx.y = inputs[0], output


def zero_input(ctx: Any, inputs: Any, output: Any) -> None:
    inputs[0].detach().zero_()


def zero_output(ctx: Any, inputs: Any, output: Any) -> None:
    output.detach().zero_()


def zero_kept_input(ctx: Any, g: Tensor) -> Any:
    ctx.x.detach().zero_()
    return g * 2


def zero_kept_output(ctx: Any, g: Tensor) -> Any:
    ctx.y.detach().zero_()
    return g * 2


def right(ctx: Any, g: Tensor) -> Any:
    return g * 2


@pytest.mark.parametrize(
    ("setup", "backward", "said"),
    [
        (zero_input, right, "a call that records the gradient of {} writes the argument 'x'"),
        (zero_output, right, "the result of {} is another where a gradient is recorded"),
        (keep, zero_kept_input, "the backward of {} writes the argument 'x'"),
        (keep, zero_kept_output, "the backward of {} writes the result"),
        (keep, right, ""),
    ],
)
def test_rules_of_a_gradient_that_write_are_told(setup: Rule, backward: Rule, said: str) -> None:
    """S125: arguments and results are what they are without a gradient, before and after it."""
    op = define(ONE, double)
    op.register_autograd(backward, setup_context=setup)
    expected = said and f"test_gradient: {said.format(op._qualname)}"
    assert verdict("test_gradient", op, asked(2, 3))[0] == expected


def test_a_setup_that_writes_the_result_shows_only_with_a_gradient() -> None:
    """S125: so the law calls with a gradient and without."""
    op = define(ONE, double)
    op.register_autograd(right, setup_context=zero_output)
    plain, recorded = op(values(3)), op(asked(3))
    assert plain.numpy().all() and not np.any(recorded.numpy(force=True))


@pytest.mark.parametrize("what", ["the tangent of 'x'", "the argument 'x'", ""])
def test_a_jvp_that_writes_is_told(what: str) -> None:
    """S206: forward mode leaves tangents and arguments."""

    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        made = tangent * 2
        if what:
            written = tangent if "tangent" in what else ctx.x
            written.detach().zero_()
        return made

    op = define(ONE, double)
    op.register_autograd(right, setup_context=keep)
    op.register_jvp(jvp)
    said, why = verdict("test_gradient", op, asked(2, 3))
    assert said == (f"test_gradient: the jvp of {op._qualname} writes {what}" if what else "")
    assert why is (MutationError if what else None)

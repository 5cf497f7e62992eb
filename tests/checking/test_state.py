"""State that a kernel, or a rule, keeps between calls or during one: a law tells it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, case_of, define, differentiable, values

from polyop.checking.law import LAWS, Verdict, judge
from polyop.dispatch.custom_op import CustomOpDef
from polyop.tensor.tensor import Tensor, of_array


def verdict(law: str, op: CustomOpDef, *given: Any) -> Verdict:
    return judge(LAWS[law], case_of(op, *given))


def by_shape(x: Tensor) -> Any:
    return x.shape, str(x.dtype)


def by_identity(x: Tensor) -> Any:
    return id(x)


def by_address(x: Tensor) -> Any:
    return x.numpy().ctypes.data, x.shape


def by_value(x: Tensor) -> Any:
    return x.numpy().tobytes(), x.shape, str(x.dtype)


@pytest.mark.parametrize("key", [by_shape, by_identity, by_address, by_value])
def test_results_that_are_kept_by_less_than_their_values_are_told(key: Any) -> None:
    """S206: a second call with other values, or with written arguments, gives its own results."""
    kept: dict[Any, Any] = {}

    def kernel(x: Tensor) -> Tensor:
        place = key(x)
        if place not in kept:
            kept[place] = x, x.numpy() ** 2
        return of_array(kept[place][1].copy())

    op = define(ONE, kernel)
    for _ in range(2):  # what is kept from the first time changes nothing
        told = verdict("test_determinism", op, values(2, 3))
        assert told.broken == (key is not by_value)
        assert ("remembers" in told.reason) == told.broken


FEATURES: dict[str, Callable[[Any], Any]] = {
    "first": lambda a: a.flat[0],
    "last": lambda a: a.flat[-1],
    "sum": lambda a: float(a.sum()),
    "mean": lambda a: float(a.mean()),
    "sorted": lambda a: tuple(sorted(a.flat)),
    "sizes": lambda a: np.abs(a).tobytes(),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_results_that_are_kept_by_a_feature_of_the_values_are_told(feature: str) -> None:
    """S206: values that share the feature get the result of others."""
    kept: dict[Any, Any] = {}

    def kernel(x: Tensor) -> Tensor:
        place = FEATURES[feature](x.numpy()), x.shape, str(x.dtype)
        if place not in kept:
            kept[place] = np.exp(x.numpy())
        return of_array(kept[place].copy())

    op = define(ONE, kernel)
    for _ in range(2):
        told = verdict("test_determinism", op, values(2, 3))
        assert told.broken
        assert "remembers" in told.reason


@pytest.mark.parametrize("fn", [np.abs, np.sort, np.sum, np.floor, np.cos, np.round])
def test_results_that_are_the_same_for_such_values_are_no_old_ones(fn: Any) -> None:
    """S206: a function may give the same for values of one size, sum or order."""
    op = define(ONE, lambda x: of_array(np.asarray(fn(x.numpy()), x.dtype)))
    for seed in range(4):
        x = of_array(np.random.default_rng(seed).normal(size=(2, 3)) * 3)
        assert verdict("test_determinism", op, x) == Verdict("holds")


def test_a_kernel_that_looks_at_shapes_only_remembers_nothing() -> None:
    """S206: results that are the same for all values are no old ones."""
    op = define(ONE, lambda x: of_array(np.full_like(x.numpy(), x.shape[0])))
    assert verdict("test_determinism", op, values(2, 3)) == Verdict("holds")


def test_rounding_is_no_memory() -> None:
    """S206: what is zero in double precision may be rounding in single."""
    op = define(ONE, lambda x: of_array(np.asarray(x.numpy().std())), lambda x: x.new_empty(()))
    assert verdict("test_determinism", op, of_array(np.array([0.1]))) == Verdict("holds")


@pytest.mark.parametrize("count", [1, 2, 4, 0])
def test_buffers_that_are_used_in_turn_are_told(count: int) -> None:
    """S202: a result is the caller's, also after several more calls."""
    buffers: dict[Any, Any] = {}
    turn = itertools.count()

    def kernel(x: Tensor) -> Tensor:
        a = x.numpy()
        place = (next(turn) % count, a.shape, a.dtype) if count else next(turn)
        room = buffers.setdefault(place, np.empty(a.shape, a.dtype))
        return of_array(np.multiply(a, 2, out=room))

    told = verdict("test_schema", define(ONE, kernel), values(2, 3))
    assert told.broken == bool(count)
    assert ("of an earlier call" in told.reason) == told.broken


# -- threads ------------------------------------------------------------------------

Rule = Callable[..., Any]


def late(shared: bool) -> CustomOpDef:
    kept: dict[str, Any] = {}

    def kernel(x: Tensor) -> Tensor:
        a = x.numpy()
        total = 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        room = kept if shared else {}
        room["a"] = a * total
        total += 1
        return of_array(room["a"] + total)

    return define(ONE, kernel)


def in_backward(shared: bool) -> CustomOpDef:
    kept: dict[str, Any] = {}

    def backward(ctx: Any, g: Tensor) -> Any:
        room = kept if shared else {}
        (room["x"],) = ctx.saved_tensors
        slope = g * 2
        return slope * room["x"]

    return differentiable(define(ONE, lambda x: of_array(x.numpy() ** 2)), backward)


def in_setup(shared: bool) -> CustomOpDef:
    kept: dict[str, Any] = {}

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        room = kept if shared else {}
        room["x"] = inputs[0]
        ctx.number = 2
        ctx.save_for_backward(room["x"])

    op = define(ONE, lambda x: of_array(x.numpy() ** 2))
    op.register_autograd(lambda ctx, g: g * ctx.number * ctx.saved_tensors[0], setup_context=setup)
    return op


def in_fake(shared: bool) -> CustomOpDef:
    kept: dict[str, Any] = {}

    def fake(x: Tensor) -> Tensor:
        room = kept if shared else {}
        room["shape"] = x.shape
        made = x.dtype
        return x.new_empty(room["shape"], dtype=made)

    return define(ONE, lambda x: of_array(x.numpy() ** 2), fake)


@pytest.mark.parametrize("make", [late, in_backward, in_setup, in_fake])
@pytest.mark.parametrize("shared", [True, False])
def test_a_place_that_threads_share_is_told(make: Rule, shared: bool) -> None:
    """S206: late in a kernel, in backward, in setup_context and in a fake rule."""
    told = verdict("test_threads", make(shared), values(2, 3).requires_grad_())
    assert told.broken == shared, told
    assert ("while other threads call it" in told.reason) == shared

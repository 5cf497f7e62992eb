"""The laws of gradients where a sample does not look: other numbers, signs, lists and sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Literal

import numpy as np
import pytest

import polyop as p
from polyop.checking import opcheck
from polyop.dispatch.custom_op import custom_op
from polyop.errors import OpCheckError
from polyop.tensor.tensor import Tensor, of_array

_number = count()


def values(*shape: int) -> Tensor:
    rng = np.random.default_rng(len(shape))
    return of_array(rng.uniform(0.3, 1.5, shape)).requires_grad_()


def define(kernel: Any, backward: Any = None, setup: Any = None, jvp: Any = None) -> Any:
    op = custom_op(f"corners::f{next(_number)}", kernel, mutates_args=())
    if backward is not None:
        op.register_autograd(backward, setup_context=setup)
    if jvp is not None:
        op.register_jvp(jvp)
    return op


def holds(op: Any, *args: Any, law: str = "test_gradient") -> None:
    assert opcheck(op, args, test_utils=law) == {law: "SUCCESS"}


def breaks(match: str, op: Any, *args: Any, law: str = "test_gradient") -> None:
    with pytest.raises(OpCheckError, match=match):
        opcheck(op, args, test_utils=law)


def save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*[t for t in inputs if isinstance(t, Tensor)])
    ctx.rest = [v for v in inputs if not isinstance(v, Tensor)]


# -- numbers, flags, constants ------------------------------------------------


def shaped(
    x: Tensor, k: float = 2.0, n: int = 1, twice: bool = False, to: Literal["x", "x2"] = "x"
) -> Tensor:
    power = n * (2 if to == "x2" else 1)
    return of_array(x.numpy() ** power * k * (2 if twice else 1))


@pytest.mark.parametrize(
    ("ignored", "said"),
    [(None, ""), (0, "with k=2.5"), (1, "with n=2"), (2, "with twice=True"), (3, "with to='x2'")],
)
def test_plain_arguments_change(ignored: int | None, said: str) -> None:
    """S206: a backward that is right for one value of a plain argument only breaks the law."""

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        defaults: list[Any] = [2.0, 1, False, "x"]
        k, n, twice, to = [
            d if i == ignored else v for i, (d, v) in enumerate(zip(defaults, ctx.rest))
        ]
        power = n * (2 if to == "x2" else 1)
        return g * x ** (power - 1) * (power * k * (2 if twice else 1)), None, None, None, None

    op = define(shaped, backward, save_inputs)
    if ignored is None:
        holds(op, values(2, 3))
    else:
        breaks(said, op, values(2, 3))


def test_a_list_of_numbers_changes() -> None:
    """S206: numbers inside lists are plain arguments too."""

    def kernel(x: Tensor, by: list[float]) -> Tensor:
        return of_array(x.numpy() * by[0] + x.numpy() ** 2 * by[1])

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,), ((a, b),) = ctx.saved_tensors, ctx.rest
        return g * a + g * x * (2 * b), None

    def forgets(ctx: Any, g: Tensor) -> Any:
        ctx.rest = [[ctx.rest[0][0], 1.0]]
        return backward(ctx, g)

    holds(define(kernel, backward, save_inputs), values(3), [2.0, 1.0])
    breaks(r"with by\[1\]=1.25", define(kernel, forgets, save_inputs), values(3), [2.0, 1.0])


def test_a_flag_that_makes_stairs_says_nothing() -> None:
    """S206: where a flag rounds, the gradient of what is rounded may stand for its own."""

    def kernel(x: Tensor, hard: bool = False) -> Tensor:
        soft = 1 / (1 + np.exp(-x.numpy()))
        return of_array(np.where(soft > 0.6, 1.0, 0.0) if hard else soft)

    def backward(ctx: Any, g: Tensor) -> Any:
        soft = 1 / (1 + p.exp(-ctx.saved_tensors[0]))
        return g * soft * (1 - soft), None

    holds(define(kernel, backward, save_inputs), values(2, 3))


def test_a_number_that_makes_results_random_says_nothing() -> None:
    """S206: what another number makes differ from call to call has no finite differences."""
    rng = np.random.default_rng(0)

    def kernel(x: Tensor, drop: float = 0.0) -> Tensor:
        return of_array(x.numpy() * (rng.uniform(size=x.shape) >= drop))

    holds(define(kernel, lambda ctx, g: (g * 1.0, None)), values(2, 3))


# -- lists --------------------------------------------------------------------


def scaled(xs: list[Tensor]) -> list[Tensor]:
    return [of_array(x.numpy() * (i + 1)) for i, x in enumerate(xs)]


LISTS: dict[str, Callable[[int, int], float]] = {
    "xs of length 1": lambda i, n: i + 1 if n > 1 else 7.0,
    "xs of length 3": lambda i, n: i + 1 if i < 2 else 0.0,
}


@pytest.mark.parametrize("said", LISTS)
def test_lists_of_other_lengths(said: str) -> None:
    """S206: a backward that is right for one length of a list only breaks the law."""
    given = [values(3), values(2)]

    def op(factor: Callable[[int, int], float]) -> Any:
        return define(scaled, lambda ctx, g: ([h * factor(i, len(g)) for i, h in enumerate(g)],))

    holds(op(lambda i, n: i + 1), given)
    breaks(said, op(LISTS[said]), given)


# -- forward mode -------------------------------------------------------------


def weighed(x: Tensor, y: Tensor | None = None) -> Tensor:
    array = x.numpy()
    return of_array(np.abs(array) * array * (1.0 if y is None else y.numpy()))


def weighed_backward(ctx: Any, g: Tensor) -> Any:
    x, *rest = ctx.saved_tensors
    if not rest:
        return g * 2 * p.abs(x), None
    return sum_to(g * 2 * p.abs(x) * rest[0], x), sum_to(g * p.abs(x) * x, rest[0])


def sum_to(g: Tensor, like: Tensor) -> Tensor:
    axes = tuple(i for i, n in enumerate(like.shape) if n == 1 and g.shape[i] != 1)
    return p.sum(g, axis=axes, keepdims=True)


def pushed(ctx: Any, t: Tensor | None, u: Tensor | None, wrong: Any = None) -> Any:
    x, *rest = ctx.saved_tensors
    given = wrong is not None and wrong(x, rest)
    part = 0.0 if t is None else t * 2 * p.abs(x) * (rest[0] if rest else 1.0)
    other = 0.0 if u is None else u * p.abs(x) * x
    return (part + other) * (3.0 if given else 1.0)


FORWARD: dict[str, Callable[[Tensor, list[Tensor]], bool]] = {
    "y=None": lambda x, rest: not rest,
    "the other sign": lambda x, rest: bool((x.numpy(force=True) < 0).any()),
    "size 2 -> 5, 3 -> 8": lambda x, rest: x.shape == (5, 8),
    "size 2 -> 1": lambda x, rest: x.shape == (1, 3) and rest[0].shape == (1, 3),
    r"y of shape \[1, 3\]": lambda x, rest: x.shape == (2, 3) and rest[0].shape == (1, 3),
}


@pytest.mark.parametrize("said", FORWARD)
def test_a_jvp_is_compared_where_backward_is(said: str) -> None:
    """S132, S206: a `jvp` is held to the law at other signs, sizes, broadcasts, and at None."""

    def wrong(ctx: Any, t: Any, u: Any) -> Any:
        return pushed(ctx, t, u, FORWARD[said])

    given = values(2, 3), values(2, 3)
    holds(define(weighed, weighed_backward, save_inputs, pushed), *given)
    op = define(weighed, weighed_backward, save_inputs, wrong)
    breaks(f"forward derivative(.|\n)*with {said}", op, *given)


def test_a_jvp_may_refuse_made_inputs() -> None:
    """S206: a `jvp` that raises for what the author did not mean is not silent."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy() + y.numpy())

    def jvp(ctx: Any, t: Tensor | None, u: Tensor | None) -> Any:
        return u if t is None else t if u is None else t + u

    holds(define(kernel, lambda ctx, g: (g, g), None, jvp), values(2, 3), values(2, 3))


def test_a_tangent_of_another_dtype_is_told() -> None:
    """S132: a tangent that loses precision is cast, and opcheck names the dtypes."""

    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() * x.dtype.type(2))

    op = define(kernel, lambda ctx, g: g * 2, None, lambda ctx, t: p.astype(t * 2, "float32"))
    breaks("jvp of .* wrong dtype for .result 0.(.|\n)*dtype float32", op, values(3))
    holds(define(kernel, lambda ctx, g: g * 2, None, lambda ctx, t: t * 2), values(3))


# -- what comes in ------------------------------------------------------------


def test_zeros_that_come_in_go_on() -> None:
    """S206: of a zero in the incoming gradient a backward makes a zero."""

    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() * 2)

    def adds(ctx: Any, g: Tensor) -> Tensor:
        return g * 2 + p.where(g == 0, 1.0, 0.0)

    breaks("each half of the incoming gradient", define(kernel, adds), values(2, 3))
    holds(define(kernel, lambda ctx, g: g * 2), values(2, 3))

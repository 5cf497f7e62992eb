"""The laws of gradients for values of all sizes, that are not finite, and in all precisions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.checking.test_gradient_corners import breaks, define, holds, save_inputs

import polyop as p
from polyop.checking import opcheck
from polyop.checking.law import LAWS, Case, judge
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

_number = count()


def sample(values: Any, dtype: Any = "float64") -> Tensor:
    return of_array(np.asarray(values, dtype)).requires_grad_()


def unary(
    kernel: Callable[[Any], Any], slope: Callable[[Tensor, Tensor], Any], **rules: Any
) -> Any:
    """Give an operator whose backward is `slope` of its argument and of what comes in."""

    def run(x: Tensor) -> Tensor:
        return of_array(np.asarray(kernel(x.numpy()), x.dtype))

    return define(run, lambda ctx, g: slope(ctx.saved_tensors[0], g), save_inputs, **rules)


def single_only(kernel: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(a: Any) -> Any:
        if a.dtype != np.float32:
            raise TypeError("float32 only")
        return kernel(a)

    return run


# -- results of all sizes -----------------------------------------------------

SIZES: dict[str, tuple[Any, Any, list[float]]] = {
    "exp": (np.exp, lambda x, g: g * p.exp(x), [1.0, 30.0]),
    "exp of zero": (np.exp, lambda x, g: g * p.exp(x), [0.0, 17.0, 50.0]),
    "square": (np.square, lambda x, g: 2 * g * x, [1e-3, 0.1, 1.0, 10.0, 1e8]),
    "small square": (np.square, lambda x, g: 2 * g * x, [1e-10, 1e-9]),
    "sixth power": (lambda a: a**6, lambda x, g: 6 * g * x**5, [0.01, 0.1, 1.0, 1000.0]),
    "log": (np.log, lambda x, g: g / x, [1e-6, 1e-3, 1.0]),
    "steep sine": (lambda a: np.sin(1e5 * a), lambda x, g: 1e5 * g * p.cos(1e5 * x), [0.3, 0.7]),
}


#: Where steps of one length are right too.
GRADCHECKED = ("exp", "square", "sixth power")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("law", ["test_gradient", "test_second_order"])
def test_results_of_all_sizes(name: str, law: str) -> None:
    """S206: a right gradient is right beside results of any size, as gradcheck says too."""
    kernel, slope, values = SIZES[name]
    op, x = unary(kernel, slope), sample(values)
    if name in GRADCHECKED:
        assert p.autograd.gradcheck(op, (x,))
    holds(op, x, law=law)


@pytest.mark.parametrize("wrong", [-1.0, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("name", SIZES)
def test_wrong_gradients_of_all_sizes(name: str, wrong: float) -> None:
    """S206: a wrong gradient is wrong beside results of any size."""
    kernel, slope, values = SIZES[name]
    breaks("for 'x' is", unary(kernel, lambda x, g: slope(x, g) * wrong), sample(values))


def test_small_elements_beside_large_ones() -> None:
    """S206: a gradient that is wrong for small elements only breaks the law."""

    def slope(x: Tensor, g: Tensor) -> Tensor:
        return g * 2 * x * p.where(x < 100, -1.0, 1.0)

    breaks("is wrong", unary(np.square, slope), sample([1e-3, 0.1, 1.0, 10.0, 1e9]))


@pytest.mark.parametrize("length", [1, 6, 50])
@pytest.mark.parametrize("wrong", [1.0, -1.0, 0.5, 0.9, 1.5])
def test_small_numbers_in_single_precision(wrong: float, length: int) -> None:
    """S206: what takes float32 only is compared by the size of its values."""
    op = unary(single_only(np.square), lambda x, g: 2 * wrong * g * x)
    x = sample(np.linspace(1, 2, length) * 1e-3, "float32")
    if wrong == 1.0:
        holds(op, x)
    else:
        breaks("is wrong", op, x)


# -- results that are not finite ----------------------------------------------


def soft(a: Any) -> Any:
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft_slope(x: Tensor, g: Tensor) -> Tensor:
    y = p.softmax(x, -1)
    return y * (g - (g * y).sum(-1, keepdims=True))


NOT_FINITE: dict[str, tuple[Any, Any, Any]] = {
    "log": (np.log, lambda x, g: g / x, np.random.default_rng(0).normal(size=(3, 4))),
    "square of nan": (np.square, lambda x, g: 2 * g * x, [np.nan, 1.0, 2.0]),
    "square of infinity": (np.square, lambda x, g: 2 * g * x, [1.0, 2.0, np.inf]),
    "root": (np.sqrt, lambda x, g: g / (2 * p.sqrt(x)), [-1.0, 0.5, 2.0]),
    "masked softmax": (soft, soft_slope, [[1.0, 2.0, -np.inf], [0.0, 1.0, 2.0]]),
}


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("wrong", [1.0, -7.0])
def test_results_that_are_not_finite_are_left_out(name: str, wrong: float) -> None:
    """S206: one result that is no number hides no other one's wrong gradient."""
    kernel, slope, values = NOT_FINITE[name]
    op = unary(kernel, lambda x, g: slope(x, g) * wrong)
    if wrong == 1.0:
        holds(op, sample(values))
        holds(op, sample(values), law="test_second_order")
    else:
        breaks("is wrong", op, sample(values))


def test_a_second_gradient_beside_what_is_not_finite() -> None:
    """S206: nor a wrong second gradient."""
    op = unary(np.square, lambda x, g: 2 * g * x.detach())
    breaks("second gradient", op, sample([np.nan, 1.0, 2.0]), law="test_second_order")


def test_without_a_finite_result_nothing_is_said() -> None:
    """S206: a law that can compare nothing says so, and does not hold."""
    op = unary(lambda a: a * np.nan, lambda x, g: -7 * g / x)
    case = Case(op._opoverload, sample_of(op._opoverload, (sample([-1.0, -2.0]),), {}))
    for law in ("test_gradient", "test_second_order"):
        verdict = judge(LAWS[law], case)
        assert (
            verdict.kind == "does not apply"
            and "no result of the sample is finite" in verdict.reason
        )


# -- results that have no gradient --------------------------------------------


@pytest.mark.parametrize("marked", [0, 1])
@pytest.mark.parametrize("wrong", [1, 2])
def test_results_that_are_marked_to_have_none(marked: int, wrong: int) -> None:
    """S206: a floating result that is marked non-differentiable is part of no slope."""

    def kernel(x: Tensor) -> tuple[Tensor, Tensor]:
        return of_array(x.numpy() * 2), of_array(np.asarray(x.numpy() * 3, "float32"))

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[marked])

    def backward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return (b.to(p.float64) * 3 if marked == 0 else a * 2) * wrong

    op = define(kernel, backward, setup)
    if wrong == 1:
        holds(op, sample([1.0, 2.0, 3.0]))
    else:
        breaks("is wrong", op, sample([1.0, 2.0, 3.0]))


# -- precisions ---------------------------------------------------------------

PRECISIONS = ["float32", "float16", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_gradient_in_the_dtype_of_the_sample(dtype: Any) -> None:
    """S206: a gradient that is right in double precision only breaks the law."""
    right = unary(lambda a: a * 2, lambda x, g: g * 2)
    wrong = unary(lambda a: a * 2, lambda x, g: g * (-7 if g.dtype == np.dtype(dtype) else 2))
    x = sample(np.linspace(-1, 1, 7), dtype)
    holds(right, x)
    breaks(f"another for {np.dtype(dtype).name} than for float64", wrong, x)


def test_single_precision_is_tried_for_double_too() -> None:
    """S206: as values are, gradients are compared in float32."""
    wrong = unary(lambda a: a * 2, lambda x, g: g * (2 if g.dtype == p.float64 else 3))
    breaks("another for float32", wrong, sample([1.0, 2.0]))


def test_the_tangent_in_the_dtype_of_the_sample() -> None:
    """S206: so does a forward derivative."""

    def scaled(by: float) -> Any:
        def push(ctx: Any, t: Tensor) -> Tensor:
            return t * (2 if t.dtype == p.float64 else by)

        return unary(lambda a: a * 2, lambda x, g: g * 2, jvp=push)

    holds(scaled(2), sample([1.0, 2.0], "float32"))
    breaks("forward derivative .* another for float32", scaled(3), sample([1.0, 2.0], "float32"))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_sums_have_room(dtype: Any) -> None:
    """S206: rounding of what is summed is no fault, in any precision."""

    def rows(a: Any) -> Any:
        return (a * a).sum(-1)

    op = unary(rows, lambda x, g: 2 * g.unsqueeze(-1) * x)
    holds(op, sample(np.random.default_rng(0).normal(size=(4, 300)), dtype))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_values_in_the_dtype_of_the_sample(dtype: Any) -> None:
    """S206: a kernel that gives other values in the sample's precision breaks the law."""

    def kernel(x: Tensor) -> Tensor:
        by = 2 if x.dtype == np.float64 else 3
        return of_array(np.asarray(x.numpy() * by, x.dtype))

    op = define(kernel)
    op.register_fake(lambda x: x.new_empty(x.shape))
    breaks("has other values", op, sample([1.0, 2.0], dtype), law="test_dtypes")


def test_what_is_written_in_single_precision() -> None:
    """S206: so does one that writes other values."""

    def kernel(x: Tensor, wrong: bool = False) -> None:
        a = x.numpy()
        a *= 3 if wrong and a.dtype == np.float32 else 2

    op = custom_op(f"written::f{next(_number)}", kernel, mutates_args=("x",))
    op.register_fake(lambda x, wrong: None)
    x = of_array(np.array([1.0, 2.0]))
    assert opcheck(op, (x,), test_utils="test_dtypes")["test_dtypes"] == "SUCCESS"
    breaks("argument 'x' .* has other values for float32", op, x, True, law="test_dtypes")


@pytest.mark.parametrize("dtype", [p.float16, p.bfloat16])
def test_gradients_under_autocast(dtype: Any) -> None:
    """S206: under autocast gradients are those of double precision too, but for rounding."""

    def cast(by: float) -> Any:
        op = unary(lambda a: a * 2, lambda x, g: g * (by if g.dtype == dtype else 2))
        op.register_fake(lambda x: x.new_empty(x.shape))
        op.register_autocast("cpu", dtype)
        return op

    x = sample([1.0, 2.0, -3.0], "float32")
    holds(cast(2), x, law="test_autocast")
    breaks("the gradient .* under autocast", cast(3), x, law="test_autocast")


# -- other sizes --------------------------------------------------------------


@pytest.mark.parametrize("wrong_at", [lambda n: n == 1, lambda n: n > 8])
@pytest.mark.parametrize("law", ["test_gradient", "test_second_order"])
def test_one_element_and_many(wrong_at: Callable[[int], bool], law: str) -> None:
    """S206: a gradient that is wrong for one element, or for many, breaks the law."""

    def slope(x: Tensor, g: Tensor) -> Tensor:
        kept = x.detach() if wrong_at(x.numel()) else x
        return 3 * g * x * kept * (-1 if wrong_at(x.numel()) and law == "test_gradient" else 1)

    breaks(
        "is wrong",
        unary(lambda a: a**3, slope),
        sample(np.linspace(1, 2, 6).reshape(2, 3)),
        law=law,
    )


def test_the_second_gradient_for_another_flag() -> None:
    """S206: a second gradient that is right for one flag only breaks the law."""

    def kernel(x: Tensor, flag: bool = True) -> Tensor:
        return of_array(x.numpy() ** 3)

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * (x if ctx.rest[0] else x.detach()), None

    op = define(kernel, backward, save_inputs)
    breaks("with flag=False", op, sample([1.0, 2.0]), law="test_second_order")


def summed_to(g: Tensor, shape: Any) -> Tensor:
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis, n in enumerate(shape):
        g = g.sum(axis, keepdims=True) if n == 1 and g.shape[axis] != 1 else g
    return g


BROADCAST: dict[str, Callable[[Any, Any, Any], bool]] = {
    "right": lambda x, y, g: False,
    "row": lambda x, y, g: x[:1] == (1,) and len(x) == 2 and x[1] > 1,
    "column": lambda x, y, g: len(x) == 2 and x[1] == 1 and x[0] > 1,
    "lower rank": lambda x, y, g: len(x) == 1,
    "no axes": lambda x, y, g: x == (),
    "both": lambda x, y, g: x != g and y != g,
}


@pytest.mark.parametrize("name", BROADCAST)
def test_gradients_of_what_is_broadcast(name: str) -> None:
    """S206: a gradient that is wrong for one way of broadcasting breaks the law."""

    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        wrong = BROADCAST[name](tuple(x.shape), tuple(y.shape), tuple(g.shape))
        return summed_to(g * y, x.shape) * (2 if wrong else 1), summed_to(g * x, y.shape)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return of_array(np.asarray(x.numpy() * y.numpy()))

    op = define(kernel, backward, save_inputs)
    given = [
        sample(np.linspace(1, 2, 12).reshape(3, 4)),
        sample(np.linspace(2, 3, 12).reshape(3, 4)),
    ]
    if name == "right":
        holds(op, *given)
    else:
        breaks("of shape", op, *given)

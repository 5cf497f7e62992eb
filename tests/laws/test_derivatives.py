"""Derivatives of random programs against differences, and against each other (S132 to S134)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, seed
from hypothesis import strategies as st
from tests.conftest import FIRST_SEED
from tests.laws.payloads import MAKERS
from tests.laws.programs import data, ours, programs
from tests.laws.test_compositions import few
from tests.laws.transforms import close

from polyop import Tensor
from polyop.func import grad, jacfwd, jacrev, jvp, linearize, vjp, vmap

WHERE = st.integers(0, 1000)
make = MAKERS["numpy"]


def slope(f: Any, x: Any, v: Any, step: float) -> Any:
    """Give a derivative along a direction by central differences of the fourth order."""
    ahead = [f(make(x + k * step * v)).numpy() for k in (-2, -1, 1, 2)]
    return (ahead[0] - 8 * ahead[1] + 8 * ahead[2] - ahead[3]) / (12 * step)


def same_slope(f: Any, x: Any, v: Any, found: Any) -> None:
    """Compare a derivative with differences, away from kinks."""
    near, far = slope(f, x, v, 1e-4), slope(f, x, v, 2e-4)
    scale = 1 + np.abs(near).max()
    # Where two steps disagree, a kink of some maximum or sort lies between the points.
    assume(np.abs(near - far).max() < 1e-6 * scale)
    np.testing.assert_allclose(found / scale, near / scale, atol=1e-5)


def problem(calls: Any, where: int) -> tuple[Any, Any, Any, Any]:
    """Give a function of one array, where to look, a direction, and weights of the result."""
    y = make(data(where))
    program = ours(calls)
    return lambda x: program(x, y), data(where + 1), data(where + 2), data(where + 3)


@seed(FIRST_SEED)
@few(15)
@given(calls=programs(), where=WHERE)
def test_jvp_is_the_slope(calls: Any, where: int) -> None:
    """S132: a forward derivative is what differences say."""
    f, x, v, _ = problem(calls, where)
    value, found = jvp(f, (make(x),), (make(v),))
    close(value.numpy(), f(make(x)).numpy())
    same_slope(f, x, v, found.numpy())


@seed(FIRST_SEED)
@few(15)
@given(calls=programs(), where=WHERE)
def test_gradients_are_slopes(calls: Any, where: int) -> None:
    """S134: a gradient along a direction is what differences say."""
    f, x, v, w = problem(calls, where)
    weighted = lambda x: (f(x) * make(w)).sum()  # noqa: E731 - a law is read in one line
    found = (grad(weighted)(make(x)) * make(v)).sum()
    same_slope(weighted, x, v, found.numpy())


@seed(FIRST_SEED)
@few(5)
@given(calls=programs(most=15), where=WHERE)
def test_second_gradients_are_slopes_of_backward(calls: Any, where: int) -> None:
    """S133, S134: a second derivative by transforms is the slope of what backward() gives."""
    f, x, v, w = problem([c for c in calls if c.name != "poke"], where)

    def backward(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (f(x) * make(w)).sum().backward()
        assert x.grad is not None
        return x.grad

    first = grad(lambda x: (f(x) * make(w)).sum())
    close(first(make(x)).numpy(), backward(make(x)).numpy())
    same_slope(backward, x, v, jvp(first, (make(x),), (make(v),))[1].numpy())


@seed(FIRST_SEED)
@few(15)
@given(calls=programs(), where=WHERE)
def test_both_modes_are_adjoint(calls: Any, where: int) -> None:
    """S132, S134: `<w, J v>` is `<J' w, v>`, by jvp, by linearize and by vjp."""
    f, x, v, w = problem(calls, where)
    forward = jvp(f, (make(x),), (make(v),))[1].numpy()
    again = linearize(f, make(x))[1](make(v)).numpy()
    (back,) = vjp(f, make(x))[1](make(w))
    close(again, forward)
    close(np.vdot(w, forward), np.vdot(back.numpy(), v))


@seed(FIRST_SEED)
@few(5)
@given(calls=programs(most=20), where=WHERE)
def test_jacobians_agree(calls: Any, where: int) -> None:
    """S134: rows by vmap of vjp, columns by vmap of jvp, and one by one, are one Jacobian."""
    f, x, _, _ = problem(calls, where)
    by_rows, by_columns = jacrev(f)(make(x)).numpy(), jacfwd(f)(make(x)).numpy()
    close(by_rows, by_columns)
    basis = np.eye(6).reshape(6, 2, 3)
    single = [jvp(f, (make(x),), (make(e),))[1].numpy() for e in basis]
    close(by_columns, np.stack(single, -1).reshape(2, 3, 2, 3))


@seed(FIRST_SEED)
@few(10)
@given(calls=programs(), where=WHERE)
def test_gradients_per_sample(calls: Any, where: int) -> None:
    """S134, S157: vmap of grad is the gradient of each sample, as backward() gives it."""
    program, w = ours(calls), make(data(where))
    xs, ys = data(where + 1, (4, 2, 3)), data(where + 2, (2, 3, 4))
    loss = lambda x, y: (program(x, y) * w).sum()  # noqa: E731 - a law is read in one line
    found = vmap(grad(loss, (0, 1)), (0, 2))(make(xs), make(ys))
    for i in range(4):
        expected = grad(loss, (0, 1))(make(xs[i]), make(ys[..., i]))
        for got, want in zip(found, expected, strict=True):
            close(got.numpy()[i], want.numpy())

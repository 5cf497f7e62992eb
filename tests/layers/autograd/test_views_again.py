"""Views that are taken again: of gradients, tangents and new values that are laid out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, func

Fn = Callable[..., Any]

ROWS = np.arange(6.0).reshape(2, 3) + 1.0
ONES = np.ones((3, 2))


def tensor(array: Any) -> Tensor:
    return polyop.from_numpy(np.array(array, order="K"))


def view_of_a_sum(x: Tensor) -> Tensor:
    return (tensor(ONES) + x.mT).view(-1) ** 2.0


def written_view(x: Tensor) -> Tensor:
    b = x * 1.0
    b.view(-1).mul_(2.0)
    return b.mT * b.mT


def copied_columns(x: Tensor) -> Tensor:
    b = tensor(ONES)
    v = b.view(-1)
    b.copy_(x.mT)
    return v * b.view(-1)


def written_columns(x: Tensor) -> Tensor:
    b = x * 1.0
    v, w = b.view(-1), b.mT
    w.add_(tensor(ONES))
    return v * b.view(-1)


def written_rows_of_a_view(x: Tensor) -> Tensor:
    b = x * 1.0
    v = b.view(3, 2)
    v.mul_(2.0)
    v[0].mul_(3.0)
    return (b.mT * b.mT) @ b


def reshaped_columns(x: Tensor) -> Tensor:
    b = x * 1.0
    b.mT.add_(tensor(ONES))
    b.reshape(-1).mul_(3.0)  # a view: a write leaves the layout what it is
    return b * b


def reshaped_rows(x: Tensor) -> Tensor:
    b = x.mT * 1.0
    b.add_(tensor(ONES))
    b.reshape(-1).mul_(3.0)  # a copy
    return b * x.mT


def unrecorded_columns(x: Tensor) -> Tensor:
    b = x * 2.0
    with polyop.no_grad():
        b.mT.add_(tensor(ONES))
    return b * b.view(2, 3)


PROGRAMS = [
    view_of_a_sum, written_view, copied_columns, written_columns, written_rows_of_a_view,
    reshaped_columns, reshaped_rows, unrecorded_columns,
]  # fmt: skip
LAYOUTS: dict[str, Fn] = {"rows": np.ascontiguousarray, "columns": np.asfortranarray}


def jacobian(f: Fn) -> Any:
    """Differentiate by finite differences."""
    step, ends = 1e-6, np.eye(6).reshape(6, 2, 3) * 1e-6
    ways = [(f(tensor(ROWS + e)) - f(tensor(ROWS - e))).numpy() / (2.0 * step) for e in ends]
    return np.stack(ways, -1).reshape(*ways[0].shape, 2, 3)


def along(J: Any, v: Any) -> Any:
    return (J * v).sum((-2, -1))


def of_sum(J: Any) -> Any:
    return J.sum(tuple(range(J.ndim - 2)))


def backward(f: Fn, layout: Fn) -> Any:
    x = tensor(ROWS).requires_grad_()
    out = f(x)
    out.backward(tensor(layout(np.ones(tuple(out.shape)))))
    return x.grad


FORWARD: dict[str, Callable[[Fn, Tensor], Any]] = {
    "jvp": lambda f, v: func.jvp(f, (tensor(ROWS),), (v,))[1],
    "linearize": lambda f, v: func.linearize(f, tensor(ROWS))[1](v),
    "compile": lambda f, v: polyop.compile(
        lambda x, v: func.jvp(f, (x,), (v,))[1])(tensor(ROWS), v),
    "functionalize": lambda f, v: func.jvp(func.functionalize(f), (tensor(ROWS),), (v,))[1],
    "vmap": lambda f, v: polyop.vmap(lambda v: func.jvp(f, (tensor(ROWS),), (v,))[1], in_dims=-1)(
        polyop.stack([v, v], axis=-1))[0],
}  # fmt: skip


@pytest.mark.parametrize("way", FORWARD)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("f", PROGRAMS)
def test_forward(f: Fn, layout: str, way: str) -> None:
    """S134: a tangent goes through views, however it is laid out."""
    v = LAYOUTS[layout](ROWS * 0.5 + 0.25)
    found = FORWARD[way](f, tensor(v)).numpy()
    np.testing.assert_allclose(found, along(jacobian(f), v), rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, polyop.compile, func.functionalize])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("f", PROGRAMS)
def test_backward(f: Fn, layout: str, transform: Fn) -> None:
    """S133, S136: a gradient goes through a write to a view, however it is laid out."""
    found = backward(transform(f), LAYOUTS[layout]).numpy()
    np.testing.assert_allclose(found, of_sum(jacobian(f)), rtol=1e-6)


@pytest.mark.parametrize("f", PROGRAMS)
def test_transforms(f: Fn) -> None:
    """S134: values, Jacobians and second derivatives of such programs are right."""
    x, J = tensor(ROWS), jacobian(f)
    np.testing.assert_allclose(func.vjp(f, x)[0].numpy(), f(x).numpy())
    np.testing.assert_allclose(func.functionalize(f)(x).numpy(), f(x).numpy())
    np.testing.assert_allclose(func.jacfwd(f)(x).numpy(), J, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(func.jacrev(f)(x).numpy(), J, rtol=1e-6, atol=1e-8)
    hessian = func.hessian(lambda x: polyop.sum(f(x)))(x).numpy()
    change = jacobian(lambda x: func.grad(lambda x: polyop.sum(f(x)))(x))
    np.testing.assert_allclose(hessian, change, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("f", [written_view, written_rows_of_a_view])
@pytest.mark.parametrize("axis", [0, -1])
def test_batches_of_gradients(f: Fn, axis: int) -> None:
    """S134: under vmap, jvp and functionalize a gradient goes back through a write to a view."""
    x = tensor(ROWS).requires_grad_()
    out = f(x)
    g = tensor(np.asfortranarray(np.arange(float(out.size)).reshape(tuple(out.shape))))

    def back(g: Tensor) -> Any:
        return polyop.autograd.grad(out, x, g, retain_graph=True)[0]

    expected = back(g).numpy()
    pair = polyop.stack([g, g * 2.0], axis=axis)
    batched = polyop.vmap(back, in_dims=axis)(pair).numpy()
    np.testing.assert_allclose(batched, np.stack([expected, 2.0 * expected]))
    np.testing.assert_allclose(func.jvp(back, (g,), (g,))[1].numpy(), expected)
    np.testing.assert_allclose(func.functionalize(back)(g).numpy(), expected)


def test_an_authors_view_that_takes_views() -> None:
    """S136: an author's view is taken of a gradient that is laid out as the base was."""
    op: Any = polyop.custom_op(
        "views_again::line",
        lambda x: x.view(-1),
        mutates_args=(),
        schema="(Tensor(a) x) -> Tensor(a)",
    )
    op.register_autograd(
        lambda ctx, g: g.reshape(ctx.shape),
        setup_context=lambda ctx, inputs, output: setattr(ctx, "shape", inputs[0].shape),
    )
    for base in (lambda x: x * 1.0, lambda x: (x.mT * 1.0).mT.mT):
        x = tensor(ROWS if base(tensor(ROWS)).is_contiguous() else ROWS.T).requires_grad_()
        b = base(x)
        op(b).mul_(2.0)
        (b.mT * b.mT).sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), 8.0 * x.detach().numpy())

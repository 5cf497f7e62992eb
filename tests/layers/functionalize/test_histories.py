"""The laws of gradients of functionalized writes that autograd does not see (S168)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.errors import MutationError
from polyop.func import functionalize, grad, jvp, vmap
from polyop.graph import make_fx

Program = Callable[..., Any]


def made_inside(x: Any, y: Any) -> Any:
    v = x * 1
    with p.no_grad():
        v.add_(y)
    return v * v


def detached(x: Any, y: Any) -> Any:
    v = x.detach()
    v.mul_(2.0)
    return x * x


def argument(x: Any, y: Any) -> Any:
    with p.no_grad():
        x.mul_(2.0)
    return x * x


def then_recorded(x: Any, y: Any) -> Any:
    z = x * 1
    with p.no_grad():
        z.add_(1.0)
    z.mul_(y)
    return z * z


def through_a_view(x: Any, y: Any) -> Any:
    z = x * 3
    v = z[0:2]
    with p.no_grad():
        v.add_(1.0)
        w = v * 3
    return v * v, z * z, w


def under_a_view(x: Any, y: Any) -> Any:
    z = x * 3
    v = z[0:2]
    with p.no_grad():
        z.add_(1.0)
    return v * v, z * z


def taken_without(x: Any, y: Any) -> Any:
    with p.no_grad():
        v = x[0:2]
    return v, v * 2 + 0 * x[0:2]


def taken_without_then_written(x: Any, y: Any) -> Any:
    z = x * 3
    with p.no_grad():
        v = z[0:2]
    z.mul_(2.0)
    return v * v, z


def with_its_own(x: Any, y: Any) -> Any:
    z = x * 3
    v = z[0:2].detach()
    w = v[0:1]
    w.mul_(y[0:1])
    return v * v, z * z, w, v


def beside_its_own(x: Any, y: Any) -> Any:
    z = x * 3
    v = z.detach()
    v.mul_(y)
    z.mul_(2.0)
    return v * v, z * z


def copied(x: Any, y: Any) -> Any:
    z = p.zeros(3)
    with p.no_grad():
        z.copy_(x)
    return z * y


def observe(f: Program, *, leaf: bool) -> Any:
    """Give results and arguments, whether they require grad, and the gradients of it all."""
    leaves = [p.tensor([1.0, 2.0, 3.0]).requires_grad_(), p.tensor([2.0, 3.0, 5.0])]
    leaves[1].requires_grad_()
    inputs = leaves if leaf else [x * 1 for x in leaves]
    found = f(*inputs)
    everything = [*(found if isinstance(found, tuple) else [found]), *inputs]
    loss = sum((t * t * (i + 1)).sum() for i, t in enumerate(everything) if t.requires_grad)
    loss.backward()  # type: ignore[union-attr]
    return (
        [t.numpy(force=True).tolist() for t in everything],
        [t.requires_grad for t in everything],
        [None if x.grad is None else x.grad.numpy().tolist() for x in leaves],
    )


PROGRAMS = [
    made_inside, detached, argument, then_recorded, through_a_view, under_a_view, taken_without,
    taken_without_then_written, with_its_own, beside_its_own, copied,
]  # fmt: skip


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("leaf", [False, True], ids=["computed", "leaf"])
def test_gradients_are_those_of_the_eager_call(f: Program, leaf: bool) -> None:
    """S168: a write under no_grad, or through detach, leaves the history of a tensor."""
    assert observe(functionalize(f), leaf=leaf) == observe(f, leaf=leaf)


def test_a_recorded_write_to_a_view_without_history_is_refused() -> None:
    """S168: what is refused eagerly is refused, and not given another gradient."""

    def f(x: Any) -> Any:
        z = x * 3
        with p.no_grad():
            v = z[0:2]
        v.mul_(2.0)
        return z

    for form in (f, functionalize(f)):
        with pytest.raises(MutationError, match="view without history"):
            form(p.ones(3).requires_grad_())


def test_levels_of_gradients_keep_their_histories() -> None:
    """S168: d/dx of 4x(x*x + 1), the 1 written under no_grad, is 4(x*x + 1) + 8x*x."""

    def f(x: Any) -> Any:
        v = x * x
        with p.no_grad():
            v.add_(1.0)
        return (v * v).sum()

    twice = grad(lambda x: grad(functionalize(f))(x).sum())
    np.testing.assert_allclose(twice(p.full(2, 3.0)).numpy(), [112.0, 112.0])


def test_maps_and_tangents() -> None:
    """S168: gradients of maps agree; a tangent follows no_grad writes, and not detached ones."""

    def written(x: Any) -> Any:
        v = x * 1
        with p.no_grad():
            v.add_(x)
        return v * 2

    def apart(x: Any) -> Any:
        z = x * 1
        z.detach().mul_(2.0)
        return z * z

    one, three = p.ones(2), p.ones(3, 2)
    for form in (
        vmap(grad(lambda x: functionalize(apart)(x).sum())),
        grad(lambda x: vmap(functionalize(apart))(x).sum()),
    ):
        np.testing.assert_array_equal(form(three).numpy(), np.full((3, 2), 4.0))
    for f in (written, apart):  # torch gives the same of both
        value, tangent = jvp(functionalize(f), (one,), (one,))
        np.testing.assert_array_equal(value.numpy(), [4.0, 4.0])
        np.testing.assert_array_equal(tangent.numpy(), [4.0, 4.0])


def test_graphs_of_gradients_keep_them_too() -> None:
    """S168: a graph of a gradient gives it; one without gradients has no call for histories."""
    traced = make_fx(grad(lambda x: functionalize(detached)(x * 1, x).sum()))(p.ones(3))
    np.testing.assert_array_equal(traced(p.ones(3)).numpy(), [4.0, 4.0, 4.0])
    plain = make_fx(functionalize(made_inside))(p.ones(3), p.ones(3))
    assert "with_history" not in str(plain.graph)

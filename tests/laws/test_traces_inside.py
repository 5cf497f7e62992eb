"""A trace inside a running transform is a program, which computes on other values too (S209)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.graph import make_fx
from polyop.tensor.tensor import Tensor

X = np.array([1.0, 2.0])
OUTSIDE = polyop.from_numpy(np.array([10.0]))

#: By name: from the tensor that it closes over to the function that is traced.
BODIES: dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]] = {
    "an input": lambda _: lambda z: polyop.sin(z) * 2,
    "an input and a captured tensor": lambda x: lambda z: z * x + 1,
    "a captured tensor alone": lambda x: lambda _: x * 2,
    "a write": lambda x: lambda z: z.clone().mul_(x).add_(1.0),
    "a choice": lambda x: (
        lambda z: polyop.cond(z.sum() > 3, lambda a: a * 2, lambda a: a * 3 * x, (z,))
    ),
    "a gradient": lambda x: lambda z: func.grad(lambda q: (q * q * x).sum())(z),
    "a batch": lambda x: lambda z: polyop.vmap(lambda q: q * 2)(z) * x,
    "new tensors": lambda _: lambda z: z + polyop.zeros(1, dtype=polyop.float64) + OUTSIDE,
}


def rows(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a function on each row, without a batch."""
    return polyop.stack([f(row) for row in x.unbind(0)])


#: By name: the transform around, and what it comes to.
AROUND: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "functionalize": (lambda f, x: func.functionalize(f)(x), lambda f, x: f(x)),
    "jvp": (lambda f, x: func.jvp(f, (x,), (x + 1,))[1],) * 2,
    "grad": (lambda f, x: func.grad(lambda x: f(x).sum())(x),) * 2,
    "vmap": (
        lambda f, x: polyop.vmap(f)(x.reshape(2, 1)),
        lambda f, x: rows(f, x.reshape(2, 1)),
    ),
    "vmap of grad": (
        lambda f, x: polyop.vmap(func.grad(lambda x: f(x).sum()))(x.reshape(2, 1)),
        lambda f, x: rows(func.grad(lambda x: f(x).sum()), x.reshape(2, 1)),
    ),
    "a trace of vmap": (
        lambda f, x: make_fx(polyop.vmap(f))(x.reshape(2, 1) * 7)(x.reshape(2, 1)),
        lambda f, x: rows(f, x.reshape(2, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("body", BODIES)
def test_a_trace_inside_a_transform_computes_on_other_values(
    body: str, around: str, mode: str, pre_dispatch: bool
) -> None:
    """S205, S209: what is traced on `x`, and run on `3 * x`, is the function of `3 * x`."""
    make = BODIES[body]

    def traced(x: Tensor) -> Any:
        return make_fx(make(x), mode, pre_dispatch=pre_dispatch)(x.clone())(x * 3)

    transform, plain = AROUND[around]
    found = transform(traced, polyop.from_numpy(X))
    expected = plain(lambda x: make(x)(x * 3), polyop.from_numpy(X))
    np.testing.assert_allclose(found.numpy(), expected.numpy())


def test_a_program_of_a_transform_ends_with_it() -> None:
    """S205: a program that holds a tensor of a transform says so when it runs after the end."""
    kept: list[Any] = []

    def f(x: Tensor) -> Tensor:
        kept.append(make_fx(lambda z: z * x)(x.clone()))
        return x * 1.0

    polyop.vmap(f)(polyop.from_numpy(X))
    with pytest.raises(polyop.errors.VmapError, match="used after vmap has ended"):
        kept[0](polyop.from_numpy(X))

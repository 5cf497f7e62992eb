"""Derivatives of determinants, where matrices are singular too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func, linalg
from polyop.autograd import grad
from polyop.errors import ArgumentError

Fn = Callable[..., Any]
close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)


def leibniz(x: Any) -> Any:
    """Give the determinant as a polynomial, which PyTorch differentiates exactly."""
    n, total = x.shape[-1], 0
    for order in permutations(range(n)):
        term = round(np.linalg.det(np.eye(n)[list(order)]))
        for i, j in enumerate(order):
            term = term * x[..., i, j]
        total = total + term
    return total


def noise(shape: tuple[int, ...], kind: str = "real", seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if kind == "complex" else x


def matrices(n: int, kind: str = "real") -> list[Any]:
    """Give a regular matrix, one that lacks a rank, one of rank one, and zeros."""
    x = noise((n, n), kind)
    y = x.copy()
    y[-1] = y[0]
    return [x, y, np.outer(x[0], x[-1]), x * 0]


exact = torch.func.jacrev(torch.func.jacrev(leibniz))
ORDERS: dict[str, Fn] = {
    "hessian": func.hessian,
    "reverse twice": lambda f: func.jacrev(func.jacrev(f)),
    "forward twice": lambda f: func.jacfwd(func.jacfwd(f)),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_second_derivatives_of_singular_matrices(n: int, name: str) -> None:
    """S133: the determinant has its second derivatives at every matrix, both ways round."""
    for x in matrices(n):
        wanted = exact(torch.tensor(x))
        close(ORDERS[name](linalg.det)(polyop.from_numpy(x)).numpy(), wanted.numpy())


def test_third_derivatives_of_singular_matrices() -> None:
    """S133: and its third."""
    for x in matrices(3):
        wanted = torch.func.jacrev(exact)(torch.tensor(x))
        for around in (func.jacrev, func.jacfwd):
            found = around(func.hessian(linalg.det))(polyop.from_numpy(x))
            close(found.numpy(), wanted.numpy())


def test_nearly_singular_matrices_in_single_precision() -> None:
    """S133: what nearly vanishes divides nothing."""
    x = np.float32([[1, 2, 3], [4, 5, 6], [5, 7, 9]])
    x[2] += np.float32([1e-6, -1e-6, 0])
    found = func.hessian(linalg.det)(polyop.from_numpy(x))
    wanted = exact(torch.tensor(x))
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=3e-5)


def along(lib: Any, det: Fn, make: Fn, n: int, x: Any) -> list[Any]:
    """Differentiate three times, along complex directions."""
    x = make(x).requires_grad_()
    found, value = [], det(x) * (2 - 1j)
    for seed in (1, 2, 3)[:n]:
        (g,) = lib.autograd.grad(lib.real(value).sum(), [x], create_graph=True)
        found.append(g)
        value = g * make(noise((n, n), "complex", seed))
    return found


@pytest.mark.parametrize("n", [2, 3])
def test_complex_matrices(n: int) -> None:
    """S133: gradients of gradients are conjugated as PyTorch conjugates them; stacks as well."""
    for x in [*matrices(n, "complex"), np.stack(matrices(n, "complex"))]:
        ours = along(polyop, linalg.det, polyop.from_numpy, n, x)
        theirs = along(torch, leibniz, torch.tensor, n, x)
        for a, b in zip(ours, theirs, strict=True):
            close(a.detach().numpy(), b.detach().resolve_conj().numpy())


def test_a_batch_of_second_derivatives_is_a_loop() -> None:
    """S155: in a batch of matrices, each gives what a loop gives."""
    stack = polyop.from_numpy(np.stack(matrices(3)))
    hessian = func.hessian(linalg.det)
    looped = np.stack([hessian(x).numpy() for x in stack])
    for dim in (0, 1, 2):
        found = polyop.vmap(hessian, in_dims=dim)(polyop.moveaxis(stack, 0, dim))
        close(found.numpy(), looped)


def test_a_batch_of_directions_is_a_loop() -> None:
    """S155: so does a batch of directions, whose one matrix gets the sum of their gradients."""
    derived = polyop.ops.core.cofactors
    x = polyop.from_numpy(matrices(3)[1]).requires_grad_()
    sides = polyop.from_numpy(noise((5, 3, 3))).requires_grad_()
    batched = polyop.vmap(lambda side: derived(x, [side]))(sides)
    looped = polyop.stack([derived(x, [side]) for side in sides])
    close(batched.numpy(force=True), looped.numpy(force=True))
    for a, b in zip(grad((batched**2).sum(), [x, sides]), grad((looped**2).sum(), [x, sides]),
                    strict=True):  # fmt: skip
        close(a.numpy(), b.numpy())


def test_other_libraries_and_refusals() -> None:
    """S66: other libraries' matrices give the same; a matrix of another size is refused."""
    x, side = matrices(3)[1], noise((3, 3), seed=5)
    wanted = polyop.ops.core.cofactors(x, [side, x])
    found = polyop.ops.core.cofactors(torch.tensor(x), [torch.tensor(side), torch.tensor(x)])
    close(found.numpy(), wanted)
    with pytest.raises(ArgumentError, match="its own size"):
        polyop.ops.core.cofactors(x, [side[:2, :2]])

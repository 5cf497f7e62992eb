"""Writes through views of values whose gradients are not finite, or far apart in size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor, func
from polyop.dispatch.library import scoped_library
from polyop.library import register_autograd

Write = Callable[[Any], Any]
X, W = np.arange(1.0, 10).reshape(3, 3), np.arange(9.0).reshape(3, 3) - 3.5


def row(d: Any) -> None:
    d[0] = 0


def columns(d: Any) -> None:
    d[:, ::2] = 0


def row_of_the_transposed(d: Any) -> None:
    d.T[0] = 0


def chosen(d: Any) -> None:
    d[0, [1, 2]] = 0


def flat(d: Any) -> None:
    d.reshape(-1)[::4] = 0


def diagonal(d: Any) -> None:
    d.diagonal().mul_(0)


def elements(d: Any) -> None:
    for i in range(3):
        d[i, i].fill_(0)


WRITES = [row, columns, row_of_the_transposed, chosen, flat, diagonal, elements]
LIBRARIES: dict[str, Callable[[Any], Tensor]] = {
    "numpy": polyop.from_numpy,
    "torch": lambda a: polyop.from_array(torch.from_numpy(a.copy())),
    "jax": lambda a: polyop.from_array(jnp.asarray(a)),
}


def steep(write: Write, x: Any, w: Any) -> Any:
    """Write zeros, then go where their gradient is infinite."""
    d = x * 1
    write(d)
    return ((d.sqrt() + d) * w).sum()


def by_torch(write: Write) -> Any:
    x = torch.tensor(X, requires_grad=True)
    steep(write, x, torch.tensor(W)).backward()
    assert x.grad is not None
    return x.grad.numpy()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("write", WRITES)
def test_an_infinite_gradient_of_a_part_ends_there(write: Write, library: str) -> None:
    """S136: the gradient of a written part is set, over every library: no `inf - inf`."""
    x = LIBRARIES[library](X.astype("f4")).requires_grad_()
    steep(write, x, LIBRARIES[library](W.astype("f4"))).backward()
    np.testing.assert_allclose(np.asarray(x.grad.tolist()), by_torch(write), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("write", WRITES)
def test_an_infinite_gradient_in_each_way(write: Write) -> None:
    """S134, S136: so it is with `create_graph`, of a batch, of a compiled function, at a level."""
    x, w, wanted = polyop.from_numpy(X).requires_grad_(), polyop.from_numpy(W), by_torch(write)

    def f(x: Tensor) -> Tensor:
        return steep(write, x, w)

    recorded = polyop.autograd.grad(f(x), x, create_graph=True)[0]
    compiled = polyop.autograd.grad(polyop.compile(f)(x), x)[0]
    batch = polyop.stack([x, x])
    batched = polyop.autograd.grad(func.vmap(f)(batch).sum(), batch)[0][1]
    level = func.grad(f)(x.detach())
    for found in (recorded, compiled, batched, level):
        np.testing.assert_allclose(found.numpy(force=True), wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_small_gradient_of_a_part_is_not_lost(dtype: str) -> None:
    """S136: the gradient of a written part is set, not found as a small difference."""

    def gradient(xp: Any) -> Any:
        x = xp.ones(4, dtype=getattr(xp, dtype), requires_grad=True)
        d = x * 1
        d[1:][:2] *= 2.0**-12
        d.sum().backward()
        return x.grad.tolist()

    assert gradient(polyop) == gradient(torch) == [1, 2.0**-12, 2.0**-12, 1]


@pytest.mark.parametrize("part", ["real", "imag"])
def test_a_part_of_complex_numbers(part: str) -> None:
    """S136: a write to one part leaves the gradient of the other what it is."""

    def gradient(xp: Any) -> Any:
        x = xp.ones(3, dtype=xp.complex128, requires_grad=True)
        d = x * 1
        getattr(d, part)[1:].mul_(1e-18)
        (d.real * 2 + d.imag * 3).sum().backward()
        return x.grad.tolist()

    assert gradient(polyop) == gradient(torch)


@pytest.fixture
def middle() -> Any:
    """A view of an author: all elements but the first and the last."""
    with scoped_library("middle_of", "DEF") as lib:
        lib.define("take(Tensor(a) x) -> Tensor(a)")
        lib.impl("take", lambda x: x[1:-1], "CompositeExplicitAutograd")
        register_autograd("middle_of::take", lambda ctx, g: polyop.pad(g, [(1, 1)]), lib=lib)
        yield polyop.ops.middle_of.take


@pytest.mark.parametrize("dtype", [polyop.float64, polyop.complex128])
def test_a_view_without_an_inverse(middle: Any, dtype: Any) -> None:
    """S136: a part that an author's view takes is set by the view's own gradient."""
    x = polyop.asarray([1.0, 2.0, 3.0, 4.0], dtype=dtype).requires_grad_()
    d = x * 1
    middle(d).mul_(1e-18)
    middle(d)[1].zero_()
    (g,) = polyop.autograd.grad((d * d).sum().real, x, create_graph=True)
    assert g.tolist() == pytest.approx([2, 4e-36, 0, 8])
    (second,) = polyop.autograd.grad(g.sum().real, x)
    assert second.tolist() == pytest.approx([2, 2e-36, 0, 2])


VIEWS = ["d[0]", "d[1:, ::2]", "d.T[1]", "d.view(-1)[1:7:3]", "d[0, 1]", "d.diagonal(1)"]
CHANGES = [
    "mul_(1e-19)", "fill_(2.0)", "add_(y.sum() * 1e19)", "copy_(y.sum())", "exp_()", "zero_()",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_writes_at_every_scale(seed: int) -> None:
    """S133, S136: gradients, and theirs, are PyTorch's, to the last digits of each element."""
    rng = np.random.default_rng(seed)
    lines = [f"{rng.choice(VIEWS)}.{rng.choice(CHANGES)}" for _ in range(rng.integers(1, 4))]
    arrays = [rng.uniform(0.5, 2, (3, 4)), rng.uniform(0.5, 2, 3)]

    def gradients(xp: Any) -> list[Any]:
        x, y = (xp.tensor(a.tolist(), dtype=xp.float64, requires_grad=True) for a in arrays)
        d = x * 1
        for line in lines:
            eval(line, {"d": d, "y": y})
        ask = {"allow_unused": True, "materialize_grads": True}
        first = xp.autograd.grad((d * d).sum() + d.sum(), (x, y), create_graph=True, **ask)
        second = xp.autograd.grad((first[0] * first[0]).sum() + first[1].sum(), (x, y), **ask)
        return [np.asarray(g.tolist()) for g in (*first, *second)]

    try:
        wanted = gradients(torch)
    except RuntimeError:  # what PyTorch saved was written, or nothing requires a second gradient
        return
    for found, one in zip(gradients(polyop), wanted, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-12)

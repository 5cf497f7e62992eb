"""What frameworks do around a call, their hooks, modes and strict contexts, changes no answer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo
from tests.bridges import hostile
from tests.bridges.hostile import WAYS, compiled, made, product, sin, ways, wrap
from tests.bridges.marks import EVERYWHERE

import polyop
from polyop.errors import AliasError

pytestmark = EVERYWHERE
Z = np.array([0.5, 1.0, 1.5], np.float32)


# -- PyTorch around a call ----------------------------------------------------------------------


class Scaled(torch.nn.Module):
    """A module that keeps an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.op = sin
        self.w = torch.nn.Parameter(torch.tensor(Z))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale, and take the sine."""
        found: torch.Tensor = self.op(x * self.w)
        return found


def saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, saved])
def test_modules_that_keep_an_operator(again: Any) -> None:
    """S62: an operator in a module is copied and saved with it, by its name."""
    x = torch.tensor(Z)
    torch.testing.assert_close(again(Scaled())(x), torch.sin(x * x))


AROUND: dict[str, Callable[[Any], Any]] = {
    "linearize": lambda f: lambda x: torch.func.linearize(f, x)[1](x),
    "batches in pieces": lambda f: torch.vmap(f, chunk_size=2),
    "batched gradients": lambda f: (
        lambda x: torch.autograd.grad(
            f(y := x.clone().requires_grad_()), y, torch.eye(3), is_grads_batched=True
        )[0]
    ),
    "trace": lambda f: lambda x: torch.jit.trace(lambda y: f(y) * 1, torch.ones(3))(x),
    "cond": lambda f: compiled(
        lambda x: torch.cond(x.sum() > 0, lambda y: f(y), lambda y: y * 2, (x,))
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_pytorch_does_around_a_call(name: str) -> None:
    """S117: around our operator it gives what it gives around PyTorch's own."""
    x = torch.tensor(Z)
    torch.testing.assert_close(AROUND[name](sin)(x), AROUND[name](torch.sin)(x))


def hooked(f: Any, x: Any) -> Any:
    y = x.clone().requires_grad_()
    out = f(y)
    out.register_hook(lambda g: g * 2)
    out.retain_grad()
    out.sum().backward()
    return torch.stack([y.grad, out.grad])


def packed(f: Any, x: Any) -> Any:
    y = x.clone().requires_grad_()
    hooks: Any = torch.autograd.graph.saved_tensors_hooks
    with hooks(lambda t: t.detach().numpy(), torch.from_numpy):
        out = f(y)
    return torch.autograd.grad(out.sum(), y)[0]


def elsewhere(f: Any, x: Any) -> Any:
    y = x.clone().requires_grad_()
    with torch.device("meta"):  # where new tensors are made if nothing is said
        return torch.autograd.grad(f(y).sum(), y)[0] + torch.func.jvp(f, (x,), (x,))[1]


def widened(f: Any, x: Any) -> Any:
    torch.set_default_dtype(torch.float64)
    try:
        return torch.func.jvp(f, (x,), (x,))[1]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("compose", [hooked, packed, elsewhere, widened])
def test_hooks_and_defaults_of_pytorch(compose: Any) -> None:
    """S117: hooks see gradients and saved tensors, and defaults change nothing."""
    torch.testing.assert_close(compose(sin, torch.tensor(Z)), compose(torch.sin, torch.tensor(Z)))


def test_graphs_that_are_gone() -> None:
    """S131: a second backward needs a kept graph, as PyTorch says itself."""
    y = torch.tensor(Z, requires_grad=True)
    out = sin(y).sum()
    out.backward(retain_graph=True)
    out.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        out.backward()


def test_fakes_of_pytorch() -> None:
    """S141: inside a fake mode nothing runs; a real tensor there is PyTorch's own error."""
    mode: Any = torch._subclasses.fake_tensor.FakeTensorMode
    with mode() as fakes:
        assert hostile.raises(torch.ones(4)).shape == (4,)
    x = torch.tensor(Z)
    with fakes, pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
        sin(x)


@pytest.mark.parametrize("k", [float("nan"), float("inf"), -0.0])
@ways(WAYS)
def test_numbers_without_an_equal(way: Any, convert: Any, k: float) -> None:
    """S61: a value that no text or comparison keeps arrives as it is."""
    fill = made(
        "fill",
        lambda x, k: wrap(np.full(1, k, np.float32)),
        "(Tensor x, float k) -> Tensor",
        lambda x, k: x.new_empty(1),
    )
    found = np.asarray(way(lambda x: fill(x, k))(convert(Z)))
    np.testing.assert_array_equal(found, np.float32([k]))
    assert np.signbit(found[0]) == np.signbit(k)


def test_results_that_share_memory_are_refused() -> None:
    """S129: two results in one memory would be written together, so they are refused."""

    def kernel(x: Any) -> Any:
        found = x.numpy() * 2
        return wrap(found), wrap(found)

    pair = made(
        "pair",
        kernel,
        "(Tensor x) -> (Tensor, Tensor)",
        lambda x: (polyop.empty_like(x), polyop.empty_like(x)),
    )
    for convert in (torch.tensor, jnp.asarray):
        with pytest.raises(AliasError, match="hostile::pair shares storage with result 0"):
            pair(convert(Z))


def test_an_operator_that_is_first_looked_up_in_a_compiled_region() -> None:
    """S58: `polyop.ops` finds it there, and finds the new one after it was defined again."""
    for factor in (2.0, 3.0):
        made("looked_up", lambda x, n=factor: wrap(x.numpy() * np.float32(n)))
        run = compiled(lambda x: polyop.ops.hostile.looked_up(x) * 1)
        torch.testing.assert_close(run(torch.tensor(Z)), factor * torch.tensor(Z))


# -- JAX around a call --------------------------------------------------------------------------

CONTEXTS: dict[str, Callable[[], Any]] = {
    "no jit": jax.disable_jit,
    "no NaN": lambda: jax.debug_nans(True),
    "no leaks": jax.checking_leaks,
    "no ranks": lambda: jax.numpy_rank_promotion("raise"),
    "no promotion": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_strict_contexts_of_jax(name: str) -> None:
    """S66: what JAX forbids there we do not do: gradients and batches run, and are right."""
    x = jnp.asarray(Z)
    with CONTEXTS[name]():
        slope = jax.grad(lambda x: sin(x).sum())
        np.testing.assert_allclose(sin(x), np.sin(Z), rtol=1e-6)
        np.testing.assert_allclose(jax.jit(slope)(x), np.cos(Z), rtol=1e-6)
        np.testing.assert_allclose(jax.vmap(slope)(jnp.stack([x, x]))[1], np.cos(Z), rtol=1e-6)


def test_control_and_donation_in_jax() -> None:
    """S66: branches, batches of branches and given-away memory change no result."""
    x = jnp.asarray(Z)

    def branch(x: Any) -> Any:
        return jax.lax.cond(x.sum() > 1, lambda x: sin(x).sum(), lambda x: x.sum(), x)

    np.testing.assert_allclose(jax.grad(branch)(x), np.cos(Z), rtol=1e-6)
    rows = jax.vmap(branch)(jnp.stack([x, x * 0.1]))
    np.testing.assert_allclose(rows, [np.sin(Z).sum(), Z.sum() * 0.1], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(sin, donate_argnums=0)(x + 0), np.sin(Z), rtol=1e-6)
    scaled = jax.vmap(lambda r, k: product(r, r, 2.0) * k, (None, 0), 1)(x, jnp.arange(2.0))
    np.testing.assert_allclose(scaled, np.outer(2 * Z**2, [0, 1]), rtol=1e-6)

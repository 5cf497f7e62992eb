"""The sparse product: its laws, its gradients in two frameworks, and one loss curve in both."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples.sparse import (
    FOLDER,
    dense_of,
    drawn,
    sparse_matvec,
    sparse_outer,
    sparse_rmatvec,
)

SIZES = st.integers(0, 7)


@given(SIZES, SIZES, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_products_are_those_of_the_dense_matrix(rows: int, columns: int, seed: int) -> None:
    """S117: for any matrix, empty ones too, the three operators are what the dense one gives."""
    parts, y, x = drawn(rows, columns, seed)
    dense = dense_of(*parts, columns)
    np.testing.assert_allclose(sparse_matvec(*parts, x), dense @ x)
    np.testing.assert_allclose(sparse_rmatvec(*parts, y, columns), dense.T @ y)
    ones = dense_of(np.ones_like(parts[0]), *parts[1:], columns)
    found = dense_of(sparse_outer(*parts[1:], y, x), *parts[1:], columns)
    np.testing.assert_allclose(found, np.outer(y, x) * ones)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda d, i, p: (d, i + 9, p), "indices must be < 4"),
        (lambda d, i, p: (d, i - 9, p), "indices must be >= 0"),
        (lambda d, i, p: (d[:-1], i[:-1], p), "indptr ends with"),
        (lambda d, i, p: (d, i, p[::-1].copy()), "indptr"),
    ],
)
def test_a_broken_matrix_is_refused(broken: Any, reason: str) -> None:
    """S2: SciPy would read memory that is not the matrix's; the kernel refuses, in each library."""
    parts, _, x = drawn(5, 4, 1)
    for convert in (np.asarray, torch.tensor, jnp.asarray):
        with pytest.raises(ValueError, match=reason):
            sparse_matvec(*map(convert, broken(*parts)), convert(x))


def torch_parts(parts: Any) -> list[torch.Tensor]:
    data, *pattern = (torch.tensor(part) for part in parts)
    return [data.requires_grad_(), *pattern]


def test_pytorch_finds_nothing_against_them() -> None:
    """S117, S202: PyTorch's checks of gradients of two orders, and of the operator, pass."""
    parts, y, x = drawn(4, 5, 2)
    given = [*torch_parts(parts), torch.tensor(x, requires_grad=True)]
    back = [*torch_parts(parts), torch.tensor(y, requires_grad=True), 5]
    for op, args in ((sparse_matvec, given), (sparse_rmatvec, back)):
        assert torch.autograd.gradcheck(op, args, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(op, args)
        target = getattr(torch.ops.examples, op._qualname.partition("::")[2]).default
        assert set(torch.library.opcheck(target, args).values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_batch_in_a_compiled_region(backend: str, dynamic: bool) -> None:
    """S155: a batch in one graph, with its gradient, for sizes that are symbols too."""
    torch._dynamo.reset()

    def loss(data: Any, indices: Any, indptr: Any, xs: Any) -> Any:
        out = torch.vmap(lambda x: sparse_matvec(data, indices, indptr, x))(xs)
        return (torch.tanh(out) ** 2).sum()

    run = torch.compile(loss, backend=backend, fullgraph=True, dynamic=dynamic)
    for seed, (rows, columns) in enumerate(((4, 5), (6, 3))):
        parts, _, x = drawn(rows, columns, seed)
        xs = torch.stack([torch.tensor(x), torch.tensor(2 * x), torch.tensor(-x)])
        found, wanted = torch_parts(parts), torch_parts(parts)
        run(*found, xs).backward()
        dense = torch.zeros(rows, columns, dtype=torch.float64)
        places = np.repeat(np.arange(rows), np.diff(parts[2])), parts[1]
        dense = dense.index_put(tuple(map(torch.tensor, places)), wanted[0])
        (torch.tanh(xs @ dense.T) ** 2).sum().backward()
        torch.testing.assert_close(found[0].grad, wanted[0].grad)


def test_transformations_of_jax() -> None:
    """S124: in JAX's compositions the gradient is that of the dense matrix."""
    parts, _, x = drawn(4, 5, 3)
    data, indices, indptr = map(jnp.asarray, parts)
    places = jnp.repeat(jnp.arange(4), jnp.diff(indptr), total_repeat_length=len(data)), indices

    def sparse(data: Any, x: Any) -> Any:
        return (jnp.tanh(sparse_matvec(data, indices, indptr, x)) ** 2).sum()

    def dense(data: Any, x: Any) -> Any:
        return (jnp.tanh(jnp.zeros((4, 5), data.dtype).at[places].set(data) @ x) ** 2).sum()

    xs = jnp.stack([jnp.asarray(x), 2 * jnp.asarray(x)])
    for wrap in (
        lambda f: jax.jit(jax.grad(f, (0, 1))),
        lambda f: jax.hessian(f),
        lambda f: jax.jit(jax.hessian(f, 1)),
        lambda f: jax.jacfwd(f, 1),
    ):
        for one, other in zip(
            jax.tree.leaves(wrap(sparse)(data, xs[0])),
            jax.tree.leaves(jax.jit(wrap(dense))(data, xs[0])),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    batched = jax.jit(jax.vmap(jax.grad(sparse, 1), (None, 0)))(data, xs)
    wanted = jax.jit(jax.vmap(jax.grad(dense, 1), (None, 0)))(data, xs)
    np.testing.assert_allclose(batched, wanted, rtol=1e-4, atol=1e-5)


def test_both_frameworks_train_to_the_same_losses() -> None:
    """S66, S117: one operator in a compiled module and in a jitted step gives one loss curve."""
    script = [sys.executable, str(FOLDER / "sparse_matvec" / "train.py")]
    ran = subprocess.run(
        [*script, "--steps", "12", "--backend", "aot_eager"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "and differ by at most" in ran.stdout
    first, last = (float(w) for w in ran.stdout.split("went from ")[1].split()[:3:2])
    assert last < 0.6 * first

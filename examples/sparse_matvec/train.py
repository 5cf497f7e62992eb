"""One network of sparse layers, trained by PyTorch and by JAX, with SciPy's product in both.

The operator is defined once, in sparse_matvec.py. PyTorch trains a module under `torch.compile`,
JAX a function under `jax.jit`, from the same start by the same steps; the losses agree.

python examples/sparse_matvec/train.py [--steps 60] [--backend inductor]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy.sparse import random_array

sys.path.insert(0, str(Path(__file__).parent))
from sparse_matvec import sparse_matvec

SIZES, SAMPLES, RATE, TOLERANCE = (24, 32, 8), 64, 0.4, 1e-5
Layers = list[tuple[np.ndarray, ...]]  # of each: data, indices, indptr, bias


def drawn_layers(rng: np.random.Generator) -> Layers:
    """Draw a sparse matrix and a bias for each layer."""
    layers = []
    for columns, rows in pairwise(SIZES):
        matrix = random_array((rows, columns), density=0.25, rng=rng).tocsr()
        data = rng.normal(0.0, 0.4, matrix.nnz).astype(np.float32)
        layers.append((data, matrix.indices, matrix.indptr, np.zeros(rows, np.float32)))
    return layers


def drawn_task(layers: Layers, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs, and what a network of the same pattern makes of them."""
    x = rng.normal(size=(SAMPLES, SIZES[0])).astype(np.float32)
    y = x
    for number, (data, indices, indptr, bias) in enumerate(layers):
        entries = rng.normal(0.0, 0.8, data.shape).astype(np.float32)
        y = np.stack([sparse_matvec(entries, indices, indptr, row) for row in y]) + bias
        y = np.tanh(y) if number + 1 < len(layers) else y
    return x, y


# -- PyTorch --------------------------------------------------------------------------------------


class SparseLinear(torch.nn.Module):
    """A linear layer whose matrix has entries in some places only, which are trained."""

    def __init__(self, data, indices, indptr, bias):
        super().__init__()
        self.data = torch.nn.Parameter(torch.tensor(data))
        self.bias = torch.nn.Parameter(torch.tensor(bias))
        self.register_buffer("indices", torch.tensor(indices))
        self.register_buffer("indptr", torch.tensor(indptr))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to each row of `x`."""

        def product(row):
            return sparse_matvec(self.data, self.indices, self.indptr, row)

        return torch.vmap(product)(x) + self.bias


def train_torch(
    layers: Layers, x: np.ndarray, y: np.ndarray, steps: int, backend: str
) -> list[float]:
    """Train the compiled module; gives the loss before each step."""
    first, second = (SparseLinear(*layer) for layer in layers)
    model = torch.nn.Sequential(first, torch.nn.Tanh(), second)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(compiled(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# -- JAX ------------------------------------------------------------------------------------------


def train_jax(layers: Layers, x: np.ndarray, y: np.ndarray, steps: int) -> list[float]:
    """Train the same network by one compiled step; gives the loss before each."""
    patterns = [(jnp.asarray(layer[1]), jnp.asarray(layer[2])) for layer in layers]

    def network(weights, x):
        for number, ((data, bias), pattern) in enumerate(zip(weights, patterns, strict=True)):
            x = jax.vmap(lambda row, d=data, p=pattern: sparse_matvec(d, *p, row))(x) + bias
            x = jnp.tanh(x) if number + 1 < len(patterns) else x
        return x

    @jax.jit
    def step(weights):
        loss, grads = jax.value_and_grad(lambda w: jnp.mean((network(w, x) - y) ** 2))(weights)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, grads), loss

    weights = [(jnp.asarray(layer[0]), jnp.asarray(layer[3])) for layer in layers]
    losses = []
    for _ in range(steps):
        weights, loss = step(weights)
        losses.append(float(loss))
    return losses


def main(steps: int, backend: str) -> int:
    rng = np.random.default_rng(0)
    layers = drawn_layers(rng)
    task = drawn_task(layers, rng)
    curves = train_torch(layers, *task, steps, backend), train_jax(layers, *task, steps)
    print("  step   PyTorch, compiled   JAX, jit")
    for i in range(0, steps, max(1, steps // 10)):
        print(f"  {i:4}   {curves[0][i]:17.6f}   {curves[1][i]:8.6f}")
    worst = max(abs(a - b) for a, b in zip(*curves, strict=True))
    print(f"  the losses went from {curves[0][0]:.4f} to {curves[0][-1]:.4f}")
    print(f"  and differ by at most {worst:.1e}, where {TOLERANCE:.0e} is allowed")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    compiler = "inductor" if shutil.which("g++") else "aot_eager"  # Inductor writes C++
    parser.add_argument("--backend", default=compiler, help="of torch.compile")
    sys.exit(main(**vars(parser.parse_args())))

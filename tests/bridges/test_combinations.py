"""Whichever frameworks are installed: an operator works with those that are there."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import pytest
from tests.forked import run_forked

FRAMEWORKS = ("torch", "jax", "dask")
PROGRAM = """
import importlib.abc, sys
import numpy as np

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import polyop

@polyop.custom_op("combined::double", mutates_args=())
def double(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)

double.register_fake(lambda x: polyop.empty_like(x))
double.register_autograd(lambda ctx, grad: grad * 2)
double.register_vmap(lambda info, dims, x: (double(x), dims[0]))
double.samples([[polyop.ones(3, requires_grad=True)]])
x = np.ones(3)
seen = [double(x).tolist()]
if "torch" not in {missing!r}:
    import torch
    t = torch.ones(3, requires_grad=True)
    double(t).sum().backward()
    seen.append(t.grad.tolist())
if "jax" not in {missing!r}:
    import jax
    seen.append(jax.jit(jax.grad(lambda v: double(v).sum()))(jax.numpy.ones(3)).tolist())
if "dask" not in {missing!r}:
    import dask.array as da
    seen.append(double(da.ones(3, chunks=2)).compute().tolist())
assert polyop.library.opcheck(double, [polyop.ones(3)])
assert all(found == [2, 2, 2] for found in seen), seen
matrix = double.capabilities()
assert matrix.ok, matrix.faults()
absent = "not installed" in matrix.markdown()
assert absent == ({missing!r} != {{"nothing"}}), matrix.markdown()
print(len(seen), double.explain(x))
"""


def run_anew(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where polyop is imported before any framework."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    "missing",
    [set(found) for n in range(4) for found in combinations(FRAMEWORKS, n)],
    ids=lambda missing: "without " + (" and ".join(sorted(missing)) or "none"),
)
def test_any_set_of_frameworks(missing: set[str]) -> None:
    """S66: what needs no absent framework works, and the matrix says which are absent."""
    done = (run_anew if "torch" in missing or not missing else run_forked)(
        PROGRAM.format(missing=missing or {"nothing"})
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(str(4 - len(missing)))

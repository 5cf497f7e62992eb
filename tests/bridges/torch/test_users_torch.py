"""What users of PyTorch expect of operators that a library defines, and of unusual tensors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError

PROGRAM = """
import polyop
lib = polyop.library.Library("users_torch", "FRAGMENT")
lib.define("twice(Tensor x) -> Tensor")
lib.define("twice.into(Tensor x, *, Tensor(a!) out) -> ()")
polyop.library.define("users_torch::thrice", "(Tensor x) -> Tensor")
polyop.library.impl(lib, "twice", "CPU")(lambda x: x * 2)
polyop.library.impl(lib, "thrice", "CPU")(lambda x: x * 3)
import torch
assert "polyop.bridges.torch.bridge" not in __import__("sys").modules
space = torch.ops.users_torch
print(space.twice(torch.ones(1)).item(), space.thrice(torch.ones(1)).item(), space.twice.into)
lib.define("late(Tensor x) -> Tensor")
polyop.library.impl(lib, "late", "CPU")(lambda x: x * 4)
print(space.late(torch.ones(1)).item())
"""


def test_operators_of_a_library_are_in_torch_ops() -> None:
    """S33, S66: what a library defines is found in `torch.ops` before anybody has called it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2.0 3.0 users_torch.twice.into", "4.0"]


@polyop.custom_op("users_torch::half", mutates_args=(), tags="pointwise")
def half(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() / 2)  # a scalar of NumPy, where there are no axes


half.register_fake(lambda x: polyop.empty_like(x))


def test_a_tensor_without_axes() -> None:
    """S66: a kernel may return the scalar that NumPy makes of an array without axes."""
    assert half(torch.tensor(3.0)) == 1.5
    assert half(polyop.tensor(3.0)).tolist() == 1.5
    assert half(np.array(3.0)) == 1.5
    assert torch.func.vmap(half)(torch.arange(3.0)).tolist() == [0, 0.5, 1]
    with pytest.raises(TypeError, match="takes a NumPy array"):
        polyop.from_numpy(1.5)


@pytest.mark.parametrize("layout", ["sparse", "sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_a_sparse_tensor_is_refused(layout: str) -> None:
    """S2: what has no dense data is refused by an error of ours, which says what to call."""
    x = getattr(torch.eye(3), f"to_{layout}")()
    with pytest.raises(ArgumentError, match=r"(?s)is dense.*to_dense\(\)"):
        half(x)

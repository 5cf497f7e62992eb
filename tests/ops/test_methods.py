"""Methods of `Tensor`, against PyTorch's."""

import numpy as np
import pytest
import torch

import polyop.assembly  # noqa: F401
from polyop.errors import ArgumentError, UsageError
from polyop.ops.creation import from_numpy, tensor
from polyop.ops.elementwise import add
from polyop.tensor.tensor import Tensor

X = np.arange(24.0).reshape(2, 3, 4) / 7 + 0.1

CALLS = (
    """
x + 1 | 1 - x | 2 / x | x ** 2 | 2 ** x | x % 2 | 7 // x | -x | abs(x) | x @ x.mT | x == 1
x > 1 | x.sum(dim=0) | x.sum(1, keepdim=True) | x.sum() | x.mean(dim=(0, 1)) | x.prod(1)
x.amax(dim=1) | x.amin(0) | x.argmax(dim=2) | x.any() | x.all() | x.std() | x.std(dim=1)
x.var(dim=1, unbiased=False) | x.permute(2, 0, 1) | x.permute((2, 0, 1)) | x.transpose(0, 2)
x.transpose(dim0=0, dim1=1) | x[0].t() | x[0].T | x.mT | x.reshape(6, 4) | x.reshape((6, -1))
x.reshape(-1) | x.flatten() | x.flatten(1) | x.flatten(start_dim=1) | x.unsqueeze(1)
x.unsqueeze(dim=-1) | x[:1].squeeze(0) | x[:1].squeeze() | x[:1].expand(5, 3, 4)
x[:1].expand(5, -1, -1) | x.exp() | x.log() | x.sqrt() | x.sin() | x.tanh() | x.sigmoid()
x.relu() | x.clamp(0.5, 1) | x.clamp(min=1) | x.floor() | x.round() | x.double() | x.long()
x.split(2, dim=1)[1] | x.split([1, 2], 1)[0] | x.chunk(2, dim=2)[1] | x.unbind(1)[2]
x.narrow(1, 0, 2) | x.select(1, 2) | x.cumsum(dim=1) | x.softmax(dim=1) | x.log_softmax(-1)
x.tril() | x.triu(diagonal=1) | x.roll(1) | x.roll(1, 0) | x.flip(0) | x.flip((0, 2))
x.repeat(2, 1, 1) | x.diagonal(0, 1, 2) | x.masked_fill(x > 1, 0) | x.masked_select(x > 1)
x.contiguous() | x.clone() | x.add(1) | x.sub(1) | x.mul(x) | x.div(2) | x.pow(2) | x.eq(x)
x.isnan() | x.neg() | x.movedim(0, 2) | x.logsumexp(dim=1) | x.type_as(x) | x.new_zeros(2, 3)
x.new_ones((2,)) | x.new_full((2,), 3) | x.mean() | x.unflatten(2, (2, 2))
x.broadcast_to((5, 2, 3, 4)) | x.ravel() | x.view_as(x) | x.count_nonzero()
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)


@pytest.mark.parametrize("call", CALLS)
def test_as_torch(call):
    """S200: a method takes PyTorch's arguments and gives its result."""
    theirs = eval(call, {"x": torch.from_numpy(X), "torch": torch})
    ours = eval(call, {"x": from_numpy(X), "torch": torch})
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.allclose(ours.numpy(), theirs)


def test_operators_are_entries():
    """Python's operators cost no frame beyond the operator's own."""
    assert Tensor.__add__ is add and Tensor.__radd__ is add


def test_conversions():
    """S200: `to` takes a dtype, a device or a tensor, and copies only what changes."""
    x = tensor([1.0])
    assert x.to("float32") is x and x.to("cpu") is x and x.cpu() is x and x.to(x) is x
    assert x.to("float64").dtype == np.float64 and str(x.to("meta").device) == "meta"
    assert x.to("cpu", "int64").dtype == np.int64 and x.to(dtype="bool").dtype == np.bool_
    assert x.half().float().dtype == np.float32 and x.new_tensor([2]).dtype == np.float32


@pytest.mark.parametrize(
    ("given", "name"), [((), "cuda"), ((1,), "cuda:1"), (("cuda:2",), "cuda:2")]
)
def test_a_device_that_is_not_there(given, name):
    """S1: `cuda` is `to("cuda")`, and refused by the device's name."""
    for move in (lambda x: x.cuda(*given), lambda x: x.to(name)):
        with pytest.raises(UsageError, match=f"no tensors on the device {name}\n"):
            move(tensor([1.0]))


def test_other_libraries():
    """S66: NumPy reads tensors, by its protocols."""
    x = tensor([1.0, 2.0])
    assert np.asarray(x).tolist() == np.from_dlpack(x).tolist() == [1.0, 2.0]
    assert [t.item() for t in x] == [1.0, 2.0] and 2.0 in x and len(x) == 2
    assert x.allclose(x + 1e-9) and x.isclose(tensor([1.0, 3.0])).tolist() == [True, False]


@pytest.mark.parametrize(("size", "sizes"), [(6, (0, -1)), (0, (0, -1)), (6, 3)])
def test_unflatten_refuses_sizes_that_say_nothing(size: int, sizes: object) -> None:
    """S63: a size beside a 0 cannot be found, and is refused by our error, with the way out."""
    with pytest.raises(ArgumentError, match=r"core::unflatten[\s\S]*fix: "):
        from_numpy(np.ones((2, size))).unflatten(1, sizes)

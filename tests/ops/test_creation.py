"""Making tensors."""

import numpy as np
import pytest
import torch

import polyop.assembly  # noqa: F401
from polyop.errors import ArgumentError, UsageError, UsageTypeError
from polyop.ops import creation, random
from polyop.ops.creation import arange, asarray, from_dlpack, from_numpy, tensor, zeros
from polyop.tensor.tensor import Tensor

FILLED = [
    ("zeros", (2, 3), {}), ("zeros", ((2, 3),), {}), ("ones", ((),), {}), ("ones", ([0, 2],), {}),
    ("zeros", (2,), {"dtype": "int32"}), ("full", ((2,), 7), {}), ("full", ((2,), 1.5), {}),
    ("full", ((2,), True), {}), ("arange", (5,), {}), ("arange", (1, 8, 3), {}),
    ("arange", (0, 1, 0.3), {}), ("arange", (5, 0, -2), {}), ("arange", (3, 1), {}),
    ("linspace", (0, 1), {"steps": 5}), ("eye", (3,), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "named"), FILLED, ids=str)
def test_filled_as_torch_fills(name, args, named):
    """S200: values, shapes and default dtypes are PyTorch's, here and without data."""
    theirs_named = {k: getattr(torch, v) if k == "dtype" else v for k, v in named.items()}
    if name == "arange" and args == (3, 1):
        theirs = torch.zeros(0, dtype=torch.int64)
    else:
        theirs = getattr(torch, name)(*args, **theirs_named).numpy()
    ours = getattr(creation, name)(*args, **named)
    meta = getattr(creation, name)(*args, **named, device="meta")
    assert ours.shape == meta.shape == tuple(theirs.shape)
    assert ours.dtype == meta.dtype == np.asarray(theirs).dtype
    assert np.allclose(ours.numpy(), theirs)
    assert str(meta.device) == "meta" and meta.is_fake


def test_like():
    """S200: a tensor like another has its shape, dtype and device, unless told."""
    x = creation.ones(2, 3, dtype="float64")
    assert creation.zeros_like(x).tolist() == [[0.0] * 3] * 2
    assert creation.full_like(x, 2, dtype="int64").dtype == np.int64
    assert creation.ones_like(x, device="meta").shape == (2, 3)
    assert str(creation.empty_like(creation.zeros(2, device="meta")).device) == "meta"


def test_data():
    """S200: Python floats become float32 and ints int64; arrays keep their dtype."""
    assert tensor([1.0, 2]).dtype == np.float32 and tensor([1, 2]).dtype == np.int64
    assert tensor(True).dtype == np.bool_ and tensor(1j).dtype == np.complex64
    assert tensor(np.ones(2)).dtype == np.float64
    assert tensor([tensor([1.0]), tensor([2.0])]).tolist() == [[1.0], [2.0]]
    with pytest.raises(UsageTypeError, match="no array of numbers"):
        tensor("abc")


def test_sharing():
    """S66: from_numpy and asarray share memory; tensor copies."""
    array = np.zeros(3)
    from_numpy(array)[0] = 1.0
    asarray(array)[1] = 1.0
    tensor(array)[2] = 1.0
    from_dlpack(array)[2] = 5.0
    assert array.tolist() == [1.0, 1.0, 5.0]
    x = from_numpy(array)
    assert asarray(x) is x and asarray(x, copy=True) is not x
    with pytest.raises(UsageError, match="cannot be shared"):
        asarray([1.0], copy=False)
    with pytest.raises(UsageTypeError, match="takes a NumPy array"):
        from_numpy([1])


def test_refusals():
    """S63: a device without memory, and a negative size."""
    with pytest.raises(UsageError, match="no tensors on the device cuda"):
        zeros(2, device="cuda")
    with pytest.raises(ArgumentError, match="size is not negative"):
        zeros(-1)
    with pytest.raises(ArgumentError, match="step is not zero"):
        arange(0, 3, 0)


def test_random():
    """S160: one seed gives one stream; results have the asked shape, dtype and range."""
    for make in (random.rand, random.randn):
        random.manual_seed(3)
        first, second = make(4, 5), make(4, 5)
        again = make(4, 5, generator=random.Generator(3))
        assert first.tolist() == again.tolist() != second.tolist()
        assert first.shape == (4, 5) and first.dtype == np.float32
        assert make(2, dtype="float64", device="meta").dtype == np.float64
    whole = random.randint(2, 5, (100,)).numpy()
    assert set(whole) == {2, 3, 4} and whole.dtype == np.int64
    assert sorted(random.randperm(9).tolist()) == list(range(9))
    x = zeros(200)
    assert random.uniform_(x, 1.0, 2.0) is x and 1 <= x.min().item() <= x.max().item() < 2
    assert random.bernoulli(creation.ones(3)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ArgumentError, match="empty range"):
        random.randint(3, 3, (1,))
    with pytest.raises(ArgumentError, match="probability"):
        random.bernoulli(creation.full((2,), 2.0))


def test_generator_state():
    """S160: a generator goes on from a state."""
    g = random.Generator(1)
    state = g.get_state()
    first = random.rand(3, generator=g)
    g.set_state(state)
    assert random.rand(3, generator=g).tolist() == first.tolist() and g.initial_seed() == 1
    assert isinstance(first, Tensor)

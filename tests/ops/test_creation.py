"""Making tensors."""

import numpy as np
import pytest
import torch

import polyop.assembly  # noqa: F401
from polyop.errors import (
    ArgumentError,
    DataDependentOutputError,
    GradientWarning,
    UsageError,
    UsageTypeError,
)
from polyop.graph import make_fx
from polyop.ops import creation, generator, random
from polyop.ops.creation import arange, asarray, from_dlpack, from_numpy, tensor, zeros
from polyop.payloads.api import from_array
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
    with pytest.raises(ArgumentError, match="complex numbers have no order"):
        arange(2j)
    with pytest.raises(ArgumentError, match="size is not negative"):
        polyop.linspace(0, 1, -1)


def test_random():
    """S160: one seed gives one stream; results have the asked shape, dtype and range."""
    for make in (random.rand, random.randn):
        generator.manual_seed(3)
        first, second = make(4, 5), make(4, 5)
        again = make(4, 5, generator=generator.Generator(3))
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
    g = generator.Generator(1)
    state = g.get_state()
    first = random.rand(3, generator=g)
    g.set_state(state)
    assert random.rand(3, generator=g).tolist() == first.tolist() and g.initial_seed() == 1
    assert isinstance(first, Tensor)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_sequences_of_tensors_keep_their_dtype(dtype):
    """S200: tensors and NumPy scalars in a sequence say its dtype, as PyTorch's; numbers yield."""
    ours, theirs = asarray(np.ones((), dtype)), torch.asarray(np.ones((), dtype))
    number = True if dtype == "bool" else 2
    for make in (lambda x: [x, x], lambda x: [[x, number], [number, x]], lambda x: ([x], (x,))):
        found, wanted = asarray(make(ours)), torch.asarray(make(theirs))
        assert str(found.dtype) == str(wanted.dtype).removeprefix("torch.")
        assert found.tolist() == wanted.tolist()
    assert asarray([np.ones((), dtype)[()], number]).dtype == dtype
    assert asarray([asarray(np.int8(1)), 2]).dtype == "int8"  # as beside a tensor
    assert asarray([asarray(np.float32(1)), asarray(np.float64(1))]).dtype == "float64"
    assert asarray([1.0, 2]).dtype == "float32" and asarray([[], []]).shape == (2, 0)


def test_gradients_flow_to_tensors_in_sequences():
    """S138: `asarray` of tensors, and `full` of one, are differentiable; `tensor` makes a leaf."""
    x = tensor(3.0, requires_grad=True)
    asarray([[x, 2.0], [1.0, x * x]]).sum().backward()
    assert x.grad.item() == 7.0
    full = creation.full((2, 3), x, dtype="float64")
    assert full.dtype == "float64" and full.tolist() == [[3.0] * 3] * 2
    full.sum().backward()
    creation.full_like(zeros(4), fill_value=x).sum().backward()
    assert x.grad.item() == 7 + 6 + 4
    assert tensor([x, 2.0]).is_leaf and not tensor([x, 2.0]).requires_grad
    full += 1  # new memory, as for any new tensor
    assert x.item() == 3.0


def test_shapes_by_name():
    """S200: the standard's word `shape` is taken, and a tensor without data may be filled too."""
    assert zeros(shape=(2, 3)).shape == creation.ones(shape=[2, 3]).shape == (2, 3)
    assert creation.empty(shape=4, dtype="int8").shape == (4,)
    meta = creation.full((2,), tensor(1.0), device="meta")
    assert str(meta.device) == "meta" and meta.shape == (2,)


ENDS = [
    ("arange", (4.0,)),
    ("arange", (1, 4, 2)),
    ("linspace", (0.0, 2, 5)),
    ("linspace", (3, 1, 2)),
]


@pytest.mark.parametrize(("name", "ends"), ENDS, ids=str)
@pytest.mark.parametrize("wrap", [from_numpy, lambda a: from_array(torch.from_numpy(a))])
def test_ends_of_ranges_may_be_tensors(name, ends, wrap):
    """S200: a tensor without axes stands for its number, as in PyTorch and NumPy."""
    make, count = getattr(creation, name), 3 if name == "arange" else 2
    held = [wrap(np.array(n)) if i < count else n for i, n in enumerate(ends)]
    found, wanted = make(*held), make(*ends)
    assert found.tolist() == wanted.tolist() and found.dtype == wanted.dtype


def test_ends_of_ranges_are_looked_at():
    """S200: ends with axes are refused, and of others a trace and a gradient know nothing."""
    with pytest.raises(ArgumentError, match="cannot take Tensor as argument 'stop'"):
        arange(tensor([1.0]))
    with pytest.raises(DataDependentOutputError, match="arange"):
        make_fx(arange)(tensor(4.0))
    with pytest.warns(GradientWarning, match=r"arange\(\) of a tensor with a derivative"):
        arange(tensor(4.0, requires_grad=True))

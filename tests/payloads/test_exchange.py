"""Conversions between libraries: nothing crashes, nothing is written unseen, nothing moves."""

from __future__ import annotations

import warnings

import array_api_strict
import dask.array
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.payloads.conftest import MADE

import polyop
from polyop.errors import (
    ArgumentError,
    AutogradError,
    DataDependentOutputError,
    UsageError,
    UsageTypeError,
)
from polyop.payloads import from_numpy, library_of, to_numpy

TORCH = library_of(torch.ones(1))
STRIDED = [
    np.arange(6.0)[::-1],
    np.arange(12.0).reshape(3, 4).T,
    np.arange(12.0).reshape(3, 4)[::-2, ::-1],
    np.broadcast_to(np.arange(3.0), (2, 3)),
    np.zeros((0, 3)),
    np.zeros((3, 0))[::-1],
    np.array(2.5),
]


@pytest.mark.parametrize("number", range(len(STRIDED)))
def test_any_layout_crosses(library, number: int) -> None:
    """Negative strides, repeated elements, no elements and no axes cross, and come back."""
    array = STRIDED[number]
    back = to_numpy(from_numpy(library, array))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype and back.shape == array.shape


def test_what_goes_to_a_library_has_its_own_memory(library) -> None:
    """A library's array never shares memory with NumPy's, aligned or read-only."""
    raw = np.zeros(1024 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + 1024].view(np.float32)
    array.flags.writeable = False
    made = from_numpy(library, array)
    assert not np.may_share_memory(to_numpy(made), raw)
    raw[...] = 255
    assert (to_numpy(made) == 0).all()


def test_read_only_stays_unwritten() -> None:
    """A write to a tensor made of a read-only array does not reach the array."""
    array = np.zeros(3)
    array.flags.writeable = False
    t = polyop.from_array(from_numpy(TORCH, array))
    t.add_(1)
    assert array.tolist() == [0, 0, 0] and t.tolist() == [1, 1, 1]


def test_jax_arrays_are_not_written_through_numpy() -> None:
    """`numpy()` of a JAX array is read-only; `writable=True` gives a copy."""
    x = jnp.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        polyop.from_array(x).numpy()[0] = 1
    copy = to_numpy(x, writable=True)
    copy[0] = 1
    assert x.tolist() == [0, 0, 0]


def test_jax_arrays_are_not_written_through_dlpack() -> None:
    """What PyTorch makes of a tensor over a JAX array is memory of its own."""
    x = jnp.zeros(3, jnp.float32)
    torch.from_dlpack(polyop.from_array(x)).add_(1)
    assert x.tolist() == [0, 0, 0]
    with pytest.raises(BufferError):
        polyop.from_array(x).__dlpack__(copy=False)


def test_dlpack_of_torch_shares() -> None:
    """Over PyTorch, DLPack is PyTorch's: the memory is shared, and says so."""
    x = torch.zeros(3)
    y = np.from_dlpack(polyop.from_array(x))
    x.add_(1)
    assert y.tolist() == [1, 1, 1]
    assert polyop.from_array(x).__dlpack_device__() == (1, 0)
    with pytest.raises(AutogradError, match="detach"):
        polyop.from_array(x).requires_grad_().__dlpack__()


@pytest.mark.parametrize("copy", [None, False, True])
def test_dlpack_gives_nothing_to_a_device_that_is_not_there(library, copy: bool | None) -> None:
    """The standard: what cannot be exported is a BufferError, whatever the library's own is."""
    x = polyop.from_array(from_numpy(library, np.ones(2)))
    for device in ((8, 0), (77, 0)):
        with pytest.raises(BufferError):
            x.__dlpack__(dl_device=device, copy=copy)


@pytest.mark.parametrize("stream", [1, 3, -1])
def test_dlpack_knows_no_streams_on_the_cpu(library, stream: int) -> None:
    """S1: the error is one of ours, the same over each library."""
    x = polyop.from_array(from_numpy(library, np.ones(2)))
    with pytest.raises(UsageError, match="no streams"):
        x.__dlpack__(stream=stream)


def test_a_flip_is_exported_as_a_copy() -> None:
    """A view that shares no memory with its base is not written through what NumPy gets."""
    t = polyop.from_array(torch.arange(3.0))
    with pytest.raises(ValueError, match="read-only"):
        polyop.flip(t).numpy()[0] = 9
    assert t.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_small_floats_cross_by_their_bits(name: str) -> None:
    """What NumPy has only from ml_dtypes goes to PyTorch and JAX and back, bit by bit."""
    array = np.array([0.5, -1.5, 448.0, np.nan], getattr(ml_dtypes, name))
    for library in (TORCH, library_of(jnp.ones(1))):
        made = from_numpy(library, array[::-1])
        assert name in str(made.dtype)
        back = to_numpy(made)
        assert back.dtype == array.dtype and back.tobytes() == array[::-1].tobytes()
        t = polyop.from_array(made)
        assert t.dtype == array.dtype and t.shape == (4,)


def test_bfloat16_adds_as_over_numpy() -> None:
    """Sums of bfloat16 keep their dtype over every library that has it."""
    array = np.array([0.5, 2.0], ml_dtypes.bfloat16)
    for library in (TORCH, library_of(jnp.ones(1))):
        t = polyop.from_array(from_numpy(library, array))
        assert (t + t).dtype == array.dtype and (t + t).numpy().tolist() == [1.0, 4.0]


def test_what_pytorch_does_lazily_is_resolved() -> None:
    """Conjugate and negative views, and tensors that require grad, have their values."""
    x = torch.tensor([1 + 2j, 3 - 1j])
    assert to_numpy(x.conj()).tolist() == [1 - 2j, 3 + 1j]
    assert to_numpy(x.conj().imag).tolist() == [-2, 1]
    y = torch.ones(2, requires_grad=True)
    assert to_numpy(y).tolist() == [1, 1]
    assert (polyop.from_array(y) * 2).numpy(force=True).tolist() == [2, 2]


def test_no_data_no_look() -> None:
    """A tracer and a fake have no data; the error names the library and what looked."""

    def looks(x: object) -> object:
        with pytest.raises(DataDependentOutputError, match="jax only traces"):
            polyop.from_array(x).numpy()
        with pytest.raises(DataDependentOutputError, match=r"bool\(\)"):
            bool(polyop.from_array(x).sum() > 0)
        return x

    jax.jit(looks)(jnp.ones(2))
    with pytest.raises(DataDependentOutputError, match="torch only traces"):
        to_numpy(torch.ones(2, device="meta"))


def test_no_move_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data on another device is not moved to the CPU by a look."""
    monkeypatch.setattr(type(TORCH), "device", lambda *_: polyop.device("cuda", 0))
    with pytest.raises(UsageError, match="would move an array of torch from cuda:0"):
        to_numpy(torch.ones(2))


def test_devices() -> None:
    """S74: an array's device is its library's; what PyTorch only describes, it computes itself."""

    class Chip:
        def __init__(self, platform: str, number: int) -> None:
            self.platform, self.id = platform, number

    class Placed:
        def __init__(self, *chips: Chip) -> None:
            self.chips = set(chips)

        def devices(self) -> set[Chip]:
            return self.chips

    library = library_of(jnp.ones(1))
    assert library.device(Placed(Chip("tpu", 1))) is polyop.device("xla", 1)
    assert library.device(Placed(Chip("gpu", 2), Chip("gpu", 1))) is polyop.device("cuda", 1)
    assert library.device(jnp.ones(1)) is polyop.device("cpu")
    t = polyop.from_array(torch.ones(2, 3, device="meta"))
    assert t.device == "meta" and (t @ t.T).shape == (2, 2)
    assert polyop.to_array(t + 1).is_meta


def test_what_is_no_array() -> None:
    """Numbers, strings and arrays of objects are refused by name."""
    for value in ([1, 2], "x", 3, None):
        with pytest.raises(UsageTypeError, match="takes an array of a library"):
            polyop.from_array(value)
    with pytest.raises(ArgumentError, match="no array"):
        to_numpy([1])
    with pytest.raises(UsageTypeError, match="over an array"):
        polyop.to_array(3)


def test_dtypes_without_a_counterpart() -> None:
    """A dtype that NumPy has not, or that the library has not, is an error that says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = torch.empty(2, dtype=torch.complex32)
    with pytest.raises(ArgumentError, match="torch has no dtype that stands for"):
        polyop.from_array(half)
    with pytest.raises(ArgumentError, match="jax has no dtype"):
        polyop.from_array(jax.random.key(0))
    strict = library_of(array_api_strict.ones(1))
    with pytest.raises(ArgumentError, match="array_api_strict has no dtype .* float16"):
        polyop.from_array(from_numpy(strict, np.ones(2, "int8"))).sin()


def test_sparse_arrays_are_refused() -> None:
    """Only dense arrays have strides and views."""
    with pytest.raises(ArgumentError, match=r"(?s)dense.*to_dense"):
        polyop.from_array(torch.eye(2).to_sparse())


def test_tensors_and_numpy_pass() -> None:
    """A tensor is itself, a NumPy array makes a plain tensor that shares its memory."""
    t, array = polyop.ones(2), np.zeros(2)
    assert polyop.from_array(t) is t
    polyop.from_array(array).add_(1)
    assert array.tolist() == [1, 1] and polyop.to_array(polyop.from_array(array)) is array
    x = torch.ones(2)
    assert polyop.to_array(polyop.from_array(x)) is x


def test_a_subclass_is_of_its_library() -> None:
    """A parameter, and any subclass, is an array of its library."""
    assert library_of(torch.nn.Parameter(torch.ones(2))) is TORCH
    assert library_of(dask.array.ones(2)).name == "dask"
    assert library_of(np.ones(2)) is None and library_of(object()) is None
    assert library_of(polyop.ones(2)) is None


@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from(["bool", "uint8", "int16", "int64", "float32", "float64", "complex64"]),
    flip=st.booleans(),
    turn=st.booleans(),
    name=st.sampled_from(sorted(MADE)),
)
def test_roads_and_back(shape, dtype: str, flip: bool, turn: bool, name: str) -> None:
    """Any shape, dtype and layout survives the way to a library and back."""
    jax.config.update("jax_enable_x64", True)
    array = np.arange(int(np.prod(shape)) if shape else 1).reshape(shape).astype(dtype)
    array = array.T if turn else array
    array = array[::-1] if flip and array.ndim else array
    back = to_numpy(from_numpy(library_of(MADE[name]()), array))
    assert back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_array_equal(back, array)

"""What comes in from another library, and goes out to it, has its own values, or is refused."""

from __future__ import annotations

from typing import Any

import array_api_strict
import dask.array as da
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError, AutogradError, UsageError

BACKWARDS = {
    "reversed": lambda: polyop.from_numpy(np.arange(6.0)[::-1]),
    "flip": lambda: polyop.flip(polyop.arange(6.0)),
    "both axes": lambda: polyop.from_numpy(np.arange(6.0).reshape(2, 3)[::-1, ::-1]),
}


# -- out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKWARDS)
@pytest.mark.parametrize("road", [torch.asarray, torch.tensor, torch.from_dlpack])
def test_backwards_memory_goes_as_a_copy(name: str, road: Any) -> None:
    """S66: strides below zero, for which PyTorch ends the process, are not exported."""
    t = BACKWARDS[name]()
    np.testing.assert_array_equal(road(t), t.numpy())
    with pytest.raises(BufferError, match="copy"):
        t.__dlpack__(copy=False)


def test_read_only_memory_goes_as_a_copy() -> None:
    """S66: a consumer that does not know what read-only is writes memory of its own."""
    array = np.zeros(3)
    array.flags.writeable = False
    torch.from_dlpack(polyop.from_numpy(array))[0] = 7
    assert array.tolist() == [0, 0, 0]
    with pytest.raises(BufferError, match="copy"):
        polyop.from_numpy(array).__dlpack__(copy=False)


def test_plain_memory_is_shared() -> None:
    """S66: what may be written, and lies forwards, goes as it is."""
    array = np.zeros((3, 2))
    torch.from_dlpack(polyop.from_numpy(array).T)[0, 1] = 7
    assert array.tolist() == [[0, 0], [7, 0], [0, 0]]


LATER = {
    "conjugate": lambda: torch.tensor([1 + 2j]).conj(),
    "negative": lambda: torch.tensor([1 + 2j]).conj().imag,
    "both": lambda: torch.tensor([1 + 2j]).conj().imag[None],
}


@pytest.mark.parametrize("name", LATER)
def test_what_pytorch_computes_later_goes_with_its_values(name: str) -> None:
    """S66: a tensor that is negated or conjugated as it is read is exported as it reads."""
    x = LATER[name]()
    wanted = x.resolve_conj().resolve_neg().numpy()
    t = polyop.from_array(x)
    for road in (np.asarray, np.from_dlpack, torch.asarray):
        np.testing.assert_array_equal(road(t), wanted)
    with pytest.raises(BufferError, match="copy"):
        t.__dlpack__(copy=False)


# -- in ---------------------------------------------------------------------------------------

ROADS = [polyop.tensor, polyop.asarray, polyop.as_tensor, polyop.from_dlpack]


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("road", ROADS)
def test_what_pytorch_computes_later_comes_with_its_values(name: str, road: Any) -> None:
    """S66: a tensor that is negated or conjugated as it is read comes as it reads."""
    x = LATER[name]()
    np.testing.assert_array_equal(road(x), x.resolve_conj().resolve_neg().numpy())


@pytest.mark.parametrize("road", [polyop.asarray, polyop.from_dlpack])
def test_what_pytorch_computes_later_is_not_shared(road: Any) -> None:
    """S66: a copy is refused where none is wanted."""
    with pytest.raises(UsageError, match="cannot be shared"):
        road(LATER["negative"](), copy=False)
    x = torch.ones(2)
    road(x, copy=False).add_(1)
    assert x.tolist() == [2, 2]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("road", ROADS)
def test_small_floats_come_by_their_bits(name: str, road: Any) -> None:
    """S66: what NumPy has no DLPack for comes by each road, of each library."""
    wanted = np.array([0.5, -1.5], getattr(ml_dtypes, name))
    for x in (torch.tensor([0.5, -1.5]).to(getattr(torch, name)), jnp.asarray(wanted)):
        t = road(x)
        assert t.dtype == wanted.dtype and t.numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("road", [polyop.tensor, polyop.asarray])
def test_arrays_in_a_list_come_as_they_do_alone(road: Any) -> None:
    """S66: in nested sequences values and dtypes are those of the arrays."""
    assert road([torch.ones(2, dtype=torch.bfloat16)] * 2).dtype == polyop.bfloat16
    assert road([[LATER["negative"]()], [polyop.ones(1)]]).tolist() == [[[-2.0]], [[1.0]]]
    for x in (torch.ones(2).double(), jnp.ones(2, "float64"), array_api_strict.ones(2)):
        assert road((x, [1, 2])).dtype == polyop.float64
    with pytest.raises(ArgumentError, match="jax has no dtype"):
        road([jnp.ones(3, jnp.int4)])


def test_gradients_of_pytorch_are_not_lost_unsaid() -> None:
    """S66: `tensor` cuts gradients off, as it always does; a road that shares says what to do."""
    x = torch.ones(2, requires_grad=True)
    assert polyop.tensor(x).tolist() == [1, 1]
    for road in (polyop.asarray, polyop.as_tensor, polyop.from_dlpack):
        with pytest.raises(AutogradError, match=r"(?s)cut.*torch.*\.detach\(\).*from_array"):
            road(x)
        assert road(x.detach()).tolist() == [1, 1]


@pytest.mark.parametrize("road", ROADS)
def test_what_is_no_dense_array_of_ours_is_refused(road: Any) -> None:
    """S66: a sparse array is refused by the words of `from_array`."""
    with pytest.raises(ArgumentError, match=r"(?s)dense.*to_dense"):
        road(torch.eye(2).to_sparse())


@pytest.mark.parametrize("road", [*ROADS, polyop.from_array])
@pytest.mark.parametrize("name", ["int4", "uint4", "float8_e4m3fnuz"])
def test_dtypes_that_are_none_of_ours(name: str, road: Any) -> None:
    """S66: a dtype of JAX in which sums would run over is refused."""
    with pytest.raises(ArgumentError, match=f"jax has no dtype that stands for {name}"):
        road(jnp.ones(3, getattr(jnp, name)))


# -- masks ------------------------------------------------------------------------------------


@polyop.custom_op("conversions::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() * 2)


twice.register_fake(lambda x: polyop.empty_like(x))

MASKED = np.ma.masked_less([1.0, 2.0, 3.0], 2)
CALLS = {
    "from_array": polyop.from_array,
    "from_numpy": polyop.from_numpy,
    "from_dlpack": polyop.from_dlpack,
    "tensor": polyop.tensor,
    "asarray": polyop.asarray,
    "a list": lambda x: polyop.tensor([x, x]),
    "an operator": twice,
    "a built-in operator": lambda x: polyop.add(x, x),
    "a value that is written": lambda x: polyop.ones(3).__setitem__(slice(None), x),
    "an index": lambda x: polyop.ones(3)[x.astype(int) - 1],
    "beside a tensor": lambda x: polyop.ones(3) + x,
    "beside an array of Dask": lambda x: polyop.add(da.ones(3), x),
}


@pytest.mark.parametrize("name", CALLS)
def test_masked_arrays_are_refused(name: str) -> None:
    """S66: what a mask hides does not come to light."""
    with pytest.raises(ArgumentError, match=r"(?s)masked.*fill it first: x\.filled"):
        CALLS[name](MASKED)


@pytest.mark.parametrize("name", ["from_array", "asarray", "an operator", "a built-in operator"])
def test_masked_arrays_of_dask_are_refused(name: str) -> None:
    """S66: the same of chunks."""
    x = da.ma.masked_array(
        da.from_array(np.arange(4.0), chunks=2), mask=[True, False, False, False]
    )
    with pytest.raises(ArgumentError, match=r"(?s)masked.*fill it first: dask\.array\.ma\.filled"):
        CALLS[name](x)


# -- copies -----------------------------------------------------------------------------------


def test_copies_share_nothing() -> None:
    """S66: a clone over a library of the standard is not its source, nor what `numpy` gave."""
    x = array_api_strict.asarray([1.0, 2.0])
    t = polyop.from_array(x)
    copy = t.clone()
    with pytest.raises(ValueError, match="read-only"):
        copy.numpy()[...] = 9
    x[0] = 7
    assert copy.tolist() == [1, 2] and t.tolist() == [7, 2]


def test_a_look_at_what_was_written_is_read_only() -> None:
    """S66: a write gives the tensor another array, which an earlier look does not have."""
    t = polyop.from_array(array_api_strict.asarray([1.0, 2.0]))
    before = t.numpy()
    t.mul_(2)
    assert not before.flags.writeable
    assert before.tolist() == [1, 2] and t.tolist() == [2, 4]

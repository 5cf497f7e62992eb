"""Tensors that are made on a device, or moved to one: in fake modes, on `meta`, in programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

import polyop
from polyop.errors import UsageError
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx

Fn = Callable[..., Any]
MOVES: dict[str, Fn] = {
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to another": lambda x: x.to(polyop.ones(2)),
    "to_device": lambda x: x.to_device("cpu"),
    "asarray": lambda x: polyop.asarray(x, device="cpu"),
    "tensor": lambda x: polyop.tensor(x, device="cpu"),
    "astype": lambda x: polyop.astype(x, polyop.float32, device="cpu"),
}


@pytest.mark.parametrize("name", MOVES)
def test_fakes_move_to_the_cpu(name: str) -> None:
    """S147: a fake of another device becomes one on the CPU, with its shape and dtype."""
    with FakeTensorMode():
        x = polyop.ones(3, 4, device="cuda").T
        moved = MOVES[name](x)
    assert (moved.is_fake, str(moved.device), moved.shape) == (True, "cpu", (4, 3))
    assert moved.dtype == x.dtype and moved.stride() == (1, 4)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_fakes_move_from_the_cpu(device: str) -> None:
    """S147: inside a fake mode there is any device, and what is moved stays a fake of the mode."""
    with FakeTensorMode() as mode:
        for x in polyop.ones(3).to(device), polyop.asarray([1.0, 2.0], device=device):
            assert str(x.device) == device and x.payload.space is mode.space


def test_gradients_go_the_way_back() -> None:
    """S118, S147: the gradient of a moved fake is on the device that it came from."""
    with FakeTensorMode():
        x = polyop.ones(3, device="cuda", requires_grad=True)
        (x.cpu() * 2).sum().backward()
        assert str(x.grad.device) == "cuda"
        _, slope = polyop.func.jvp(lambda x: x.cpu(), (x.detach(),), (x.detach(),))
        assert str(slope.device) == "cpu"
    theirs = torch.ones(3, requires_grad=True).to("meta")
    assert polyop.ones(3, requires_grad=True).to("meta").requires_grad == theirs.requires_grad


FILLED_WITH_A_TENSOR: dict[str, Fn] = {
    "full": lambda v, d: polyop.full((2,), v, device=d),
    "full_like": lambda v, d: polyop.full_like(polyop.ones(2), v, device=d),
    "new_full": lambda v, d: polyop.ones(2).new_full((2,), v, device=d),
}


@pytest.mark.parametrize("name", FILLED_WITH_A_TENSOR)
def test_a_tensor_fills_on_the_device_that_is_asked_for(name: str) -> None:
    """S200, S147: the device of what is filled with a tensor is the one that is given."""
    make = FILLED_WITH_A_TENSOR[name]
    with FakeTensorMode():
        assert str(make(polyop.tensor(1.0), "cuda").device) == "cuda"
    for fn in make, polyop.compile(make, fullgraph=True):
        assert str(fn(polyop.tensor(1.0), "meta").device) == "meta"
    with pytest.raises(UsageError, match="cuda"):
        make(polyop.tensor(1.0), "cuda")


MADE: dict[str, Fn] = {
    "zeros": lambda x: polyop.zeros(2, 3, device="meta"),
    "full": lambda x: polyop.full((2, 3), 1.5, device="meta"),
    "arange": lambda x: polyop.arange(3, device="meta"),
    "linspace": lambda x: polyop.linspace(0, 1, 3, device="meta"),
    "eye": lambda x: polyop.eye(3, device="meta"),
    "ones_like": lambda x: polyop.ones_like(x, device="meta"),
    "new_ones": lambda x: x.new_ones(2, 3, device="meta"),
    "rand": lambda x: polyop.rand(2, device="meta"),
    "asarray": lambda x: polyop.asarray([1.0, 2.0], device="meta"),
    "to": lambda x: x.to("meta"),
    "to and on": lambda x: x.to("meta") + 1,
    "beside others": lambda x: polyop.concat([(x + 1).to("meta"), polyop.ones_like(x.to("meta"))]),
}
PROGRAMS: dict[str, Fn] = {
    "compiled": lambda fn, x: polyop.compile(fn, fullgraph=True),
    "traced": lambda fn, x: make_fx(fn, tracing_mode="fake")(x),
    "with symbols": lambda fn, x: make_fx(fn, tracing_mode="symbolic")(x),
    "exported": lambda fn, x: polyop.export.export(fn, (x,)).module(),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", MADE)
def test_programs_make_what_eager_makes_on_meta(name: str, program: str) -> None:
    """S200, S209: a program makes tensors on `meta`, of eager's shape, dtype and strides."""
    x = polyop.ones(3, 2).T
    eager, made = MADE[name](x), PROGRAMS[program](MADE[name], x)(x)
    for t in eager, made:
        assert str(t.device) == "meta" and t.payload.space.mode is None
    assert (made.shape, made.dtype, made.stride()) == (eager.shape, eager.dtype, eager.stride())


def test_what_has_no_data_makes_data_elsewhere() -> None:
    """S200: a tensor like one on `meta`, but on the CPU, has data, as PyTorch's."""
    x = polyop.ones(2, device="meta")
    assert polyop.zeros_like(x, device="cpu").tolist() == [0.0, 0.0]
    again = polyop.compile(lambda x: polyop.full_like(x, 2, device="cpu"))
    assert again(x).tolist() == [2.0, 2.0]
    with pytest.raises(UsageError, match="no data to move"):
        x.to("cpu")
    with pytest.raises(ValueError, match="beside a tensor on the device meta"):
        polyop.ops.core.zeros_like(x, device="cpu")


ARRAYS = {"torch": torch.ones(2, 3), "numpy": np.ones((2, 3)), "dask": da.ones((2, 3))}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=list(ARRAYS))
def test_arrays_of_any_library_move_to_meta(array: Any) -> None:
    """S66, S200: what is made on `meta` beside an array of any library has no data."""
    x = polyop.from_array(array)
    for t in x.to("meta"), polyop.zeros_like(x, device="meta"), x.new_zeros(2, device="meta"):
        assert str(t.device) == "meta" and t.is_fake
    assert polyop.zeros_like(array, device="meta").is_fake
    assert polyop.zeros_like(array, device="cpu").shape == (2, 3)
    with pytest.raises(UsageError, match="cuda"):
        polyop.zeros_like(x, device="cuda")


@pytest.mark.parametrize("name", ["new_zeros", "new_ones", "new_empty", "new_full"])
def test_new_tensors_are_of_the_batch(name: str) -> None:
    """S155: what a batched tensor makes is batched as PyTorch's is, so that it may be written."""
    value = (3.0,) if name == "new_full" else ()

    def written(x: Any) -> Any:
        made = getattr(x, name)((2,), *value)
        return (made.fill_(1) if name == "new_empty" else made).add_(x)

    x = np.arange(6.0, dtype="float32").reshape(3, 2)
    ours = polyop.vmap(written)(polyop.asarray(x)).numpy()
    assert np.array_equal(ours, torch.vmap(written)(torch.asarray(x)).numpy())
    twice = polyop.vmap(polyop.vmap(written))(polyop.asarray(x[None])).numpy()
    assert np.array_equal(twice, ours[None])


def test_a_tensor_fills_each_element_of_a_batch() -> None:
    """S155: so does what is filled with a tensor, beside a batched one."""
    fill: Fn = lambda x: polyop.full_like(x, polyop.tensor(2.0)).add_(x)  # noqa: E731 - as it is
    assert polyop.vmap(fill)(polyop.ones(3, 2)).tolist() == [[3.0, 3.0]] * 3


def test_tangents_move_with_their_tensors() -> None:
    """S143: the move is linear, so a tangent goes to the same device."""
    x = polyop.tensor([1.0, 2.0])
    moved = polyop.func.jvp(lambda a: a.to_device("meta"), (x,), (x,))
    assert [str(t.device) for t in moved] == ["meta", "meta"]
    value, push = polyop.func.linearize(lambda a: a * a.to_device("meta").ndim, x)
    assert value.tolist() == push(x).tolist() == [1.0, 2.0]

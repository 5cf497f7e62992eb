"""Code that was written for one framework, in the hands of who moves it here."""

from __future__ import annotations

import inspect
from typing import Any

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import InferenceError, MissingKernelError, ReturnError

ARRAYS: list[Any] = [torch.Tensor, torch.nn.Parameter, jax.Array, da.Array]


@pytest.mark.parametrize("annotation", ARRAYS)
def test_an_array_of_one_library_as_annotation(annotation: Any) -> None:
    """S20: the error says that one annotation stands for all libraries' arrays."""

    def kernel(x: Any) -> Any:
        return x

    kernel.__annotations__ = {"x": annotation, "return": Tensor}
    with pytest.raises(InferenceError) as caught:
        polyop.custom_op("users_moving::bad", kernel, mutates_args=())
    assert caught.value.argument == "x"
    assert "write polyop.Tensor" in caught.value.fix and "register_kernel" in caught.value.fix


@pytest.mark.parametrize("name", ["dtype", "device"])
def test_a_dtype_or_device_of_pytorch_as_annotation(name: str) -> None:
    """S20: so it is for the other classes that operators of PyTorch take."""

    def kernel(x: Tensor, y: Any) -> Tensor:
        return x

    kernel.__annotations__ = {**inspect.get_annotations(kernel, eval_str=True)}
    kernel.__annotations__["y"] = getattr(torch, name)
    with pytest.raises(InferenceError, match=f"write polyop.{name}"):
        polyop.custom_op("users_moving::bad", kernel, mutates_args=())


def test_a_kernel_of_pytorch_alone() -> None:
    """S66: a kernel of PyTorch's functions serves its tensors; others get an error by name."""
    lib = polyop.library.Library("users_moving", "FRAGMENT")
    lib.define("sine(Tensor x) -> Tensor")
    sine = polyop.ops.users_moving.sine.default
    polyop.library.register_kernel("users_moving::sine", "cpu", torch.sin, library="torch")
    polyop.library.register_fake("users_moving::sine", polyop.empty_like)
    polyop.library.register_autograd(
        "users_moving::sine",
        lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    x = torch.ones(3, requires_grad=True)
    torch.testing.assert_close(torch.ops.users_moving.sine(x), torch.sin(x))
    (slope,) = torch.autograd.grad(sine(x).sum(), x)
    torch.testing.assert_close(slope, torch.cos(x))
    for other in (np.ones(3), jnp.ones(3)):
        with pytest.raises(MissingKernelError, match="users_moving::sine has kernels for arrays"):
            sine(other)


def test_a_kernel_that_returns_what_it_used_to() -> None:
    """S48: an array that is not wrapped is refused, and the error says whose it is."""

    @polyop.custom_op("users_moving::ones", mutates_args=())
    def ones(x: Tensor) -> Tensor:
        return torch.ones(3)  # type: ignore[return-value]

    ones.register_fake(lambda x: polyop.empty_like(x))
    with pytest.raises(ReturnError, match=r"torch\.Tensor") as caught:
        ones(torch.ones(3))
    assert "polyop.from_numpy(numpy.asarray(result))" in caught.value.fix

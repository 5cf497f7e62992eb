"""What a framework traces over data of its own is no data to us: nothing of it is frozen."""

from __future__ import annotations

from typing import Any

import pytest

import polyop
from polyop.errors import MissingKernelError

torch: Any = pytest.importorskip("torch")
proxy_tensor: Any = pytest.importorskip("torch.fx.experimental.proxy_tensor")
A = torch.tensor([0.25, 0.75, 0.25])


def over(f: Any) -> Any:
    return lambda t: polyop.to_array(f(polyop.from_array(t)))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize(
    "f",
    [
        polyop.unique_values,
        polyop.bernoulli,
        lambda x: polyop.clone(x).uniform_(),
        polyop.rand_like,
        polyop.randn_like,
    ],
)
def test_a_trace_refuses_what_it_would_freeze(f: Any, mode: str) -> None:
    """S66: an operator without a kernel of PyTorch's is refused by name in every mode."""
    with pytest.raises(MissingKernelError, match="what torch traces"):
        proxy_tensor.make_fx(over(f), tracing_mode=mode)(A)


def test_a_trace_of_what_pytorch_computes() -> None:
    """S66: other operators are in the graph, and follow its arguments."""
    program = proxy_tensor.make_fx(over(lambda x: polyop.sin(x) * 2.0))(A)
    assert torch.equal(program(A + 1), (A + 1).sin() * 2.0)


@polyop.custom_op("traced_by_others::double", mutates_args=())
def double(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)


double.register_fake(lambda x: polyop.empty_like(x))


@pytest.mark.parametrize("f", [double, over(double)])
def test_an_authors_operator_is_in_the_trace(f: Any) -> None:
    """S66: an author's operator is one of PyTorch, whose kernel runs when the graph runs."""
    program = proxy_tensor.make_fx(f)(A)
    assert torch.equal(program(A + 1), (A + 1) * 2)


@pytest.mark.parametrize("f", [polyop.rand_like, polyop.randn_like])
def test_random_numbers_beside_an_array_are_of_its_library(f: Any) -> None:
    """S66: they are drawn for it: a trace refuses them, and transforms see them."""
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(2)
    with pytest.raises(MissingKernelError, match="what jax traces"):
        jax.jit(over(f))(x)
    with pytest.raises(MissingKernelError, match="what jax traces"):
        jax.jit(over(polyop.vmap(f, randomness="different")))(x)
    for array in (x, A, A.double(), A.to(torch.complex64)):
        found = over(f)(array)
        assert type(found) is type(array)
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert over(lambda t: f(t, dtype=polyop.float64))(A).dtype == torch.float64

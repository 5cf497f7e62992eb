"""What PyTorch records is computed by PyTorch, or refused by name: no gradient is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from tests.payloads.pair import tensor_of
from torch.autograd import forward_ad

import polyop
from polyop import from_array, to_array
from polyop.errors import AutogradError, MissingGradientError, MutationError

#: PyTorch's forward mode compiles its own decompositions with what PyTorch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
HALVES = [torch.float16, torch.bfloat16]


def leaf(*values: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Make a tensor of PyTorch whose gradient is asked for."""
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def centred(x: Any) -> Any:
    """Take the mean away, by operators of ours, of PyTorch's tensor."""
    return to_array(from_array(x) - polyop.mean(from_array(x)))


# -- native where NumPy was asked -------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
def test_a_mean_in_half_precision_has_its_gradient(dtype: torch.dtype) -> None:
    """S66: backward, forward mode, torch.func and vmap give what PyTorch's own mean gives."""
    x = torch.tensor([1.5, 2.25, 4.0], dtype=dtype)
    along = torch.tensor([1.0, 0, 0], dtype=dtype)

    def theirs(x: Any) -> Any:
        return x - x.mean()

    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        assert torch.equal(transform(centred)(x), transform(theirs)(x))
    assert torch.equal(torch.func.vmap(centred)(x[None]), theirs(x)[None])
    y = x.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(centred(y)[0], y)[0], torch.func.jacrev(theirs)(x)[0])
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(centred(forward_ad.make_dual(x, along))).tangent
    assert torch.equal(found, torch.func.jvp(theirs, (x,), (along,))[1])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_mean_in_half_precision_is_traced_by_jax(dtype: Any) -> None:
    """S66: jit and grad trace it."""
    x = jnp.array([1.5, 2.25, 4.0], dtype)
    found = jax.jit(jax.grad(lambda x: centred(x)[0]))(x)
    assert found.tolist() == jax.grad(lambda x: (x - x.mean())[0])(x).tolist()


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("axis", [None, 0, (0, 1), ()])
def test_means_in_half_precision_are_those_of_numpy(library: Any, dtype: Any, axis: Any) -> None:
    """S66: sums are kept in single precision."""
    x = np.random.default_rng(0).normal(size=(64, 33)).astype(dtype)
    if library.name in {"array_api_strict", "dask"}:
        x = x.astype("float32")
    found = polyop.mean(tensor_of(library, x), axis=axis).numpy()
    wanted = polyop.mean(polyop.from_numpy(x), axis=axis).numpy()
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found.astype("f8"), wanted.astype("f8"), rtol=1e-5)


def test_no_axes_and_no_elements_have_gradients() -> None:
    """S66: a mean over no axes is its argument; over no elements it is no number."""
    x = leaf(1.5, 2.25, 4.0)
    found = to_array(from_array(x) * polyop.mean(from_array(x), axis=()))
    assert torch.autograd.grad(found.sum(), x)[0].tolist() == [3.0, 4.5, 8.0]
    nothing = torch.zeros(0, 4, requires_grad=True)
    found = to_array(polyop.mean(from_array(nothing), axis=0))
    assert found.isnan().all()
    assert found.requires_grad


@pytest.mark.parametrize("name", ["remainder", "floor_divide"])
def test_what_is_left_in_bfloat16(name: str) -> None:
    """S66: edges are those of NumPy, and gradients those of PyTorch in single precision."""
    edges = [0.0, -0.0, 1, -1, 0.5, 2.5, np.nan, np.inf, -np.inf, 3, -7.25, 0.1, 1e30]
    a, b = (v.ravel() for v in np.meshgrid(*[np.array(edges).astype(ml_dtypes.bfloat16)] * 2))
    op = getattr(polyop, name)
    with np.errstate(all="ignore"):
        wanted = op(polyop.from_numpy(a), polyop.from_numpy(b)).numpy()
    theirs = [torch.from_numpy(v.view(np.int16)).view(torch.bfloat16) for v in (a, b)]
    found = op(*map(from_array, theirs)).numpy()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.astype("f4"), wanted.astype("f4"))
    x = leaf(7.5, -3.25, dtype=torch.bfloat16)
    left = to_array(op(from_array(x), 2.0))
    assert left.requires_grad
    if name == "remainder":  # of the other PyTorch has no derivative in any dtype, and says so
        assert torch.autograd.grad(left.sum(), x)[0].tolist() == [1, 1]


EMPTY = [polyop.fft.fft, polyop.fft.rfft, polyop.fft.irfft, polyop.linalg.pinv]


@pytest.mark.parametrize("fn", EMPTY)
def test_empty_batches_stay_in_the_graph(fn: Callable[..., Any]) -> None:
    """S66: spectra and inverses of no rows have shapes, dtypes and (empty) gradients."""
    x = torch.zeros(0, 4, dtype=torch.complex64, requires_grad=True)
    if fn is polyop.fft.rfft:
        x = torch.zeros(0, 4, requires_grad=True)
    found, wanted = fn(from_array(x)), fn(polyop.from_numpy(x.detach().numpy()))
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    assert torch.autograd.grad(to_array(found).abs().sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum"])
def test_real_sums_of_complex_numbers(name: str) -> None:
    """S66: the real part is what is summed, and has the gradient."""
    x = torch.tensor([1 + 1j, 2 - 3j], requires_grad=True)
    fn = getattr(polyop, name)
    with pytest.warns(np.exceptions.ComplexWarning):
        found = to_array(fn(from_array(x), dtype=polyop.float32))
    with pytest.warns(np.exceptions.ComplexWarning):
        wanted = fn(polyop.from_numpy(x.detach().numpy()), dtype=polyop.float32).numpy()
    np.testing.assert_allclose(found.detach().numpy(), wanted)
    slope = torch.autograd.grad(found.sum(), x)[0]
    assert slope.imag.tolist() == [0, 0]
    assert slope.real.abs().sum() > 0


def test_complex_numbers_are_rounded_part_by_part(library: Any) -> None:
    """S66: infinities and NaN of one part leave the other alone."""
    edges = [0.0, -0.0, 0.5, -1.5, np.nan, np.inf, -np.inf]
    x = np.array([complex(a, b) for a in edges for b in edges], "complex64")
    found = polyop.round(tensor_of(library, x)).numpy()
    np.testing.assert_array_equal(found.view("f4"), np.round(x).view("f4"))


# -- refused by name ----------------------------------------------------------------------------

CUT: dict[str, Callable[[Any], Any]] = {
    "max": polyop.max,
    "maximum": lambda x: polyop.maximum(x, 0.0),
    "clip": lambda x: polyop.clip(x, 0.0, 1.0),
    "sort": polyop.sort,
    "unique_values": polyop.unique_values,
}


@pytest.mark.parametrize("name", CUT)
def test_results_of_numpy_are_no_constants(name: str) -> None:
    """S134: what only NumPy computes is refused while PyTorch records it, and no longer."""
    x = torch.tensor([1 + 1j, 2 - 3j])
    wanted = CUT[name](polyop.from_numpy(x.numpy())).numpy()
    with pytest.raises(AutogradError, match=rf"core::{name}.* cut from the gradients of torch"):
        CUT[name](from_array(x.clone().requires_grad_()))
    with forward_ad.dual_level(), pytest.raises(AutogradError, match="cut from the gradients"):
        CUT[name](from_array(forward_ad.make_dual(x, x)))
    with torch.no_grad():
        found = CUT[name](from_array(x.clone().requires_grad_())).numpy()
    np.testing.assert_array_equal(found, wanted)


def test_what_has_no_gradient_goes_over_numpy_still() -> None:
    """S66: places, counts and draws are cut from nothing."""
    x = from_array(leaf(3.0, 1.0, 3.0))
    assert polyop.unique_all(x.detach()).counts.tolist() == [1, 2]
    assert polyop.argsort(x).tolist() == [1, 0, 2]
    assert not to_array(polyop.bernoulli(x * 0)).requires_grad
    z = leaf(1.0, 2.0) * 2
    from_array(z).normal_()
    assert z.requires_grad


LOOKS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda t: t.numpy(),
    "np.asarray": np.asarray,
    "np.from_dlpack": np.from_dlpack,
    "polyop.from_dlpack": polyop.from_dlpack,
}


@pytest.mark.parametrize("name", LOOKS)
def test_data_do_not_leave_unseen(name: str) -> None:
    """S134: an array of NumPy would be a constant to PyTorch; a number may be, as in PyTorch."""
    x, look = leaf(1.0, 2.0), LOOKS[name]
    with pytest.raises(AutogradError, match=r"cut the array from the gradients of torch"):
        look(from_array(x))
    with forward_ad.dual_level(), pytest.raises(AutogradError, match="has a tangent"):
        look(from_array(forward_ad.make_dual(x.detach(), x.detach())))
    with torch.no_grad():
        assert look(from_array(x)).tolist() == [1, 2]
    assert look(from_array(x.detach())).tolist() == [1, 2]
    assert from_array(x).numpy(force=True).tolist() == [1, 2]
    assert from_array(x).sum().item() == 3
    assert "1., 2." in repr(from_array(x))


def test_a_composite_is_refused_and_a_kernel_is_not() -> None:
    """S134: a kernel's arguments are below PyTorch's gradients; a decomposition's are not."""
    name = "recorded::twice_"

    @polyop.custom_op(f"{name}kernel", mutates_args=())
    def kernel(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    kernel.register_fake(polyop.empty_like)
    kernel.register_autograd(lambda ctx, g: g * polyop.from_numpy(np.full(2, 2, "f4")))
    x = leaf(1.0, 2.0)
    assert torch.autograd.grad(kernel(x).sum(), x)[0].tolist() == [2, 2]
    polyop.library.define(f"{name}parts", "(Tensor x) -> Tensor")
    polyop.library.impl(
        f"{name}parts",
        "CompositeImplicitAutograd",
        lambda x: x * polyop.from_numpy(x.numpy()),
    )
    with pytest.raises(AutogradError, match=r"detach\(\).numpy\(\)"):
        polyop.ops.recorded.twice_parts(x)


BACKWARDS: dict[str, Callable[[Any, Any], Any]] = {
    "numpy": lambda g, x: g * polyop.from_numpy(2 * x.numpy()),
    "np.asarray": lambda g, x: g * polyop.asarray(2 * np.asarray(x)),
    "from_dlpack": lambda g, x: g * polyop.from_dlpack(x) * 2,
    "to_array": lambda g, x: g * polyop.asarray(to_array(x)) * 2,
    "sort": lambda g, x: g * polyop.real(polyop.sort(x * (2 + 0j))),
    "setitem": lambda g, x: g * 2 * polyop.zeros(2).copy_(x),
}


@pytest.mark.parametrize("name", BACKWARDS)
def test_the_gradient_of_a_gradient_is_refused(name: str) -> None:
    """S133: a backward that takes data out of the graph serves once; it has no gradient itself."""

    @polyop.custom_op(f"recorded::squared_{name.replace('.', '_')}", mutates_args=())
    def squared(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() ** 2)

    squared.register_fake(polyop.empty_like)
    squared.register_autograd(
        lambda ctx, g: BACKWARDS[name](g, ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    x = leaf(1.0, 3.0)
    (first,) = torch.autograd.grad(squared(x).sum(), x, create_graph=True)
    assert first.tolist() == [2, 6]
    with pytest.raises(MissingGradientError, match="looks at data, so it has no gradient"):
        torch.autograd.grad((first * x).sum(), x)


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "all": lambda o, x: o.__setitem__(..., x),
    "part": lambda o, x: o[0:1].__setitem__(..., x[:1]),
    "chosen": lambda o, x: o.__setitem__([0, 1], x),
    "copy_": lambda o, x: o.copy_(x),
    "add_": lambda o, x: o.add_(x),
}


@pytest.mark.parametrize("name", WRITES)
def test_recorded_values_are_not_written_into_numpy(name: str) -> None:
    """S134: the array of NumPy would be a constant to PyTorch; one of integers is one."""
    x, write = from_array(leaf(1.0, 2.0)), WRITES[name]
    with pytest.raises(MutationError, match="gradients do not cross"):
        write(polyop.zeros(2), x)
    whole = polyop.zeros(2, dtype=polyop.int64)
    if name != "add_":
        write(whole, x)
        assert whole[0].item() == 1
    with torch.no_grad():
        write(polyop.zeros(2), x)
    write(polyop.zeros_like(x), x)


# -- batches of gradients -------------------------------------------------------------------------

SHARES: dict[str, Callable[[Any], Any]] = {
    "broadcast_to": lambda g: polyop.broadcast_to(g[..., None], (2, 3)) * 1,
    "concat": lambda g: polyop.concat([g[..., None]] * 3, axis=-1),
    "repeat": lambda g: polyop.repeat(g[..., None], 3, axis=-1),
}


@pytest.mark.parametrize("name", SHARES)
def test_gradients_in_batches_are_those_of_a_loop(name: str) -> None:
    """S66: `vectorize=True` gives the same jacobian, by PyTorch's batches of the older kind."""
    share = SHARES[name]

    @polyop.custom_op(f"recorded::rows_{name}", mutates_args=())
    def rows(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy().sum(-1))

    rows.register_fake(lambda x: x.new_empty(x.shape[:1]))
    rows.register_autograd(lambda ctx, g: share(g))
    x = torch.rand(2, 3)
    wanted = torch.autograd.functional.jacobian(rows, x)
    found = torch.autograd.functional.jacobian(rows, x, vectorize=True)
    assert torch.equal(found, wanted)

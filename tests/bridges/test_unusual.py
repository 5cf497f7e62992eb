"""Unusual tensors, writes and nestings: each answer is right, or an error by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo
from tests.bridges import hostile
from tests.bridges.hostile import WAYS, add, compiled, made, product, sin, text_of, ways
from tests.bridges.marks import EVERYWHERE

import polyop
from polyop.errors import ArgumentError, MutationError, PolyopError

pytestmark = EVERYWHERE
Z = np.array([0.5, 1.0, 1.5], np.float32)
forward_ad: Any = torch.autograd.forward_ad  # without types


# -- layouts and dtypes, on the read side ---------------------------------------------------------

LAYOUTS = {
    "no axes": torch.tensor(0.5),
    "no elements": torch.empty(0, 3),
    "transposed": torch.rand(3, 4).t(),
    "steps": torch.rand(8)[1::3],
    "repeated": torch.rand(3, 1).expand(3, 5),
    "offset": torch.rand(10)[3:].reshape(7),
    "bfloat16": torch.rand(4).bfloat16(),
    "float16": torch.rand(4).half(),
    "float8": torch.rand(4).to(torch.float8_e4m3fn),
    "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "inference": torch.inference_mode()(torch.rand)(3),
    "parameter": torch.nn.Parameter(torch.rand(3)),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("way", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_elements_are_read_as_they_are(name: str, way: Any) -> None:
    """S66: whatever the layout and dtype, the kernel gets the elements, and the result is new."""
    x = LAYOUTS[name].detach()
    before = x.clone()
    found = way(sin)(x)
    wide = x.to(torch.float32) if x.dtype is torch.float8_e4m3fn else x
    wanted = torch.sin(wide).to(x.dtype)
    assert found.dtype is x.dtype and found.shape == x.shape and found.is_contiguous()
    torch.testing.assert_close(found.to(wanted.dtype).resolve_conj(), wanted)
    torch.testing.assert_close(x.to(torch.complex64), before.to(torch.complex64))


def test_jax_widths() -> None:
    """S66: at JAX's 32 bits wide results come narrow, in eager and compiled code, and are right."""
    wide = made(
        "wide", lambda x: polyop.from_numpy(x.numpy().astype(np.float64) / 3),
        fake=lambda x: polyop.empty(x.shape, dtype=polyop.float64),
    )  # fmt: skip
    for run in (wide, jax.jit(wide)):
        assert run(jnp.asarray(Z)).dtype == jnp.float32
        np.testing.assert_allclose(run(jnp.asarray(Z)), Z / 3, rtol=1e-6)
    with jax.enable_x64(True):
        for run in (wide, jax.jit(lambda x: wide(x))):
            np.testing.assert_allclose(run(jnp.asarray(Z)), Z.astype(np.float64) / 3, rtol=1e-15)


@pytest.mark.parametrize(
    "make",
    [lambda x: x.to_sparse(), lambda x: x.to_mkldnn(), lambda x: x.reshape(1, 3).to_sparse_csr()],
)
def test_tensors_without_strides_are_refused(make: Any) -> None:
    """S66: a tensor whose elements do not lie in memory is refused, and never read wrongly."""
    with pytest.raises((TypeError, PolyopError)):
        sin(make(torch.tensor(Z)))


def test_tensors_on_the_device_meta() -> None:
    """S143: without data the fake rule answers; nothing runs."""
    found = hostile.raises(torch.ones(3, device="meta"))
    assert found.device.type == "meta" and found.shape == (3,)


# -- writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_views_are_written_through(way: Any) -> None:
    """S174: a view that is written changes its base, whatever its strides."""
    for take in (
        lambda b: b[1],
        lambda b: b.t()[1],
        lambda b: b[:, ::2][0],
        lambda b: b.flatten()[2:5],
    ):
        base, wanted = torch.zeros(4, 4), torch.zeros(4, 4)
        take(wanted).add_(torch.ones(take(wanted).shape))

        def run(b: Any, take: Any = take) -> Any:
            add(torch.ones(take(b).shape), take(b))
            return b * 1

        torch.testing.assert_close(way(run)(base), wanted)
        torch.testing.assert_close(base, wanted)


def test_a_view_that_runs_into_itself() -> None:
    """S174: written parts that overlap what is read give what NumPy gives."""
    x, wanted = torch.arange(5.0), np.arange(5.0)
    add(x[:-1], x[1:])
    wanted[1:] += wanted[:-1].copy()
    np.testing.assert_array_equal(x, wanted)


def test_an_expanded_tensor_is_not_written() -> None:
    """S174: where elements share memory a write has no meaning; PyTorch's own writes refuse."""
    with pytest.raises(MutationError, match="hostile::add writes a tensor whose elements share"):
        add(torch.ones(2, 3), torch.zeros(1, 3).expand(2, 3))
    add(torch.ones(1, 3), torch.zeros(1, 3).expand(1, 3))


def test_a_conjugate_view_is_written() -> None:
    """S174: a write through a conjugate view changes the base."""
    base = torch.tensor([1 + 2j])
    add(torch.tensor([1j]), base.conj())
    torch.testing.assert_close(base, torch.tensor([1 + 1j]))


@pytest.mark.parametrize("needs", ["x", "out"])
def test_writes_that_a_gradient_would_not_see_are_refused(needs: str) -> None:
    """S66: with a gradient asked for, in forward mode too, a write is refused by name."""
    x, out = torch.ones(3), torch.zeros(3)
    (x if needs == "x" else out).requires_grad_()
    with pytest.raises(MutationError, match="hostile::add writes out"):
        add(x, out)
    with pytest.raises(MutationError, match="hostile::add writes out"):
        torch.func.grad(lambda v: (add(v, v * 1), v.sum())[1])(torch.ones(3))
    with forward_ad.dual_level(), pytest.raises(MutationError, match="hostile::add"):
        add(forward_ad.make_dual(torch.ones(3), torch.ones(3)), torch.zeros(3))
    with torch.no_grad():
        add(x, out)
    torch.testing.assert_close(out.detach(), torch.ones(3))


def test_a_write_that_a_gradient_would_not_see_in_a_compiled_region() -> None:
    """S66: PyTorch's compiler says which operator is refused."""
    with pytest.raises(Exception) as error:  # noqa: PT011
        compiled(lambda x, out: (add(x, out), out * 1)[1])(
            torch.ones(3, requires_grad=True), torch.zeros(3)
        )
    assert "hostile::add" in text_of(error.value)


def test_saved_tensors_that_are_written_are_noticed() -> None:
    """S66: a tensor that backward needs, written by an operator of ours, is PyTorch's error."""
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    out = product(w, x)
    add(torch.ones(3), x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    leaf = torch.zeros(2, 3, requires_grad=True)
    squares = (leaf * leaf).sum()
    with torch.no_grad():
        add(torch.ones(3), leaf[0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares.backward()


@ways([w for w in WAYS if w[0].startswith("jax")])
def test_arrays_of_jax_are_not_written(way: Any, convert: Any) -> None:
    """S66: a plain array that would be written is refused; the functional twin gives the value."""
    x = convert(Z)
    with pytest.raises(ArgumentError, match=r"arrays of JAX are never.*\n(.*\n)*.*functional"):
        way(lambda x: (add(x, x), x)[1])(x)
    np.testing.assert_allclose(way(lambda x: add.functional(x, x))(x), 2 * Z)
    np.testing.assert_array_equal(x, Z)


# -- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_modes_of_pytorch(way: Any) -> None:
    """S117: without gradients nothing is recorded, and what inference made is read and written."""
    w = torch.tensor(Z, requires_grad=True)
    with torch.no_grad():
        assert not way(sin)(w).requires_grad
    with torch.inference_mode():
        made, out = way(sin)(w), torch.zeros(3)
        assert made.is_inference()
        way(lambda x, o: (add(x, o), o * 1)[1])(made, out)
        torch.testing.assert_close(out, torch.sin(torch.tensor(Z)))
    torch.testing.assert_close(sin(made), torch.sin(torch.sin(torch.tensor(Z))))
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        product(w, made)


def test_set_to_none_and_detached() -> None:
    """S117: detached arguments get no gradient, the others do."""
    w, v = torch.tensor(Z, requires_grad=True), torch.tensor(Z, requires_grad=True)
    product(w, v.detach()).sum().backward()
    assert v.grad is None and w.grad is not None
    torch.testing.assert_close(w.grad, torch.tensor(Z))


# -- forward mode through an operator's own rules -----------------------------------------------

exp = made(
    "exp",
    lambda x: polyop.from_numpy(np.asarray(np.exp(x.numpy()))),
    setup=hostile.keep,
    backward=lambda ctx, g: g * exp(ctx.saved_tensors[0]),
)
FORWARD = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,))[1],
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "hessian": lambda f, x: torch.func.hessian(lambda y: f(y).sum())(x),
    "jvp of grad": lambda f, x: torch.func.jvp(torch.func.grad(lambda y: f(y).sum()), (x,), (x,))[
        1
    ],
    "grad of jvp": lambda f, x: torch.func.grad(lambda y: torch.func.jvp(f, (y,), (y,))[1].sum())(
        x
    ),
    "vmap of jvp": lambda f, x: torch.vmap(lambda y: torch.func.jvp(f, (y,), (y,))[1])(x),
    "jvp of vmap": lambda f, x: torch.func.jvp(torch.vmap(f), (x,), (x,))[1],
}


@pytest.mark.parametrize("name", FORWARD)
def test_an_operator_that_is_its_own_gradient_in_forward_mode(name: str) -> None:
    """S132: the transpose of a backward that calls the operator again ends, and is right."""
    x = torch.tensor(Z)
    torch.testing.assert_close(FORWARD[name](exp, x), FORWARD[name](torch.exp, x))


REVERSE = {
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jacrev of jacrev": lambda f, x: torch.func.jacrev(torch.func.jacrev(f))(x),
    "vmap of grad": lambda f, x: torch.vmap(torch.func.grad(lambda y: f(y).sum()))(x),
    "grad of vmap": lambda f, x: torch.func.grad(lambda y: torch.vmap(f)(y).sum())(x),
    "captured": lambda f, x: torch.func.grad(
        lambda y: torch.func.grad(lambda z: (f(y) * f(z)).sum())(x).sum()
    )(x),
}


@pytest.mark.parametrize("name", REVERSE)
def test_an_operator_that_is_its_own_gradient_in_reverse_mode(name: str) -> None:
    """S132: in nested transforms its gradient is PyTorch's own."""
    x = torch.tensor(Z)
    torch.testing.assert_close(REVERSE[name](exp, x), REVERSE[name](torch.exp, x))


@pytest.mark.parametrize("compose", [jax.jacfwd, jax.jacrev, jax.hessian])
def test_an_operator_that_is_its_own_gradient_in_jax(compose: Any) -> None:
    """S132: JAX's compositions of it are those of its own function."""
    x = jnp.asarray(Z)
    np.testing.assert_allclose(compose(exp)(x), compose(jnp.exp)(x), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(compose(exp))(x), compose(jnp.exp)(x), rtol=1e-5)

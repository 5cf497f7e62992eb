"""The parts of complex numbers: views whose writes are the base's, and `complex` (S139, S144)."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_strict
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import func
from polyop.errors import ArgumentError, AutogradError, MutationError
from polyop.graph import make_fx

Z = np.array([[1 + 2j, 3 - 1j], [0.5 + 1j, 2 - 2j]])
LIBRARIES = {
    "numpy": lambda a: polyop.from_numpy(a.copy()),
    "torch": lambda a: polyop.from_array(torch.tensor(a)),
    "jax": lambda a: polyop.from_array(jnp.asarray(a)),
    "dask": lambda a: polyop.from_array(da.from_array(a, chunks=1)),
    "strict": lambda a: polyop.from_array(array_api_strict.asarray(a)),
}


def written(z: Any) -> Any:
    """Write to parts of a copy, and to views of parts."""
    w = z * 1
    w.imag *= 3.0
    w.real[0] = w.imag[1] * 5
    w.real += 1.0
    w.T.imag[0] = 2.0
    w.imag = w.imag.clone() * w.real
    return w


def by_numpy(z: Any) -> Any:
    """The same in NumPy, where the parts are views."""
    w = z * 1
    w.imag *= 3.0
    w.real[0] = w.imag[1] * 5
    w.real += 1.0
    w.T.imag[0] = 2.0
    w.imag = w.imag * w.real
    return w


def loss(z: Any) -> Any:
    """A real number of what was written."""
    w = written(z)
    return polyop.sum(w.real * w.imag) + polyop.sum(polyop.real(w * w))


@pytest.mark.parametrize("library", LIBRARIES)
def test_writes_to_parts_are_writes_to_the_base(library: str) -> None:
    """Each library's tensor is what NumPy's array is, infinite parts too."""
    z = np.where(Z == Z[1, 1], complex(np.inf, 1.0), Z)
    made = LIBRARIES[library](z)
    with np.errstate(invalid="ignore"):
        found = np.asarray(written(made).numpy())
        want = by_numpy(z).astype(found.dtype)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    np.testing.assert_array_equal(made.numpy(), z)


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "jax"])
def test_derivatives_through_parts(library: str) -> None:
    """Both modes, alone and batched, beside finite differences."""
    z, t = LIBRARIES[library](Z), np.full(Z.shape, 1 + 0.5j)
    step = 1e-6 * t
    up, down = (float(loss(LIBRARIES[library](Z + s)).numpy()) for s in (step, -step))
    want = (up - down) / 2e-6
    gradient = func.grad(loss)(z).numpy()
    assert (gradient.conj() * t).real.sum() == pytest.approx(want, rel=1e-6)
    _, tangent = func.jvp(loss, (z,), (LIBRARIES[library](t),))
    assert float(tangent.numpy()) == pytest.approx(want, rel=1e-6)
    both = polyop.stack([z, z * 2], axis=1)
    batched = func.vmap(func.grad(loss), in_dims=1)(both).numpy()
    np.testing.assert_allclose(batched[0], gradient)
    np.testing.assert_allclose(batched[1], func.grad(loss)(z * 2).numpy())


def test_backward_is_that_of_pytorch() -> None:
    """Recorded writes to parts, and what they refuse."""

    def program(z: Any) -> Any:
        w = z * 2
        w.imag.mul_(3)
        w.imag[0] = w.real[0] * 5
        return (w.real * w.imag).sum()

    ours = polyop.from_numpy(Z.copy()).requires_grad_()
    theirs = torch.tensor(Z, requires_grad=True)
    program(ours).backward()
    program(theirs).backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy())
    w = ours * 1
    product = w.imag * w.real
    w.imag.copy_(product)
    with pytest.raises(AutogradError, match="was written after it was saved"):
        product.sum().backward()


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_traces_of_written_parts(mode: str) -> None:
    """A trace, a compiled function and functionalization write as eager calls do."""
    z, other = polyop.from_numpy(Z.copy()), polyop.from_numpy(Z * (2 - 1j))
    want = written(other).numpy()
    for made in (make_fx(written, mode)(z), polyop.compile(written), func.functionalize(written)):
        np.testing.assert_allclose(made(other).numpy(), want)


def test_parts_share_memory_and_fakes_say_so() -> None:
    """Strides count the parts; real numbers are their own real part, and have no other."""
    x = polyop.from_numpy(Z.copy())
    for part, array in ((x.real, x.numpy().real), (x.imag.T, x.numpy().imag.T)):
        assert np.shares_memory(part.numpy(), x.numpy())
        assert part.stride() == tuple(s // 8 for s in array.strides)
    with polyop.fake.FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        assert (fake.imag.T.stride(), fake.imag.dtype) == ((2, 4), polyop.float64)
    real = polyop.ones(2)
    assert real.real is real
    assert real.imag.tolist() == [0.0, 0.0]
    with pytest.raises(MutationError, match="no imaginary part that could be set"):
        real.imag = 1.0
    with pytest.raises(ArgumentError, match="only complex numbers"):
        polyop.ops.core.imag_part(real)


def test_complex_puts_parts_together() -> None:
    """Infinite parts stay alone; parts of other dtypes are refused, on fakes too."""
    re, im = polyop.tensor([[1.0], [np.inf]]), polyop.tensor([np.inf, -0.0])
    want = torch.complex(torch.tensor(re.numpy()), torch.tensor(im.numpy())).numpy()
    found = polyop.complex(re, im).numpy()
    np.testing.assert_array_equal(found.view("f4"), want.view("f4"))
    for kind in ("int64", "float16"):
        with pytest.raises(ArgumentError, match=f"no complex numbers of {kind}"):
            polyop.complex(polyop.ones(2, dtype=kind), polyop.ones(2, dtype=kind))
    hessian = func.hessian(lambda x: polyop.sum(polyop.abs(polyop.complex(x, x * x)) ** 2))
    x = polyop.tensor([1.0, 2.0], dtype=polyop.float64)
    np.testing.assert_allclose(hessian(x).numpy(), np.diag(2 + 12 * x.numpy() ** 2), atol=1e-9)


def test_dask_tasks_grow_by_a_step() -> None:
    """A task on whole arrays does not copy the tasks before it, which would double each time."""
    tasks = []
    for steps in (3, 6, 9):
        w = polyop.from_array(da.from_array(np.ones((2, 2)), chunks=1)) * 1
        for _ in range(steps):
            w.T[0].mul_(3.0)
        tasks.append(len(polyop.to_array(w).dask))
    assert tasks[2] - tasks[1] == tasks[1] - tasks[0]


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_lost_imaginary_parts_are_told(library: str, kind: str) -> None:
    """Complex numbers written to real ones warn as in NumPy; real ones do not."""
    ones = polyop.ones(2, dtype=kind)
    if library != "numpy":
        like = (
            torch.ones(2, dtype=getattr(torch, kind)) if library == "torch" else jnp.ones(2, kind)
        )
        ones = polyop.from_array(like)
    z = polyop.tensor([1 + 2j, 3 - 1j])
    for write in (
        lambda: ones.copy_(z),
        lambda: ones.__setitem__([0, 1], z),
        lambda: ones.__setitem__(slice(None), z),
    ):
        with pytest.warns(np.exceptions.ComplexWarning, match="imaginary part"):
            write()
        assert ones.tolist() == [1, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ones.copy_(polyop.real(z))
        ones.to(polyop.bool).copy_(z)


@pytest.mark.parametrize("kind", [">c16", "<c8", "longcomplex"])
def test_parts_of_every_complex_dtype(kind: str) -> None:
    """The parts keep the order of bytes and the width, on fakes too; so do their gradients."""
    array = Z.astype(np.clongdouble if kind == "longcomplex" else kind)
    x = polyop.from_numpy(array)
    with polyop.fake.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x).real, mode.from_tensor(x).imag]
    for part, fake, own in zip((x.real, x.imag), fakes, (array.real, array.imag), strict=True):
        assert part.dtype == own.dtype == fake.dtype
        np.testing.assert_array_equal(part.numpy(), own)
    gradient = func.grad(lambda t: polyop.sum(t.real * t.imag))(x).numpy()
    np.testing.assert_allclose(gradient.astype("c16"), Z.imag + 1j * Z.real)
    np.testing.assert_array_equal(polyop.complex(x.real, x.imag).numpy(), array)

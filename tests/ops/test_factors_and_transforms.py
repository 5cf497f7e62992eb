"""Gradients of factors and Fourier transforms, first and second, and through other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import fft, func, linalg
from polyop.autograd import grad
from polyop.errors import ArgumentError, AutogradError, PolyopError
from polyop.layers.trace import make_fx

Fn = Callable[..., Any]


def noise(shape: tuple[int, ...], kind: str = "real", seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if kind == "complex" else x


def total(outs: Any) -> Any:
    """Weigh all elements of all results, and sum the real parts."""
    result: Any = 0
    for i, o in enumerate(outs if isinstance(outs, list | tuple) else [outs]):
        w = noise(o.shape, "complex" if o.dtype.kind == "c" else "real", 10 + i)
        result = result + polyop.sum(polyop.real(o * polyop.from_numpy(np.asarray(w))))
    return result


def check_gradient(fn: Fn, x: Any) -> None:
    """Both backwards, on arrays and on tensors, agree with differences along some directions."""
    leaf = polyop.from_numpy(x.copy()).requires_grad_()
    (bare,) = grad(total(fn(leaf)), [leaf])
    (whole,) = grad(total(fn(leaf)), [leaf], create_graph=True)
    np.testing.assert_allclose(whole.numpy(force=True), bare.numpy(), rtol=1e-9, atol=1e-10)
    for seed in range(2, 5):
        d = noise(x.shape, "complex" if x.dtype.kind == "c" else "real", seed)
        ends = [total(fn(polyop.from_numpy(x + s * d))).item() for s in (1e-6, -1e-6)]
        along = np.vdot(bare.numpy(), d).real
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-6, rtol=3e-5, atol=3e-6)


def unturned_svd(x: Any) -> Any:
    """What no phase changes of the factors."""
    u, s, vh = linalg.svd(x, full_matrices=False)
    weights = polyop.arange(u.shape[-1], dtype=polyop.float64) + 1.0
    return (u * weights) @ vh, polyop.abs(u), polyop.abs(vh), s


def unturned_eigh(x: Any) -> Any:
    w, v = linalg.eigh(x)
    weights = polyop.arange(v.shape[-1], dtype=polyop.float64) + 1.0
    return w, polyop.abs(v), (v * weights) @ polyop.conj(v.mT)


FACTORS: dict[str, Fn] = {
    "svd": unturned_svd,
    "qr": linalg.qr,
    "nuc": lambda x: linalg.matrix_norm(x, ord="nuc"),
    **{f"norm{o}": lambda x, o=o: linalg.matrix_norm(x, ord=o) for o in (2, -2, 1, np.inf)},
}
SQUARE: dict[str, Fn] = {
    "eigh": unturned_eigh,
    "slogdet": linalg.slogdet,
    "full svd": lambda x: linalg.svd(x).S,
    "complete qr": lambda x: linalg.qr(x, mode="complete"),
    "cross": lambda x: linalg.cross(x, x * x),
    **{f"power{n}": lambda x, n=n: linalg.matrix_power(x, n) for n in (-2, 1, 3)},
}


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", FACTORS)
def test_gradients_of_factors(name: str, kind: str) -> None:
    """S139: factors of tall, wide, square and stacked matrices have the gradients of differences.

    Real and complex; of what does not depend on a phase.
    """
    for shape in ((3, 3), (4, 2), (2, 4), (2, 3, 4)):
        check_gradient(FACTORS[name], noise(shape, kind))


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", SQUARE)
def test_gradients_of_square_matrices(name: str, kind: str) -> None:
    """S139: so do functions of square matrices."""
    for shape in ((3, 3), (2, 3, 3)):
        check_gradient(SQUARE[name], noise(shape, kind))


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_gradients_of_transforms(name: str) -> None:
    """S139: transforms that are cut, filled up and scaled have the gradients of differences."""
    fn = getattr(fft, name)
    for kind in ("real",) if name in {"rfft", "ihfft"} else ("real", "complex"):
        for n in (None, 3, 4, 7):
            for norm in ("backward", "ortho", "forward"):
                check_gradient(lambda x, n=n, norm=norm: fn(x, n=n, axis=0, norm=norm),
                               noise((4, 3), kind))  # fmt: skip


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_gradients_of_transforms_along_axes(name: str) -> None:
    """S139: and those along several axes."""
    for kind in ("real",) if name == "rfftn" else ("real", "complex"):
        check_gradient(lambda x: getattr(fft, name)(x, s=(3, 4), axes=(0, 2)),
                       noise((4, 2, 5), kind))  # fmt: skip


SECOND: dict[str, tuple[Fn, Fn]] = {
    "svd": (lambda x: linalg.svd(x, full_matrices=False).U ** 2,
            lambda x: torch.linalg.svd(x, full_matrices=False).U ** 2),
    "qr": (lambda x: linalg.qr(x).R, lambda x: torch.linalg.qr(x).R),
    "eigh": (lambda x: linalg.eigh(x + x.mT).eigenvectors ** 2,
             lambda x: torch.linalg.eigh(x + x.mT).eigenvectors ** 2),
    "slogdet": (lambda x: linalg.slogdet(x).logabsdet, lambda x: torch.linalg.slogdet(x).logabsdet),
    "pinv": (linalg.pinv, torch.linalg.pinv),
    "rfft": (lambda x: polyop.abs(fft.rfft(x**2)), lambda x: torch.fft.rfft(x**2).abs()),
    "irfft": (lambda x: fft.irfft(x**2, n=5), lambda x: torch.fft.irfft(x**2, n=5)),
    "diff": (lambda x: polyop.diff(x**3, n=2), lambda x: torch.diff(x**3, n=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_first_and_second_gradients_are_pytorchs(name: str) -> None:
    """S133: first and second gradients are PyTorch's."""
    ours, theirs = SECOND[name]
    x = noise((3, 3))
    a, b = polyop.from_numpy(x.copy()).requires_grad_(), torch.tensor(x, requires_grad=True)
    w = np.asarray(noise(tuple(theirs(b).shape), seed=4))
    (g,) = grad((ours(a) * polyop.from_numpy(w)).sum(), [a], create_graph=True)
    (e,) = torch.autograd.grad((theirs(b) * torch.tensor(w)).sum(), [b], create_graph=True)
    np.testing.assert_allclose(g.numpy(force=True), e.detach().numpy(), rtol=1e-8, atol=1e-9)
    (gg,) = grad((g * g).sum(), [a])
    (ee,) = torch.autograd.grad((e * e).sum(), [b])
    np.testing.assert_allclose(gg.numpy(), ee.numpy(), rtol=1e-6, atol=1e-7)


LAYERED: dict[str, Fn] = {
    **{n: getattr(linalg, n) for n in ("svd", "svdvals", "qr", "slogdet", "pinv", "matrix_rank")},
    "eigh": lambda x: linalg.eigh(x),
    "cross": lambda x: linalg.cross(x, x[:1]),
    "norm": lambda x: linalg.matrix_norm(x, ord="nuc"),
    "power": lambda x: linalg.matrix_power(x, 3),
    **{n: getattr(fft, n) for n in ("fft", "ifftn", "rfft", "irfft", "hfft", "rfftn", "fftshift")},
    "irfftn": lambda x: fft.irfftn(x, s=(4, 5)),
    "diff": lambda x: polyop.diff(x, n=2),
    "isin": lambda x: polyop.isin(x, x[0]),
    "rank": lambda x: linalg.matrix_rank(x, rtol=0.2),
}


def arrays(found: Any) -> list[Any]:
    return [f.numpy() for f in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize("name", LAYERED)
def test_a_batch_is_a_loop(name: str) -> None:
    """S155: under vmap, along any axis, each gives what a loop gives."""
    x = polyop.from_numpy(noise((3, 3, 3)))
    for dim in (0, 1, 2):
        found = arrays(polyop.vmap(LAYERED[name], in_dims=dim)(x))
        for i in range(3):
            wanted = arrays(LAYERED[name](polyop.select(x, dim, i)))
            for f, w in zip(found, wanted, strict=True):
                np.testing.assert_allclose(f[i], w, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", LAYERED)
def test_a_trace_computes_the_same(name: str, mode: str) -> None:
    """S175: a traced call, with known or symbolic sizes, computes what the call computes."""
    x = polyop.from_numpy(noise((3, 3)))
    module = make_fx(LAYERED[name], mode)(x)
    other = polyop.from_numpy(noise((3, 3), seed=3))
    for f, w in zip(arrays(module(other)), arrays(LAYERED[name](other)), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-9, atol=1e-11)


# -- where there is no gradient ------------------------------------------------------------------


def test_what_depends_on_a_phase_has_no_gradient() -> None:
    """A function of complex vectors' phases is refused, as PyTorch refuses it."""
    x = polyop.from_numpy(noise((3, 3), "complex")).requires_grad_()
    for factors in (linalg.svd(x).U, linalg.eigh(x).eigenvectors):
        with pytest.raises(AutogradError, match="phases"):
            grad(total(factors), [x])


def test_undetermined_vectors_have_no_gradient() -> None:
    """Vectors that the matrix does not determine are refused in a gradient, by name."""
    x = polyop.from_numpy(noise((4, 2))).requires_grad_()
    with pytest.raises(AutogradError, match="full_matrices=False"):
        grad(linalg.svd(x).U.sum(), [x])
    with pytest.raises(AutogradError, match="reduced"):
        grad(linalg.qr(x, mode="complete").Q.sum(), [x])


def test_equal_singular_values_have_gradients() -> None:
    """Singular values and eigenvalues that meet have gradients; only vectors have none."""
    x = polyop.from_numpy(np.eye(3)).requires_grad_()
    for fn in (linalg.svdvals, linalg.eigvalsh, lambda x: linalg.svd(x).S):
        (g,) = grad(fn(x).sum(), [x])
        np.testing.assert_allclose(g.numpy(), np.eye(3), atol=1e-12)
        with np.errstate(all="ignore"):
            slope = func.jvp(lambda x, fn=fn: fn(x).sum(), (x.detach(),), (x.detach(),))[1]
        assert slope.item() == 3


def put_together(power: int) -> Fn:
    """Give an odd power of the singular values, between their vectors: it is smooth."""

    def fn(x: Any) -> Any:
        u, s, vh = linalg.svd(x, full_matrices=False)
        return (u * s[..., None, :] ** power) @ vh

    return fn


def eigen_cube(x: Any) -> Any:
    w, v = linalg.eigh(x)
    return (v * w[..., None, :] ** 3) @ polyop.conj(v.mT)


MEETING: dict[str, Any] = {
    "ones": np.eye(2), "zeros": np.zeros((2, 2)), "turned": np.array([[0, 2], [-2, 0]]) * 1j,
    "tall": np.eye(3)[:, :2], "two of three": np.diag([3.0, 1, 1]), "column": np.zeros((2, 1)),
    "stack": np.stack([np.diag([2.0, 1]), np.eye(2)]),
}  # fmt: skip


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("name", MEETING)
def test_vectors_of_equal_values_have_no_wrong_gradient(name: str, power: int) -> None:
    """S132: where vectors have no derivative, none comes out finite and wrong, in either mode."""
    x, fns = polyop.from_numpy(MEETING[name]), [put_together(power)]
    fns += [eigen_cube] if x.shape[-1] == x.shape[-2] and name != "turned" else []
    for fn in fns:
        d = noise(x.shape, "complex" if x.dtype.kind == "c" else "real")
        ends = [fn(x + s * d).numpy() for s in (1e-6, -1e-6)]
        wanted = (ends[0] - ends[1]) / 2e-6
        with np.errstate(all="ignore"):
            forward = func.jvp(fn, (x,), (polyop.from_numpy(d),))[1].numpy()
            weights = polyop.from_numpy(np.ones_like(d))
            back = func.vjp(fn, x)[1](weights)[0].numpy()
        right = np.isclose(forward, wanted, atol=1e-5)
        assert (right | ~np.isfinite(forward)).all()
        along = np.vdot(back, d).real
        assert not np.isfinite(along) or np.isclose(along, wanted.sum().real, atol=1e-5)


@pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev])
@pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev])
def test_second_derivatives_at_equal_values_are_not_wrong(inner: Fn, outer: Fn) -> None:
    """S133: the squares' sum of singular values has the second derivatives 2, or says none."""
    for x in (np.eye(3), np.zeros((2, 2)), np.zeros((2, 1)), np.eye(3)[:, :2]):
        with np.errstate(all="ignore"):
            found = outer(inner(lambda x: (linalg.svdvals(x) ** 2).sum()))(polyop.from_numpy(x))
        found = found.numpy().reshape(x.size, x.size)
        assert (np.isclose(found, 2 * np.eye(x.size)) | ~np.isfinite(found)).all()


def test_singular_matrices_have_no_logarithm() -> None:
    """The logarithm of a determinant that is zero is minus infinity, and has no gradient."""
    x = polyop.from_numpy(np.zeros((2, 2))).requires_grad_()
    found = linalg.slogdet(x)
    assert found.logabsdet.item() == -np.inf and found.sign.item() == 0
    with pytest.raises(ArgumentError, match=r"[Ss]ingular"):
        grad(found.logabsdet, [x])


def test_no_elements() -> None:
    """Matrices without elements have factors; transforms of nothing are refused."""
    x = polyop.zeros((2, 0, 3))
    assert linalg.svdvals(x).shape == (2, 0)
    assert linalg.pinv(x).shape == (2, 3, 0)
    assert linalg.matrix_rank(x).tolist() == [0, 0]
    for call in (lambda: fft.fft(polyop.zeros(0)), lambda: fft.rfft(polyop.zeros(0))):
        with pytest.raises(PolyopError, match="at least one"):
            call()

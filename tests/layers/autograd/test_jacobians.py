"""The forward transforms: what they take and give, Jacobians, Hessians and `linearize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop.errors import (
    PolyopError,
    UsageError,
    UsageTypeError,
)
from polyop.func import hessian, jacfwd, jacrev, jvp, linearize
from polyop.tensor.tensor import Tensor, of_array

#: PyTorch's own jvp brings in what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
A = np.random.default_rng(0).normal(size=(3, 4))
X, T = np.array([0.3, 0.7, -0.2]), np.array([1.0, 2.0, 3.0])


def ours(x: Tensor) -> Tensor:
    """Compute something that is neither linear nor elementwise."""
    return x.sin() * (x * x).sum()


def theirs(x: Any) -> Any:
    """Compute the same by PyTorch."""
    return x.sin() * (x * x).sum()


def test_trees_and_aux() -> None:
    """S134: inputs and results are trees; aux is handed on unwrapped; unused inputs are fine."""
    x, t = of_array(X), of_array(T)
    f = lambda p, q: ({"sum": p["a"] + q}, p["a"] * 2)  # noqa: E731
    out, d, aux = jvp(f, ({"a": x}, x), ({"a": t}, t), has_aux=True)
    assert d["sum"].tolist() == (2 * T).tolist()
    assert out["sum"].tolist() == (2 * X).tolist()
    assert (aux + 1).tolist() == (2 * X + 1).tolist()
    assert jvp(lambda x: polyop.ones(2), (x,), (t,))[1].tolist() == [0, 0]


MISTAKES: dict[str, tuple[Callable[[], Any], type[PolyopError], str]] = {
    "no tuple": (lambda: jvp(ours, of_array(X), of_array(T)), UsageTypeError, "is a tuple"),
    "no primals": (lambda: jvp(ours, (), ()), UsageTypeError, "an empty tuple"),
    "structure": (
        lambda: jvp(ours, (of_array(X),), ([of_array(T)],)), UsageError, "another structure",
    ),
    "shape": (
        lambda: jvp(ours, (of_array(X),), (of_array(T[:2]),)), UsageError, r"float64\(2,\)",
    ),
    "dtype": (
        lambda: jvp(ours, (of_array(X),), (of_array(T.astype("f4")),)), UsageError, "float32",
    ),
    "no tensor": (lambda: jvp(ours, (1.0,), (1.0,)), UsageTypeError, "float"),
    "integers": (
        lambda: jvp(ours, (polyop.arange(3),), (polyop.arange(3),)), UsageTypeError, "int64",
    ),
    "result": (
        lambda: jvp(lambda x: 3.0, (of_array(X),), (of_array(T),)), UsageTypeError, "result 0",
    ),
    "aux": (
        lambda: jvp(ours, (of_array(X),), (of_array(T),), has_aux=True), UsageError, "aux",
    ),
    "argnums": (lambda: jacfwd(ours, 1)(of_array(X)), UsageError, "argnums 1 does not fit"),
    "jacfwd of integers": (lambda: jacfwd(ours)(polyop.arange(3)), UsageTypeError, "int64"),
    "jacfwd of a number": (lambda: jacfwd(ours)(1.0), UsageTypeError, "float"),
    "jacrev of integers": (lambda: jacrev(ours)(polyop.arange(3)), UsageTypeError, "int64"),
    "jacrev result": (lambda: jacrev(lambda x: 3.0)(of_array(X)), UsageTypeError, "result 0"),
    "linearize": (
        lambda: linearize(ours, of_array(X))[1](of_array(T[:2])), UsageError, "does not fit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    """S134: inputs that have no derivative, and tangents that do not fit, are refused by name."""
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("ours_jac", [jacfwd, jacrev])
def test_jacobians(ours_jac: Any) -> None:
    """S134: both Jacobians are PyTorch's, for several arguments, trees of results, and aux."""
    theirs_jac = {jacfwd: torch.func.jacfwd, jacrev: torch.func.jacrev}[ours_jac]
    f = lambda a, b: {"u": a.sum() * b, "v": (a * b[:, None],)}  # noqa: E731
    a, b = A, X
    found = ours_jac(f, (0, 1))(of_array(a), of_array(b))
    expected = theirs_jac(f, (0, 1))(torch.tensor(a), torch.tensor(b))
    for i in (0, 1):
        np.testing.assert_allclose(found["u"][i].numpy(), expected["u"][i].numpy())
        np.testing.assert_allclose(found["v"][0][i].numpy(), expected["v"][0][i].numpy())
    one, aux = ours_jac(lambda a: (a * a, a.sum()), has_aux=True)(of_array(b))
    np.testing.assert_allclose(one.numpy(), np.diag(2 * b))
    assert aux.item() == pytest.approx(b.sum())
    chunked = ours_jac(ours, chunk_size=2)(of_array(b))
    np.testing.assert_allclose(chunked.numpy(), theirs_jac(theirs)(torch.tensor(b)).numpy())
    empty = ours_jac(lambda a: a * 2)(of_array(np.zeros((0, 2))))
    assert tuple(empty.shape) == (0, 2, 0, 2)


def test_hessian() -> None:
    """S134: the Hessian is PyTorch's, for a tuple of arguments too."""
    f = lambda a, b: (a.sin() * b.sum() + b * b * a).sum()  # noqa: E731
    found = hessian(f, (0, 1))(of_array(X), of_array(T))
    expected = torch.func.hessian(f, (0, 1))(torch.tensor(X), torch.tensor(T))
    for i in (0, 1):
        for j in (0, 1):
            np.testing.assert_allclose(found[i][j].numpy(), expected[i][j].numpy())


def test_linearize_runs_once() -> None:
    """S134: linearize runs the function once, and its derivative as often as asked."""
    calls: list[int] = []

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return ours(x), polyop.ones(2)

    x, t = of_array(X), of_array(T)
    (out, _), derivative = linearize(f, x)
    np.testing.assert_allclose(out.numpy(), theirs(torch.tensor(X)).numpy())
    for scale in (1.0, 2.0):
        d, zero = derivative(t * scale)
        np.testing.assert_allclose(d.numpy(), scale * jvp(ours, (x,), (t,))[1].numpy())
        assert zero.tolist() == [0, 0]
    assert calls == [1]

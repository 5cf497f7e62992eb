"""What `func.vjp` is given, `argnums`, several tangents of a `Function`, and leaves that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import AutogradError, UsageError, UsageTypeError
from polyop.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

ONE, ZERO = polyop.ones(2), polyop.zeros(2)


def both(x: Tensor) -> dict[str, Tensor]:
    return {"a": x, "b": x * 2.0}


@pytest.mark.parametrize(
    "given",
    [{"c": ONE, "b": ZERO}, [ONE, ZERO], (ONE, ZERO), {"a": ONE, "b": {"c": ZERO}}],
    ids=["other keys", "list", "tuple", "deeper"],
)
def test_gradients_have_the_structure_of_results(given: Any) -> None:
    """S134: gradients that are laid out otherwise are refused, not taken in their order."""
    pull = vjp(both, ONE)[1]
    with pytest.raises(UsageError, match=r"another structure than results(?s:.*)\{'a': \*, 'b'"):
        pull(given)
    assert pull({"b": ONE, "a": ZERO})[0].tolist() == [2.0, 2.0]
    with pytest.raises(UsageError, match="another structure"):
        vjp(lambda x: (x, x), ONE)[1]([ONE, ONE])


def test_gradients_are_tensors_of_their_kind() -> None:
    """S134: no array, no number, and no complex gradient of a real result."""
    pull = vjp(lambda x: x * 3.0, ONE)[1]
    with pytest.raises(UsageTypeError, match="the gradient of result 0 is no Tensor"):
        pull(np.ones(2, "f4"))
    with pytest.raises(UsageTypeError, match="the gradient of result 0 is no Tensor"):
        vjp(lambda x: polyop.sum(x), ONE)[1](2.0)
    with pytest.raises(AutogradError, match="is complex, and the result is not"):
        pull(polyop.tensor([1j, 2j]))
    z = polyop.tensor([1j, 2.0])
    assert vjp(lambda x: x * 3.0, z)[1](z)[0].tolist() == [3j, 6.0]


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2), (1, 0, 1)])
@pytest.mark.parametrize("transform", [grad, jacrev, jacfwd, hessian])
def test_argnums_name_each_argument_once(transform: Any, argnums: Any) -> None:
    """S134: an argument that is named twice is refused: one of its gradients would be lost."""
    with pytest.raises(UsageError, match="names an argument twice"):
        transform(lambda x, y: polyop.sum(x * y), argnums)(ONE, ONE)


class Parts(polyop.autograd.Function):
    """Two results, each with a tangent."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Any:
        """Give a square and a double."""
        return x * x, x * 2.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the input."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Give the gradient."""
        (x,) = ctx.saved_tensors
        return 2.0 * x * grads[0] + 2.0 * grads[1]

    @staticmethod
    def jvp(ctx: Any, t: Any) -> Any:
        """Give both tangents."""
        (x,) = ctx.saved_tensors
        return 2.0 * x * t, 2.0 * t


def test_a_function_with_several_tangents() -> None:
    """S137: a `Function` whose `jvp` gives a tangent for each of its results."""
    x, t = polyop.tensor([1.0, 3.0]), polyop.tensor([1.0, -1.0])
    _, (first, second) = jvp(Parts.apply, (x,), (t,))
    assert (first.tolist(), second.tolist()) == ([2.0, -6.0], [2.0, -2.0])

    def total(x: Tensor) -> Any:
        a, b = Parts.apply(x)
        return polyop.sum(a * b)

    np.testing.assert_allclose(jacfwd(total)(x).numpy(), grad(total)(x).numpy())
    np.testing.assert_allclose(hessian(total)(x).numpy(), np.diag([12.0, 36.0]))
    batched = vmap(lambda t: jvp(Parts.apply, (x,), (t,))[1])(polyop.stack([t, t]))
    assert batched[0].tolist() == [[2.0, -6.0]] * 2


@pytest.mark.parametrize("name", ["prod", "cumulative_prod"])
def test_products_of_another_dtype(name: str) -> None:
    """S134: where a real dtype is asked for, imaginary parts have no part in gradients."""
    z = polyop.tensor([1 + 2j, 3 - 1j, 2 + 0.5j], dtype=polyop.complex128)
    run = getattr(polyop, name)

    def asked(v: Tensor) -> Any:
        return polyop.sum(run(v, axis=0, dtype=polyop.float64))

    def taken(v: Tensor) -> Any:
        return polyop.sum(run(polyop.real(v), axis=0))

    with pytest.warns(match="imaginary"):
        found = grad(asked)(z)
        slope = jvp(asked, (z,), (z * 1j,))[1]
    np.testing.assert_allclose(found.numpy(), grad(taken)(z).numpy())
    np.testing.assert_allclose(slope.numpy(), jvp(taken, (z,), (z * 1j,))[1].numpy())
    wide = polyop.tensor([1.5, 2.0], dtype=polyop.float32)
    expected = grad(lambda v: polyop.sum(run(v, axis=0)))(wide)
    found = grad(asked)(wide)
    assert found.dtype == polyop.float32
    np.testing.assert_allclose(found.numpy(), expected.numpy())


WRITES: dict[str, Any] = {
    "a part": lambda x, y: y[:2].mul_(5.0),
    "filled": lambda x, y: y[:2].fill_(5.0),
    "an item": lambda x, y: y.__setitem__(0, x[1]),
    "all": lambda x, y: y.mul_(5.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_kept_gradients_outlive_writes(name: str) -> None:
    """S135: `.grad` of a computed tensor is that of the value it has now, whatever wrote it."""
    found = []
    for make in (polyop.from_numpy, torch.from_numpy):
        x: Any = make(np.arange(1.0, 5.0)).requires_grad_()
        y = x * 3.0
        y.retain_grad()
        WRITES[name](x, y)
        (y * y).sum().backward()
        found.append((y.grad.detach().tolist(), x.grad.tolist()))
    assert found[0] == found[1]


def test_a_kept_view_outlives_writes() -> None:
    """S135: so it is of a view whose base was written."""
    x = polyop.from_numpy(np.arange(1.0, 5.0)).requires_grad_()
    y = x * 3.0
    view = y[:2]
    view.retain_grad()
    y.mul_(5.0)
    (view * view).sum().backward()
    assert view.grad is not None
    assert view.grad.tolist() == [30.0, 60.0]


def test_a_leaf_that_was_frozen_gets_nothing() -> None:
    """S126: a leaf that requires no grad any more gets none, from graphs of before either."""
    found = []
    for make in (polyop.ones, torch.ones):
        x: Any = make(3, requires_grad=True)
        w: Any = make(3, requires_grad=True)
        y = (x * w).sum()
        z = (w * 2.0).sum()
        w.requires_grad_(False)
        y.backward()
        frozen = w.grad
        w.requires_grad_(True)
        z.backward()
        found.append((frozen, x.grad.tolist(), w.grad.tolist()))
    assert found[0] == found[1] == (None, [1.0] * 3, [2.0] * 3)


def test_a_leaf_keeps_its_gradient_while_it_is_frozen() -> None:
    """S126: freezing a leaf and letting it go on takes nothing from its `.grad`."""
    x = polyop.ones(2).requires_grad_()
    (x * 2.0).sum().backward()
    x.requires_grad_(False)
    x.requires_grad_(True)
    (x * 3.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5.0, 5.0]

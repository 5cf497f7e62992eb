"""Operators with several results and an author's gradient: each way of using some of them."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.autograd import gradcheck, gradgradcheck
from polyop.errors import AutogradError
from polyop.layers.autograd import plain_author
from polyop.library import custom_op


def tensor(array: Any) -> Tensor:
    return polyop.from_numpy(np.asarray(array))


@custom_op("several::parts", mutates_args=())
def parts(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    a, b = x.numpy(), y.numpy()
    return tensor(np.exp(a)), tensor(a * b * scale), tensor(np.sum(b, axis=0))


SEEN: list[Any] = []


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, y, scale = inputs
    ctx.save_for_backward(x, y, output[0])  # a result of its own among them
    ctx.scale = scale


def backward(ctx: Any, g: Tensor, h: Tensor, k: Tensor) -> Any:
    x, y, grown = ctx.saved_tensors
    SEEN.append([None if t is None else t.numpy().copy() for t in (g.detach(), h.detach())])
    dx = g * grown + h * y * ctx.scale
    dy = h * x * ctx.scale + polyop.broadcast_to(polyop.expand_dims(k, axis=0), y.shape)
    return dx, dy, None


parts.register_autograd(backward, setup_context=keep)


@pytest.fixture
def long_way(monkeypatch: Any) -> list[Any]:
    """The calls that were recorded at length."""
    seen: list[Any] = []
    first = plain_author.AuthorRecorder.record

    def record(self: Any, *given: Any, **named: Any) -> None:
        seen.append(self.op.name())
        first(self, *given, **named)

    monkeypatch.setattr(plain_author.AuthorRecorder, "record", record)
    return seen


def given(grads: Any = (True, True)) -> list[Tensor]:
    rng = np.random.default_rng(0)
    made = [tensor(rng.normal(size=(2, 3))) for _ in grads]
    return [t.requires_grad_() if moves else t for t, moves in zip(made, grads, strict=True)]


USES = [u for n in (1, 2, 3) for u in itertools.combinations(range(3), n)]


@pytest.mark.parametrize("used", USES)
@pytest.mark.parametrize("moves", [(True, True), (True, False), (False, True)])
def test_gradients(used: Any, moves: Any, long_way: list[Any]) -> None:
    """S124: gradients of any of the results are those of finite differences, of both orders."""

    def f(*moving: Tensor) -> Any:
        rest = iter(moving)
        both = [next(rest) if m else t for m, t in zip(moves, given(moves), strict=True)]
        out = parts(*both, 1.5)
        return tuple(out[i] for i in used)

    inputs = [t for t in given(moves) if t.requires_grad]
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)
    assert "several::parts" not in long_way


def test_what_nobody_sends() -> None:
    """S125: gradients that nobody sends are zeros, and None where the author wants no zeros."""
    x, y = given()
    SEEN.clear()
    parts(x, y, 1.0)[1].sum().backward()
    np.testing.assert_array_equal(SEEN[0][0], np.zeros((2, 3)))
    seen = []

    def rough(ctx: Any, g: Any, h: Any) -> Any:
        seen.append((g, h))
        return h if g is None else g

    op = custom_op("several::rough", _two, mutates_args=())
    op.register_autograd(
        rough, setup_context=lambda ctx, inputs, output: ctx.set_materialize_grads(False)
    )
    x = tensor(np.ones(3)).requires_grad_()
    op(x)[1].sum().backward()
    assert seen[0][0] is None
    np.testing.assert_array_equal(seen[0][1].numpy(), np.ones(3))
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(3))


def _two(x: Tensor) -> tuple[Tensor, Tensor]:
    return tensor(x.numpy() * 2), tensor(x.numpy() * 3)


def test_results_without_gradient() -> None:
    """S125: a result that is marked has no history, the others do; integers have none."""

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[0])

    op = custom_op("several::marked", _two, mutates_args=())
    op.register_autograd(lambda ctx, g, h: h * 3, setup_context=setup)
    x = tensor(np.ones(3)).requires_grad_()
    a, b = op(x)
    assert not a.requires_grad
    assert b.requires_grad
    b.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0] * 3)

    def counted(x: Tensor) -> tuple[Tensor, Tensor]:
        return tensor(x.numpy() * 2), tensor(np.arange(3))

    whole = custom_op("several::counted", counted, mutates_args=())
    whole.register_autograd(lambda ctx, g, h: g * 2)
    a, b = whole(x)
    assert (a.requires_grad, b.requires_grad) == (True, False)


def test_results_that_are_written() -> None:
    """S126: a result that its own gradient reads is not to be written; another may be."""
    x, y = given()
    first, second, _ = parts(x, y, 1.0)
    second.detach().mul_(2.0)
    first.sum().backward()
    x.grad = None
    first, _, _ = parts(x, y, 1.0)
    first.detach().mul_(2.0)
    with pytest.raises(AutogradError, match="was written after it was saved"):
        first.sum().backward()


def test_graphs_are_freed() -> None:
    """S126: a graph whose result keeps itself is freed with its last handle."""

    x, y = given()
    gc.disable()
    try:
        out = parts(x, y, 1.0)
        node = weakref.ref(out[0].grad_node)
        del out
        assert node() is None
    finally:
        gc.enable()


def test_one_result_twice() -> None:
    """S124: what flows through several results is added up, along every way."""
    x, y = given()
    a, b, c = parts(x, y, 2.0)
    (a * b + a + c).sum().backward()
    e = np.exp(x.numpy(force=True))
    u, v = (t.numpy(force=True) for t in (x, y))
    np.testing.assert_allclose(x.grad.numpy(), e * u * v * 2 + e * v * 2 + e)
    np.testing.assert_allclose(y.grad.numpy(), e * u * 2 + 2)  # c is added to each of two rows

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
from polyop.errors import AutogradError, MissingGradientError, MutationError
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


#: What a kernel may take of a tensor of its own: it is a view, and a result like any other.
TAKEN: dict[str, Any] = {
    "itself": lambda t: t.clone(),
    "a row": lambda t: polyop.stack([t, t])[0],
    "reshaped": lambda t: polyop.reshape(polyop.reshape(t.clone(), (3, 1)), (3,)),
}


@pytest.mark.parametrize("way", TAKEN)
@pytest.mark.parametrize("writes", ["whole", "part"])
def test_writes_to_views_that_kernels_made(way: str, writes: str) -> None:
    """S131: a write to a result that is a view of the kernel's own tensor keeps the history."""
    take = TAKEN[way]
    name = f"several::taken_{way.replace(' ', '_')}_{writes}"
    one = custom_op(
        f"{name}_one", lambda x: take(x), mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    one.register_autograd(lambda ctx, g: g * 3)
    two = custom_op(
        f"{name}_two",
        lambda x: (take(x), take(x)),
        mutates_args=(),
        schema="(Tensor x) -> (Tensor, Tensor)",
    )
    two.register_autograd(lambda ctx, g, h: g * 3 + h)
    many = custom_op(
        f"{name}_many",
        lambda x: [take(x), take(x)],
        mutates_args=(),
        schema="(Tensor x) -> Tensor[]",
    )
    many.register_autograd(lambda ctx, gs: gs[0] * 3 + gs[1])

    class Own(polyop.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return take(x)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return grads[0] * 3

    factors = np.array([2.0, 2.0, 2.0] if writes == "whole" else [1.0, 2.0, 2.0])
    for call, rest in ((one, 0), (Own.apply, 0), (two, 1), (many, 1)):
        x = tensor(np.arange(3.0)).requires_grad_()
        found = call(x)
        first, *others = found if isinstance(found, (tuple, list)) else [found]
        (first if writes == "whole" else first[1:]).mul_(2.0)
        sum((t.sum() for t in others), first.sum()).backward()
        np.testing.assert_array_equal(first.numpy(force=True), np.arange(3.0) * factors)
        np.testing.assert_array_equal(x.grad.numpy(), 3 * factors + rest)


def test_missing_gradients_are_missed_after_writes() -> None:
    """S129: a write to a view that a kernel made hides no missing gradient."""
    op = custom_op(
        "several::without",
        lambda x: polyop.stack([x, x])[0],
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )
    x = tensor(np.arange(3.0)).requires_grad_()
    y = op(x)
    y.mul_(2.0)
    with pytest.raises(MissingGradientError):
        y.sum().backward()


@pytest.mark.parametrize("give", [lambda x: x, lambda x: x[...], lambda x: polyop.reshape(x, (3,))])
@pytest.mark.parametrize("part", [False, True])
def test_writes_past_a_function(give: Any, part: bool) -> None:
    """S131: a write to a view that a Function gave of its argument is refused, before it is done.

    Its history is that of the argument, which knows nothing of the Function's backward.
    """

    class Given(polyop.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return give(x)  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return grads[0] * 3

    x = tensor(np.arange(3.0)).requires_grad_()
    y = Given.apply(x * 1)
    with pytest.raises(MutationError, match="a view that a Function gave of its argument"):
        (y[1:] if part else y).mul_(2.0)
    np.testing.assert_array_equal(y.numpy(force=True), np.arange(3.0))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0] * 3)


@pytest.mark.parametrize("part", [False, True])
def test_writes_below_a_function(part: bool) -> None:
    """S131: a Function's view of what was written since has no gradient, and says so."""

    class Seen(polyop.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x[...]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return grads[0] * 3

    x = tensor(np.arange(3.0)).requires_grad_()
    y = x * 1
    seen = Seen.apply(y)
    later = seen[1:]
    (y[1:] if part else y).mul_(2.0)
    for view in (seen, later, seen * 2):
        with pytest.raises(MutationError, match="Seen gave is a view of its argument"):
            view.sum().backward(retain_graph=True)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0 if part else 2.0, 2.0, 2.0])

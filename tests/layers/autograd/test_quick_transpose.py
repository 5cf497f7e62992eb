"""Tangents from an author's backward on plain arrays: those of the level, for less."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tag, Tensor
from polyop.errors import MissingGradientError, PolyopError
from polyop.func import grad, jvp, vmap
from polyop.layers.autograd import quick_transpose
from polyop.layers.autograd.tangents import tangent_rule
from polyop.library import custom_op

RUNS: list[str] = []


def made(
    kernel: Callable[..., Any], backward: Callable[..., Any], *,
    name: str = "op", count: int = 1, tags: Any = (), setup: Any = None,
) -> Any:  # fmt: skip
    """Define an operator with a gradient alone; what it saves are its arguments."""
    RUNS.clear()

    def one(x: Tensor) -> Tensor:
        RUNS.append(name)
        return polyop.from_numpy(np.asarray(kernel(x.numpy())))

    def two(x: Tensor, y: Tensor) -> Tensor:
        RUNS.append(name)
        return polyop.from_numpy(np.asarray(kernel(x.numpy(), y.numpy())))

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs, output)

    fn, name = (one, name) if count == 1 else (two, f"{name}_of_two")
    op = custom_op(f"turned::{name}", fn, mutates_args=(), tags=tags)
    op.register_autograd(backward, setup_context=setup or save)
    return op


def number(*values: float, dtype: str = "f8") -> Tensor:
    return polyop.from_numpy(np.array(values, dtype))


X, T = number(0.5, -1.5, 2.0), number(1.0, 2.0, -3.0)
MATRIX = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def levels(monkeypatch: Any) -> list[Any]:
    """What was left to the level."""
    seen: list[Any] = []
    first = quick_transpose.at_a_level

    def at_a_level(*given: Any) -> Any:
        seen.append(given[0].name)
        return first(*given)

    monkeypatch.setattr(quick_transpose, "at_a_level", at_a_level)
    return seen


def slow(op: Any, values: list[Tensor], tangents: list[Any]) -> Any:
    """Give what the level gives."""
    return tangent_rule(op._opoverload)(values, tangents)[1][0]


# -- what is quick ----------------------------------------------------------------


def test_a_matrix(levels: list[Any]) -> None:
    """S132: the transposed gradient of a product with a matrix is the product; one kernel runs."""
    matrix = polyop.from_numpy(MATRIX)
    op = made(lambda x: MATRIX @ x, lambda ctx, g: polyop.matmul(g, matrix))
    out, slope = jvp(op, (X,), (T,))
    np.testing.assert_allclose(out.numpy(), MATRIX @ X.numpy())
    np.testing.assert_allclose(slope.numpy(), MATRIX @ T.numpy())
    assert RUNS == ["op"]
    assert not levels


@pytest.mark.parametrize("moves", [(True, True), (True, False), (False, True)])
def test_two_arguments(moves: tuple[bool, bool], levels: list[Any]) -> None:
    """S132: tangents of several arguments are added up, in single precision too."""
    for dtype in ("f8", "f4"):
        x, y = number(0.5, 2.0, dtype=dtype), number(3.0, -1.0, dtype=dtype)

        def backward(ctx: Any, g: Tensor) -> Any:
            a, b, _ = ctx.saved_tensors
            return g * b, g * a

        op = made(np.multiply, backward, name=f"product_{dtype}", count=2)
        tangents = [y if moved else None for moved in moves]
        given = [(v, t) for v, t in zip((x, y), tangents, strict=True) if t is not None]

        def f(*moving: Tensor, op: Any = op, x: Tensor = x, y: Tensor = y) -> Tensor:
            rest = iter(moving)
            return op(*[next(rest) if m else v for m, v in zip(moves, (x, y), strict=True)])

        values, slopes = (tuple(one) for one in zip(*given, strict=True))
        _, slope = jvp(f, values, slopes)
        np.testing.assert_allclose(slope.numpy(), slow(op, [x, y], tangents).numpy())
        assert slope.dtype == x.dtype
    assert not levels


def test_what_comes_in_goes_out() -> None:
    """S132: a gradient that is what comes in gives the tangent, and nobody writes to it."""
    op = made(lambda x, y: x + y, lambda ctx, g: (g, g), count=2)
    t = T.clone()
    _, slope = jvp(op, (X, X.clone()), (t, t))
    np.testing.assert_array_equal(slope.numpy(), 2 * T.numpy())
    np.testing.assert_array_equal(t.numpy(), T.numpy())


C, D = number(2.0, -0.5, 4.0), number(0.25, 3.0, -1.0)
PAIR = polyop.from_numpy(np.array([[1.0, 2.0, 3.0], [-4.0, 0.5, 6.0]]))
WEIGHT = number(1.5, 2.5, -3.5).requires_grad_()
#: Gradients by what they make of what comes in, and whether the answer is what ran at the tangent.
GRADIENTS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "product": (lambda g: g * C, True),
    "product, turned": (lambda g: C * g, True),
    "quotient": (lambda g: g / C, True),
    "numbers": (lambda g: -(g * 2.0) / 3.0, True),
    "number first": (lambda g: 2.0 * g, True),
    "sum of two": (lambda g: g * C + g * D, True),
    "difference": (lambda g: g * C - g / D, True),
    "of one twice": (lambda g: (a := g * C) + a, True),
    "with a constant": (lambda g: g * C + D, False),
    "from a constant": (lambda g: D - g * C, False),
    "with a number": (lambda g: g * C + 1.0, False),
    "by rows": (lambda g: polyop.sum(g * PAIR, axis=0), False),
    "turned around": (lambda g: polyop.flip(g * C), False),
    "summed up": (lambda g: g * polyop.sum(g * C) * 0 + polyop.sum(g) * C, False),
    "selected": (lambda g: polyop.where(C > 0, g, 0.0), False),
    "of a parameter": (lambda g: g * WEIGHT, False),
    "what comes in": (lambda g: g, False),
    "copied": (lambda g: g.clone(), False),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_that_are_their_own_transpose(name: str, monkeypatch: Any) -> None:
    """S132: of diagonal gradients what ran is the answer, of others only their transpose is."""
    backward, diagonal = GRADIENTS[name]
    op = made(np.positive, lambda ctx, g: backward(g))
    found = []
    first = quick_transpose._is_diagonal
    monkeypatch.setattr(
        quick_transpose, "_is_diagonal", lambda *given: found.append(first(*given)) or found[-1]
    )
    t = T.clone()
    slope = jvp(op, (X,), (t,))[1]
    monkeypatch.undo()
    np.testing.assert_array_equal(slope.numpy(force=True), slow(op, [X], [t]).numpy(force=True))
    assert found == [diagonal]
    slope.detach().mul_(0.0)
    np.testing.assert_array_equal(t.numpy(), T.numpy())


def test_what_an_author_keeps_is_no_tangent() -> None:
    """S132: a gradient that its author keeps, and writes to later, is another array."""
    kept: list[Tensor] = []

    def backward(ctx: Any, g: Tensor) -> Tensor:
        kept.append(g * C)
        return kept[-1]

    slope = jvp(made(np.positive, backward), (X,), (T,))[1]
    expected = slope.numpy().copy()
    kept[0].detach().mul_(0.0)
    np.testing.assert_array_equal(slope.numpy(), expected)


def test_tangents_of_another_shape() -> None:
    """S132: where a result has another shape than its tangent, the probe has the result's."""
    op = made(lambda x: np.outer(x, x[:1])[:, 0], lambda ctx, g: g * C)  # of the same shape
    wide = made(lambda x: x[None] * MATRIX, lambda ctx, g: polyop.sum(g * MATRIX, axis=0), name="w")
    np.testing.assert_array_equal(jvp(op, (X,), (T,))[1].numpy(), T.numpy() * C.numpy())
    np.testing.assert_array_equal(jvp(wide, (X,), (T,))[1].numpy(), T.numpy()[None] * MATRIX)


def test_hooks_of_what_comes_in() -> None:
    """S132: a hook on the way decides what is transposed."""

    def backward(ctx: Any, g: Tensor) -> Tensor:
        scaled = g * C
        scaled.register_hook(lambda h: h * 10.0)
        return scaled * D

    op = made(np.positive, backward)
    np.testing.assert_array_equal(jvp(op, (X,), (T,))[1].numpy(), slow(op, [X], [T]).numpy())


def test_no_gradient() -> None:
    """S125: None is a gradient of zero; so is that of integers."""
    nothing = made(np.sign, lambda ctx, g: None)
    np.testing.assert_array_equal(jvp(nothing, (X,), (T,))[1].numpy(), np.zeros(3))
    whole = made(lambda x: x.astype(int), lambda ctx, g: g, name="whole")
    assert jvp(lambda x: x * whole(x), (X,), (T,))[1].dtype == X.dtype


@pytest.mark.parametrize("tags", [(), (Tag.pointwise,)])
def test_tensors_of_the_program(tags: Any, levels: list[Any]) -> None:
    """S126, S132: a tangent that is made of a parameter has its gradient, and its hooks run."""
    weight, calls = number(2.0, 3.0, 4.0).requires_grad_(), []
    scaled = weight * 2.0
    scaled.register_hook(lambda g: calls.append(g))
    op = made(lambda x: x * np.array([4.0, 6.0, 8.0]), lambda ctx, g: g * scaled, tags=tags)
    _, slope = jvp(op, (X,), (T,))
    np.testing.assert_allclose(slope.numpy(force=True), T.numpy() * [4.0, 6.0, 8.0])
    assert not calls
    assert weight.grad is None
    polyop.sum(slope).backward()
    np.testing.assert_allclose(weight.grad.numpy(), 2.0 * T.numpy())
    assert len(calls) == 1


# -- what the level decides ---------------------------------------------------------


def test_looks_at_saved_data(levels: list[Any]) -> None:
    """S132: a gradient may look at what it saved: the level knows that the probe is not in it."""

    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, _ = ctx.saved_tensors
        return g * float(x.sum()) if bool((x > 0).any()) else g

    op = made(lambda x: x * x.sum(), backward)
    _, slope = jvp(op, (X,), (T,))
    np.testing.assert_allclose(slope.numpy(), T.numpy() * 1.0)
    assert levels == ["turned::op"]
    assert RUNS == ["op"]


def test_a_first_try_leaves_no_trace(levels: list[Any]) -> None:
    """S125: what backward sets on its context is gone where the level runs it again."""

    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, _ = ctx.saved_tensors
        ctx.runs = getattr(ctx, "runs", 0) + 1
        return g * float(x.sum()) * float(ctx.runs)  # the look stops the first try

    op = made(lambda x: x * x.sum(), backward)
    for _ in range(2):
        np.testing.assert_allclose(jvp(op, (X,), (T,))[1].numpy(), T.numpy())
    assert levels == ["turned::op"] * 2


LOOKS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda g: g[0].item(),
    "bool": lambda g: bool(g[0] > 0),
    "detached": lambda g: float(g.detach().sum()),
    "numpy": lambda g: g.numpy(force=True)[0],
    "tolist": lambda g: g.tolist(),
    "under no_grad": lambda g: _quiet(lambda: float((g * 2).sum())),
    "format": lambda g: f"{g[0].item():.3f}",
}


def _quiet(fn: Callable[[], Any]) -> Any:
    with polyop.no_grad():
        return fn()


@pytest.mark.parametrize("look", LOOKS)
def test_looks_at_the_probe(look: str) -> None:
    """S132: a gradient that depends on data of what comes in is refused, whatever it catches."""

    def backward(ctx: Any, g: Tensor) -> Tensor:
        try:
            LOOKS[look](g)
        except Exception:
            return g * 5.0
        return g

    op = made(lambda x: x * 1.0, backward)
    found: Any = None
    try:
        found = jvp(op, (X,), (T,))[1].numpy()
    except PolyopError as error:
        assert isinstance(error, MissingGradientError)
    assert found is None or np.array_equal(found, 5.0 * T.numpy())  # it caught our refusal


def test_data_taken_out() -> None:
    """S132: what is computed outside of operators cannot be transposed; the error names whose."""
    op = made(np.sin, lambda ctx, g: polyop.from_numpy(g.detach().numpy() * 2))
    with pytest.raises(MissingGradientError, match=r"cannot transpose its backward") as caught:
        jvp(op, (X,), (T,))
    assert "register_jvp('turned::op', jvp)" in str(caught.value)
    cut = made(np.sin, lambda ctx, g: g.detach() * 2, name="cut")
    with pytest.raises(MissingGradientError, match="not computed by differentiable operators"):
        jvp(cut, (X,), (T,))


def test_a_gradient_that_does_not_fit() -> None:
    """S126: a wrong shape is the author's error, with its place, as in reverse mode."""
    op = made(np.sin, lambda ctx, g: g[:2] * 1.0)
    with pytest.raises(PolyopError, match="shape") as caught:
        jvp(op, (X,), (T,))
    assert "turned::op" in str(caught.value)


def test_one_tensor_twice(levels: list[Any]) -> None:
    """S132: a tensor that is both arguments is told apart by position."""

    def backward(ctx: Any, g: Tensor) -> Any:
        a, b, _ = ctx.saved_tensors
        return g * b, g * (a + 1.0)

    op = made(lambda a, b: a * b + b, backward, count=2)
    _, slope = jvp(lambda x: op(x, x), (X,), (T,))
    np.testing.assert_allclose(slope.numpy(), T.numpy() * (2 * X.numpy() + 1))


# -- around it -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_transforms_around() -> None:
    """S132: under batches, gradients and further tangents the level does what it did."""
    op = made(np.sin, lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]))
    second = jvp(lambda x: jvp(op, (x,), (T,))[1], (X,), (T,))[1]
    np.testing.assert_allclose(second.numpy(), -np.sin(X.numpy()) * T.numpy() ** 2)
    both = polyop.stack([X, T])
    batched = vmap(lambda x: jvp(op, (x,), (T,))[1])(both)
    np.testing.assert_allclose(batched.numpy(), np.cos(both.numpy()) * T.numpy())
    over = grad(lambda x: polyop.sum(jvp(op, (x,), (T,))[1]))(X)
    np.testing.assert_allclose(over.numpy(), -np.sin(X.numpy()) * T.numpy())


def test_operators_inside(levels: list[Any]) -> None:
    """S132: a backward may call operators with kernels of their own, which look at their data."""
    inner = made(lambda x: x * 3.0, lambda ctx, g: g * 3.0, name="inner")
    op = made(lambda x: x * 3.0, lambda ctx, g: inner(g))
    np.testing.assert_allclose(jvp(op, (X,), (T,))[1].numpy(), 3.0 * T.numpy())
    assert not levels


def test_grad_mode_does_not_matter() -> None:
    """S132: forward mode gives the same under no_grad."""
    op = made(np.sin, lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]))
    with polyop.no_grad():
        _, slope = jvp(op, (X,), (T,))
    np.testing.assert_allclose(slope.numpy(), np.cos(X.numpy()) * T.numpy())


def test_threads() -> None:
    """S98: each thread has a probe of its own."""
    op = made(np.sin, lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]))
    wrong: list[Any] = []

    def work(k: int) -> None:
        t = number(*np.arange(3.0) + k)
        for _ in range(50):
            found = jvp(op, (X,), (t,))[1].numpy()
            if not np.allclose(found, np.cos(X.numpy()) * t.numpy()):
                wrong.append((k, found))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- pointwise operators ----------------------------------------------------------------


def test_pointwise_operators(levels: list[Any]) -> None:
    """S132: where the author says pointwise, the gradient runs on the tangents themselves."""
    seen: list[Any] = []

    def backward(ctx: Any, g: Tensor) -> Any:
        seen.append(g.numpy().copy())
        a, b, _ = ctx.saved_tensors
        return g * b, g * a

    op = made(np.multiply, backward, count=2, tags=(Tag.pointwise,))
    _, slope = jvp(op, (X, T), (T, X))
    np.testing.assert_allclose(slope.numpy(), T.numpy() ** 2 + X.numpy() ** 2)
    np.testing.assert_array_equal(seen, [T.numpy(), X.numpy()])
    column = polyop.reshape(X, (3, 1))
    with pytest.raises(PolyopError):  # this backward does not add up what was repeated
        jvp(op, (column, T), (column, X))
    wide = number(1.0, 2.0, dtype="c16")
    _, turned = jvp(
        made(lambda x: x * 1j, lambda ctx, g: g * -1j, name="turn", tags=(Tag.pointwise,)),
        (wide,), (wide,),
    )  # fmt: skip
    np.testing.assert_allclose(turned.numpy(), wide.numpy() * 1j)

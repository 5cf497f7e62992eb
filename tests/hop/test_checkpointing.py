"""Checkpoints: what is kept, what runs again, and what it draws (S179)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.layers.author_signatures import same, tensors

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import SubgraphError
from polyop.hop import checkpoint


def block(x: Tensor) -> Tensor:
    """Save twenty tensors."""
    for _ in range(20):
        x = polyop.sin(x) * 1.1
    return x


def once(x: Tensor) -> Tensor:
    """Keep none of them."""
    return checkpoint(block, x)


def nested(x: Tensor) -> Tensor:
    """Checkpoint inside a checkpoint."""
    return checkpoint(lambda x: once(once(x)), x)


def total(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Sum what a function gives."""
    return lambda *args: f(*args).sum()


def held(f: Callable[[Tensor], Tensor]) -> int:
    """Count the bytes that a call leaves for backward."""
    x = polyop.ones(20_000, dtype=polyop.float64).requires_grad_()
    f(x).sum().backward()
    gc.collect()
    tracemalloc.start()
    try:
        out = f(x)
        found = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert out.requires_grad
    return found


def test_nothing_but_the_operands_is_kept() -> None:
    """S179: a checkpoint holds its result; what is inside of it is gone until backward."""
    result = 8 * 20_000
    assert held(block) > 10 * result
    assert held(once) < 1.5 * result
    assert held(nested) < 1.5 * result


TRANSFORMS: dict[str, Callable[[Callable[..., Tensor], Tensor], Any]] = {
    "grad": lambda f, x: func.grad(total(f))(x),
    "hessian": lambda f, x: func.hessian(total(f))(x[0]),
    "vmap": lambda f, x: func.vmap(f)(x),
    "vmap of grad": lambda f, x: func.vmap(func.grad(total(f)))(x),
    "grad of vmap": lambda f, x: func.grad(total(func.vmap(f)))(x),
    "jvp": lambda f, x: func.jvp(f, (x,), (x,)),
}


@pytest.mark.parametrize("fn", [once, nested])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_checkpoints_in_transforms(name: str, fn: Callable[..., Tensor]) -> None:
    """S179, S134: every transform gives what it gives of the bare function."""
    (x,) = tensors(1, 2, 3)
    bare = block if fn is once else lambda x: block(block(x))
    same(TRANSFORMS[name](fn, x), TRANSFORMS[name](bare, x))


GENERATORS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "ours": lambda: polyop.Generator(5),
    "numpy": lambda: np.random.default_rng(5),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", GENERATORS)
def test_every_generator_draws_the_same_again(kind: str, deep: bool) -> None:
    """S179: backward sees the numbers of forward, and leaves each generator where it was."""
    drawn: list[Any] = []

    def noisy(x: Tensor, generator: Any) -> Tensor:
        noise = polyop.rand(3, generator=generator)
        drawn.append(noise.tolist())
        return x * noise

    def run(f: Callable[..., Any]) -> Any:
        polyop.manual_seed(3)
        generator = GENERATORS[kind]()
        x = polyop.ones(3).requires_grad_()
        out = f(lambda x: noisy(noisy(x, generator), generator), x)
        between = polyop.rand(2, generator=generator)
        out.sum().backward()
        after = polyop.rand(2, generator=generator)
        return out.detach(), between, after, x.grad

    inner = lambda f, x: checkpoint(lambda x: checkpoint(f, x), x)  # noqa: E731
    got = run(inner if deep else checkpoint)
    again = drawn[2:4]
    assert drawn[:2] == again
    same(got, run(lambda f, x: f(x)))


def test_gradients_of_gradients() -> None:
    """S179, S133: with create_graph the second run is differentiated as well."""
    (x,) = tensors(1, 3)

    def second(f: Callable[[Tensor], Tensor]) -> Tensor:
        leaf = x.clone().requires_grad_()
        (g,) = autograd.grad(f(leaf).sum(), leaf, create_graph=True)
        return autograd.grad((g * g).sum(), leaf)[0]

    same(second(once), second(block))
    same(second(nested), second(lambda x: block(block(x))))


def squared(x: Tensor) -> Tensor:
    """Square, without keeping the factor."""
    return checkpoint(lambda x: x * x, x)


CHOSEN: dict[str, tuple[Callable[[Tensor], Any], list[float]]] = {
    "cond": (lambda x: polyop.cond(x > 0, squared, lambda x: x * 5, (x,)), [2.0, 4.0, 5.0]),
    "while_loop": (
        lambda x: polyop.while_loop(
            lambda x: x * x < 4, lambda x: (checkpoint(lambda x: x * 3, x),), (x,)
        )[0],
        [3.0, 1.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_gradients_flow_through_a_checkpoint_that_some_samples_choose(name: str) -> None:
    """S134, S179: a function that runs for all samples keeps the history of its checkpoints."""
    fn, slope = CHOSEN[name]
    x = polyop.tensor([1.0, 2.0, -3.0])
    same(func.vmap(func.grad(fn))(x), polyop.tensor(slope))
    same(func.grad(lambda x: func.vmap(fn)(x).sum())(x), polyop.tensor(slope))
    same(func.vmap(lambda x: func.jvp(fn, (x,), (polyop.ones(()),))[1])(x), polyop.tensor(slope))
    z = x.clone().requires_grad_()
    func.vmap(fn)(z).sum().backward()
    same(z.grad, polyop.tensor(slope))


def test_a_checkpoint_that_some_samples_choose_draws_the_same_numbers_again() -> None:
    """S160, S179: backward of a batched `cond` meets the numbers of its forward."""

    def noisy(x: Tensor) -> Tensor:
        return checkpoint(lambda x: polyop.rand(3) * x, x)

    z = polyop.ones(2, 3).requires_grad_()
    out = func.vmap(
        lambda x: polyop.cond(x.sum() > 0, noisy, lambda x: x, (x,)), randomness="different"
    )(z)
    out.sum().backward()
    same(z.grad, out.detach())


def test_all_chunks_draw_the_same_in_a_checkpoint() -> None:
    """S160: `randomness="same"` is one draw for all samples, however they are run."""

    def noisy(x: Tensor) -> Tensor:
        return checkpoint(lambda x: polyop.rand(3) * x, x)

    z = polyop.ones(4, 3).requires_grad_()
    out = func.vmap(noisy, randomness="same", chunk_size=2)(z)
    out.sum().backward()
    assert np.array_equal(out.detach().numpy(), np.tile(out[0].detach().numpy(), (4, 1)))
    same(z.grad, out.detach())


#: Results that are views of one another, of an operand `x`, of a closed-over `c`.
VIEWS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {
    "view of a view": lambda x, c: (lambda h: (h[:2], h))(x.reshape((4,))),
    "twice": lambda x, c: (x[1:],) * 2,
    "view first": lambda x, c: (lambda h: (h, h[0]))(x[1:]),
    "closed over": lambda x, c: (lambda h: (h[:2], h))(c.reshape((4,))),
    "of a constant": lambda x, c: (lambda h: (h[:2], h))(c.detach().reshape((4,))),
    "own": lambda x, c: (lambda h: (h[:1], h))(x * c),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", VIEWS)
def test_a_checkpoint_leaves_the_callers_tensors_their_history(name: str, deep: bool) -> None:
    """S179: views of views among the results take no history from what they are views of."""
    (value,) = tensors(1, 2, 2)

    def run(call: Callable[..., Any]) -> list[Any]:
        x, c = (value.clone().requires_grad_() for _ in range(2))
        out = call(lambda x: (*VIEWS[name](x, c), (x * x * c).sum()), x)
        assert x.requires_grad
        assert c.requires_grad
        sum((t * t).sum() for t in (*out, x, c)).backward()
        return [x.grad, c.grad, *[t.detach() for t in out]]

    inner = lambda f, x: checkpoint(lambda x: checkpoint(f, x), x)  # noqa: E731
    same(run(inner if deep else checkpoint), run(lambda f, x: f(x)))


@pytest.mark.parametrize("given", [False, True])
def test_a_write_whose_history_would_end_in_the_checkpoint_is_refused(given: bool) -> None:
    """S179: what a function writes outside of it gets no history from there, and says so."""
    x, c = polyop.ones(2).requires_grad_(), polyop.zeros(2)

    def body(x: Tensor, into: Tensor = c) -> Tensor:
        into.add_(x)
        return (x * 2).sum()

    with pytest.raises(SubgraphError, match="writes a tensor that it did not make"):
        checkpoint(body, *((x, c) if given else (x,)))

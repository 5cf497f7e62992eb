"""Autocast beside transforms, checkpoints and traces: what is cast, and its derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor, func
from polyop.graph import eliminate_common_subexpressions, make_fx
from polyop.hop import checkpoint
from polyop.layers.autocast import is_autocast_enabled

Square = Callable[[Tensor], Tensor]
#: Its square has another derivative in bfloat16 than in float32.
X = 1.001


@pytest.fixture
def square() -> Iterator[Square]:
    """An operator that autocast casts to bfloat16."""

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @polyop.custom_op("autocasts::square", mutates_args=(), replace=True)
    def op(x: Tensor) -> Tensor:
        return x * x

    op.register_fake(polyop.empty_like)
    op.register_vmap(lambda info, in_dims, x: (op(x), in_dims[0]))
    op.register_autograd(lambda ctx, g: g * 2 * ctx.saved_tensors[0], setup_context=setup)
    op.register_autocast("cpu", polyop.bfloat16)
    yield op


def cast(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Call a function under autocast."""

    def under(x: Tensor) -> Tensor:
        with polyop.autocast("cpu", polyop.bfloat16):
            return f(x)

    return under


def slope(f: Callable[[Tensor], Tensor]) -> float:
    """Give the derivative, of which backward runs without autocast."""
    x = polyop.tensor([X]).requires_grad_()
    f(x).sum().backward()
    return float(x.grad.item())


def test_a_checkpoint_runs_again_under_the_autocast_of_its_call(square: Square) -> None:
    """S53, S179: backward of a checkpoint is that of the bare function, wherever it runs."""
    once = lambda x: checkpoint(square, x)  # noqa: E731
    expected = slope(cast(square))
    assert expected == 2.0 != slope(square)
    assert slope(cast(once)) == expected
    assert slope(cast(lambda x: checkpoint(once, x))) == expected
    assert slope(polyop.compile(cast(once))) == expected
    x = polyop.tensor([X]).requires_grad_()
    out = once(x).sum()
    with polyop.autocast("cpu", polyop.bfloat16):
        out.backward()
    assert x.grad.item() == slope(square)


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "grad": lambda f, x: func.grad(lambda x: f(x).sum())(x),
    "vjp": lambda f, x: func.vjp(f, x)[1](polyop.ones(1, dtype=f(x).dtype))[0],
    "vmap of grad": lambda f, x: func.vmap(func.grad(lambda x: f(x)))(x),
    "grad of vmap": lambda f, x: func.grad(lambda x: func.vmap(f)(x).sum())(x),
    "traced": lambda f, x: make_fx(func.grad(lambda x: f(x).sum()), pre_dispatch=True)(x)(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_see_what_autocast_casts(name: str, square: Square) -> None:
    """S53, S130: a transform differentiates what is computed under autocast, as backward does."""
    assert TRANSFORMS[name](cast(square), polyop.tensor([X])).item() == slope(cast(square))
    assert TRANSFORMS[name](square, polyop.tensor([X])).item() == slope(square)


def dtypes(out: Any) -> list[Any]:
    return [x.dtype for x in out]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_autocast_is_part_of_a_program_from_before_dispatch(mode: str, square: Square) -> None:
    """S209, S53: the program casts where the function does, and passes keep that."""

    def f(x: Tensor) -> Any:
        first = square(x)
        with polyop.autocast("cpu", polyop.bfloat16):
            second = square(x)
            with polyop.autocast("cpu", enabled=False):
                third = square(x)
        with polyop.autocast("cpu", polyop.float16), polyop.no_grad():
            return first, second, third, square(x), cast(square)(x)

    x = polyop.ones(2)
    module: Any = make_fx(f, mode, pre_dispatch=True)(x)
    assert dtypes(module(x)) == dtypes(f(x))
    assert dtypes(f(x)).count(polyop.bfloat16) == 3
    eliminate_common_subexpressions(module.graph)
    module.recompile()
    assert dtypes(module(x)) == dtypes(f(x))
    assert not is_autocast_enabled("cpu")


def test_checkpoints_before_dispatch_keep_autocast(square: Square) -> None:
    """S209, S179: the function of a checkpoint is recorded under the autocast of its call."""
    f = cast(lambda x: checkpoint(lambda x: cast(square)(x) * 1, x))
    module: Any = make_fx(f, pre_dispatch=True)(polyop.ones(2))
    assert module(polyop.ones(2)).dtype == f(polyop.ones(2)).dtype == polyop.bfloat16
    assert slope(module) == slope(f)


def test_what_is_written_is_not_cast() -> None:
    """S53: a cast of what is written would take the write; other arguments are cast."""
    seen: list[Any] = []

    def kernel(x: Tensor, out: Tensor) -> None:
        seen.append((x.dtype, out.dtype))
        out.numpy()[...] += x.numpy().astype(out.numpy().dtype)

    add = polyop.custom_op("tautocast::add", kernel, mutates_args={"out"})
    polyop.library.register_autocast(add, "cpu", polyop.bfloat16)
    x, out = polyop.ones(2), polyop.zeros(2)
    with polyop.autocast("cpu"):
        add(x, out)
        add(x, out=out)
    assert out.tolist() == [2, 2]
    assert seen == [(polyop.bfloat16, polyop.float32)] * 2

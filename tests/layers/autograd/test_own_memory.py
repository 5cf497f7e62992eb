"""Gradients and tangents that are handed out are nobody else's memory: they may be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, no_grad
from polyop.func import jvp


def half_square(name: str, tangent: Callable[..., Any] | None = None) -> Any:
    """Define `x * x / 2`, whose gradient is a saved tensor itself where that of the result is 1."""
    op: Any = polyop.custom_op(
        f"own_memory::{name}",
        lambda x: polyop.from_numpy(np.asarray((x.numpy() ** 2).sum() / 2)),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    op.register_autograd(lambda ctx, g: ctx.saved_tensors[0], setup_context=keep)
    if tangent is not None:
        op.register_jvp(tangent)
    return op


SAVED = half_square("saved")
RUNS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the gradient that was given": lambda x, y: x + 1.0,
    "the same for two": lambda x, y: x + y,
    "a view of it": lambda x, y: polyop.reshape(x, (3,)),
    "negated twice": lambda x, y: -(-x) * 1.0 + y,
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_grad_is_a_memory_of_its_own(name: str, create_graph: bool) -> None:
    """S127: what is written to `.grad` is written to nothing else, also with `create_graph`."""
    x = polyop.ones(3, dtype=polyop.float64).requires_grad_()
    y = polyop.ones(3, dtype=polyop.float64).requires_grad_()
    v = polyop.full(3, 5.0, dtype=polyop.float64)
    RUNS[name](x, y).backward(v, create_graph=create_graph)
    assert x.grad is not None
    other = None if y.grad is None else y.grad.detach().numpy().copy()
    with no_grad():
        x.grad.zero_()
    assert v.tolist() == [5.0, 5.0, 5.0]
    assert x.detach().tolist() == [1.0, 1.0, 1.0]
    if other is not None and y.grad is not None:
        np.testing.assert_array_equal(y.grad.detach().numpy(), other)


@pytest.mark.parametrize("create_graph", [False, True])
def test_grad_is_no_saved_tensor(create_graph: bool) -> None:
    """S127: an author's gradient that is a saved tensor is not handed out itself."""
    x = polyop.ones(3, dtype=polyop.float64).requires_grad_()
    SAVED(x).backward(create_graph=create_graph)
    assert x.grad is not None
    assert x.grad.detach().tolist() == [1.0, 1.0, 1.0]
    with no_grad():
        x.grad.zero_()
    assert x.detach().tolist() == [1.0, 1.0, 1.0]


def test_gradients_of_two_runs_add_up_beside_the_given() -> None:
    """S127: a second backward adds to `.grad`, and the first one's gradient stays as it was."""
    x = polyop.ones(3).requires_grad_()
    v = polyop.ones(3) * 5.0
    (x + 1.0).backward(v, create_graph=True)
    (x * 2.0).backward(polyop.ones(3))
    assert x.grad is not None
    assert x.grad.detach().tolist() == [7.0, 7.0, 7.0]
    assert v.tolist() == [5.0, 5.0, 5.0]


def test_grad_keeps_its_history() -> None:
    """S133: the gradient that `create_graph` leaves in `.grad` can be differentiated."""
    x = polyop.from_numpy(np.array([1.0, 2.0])).requires_grad_()
    polyop.sum(x * x * x).backward(create_graph=True)
    assert x.grad is not None
    (second,) = polyop.autograd.grad(polyop.sum(x.grad), x)
    assert second is not None
    assert second.tolist() == [6.0, 12.0]


@pytest.mark.parametrize("what", ["argument", "result"])
def test_tangents_are_no_saved_tensors(what: str) -> None:
    """S132: an author's tangent that is what it kept, of arguments or results, is copied."""
    op: Any = polyop.custom_op(
        f"own_memory::tangent_of_{what}",
        lambda x: polyop.from_numpy(x.numpy() * 2.0),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0] if what == "argument" else output)

    op.register_autograd(lambda ctx, g: g * 2.0, setup_context=keep)
    op.register_jvp(lambda ctx, t: ctx.saved_tensors[0])
    x, t = polyop.ones(3, dtype=polyop.float64), polyop.ones(3, dtype=polyop.float64)
    value, slope = jvp(op, (x,), (t,))
    slope.zero_()
    assert (x.tolist(), value.tolist()) == ([1.0] * 3, [2.0] * 3)
    values, slopes = jvp(lambda x: (op(x), x * 1.0), (x,), (t,))
    slopes[0].zero_()
    assert (x.tolist(), values[0].tolist()) == ([1.0] * 3, [2.0] * 3)


def _doubled_in_place(ctx: Any, g: Tensor) -> Tensor:
    array = g.numpy()
    array *= 2.0
    return polyop.from_numpy(array)


def _doubled_by_operator(ctx: Any, g: Tensor) -> Tensor:
    return g.mul_(2.0)


@pytest.mark.parametrize("backward", [_doubled_in_place, _doubled_by_operator, lambda ctx, g: g])
def test_a_backward_that_writes_what_it_gets(backward: Callable[..., Any]) -> None:
    """S132: the tangent that a caller gives is not written, whatever a diagonal gradient does."""
    op: Any = polyop.custom_op(
        "own_memory::writes",
        lambda x: polyop.from_numpy(x.numpy() * 2.0),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
        tags="pointwise",
    )
    op.register_autograd(backward)
    x, t = polyop.ones(3, dtype=polyop.float64), polyop.ones(3, dtype=polyop.float64)
    factor = 1.0 if backward.__name__ == "<lambda>" else 2.0
    slope = jvp(op, (x,), (t,))[1]
    assert slope.tolist() == [factor] * 3
    slope.zero_()
    assert t.tolist() == [1.0] * 3
    assert jvp(lambda x: op(x).mul_(3.0), (x,), (t,))[1].tolist() == [factor * 3.0] * 3
    assert t.tolist() == [1.0] * 3


# -- kernels that take their containers apart ---------------------------------------


def _popped(xs: list[Tensor]) -> Tensor:
    total = 0.0
    while xs:
        total = total + xs.pop().detach().numpy()
    return polyop.from_numpy(total * 2.0)


def _kernels() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]]:
    def one(xs: list[Tensor]) -> Tensor:
        return _popped(xs)

    def with_number(xs: list[Tensor]) -> tuple[Tensor, int]:
        return _popped(xs), 3

    def by_name(*, xs: list[Tensor]) -> Tensor:
        return _popped(xs)

    def of_dict(d: dict[str, Tensor]) -> Tensor:
        return _popped([d.pop("b"), d.pop("a")])

    def inside(d: dict[str, list[Tensor]]) -> Tensor:
        return _popped(d.pop("a"))

    return {
        "list": (one, lambda op, x, y: op([x, y]), lambda g: [g * 2.0, g * 2.0]),
        "number": (with_number, lambda op, x, y: op([x, y])[0], lambda g: [g * 2.0, g * 2.0]),
        "by name": (by_name, lambda op, x, y: op(xs=[x, y]), lambda g: [g * 2.0, g * 2.0]),
        "dict": (
            of_dict,
            lambda op, x, y: op({"a": x, "b": y}),
            lambda g: {"a": g * 2.0, "b": g * 2.0},
        ),
        "inside": (
            inside,
            lambda op, x, y: op({"a": [x, y]}),
            lambda g: {"a": [g * 2.0, g * 2.0]},
        ),
    }


@pytest.mark.parametrize("name", _kernels())
def test_kernels_that_empty_their_containers(name: str) -> None:
    """S125: a kernel that takes tensors out of its list or dict loses no gradient by that."""
    kernel, call, gradient = _kernels()[name]
    seen: list[Any] = []
    op: Any = polyop.custom_op(
        f"own_memory::pops_{name.replace(' ', '_')}", kernel, mutates_args=()
    )

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        seen.append(polyop.tree.leaves(inputs.box.__dict__))

    op.register_autograd(lambda ctx, g, *rest: gradient(g), setup_context=keep)
    x, y = (polyop.ones(2, dtype=polyop.float64).requires_grad_() for _ in range(2))
    found = polyop.autograd.grad(polyop.sum(call(op, x, y)), (x, y))
    assert [None if g is None else g.tolist() for g in found] == [[2.0, 2.0], [2.0, 2.0]]
    assert len(seen[-1]) == 2

"""The gradient of a traced `while_loop`: through the carries of all steps (S179, S182)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.fake import FakeTensorMode
from polyop.func import grad, jvp
from polyop.graph import make_fx
from polyop.tensor.tensor import of_array

hops = polyop.ops.higher_order
tracing = pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
#: They take four steps, two, and none.
STARTS = [np.array([0.2, 0.3]), np.array([1.0, 1.5]), np.array([4.0, 9.0])]


def looped(x: Any) -> Any:
    """Square and grow until the sum is large."""
    test: Callable[..., Any] = lambda x, w: x.sum() < 9.0  # noqa: E731
    body: Callable[..., Any] = lambda x, w: (x * x * 0.5 + x * w,)  # noqa: E731
    return (polyop.while_loop(test, body, (x,), (x.cos() + 1.2,))[0] * x).sum()


def python(x: Any) -> Any:
    """Do the same without the operator, in either library."""
    y, w = x, x.cos() + 1.2
    while bool(y.sum() < 9.0):
        y = y * y * 0.5 + y * w
    return (y * x).sum()


def theirs(order: int, x: Any) -> Any:
    """Give PyTorch's gradient."""
    fn = python
    for _ in range(order):
        fn = (lambda f: lambda x: torch.func.grad(lambda x: f(x).sum())(x))(fn)
    return fn(torch.tensor(x)).numpy()


def ours(order: int) -> Any:
    """Give the gradient, as a function."""
    fn: Any = looped
    for _ in range(order):
        fn = (lambda f: lambda x: grad(lambda x: f(x).sum())(x))(fn)
    return fn


@tracing
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_traced_gradient_takes_any_number_of_steps(mode: str, order: int) -> None:
    """S182: the program of a gradient goes back through as many steps as its data ask for."""
    program = make_fx(ours(order), mode)(of_array(STARTS[1]))
    program.graph.lint()
    for x in STARTS:
        np.testing.assert_allclose(program(of_array(x)).numpy(), theirs(order, x), rtol=1e-9)


@tracing
def test_samples_take_their_own_steps(mode: str) -> None:
    """S182: the gradient of each sample of a batch is that of its own steps."""
    batch = of_array(np.stack(STARTS))
    expected = np.stack([theirs(1, x) for x in STARTS])
    for fn in (polyop.vmap(grad(looped)), grad(lambda x: polyop.vmap(looped)(x).sum())):
        program = make_fx(fn, mode)(of_array(np.stack(STARTS[:1] * 3)))
        np.testing.assert_allclose(program(batch).numpy(), expected, rtol=1e-9)
        np.testing.assert_allclose(program(batch[:].flip(0)).numpy(), expected[::-1], rtol=1e-9)


@tracing
def test_forward_over_reverse(mode: str) -> None:
    """S179: the forward derivative of a traced gradient is that of PyTorch's."""
    v = np.array([0.3, -0.2])

    def pushed(fn: Any, x: Any, v: Any) -> Any:
        return jvp(fn, (x,), (v,))[1]

    whole = make_fx(lambda x, v: pushed(grad(looped), x, v), mode)(*map(of_array, (STARTS[1], v)))
    inner = make_fx(grad(looped), mode)(of_array(STARTS[1]))
    for x in STARTS:
        there = torch.func.jacrev(torch.func.grad(python))(torch.tensor(x)).numpy() @ v
        given = of_array(x), of_array(v)
        np.testing.assert_allclose(whole(*given).numpy(), there, rtol=1e-9)
        np.testing.assert_allclose(pushed(inner, *given).numpy(), there, rtol=1e-9)


def test_backward_through_programs() -> None:
    """S182: the engine goes back through a traced loop, and through the program of that."""
    program = make_fx(looped, "fake")(of_array(STARTS[1]))
    compiled = polyop.compile(looped, fullgraph=True)
    for fn in (program, compiled):
        for x in STARTS:
            leaf = of_array(x.copy()).requires_grad_()
            fn(leaf).backward()
            np.testing.assert_allclose(leaf.grad.numpy(), theirs(1, x), rtol=1e-9)


def test_fakes_of_gradients() -> None:
    """S182: on fakes, with sizes of data or without, the gradient has the form of its operand."""
    for options in ({}, {"shape_env": polyop.symbolic.ShapeEnv(), "static_shapes": True}):
        mode = FakeTensorMode(allow_non_fake_inputs=True, **options)
        with mode:
            told = grad(looped)(mode.from_tensor(of_array(STARTS[0])))
        assert (tuple(told.shape), told.dtype) == ((2,), polyop.float64)


def test_what_is_kept() -> None:
    """S182: the carries are those that each step began with, along a first axis."""

    def body(i: Tensor, x: Tensor) -> Any:
        return i + 1, x * 2

    call = (lambda i, x: i < 3, body, (polyop.tensor(0), of_array(STARTS[0])))
    last, x, steps, counts, carries = hops.while_loop_carries(*call)
    assert (int(last), steps.tolist(), counts.tolist()) == (3, [True] * 3, [0, 1, 2])
    np.testing.assert_array_equal(carries.numpy(), [STARTS[0] * 2**i for i in range(3)])
    np.testing.assert_array_equal(x.numpy(), STARTS[0] * 8)
    none = hops.while_loop_carries(lambda i, x: i < 0, *call[1:])
    assert [tuple(y.shape) for y in none] == [(), (2,), (0,), (0,), (0, 2)]


def test_a_batch_keeps_its_own_steps() -> None:
    """S182: samples that are done keep their carry, and say that they made no step."""
    limits = polyop.tensor([1, 3, 0])

    def kept(limit: Tensor) -> Any:
        return hops.while_loop_carries(
            lambda i, n: i < n, lambda i, n: (i + 1,), (polyop.tensor(0),), (limit,)
        )

    for fn in (polyop.vmap(kept), make_fx(polyop.vmap(kept), "fake")(limits)):
        last, steps, counts = fn(limits)
        assert last.tolist() == [1, 3, 0]
        assert steps.tolist() == [[True, False, False], [True, True, True], [False] * 3]
        assert counts.tolist() == [[0, 1, 1], [0, 1, 2], [0, 0, 0]]


def test_a_choice_by_data_in_a_compiled_transform() -> None:
    """S209: Python's own loop in a transform that is compiled looks at the data of each step."""

    def doubled(x: Tensor) -> Tensor:
        while bool(x.sum() < 20):
            x = x * 2
        return x

    x = of_array(np.array([1.0, 2.0]))
    found = polyop.compile(lambda x: jvp(doubled, (x,), (x,))[1])(x)
    np.testing.assert_array_equal(found.numpy(), [8.0, 16.0])


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_new_tensors_in_a_functionalized_trace(mode: str) -> None:
    """S209: a tensor that is made inside is a node before dispatch, never a constant."""

    def fn(x: Tensor) -> Tensor:
        return polyop.zeros(2, dtype=polyop.float64).add_(x)

    program = make_fx(polyop.func.functionalize(fn), mode, pre_dispatch=True)(of_array(STARTS[0]))
    names = [str(n.target) for n in program.graph.nodes]
    assert any("zeros" in name for name in names)
    assert not any(n.op == "get_attr" for n in program.graph.nodes)
    np.testing.assert_array_equal(program(of_array(STARTS[1])).numpy(), STARTS[1])

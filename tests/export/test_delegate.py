"""Delegates: one call in every layer, gradients never lost (SPEC S191 to S193)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors
from polyop.export import (
    BACKENDS,
    Dim,
    LoweredModule,
    call_delegate,
    export,
    register_backend,
    to_backend,
)
from polyop.fake import FakeTensorMode


def rand(*shape: int, seed: int = 0) -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x * y).sin(), x.sum()


N = Dim("n", min=1)
PROGRAM = export(f, (rand(3, 4), rand(4)), dynamic_shapes=({0: N}, None))


class Tripled:
    """A backend whose results are three times too large, so that its runs are seen."""

    backend_id = "tripled"

    def takes(self, node: Any) -> bool:
        return True

    def lower(self, program: Any, compile_specs: Any) -> bytes:
        return b"tripled"

    def executor(self, lowered: LoweredModule) -> Any:
        return lambda x, y: ((x * y).sin() * 3, x.sum() * 3)


class Own(Tripled):
    """A backend with a backward of its own."""

    backend_id = "own"

    def backward(self, lowered: LoweredModule) -> Any:
        return lambda inputs, results, grads: [g * 0 + 100 for g in inputs]


register_backend(Tripled())
register_backend(Own())
PLAIN = LoweredModule(PROGRAM, "none")
TRIPLED = LoweredModule(PROGRAM, "tripled", b"tripled")


def same(a: Any, b: Any) -> bool:
    return all(polyop.allclose(p, q, rtol=1e-5, atol=1e-6) for p, q in zip(a, b, strict=True))


def test_the_executor_runs_if_there_is_one() -> None:
    """S191: the backend's executor runs the call, else the original program does."""
    x, y = rand(3, 4), rand(4)
    assert same(call_delegate(PLAIN, x, y), f(x, y))
    assert same(call_delegate(TRIPLED, x, y), [3 * r for r in f(x, y)])
    assert same(PLAIN.original_module.module()(x, y), f(x, y))
    assert polyop.ops.higher_order.call_delegate is call_delegate


def test_lists_of_graphs_are_made_plain() -> None:
    """S191: an argument that is a list or dict of a class of its own is Python's own."""

    class Frozen(list[Any]):
        pass

    seen: list[Any] = []

    class Looks(Tripled):
        backend_id = "looks"

        def executor(self, lowered: LoweredModule) -> Any:
            return lambda *args: seen.extend(args)

    register_backend(Looks())
    call_delegate(LoweredModule(None, "looks", b"x"), Frozen([1, Frozen([2])]), {"a": (3,)})
    assert seen == [[1, [2]], {"a": (3,)}] and type(seen[0]) is type(seen[0][1]) is list


class LoweredBackendModule:
    """Has the name, and is not the class."""


@pytest.mark.parametrize("around", ["plain", "fake", "trace", "vmap", "grad"])
def test_the_first_argument_is_a_lowered_module_in_every_mode(around: str) -> None:
    """S191: by class, not by name; anything else is a DelegateError."""
    run = lambda x: call_delegate(LoweredBackendModule(), x)  # noqa: E731
    x = rand(3)
    with pytest.raises(errors.DelegateError, match="first argument of call_delegate"):
        if around == "fake":
            with FakeTensorMode() as mode:
                run(mode.from_tensor(x))
        elif around == "trace":
            polyop.graph.make_fx(run, "symbolic")(x)
        elif around == "vmap":
            polyop.vmap(run)(x)
        else:
            run(x.requires_grad_(around == "grad"))


def test_a_trace_has_one_node_and_one_name_for_each_module() -> None:
    """S192: a call is one node; a module that is called twice has one name."""
    other = LoweredModule(PROGRAM, "none")

    def g(x: Tensor, y: Tensor) -> Any:
        one = call_delegate(PLAIN, x, y)
        two = call_delegate(other, one[0], y)
        return call_delegate(PLAIN, two[0], y)

    made = polyop.graph.make_fx(g, "fake")(rand(3, 4), rand(4))
    calls = [n for n in made.graph.nodes if n.target is call_delegate]
    assert [n.args[0].target for n in calls] == [
        "lowered_module_0", "lowered_module_1", "lowered_module_0",
    ]  # fmt: skip
    assert made.lowered_module_0 is PLAIN and made.lowered_module_1 is other
    assert len(calls) == 3 and not any("sin" in n.name for n in made.graph.nodes)
    x, y = rand(3, 4, seed=1), rand(4)
    assert same(made(x, y), g(x, y))
    made.graph.lint(made)


def test_a_fake_call_runs_the_program_on_fakes() -> None:
    """S192: shapes and dtypes are those of the program; no backend runs."""
    with FakeTensorMode() as mode:
        found = call_delegate(TRIPLED, mode.from_tensor(rand(7, 4)), mode.from_tensor(rand(4)))
    assert [tuple(t.shape) for t in found] == [(7, 4), ()] and all(t.is_fake for t in found)


def test_functionalize_leaves_the_call_whole() -> None:
    """S192: a function that writes and calls a delegate is functional around one call."""

    def g(x: Tensor, y: Tensor) -> Tensor:
        z = x.clone()
        z.add_(1)
        out = call_delegate(TRIPLED, z, y)[0]
        out.mul_(2)
        return out

    x, y = rand(3, 4), rand(4)
    assert same([polyop.func.functionalize(g)(x, y)], [g(x, y)])
    text = str(export(g, (x, y)).graph)
    assert text.count("call_delegate(") == 1 and "add_" not in text


def test_vmap_is_the_loop() -> None:
    """S192: a batch is one call per sample."""
    xs, y = rand(5, 3, 4), rand(4)
    found = polyop.vmap(lambda x: call_delegate(TRIPLED, x, y))(xs)
    wanted = [call_delegate(TRIPLED, x, y) for x in xs]
    assert same(found, [polyop.stack(list(column)) for column in zip(*wanted, strict=True)])
    found = polyop.vmap(lambda x, y: call_delegate(TRIPLED, x, y), in_dims=(1, None))(xs, y)
    assert found[0].shape == (3, 5, 4)


def grads(fn: Any, *tensors: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = fn(*leaves)
    return list(polyop.autograd.grad([(out[0] * out[0]).sum() + out[1]], leaves))


def test_the_gradient_is_that_of_the_program() -> None:
    """S193: without a backward of its own, a delegate has the gradient of its program."""
    x, y = rand(3, 4), rand(4)
    assert same(grads(lambda x, y: call_delegate(PLAIN, x, y), x, y), grads(f, x, y))


def test_gradients_of_gradients_and_of_chosen_results() -> None:
    """S193: second gradients, unused results, and inputs without gradient work as usual."""
    x, y = rand(3, 4).requires_grad_(), rand(4)
    for fn in (f, lambda x, y: call_delegate(PLAIN, x, y)):
        (first,) = polyop.autograd.grad([fn(x, y)[0].sum()], [x], create_graph=True)
        (second,) = polyop.autograd.grad([(first * first).sum()], [x])
        if fn is f:
            wanted = first.detach(), second
    assert same([first.detach(), second], wanted)
    (only,) = polyop.autograd.grad([call_delegate(PLAIN, x, y)[1]], [x])
    assert same([only], [polyop.ones_like(x)])
    with polyop.no_grad():
        assert not call_delegate(PLAIN, x, y)[0].requires_grad


def test_func_grad_and_jvp_run_the_program() -> None:
    """S193: under func.grad a delegate's program is differentiated."""
    x, y = rand(3, 4), rand(4)
    run = lambda x: call_delegate(PLAIN, x, y)[0].sum()  # noqa: E731
    assert same([polyop.func.grad(run)(x)], [polyop.func.grad(lambda x: f(x, y)[0].sum())(x)])
    per_sample = polyop.vmap(polyop.func.grad(lambda r: call_delegate(PLAIN, r[None], y)[1]))(x)
    assert same([per_sample], [polyop.ones_like(x)])


def test_a_backward_of_its_own_comes_first() -> None:
    """S193: the backend's backward gives the gradient, if it has one."""
    own = LoweredModule(PROGRAM, "own", b"o")
    found = grads(lambda x, y: call_delegate(own, x, y), rand(3, 4), rand(4))
    assert all((g.numpy() == 100).all() for g in found)


def test_no_gradient_is_an_error_not_a_detached_result() -> None:
    """S193: with neither, results still require grad, and backward raises."""
    bare = LoweredModule(None, "tripled", b"t")
    x = rand(3, 4).requires_grad_()
    out = call_delegate(bare, x, rand(4))
    assert out[0].requires_grad
    with pytest.raises(errors.MissingGradientError, match="no gradient"):
        out[0].sum().backward()
    with pytest.raises(errors.MissingGradientError):
        polyop.func.grad(lambda x: call_delegate(bare, x, rand(4))[1])(rand(3, 4))


def test_parameters_inside_a_delegate_get_their_gradients() -> None:
    """S193: what the program closes over has a gradient too, though no argument requires one."""
    weight = rand(4).requires_grad_()
    lowered = LoweredModule(export(lambda x: (x * weight).exp(), (rand(3, 4),)), "none")
    x = rand(3, 4)
    out = call_delegate(lowered, x)
    assert same(
        polyop.autograd.grad([out.sum()], [weight]),
        polyop.autograd.grad([(x * weight).exp().sum()], [weight]),
    )


def test_an_unknown_backend_is_the_program() -> None:
    """S191: a payload of a backend that nobody registered is run by its program."""
    lowered = LoweredModule(PROGRAM, "of_another_machine", b"payload")
    assert "of_another_machine" not in BACKENDS
    assert same(call_delegate(lowered, rand(3, 4), rand(4)), f(rand(3, 4), rand(4)))
    with pytest.raises(errors.DelegateError, match="no original program"):
        call_delegate(LoweredModule(None, "of_another_machine", b"payload"), rand(3))


def test_delegates_run_in_threads() -> None:
    """S191: one lowered module runs in many threads at once."""
    lowered = to_backend(PROGRAM, "onnx")
    module = lowered.module()
    args = [(rand(n, 4, seed=n), rand(4)) for n in range(2, 18)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: module(*pair), args))
    assert all(same(a, f(*pair)) for a, pair in zip(found, args, strict=True))


def test_a_lowered_program_is_compiled_whole() -> None:
    """S192: compile takes a delegate as one call too."""
    lowered = to_backend(PROGRAM, "onnx").state["lowered_module_0"]
    run = polyop.compile(lambda x, y: call_delegate(lowered, x, y)[0] * 2, fullgraph=True)
    x, y = rand(3, 4), rand(4)
    for n in (3, 5, 6):
        x = rand(n, 4)
        assert polyop.allclose(run(x, y), call_delegate(lowered, x, y)[0] * 2)

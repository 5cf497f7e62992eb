"""What a higher-order operator's function asks, reads and is given is what a plain call has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.errors import MutationError, SubgraphError
from polyop.extend import make_wrapper_subclass
from polyop.graph import make_fx
from polyop.hop import checkpoint, invoke_subgraph, wrap, wrap_with_autocast

X = polyop.tensor([1.0, 2.0], dtype="float64")


def numbered(out: Any) -> list[float]:
    return [float(v) for v in out.detach().numpy()]


# -- invoke_subgraph ----------------------------------------------------------------------------


def by_variable(x: Any) -> Any:
    k = 2.0
    body = lambda v: v * k  # noqa: E731
    first = invoke_subgraph(body, "name", x)
    k = 5.0
    return first * 10 + invoke_subgraph(body, "name", x)


def by_list(x: Any) -> Any:
    factors = [2.0]
    body = lambda v: v * factors[0]  # noqa: E731
    first = invoke_subgraph(body, "name", x)
    factors[0] = 5.0
    return first * 10 + invoke_subgraph(body, "name", x)


def by_grad_mode(x: Any) -> Any:
    body = lambda v: v * (2.0 if polyop.is_grad_enabled() else 5.0)  # noqa: E731
    first = invoke_subgraph(body, "name", x)
    with polyop.no_grad():
        return first * 10 + invoke_subgraph(body, "name", x)


@pytest.mark.parametrize("fn", [by_variable, by_list, by_grad_mode])
def test_a_body_is_traced_as_it_is_at_each_call(fn: Callable[..., Any]) -> None:
    """S179: a traced body is not used again when what it reads has changed."""
    for make in (polyop.compile, lambda f: lambda x: make_fx(f, "fake")(x)(x)):
        assert numbered(make(fn)(X)) == numbered(fn(X)) == [25.0, 50.0]


def test_a_body_that_did_not_change_is_kept_once() -> None:
    """S179: a program keeps one subgraph for calls that are the same."""

    def twice(x: Any) -> Any:
        return invoke_subgraph(lambda v: v * 2, "name", invoke_subgraph(lambda v: v * 2, "name", x))

    program = make_fx(twice, "fake")(X)
    assert sum(node.op == "get_attr" for node in program.graph.nodes) == 1
    assert numbered(program(X)) == [4.0, 8.0]


# -- what a body asks ---------------------------------------------------------------------------


def by_operand(v: Any) -> Any:
    return v * 2 if v.requires_grad else v * 3


def by_result(v: Any) -> Any:
    t = v * 1.0
    return t * 2 if t.requires_grad else t * 3


@pytest.mark.parametrize("body", [by_operand, by_result])
def test_checkpoint_runs_the_branch_of_its_gradient(body: Callable[..., Any]) -> None:
    """S179: the function sees which operands require grad, at a tensor and inside a transform."""
    x = X.clone().requires_grad_()
    out = checkpoint(body, x)
    out.sum().backward()
    assert numbered(out) == [2.0, 4.0]
    assert numbered(x.grad) == [2.0, 2.0]
    assert numbered(func.vjp(lambda v: checkpoint(body, v), X)[0]) == [2.0, 4.0]
    assert numbered(checkpoint(body, X)) == [3.0, 6.0]


def test_checkpoint_of_its_operand() -> None:
    """S179: a result that is an operand, or a view of one, has its gradient."""
    for body in (lambda v: v, lambda v: v[:1], lambda v: (v, v * 2, v.reshape((1, 2)))):
        found = []
        for call in (checkpoint, lambda f, v: f(v)):
            x = X.clone().requires_grad_()
            sum((t * t).sum() for t in polyop.tree.leaves(call(body, x * 3))).backward()
            found.append(numbered(x.grad))
        assert found[0] == found[1]


def test_checkpoint_refuses_to_write_what_requires_grad() -> None:
    """S179: the function runs again in backward, so it may not write its operand."""
    x = X.clone().requires_grad_()
    with pytest.raises(MutationError, match="leaf that requires grad"):
        checkpoint(lambda v: v.mul_(2.0), x * 1.0)


@pytest.mark.parametrize("call", [checkpoint, wrap])
def test_grad_mode_inside_a_capture(call: Any) -> None:
    """S179: the value and the gradient of a captured call are those of one branch."""
    fn = polyop.compile(lambda v: call(lambda t: t * (2 if polyop.is_grad_enabled() else 3), v))
    x = X.clone().requires_grad_()
    out = fn(x)
    out.sum().backward()
    assert (numbered(out), numbered(x.grad)) == ([2.0, 4.0], [2.0, 2.0])


# -- autocast -----------------------------------------------------------------------------------


@polyop.custom_op("hop_bodies::cast", mutates_args=())
def cast(x: polyop.Tensor) -> polyop.Tensor:
    """Copy a tensor."""
    return x * 1.0


cast.register_fake(lambda x: x * 1.0)
cast.register_autocast("cpu", polyop.float16)


def test_autocast_off_inside_autocast() -> None:
    """S179: in a capture too, a part of the function with autocast off is not cast."""

    def off(v: Any) -> Any:
        with polyop.autocast("cpu", polyop.float16, False):
            return cast(v), polyop.sin(v)

    x = polyop.tensor([1.0, 2.0])
    f = lambda v: wrap_with_autocast(  # noqa: E731
        "cpu", polyop.float16, True, None, lambda v: (cast(v), *off(v)), v
    )
    forms = (
        f,
        polyop.compile(f, fullgraph=True),
        make_fx(f, "fake")(x),
        make_fx(f, "fake", pre_dispatch=True)(x),
        polyop.export.export(f, (x,)).module(),
    )
    for form in forms:
        assert [t.dtype.name for t in form(x)] == ["float16", "float32", "float32"]


# -- operands of a class of their own -----------------------------------------------------------


class Two(polyop.Tensor):
    """A tensor around another one."""

    inner: Any

    @staticmethod
    def make(inner: Any) -> Two:
        """Wrap a tensor."""
        made = make_wrapper_subclass(Two, tuple(inner.shape), dtype=inner.dtype, device="cpu")
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> Any:
        return ["inner"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls.make(inner["inner"])

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (tuple(args), dict(kwargs or {}))
        args, kwargs = polyop.tree.map_leaves(lambda v: getattr(v, "inner", v), given)
        out = op(*args, **kwargs)
        return polyop.tree.map_leaves(
            lambda t: cls.make(t) if isinstance(t, polyop.Tensor) else t, out
        )


LOOPS: dict[str, Callable[[Any], Any]] = {
    "map": lambda w: polyop.map(lambda z: z * 2, w),
    "scan": lambda w: polyop.scan(lambda c, z: (c + z, z * 1.0), w[0], w)[0],
    "while_loop": lambda w: polyop.while_loop(lambda v: v.sum() < 9, lambda v: (v * 2,), (w,))[0],
    "associative_scan": lambda w: polyop.associative_scan(lambda a, b: a + b, w),
}


def test_a_while_loop_of_wrappers_is_refused_in_a_trace() -> None:
    """S165: a trace refuses an operand that is a wrapper; it never goes on with its fake."""
    with pytest.raises(SubgraphError, match="an operand of a traced subgraph is a Two"):
        make_fx(LOOPS["while_loop"], "fake")(Two.make(X))


TRACES: dict[str, Callable[[Any, Any], Any]] = {
    "make_fx": lambda f, x: make_fx(f)(x)(x * 2),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x)(x * 2),
    "compile": lambda f, x: polyop.compile(f, fullgraph=True)(x * 2),
    "export": lambda f, x: polyop.export.export(f, (x,)).module()(x * 2),
    "grad": lambda f, x: make_fx(func.grad(lambda x: (f(x) ** 2).sum()))(x)(x * 2),
    "vmap": lambda f, x: make_fx(func.vmap(f))(polyop.stack([x, x]))(polyop.stack([x * 2, x]))[0],
    "jvp": lambda f, x: make_fx(lambda x: func.jvp(f, (x,), (x,))[1])(x)(x * 2),
}
PLAINLY: dict[str, Callable[[Any, Any], Any]] = {
    "grad": lambda f, x: func.grad(lambda x: (f(x) ** 2).sum())(x * 2),
    "jvp": lambda f, x: func.jvp(f, (x * 2,), (x * 2,))[1],
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("loop", ["map", "scan", "associative_scan"])
def test_loops_of_wrappers_are_traced_step_by_step(loop: str, trace: str) -> None:
    """S165, S182: what a step of a wrapper is, its class says; the program holds all of them."""

    def f(x: Any) -> Any:
        return LOOPS[loop](Two.make(x)).inner

    x = polyop.asarray(np.arange(6.0).reshape(3, 2))
    want = PLAINLY.get(trace, lambda f, x: f(x * 2))(f, x)
    np.testing.assert_array_equal(TRACES[trace](f, x).numpy(), want.numpy())


# -- inside batches -----------------------------------------------------------------------------


def test_a_loop_in_a_branch_of_a_batch() -> None:
    """S180, S182: a trace keeps a loop whole that runs for samples which did not choose it."""
    batch = polyop.tensor([[0.3, 0.4], [-1.0, 0.2], [2.0, 3.0]], dtype="float64")

    def one(v: Any) -> Any:
        yes = lambda c: polyop.while_loop(lambda c: c.sum() < 3, lambda c: (c * 2 + 1,), (c,))[0]  # noqa: E731
        return polyop.cond(v.sum() > 0, yes, lambda v: v * 1.0, (v,))

    f = func.vmap(one)
    expected = np.stack([one(v).numpy() for v in batch])
    for form in (f, make_fx(f, "fake")(batch), polyop.compile(f, fullgraph=True)):
        np.testing.assert_allclose(form(batch).numpy(), expected)


def test_effects_in_a_loop_of_a_branch_of_a_batch() -> None:
    """S180: an effect in a loop that stays whole is refused too."""

    def one(v: Any) -> Any:
        step = lambda c: ((polyop.hop.print("step"), c * 2)[1],)  # noqa: E731
        yes = lambda c: polyop.while_loop(lambda c: c.sum() < 3, step, (c,))[0]  # noqa: E731
        return polyop.cond(v.sum() > 0, yes, lambda v: v * 1.0, (v,))

    with pytest.raises(SubgraphError, match="acts on the world"):
        make_fx(func.vmap(one), "fake")(polyop.ones((2, 2)))


def test_hessian_of_a_scan_whose_step_calls_a_subgraph() -> None:
    """S182: what of a carry differs from sample to sample is the same with and without a trace."""
    x, steps = X * 0.2, polyop.ones((1, 2), dtype="float64")

    def f(v: Any) -> Any:
        inner = lambda c, z, q: (polyop.sin(wrap(lambda a, b: polyop.sin(b), q, c)), polyop.sin(c))  # noqa: E731
        return polyop.scan(inner, v, steps, (v * 0,))[1].sum()

    expected = func.hessian(f)(x).numpy()
    np.testing.assert_allclose(expected, np.diag(-np.sin(x.numpy())), atol=1e-12)
    for form in (make_fx(func.hessian(f), "fake")(x), polyop.compile(func.hessian(f))):
        np.testing.assert_allclose(form(x).numpy(), expected, atol=1e-12)

"""The laws of functionalization (S168)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.errors import ArgumentError, MutationError, UsageError
from polyop.layers.autograd.transforms import grad
from polyop.layers.functionalize import functionalize
from polyop.layers.trace.make_fx import make_fx
from polyop.layers.vmap import vmap
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.inplace import add_, copy_, multiply_, zero_
from polyop.ops.reductions import sum as total
from polyop.ops.views import (
    broadcast_to,
    diagonal,
    expand_dims,
    flip,
    permute_dims,
    reshape,
    select,
    slice_axis,
    transpose,
)
from polyop.tensor.tensor import Tensor, of_array


def tensor(*shape: int) -> Tensor:
    return of_array(np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape))


def observe(f: Callable[..., Any], arrays: list[Any]) -> Any:
    """Give the results, the inputs afterwards, and which of them share memory."""
    inputs = [of_array(a.copy()) for a in arrays]
    outs = f(*inputs)
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    everything = [t.numpy() for t in [*inputs, *outs]]
    shared = [[bool(np.shares_memory(a, b)) for a in everything] for b in everything]
    return [a.tolist() for a in everything], shared


def check(f: Callable[..., Any], *arrays: Any) -> None:
    """Compare a function with its functional form."""
    assert observe(functionalize(f), list(arrays)) == observe(f, list(arrays))


VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: select(x, 0, 1),
    lambda x: select(x, -1, 0),
    lambda x: slice_axis(x, 0, 1, None),
    lambda x: slice_axis(x, 1, None, None, 2),
    lambda x: transpose(x, 0, 1),
    lambda x: permute_dims(x, [1, 0]),
    lambda x: flip(x, [0]),
    lambda x: diagonal(x),
    lambda x: expand_dims(x, 1),
    lambda x: reshape(x, [-1]),
    lambda x: reshape(x, [x.shape[1], x.shape[0]]),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("outer", VIEWS[:8])
def test_writes_through_views(view: Any, outer: Any) -> None:
    """S168: a write through views of views reaches base and aliases, as it does eagerly."""

    def f(x: Tensor) -> Any:
        y = add(x, 1.0)
        v = view(y)
        w = outer(v) if len(v.shape) == 2 else v
        multiply_(w, 10.0)
        add_(y, y)
        return y, v, sin(w), w

    check(f, np.arange(12.0).reshape(3, 4))


def test_writes_to_inputs_come_once_at_the_end() -> None:
    """S168: inputs are written by one copy each, at the end, and not at all if unwritten."""

    def f(x: Tensor, y: Tensor) -> Tensor:
        add_(x, y)
        multiply_(select(x, 0, 0), 2.0)
        return multiply(x, y)

    x, y = tensor(2, 2), tensor(2, 2)
    before = x._version, y._version
    functionalize(f)(x, y)
    assert (x._version - before[0], y._version) == (1, before[1])
    check(f, np.ones((2, 2)), np.arange(4.0).reshape(2, 2))


def test_nothing_is_written_before_the_end() -> None:
    """S4: a function that fails leaves its inputs as they were."""

    def f(x: Tensor) -> Tensor:
        add_(x, 1.0)
        raise ZeroDivisionError

    x = tensor(3)
    with pytest.raises(ZeroDivisionError):
        functionalize(f)(x)
    np.testing.assert_array_equal(x.numpy(), [1, 2, 3])
    assert not word().levels


def test_inputs_that_share_memory() -> None:
    """S168: a write to one argument is seen by another that views the same memory."""

    def f(a: Tensor, b: Tensor) -> Tensor:
        multiply_(a, 10.0)
        add_(b, 1.0)
        return add(a, b)

    results = []
    for form in (f, functionalize(f)):
        base = tensor(2, 3)
        out = form(select(base, 0, 0), slice_axis(select(base, 0, 0), 0, 0, 3))
        results.append((out.numpy().tolist(), base.numpy().tolist()))
        twice = tensor(2)
        results[-1] += (form(twice, twice).numpy().tolist(), twice.numpy().tolist())  # type: ignore[assignment]
    assert results[0] == results[1]


def test_returned_inputs_are_the_inputs() -> None:
    """S168: an argument that is returned is itself, and a returned view of it views it."""
    x = tensor(2, 2)
    got, view = functionalize(lambda a: (add_(a, 1.0), select(a, 0, 0)))(x)
    assert got is x
    assert np.shares_memory(view.numpy(), x.numpy())
    np.testing.assert_array_equal(view.numpy(), [2, 3])


def test_tensors_made_inside() -> None:
    """S168: what the function makes is replaced, whatever writes it."""
    from_clone = lambda x: add_(copy_(multiply(x, 0.0), x), 3.0)  # noqa: E731
    check(from_clone, np.arange(3.0))


def test_views_can_be_removed_too() -> None:
    """S168: with `mutations_and_views` no result shares memory with another."""

    def f(x: Tensor) -> Any:
        y = add(x, 1.0)
        v = select(y, 0, 0)
        multiply_(v, 5.0)
        return y, v

    x = tensor(2, 2)
    y, v = functionalize(f, remove="mutations_and_views")(x)
    want = f(x)
    np.testing.assert_array_equal(y.numpy(), want[0].numpy())
    np.testing.assert_array_equal(v.numpy(), want[1].numpy())
    assert not np.shares_memory(y.numpy(), v.numpy())


def test_errors() -> None:
    """S168: options are checked; writes that cannot be carried back are refused."""
    with pytest.raises(UsageError, match="did you mean 'mutations'"):
        functionalize(sin, remove="mutation")
    with pytest.raises(UsageError, match="takes a function"):
        functionalize(1)  # type: ignore[arg-type]
    with pytest.raises(MutationError, match="broadcast"):
        functionalize(lambda x: zero_(broadcast_to(x, [2, 3])))(tensor(3))
    with pytest.raises(ArgumentError, match="cannot be written"):
        functionalize(lambda x, y: add_(x, y))(tensor(3), tensor(2, 3))
    kept: list[Tensor] = []
    functionalize(lambda x: kept.append(add(x, 1.0)))(tensor(2))
    with pytest.raises(MutationError, match="has ended"):
        sin(kept[0])


def test_inside_and_outside_of_vmap() -> None:
    """S168: functionalize and vmap nest in both orders."""

    def f(x: Tensor) -> Tensor:
        y = multiply(x, 2.0)
        add_(select(y, 0, 0), 1.0)
        return y

    x = tensor(3, 2)
    want = vmap(f)(x).numpy()
    np.testing.assert_array_equal(vmap(functionalize(f))(x).numpy(), want)
    np.testing.assert_array_equal(functionalize(vmap(f))(x).numpy(), want)
    a, b = tensor(3, 2), tensor(3, 2)
    vmap(add_)(a, x)
    functionalize(vmap(add_))(b, x)
    np.testing.assert_array_equal(a.numpy(), b.numpy())


Steps = st.lists(
    st.tuples(
        st.sampled_from(["view", "write", "scale", "pure", "copy"]),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=10,
)


def program(steps: list[tuple[str, int, int]]) -> Callable[..., Any]:
    """Give a function that makes views, writes and new tensors as the steps say."""

    def run(x: Tensor) -> Any:
        pool = [x, add(x, 1.0)]
        for what, i, j in steps:
            t = pool[i % len(pool)]
            if what == "view" and len(t.shape) == 2 and min(t.shape) > 1:
                pool.append(VIEWS[j % 8](t))
            elif what == "write":
                others = [u for u in pool if u.shape == t.shape]
                add_(t, others[j % len(others)])
            elif what == "scale":
                multiply_(t, float(j % 3))
            elif what == "copy":
                copy_(t, sin(t))
            else:
                pool.append(sin(t))
        return pool[1:]

    return run


@settings(max_examples=150, deadline=None)
@given(Steps)
def test_random_programs(steps: list[tuple[str, int, int]]) -> None:
    """S168: values, aliases and writes of a random program are those of its functional form."""
    check(program(steps), np.arange(9.0).reshape(3, 3) / 9)


def test_traced_programs_write_nothing() -> None:
    """S168: the graph of a functionalized function writes only its inputs, last."""

    def f(x: Tensor) -> Tensor:
        y = add(x, 1.0)
        multiply_(select(y, 0, 0), 10.0)
        add_(x, y)
        return sin(y)

    gm = make_fx(functionalize(f))(tensor(2, 3))
    names = [str(n.target) for n in gm.graph.nodes if n.op == "call_function"]
    writes = [i for i, name in enumerate(names) if "_." in name]
    assert len(writes) == 1
    assert "copy_" in names[writes[0]]
    assert writes[0] == len(names) - 1
    a, b = tensor(2, 3), tensor(2, 3)
    np.testing.assert_array_equal(gm(a).numpy(), f(b).numpy())
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_gradients_are_those_of_the_function() -> None:
    """S168: writes and views inside do not change the gradient."""

    def f(x: Tensor) -> Tensor:
        y = multiply(x, 2.0)
        multiply_(select(y, 0, 0), y.shape[0] * 1.0)
        add_(select(y, 0, 1), select(y, 0, 0))
        return total(multiply(sin(y), y))

    eager = tensor(2, 3).requires_grad_()
    f(eager).backward()
    ours = tensor(2, 3).requires_grad_()
    functionalize(f)(ours).backward()
    np.testing.assert_allclose(ours.grad.numpy(), eager.grad.numpy())
    np.testing.assert_allclose(grad(functionalize(f))(tensor(2, 3)).numpy(), eager.grad.numpy())
    inside = functionalize(grad(lambda x: total(multiply(sin(x), x))))(tensor(3)).numpy()
    x = tensor(3).numpy()
    np.testing.assert_allclose(inside, np.cos(x) * x + np.sin(x))


def shifted(p: Tensor, q: Tensor) -> Tensor:
    """Write what both arguments may share, in two steps."""
    add_(p, q)
    view = slice_axis(p, 0, 0, 1)
    add_(select(p, 0, 0), select(q, 0, 1))
    return view


@pytest.mark.parametrize("mode", ["real", "fake"])
@pytest.mark.parametrize("outer", [lambda x: (x, x), lambda x: (x, slice_axis(x, 0, None, None))])
def test_a_trace_inside_knows_who_shares_memory(mode: str, outer: Any) -> None:
    """S168, S209: stand-ins for functional tensors share memory as these do; no write is lost."""

    def traced(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: make_fx(f, mode)(*args)(*args)

    once = functionalize(lambda x: traced(shifted)(*outer(x)))
    np.testing.assert_array_equal(once(tensor(2, 3)).numpy(), shifted(*[tensor(2, 3)] * 2).numpy())
    with pytest.raises(MutationError, match="whose memory another argument has too"):
        functionalize(lambda x: traced(functionalize(shifted))(*outer(x)))(tensor(2, 3))


def test_a_functional_tensor_says_what_gradients_do() -> None:
    """S168: `requires_grad` and `is_leaf` answer as inside of the function itself."""
    seen: list[list[bool]] = []

    def f(x: Tensor) -> Tensor:
        made = tensor(2)
        asked = [x, multiply(x, 2.0), select(x, 0, 0), made]
        answers = [a for t in asked for a in (t.requires_grad, t.is_leaf)]
        add_(made, x)
        seen.append([*answers, made.requires_grad, made.is_leaf])
        return multiply(x, 2.0 if x.requires_grad else 3.0)

    x = tensor(2).requires_grad_()
    for form in (f, functionalize(f), functionalize(functionalize(f))):
        np.testing.assert_array_equal(form(x).detach().numpy(), [2.0, 4.0])
    assert seen[0] == seen[1] == seen[2]
    for form in (f, functionalize(f)):
        np.testing.assert_array_equal(grad(lambda x: total(form(x)))(tensor(2)).numpy(), [2, 2])

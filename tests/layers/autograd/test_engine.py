"""The engine: accumulation, freeing, order, hooks, threads."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.errors import AutogradError, UsageTypeError
from polyop.layers.autograd import backward, enable_grad, grad
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

add, mul, exp, total = (OPS[n] for n in ("add", "multiply", "exp", "sum"))


def leaf(data: Any, dtype: Any = float) -> Tensor:
    """Make a leaf."""
    return of_array(np.array(data, dtype)).requires_grad_()


def test_gradients_add_up() -> None:
    """S138: backward adds to `.grad`, also where an input is used twice."""
    x = leaf([1.0, 2.0])
    total(mul(x, x)).backward()
    total(x).backward()
    assert x.grad.tolist() == [3, 5]


def test_leaves_never_share_memory() -> None:
    """Two leaves' gradients, the given gradient and saved values own separate memory."""
    x, y, g = leaf([1.0, 2.0]), leaf([3.0, 4.0]), of_array(np.ones(2))
    add(x, y).backward(g)
    arrays = [x.grad.payload, y.grad.payload, g.payload]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])
    one, z = leaf(1.0), leaf(2.0)
    add(one, z).backward()
    one.grad.payload[...] = 7
    assert z.grad.item() == 1
    last = leaf(1.0)
    mul(last, 1.0).backward()
    assert last.grad.item() == 1


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_grad_never_share_memory(create_graph: bool) -> None:
    """S138: the gradients that `grad` gives can be written without changing each other."""
    x, y = leaf([1.0]), leaf([2.0])
    a, b = grad(total(add(x, y)), [x, y], create_graph=create_graph)
    a.payload[...] = 5
    assert b.item() == 1


def test_a_freed_graph_says_so() -> None:
    """S138: a second backward without retain_graph raises; with it, it repeats the first."""
    x = leaf([1.0, 2.0])
    out = total(exp(x))
    out.backward(retain_graph=True)
    once = x.grad.tolist()
    out.backward()
    np.testing.assert_allclose(x.grad.tolist(), np.multiply(once, 2))
    with pytest.raises(AutogradError, match="retain_graph=True"):
        out.backward()


def test_the_root_may_be_a_leaf() -> None:
    """S138: backward of a leaf gives it its own gradient."""
    x = leaf(3.0)
    x.backward()
    x.backward(of_array(np.array(2.0)))
    assert x.grad.item() == 3


def test_unused_inputs() -> None:
    """S138: an input that is not reached raises, or gives None or zeros if asked."""
    x, y = leaf([1.0]), leaf([2.0, 3.0])
    with pytest.raises(AutogradError, match="allow_unused"):
        grad(total(x), [x, y], retain_graph=True)
    assert grad(total(x), [x, y], allow_unused=True)[1] is None
    assert grad(total(x), [y], materialize_grads=True)[0].tolist() == [0, 0]


def test_grad_of_inner_tensors() -> None:
    """S138: gradients of tensors that are no leaves, together with those of leaves."""
    x = leaf([1.0, 2.0])
    y = mul(x, x)
    gx, gy = grad(total(mul(y, y)), [x, y])
    assert gy.tolist() == [2, 8]
    assert gx.tolist() == [4, 32]
    assert x.grad is None


def test_grad_goes_only_where_it_must() -> None:
    """S138: `grad` leaves alone the parts of a graph that reach none of its inputs."""
    x, y = leaf(1.0), leaf(2.0)
    kept = exp(y)
    out = mul(exp(x), kept)
    grad(out, [x])
    kept.backward()
    assert y.grad.item() == pytest.approx(np.exp(2))


def test_several_roots() -> None:
    """S138: several outputs, one of them an input of another, give the sum of gradients."""
    x = leaf([1.0, 2.0])
    y = mul(x, x)
    z = exp(y)
    ones = of_array(np.ones(2))
    backward([y, z], [ones, ones])
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy(force=True) * (1 + np.exp([1, 4])))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: of_array(np.ones(2)).backward(), "does not require grad"),
        (lambda x: mul(x, 2.0).backward(), "no scalar"),
        (lambda x: mul(x, 2.0).backward(of_array(np.ones(3))), "wrong shape"),
        (lambda x: grad(total(x), of_array(np.ones(2))), "does not require grad"),
        (lambda x: backward([total(x)], [None, None]), "one gradient per output"),
        (lambda x: of_array(np.ones(2, int)).requires_grad_(), "only floating-point"),
        (lambda x: mul(x, 2.0).requires_grad_(False), "detach"),
        (lambda x: setattr(x, "grad", of_array(np.ones(3))), "shape of its tensor"),
    ],
)
def test_mistakes(call: Any, text: str) -> None:
    """S1: each wrong use of backward says what is wrong."""
    with pytest.raises(AutogradError, match=text):
        call(leaf([1.0, 2.0]))


def test_what_is_no_tensor() -> None:
    """S1: backward of something else says what it got."""
    with pytest.raises(UsageTypeError, match="float"):
        backward([1.0])  # type: ignore[list-item]


def test_a_million_nodes() -> None:
    """S138: a chain of a million operators is differentiated, and freed, without recursion."""
    x = leaf([1.0])
    y = x
    one = of_array(np.ones(1))
    for _ in range(1_000_000):
        y = mul(y, one)
    y.backward()
    assert x.grad.tolist() == [1]
    del y


def test_a_chain_that_never_ran_is_freed() -> None:
    """S138: a long graph whose backward never ran is freed without recursion."""
    x = leaf([1.0])
    y = x
    for _ in range(200_000):
        y = exp(mul(y, 0.0))
    del y


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "sqrt", "topk"])
def test_no_cycles(name: str) -> None:
    """A graph is freed with its last tensor, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        x = leaf([1.0, 2.0])
        y = OPS[name](x, 1) if name == "topk" else OPS[name](x)
        y = y[0] if isinstance(y, tuple) else y
        ends = [weakref.ref(y)]
        nodes = [weakref.ref(end().grad_node) for end in ends]
        del y
        assert all(ref() is None for ref in [*ends, *nodes])
    finally:
        gc.enable()


def test_hooks() -> None:
    """S138: hooks see and replace gradients, of leaves and others, until they are removed."""
    x = leaf([1.0, 2.0])
    y = mul(x, x)
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: mul(g, 10.0))
    total(y).backward(retain_graph=True)
    assert seen == [[20, 40]]
    handle.remove()
    total(y).backward()
    assert len(seen) == 1
    assert x.grad.tolist() == [40, 80]


def test_hooks_of_grad_and_create_graph() -> None:
    """S138: hooks work in both modes, and what they do is differentiated."""
    x = leaf(3.0)
    y = mul(x, x)
    y.register_hook(lambda g: mul(g, x))
    (g,) = grad(y, [x], create_graph=True)
    assert g.item() == 18
    assert grad(g, [x])[0].item() == 12


def test_a_bad_hook() -> None:
    """S138: a hook that returns no gradient is refused."""
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: total(g))
    with pytest.raises(AutogradError, match="hook"):
        total(x).backward()


def test_retain_grad() -> None:
    """S138: a tensor that is no leaf keeps its gradient on request."""
    x = leaf([1.0, 2.0])
    y = mul(x, x)
    y.retain_grad()
    total(mul(y, y)).backward()
    assert y.grad.tolist() == [2, 8]


def test_threads() -> None:
    """Backwards of several threads on graphs that share nodes do not disturb each other."""
    x = leaf(np.linspace(0.1, 0.5, 5))
    shared = exp(x)
    found: list[Any] = [None] * 8

    def work(i: int) -> None:
        for _ in range(30):
            out = total(mul(shared, float(i)))
            found[i] = grad(out, [x], retain_graph=True)[0].tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, g in enumerate(found):
        np.testing.assert_allclose(g, i * np.exp(np.linspace(0.1, 0.5, 5)))


@pytest.mark.parametrize("way", ["method", "function", "hook"])
def test_threads_add_to_one_leaf(way: str) -> None:
    """S138: backwards of several threads to one leaf add up, and none is lost."""
    x = leaf([1.0, 2.0])
    if way == "hook":
        x.register_hook(lambda g: g)

    def work() -> None:
        for _ in range(50):
            out = total(mul(x, 2.0))
            backward(out) if way == "function" else out.backward()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert x.grad.tolist() == [400, 400]


def test_backward_inside_backward() -> None:
    """A hook may run a backward of its own, on the same leaves."""
    x = leaf(2.0)
    y = mul(x, x)
    inner = []

    def hook(g: Tensor) -> None:
        z = leaf(3.0)
        with enable_grad():
            mul(z, z).backward()
        inner.append(z.grad.item())

    y.register_hook(hook)
    y.backward()
    assert (inner, x.grad.item()) == ([6], 4)


def test_create_graph_keeps_history_in_leaves() -> None:
    """S133: with create_graph, `.grad` can be differentiated."""
    x = leaf(2.0)
    mul(mul(x, x), x).backward(create_graph=True)
    assert x.grad.requires_grad
    (second,) = grad(x.grad, [x])
    assert second.item() == 12


def test_leaf_facts() -> None:
    """A leaf has no `grad_fn`; what is computed has one, and names its operator."""
    x = leaf(2.0)
    y = mul(x, x)
    assert (x.is_leaf, x.grad_fn, y.is_leaf) == (True, None, False)
    assert y.grad_fn.op.name() == "core::multiply"
    assert not y.detach().requires_grad
    x.requires_grad_(False)
    assert not mul(x, x).requires_grad

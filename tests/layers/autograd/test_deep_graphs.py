"""Deep and wide graphs: no recursion anywhere, and work that grows with the nodes (S138)."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, autograd, func
from polyop.layers.autograd import engine
from polyop.tensor.tensor import MADE

DEPTH = 20_000


@pytest.fixture(autouse=True)
def shallow_stack() -> Iterator[None]:
    """Leave room for pytest, and for nothing that recurses once per node."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    yield
    sys.setrecursionlimit(limit)


def leaf(value: float = 0.5) -> Tensor:
    """Make a leaf."""
    return polyop.tensor(value, dtype=polyop.float64, requires_grad=True)


def chain(step: Callable[[Any], Any], x: Any, n: int = DEPTH) -> Any:
    """Call one behind the other."""
    for _ in range(n):
        x = step(x)
    return x


@polyop.library.custom_op("deeptest::same", mutates_args=())
def same(x: Tensor) -> Tensor:
    """Give a copy."""
    return polyop.from_numpy(x.numpy().copy())


same.register_autograd(
    lambda ctx, g: g * (ctx.saved_tensors[0] == ctx.saved_tensors[0]),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@polyop.library.custom_op("deeptest::pair", mutates_args=())
def pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give two copies."""
    return polyop.from_numpy(x.numpy().copy()), polyop.from_numpy(x.numpy().copy())


pair.register_autograd(lambda ctx, a, b: a + b)


class Same(autograd.Function):
    """The identity, with a gradient of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Copy it."""
        return x * 1.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the input."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Give the gradient."""
        return g


def written(x: Tensor) -> Tensor:
    """Write to a value that has a history."""
    y = x * 1.0
    y.add_(0.0)
    return y


STEPS: dict[str, Callable[[Any], Any]] = {
    "built in": lambda x: x * 1.0,
    "custom": same,
    "several results": lambda x: sum(pair(x)) * 0.5,
    "function": Same.apply,
    "write": written,
    "view": lambda x: x.reshape(1).reshape(()),
    "tree": lambda x: (x + x) * 0.5,
}


@pytest.mark.parametrize("name", STEPS)
def test_chains_of_any_kind(name: str) -> None:
    """S138: forward, backward and destruction of a chain do not recurse, and lose nothing."""
    x = leaf()
    y = chain(STEPS[name], x, 3_000)
    y.backward()
    assert x.grad is not None
    assert np.isclose(x.grad.item(), 1.0)
    del y
    gone = chain(STEPS[name], x, 3_000)
    del gone  # with all that is saved


def test_a_kept_graph_goes_with_its_result() -> None:
    """S138: a long graph that backward kept is dropped with its last tensor."""
    x = leaf()
    y = chain(lambda x: x * 1.0, x, 100_000)
    y.backward(retain_graph=True)
    assert x.grad is not None
    assert x.grad.item() == 1.0
    there = weakref.ref(y.grad_fn)
    del y
    assert there() is None


@pytest.fixture
def no_subclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has made no Tensor subclass: else each graph is searched for them."""
    monkeypatch.setattr(MADE, "subclasses", False)


@pytest.mark.usefixtures("no_subclasses")
def test_memory_grows_with_nodes_alone() -> None:
    """S138: a node of a chain costs less than half a kilobyte, and nothing is left of it."""
    x = leaf()
    chain(polyop.sin, x, 10)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = chain(polyop.sin, x)
        held = tracemalloc.get_traced_memory()[0] - before
        y.backward()
        peak = tracemalloc.get_traced_memory()[1] - before
        del y
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 512 * DEPTH
    assert peak < 1.1 * held
    assert left < 0.05 * held


def test_second_gradients_of_deep_graphs() -> None:
    """S133: what create_graph records is a deep graph too, and goes back."""
    x = leaf()
    y = chain(lambda x: polyop.sin(x) * 1.0, x, 5_000)
    (g,) = autograd.grad(y, x, create_graph=True)
    (h,) = autograd.grad(g, x)
    assert np.isfinite(h.item())
    del g, h, y


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("name", ["built in", "custom", "function", "tree"])
def test_deep_graphs_in_transforms(name: str) -> None:
    """S134: levels of `func.grad`, `jvp` and `vmap` do not recurse either."""
    x = polyop.tensor([0.5, 0.6], dtype=polyop.float64)

    def f(x: Tensor) -> Tensor:
        return chain(STEPS[name], x, 300).sum()

    assert np.allclose(func.grad(f)(x).tolist(), 1.0)
    assert np.isclose(func.jvp(f, (x,), (polyop.ones_like(x),))[1].item(), 2.0)
    assert np.allclose(func.vmap(func.grad(f))(x[:, None]).tolist(), 1.0)


def test_a_write_looks_for_views_only_if_there_may_be_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S136: a write searches no memory for views, unless others than its own hold the storage."""
    searches: list[Any] = []
    search = gc.get_objects
    monkeypatch.setattr(gc, "get_objects", lambda *a: searches.append(a) or search(*a))
    x = leaf()
    for write in ("add_", "exp_", "mul_", "tanh_"):
        y = x * 1.0
        getattr(y, write)(*([0.5] if write in {"add_", "mul_"} else []))
        y.backward()
    z = polyop.stack([x, x]) * 1.0
    z[0].add_(1.0)
    assert not searches
    first, second = z[0], z[1]
    second.mul_(3.0)
    first.mul_(5.0)
    assert searches
    x.grad = None
    (first + second + z.sum()).backward()
    assert x.grad is not None
    assert x.grad.item() == 16.0


def test_wide_graphs() -> None:
    """S138: a tensor that is used often gets the sum of all."""
    x = leaf()
    polyop.stack([x * 2.0 for _ in range(DEPTH)]).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 2.0 * DEPTH


@pytest.mark.usefixtures("no_subclasses")
def test_the_way_to_wanted_nodes_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """S138: a graph with very many ways through it is searched node by node."""
    looked: list[Any] = []
    edges = engine.edges

    def counting(node: Any) -> Any:
        looked.append(node)
        return edges(node)

    monkeypatch.setattr(engine, "edges", counting)
    x = leaf()
    y = chain(lambda x: (x + x) * 0.5, x, 200)  # two to the two hundredth ways
    (g,) = autograd.grad(y, x)
    assert g.item() == 1.0
    assert len(looked) <= 2 * 200 + 2


def test_a_leaf_is_copied_without_its_graph() -> None:
    """S138: a copy or pickle of a leaf has no part in the graphs that it is in."""
    x = leaf()
    y = chain(lambda x: x * 1.0, x)
    for made in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert made.requires_grad
        assert made.grad_fn is None
        assert made.item() == x.item()
    assert y.requires_grad


def test_threads_with_small_stacks() -> None:
    """S138: a thread goes back through a graph that another has made."""
    x = leaf()
    y = chain(same, x)
    old = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=y.backward)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)
    assert x.grad is not None
    assert x.grad.item() == 1.0

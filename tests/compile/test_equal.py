"""A compiled function gives the results, gradients and writes of the eager one (SPEC S211)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors


def rand(*shape: int, seed: int = 0) -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        x, y = a.detach().numpy(), b.detach().numpy()
        return (
            x.dtype == y.dtype
            and x.shape == y.shape
            and bool(np.allclose(x, y, atol=1e-6))
            and a.requires_grad == b.requires_grad
        )
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


class Double(polyop.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 7


def no_grad_part(x: Tensor) -> Tensor:
    with polyop.no_grad():
        scale = x * 3
    return x * scale


FUNCTIONS = {
    "several": lambda x, y: (x * y, (x + y).sum(), 3),
    "containers": lambda x, y: {"a": [x.sin(), y], "b": (None, x - y, True)},
    "inputs": lambda x, y: (x, y, x),
    "views": lambda x, y: (x.reshape(-1), y[0], x.transpose(0, 1)[1:]),
    "same": lambda x, y: ((z := x * y), z),
    "constants": lambda x, y: (polyop.ones(3), x * 1.5, 1.0, "text"),
    "made": lambda x, y: polyop.zeros(3).add_(2) * x,
    "detach": lambda x, y: (x * y.detach()).exp(),
    "function": lambda x, y: Double.apply(x) + y,
    "no_grad": lambda x, y: no_grad_part(x) + no_grad_part(y),
    "sizes": lambda x, y: x * x.shape[0] + y.sum(),
    "branch": lambda x, y: x * 2 if x.shape[0] > 4 else y * 3,
    "iterate": lambda x, y: sum((row * 2 for row in x), y),
    "inner": lambda x, y: polyop.autograd.grad((x * y).sum(), [x])[0] if x.requires_grad else x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("needs", [(False, False), (True, False), (True, True)])
def test_results_and_gradients(name: str, fullgraph: bool, dynamic: Any, needs: Any) -> None:
    """S211: results, which of them require grad, and gradients equal eager, for all sizes."""
    fn = FUNCTIONS[name]
    compiled = polyop.compile(fn, fullgraph=fullgraph, dynamic=dynamic)
    for n in (2, 5, 1, 7, 2):
        seen = []
        for f in (fn, compiled):
            x, y = rand(n, 3), rand(n, 3, seed=1)
            inputs = [
                t.requires_grad_() if need else t for t, need in zip((x, y), needs, strict=True)
            ]
            out = f(*inputs)
            leaves = [t for t in polyop.tree.leaves(out) if isinstance(t, Tensor)]
            roots = [t.sum() for t in leaves if t.requires_grad]
            if roots:
                polyop.autograd.backward(roots)
            zero = polyop.zeros(n, 3)
            grads = [zero if t.grad is None else t.grad for t in inputs]
            seen.append((out, grads))
        assert same(*seen)


def test_static_arguments() -> None:
    """S211: 1, 1.0, True, 0.0 and -0.0 are arguments of different programs."""
    f = polyop.compile(lambda x, n=2, *, k=None: x + n if k is None else x * k, fullgraph=True)
    x = polyop.tensor([1, 2])
    assert [f(x, n).dtype.name for n in (1, 1.0, True, 1)] == ["int64", "float64", "int64", "int64"]
    assert f(x).tolist() == [3, 4]
    assert f(x, k=3).tolist() == [3, 6]
    signed = polyop.compile(lambda x, z: x / z, fullgraph=True)
    with np.errstate(divide="ignore"):
        assert [signed(polyop.ones(1), z).item() for z in (0.0, -0.0)] == [np.inf, -np.inf]


def test_identity_of_inputs() -> None:
    """S211: a result that is an input or a parameter is that object."""
    w = rand(3).requires_grad_()
    f = polyop.compile(lambda x, y: (x, y, w, x * w), fullgraph=True)
    x, y = rand(3).requires_grad_(), rand(3)
    a, b, c, d = f(x, y)
    assert (a is x, b is y, c is w, d.requires_grad) == (True, True, True, True)


def test_input_given_twice() -> None:
    """S211: a tensor given twice is one tensor inside, and gets one sum of gradients."""
    f = polyop.compile(lambda x, y: (x * y * (2 if x is y else 1)).sum(), fullgraph=True)
    x, y = rand(3).requires_grad_(), rand(3)
    assert same(f(x, y), (x * y).sum())
    f(x, x).backward()
    assert same(x.grad, x.detach() * 4)


def test_shared_memory() -> None:
    """S211: a write through an input is seen through another that shares its memory."""

    def fn(x: Tensor, y: Tensor) -> Tensor:
        x.add_(1)
        return y * 2

    for f in (fn, polyop.compile(fn, fullgraph=True)):
        base = polyop.zeros(4)
        assert f(base, base[1:]).tolist() == [2, 2, 2]
        assert base.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("fullgraph", [True, False])
def test_writes_without_gradient(fullgraph: bool) -> None:
    """S211: each call writes, to inputs and to tensors that are closed over."""
    count = polyop.zeros(())

    def fn(x: Tensor) -> Tensor:
        x.mul_(2)
        count.add_(1)
        return x + count

    f = polyop.compile(fn, fullgraph=fullgraph)
    x = polyop.ones(2)
    assert [f(x).tolist() for _ in range(3)] == [[3, 3], [6, 6], [11, 11]]
    assert (x.tolist(), count.item()) == ([8, 8], 3)


def test_writes_with_gradient() -> None:
    """S211: an input that a write makes require grad does so after a compiled call too."""

    def fn(x: Tensor, w: Tensor) -> None:
        x.mul_(w)

    x, w = rand(3), rand(3, seed=1).requires_grad_()
    polyop.compile(fn)(x, w)
    x.sum().backward()
    assert same(w.grad, rand(3))
    with pytest.raises(errors.CaptureError, match="requires grad"):
        polyop.compile(fn, fullgraph=True)(rand(3), w)


def test_saved_and_written() -> None:
    """S211: what is written after it was saved for backward is refused as in eager."""

    def fn(x: Tensor, v: Tensor) -> Tensor:
        y = x * v
        v.add_(1)
        return y

    y = polyop.compile(fn)(rand(3).requires_grad_(), rand(3))
    with pytest.raises(errors.AutogradError):
        y.sum().backward()


def test_parameters() -> None:
    """S211: gradients reach tensors that are closed over; requiring grad later is noticed."""
    w = rand(3)
    f = polyop.compile(lambda x: x * w, fullgraph=True)
    assert not f(rand(3)).requires_grad
    w.requires_grad_()
    f(rand(3, seed=1)).sum().backward()
    assert same(w.grad, rand(3, seed=1))
    with polyop.no_grad():
        assert not f(rand(3)).requires_grad


def test_backward_inside() -> None:
    """S211: backward() in the function adds to the real .grad, call by call."""
    w = rand(3).requires_grad_()

    def fn(x: Tensor) -> Tensor:
        (x * w).sum().backward()
        return x + 1

    f = polyop.compile(fn)
    for i in (1, 2, 3):
        assert same(f(polyop.ones(3)), polyop.ones(3) + 1)
        assert w.grad.tolist() == [i, i, i]
    with pytest.raises(errors.CaptureError, match="backward"):
        polyop.compile(fn, fullgraph=True)(polyop.ones(3))
    assert w.grad.tolist() == [3, 3, 3]


@pytest.mark.parametrize("name", ["plain", "no_grad", "function"])
def test_second_order(name: str) -> None:
    """S211: a gradient of a gradient equals eager, `no_grad` and authors' gradients included."""
    fn: Any = {
        "plain": lambda x: (x.sin() * x.exp()).sum(),
        "no_grad": lambda x: (no_grad_part(x) * x).sum(),
        "function": lambda x: (Double.apply(x) * x * x).sum(),
    }[name]
    seen = []
    for f in (fn, polyop.compile(fn, fullgraph=True)):
        x = rand(3).requires_grad_()
        (g,) = polyop.autograd.grad(f(x), [x], create_graph=True)
        seen.append(polyop.autograd.grad((g * g).sum(), [x])[0])
    assert same(*seen)


def test_second_order_of_draws() -> None:
    """S211: where the function cannot be run again, a gradient of a gradient is refused."""
    f = polyop.compile(lambda x: (x * x * polyop.rand(3)).sum(), fullgraph=True)
    x = rand(3).requires_grad_()
    with pytest.raises(errors.AutogradError, match="gradient of a gradient"):
        polyop.autograd.grad(f(x), [x], create_graph=True)


def test_draws_differ() -> None:
    """S211: random numbers are drawn anew at each call."""
    f = polyop.compile(lambda: polyop.rand(8), fullgraph=True)
    assert f().tolist() != f().tolist()


@pytest.mark.parametrize("fullgraph", [True, False])
def test_exceptions(fullgraph: bool) -> None:
    """S211: the function's exception passes unchanged, after its writes; nothing is kept."""
    mine = KeyError("mine")
    b = polyop.zeros(2)

    def fn(x: Tensor, bad: bool) -> Tensor:
        b.add_(1)
        if bad:
            raise mine
        return x + b

    f = polyop.compile(fn, fullgraph=fullgraph)
    with pytest.raises(KeyError) as caught:
        f(polyop.ones(2), bad=True)
    assert caught.value is mine
    assert b.tolist() == [1, 1]
    assert not f.programs
    assert f(polyop.ones(2), bad=False).tolist() == [3, 3]


def test_containers_given() -> None:
    """S211: a change to a container that was given reaches the caller."""

    def fn(items: list[Tensor]) -> Tensor:
        items.append(items[0] * 2)
        return items[0] + 1

    items = [polyop.ones(2)]
    polyop.compile(fn)(items)
    assert items[1].tolist() == [2, 2]
    with pytest.raises(errors.CaptureError, match="container"):
        polyop.compile(fn, fullgraph=True)([polyop.ones(2)])


def test_arrays_given() -> None:
    """S211: a NumPy array is no constant of a program."""
    f = polyop.compile(lambda x, a: x + polyop.from_numpy(a))
    a = np.ones(2, "float32")
    f(polyop.ones(2), a)
    a += 1
    assert f(polyop.ones(2), a).tolist() == [3, 3]
    with pytest.raises(errors.CaptureError, match="array"):
        polyop.compile(lambda x, a: x, fullgraph=True)(polyop.ones(2), a)


def test_threads() -> None:
    """S211: threads may share a compiled function."""
    f = polyop.compile(lambda x: (x * 2).sum() + x, fullgraph=True)

    def work(n: int) -> bool:
        x = rand(n % 7 + 1, n % 3 + 1, seed=n)
        return same(f(x), (x * 2).sum() + x)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_inside_other_transforms() -> None:
    """S211: a compiled function works inside compile, vmap, func.grad, make_fx and fakes."""
    f = polyop.compile(lambda x: (x * x).sum(), fullgraph=True)
    x = rand(4, 3)
    assert same(polyop.compile(lambda x: f(x) + 1, fullgraph=True)(x), (x * x).sum() + 1)
    assert same(polyop.vmap(f)(x), (x * x).sum(1))
    assert same(polyop.func.grad(f)(x), x * 2)
    assert polyop.compile(polyop.vmap(lambda r: r * 2), fullgraph=True)(x).shape == (4, 3)
    with polyop.fake.FakeTensorMode() as mode:
        assert f(mode.from_tensor(x)).is_fake


def test_recursion() -> None:
    """S211: a compiled function may call itself."""

    @polyop.compile(fullgraph=True)
    def power(x: Tensor, n: int) -> Tensor:
        return x if n == 1 else x * power(x, n - 1)

    assert power(polyop.ones(2) * 2, 5).tolist() == [32, 32]


def test_methods() -> None:
    """S211: methods compile, and each object has its own attributes."""

    class Layer:
        def __init__(self, k: float) -> None:
            self.k = k

        @polyop.compile(fullgraph=True)
        def forward(self, x: Tensor) -> Tensor:
            return x * self.k

    for k in (1.0, 2.0, 3.0):
        assert Layer(k).forward(polyop.ones(1)).item() == k


@pytest.mark.parametrize("kind", ["returned", "written", "read"])
def test_data_in_the_function(kind: str) -> None:
    """S211: a tensor made of data in the function is a new one at each call."""
    fn: Any = {
        "returned": lambda x: polyop.tensor([1.0, 2.0]),
        "written": lambda x: polyop.tensor([1.0, 2.0]).add_(x) * 1,
        "read": lambda x: x * polyop.tensor([1.0, 2.0]),
    }[kind]
    f = polyop.compile(fn)
    for _ in range(3):
        out = f(polyop.ones(2))
        assert out.tolist() == fn(polyop.ones(2)).tolist()
        out.add_(1)


OPERANDS: dict[str, Any] = {
    "cond": lambda x, c: polyop.cond(x.sum() > 0, lambda x, c: x * c, lambda x, c: x * 1, (x, c)),
    "while_loop": lambda x, c: polyop.while_loop(
        lambda c, x: c < 3, lambda c, x: (c + 1, x * 2), (c, x)
    ),
    "map": lambda x, c: polyop.map(lambda x, c: x * c, x, c),
    "scan": lambda x, c: polyop.scan(lambda c, x: (c + x, c * x), c, x),
    "wrap": lambda x, c: polyop.hop.wrap(lambda x, c: x * c, x, c),
    "checkpoint": lambda x, c: polyop.hop.checkpoint(lambda x, c: x * c, x, c),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_data_in_the_function_that_is_an_operand(name: str) -> None:
    """S211: an operand of an operator with functions is no result of it, and is not written."""

    def fn(x: Tensor) -> Any:
        return OPERANDS[name](x, polyop.tensor(1.0))

    f = polyop.compile(fn, fullgraph=True)
    for _ in range(3):
        out = f(rand(3))
        assert same(out, fn(rand(3)))
        for t in polyop.tree.leaves(out):
            t.add_(1)


@pytest.mark.parametrize("fn", [polyop.hop.wrap, polyop.hop.checkpoint])
def test_data_in_a_function_that_gives_it(fn: Any) -> None:
    """S211: what the function of such an operator gives is a result, and new at each call."""
    f = polyop.compile(lambda x: fn(lambda x: polyop.tensor(4.0), x), fullgraph=True)
    assert f(rand(3)).add_(1).item() == 5.0
    assert f(rand(3)).item() == 4.0

"""The cases of modes, of higher-order operators and of compiled chains."""

from __future__ import annotations

import timeit
from collections.abc import Iterator

import numpy as np
import torch
from fused import calls, cheap
from measure import Case, Row
from torch._ops import HigherOrderOperator as TorchHigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

import polyop
from polyop.extend import DispatchKey, DispatchMode, HigherOrderOperator
from polyop.graph import make_fx


class Pass(DispatchMode):
    """Calls every operator as it is."""

    def __dispatch__(self, op, types, args=(), kwargs=None):
        return op(*args, **(kwargs or {}))


class TorchPass(TorchDispatchMode):
    """The same in PyTorch."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        return op(*args, **(kwargs or {}))


def cases() -> Iterator[Case]:
    x, t = polyop.ones(3), torch.ones(3)
    add, torch_add = polyop.add, torch.add

    def ours():
        with Pass():
            for _ in range(100):
                add(x, x)

    def theirs():
        with TorchPass():
            for _ in range(100):
                torch_add(t, t)

    yield Case("add × 100 under a mode", ours, theirs, "torch", 1 / 3, 10, 2)
    apply, torch_apply = _ours_apply(), _torch_apply()

    def fn(value):
        return value

    yield Case(
        "a higher-order operator's call", lambda: apply(fn, x), lambda: torch_apply(fn, t),
        "torch", 1 / 3,
    )  # fmt: skip
    a = np.random.default_rng(0).normal(size=1000).astype("f4")
    found = calls(cheap, a, a[::-1].copy())
    for peer in ("jax.jit", "torch.compile"):
        yield Case(
            "compiled chain of 10 operators, 1000 elements", found["polyop"][0], found[peer][0],
            peer, 1,
        )  # fmt: skip


def _ours_apply():
    class Apply(HigherOrderOperator):
        def __call__(self, fn, value):
            return super().__call__(fn, value)

    apply = Apply("bench_apply")
    apply.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda fn, value: fn(value))
    apply.fallthrough(DispatchKey.AutogradCPU)
    return apply


def _torch_apply():
    class Apply(TorchHigherOrderOperator):
        def __init__(self):
            super().__init__("bench_apply")

        def __call__(self, fn, value):
            return super().__call__(fn, value)

    apply = Apply()
    keys = torch._C.DispatchKey
    apply.py_impl(keys.CompositeExplicitAutograd)(lambda fn, value: fn(value))
    apply.fallthrough(keys.AutogradCPU)
    return apply


def mode_row() -> Row:
    """What a mode adds to one operator, beside 1.8 µs."""
    x, add = polyop.ones(3), polyop.add

    def fastest() -> float:
        return min(timeit.repeat(lambda: add(x, x), number=1000, repeat=60)) / 1000

    plain = under = float("inf")
    for _ in range(6):  # in turn: a machine changes its speed for seconds at a time
        plain = min(plain, fastest())
        with Pass():
            under = min(under, fastest())
    return Row("what a mode adds to an operator", under - plain, 1.8e-6, "the budget", 1)


#: As many nodes, each over arrays of a few elements, so that the kernels are all but free.
NODES = 1000


def graph_row() -> Row:
    """What a node of a graph costs over NumPy's function, beside 40 ns."""
    x = polyop.zeros(3, 4)

    def chain(x: polyop.Tensor) -> polyop.Tensor:
        for _ in range(100):
            x = (x + x) * x
        return x

    module, a = make_fx(chain)(x), x.numpy()

    def by_hand() -> None:
        x = a
        for _ in range(100):
            x = np.multiply(np.add(x, x), x)

    module(x)
    # In turn, so that both meet the same noise of the machine.
    rounds = [
        (timeit.timeit(lambda: module(x), number=10), timeit.timeit(by_hand, number=10))
        for _ in range(300)
    ]
    best = [min(times) / 2000 for times in zip(*rounds, strict=True)]
    # 1 ns at least: two loops over the same functions may take the same time.
    over = max(best[0] - best[1], 1e-9)
    return Row("a node of a graph, over NumPy's function", over, 40e-9, "the budget", 1)


def node_row() -> Row:
    """What backward costs a node over its kernel, beside 0.6 µs."""
    x = polyop.ones(4, requires_grad=True)
    a = g = x.numpy(force=True)

    def backward() -> float:
        y = x
        for _ in range(NODES):
            y = polyop.sin(y)
        y = y.sum()
        return timeit.timeit(y.backward, number=1)

    def kernels() -> float:
        return timeit.timeit(lambda: g * np.cos(a), number=NODES)

    # In turn, so that both meet the same noise of the machine.
    rounds = [(backward(), kernels()) for _ in range(400)]
    best = [min(times) / NODES for times in zip(*rounds, strict=True)]
    name = "backward of sin, a node over its kernel"
    return Row(name, best[0] - best[1], 0.6e-6, "the budget", 1)

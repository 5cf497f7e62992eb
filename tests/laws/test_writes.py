"""Writes to inputs, to what shares memory, and the writes that are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from tests.conftest import FIRST_SEED
from tests.laws.payloads import MAKERS, available
from tests.laws.programs import Program, data, ours, programs
from tests.laws.test_compositions import few
from tests.laws.transforms import Chain, close, on_fakes

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError, AutogradError, MutationError, VmapError
from polyop.fake import FakeTensorMode
from polyop.func import functionalize, grad, jvp, vjp, vmap
from polyop.layers.trace import make_fx

make = MAKERS["numpy"]
SHAPES = [(4,) * n + (2, 3) for n in range(4)]


class Writing:
    """The transforms through which a write to an input reaches the caller."""

    def __init__(self) -> None:
        self.rank = 0  # of the batches so far

    def vmap(self, f: Program) -> Program:
        """Map over the first axis of both inputs."""
        self.rank += 1
        return vmap(f)

    def functionalize(self, f: Program) -> Program:
        """Write inputs once, at the end."""
        return functionalize(f)

    def trace(self, f: Program) -> Program:
        """Trace on other data."""
        shape = SHAPES[self.rank]
        module: Program = make_fx(f, "fake")(make(data(7, shape)), make(data(8, shape)))
        return module

    def fake(self, f: Program) -> Program:
        """Run on fakes first, which writes nothing."""
        shape = SHAPES[self.rank]

        def both(x: Tensor, y: Tensor) -> Any:
            on_fakes(f, [make(data(7, shape)), make(data(8, shape))])
            return f(x, y)

        return both


def looped(f: Program) -> Program:
    """Do for each sample, in the memory of the inputs, what `vmap` does for all."""
    return lambda x, y: polyop.stack([f(x[i], y[i]) for i in range(4)])


WRITERS = ["vmap", "functionalize", "trace", "fake"]
CHAINS = [c for n in (1, 2, 3) for c in itertools.product(WRITERS, repeat=n)]


@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
@seed(FIRST_SEED)
@few(1)
@given(calls=programs(least=4, most=12, anywhere=True), where=st.integers(0, 1000))
def test_writes_to_inputs_reach_the_caller(chain: Chain, calls: Any, where: int) -> None:
    """S136, S159, S168: inputs hold what the plain program leaves in them, through any chain."""
    kind, transformed, plain = Writing(), ours(calls), ours(calls)
    for name in reversed(chain):
        transformed = getattr(kind, name)(transformed)
        plain = looped(plain) if name == "vmap" else plain
    results = []
    for f in (transformed, plain):
        inputs = [make(data(where + i, SHAPES[kind.rank])) for i in range(2)]
        results.append([f(*inputs), *inputs])
    for found, expected in zip(*results, strict=True):
        close(found.numpy(), expected.numpy())


# -- what random programs found ------------------------------------------------


def of_reshaped(x: Any) -> Any:
    """Write through a reshape that is a view, beside one that is a copy."""
    y = x * 2.0
    y.reshape(-1)[1:3].mul_(x[0, :2])
    y.T.reshape(-1).add_(5.0)
    return y


def of_lists(x: Any) -> Any:
    """Write through the parts of a split."""
    y = x * 2.0
    for part in y.unbind(1):
        part.mul_(x[:, 0])
    return y


def of_views_after(x: Any) -> Any:
    """Read views that were taken before their base was written."""
    y = x * 2.0
    row, column, corner = y[0], y[:, 1], y[:1][0, 1:]
    y.mul_(x)
    row.add_(column[0])
    return y + row * column[1] + corner.sum()


def of_a_dead_view(x: Any) -> Any:
    """Write where views have come and gone."""
    y = x * 2.0
    for i in range(2):
        y[i].mul_(x[1 - i])
    return y


def of_a_loop(x: Any) -> Any:
    """Fill a result row by row, each from the one before."""
    y = x * 1.0
    for i in range(1, 2):
        y[i] = y[i - 1].sin() * x[i]
    return y


@pytest.mark.parametrize("f", [of_reshaped, of_lists, of_views_after, of_a_dead_view, of_a_loop])
@pytest.mark.parametrize("functional", [False, True])
def test_writes_to_shared_memory_have_derivatives(f: Program, functional: bool) -> None:
    """S134, S136, S168: a write reaches base and views, and derivatives follow it."""
    g: Any = functionalize(f) if functional else f
    x, v = data(1), data(2)
    step = 1e-6
    slope = (f(make(x + step * v)).numpy() - f(make(x - step * v)).numpy()) / (2 * step)
    value, found = jvp(g, (make(x),), (make(v),))
    close(value.numpy(), f(make(x)).numpy())
    np.testing.assert_allclose(found.numpy(), slope, atol=1e-7)
    whole = grad(lambda x: (g(x) * make(data(3))).sum())(make(x)).numpy()
    np.testing.assert_allclose((whole * v).sum(), (slope * data(3)).sum(), atol=1e-7)


def test_a_write_under_no_grad_keeps_the_history() -> None:
    """S130: under no_grad the values are written, through views too, and the history stays."""

    def f(x: Tensor) -> Tensor:
        y = x * x
        with polyop.no_grad():
            y[1:].multiply_(3.0)
        return (y * y).sum()

    x = data(1)
    factor = np.array([[1.0], [3.0]])
    close(grad(f)(make(x)).numpy(), 2 * x * x * factor * 2 * x)


def test_a_view_that_is_returned_is_a_value() -> None:
    """S134: views leave a transform as what they show."""

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2.0
        row = y[0]
        y.add_(x)
        return y, row

    (y, row), (dy, drow) = jvp(f, (make(data(1)),), (make(data(2)),))
    for found, expected in ((y, 3 * data(1)), (row, 3 * data(1)[0]), (dy, 3 * data(2)),
                            (drow, 3 * data(2)[0])):  # fmt: skip
        close(found.numpy(), expected)


# -- refusals -------------------------------------------------------------------


def detached(x: Tensor) -> Tensor:
    """Write behind the back of the derivative."""
    y = x * 1.0
    y.detach().add_(1.0)
    return y.sum()


def quiet_view(x: Tensor) -> Tensor:
    """Write, with history, a view that has none."""
    y = x * 1.0
    with polyop.no_grad():
        row = y[0]
    row.add_(1.0)
    return y.sum()


def again(x: Tensor) -> Tensor:
    """Differentiate the recorded gradient of a watched tensor."""
    return polyop.autograd.grad((x * x * x).sum(), x, create_graph=True)[0].sum()


def stale(x: Tensor) -> Tensor:
    """Write what a gradient needs."""
    w = make(data(5))
    y = (x * w).sum()
    w.add_(1.0)
    return y


def compiled_twice(x: Tensor) -> Tensor:
    """Differentiate twice what a compiled function writes."""
    f = polyop.compile(lambda x: (x * 2.0).mul_(x))
    x = x.detach().requires_grad_()
    first = polyop.autograd.grad(f(x).sum(), x, create_graph=True)[0]
    return polyop.autograd.grad(first.sum(), x)[0]


def narrower(x: Tensor) -> Tensor:
    """Write complex numbers into real ones."""
    y = x * 1.0
    y.add_(x * 1j)
    return y.sum()


X = (2, 3)
#: What is refused, by name: the call, the error, and what it says.
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "an input of grad": (grad(lambda x: x.sin_().sum()), MutationError, "writes an input of"),
    "a view of an input of grad": (
        grad(lambda x: x[0].sin_().sum()), MutationError, "a view of an input of func.grad"),
    "an input of jvp": (
        lambda x: jvp(lambda x: x.sin_(), (x,), (x,)), MutationError, "an input of func.jvp"),
    "grad of functionalize of an input": (
        grad(functionalize(lambda x: x.sin_().sum())), MutationError, "writes an input of"),
    "detach under grad": (grad(detached), MutationError, "writes through core::detach"),
    "detach under jvp": (
        lambda x: jvp(detached, (x,), (x,)), MutationError, "writes through core::detach"),
    "a view without history": (grad(quiet_view), MutationError, "taken under no_grad"),
    "create_graph inside grad": (grad(again), AutogradError, "cannot be differentiated again"),
    "requires_grad_ inside vmap": (
        vmap(lambda x: x.detach().requires_grad_()), AutogradError, "made to require grad"),
    "what backward needs": (grad(stale), AutogradError, "written after it was saved"),
    "second gradients of compiled writes": (
        compiled_twice, AutogradError, "needs the compiled function again"),
    "another dtype": (grad(narrower), ArgumentError, "cannot be written"),
    "many samples into one": (
        lambda x: vmap(lambda r: make(data(6, (3,))).add_(r))(x), VmapError, "same for all"),
    "a repeated tensor under grad": (
        grad(lambda x: (x * 1.0).sum(0).expand(2, 3).add_(1.0).sum()), MutationError,
        "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """S1, S134, S159: what cannot be right raises by name, and changes nothing."""
    call, error, text = REFUSED[name]
    x = make(data(4))
    with pytest.raises(error, match=text):
        call(x)
    close(x.numpy(), data(4))


# -- what is not refused, and was wrong once ------------------------------------


def of_a_copying_reshape(x: Tensor) -> Tensor:
    """Write what a reshape copied."""
    y = x * 1.0
    y.T.reshape(-1).add_(1.0)
    return y


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_reshape_that_copies_is_no_view(axis: int) -> None:
    """S157, S168: inside vmap too, a write to what a reshape copied reaches nobody else."""
    x = make(data(1, SHAPES[1]))
    f = of_a_copying_reshape
    pushed = lambda x: jvp(f, (x,), (x,))[0]  # noqa: E731 - one of three
    for g in (f, functionalize(f), pushed):
        found = vmap(g, axis)(polyop.moveaxis(x, 0, axis))
        np.testing.assert_array_equal(found.numpy(), x.numpy())


def test_a_traced_backward_copies_what_is_written() -> None:
    """S130, S209: the old value that a gradient needs is a part of the graph, no constant."""

    def f(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = x * 2.0
        y.mul_(x)
        y[0].sin_()
        return polyop.autograd.grad(y.sum(), x)[0]

    module = make_fx(f)(make(data(1)))
    close(module(make(data(2))).numpy(), f(make(data(2))).numpy())


def test_a_trace_inside_functionalize_keeps_what_it_makes() -> None:
    """S168, S209: what a traced function makes is the trace's, not functional outside."""

    def f(x: Tensor) -> Tensor:
        return polyop.zeros(2, 3, dtype=polyop.float64).add_(x) * 2.0

    traced = functionalize(lambda x: make_fx(f, "fake")(make(data(1)))(x))
    close(traced(make(data(2))).numpy(), 2.0 * data(2))


def test_gradients_of_batched_products_are_summed() -> None:
    """S133, S134: in grad of vmap of grad, what is not batched gets the sum over the batch."""
    v, w = make(data(1, (3,))), make(data(2, (3, 4)))
    for f in (lambda a: (a @ v).reshape(2, 1) * a, lambda a: a @ w @ w.T, lambda a: a @ a[0] @ a):

        def pulled(x: Tensor, f: Any = f, mapped: bool = True) -> Tensor:
            pull = vjp(lambda x: (f(x) * f(x)).sum(), x)[1]
            scales = make(data(3, (4,)))
            rows = vmap(lambda g: pull(g)[0])(scales) if mapped else _rows(pull, scales)
            return (rows.sin()).sum()

        x = make(data(4))
        once, looped = grad(pulled)(x), grad(lambda x, f=f: pulled(x, f, False))(x)
        close(once.numpy(), looped.numpy())


def _rows(pull: Any, scales: Tensor) -> Tensor:
    return polyop.stack([pull(g)[0] for g in scales.unbind(0)])


def test_indices_are_constants_of_a_graph_before_dispatch() -> None:
    """S209: a list that indexes is data of the program, in every tracing mode."""
    f = lambda x: x[:, [2, 0]]  # noqa: E731 - one expression
    for mode in ("real", "fake", "symbolic"):
        module = make_fx(f, mode, pre_dispatch=True)(make(data(1)))
        close(module(make(data(2))).numpy(), data(2)[:, [2, 0]])


def test_a_graph_module_is_compiled() -> None:
    """S209: compile takes any callable, such as the graph of a trace."""
    module = make_fx(lambda x: x.sin())(make(data(1)))
    close(polyop.compile(module)(make(data(2))).numpy(), np.sin(data(2)))


def test_products_have_all_derivatives() -> None:
    """S133: the third gradient of a product, at zeros too."""
    x = np.array([0.5, 0.0, 2.0, -1.0])
    third = grad(lambda a: grad(lambda b: grad(lambda c: c.prod())(b)[0])(a)[1])
    close(third(make(x)).numpy(), np.array([0.0, 0.0, -1.0, 2.0]))
    each = vmap(grad(lambda x: grad(lambda x: x.prod())(x)[0]))(make(np.stack([x, x + 1])))
    close(each.numpy()[0], np.array([0.0, -2.0, 0.0, 0.0]))


@pytest.mark.parametrize("payload", available())
def test_a_constant_of_any_library_among_fakes(payload: str) -> None:
    """S147: real tensors may be constants of a fake call, whoever holds their data."""
    x = MAKERS[payload](data(1))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        out = mode.from_tensor(x) * x
    assert tuple(out.shape) == (2, 3)

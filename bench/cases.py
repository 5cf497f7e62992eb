"""The cases of the benchmark: ours beside NumPy, PyTorch and JAX."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import jax
import numpy as np
import torch
from measure import Case, Row, run_python
from torch._subclasses.fake_tensor import FakeTensorMode as TorchFakeMode
from torch.fx.experimental.proxy_tensor import make_fx as torch_make_fx

import polyop
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx

torch.set_num_threads(1)


def _ours_sine():
    @polyop.custom_op("bench::sine", mutates_args=())
    def sine(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(np.sin(x.numpy()))

    @sine.register_fake
    def _(x):
        return polyop.empty_like(x)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.cos()

    sine.register_autograd(backward, setup_context=setup)
    return sine


def _torch_sine():
    @torch.library.custom_op("bench::sine", mutates_args=())
    def sine(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sin(x.numpy()))

    @sine.register_fake
    def _(x):
        return torch.empty_like(x)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.cos()

    sine.register_autograd(backward, setup_context=setup)
    return sine


def _copies():
    @polyop.custom_op("bench::copy", mutates_args=())
    def copy(x: polyop.Tensor) -> polyop.Tensor:
        return x.clone()

    @torch.library.custom_op("bench::copy", mutates_args=())
    def torch_copy(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    return copy, torch_copy


def cases() -> Iterator[Case]:
    a = np.ones(3, np.float32)
    x, y = polyop.from_numpy(a), polyop.from_numpy(a.copy())
    add, np_add = polyop.add, np.add
    yield Case(
        "add, 3 elements", lambda: add(x, y), lambda: np_add(a, a), "np.add", 2.2, 1000, 1000
    )
    ours, theirs = _ours_sine(), _torch_sine()
    t = torch.ones(3)
    copy, torch_copy = _copies()
    yield Case(
        "custom operator, a copy, no gradient",
        lambda: copy(x), lambda: torch_copy(t), "torch", 1 / 15,
    )  # fmt: skip
    yield Case(
        "custom operator, NumPy's sine, no gradient",
        lambda: ours(x), lambda: theirs(t), "torch", None,
    )  # fmt: skip
    gx = polyop.ones(3, requires_grad=True)
    gt = torch.ones(3, requires_grad=True)

    def ours_backward():
        gx.grad = None
        ours(gx).sum().backward()

    def torch_backward():
        gt.grad = None
        theirs(gt).sum().backward()

    yield Case("custom operator, forward + backward", ours_backward, torch_backward, "torch", 1 / 9)
    yield from _fake_cases(ours, theirs)
    yield from _trace_cases()
    vx, vt = polyop.ones(4, 3), torch.ones(4, 3)
    square = polyop.vmap(lambda x: x * x)
    torch_square = torch.vmap(lambda x: x * x)
    yield Case("vmap(x * x)", lambda: square(vx), lambda: torch_square(vt), "torch.vmap", 1 / 15)
    yield _forward_case()
    yield from _define_cases()
    yield from _opcheck_cases(ours, theirs)


def _fake_cases(ours, theirs) -> Iterator[Case]:
    mode, torch_mode = FakeTensorMode(), TorchFakeMode()
    fx, ft = mode.from_tensor(polyop.ones(3)), torch_mode.from_tensor(torch.ones(3))

    def seen():
        with mode:
            for _ in range(100):
                ours(fx)

    def torch_seen():
        with torch_mode:
            for _ in range(100):
                theirs(ft)

    yield Case("fake call × 100, seen shapes", seen, torch_seen, "torch", 1 / 200, 5, 1)
    sizes = count(10)

    def fresh():
        with mode:
            for _ in range(20):
                ours(polyop.empty(next(sizes)))

    def torch_fresh():
        with torch_mode:
            for _ in range(20):
                theirs(torch.empty(next(sizes)))

    yield Case("fake call × 20, new shapes", fresh, torch_fresh, "torch", 1 / 50, 2, 1)


def _forward_case() -> Case:
    """Forward mode beside the plain call, where arrays are large."""
    x = polyop.from_numpy(np.linspace(0.1, 1.0, 100_000))
    t = polyop.ones_like(x)
    return Case(
        "func.jvp of sin, 100 000 elements",
        lambda: polyop.func.jvp(polyop.sin, (x,), (t,)), lambda: polyop.sin(x), "the plain call",
        2.5, 20, 20,
    )  # fmt: skip


def _chain(x):
    for _ in range(100):
        x = (x + x) * x
    return x


def _trace_cases() -> Iterator[Case]:
    x, t, j = polyop.zeros(3, 4), torch.zeros(3, 4), jax.numpy.zeros((3, 4))
    ours = make_fx(_chain, tracing_mode="symbolic")
    theirs = torch_make_fx(_chain, tracing_mode="symbolic")
    yield Case(
        "trace 200 operators, symbolic", lambda: ours(x), lambda: theirs(t), "make_fx", 1 / 150,
        2, 1, 8,
    )  # fmt: skip
    yield Case(
        "trace 200 operators, symbolic", lambda: ours(x),
        lambda: jax.make_jaxpr(lambda x: _chain(x))(j), "make_jaxpr", 1 / 10, 2, 1, 12,
    )  # fmt: skip
    module = make_fx(_chain)(x)
    a = np.zeros((3, 4), np.float32)

    def by_hand():
        x = a
        for _ in range(100):
            x = np.multiply(np.add(x, x), x)
        return x

    yield Case("run the traced graph", lambda: module(x), by_hand, "NumPy by hand", None, 20, 20)


def _define_cases() -> Iterator[Case]:
    numbers = count()

    def ours():
        def f(x: polyop.Tensor, y: float) -> polyop.Tensor:
            return x

        polyop.custom_op(f"bench_define::f{next(numbers)}", f, mutates_args=())

    def theirs():
        def f(x: torch.Tensor, y: float) -> torch.Tensor:
            return x

        torch.library.custom_op(f"bench_define::f{next(numbers)}", f, mutates_args=())

    yield Case("define an operator", ours, theirs, "torch", 1 / 15, 100, 10, 20)


FOUR = (
    "test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic",
)  # fmt: skip


def _opcheck_cases(ours, theirs) -> Iterator[Case]:
    x = [polyop.ones(3, requires_grad=True)]
    t = [torch.ones(3, requires_grad=True)]

    def torch_four():
        torch.library.opcheck(theirs, t, test_utils=FOUR)

    yield Case(
        "opcheck, PyTorch's four laws, again",
        lambda: polyop.library.opcheck(ours, x, test_utils=FOUR), torch_four, "torch", 1 / 10,
        2, 1, 6,
    )  # fmt: skip
    yield Case(
        "opcheck, all laws, beside PyTorch's four",
        lambda: polyop.library.opcheck(ours, x), torch_four, "torch", 3, 1, 1, 6,
    )  # fmt: skip


_IMPORT = "import numpy, time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_FIRST = """
import time, numpy as np, {lib} as lib
@lib.library.custom_op("bench::f", mutates_args=())
def f(x: lib.Tensor) -> lib.Tensor:
    return lib.from_numpy(np.sin(x.numpy()))
f.register_fake(lambda x: lib.empty_like(x))
f.register_autograd(lambda ctx, g: g * ctx.saved_tensors[0].cos(),
                    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
x = lib.ones(3, requires_grad=True)
t = time.perf_counter()
lib.library.opcheck(f, [x], test_utils={four})
print(time.perf_counter() - t)
"""


def process_rows() -> Iterator[Row]:
    """Figures of fresh processes: the fastest of many."""
    ours = min(run_python(_IMPORT.format("polyop")) for _ in range(15))
    yield Row("import, after NumPy", ours, 0.06, "the budget, 60 ms", 1)
    first = min(run_python(_FIRST.format(lib="polyop", four=FOUR)) for _ in range(3))
    theirs = min(run_python(_FIRST.format(lib="torch", four=FOUR)) for _ in range(3))
    yield Row("opcheck, PyTorch's four laws, first call", first, theirs, "torch", 1 / 10)

"""A rule that is registered again is the one that compiled code has, from the next call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from tests.bridges.changing import stale_slopes
from tests.bridges.marks import COMPILES

import polyop
from polyop.bridges.torch import anew
from polyop.errors import MetadataMismatchError, PolyopWarning

pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]
wrap = polyop.from_numpy


def made(name: str) -> Any:
    op = polyop.custom_op(
        f"stale::{name}", lambda x: wrap(x.numpy() * 2), mutates_args=(),
        schema="(Tensor x) -> Tensor", replace=True,
    )  # fmt: skip
    op.register_fake(lambda x: polyop.empty_like(x))
    op.register_autograd(lambda ctx, g: g * 1)
    op.register_jvp(lambda ctx, t: t * 1)
    op.register_vmap(lambda info, dims, x: (op(x) * 1, dims[0]))
    return op


def compiled(f: Callable[..., Any], backend: str = "aot_eager") -> Any:
    return torch.compile(f, backend=backend, fullgraph=True)


def gradient(f: Callable[..., Any]) -> float:
    x = torch.ones(2, requires_grad=True)
    f(x).sum().backward()
    assert x.grad is not None
    return float(x.grad[0])


def first(f: Callable[..., Any], shape: tuple[int, ...] = (2,)) -> float:
    return float(f(torch.ones(shape)).reshape(-1)[0])


# -- each kind of rule --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_new_backward(backend: str) -> None:
    """S34: also where the same function was compiled often before, past PyTorch's limit."""
    op = made("backward")
    run, bare = compiled(lambda x: op(x), backend), torch.ops.stale.backward.default
    by_handle = compiled(lambda x: bare(x), backend)
    assert gradient(run) == gradient(by_handle) == 1
    for k in range(2, 4 if backend == "inductor" else 13):
        op.register_autograd(lambda ctx, g, k=k: g * k)
        assert gradient(run) == gradient(by_handle) == gradient(op) == k


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_new_fake_rule(backend: str) -> None:
    """S34: sizes are those of the new rule, and the kernel is held to it."""
    op = made("fake")
    run = compiled(lambda x: op(x) + torch.ones(3), backend)
    assert first(run, (3,)) == 3
    op.register_fake(lambda x: x.new_empty([1]))
    with pytest.raises(MetadataMismatchError, match="stale::fake"):
        run(torch.ones(3))
    op.register_kernel("cpu", lambda x: wrap(x.numpy()[:1] * 5))
    assert run(torch.ones(3)).tolist() == [6, 6, 6]


def test_a_new_kernel() -> None:
    """S34: it runs in what is compiled already, which is not compiled anew for it."""
    op = made("kernel")
    traces: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        traces.append(graph)
        return graph.forward

    run = torch.compile(lambda x: op(x), backend=backend, fullgraph=True)
    for k in (2, 3, 4):
        op.register_kernel("cpu", lambda x, k=k: wrap(x.numpy() * k))
        assert first(run) == k
    assert len(traces) == 1


def test_a_new_batching_rule() -> None:
    """S34: of what is compiled under `vmap`."""
    op = made("vmap")
    run = compiled(lambda x: torch.vmap(lambda row: op(row))(x))
    assert first(run, (2, 3)) == 2
    for k in (7, 8):
        op.register_vmap(lambda info, dims, x, k=k: (op(x) * k, dims[0]))
        assert first(run, (2, 3)) == 2 * k


def test_a_new_forward_mode() -> None:
    """S34: of what is compiled with duals."""
    op = made("jvp")
    jvp: Any = torch.func.jvp
    run = torch.compile(lambda x: op(x) * 2, backend="aot_eager")
    within = torch.compile(lambda x: jvp(op, (x,), (x,))[1] * 2, backend="aot_eager")
    x = torch.ones(2)
    for k in (1, 7, 8):
        op.register_jvp(lambda ctx, t, k=k: t * k)
        for found in (jvp(run, (x,), (x,))[1], within(x)):
            assert found.tolist() == [2 * k, 2 * k]


def test_a_new_autocast_rule() -> None:
    """S34, S171: in compiled code, and in eager calls that were repeated before."""
    op = made("autocast")
    run = compiled(lambda x: op(x))
    x = torch.ones(2)
    for f in (run, op, op):
        f(x)
    for dtype in ("float16", "bfloat16"):
        op.register_autocast("cpu", dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(f(x).dtype is getattr(torch, dtype) for f in (run, op, op, op))


def test_a_new_kernel_for_pytorch() -> None:
    """S34: one for PyTorch's own tensors is compared with the fake rule too."""
    op = made("own")
    run = compiled(lambda x: op(x))
    assert first(run) == 2
    op.register_kernel("cpu", lambda x: x * 9, library="torch")
    assert first(run) == 9
    op.register_kernel("cpu", lambda x: x.double(), library="torch")
    with pytest.raises(MetadataMismatchError, match="the dtype of result 0 of stale::own"):
        run(torch.ones(2))


def test_a_rule_whose_text_is_the_same() -> None:
    """S34: caches on disk do not give what was made of another object that a rule closes over."""
    op = made("closure")

    class Factor:
        __slots__ = ("value",)

    def register(value: float) -> None:
        factor = Factor()
        factor.value = value
        op.register_autograd(lambda ctx, g: g * factor.value)

    run = compiled(lambda x: op(x), "inductor")
    for value in (2.0, 3.0, 4.0):
        register(value)
        assert gradient(run) == value


# -- when --------------------------------------------------------------------------------------


def test_what_nobody_has_traced_empties_nothing() -> None:
    """S34: definitions and rules of operators that no compiled code has leave it as it is."""
    op = made("kept")
    traces: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        traces.append(graph)
        return graph.forward

    run = torch.compile(lambda x: op(x), backend=backend, fullgraph=True)
    run(torch.ones(2))
    other = made("untraced")
    other(torch.ones(2))
    other.register_autograd(lambda ctx, g: g * 3)
    run(torch.ones(2))
    assert len(traces) == 1


def test_other_compiled_code_stays() -> None:
    """S34: only what has the operator is compiled anew."""
    op, other = made("changed"), made("stays")
    traces: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        traces.append(graph)
        return graph.forward

    runs = [
        torch.compile(lambda x: op(x), backend=backend, fullgraph=True),
        torch.compile(lambda x: other(x), backend=backend, fullgraph=True),
    ]
    for _ in range(3):
        [run(torch.ones(2)) for run in runs]
    assert len(traces) == 2
    op.register_autograd(lambda ctx, g: g * 3)
    [run(torch.ones(2)) for run in runs]
    assert len(traces) == 3


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_kernel_may_register(backend: str) -> None:
    """S34: from within compiled code, which ends as it began; the next call is of the new rule."""
    op = made("inside")
    new: list[int] = []

    def kernel(x: Any) -> Any:
        if new:
            k = new.pop()
            op.register_autograd(lambda ctx, g: g * k)
        return wrap(x.numpy() * 2)

    op.register_kernel("cpu", kernel)
    run = compiled(lambda x: op(x), backend)
    assert gradient(run) == 1
    new.append(5)
    gradient(run)
    assert gradient(run) == 5


def test_threads_call_meanwhile() -> None:
    """S34: who calls after a registration gets its rule, however many compile and call."""
    op = made("threads")
    bare = torch.ops.stale.threads.default
    runs = [compiled(lambda x: bare(x), "eager"), compiled(lambda x: bare(x) + 1, "eager")]
    runs.append(compiled(lambda x: op(x), "eager"))
    slopes = [lambda run=run: gradient(run) for run in runs]
    wrong = stale_slopes(op, slopes, last=7, pause=0.1)
    assert not wrong
    assert [gradient(run) for run in runs] == [7, 7, 7]


# -- without names that PyTorch does not promise --------------------------------------------------


def test_without_dynamos_names_all_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """S66: where Dynamo has other names, compiled code is made anew all the same."""
    op = made("reset")
    bare = torch.ops.stale.reset.default
    run = compiled(lambda x: bare(x))
    assert gradient(run) == 1

    def gone() -> Any:
        raise AttributeError("no such name")

    monkeypatch.setattr(anew, "Names", gone)
    op.register_autograd(lambda ctx, g: g * 4)
    assert gradient(run) == 4
    monkeypatch.setattr(anew, "is_anyone_in", lambda files: True)
    with pytest.warns(PolyopWarning, match=r"call torch\.compiler\.reset\(\)"):
        op.register_autograd(lambda ctx, g: g * 5)
    torch.compiler.reset()
    assert gradient(run) == 5


def test_numpy_of_stale_results_agrees() -> None:
    """S34: values and gradients after a change are those of an operator made anew."""
    op = made("both")
    run = compiled(lambda x: op(x))
    gradient(run)
    op.register_kernel("cpu", lambda x: wrap(np.sin(x.numpy())))
    op.register_autograd(
        lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    x = torch.full((2,), 0.3, requires_grad=True)
    run(x).sum().backward()
    np.testing.assert_allclose(run(x).detach(), np.sin(np.float32(0.3)), rtol=1e-6)
    np.testing.assert_allclose(x.grad, np.cos(np.float32(0.3)), rtol=1e-6)

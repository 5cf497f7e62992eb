"""Compiled and exported programs hold the operator itself, with its shapes and its gradient."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES
from tests.bridges.torch.operators import (
    crop,
    cube,
    double,
    mix,
    mix_oracle,
    nonzero,
    paste,
    sin,
    sine,
    solve_tridiagonal,
)

import polyop

pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]
Z = torch.linspace(0.1, 1.5, 4, dtype=torch.float64)
HAS_COMPILER = shutil.which("g++") is not None
BACKENDS = [
    "eager",
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(not HAS_COMPILER, reason="no g++ here")),
]


def compiled(f: Callable[..., Any], backend: str, **more: Any) -> Any:
    return torch.compile(f, backend=backend, fullgraph=True, **more)


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ("int lambda=2", [((), {}), ((), {"lambda": 3}), ((4,), {})]),
        ("*, int from=2", [((), {}), ((), {"from": 3})]),
        ("int lambda, *, int from", [((1,), {"from": 3})]),
    ],
)
def test_words_of_python(arguments: str, calls: list[Any]) -> None:
    """S117: arguments whose names Python keeps for itself are given by name, in one graph too."""
    lib = polyop.library.Library("worded", "DEF")

    def kernel(x: Any, *given: int, **named: int) -> Any:
        return polyop.from_numpy(x.numpy() * sum((*given, *named.values())))

    lib.define(f"scaled(Tensor x, {arguments}) -> Tensor")
    lib.impl("scaled", kernel, "CPU")
    polyop.library.register_fake("worded::scaled", lambda x, *_, **__: x.new_empty(x.shape))
    op = polyop.ops.worded.scaled
    try:
        for given, named in calls:
            f = compiled(lambda x, given=given, named=named: op(x, *given, **named) + 1.0, "eager")
            factor = sum((*given, *named.values())) or 2
            torch.testing.assert_close(f(Z), Z * factor + 1.0)
        given, named = calls[-1]
        with pytest.raises(Exception, match="other"):
            compiled(lambda x: op(x, *given, other=1, **named), "eager")(Z)
    finally:
        lib.destroy()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients(backend: str, dynamic: bool) -> None:
    """S117, S141: in one graph, static or dynamic, result and gradient are the eager ones."""

    def f(x: Any) -> Any:
        return (crop(x, [1, 2, 5, 6]) ** 2).sum() + sin(x).sum()

    given = [torch.rand(3, 8, 7, requires_grad=True) for _ in range(2)]
    given[1].data.copy_(given[0].data)
    results = [compiled(f, backend, dynamic=dynamic)(given[0]), f(given[1])]
    for result in results:
        result.backward()
    torch.testing.assert_close(*results)
    torch.testing.assert_close(given[0].grad, given[1].grad)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_sizes_that_are_symbols(backend: str) -> None:
    """S150: sizes computed from symbolic sizes serve every shape in one graph."""
    count = torch._dynamo.testing.CompileCounterWithBackend(backend)

    def f(x: Any) -> Any:
        return crop(x, [0, 0, x.shape[2] - 1, x.shape[1] - 2]) * 2

    run = compiled(f, count, dynamic=True)
    for n in (5, 7, 9):
        x = torch.rand(2, n, n + 1)
        torch.testing.assert_close(run(x), x[:, : n - 2, :n] * 2)
    assert count.frame_count == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_sizes_that_depend_on_data(backend: str) -> None:
    """S144: `new_dynamic_size` is PyTorch's own size inside of its trace."""
    run = compiled(lambda x: nonzero(x) * 2, backend)
    assert run(torch.tensor([0.0, 1.0, 2.0])).tolist() == [[2], [4]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_writes(backend: str) -> None:
    """S174: an operator that writes is functionalized, and written memory is read after."""

    def f(x: Any) -> Any:
        out = torch.empty_like(x)
        sine(x, out)
        return out + 1

    torch.testing.assert_close(compiled(f, backend)(Z), torch.sin(Z) + 1)


def test_handles_and_keywords() -> None:
    """S62: packets, overloads, keywords and defaults are bound in compiled regions as outside."""
    packet = polyop.ops.bridge_tests.mix
    overload = packet.default

    def f(x: Any) -> Any:
        return packet([x, x], None, k=3.0)[0] + overload([x, x], x[0], mode="any")[1][1]

    want = mix_oracle([Z, Z], None, 3.0)[0] + mix_oracle([Z, Z], Z[0])[1][1]
    torch.testing.assert_close(compiled(f, "aot_eager")(Z), want)


def test_transforms_around_and_inside() -> None:
    """S132, S155: transforms in compiled regions, and these in transforms, are right."""
    func: Any = torch.func
    run = torch.compile(lambda x: sin(x) * 2, backend="aot_eager")
    torch.testing.assert_close(func.jvp(run, (Z,), (Z,))[1], 2 * torch.cos(Z) * Z)
    torch.testing.assert_close(func.vmap(run)(Z), torch.sin(Z) * 2)
    torch.testing.assert_close(compiled(func.vmap(cube), "aot_eager")(Z), Z**3)
    inside = torch.compile(lambda x: func.jvp(sin, (x,), (x,))[1] * 2, backend="aot_eager")
    torch.testing.assert_close(inside(Z), 2 * torch.cos(Z) * Z)


def test_a_missing_fake_rule_is_named() -> None:
    """S141: without a fake rule, compiling says which operator misses it, and what to do."""
    with pytest.raises(Exception, match="bridge_tests::double has no fake rule"):
        compiled(lambda x: double(x), "eager")(Z)


class Cropped(torch.nn.Module):
    """A model with an author's operator."""

    def forward(self, x: Any) -> Any:
        return crop(x, [1, 2, x.shape[2], 6]) + 1


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    """S213, S214: an exported program holds the operator, is loaded, and takes other sizes."""
    size = torch.export.Dim("n", min=7, max=30)
    x = torch.rand(3, 8, 9)
    program = torch.export.export(
        Cropped(), (x,), dynamic_shapes={"x": {1: size, 2: torch.export.Dim("m", min=4, max=30)}},
        strict=strict,
    )  # fmt: skip
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert "examples.crop.default" in targets
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    y = torch.rand(3, 12, 7)
    torch.testing.assert_close(loaded(y), y[:, 2:6, 1:7] + 1)


def test_make_fx() -> None:
    """S209: a trace of PyTorch shows one node for the operator."""
    tracing: Any = torch.fx.experimental.proxy_tensor
    graph = tracing.make_fx(lambda x: sin(x) * 2, tracing_mode="symbolic")(Z)
    assert "bridge_tests.sin.default" in [str(n.target) for n in graph.graph.nodes]
    torch.testing.assert_close(graph(Z), torch.sin(Z) * 2)


def needing(x: torch.Tensor) -> torch.Tensor:
    return x.clone().requires_grad_()


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (crop, (needing(torch.rand(3, 8, 7)), [1, 2, 5, 6])),
        (paste, (needing(torch.rand(3, 8, 7)), needing(torch.rand(3, 4, 3)), [2, 1])),
        (nonzero, (torch.tensor([[0.0, 1.0], [2.0, 0.0]]),)),
        (sine, (torch.rand(3), torch.rand(3))),
        (solve_tridiagonal, (needing(torch.rand(3, 4) + 3), needing(torch.rand(4)))),
        (sin, (needing(Z),)),
        (cube, (needing(Z),)),
        (mix, ([needing(Z), Z], None, 2.0, "any")),
        (mix, ([needing(Z), needing(Z)], needing(Z[0]))),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_pytorch_checks_the_operator(op: Any, args: Any) -> None:
    """S202 to S205: PyTorch's opcheck finds nothing: schema, registration, fake, AOT dispatch."""
    space, _, name = op._qualname.partition("::")
    target = getattr(getattr(torch.ops, space), name).default
    found = torch.library.opcheck(target, args)
    assert set(found.values()) == {"SUCCESS"}


def test_our_tensors_are_compiled_as_often_as_one_likes() -> None:
    """S66: a call that Python runs beside a graph leaves nothing that guards rely on."""

    def halved(x: Any) -> Any:
        return polyop.to_array(polyop.from_array(x) * 0.5)

    for _ in range(2):
        torch._dynamo.reset()
        assert torch.equal(torch.compile(halved, backend="eager")(Z), Z * 0.5)

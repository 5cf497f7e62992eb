"""PyTorch's own handles, `torch.ops.ns.name`: as right as the operator, or refused as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES

import polyop
from polyop import Tensor
from polyop.errors import AutogradError, MutationError

pytestmark = COMPILES
forward_ad: Any = torch.autograd.forward_ad  # without types


def _handle_of(name: str, *, jvp: bool) -> Any:
    op = polyop.custom_op(
        name,
        lambda x: polyop.from_numpy(x.numpy() * 3),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )
    op.register_fake(lambda x: polyop.empty_like(x))
    op.register_autograd(lambda ctx, grad: grad * 3)
    if jvp:
        op.register_jvp(lambda ctx, t: t * 3)
    return op, getattr(torch.ops.handles, name.partition("::")[2])


def test_a_handle_gives_the_tangents_of_duals() -> None:
    """S132: `torch.ops` in forward mode, plain or recorded, is never zero in silence."""
    op, handle = _handle_of("handles::dual", jvp=False)

    def tangent(f: Any, x: torch.Tensor) -> Any:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, x + 1))).tangent

    x = torch.ones(2)
    for f in (op, handle):
        assert torch.equal(tangent(f, x), 3 * (x + 1))
        assert torch.equal(tangent(f, x.clone().requires_grad_()), 3 * (x + 1))
    for backend in ("eager", "aot_eager"):
        found = torch.compile(lambda x: tangent(op, x), backend=backend)(x)
        assert torch.equal(found, 3 * (x + 1))


def test_a_handle_under_the_transforms_is_right_or_refused() -> None:
    """S132: with the author's `jvp` it is right; from a backward it cannot be, and says so."""
    _, handle = _handle_of("handles::ruled", jvp=True)
    x = torch.ones(2)
    assert torch.equal(torch.func.jvp(handle, (x,), (x,))[1], 3 * x)
    assert torch.equal(torch.func.jacfwd(handle)(x), 3 * torch.eye(2))
    each = torch.vmap(lambda x: torch.func.jvp(handle, (x,), (x,))[1])(torch.ones(4, 2))
    assert torch.equal(each, 3 * torch.ones(4, 2))
    _, handle = _handle_of("handles::backward", jvp=False)
    with pytest.raises(AutogradError, match="tangents of handles::backward cannot be computed"):
        torch.func.jvp(handle, (x,), (x,))


def test_a_handle_writes_nothing_that_a_gradient_would_miss() -> None:
    """S115: what the operator refuses, PyTorch's handle of it refuses, and writes nothing."""

    def double(x: Tensor) -> None:
        x.numpy()[...] *= 2

    op = polyop.custom_op("handles::double", double, mutates_args={"x"})
    op.register_fake(lambda x: None)
    handle = torch.ops.handles.double
    y = torch.ones(2, requires_grad=True) * 3
    with pytest.raises(MutationError, match="handles::double writes x"):
        handle(y)
    assert torch.equal(y, torch.full((2,), 3.0))
    with torch.no_grad():
        handle(y)
    plain = torch.ones(2)
    handle(plain)
    assert torch.equal(y, torch.full((2,), 6.0))
    assert torch.equal(plain, torch.full((2,), 2.0))
    assert plain._version == 1


def test_what_is_removed_is_not_listed() -> None:
    """S106: a name found by a look, of one operator or several, goes with them; exports go on."""
    lib = polyop.library.Library("handles_gone", "FRAGMENT")
    lib.define("one(Tensor x) -> Tensor")
    lib.define("one.two(Tensor x, Tensor y) -> Tensor")
    assert sorted(torch.ops.handles_gone.one.overloads()) == ["default", "two"]
    assert list(torch.ops.handles_gone) == ["one"]
    lib._destroy()
    assert list(torch.ops.handles_gone) == []
    assert torch.export.default_decompositions()


_DEFAULTS = {
    "(Tensor x, float k=2.0) -> Tensor": lambda x, k: x.numpy() * k,
    "(Tensor x, int[] n=[1, 1]) -> Tensor": lambda x, n: x.numpy() * sum(n),
    "(Tensor x, *, float k=2.0, Tensor? w=None) -> Tensor": lambda x, *, k, w: x.numpy() * k,
    "(Tensor[] xs, Tensor? w=None) -> Tensor": lambda xs, w: xs[0].numpy() * 2,
}


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("schema", _DEFAULTS)
def test_a_batch_of_a_handle_whose_defaults_are_left_out(schema: str) -> None:
    """S157: the last arguments are filled in, in a loop over samples and in compiled code."""
    kernel, name = _DEFAULTS[schema], f"batch{len(schema)}"
    op = polyop.custom_op(
        f"handles::{name}",
        lambda *args, **named: polyop.from_numpy(kernel(*args, **named)),
        mutates_args=(),
        schema=schema,
        replace=True,
    )
    lists = "[]" in schema.partition(",")[0]
    op.register_fake(lambda x, *_, **__: polyop.empty_like(x[0] if lists else x))
    handle = getattr(torch.ops.handles, name)
    x = torch.arange(6.0).reshape(3, 2)

    def call(row: Any) -> Any:
        return handle([row] if lists else row)

    assert torch.equal(torch.func.vmap(call)(x), x * 2)
    assert torch.equal(torch.compile(torch.func.vmap(call), backend="aot_eager")(x), x * 2)
    assert torch.equal(torch.func.vmap(torch.compile(call, backend="aot_eager"))(x), x * 2)


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_a_batch_of_writes_whose_defaults_are_left_out() -> None:
    """S159: each sample is written."""

    @polyop.custom_op("handles::add_one", mutates_args={"y"}, replace=True)
    def add_one(y: Tensor, a: float = 1.0) -> None:
        y.numpy()[...] += a

    add_one.register_fake(lambda y, a: None)
    for f in (add_one, torch.ops.handles.add_one):
        x = torch.zeros(3, 2)
        torch.func.vmap(lambda row, f=f: (f(row), row * 1)[1])(x)
        assert torch.equal(x, torch.ones(3, 2))

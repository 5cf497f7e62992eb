"""Programs hold no former rule of an operator: who registers one again gets it at the next call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import polyop
from polyop import Library, Tensor
from polyop.errors import CaptureError, OperatorNotFoundError
from polyop.func import jvp, vmap

X = polyop.ones(3)


@pytest.fixture
def lib() -> Iterator[Any]:
    library = Library("compiled_stale", "DEF")
    yield library
    library.destroy()


def gradient(fn: Any) -> float:
    x = polyop.ones(3, requires_grad=True)
    return float(polyop.autograd.grad(fn(x).sum(), x)[0][0])


def defined(lib: Any, key: str = "CPU") -> Any:
    lib.define("op(Tensor x) -> Tensor")
    lib.impl("op", lambda x: polyop.from_numpy(x.numpy() * 2), key)
    op = polyop.ops.compiled_stale.op
    polyop.library.register_fake("compiled_stale::op", lambda x: polyop.empty_like(x), lib=lib)
    return op


def test_a_new_backward(lib: Any) -> None:
    """S4, S211: gradients of compiled functions follow it, also where there was none before."""
    op = defined(lib)
    compiled = polyop.compile(lambda x: op(x))
    for k in (2.0, 7.0, 3.0):
        polyop.library.register_autograd("compiled_stale::op", lambda ctx, g, k=k: g * k, lib=lib)
        assert gradient(compiled) == gradient(op) == k


def test_a_new_composite_kernel(lib: Any) -> None:
    """S4, S211: its calls stand in the program, so that is made anew."""
    lib.define("op(Tensor x) -> Tensor")
    compiled = polyop.compile(lambda x: polyop.ops.compiled_stale.op(x))
    for k in (2.0, 7.0):
        lib.impl("op", lambda x, k=k: x * k, "CompositeImplicitAutograd", allow_override=True)
        assert compiled(X).tolist() == [k] * 3
    lib.destroy()
    with pytest.raises(OperatorNotFoundError):
        compiled(X)


def test_new_rules_of_transforms(lib: Any) -> None:
    """S4, S211: those that ran while a transform inside was captured."""
    op = defined(lib)
    batched = polyop.compile(lambda x: vmap(op)(x))
    pushed = polyop.compile(lambda x: jvp(op, (x,), (x,))[1])
    register = polyop.library
    for k in (2.0, 7.0):
        register.register_vmap("compiled_stale::op", lambda info, dims, x, k=k: (x * k, 0), lib=lib)
        register.register_autograd("compiled_stale::op", lambda ctx, g, k=k: g * k, lib=lib)
        assert batched(X).tolist() == pushed(X).tolist() == [k] * 3


def test_a_new_fake_rule(lib: Any) -> None:
    """S4: what could not be captured is tried again."""
    lib.define("op(Tensor x) -> Tensor")
    lib.impl("op", lambda x: polyop.from_numpy(x.numpy() * 2), "CPU")
    compiled = polyop.compile(lambda x: polyop.ops.compiled_stale.op(x) + 1)
    assert compiled(X).tolist() == [3.0] * 3
    assert not compiled.programs
    polyop.library.register_fake("compiled_stale::op", lambda x: polyop.empty_like(x), lib=lib)
    assert compiled(X).tolist() == [3.0] * 3
    assert len(compiled.programs) == 1


def test_other_operators_leave_programs_alone(lib: Any) -> None:
    """S211: defining, calling and changing what no capture has met costs no program."""
    compiled = polyop.compile(lambda x: x * 2.0 + 1.0)
    compiled(X)
    kept = [*compiled.programs.values()]
    op = defined(lib)
    op(X)
    polyop.library.register_autograd("compiled_stale::op", lambda ctx, g: g, lib=lib)
    assert compiled(X).tolist() == [3.0] * 3
    assert all(a is b for a, b in zip(kept, compiled.programs.values(), strict=True))


def test_a_change_in_the_middle_of_a_capture(lib: Any) -> None:
    """S99, S211: the call that is under way ends with what it began with; the next has the rule."""
    op = defined(lib)
    register = polyop.library.register_autograd
    register("compiled_stale::op", lambda ctx, g: g * 2, lib=lib)

    def changing(x: Tensor) -> Tensor:
        out = op(x)
        if changes:
            changes.pop()
            register("compiled_stale::op", lambda ctx, g: g * 7, lib=lib)
        return out

    changes = [1]
    compiled = polyop.compile(changing)
    gradient(compiled)
    assert gradient(compiled) == 7


@pytest.mark.parametrize("grads", [False, True])
def test_an_operator_that_the_function_defines_and_removes(grads: bool) -> None:
    """S41, S211, S212: such a call is eager, each time anew; one graph there is none."""

    def fn(x: Tensor) -> Tensor:
        with polyop.scoped_library("compiled_inside", "FRAGMENT") as lib:
            lib.define("op(Tensor x) -> Tensor")
            lib.impl("op", lambda x: polyop.from_numpy(x.numpy() * 2), "CPU")
            polyop.library.register_fake("compiled_inside::op", polyop.empty_like, lib=lib)
            polyop.library.register_autograd("compiled_inside::op", lambda ctx, g: g * 2, lib=lib)
            return polyop.ops.compiled_inside.op(x) + 1  # type: ignore[no-any-return]

    compiled = polyop.compile(fn)
    for _ in range(2):
        assert compiled(polyop.ones(3).requires_grad_(grads)).tolist() == [3.0] * 3
    with pytest.raises(CaptureError, match="compiled_inside::op"):
        polyop.compile(fn, fullgraph=True)(polyop.ones(3))

"""The laws of functional twins (S174)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_fake, register_kernel
from polyop.errors import OperatorGoneError, UsageError
from polyop.layers.fake import FakeTensorMode
from polyop.layers.functionalize import functional_twin, functionalize
from polyop.ops.elementwise import add, sin
from polyop.ops.inplace import add_
from polyop.tensor.tensor import Tensor, of_array


@pytest.fixture
def lib() -> Iterator[Library]:
    made = Library("twintest", "FRAGMENT")
    yield made
    made._destroy()


def push(x: Tensor, ys: list[Tensor], by: float, *, z: Tensor | None = None) -> Tensor:
    """Write `x` and all of `ys`, and give something new."""
    x.numpy()[...] += by
    for y in ys:
        y.numpy()[...] *= 2
    return of_array(x.numpy() + 100)


def define(lib: Library) -> Any:
    lib.define("push(Tensor(a!) x, Tensor(b!)[] ys, float by, *, Tensor(c!)? z=None) -> Tensor")
    register_kernel("twintest::push", "cpu", push, lib=lib)
    register_fake("twintest::push", lambda x, ys, by, *, z=None: sin(x), lib=lib)
    return find_operator("twintest::push")


def tensor(n: int) -> Tensor:
    return of_array(np.arange(float(n)))


def test_results_then_new_values(lib: Library) -> None:
    """S174: the twin returns the results, then the new values, and writes nothing."""
    twin = functional_twin(define(lib))
    assert str(twin._schema) == (
        "twintest::push.functional(Tensor x, Tensor[] ys, float by, *, Tensor? z=None) "
        "-> (Tensor, Tensor, Tensor[], Tensor?)"
    )
    x, y = tensor(3), tensor(2)
    out, new_x, new_ys, new_z = twin(x, [y], 1.0)
    np.testing.assert_array_equal(out.numpy(), [101, 102, 103])
    np.testing.assert_array_equal(new_x.numpy(), [1, 2, 3])
    np.testing.assert_array_equal(new_ys[0].numpy(), [0, 2])
    assert new_z is None
    np.testing.assert_array_equal(x.numpy(), np.arange(3.0))
    np.testing.assert_array_equal(y.numpy(), np.arange(2.0))


def test_the_twin_is_one_operator(lib: Library) -> None:
    """S174: asked twice, it is the same; `op.functional` is it; it goes with its operator."""
    op = define(lib)
    twin = functional_twin(op)
    assert functional_twin(op) is twin
    assert op.functional is twin
    assert find_operator("twintest::push", "functional") is twin
    lib._destroy()
    with pytest.raises(OperatorGoneError):
        twin(tensor(2), [], 1.0)


def test_the_twin_has_a_fake(lib: Library) -> None:
    """S174: the fake of the twin follows from that of the operator."""
    twin = functional_twin(define(lib))
    with FakeTensorMode() as mode:
        x = mode.from_tensor(tensor(3))
        out, new_x, new_ys, _ = twin(x, [x], 1.0)
    assert out.is_fake
    assert new_x.shape == new_ys[0].shape == (3,)
    assert new_x is not x


def test_operators_that_return_what_they_write() -> None:
    """S174: a result that is a written argument comes once, as its new value."""
    twin = functional_twin(add_.op)
    x = tensor(3)
    np.testing.assert_array_equal(twin(x, x).numpy(), [0, 2, 4])
    np.testing.assert_array_equal(x.numpy(), np.arange(3.0))


def test_operators_that_write_nothing() -> None:
    """S174: an operator that writes nothing has no twin."""
    with pytest.raises(UsageError, match="writes nothing"):
        functional_twin(sin.op)


def test_functionalize_runs_the_twin(lib: Library) -> None:
    """S168: authors' operators that write are functionalized through their twins."""
    op = define(lib)

    def f(x: Tensor, y: Tensor) -> Any:
        a = add(x, 1.0)
        out = op(a, [y], 1.0)
        return out, a, add(y, a)

    results = []
    for form in (f, functionalize(f)):
        x, y = tensor(3), tensor(3)
        results.append([t.numpy().tolist() for t in (*form(x, y), x, y)])
    assert results[0] == results[1]

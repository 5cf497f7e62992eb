"""Calls with arrays of NumPy that came before: written out, and no different from the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.dispatch import bind
from polyop.errors import AliasError, ArgumentError, OperatorGoneError
from polyop.func import grad
from polyop.library import Library, custom_op

TIMES = 3


@custom_op("quick_arrays::scaled", mutates_args=())
def scaled(x: Tensor, by: float = 2.0, *, plus: Tensor | None = None) -> tuple[Tensor, Tensor]:
    total = x.numpy() * by + (0 if plus is None else plus.numpy())
    return polyop.from_numpy(total), polyop.from_numpy(np.asarray(total.sum()))


@custom_op("quick_arrays::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() * 2)


doubled.register_autograd(lambda ctx, g: g * 2)
X = np.arange(3.0)


@pytest.fixture
def bound(monkeypatch: Any) -> list[str]:
    """The calls that were bound at length."""
    seen: list[str] = []
    first = bind._call_foreign

    def call(op: Any, *given: Any) -> Any:
        seen.append(op.name())
        return first(op, *given)

    monkeypatch.setattr(bind, "_call_foreign", call)
    return seen


@pytest.mark.parametrize("plus", [None, np.ones(3)])
def test_arrays_alone(plus: Any, bound: list[str]) -> None:
    """S66: arrays in, arrays out, whichever arguments they are; once bound, a call is written."""
    for _ in range(TIMES):
        found = scaled(X, 3.0, plus=plus)
        assert [type(part) for part in found] == [np.ndarray, np.ndarray]
        expected = X * 3 + (0 if plus is None else 1)
        np.testing.assert_array_equal(found[0], expected)
        assert found[1] == expected.sum()
    assert len(bound) <= 1


def test_beside_tensors(bound: list[str]) -> None:
    """S66: beside a tensor the answer is one, with a history where the tensor has one."""
    t = polyop.ones(3, dtype=polyop.float64, requires_grad=True)
    for _ in range(TIMES):
        for found in (t * X, X * t, polyop.add(X, t)):
            assert type(found) is Tensor
            assert found.requires_grad
        (t * X).sum().backward()
        np.testing.assert_array_equal(t.grad.numpy(), X)
        t.grad = None
        np.testing.assert_array_equal(grad(lambda x: polyop.sum(x * X))(t.detach()).numpy(), X)
    assert bound.count("core::multiply") <= 3


def test_what_is_wrong_stays_wrong() -> None:
    """S63: other values of the same classes are looked at each time."""
    for _ in range(TIMES):
        scaled(X, 2.0)
        for odd in ("2", None, [2.0]):
            with pytest.raises(ArgumentError, match="by"):
                scaled(X, odd)
        with pytest.raises(ArgumentError):
            scaled(X, 2.0, plus=3)
        doubled(X)
        with pytest.raises(ArgumentError):
            doubled([1.0])


class Odd(np.ndarray[Any, Any]):
    """An array of another class."""


def test_arrays_of_other_classes() -> None:
    """S66: subclasses of arrays are bound each time, as they were."""
    for _ in range(TIMES):
        doubled(X)
        np.testing.assert_array_equal(doubled(X.view(Odd)), X * 2)
        np.testing.assert_array_equal(
            doubled(np.asfortranarray(np.ones((2, 3)))), np.full((2, 3), 2)
        )
        np.testing.assert_array_equal(doubled(np.asarray(3.0)), 6.0)


def test_callers_arrays_are_written() -> None:
    """S66: an operator that writes writes the caller's own array, and gives that array back."""
    lib = Library("quick_arrays_written", "DEF")
    lib.define("fill(Tensor(a!) x, float value) -> Tensor(a!)")

    def fill(x: Tensor, value: float) -> Tensor:
        x.numpy()[...] = value
        return x

    lib.impl("fill", fill, "CPU")
    for i in range(TIMES):
        array = np.zeros(3)
        assert polyop.ops.quick_arrays_written.fill(array, float(i)) is array
        np.testing.assert_array_equal(array, np.full(3, float(i)))


def test_memory_is_looked_at_each_time() -> None:
    """S48: an array that a kernel gives back undeclared is refused, the third time too."""
    answers: list[Any] = []
    op = custom_op(
        "quick_arrays::given",
        lambda x: answers[-1](x),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )
    for _ in range(TIMES):
        answers.append(lambda x: polyop.from_numpy(x.numpy().copy()))
        op(X)
        answers.append(lambda x: x)
        with pytest.raises(AliasError):
            op(X)


def test_rules_that_change() -> None:
    """S45: a kernel that takes another's place, or goes, is that of written calls as well."""
    lib = Library("quick_arrays_changing", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: polyop.from_numpy(x.numpy() + 1), "CPU")
    f = polyop.ops.quick_arrays_changing.f
    overload = f.default
    for _ in range(TIMES):
        np.testing.assert_array_equal(f(X), X + 1)
    other = Library("quick_arrays_changing", "IMPL")
    other.impl("f", lambda x: polyop.from_numpy(x.numpy() + 2), "CPU", allow_override=True)
    for _ in range(TIMES):
        np.testing.assert_array_equal(overload(X), X + 2)
    other.destroy()
    np.testing.assert_array_equal(overload(X), X + 1)
    lib.destroy()
    with pytest.raises(OperatorGoneError):
        overload(X)


@pytest.mark.parametrize("kind", [np.memmap, np.matrix, Odd])
def test_memory_of_arrays_of_other_classes(kind: Any, tmp_path: Any) -> None:
    """S48: what shares memory with an array of a subclass is refused like any other."""
    op = custom_op(
        f"quick_arrays::same_{kind.__name__}",
        lambda x: polyop.from_numpy(x.numpy()),
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )
    array = np.ones((2, 3)).view(kind) if kind is not np.memmap else None
    if array is None:
        array = np.memmap(tmp_path / "numbers", dtype="f8", mode="w+", shape=(2, 3))
    for _ in range(TIMES):
        with pytest.raises(AliasError):
            op(array)

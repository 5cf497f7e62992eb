"""The laws of functionalized calls whose arguments or results share memory (S168)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_fake, register_kernel
from polyop.errors import AutogradError, MutationError
from polyop.export import Dim, export
from polyop.func import functionalize, grad
from polyop.graph import make_fx

NS = "sharing"


@pytest.fixture(scope="module", autouse=True)
def lib() -> Iterator[Library]:
    made = Library(NS, "FRAGMENT")
    made.define("add(Tensor(a!) x, Tensor(b!) y) -> ()")
    register_kernel(f"{NS}::add", "cpu", both, lib=made)
    register_fake(f"{NS}::add", lambda x, y: None, lib=made)
    made.define("first(Tensor(a!) x) -> Tensor(a)")
    made.define("lists(Tensor(a!)[] xs, Tensor(b!)[] ys, Tensor(c!)? z=None) -> ()")
    register_kernel(f"{NS}::lists", "cpu", lists, lib=made)
    register_fake(f"{NS}::lists", lambda xs, ys, z: None, lib=made)
    register_kernel(f"{NS}::first", "cpu", first, lib=made)
    register_fake(f"{NS}::first", lambda x: x[0], lib=made)
    made.define("from_other(Tensor(a!) x, Tensor(b) y) -> Tensor(b)")
    register_kernel(f"{NS}::from_other", "cpu", lambda x, y: (first(x), y[1:])[1], lib=made)
    yield made
    made._destroy()


def both(x: Any, y: Any) -> None:
    x.numpy()[...] += 1
    y.numpy()[...] *= 2


def first(x: Any) -> Any:
    x.numpy()[...] += 1
    return x[0]


def lists(xs: Any, ys: Any, z: Any) -> None:
    for x in xs:
        x.numpy()[...] += 1
    for y in ys if z is None else [*ys, z]:
        y.numpy()[...] *= 2


def op(name: str) -> Any:
    return find_operator(f"{NS}::{name}")


def tensor(*shape: int) -> Any:
    return polyop.from_numpy(np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda y: y, lambda y: y),
        (lambda y: y[:2], lambda y: y[1:]),
        (lambda y: y, lambda y: polyop.transpose(y, 0, 1)),
        (lambda y: polyop.flip(y, [0])[1], lambda y: y[:, 1]),
        (lambda y: y.reshape(-1)[::2], lambda y: y),
    ],
)
@pytest.mark.parametrize(
    "start", [lambda x: x + 1, lambda x: x, lambda x: polyop.transpose(x, 0, 1)]
)
def test_written_views_of_one_memory(a: Any, b: Any, start: Any) -> None:
    """S168: a write through one argument is seen through the other, as it is eagerly."""

    def f(x: Any) -> Any:
        y = start(x)
        op("add")(a(y), b(y))
        return y * 1

    eager, ours, traced = tensor(3, 3), tensor(3, 3), tensor(3, 3)
    want = f(eager).numpy()
    np.testing.assert_array_equal(functionalize(f)(ours).numpy(), want)
    np.testing.assert_array_equal(ours.numpy(), eager.numpy())
    program = make_fx(functionalize(f))(tensor(3, 3))
    base = start(tensor(3, 3))
    shared = np.shares_memory(a(base).numpy(), b(base).numpy())  # a reshape may have copied
    assert ("auto_functionalized_v2" in str(program.graph)) == shared
    np.testing.assert_array_equal(program(traced).numpy(), want)
    np.testing.assert_array_equal(traced.numpy(), eager.numpy())


def test_exports_of_written_views_of_one_memory() -> None:
    """S168, S213: a capture finds the parts of a memory without a look at its data."""

    def f(x: Any) -> Any:
        y = x + 1
        op("add")(y[:2], y[1:])
        return y

    program = export(f, (tensor(3, 3),)).module()
    np.testing.assert_array_equal(program(tensor(3, 3)).numpy(), f(tensor(3, 3)).numpy())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda y: y[0], lambda y: y[1]),
        (lambda y: y[-1], lambda y: y[-2]),
        (lambda y: y[0], lambda y: y[1:]),
        (lambda y: y[2:], lambda y: y[:2]),
        (lambda y: y[:-2], lambda y: y[-2:-1]),
        (lambda y: y[:-1], lambda y: y[-1]),
        (lambda y: y.T[0, 1:], lambda y: y.T[0, :1]),
        (lambda y: y[:, 0], lambda y: y[:, 1]),
    ],
)
def test_parts_that_do_not_meet_are_memory_of_their_own(a: Any, b: Any) -> None:
    """S168, S174: a call on them goes to the functional twin, whatever the sizes are."""

    def f(x: Any) -> Any:
        y = x + 1
        op("add")(a(y), b(y))
        return y

    want = f(tensor(3, 3)).numpy()
    program = make_fx(functionalize(f), "symbolic")(tensor(5, 4))
    assert f"{NS}.add.functional" in str(program.graph)
    np.testing.assert_array_equal(program(tensor(3, 3)).numpy(), want)
    exported = export(f, (tensor(5, 4),), dynamic_shapes=({0: Dim("n"), 1: Dim("m")},)).module()
    np.testing.assert_array_equal(exported(tensor(3, 3)).numpy(), want)


@pytest.mark.parametrize("more", [lambda y: ([],), lambda y: ([], None), lambda y: ([], y[1:])])
def test_nothing_among_the_written_arguments(more: Any) -> None:
    """S168, S171: an empty list, or None, has no base, and writes nothing."""

    def f(x: Any) -> Any:
        y = x + 1
        op("lists")([y[0], y[:2]], *more(y))
        return y

    want = f(tensor(3)).numpy()
    np.testing.assert_array_equal(functionalize(f)(tensor(3)).numpy(), want)
    np.testing.assert_array_equal(export(f, (tensor(3),)).module()(tensor(3)).numpy(), want)


def test_apart_calls_are_twins() -> None:
    """S174: arguments with memory of their own go to the functional twin."""

    def f(x: Any) -> Any:
        y, z = x + 1, x + 2
        op("add")(y, z)
        return y + z

    text = str(make_fx(functionalize(f))(tensor(3)).graph)
    assert f"{NS}.add.functional" in text and "higher_order" not in text


def test_symbolic_sizes_are_refused() -> None:
    """S168: shared views of unknown sizes cannot be said as sizes and strides: a named error."""

    def f(x: Any) -> Any:
        y = x + 1
        op("add")(y[:2], y[1:])
        return y

    with pytest.raises(MutationError, match="two of its arguments share"):
        make_fx(functionalize(f), "symbolic")(tensor(5))


def test_views_that_a_writing_operator_gives() -> None:
    """S168: such a view has its value, until its memory is written; then it is a named error."""
    check = functionalize(lambda x: op("first")(x + 1) * 2)
    np.testing.assert_array_equal(check(tensor(2, 2)).numpy(), [6, 8])
    alone = functionalize(lambda x: op("first")(x + 1))
    np.testing.assert_array_equal(alone(tensor(2, 2)).numpy(), [3, 4])

    def stale(x: Any) -> Any:
        y = x + 1
        v = op("first")(y)
        y.mul_(10)
        return v * 1

    def written(x: Any) -> Any:
        y = x + 1
        op("first")(y).mul_(10)
        return y

    def beside(x: Any) -> Any:
        return x, op("first")(x)

    def of_other(x: Any) -> Any:
        y = x + 1
        return y, op("from_other")(x * 1, y)

    for f in (stale, written, beside, of_other):
        with pytest.raises(MutationError, match="while it wrote|used after a write"):
            functionalize(f)(tensor(2, 2))


def test_gradients_through_shared_memory_are_errors() -> None:
    """S168: a write to shared memory has no gradient to follow, so none is made up."""

    def f(x: Any) -> Any:
        y = x * 2
        op("add")(y[:2], y[1:])
        return y.sum()

    with pytest.raises(AutogradError, match="gradient cannot follow"):
        grad(functionalize(f))(tensor(3))


def test_written_memory_deeper_inside_an_argument() -> None:
    """S168: such memory has no name in the call on bases, so the call is refused by name."""

    @polyop.custom_op("shared::add_and_scale", mutates_args={"a", "b"})
    def add_and_scale(a: polyop.Tensor, b: dict[str, polyop.Tensor]) -> None:
        a.numpy()[...] += 1
        for t in b.values():
            t.numpy()[...] *= 3

    def fn(x: Any, start: int) -> Any:
        y = x * 1
        add_and_scale(y[:2], {"k": y[start:]})
        return y

    x = polyop.tensor([1.0, 2.0, 3.0, 4.0])
    apart = functionalize(lambda x: fn(x, 2))
    assert apart(x).tolist() == fn(x, 2).tolist() == [2, 3, 9, 12]
    with pytest.raises(MutationError, match="tensors deeper inside 'b' share"):
        functionalize(lambda x: fn(x, 1))(x)

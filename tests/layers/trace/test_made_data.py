"""Data that a traced function makes is new at each run of the program, as in each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError
from polyop.export import export
from polyop.graph import GraphModule, make_fx
from polyop.library import Library

Fn = Callable[[Tensor], Tensor]


def written(x: Tensor) -> Tensor:
    z = polyop.tensor([1.0, 2.0])
    z.add_(1)
    return z + x


def through_a_view(x: Tensor) -> Tensor:
    z = polyop.tensor(np.array([1.0, 2.0], "float32"))
    before = z + x
    z[0].add_(1)
    z.mul_(2)
    return z * before


def set_by_indices(x: Tensor) -> Tensor:
    z = polyop.asarray([1.0, 2.0])
    z[[1, 0]] = x
    return z


def given(x: Tensor) -> Tensor:
    return polyop.tensor([1.0, 2.0])


def in_an_author_s_function(x: Tensor) -> Tensor:
    return Scaled.apply(x)  # type: ignore[no-any-return]


class Scaled(polyop.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        scale = polyop.tensor([1.0, 2.0])
        scale.mul_(x)
        return scale * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


FUNCTIONS = [written, through_a_view, set_by_indices, given, in_an_author_s_function]


def check(f: Fn, program: Callable[..., Tensor]) -> None:
    """Run a program twice; what the first run gave is written in between."""
    x = polyop.tensor([3.0, 4.0])
    for _ in range(2):
        found = program(x)
        assert found.tolist() == f(x).tolist()
        found.detach().add_(5)


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_data_is_made_at_each_run(f: Fn, mode: str, pre_dispatch: bool) -> None:
    """S209: a program does what its function does, each time."""
    check(f, make_fx(f, mode, pre_dispatch)(polyop.ones(2)))


@pytest.mark.parametrize("f", FUNCTIONS)
def test_data_is_made_at_each_call(f: Fn) -> None:
    """S211: a compiled function does what the function does, in one graph."""
    check(f, polyop.compile(f, fullgraph=True))


def test_an_exported_result_is_new() -> None:
    """S214: what a caller does with a result is his own affair."""
    check(given, export(given, (polyop.ones(2),)).module())


BODIES: dict[str, Fn] = {
    "cond": lambda x: polyop.hop.cond(x.sum() > 0, written, given, (x,)),
    "cond, given": lambda x: polyop.hop.cond(x.sum() < 0, written, given, (x,)),
    "checkpoint": lambda x: polyop.hop.checkpoint(written, x),
    "while_loop": lambda x: polyop.hop.while_loop(
        lambda i, x: i < 3, lambda i, x: (i + 1, written(x)), (polyop.tensor(0), x)
    )[1],
    "map": lambda x: polyop.hop.map(written, x.reshape(1, 2)),
}


@pytest.mark.parametrize("name", BODIES)
def test_data_of_a_body(name: str) -> None:
    """S181: a body that writes what it made itself writes no input."""
    f = BODIES[name]
    check(f, f)
    check(f, make_fx(f, "fake")(polyop.ones(2)))
    check(f, polyop.compile(f, fullgraph=True))


def test_data_of_a_composite_kernel() -> None:
    """S209: what a kernel makes, whose calls are recorded, is made at each run too."""
    library = Library("made_data", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", written, "CompositeImplicitAutograd")
    f = polyop.ops.made_data.twice
    check(f, make_fx(f, "fake")(polyop.ones(2)))


def text(f: Fn) -> str:
    module: GraphModule = make_fx(f, "fake")(polyop.ones(2))
    return str(module.graph)


def test_what_is_only_read_is_no_copy() -> None:
    """S209: a constant that nobody writes or gets is read as it is."""
    assert "clone" not in text(lambda x: x + polyop.tensor([1.0, 2.0]))
    assert text(written).count("core.clone") == 1


def test_what_is_captured_stays_itself() -> None:
    """S209: a tensor from outside is written where it is."""
    outside = polyop.zeros(2)
    module = make_fx(lambda x: outside.add_(x), "fake")(polyop.ones(2))
    module(polyop.ones(2))
    assert module(polyop.ones(2)) is outside
    assert outside.tolist() == [2.0, 2.0]


def test_a_call_may_read_data_and_write_an_argument() -> None:
    """S211: of an in-place call, what it reads is not written."""

    def f(x: Tensor) -> Tensor:
        x.add_(polyop.tensor([1.0, 2.0]))
        x[[0, 1]] = polyop.tensor([5.0, 6.0]) * x
        return x * 1

    compiled = polyop.compile(f, fullgraph=True)
    for _ in range(2):
        x, y = polyop.ones(2), polyop.ones(2)
        assert compiled(x).tolist() == f(y).tolist()
        assert x.tolist() == y.tolist()


@pytest.mark.parametrize("view", [False, True])
def test_data_that_a_trace_on_fakes_wrote_is_not_looked_at(view: bool) -> None:
    """S209: such a write is in the program alone, and the data is that of before."""

    def f(x: Tensor) -> Tensor:
        z = polyop.tensor([1.0, 2.0])
        (z[0] if view else z).add_(1)
        return x * z.tolist()[0]

    assert make_fx(f)(polyop.ones(2))(polyop.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(polyop.errors.DataDependentOutputError):
        make_fx(f, "fake")(polyop.ones(2))


OF_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "from_numpy": polyop.from_numpy,
    "asarray": polyop.asarray,
    "from_dlpack": polyop.from_dlpack,
}


@pytest.mark.parametrize("wrap", OF_ARRAYS.values(), ids=OF_ARRAYS)
@pytest.mark.parametrize("view", [False, True])
def test_a_write_to_the_memory_of_an_array_is_eager_or_refused(
    wrap: Callable[[Any], Any], view: bool
) -> None:
    """S209, S212: an array from outside gets what is written; a program would write a copy."""
    array = np.zeros(2, "float32")

    def f(x: Tensor) -> Tensor:
        z = wrap(array)
        (z[:] if view else z).add_(x)
        return z * 1.0

    x = polyop.ones(2)
    compiled = polyop.compile(f)
    assert [compiled(x).tolist()[0], compiled(x).tolist()[0], array[0]] == [1.0, 2.0, 2.0]
    for capture in (polyop.compile(f, fullgraph=True), make_fx(f, "symbolic"), make_fx(f)):
        with pytest.raises(CaptureError, match="memory of an array is written"):
            capture(x)


def test_an_array_that_is_read_is_shared() -> None:
    """S209: a program sees what an array holds when it runs, as with tensors from outside."""
    array = np.ones(2, "float32")
    program = make_fx(lambda x: x * polyop.from_numpy(array), "symbolic")(polyop.ones(2))
    array[:] = 3.0
    assert program(polyop.ones(2)).tolist() == [3.0, 3.0]

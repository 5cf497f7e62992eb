"""An exported program is its function: results, writes, gradients, sizes (SPEC S213)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor, errors
from polyop.export import Dim, Program, export, run_decompositions


def rand(*shape: int, seed: int = 0) -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def same(a: Any, b: Any) -> bool:
    x, y = polyop.tree.leaves(a), polyop.tree.leaves(b)
    return polyop.tree.structure(a) == polyop.tree.structure(b) and all(
        np.array_equal(p.detach().numpy(), q.detach().numpy()) if isinstance(p, Tensor) else p == q
        for p, q in zip(x, y, strict=True)
    )


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


WEIGHT = rand(4, 3, seed=5)


class Layer:
    def __init__(self) -> None:
        self.weight = rand(4, 3, seed=7).requires_grad_()
        self.parts = {"bias": rand(3, seed=8)}

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.parts["bias"]


def written(x: Tensor, y: Tensor) -> Any:
    x.add_(1)
    first = x[0]
    first.mul_(2)
    y[:, 0] = 7.0
    return x, first, y.sum(), x * y


FUNCTIONS: dict[str, Any] = {
    "several": lambda x, y: (x * y, (x + y).sum(), 3, None, "text"),
    "containers": lambda x, y: {"b": [x.sin(), y], "a": Pair(x, y - x)},
    "inputs": lambda x, y: (x, y, x),
    "views": lambda x, y: (x.reshape(-1), y[0], x.transpose(0, 1)[1:]),
    "constants": lambda x, y: x @ WEIGHT + polyop.ones(3),
    "layer": lambda x, y, layer=Layer(): layer(x),
    "sizes": lambda x, y: (x.reshape(x.shape[1], -1), x.shape[0] * 2, x.sum() / x.shape[0]),
    "data": lambda x, y: (polyop.argwhere(x > 0), x[y > 0].sum()),
    "made": lambda x, y: polyop.zeros(4).add_(2) * x,
    "written": written,
    "random": lambda x, y: polyop.randn(3).shape[0] + x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_program_is_its_function_at_every_size(name: str) -> None:
    """S213: a program gives the function's results, and leaves the same in its inputs."""
    f = FUNCTIONS[name]
    rows = Dim("rows")
    program = export(f, (rand(5, 4), rand(5, 4, seed=1)), dynamic_shapes=({0: rows}, {0: rows}))
    program.graph.lint(program.graph_module)
    for n in (2, 5, 9):
        args, again = ((rand(n, 4, seed=n), rand(n, 4, seed=n + 1)) for _ in range(2))
        assert same(program.module()(*args), f(*again))
        assert same(args, again)


def test_a_graph_writes_nothing_and_inputs_stay_themselves() -> None:
    """S213: writes are results of the graph; a returned input is given back as the object."""
    x, y = rand(3, 4), rand(3, 4)
    program = export(written, (x, y))
    schemas = [n.target._schema for n in program.graph.nodes if hasattr(n.target, "_schema")]
    assert not any(schema.is_mutable for schema in schemas)
    assert [program.signature.inputs[i].path for i in program.signature.written] == ["x", "y"]
    assert program.module()(x, y)[0] is x


def test_the_signature_names_parameters_constants_and_constants_of_the_call() -> None:
    """S213: what the function closes over is in the signature, under the function's name for it."""
    layer = Layer()
    program = export(lambda x, scale: layer(x) * scale, (rand(2, 4), 3.0))
    assert program.signature.parameters == ("layer.weight",)
    assert program.signature.constants == ("layer.parts.bias",)
    assert program.state["layer.weight"] is layer.weight
    assert "input scale: always 3.0" in str(program)
    with pytest.raises(errors.CaptureError, match="made for one value of scale"):
        program.module()(rand(2, 4), 3)


def test_keywords_and_positions_are_those_of_the_function() -> None:
    """S213: a program takes arguments by name or position, as they were exported."""

    def f(x: Tensor, y: Tensor, *, flag: bool = False) -> Tensor:
        return x - y if flag else x + y

    x, y = rand(3), rand(3, seed=1)
    module = export(f, (x, y), {"flag": True}).module()
    assert same(module(x, y=y, flag=True), x - y)
    assert same(module(flag=True, y=y, x=x), x - y)
    for bad in (lambda: module(x, y), lambda: module(x, [y], flag=True)):
        with pytest.raises(errors.CaptureError, match="another structure"):
            bad()


@given(n=st.integers(0, 70), m=st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_a_program_runs_in_its_ranges_and_nowhere_else(n: int, m: int) -> None:
    """S213: inputs in the ranges give the function's results; others are refused, never wrong."""
    program = RANGED
    x, y = polyop.ones((n, 3)), polyop.ones((m, 3))
    if n == m and 3 <= n <= 64:
        assert same(program.module()(x, y), x + y)
    else:
        with pytest.raises(errors.CaptureError, match="batch"):
            program.module()(x, y)


BATCH = Dim("batch", min=3, max=64)
RANGED = export(
    lambda x, y: x + y,
    (rand(5, 3), rand(5, 3)),
    dynamic_shapes={"x": {0: BATCH}, "y": [BATCH, None]},
)


def test_an_input_outside_names_dimension_and_bound() -> None:
    """S213: the error names the dimension, its range, the place and the size."""
    with pytest.raises(errors.CaptureError) as caught:
        RANGED.module()(rand(65, 3), rand(65, 3))
    error = caught.value
    assert "dimension batch is out of its range" in error.problem
    assert (error.argument, error.declared, error.seen) == (
        "x.shape[0]", "3 <= batch <= 64", "65",
    )  # fmt: skip
    with pytest.raises(errors.CaptureError, match="batch, has two sizes"):
        RANGED.module()(rand(4, 3), rand(5, 3))
    for bad in (rand(5, 4), rand(5), rand(5, 3).astype(polyop.float64), 3):
        with pytest.raises(errors.CaptureError):
            RANGED.module()(bad, rand(5, 3))
    assert RANGED.ranges == {"batch": (3, 64)}


def test_a_promise_that_the_code_breaks_is_refused_at_export() -> None:
    """S213: a named dimension holds in all of its range; the error gives the line."""

    def f(x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 4 else x

    with pytest.raises(errors.CaptureError) as caught:
        export(f, (rand(6),), dynamic_shapes=({0: Dim("n")},))
    assert "n >= 5" in caught.value.seen.replace("s0", "n")
    assert "test_program.py" in caught.value.source
    export(f, (rand(6),), dynamic_shapes=({0: Dim("n", min=5)},))


def test_an_automatic_dimension_has_constraints_instead() -> None:
    """S213: what the code asked of an AUTO size is checked at each call."""
    f = lambda x: x.reshape(2, -1) if x.shape[0] % 2 == 0 else x  # noqa: E731
    program = export(f, (rand(6),), dynamic_shapes=({0: Dim.AUTO},))
    assert same(program.module()(rand(10)), rand(10).reshape(2, -1))
    with pytest.raises(errors.CaptureError, match="constraint of the program does not hold"):
        program.module()(rand(7))


def test_sizes_that_depend_on_data_are_asserted() -> None:
    """S213: the assertions of a program are listed, and hold at each run."""

    def f(x: Tensor) -> Tensor:
        rows = polyop.argwhere(x)[:, 0]
        polyop.check(rows.shape[0] > 1)
        return x[rows]

    program = export(f, (rand(6),), dynamic_shapes=({0: Dim("n")},))
    assert any("u0 >= 2" in text for text in program.assertions)
    assert program.module()(polyop.tensor([0.0, 2.0, 3.0])).tolist() == [2.0, 3.0]
    with pytest.raises(errors.UsageError, match="not in its range"):
        program.module()(polyop.tensor([0.0, 2.0, 0.0]))


def test_an_int_may_be_a_size() -> None:
    """S213: an int argument with a Dim is a size of the program."""
    program = export(lambda x, n: x[:n] * n, (rand(9), 4), dynamic_shapes={"n": Dim("n", max=9)})
    for n in (2, 9):
        assert same(program.module()(rand(9), n), rand(9)[:n] * n)
    with pytest.raises(errors.CaptureError, match="2 <= n <= 9"):
        program.module()(rand(9), 10)


@pytest.mark.parametrize(
    "shapes",
    [
        {"z": {0: Dim("n")}}, {"x": {5: Dim("n")}}, {"x": {0: "n"}}, [None, None, None],
        {"x": [Dim("n")]}, 3, {"x": {0: Dim("n", min=100)}},
        {"x": {0: Dim("n"), 1: Dim("n", min=1)}}, {"x": {0: Dim("n"), 1: Dim("n")}},
    ],
    ids=str,
)  # fmt: skip
def test_dynamic_shapes_that_do_not_match_are_named(shapes: Any) -> None:
    """S213: dynamic_shapes that fit no argument are refused before anything runs."""
    with pytest.raises((errors.UsageError, errors.CaptureError)):
        export(lambda x: x, (rand(3, 4),), dynamic_shapes=shapes)


def look(x: Tensor) -> Tensor:
    return x * float(x.sum())


def look_at_constant(x: Tensor) -> Tensor:
    return x * WEIGHT.tolist()[0][0]


def write_outside(x: Tensor) -> Tensor:
    OUTSIDE.add_(1)
    return x + OUTSIDE


OUTSIDE = polyop.zeros(3)


@pytest.mark.parametrize("f", [look, look_at_constant, write_outside], ids=lambda f: f.__name__)
def test_what_no_program_can_hold_is_refused(f: Any) -> None:
    """S213: looks at data, and writes to what is no argument, are errors; nothing is changed."""
    with pytest.raises(errors.CaptureError) as caught:
        export(f, (rand(3),))
    assert caught.value.fix
    assert OUTSIDE.tolist() == [0.0] * 3


def test_gradients_flow_through_a_program() -> None:
    """S213: gradients of a program are the function's, for inputs and parameters."""
    layer = Layer()
    f = lambda x: layer(x.sin()).exp().sum()  # noqa: E731
    x = rand(2, 4).requires_grad_()
    module = export(f, (x,)).module()
    found = polyop.autograd.grad([module(x)], [x, layer.weight])
    wanted = polyop.autograd.grad([f(x)], [x, layer.weight])
    assert all(polyop.allclose(a, b) for a, b in zip(found, wanted, strict=True))
    assert module.parameters() == [layer.weight]


class Seven(polyop.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 7


def partly(x: Tensor) -> Tensor:
    with polyop.no_grad():
        scale = x * 3
    return x * scale


@pytest.mark.parametrize("f", [partly, Seven.apply], ids=["no_grad", "Function"])
def test_a_gradient_that_the_graph_does_not_have_is_refused(f: Any) -> None:
    """S213: no program gives another gradient than its function."""
    seen = "gradient of result 0|its forward takes ctx"
    with pytest.raises((errors.CaptureError, errors.AutogradError), match=seen):
        export(lambda x: f(x), (rand(3).requires_grad_(),))
    module = export(lambda x: f(x), (rand(3),)).module()
    assert same(module(rand(3)), f(rand(3)))
    with pytest.raises(errors.CaptureError, match="made without gradients"):
        module(rand(3).requires_grad_())
    with polyop.no_grad():
        assert same(module(rand(3).requires_grad_()), f(rand(3)))


def test_a_program_for_inference_has_the_gradients_of_its_function() -> None:
    """S213: exported without gradients, a program still has them, where the graph's are right."""
    x = rand(3)
    module = export(lambda x: (x.sin() * x).sum(), (x,)).module()
    (found,) = polyop.autograd.grad([module(y := rand(3).requires_grad_())], [y])
    (wanted,) = polyop.autograd.grad([(y.sin() * y).sum()], [y])
    assert polyop.allclose(found, wanted)


def test_written_inputs_may_share_memory_with_nothing() -> None:
    """S213: a program that writes an input refuses another input on the same memory."""
    module = export(written, (rand(3, 4), rand(3, 4))).module()
    both = rand(6, 4)
    with pytest.raises(errors.CaptureError, match="shares memory with"):
        module(both[:3], both[2:5])
    with pytest.raises(errors.CaptureError, match="two inputs share memory"):
        export(written, (both[:3], both[2:5]))


def test_decompositions_replace_operators() -> None:
    """S213: run_decompositions gives an equal program with functions in the place of operators."""
    program = export(
        lambda x: polyop.softmax(x @ WEIGHT, -1), (rand(2, 4),), dynamic_shapes=({0: Dim("n")},)
    )

    def softmax(x: Tensor, axis: int = -1) -> Tensor:
        e = (x - x.max(axis=axis, keepdims=True)).exp()
        return e / e.sum(axis=axis, keepdims=True)

    made = run_decompositions(program, {polyop.ops.core.softmax.default: softmax})
    assert isinstance(made, Program)
    assert str(program.run_decompositions({})) == str(program)
    parts = export(lambda x: polyop.softplus(x) + polyop.square(x), (rand(5),))
    simple = parts.run_decompositions()
    assert "softplus" in str(parts.graph) and "softplus" not in str(simple.graph)
    assert polyop.allclose(simple.module()(rand(5)), parts.module()(rand(5)), atol=1e-6)
    assert "softmax" not in str(made.graph) and "softmax" in str(program.graph)
    assert made.state.keys() == program.state.keys() == {"WEIGHT"}
    x = rand(5, 4)
    assert polyop.allclose(made.module()(x), program.module()(x), atol=1e-6)
    with pytest.raises(errors.CaptureError, match="n is out of its range"):
        made.module()(rand(1, 4))


def test_operators_stay_with_overload_and_version() -> None:
    """S213: an operator is `ns.op.overload` in a program, with its version."""
    with polyop.scoped_library("test_export", "DEF") as lib:
        lib.define("twice(Tensor x) -> Tensor")
        lib.define("twice@2(Tensor x, int times=2) -> Tensor")
        op = polyop.ops.test_export.twice.at(2)
        polyop.library.impl(op, "CompositeExplicitAutograd", lambda x, times=2: x * times, lib=lib)
        polyop.library.register_fake(op, lambda x, times=2: polyop.empty_like(x), lib=lib)
        text = str(export(lambda x: op(x, 3), (rand(3),)).graph)
        assert "test_export.twice.default@2" in text or "test_export.twice@2" in text


def test_mistakes_in_the_call_are_named() -> None:
    """S213: export takes a function, a tuple and a dict."""
    with pytest.raises(errors.UsageTypeError, match="tuple"):
        export(lambda x: x, rand(3))
    with pytest.raises(errors.UsageTypeError, match="function"):
        export(3, (rand(3),))
    with pytest.raises(errors.CaptureError, match="no tensor, number"):
        export(lambda x: object(), (rand(3),))


class Bounds(NamedTuple):
    low: Tensor
    high: float


@polyop.custom_op("test_program::between", mutates_args=())
def between(x: Tensor, bounds: Bounds) -> Tensor:
    return polyop.maximum(x, bounds.low) * bounds.high


@between.register_fake
def _(x, bounds):
    return polyop.empty_like(x)


@polyop.custom_op("test_program::store", mutates_args=("out",))
def store(x: Tensor, out: Tensor) -> None:
    out.copy_(x * 2)


@store.register_fake
def _(x, out):
    return None


def test_records_transforms_and_writing_operators_are_exported() -> None:
    """S213: authors' records and writes, vmap, grad and control flow are in programs."""

    def f(x: Tensor) -> Any:
        out = polyop.zeros_like(x)
        store(x, out)
        chosen = polyop.cond(x.sum() > 0, lambda a: a * 2, lambda a: a - 1, (x,))
        squares = polyop.vmap(lambda row: (row * row).sum())(x)
        slope = polyop.func.grad(lambda a: (a * a).sum())(x)
        return between(x, Bounds(out, 2.0)), chosen, squares, slope

    program = export(f, (rand(3, 4),), dynamic_shapes=({0: Dim("n")},))
    for n in (2, 6):
        for sign in (1, -1):
            x = polyop.abs(rand(n, 4)) * sign
            pairs = zip(program.module()(x), f(x), strict=True)
            assert all(polyop.allclose(a, b) for a, b in pairs)


def test_mistakes_of_a_first_export_say_what_to_write() -> None:
    """S213: a called program, other kinds of inputs, and a name for a dimension have a way out."""
    program = export(lambda x: x + 1, (polyop.ones(3),), dynamic_shapes=({0: Dim("n")},))
    with pytest.raises(errors.UsageTypeError, match=r"program\.module\(\)"):
        program(polyop.ones(3))
    with pytest.raises(errors.CaptureError, match=r"x must be a tensor[^$]*asarray"):
        program.module()(np.ones(3))
    with pytest.raises(errors.CaptureError, match=r"Dim\('n', min=1\)"):
        program.module()(polyop.ones(1))
    with pytest.raises(errors.UsageTypeError, match=r"write Dim\('rows'\)"):
        export(lambda x: x, (polyop.ones(3),), dynamic_shapes={"x": {0: "rows"}})
    with pytest.raises(errors.CaptureError, match=r"bool of shape \(\)"):
        export(lambda x: x if x.sum() > 0 else -x, (polyop.ones(3),))


LEFT: dict[str, Any] = {}


def keeps_in_a_global(x: Any) -> Any:
    LEFT["x"] = x * 2
    return x + 1


class Keeper:
    """A function with a state."""

    def __init__(self) -> None:
        self.calls, self.kept = 0, [1]

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        self.kept.append(x * 2)
        return x + 1


def test_a_function_that_changes_what_is_outside_is_refused() -> None:
    """S213: no program leaves out what its function did; a refused export changes nothing."""
    kept: list[Any] = []

    def appends(x: Any) -> Any:
        kept.append(x * 2)
        return x + 1

    keeper = Keeper()
    for f, name in ((appends, "kept"), (keeps_in_a_global, "LEFT"), (keeper, "calls")):
        with pytest.raises(errors.CaptureError, match=f"changes '{name}' outside it"):
            export(f, (polyop.ones(2),))
    assert not kept and not LEFT and keeper.calls == 0 and keeper.kept == [1]

"""Functions that do not fit a call of control flow are named, and so is what differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import (
    AutogradError,
    DynamicOutputShapeError,
    SubgraphError,
)
from polyop.extend import DispatchMode
from polyop.fake import FakeTensorMode
from polyop.func import grad
from polyop.graph import make_fx
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import of_array

X = of_array(np.arange(1.0, 4.0))
hops = polyop.ops.higher_order


def traced(fn: Any, *args: Any) -> Any:
    return make_fx(fn, "symbolic")(*args)


def chosen(yes: Any, no: Any, pred: Any = None) -> Any:
    return lambda x: polyop.cond(x.sum() > 0 if pred is None else pred, yes, no, (x,))


# -- cond ---------------------------------------------------------------------


def test_a_predicate_has_one_element() -> None:
    """S180: a predicate is a bool, or has one element; other ones are named with their shape."""
    for pred in (True, polyop.tensor(True), polyop.tensor([[True]])):
        assert polyop.cond(pred, lambda: 1, lambda: 2) == 1
    with pytest.raises(SubgraphError, match="pred of cond is a bool") as error:
        chosen(lambda x: x, lambda x: x, X > 1)(X)
    assert error.value.seen == "bool[3]"
    assert ".all()" in error.value.fix
    with pytest.raises(SubgraphError, match="pred of cond"):
        polyop.cond("yes", lambda: 1, lambda: 2)
    with pytest.raises(SubgraphError, match="given as a tuple"):
        polyop.cond(True, lambda x: x, lambda x: x, X)  # type: ignore[arg-type]


def test_a_known_predicate_leaves_one_function() -> None:
    """S180: a bool is known in a trace: its function alone is part of the program."""
    program = make_fx(chosen(lambda x: x + 1, lambda x: x + "no", True), "fake")(X)
    assert [n.name for n in program.graph.nodes] == ["x", "add", "output"]


def test_functions_of_different_structure() -> None:
    """S180: different structures are both shown."""
    with pytest.raises(SubgraphError, match="different structures") as error:
        traced(chosen(lambda x: (x * 1, x * 2), lambda x: {"a": x * 1}), X)
    assert error.value.declared == "true_fn: (*, *)"
    assert error.value.seen == "false_fn: {'a': *}"
    line = test_functions_of_different_structure.__code__.co_firstlineno + 3
    assert error.value.source.endswith(f"test_control_errors.py:{line}")


@pytest.mark.parametrize(
    ("no", "seen"),
    [
        (lambda x: {"r": x.astype(polyop.float32)}, "false_fn: float32[3] on cpu"),
        (lambda x: {"r": x[0] * 1}, "false_fn: float64[] on cpu"),
        (lambda x: {"r": 2}, "false_fn: int 2 on no device"),
    ],
)
def test_functions_of_different_leaves(no: Any, seen: str) -> None:
    """S180: a leaf that differs in dtype, rank or kind is named, with what both functions give."""
    for run in (lambda fn, x: make_fx(fn, "fake")(x), faked):
        with pytest.raises(SubgraphError, match=r"result \['r'\] of cond differs") as error:
            run(chosen(lambda x: {"r": x * 1}, no), X)
        assert error.value.declared == "true_fn: float64[3] on cpu"
        assert error.value.seen == seen
        assert error.value.argument == "result ['r']"


def faked(fn: Any, x: Tensor) -> Any:
    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    return fn(mode.from_tensor(x))


def test_sizes_that_differ_become_unbacked() -> None:
    """S180: a size that differs is one that is known at run time, in fakes and in programs."""
    fn = chosen(lambda x: x[:2] * 1, lambda x: x * 2)
    size = faked(fn, X).shape[0]
    assert not isinstance(size, int)
    program = traced(lambda x: fn(x) + 1, X)
    program.graph.lint()
    assert np.array_equal(program(X), [2, 3])
    assert np.array_equal(program(-X), [-1, -3, -5])
    with pytest.raises(DynamicOutputShapeError, match="no ShapeEnv"):
        fn(FakeTensorMode().from_tensor(X))


# -- writes and aliases -------------------------------------------------------


def written(x: Tensor) -> Tensor:
    x.add_(1)
    return x * 1


CALLS: dict[str, Any] = {
    "cond": lambda f: lambda x: polyop.cond(x.sum() > 0, f, lambda x: x * 2, (x,)),
    "map": lambda f: lambda x: polyop.map(f, x),
    "scan": lambda f: lambda x: polyop.scan(lambda c, x: (f(c), x * 1), x, x),
    "while_loop": lambda f: (
        lambda x: polyop.while_loop(lambda x: x.sum() < 9, lambda x: (f(x),), (x,))
    ),
    "associative_scan": lambda f: lambda x: polyop.associative_scan(lambda a, b: f(a) * b, x),
    "invoke_subgraph": lambda f: lambda x: hops.invoke_subgraph(f, "f", x),
    "checkpoint": lambda f: lambda x: hops.checkpoint(f, x),
    "wrap": lambda f: lambda x: hops.wrap(f, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_write_to_an_input_is_refused_in_a_trace(name: str) -> None:
    """S181: a function that writes its input is refused in tracing and compile, by line."""
    line = written.__code__.co_firstlineno + 1
    for run in (traced, lambda fn, x: polyop.compile(fn, fullgraph=True)(x)):
        with pytest.raises(SubgraphError, match="writes its input") as error:
            run(CALLS[name](written), X.clone())
        assert str(error.value.source).endswith(f"test_control_errors.py:{line}")


@pytest.mark.parametrize("name", ["cond", "map", "while_loop", "invoke_subgraph", "checkpoint"])
@pytest.mark.parametrize("fn", [lambda x: x, lambda x: x[...]], ids=["input", "view"])
def test_an_alias_of_an_input_is_refused_in_a_trace(name: str, fn: Any) -> None:
    """S181: a function that returns its input, or a view of it, is refused in tracing."""
    with pytest.raises(SubgraphError, match="returns memory of its input"):
        traced(CALLS[name](fn), X)


def test_a_write_is_kept_out_of_a_functionalized_program() -> None:
    """S181: functionalized, a write to what a function made is no breach; one to an input is."""

    def own(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        return y

    fn = chosen(own, lambda x: x * 2)
    program = make_fx(polyop.func.functionalize(fn), "fake")(X)
    assert np.array_equal(program(X), X.numpy() * 2 + 1)
    with pytest.raises(SubgraphError, match="writes its input"):
        make_fx(polyop.func.functionalize(chosen(written, own)), "fake")(X)


# -- loops --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xs", "problem"),
    [
        ((), "has no Tensor"),
        (3, "no Tensor with an axis"),
        (polyop.tensor(1.0), "no Tensor with an axis"),
        ((X, X[:2]), "different lengths"),
    ],
)
def test_steps_have_one_length(xs: Any, problem: str) -> None:
    """S182: leaves of xs are Tensors of one length along dimension 0."""
    calls = (
        lambda: polyop.map(lambda x: x, xs),
        lambda: polyop.scan(lambda c, x: (c, c), X, xs),
        lambda: polyop.associative_scan(lambda a, b: a, xs),
    )
    for call in calls:
        with pytest.raises(SubgraphError, match=problem):
            call()


@pytest.mark.parametrize(
    ("new", "seen"),
    [
        (lambda c: c.astype(polyop.float32), "float32[3] after"),
        (lambda c: c.sum(), "float64[] after"),
        (lambda c: (c, c), "after it: (*, *)"),
        (lambda c: 1, "int 1 after"),
    ],
)
def test_a_carry_keeps_its_form(new: Any, seen: str) -> None:
    """S182: a carry keeps structure, shape and dtype, in eager calls, in fakes and in traces."""

    def scanned(x: Tensor) -> Any:
        return polyop.scan(lambda c, x: (new(c * 1), x * 1), x, x)

    def looped(x: Tensor) -> Any:
        return polyop.while_loop(lambda c: c.sum() < 99, lambda c: (new(c * 1),), (x,))

    for fn in (scanned, looped):
        for run in (lambda f, x: f(x), faked, lambda f, x: make_fx(f, "fake")(x)):
            with pytest.raises(SubgraphError) as error:
                run(fn, X)
            text = error.value.seen.replace("((*, *),)", "(*, *)")
            assert text == seen


def test_a_number_in_a_carry() -> None:
    """S182: a number in a carry counts in an eager call; a program cannot, and says so."""

    def fn(x: Tensor) -> Any:
        return polyop.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (0, x))

    assert fn(X)[0] == 3
    with pytest.raises(SubgraphError, match="a number in the carry") as error:
        traced(fn, X)
    assert "polyop.tensor" in error.value.fix


def test_steps_of_different_form() -> None:
    """S182: results are stacked, so that each step gives one shape and dtype, and Tensors."""
    sizes = iter(range(1, 9))
    with pytest.raises(SubgraphError, match="steps of map give different shapes") as error:
        polyop.map(lambda x: polyop.ones(next(sizes)), X)
    assert (error.value.declared, error.value.seen) == ("float32[1]", "float32[2]")
    for run in (lambda f, x: f(x), traced):
        with pytest.raises(SubgraphError, match="one is no Tensor"):
            run(lambda x: polyop.map(lambda x: 1, x), X)
    with pytest.raises(SubgraphError, match=r"gives \(carry, y\)"):
        polyop.scan(lambda c, x: c, X, X)


def test_no_steps() -> None:
    """S182: a length of 0 works: the carry stays, and stacks are empty, with the right form."""
    empty = of_array(np.zeros((0, 3)))
    carry, ys = polyop.scan(lambda c, x: (c + x, {"s": (c * x).sum()}), X, empty)
    np.testing.assert_array_equal(carry.numpy(), X.numpy())
    assert (ys["s"].shape, ys["s"].dtype) == ((0,), polyop.float64)
    out = polyop.map(lambda x: (x > 0)[:, None], empty)
    assert (out.shape, out.dtype) == ((0, 3, 1), polyop.bool)
    assert polyop.associative_scan(lambda a, b: a + b, empty).shape == (0, 3)
    program = make_fx(lambda c, x: polyop.scan(lambda c, x: (c + x, c * x), c, x), "fake")(X, empty)
    carry, ys = program(X, empty)
    assert (carry.shape, ys.shape) == ((3,), (0, 3))
    grown = X.clone().requires_grad_()
    polyop.map(lambda x: x * grown, empty.requires_grad_()).sum().backward()
    assert np.array_equal(empty.grad, np.zeros((0, 3)))
    summed = polyop.scan(lambda c, x: (c + x, c * x), grown, empty.detach())
    (summed[0].sum() + summed[1].sum()).backward()
    assert np.array_equal(grown.grad, np.ones(3))


def test_the_gradient_of_a_traced_while_loop_repeats_no_effect() -> None:
    """S182: backward through a while_loop in a trace goes through its steps again, so it refuses
    random numbers in them; it never gives another loop's gradient."""

    def fn(x: Tensor) -> Any:
        def body(x: Tensor) -> Any:
            return (x * 2 + polyop.rand(3).astype(polyop.float64),)

        return polyop.while_loop(lambda x: x.sum() < 99, body, (x,))[0].sum()

    with pytest.raises(AutogradError, match="the gradient of while_loop_carries runs its func"):
        make_fx(grad(fn), "fake")(X)


def test_a_compiled_while_loop_has_its_gradient() -> None:
    """S182: a compiled loop is one graph with its gradient, whatever the number of steps."""

    def fn(x: Tensor) -> Any:
        looped = polyop.while_loop(lambda x: x.sum() < 99, lambda x: (x * 2,), (x,))[0]
        return (looped * x).sum()

    compiled = polyop.compile(fn, fullgraph=True)
    for scale, factor in [(1.0, 32), (10.0, 2), (100.0, 1)]:
        x = (X * scale).requires_grad_()
        compiled(x).backward()
        assert np.array_equal(x.grad, 2 * factor * x.detach().numpy())


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_a_batched_loop_keeps_its_carry(mode: str) -> None:
    """S182: a body that gives too few values says so in a trace of a batch too."""

    def fn(x: Tensor) -> Any:
        return polyop.while_loop(lambda x, y: x.sum() < 1, lambda x, y: (x + y,), (x, x))

    with pytest.raises(SubgraphError, match="have different structures"):
        make_fx(polyop.vmap(fn), mode)(polyop.stack([X, X]))


def test_effects_in_inner_functions_are_not_repeated() -> None:
    """S179: what a function writes itself is made anew, inside other operators too; a draw not."""

    def poked(y: Tensor) -> Tensor:
        return y.clone().mul_(y)

    def drawn(y: Tensor) -> Tensor:
        return y * polyop.rand(()).astype(polyop.float64)

    def fn(inner: Any) -> Any:
        def step(c: Tensor, x: Tensor) -> Any:
            c = polyop.cond(x > 0, inner, lambda y: y * 1, (c + x,))
            return c, c * 2

        return lambda x: polyop.scan(step, x.sum(), x)[1].sum()

    found = make_fx(grad(fn(poked)), "fake")(X)(X)
    assert np.allclose(found.numpy(), grad(fn(poked))(X).numpy())
    with pytest.raises(AutogradError, match="draw other random numbers"):
        make_fx(grad(fn(drawn)), "fake")(X)


# -- batches ------------------------------------------------------------------


@pytest.mark.parametrize("traced", [False, True])
def test_predicates_of_an_outer_batch(traced: bool) -> None:
    """S180: in nested vmaps a predicate, or a loop's end, may belong to either batch."""
    rows, columns = polyop.stack([X, -X]), polyop.stack([X, X * 2, -X])

    def choice(a: Tensor, b: Tensor) -> Any:
        return polyop.cond(a.sum() > 0, lambda b: b * 2, lambda b: b - a, (b,))

    def loop(a: Tensor, b: Tensor) -> Any:
        return polyop.while_loop(
            lambda a, b: a.sum() < 50, lambda a, b: (a * 2 + b * b, b * 1), (a, b)
        )[0]

    for fn in (choice, loop):

        def nested(x: Tensor, y: Tensor, fn: Any = fn) -> Any:
            return polyop.vmap(lambda a: polyop.vmap(lambda b: fn(a, b))(y))(x)

        call = make_fx(nested, "fake")(rows, columns) if traced else nested
        each = [
            [np.asarray(fn(a, b)) for b in polyop.unstack(columns)] for a in polyop.unstack(rows)
        ]
        assert np.allclose(call(rows, columns), np.stack([np.stack(r) for r in each]))


def test_effects_are_refused_where_all_samples_run() -> None:
    """S180: under vmap both functions run; one with an effect is refused before it acts."""

    def told(x: Tensor) -> Any:
        hops.print("{}", x)
        return x

    def nested(x: Tensor) -> Any:
        return polyop.cond(x.sum() > 0, told, lambda x: x, (x,))

    for fn in (told, nested):
        batch = polyop.stack([X, -X])
        with pytest.raises(SubgraphError, match="acts on the world"):
            polyop.vmap(lambda x, f=fn: polyop.cond(x.sum() > 0, f, lambda x: x, (x,)))(batch)


def test_writes_are_refused_where_all_samples_run() -> None:
    """S180: under vmap a function that writes its input would write that of other samples."""
    with pytest.raises(SubgraphError, match="writes its input"):
        polyop.vmap(chosen(written, lambda x: x))(polyop.stack([X, -X]))


def test_samples_of_different_form() -> None:
    """S180: under vmap samples take one result each, so that shapes and dtypes are equal."""
    with pytest.raises(SubgraphError, match="each sample needs one of them") as error:
        polyop.vmap(chosen(lambda x: x, lambda x: x[:1]))(polyop.stack([X, -X]))
    assert (error.value.declared, error.value.seen) == ("float64[3]", "float64[1]")


def test_random_numbers_in_a_traced_gradient() -> None:
    """S179: the program of a gradient runs functions again, so drawing in them is refused."""
    for name in ("cond", "map", "scan"):
        fn = CALLS[name](lambda x: x * polyop.rand(()).astype(polyop.float64))
        with pytest.raises(AutogradError, match="draw other random numbers"):
            make_fx(grad(lambda x, f=fn: polyop.tree.leaves(f(x))[0].sum()), "fake")(X)


def test_a_tensor_that_no_closure_shows() -> None:
    """S178: a tensor that requires grad inside an object is refused in a trace, never constant."""

    class Model:
        def __init__(self) -> None:
            self.weight = X.clone().requires_grad_()

        def apply(self, x: Tensor) -> Tensor:
            return x * self.weight

    model = Model()
    with pytest.raises(SubgraphError, match="requires grad and is no operand"):
        make_fx(lambda x: polyop.cond(x.sum() > 0, model.apply, lambda x: x * 1, (x,)), "fake")(
            X.clone().requires_grad_()
        )


# -- modes --------------------------------------------------------------------


def test_modes_get_the_call_whole() -> None:
    """S119: a mode that wants higher-order operators gets the call, and may go on."""

    class Names(DispatchMode):
        supports_higher_order_operators = True

        def __init__(self) -> None:
            self.seen: list[str] = []

        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(str(op))
            return op(*args, **(kwargs or {}))

    with Names() as names:
        out = polyop.map(lambda x: {"y": x * 2}, X)
    assert np.array_equal(out["y"], X.numpy() * 2)
    assert names.seen == ["map"]
    # The function's own operators are inside the call, which runs without the mode.
    grown = X.clone().requires_grad_()
    with Names():
        polyop.map(lambda x: x * x, grown).sum().backward()
    assert np.array_equal(grown.grad, 2 * X.numpy())

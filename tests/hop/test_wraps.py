"""Operators that call one function in a setting, and those that call something else (S179)."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, library
from polyop.errors import AutogradError, SubgraphError, UsageError, UsageTypeError
from polyop.func import functionalize, grad
from polyop.graph import make_fx
from polyop.objects.effects import EffectType
from polyop.objects.tokens import add_tokens, remove_tokens
from polyop.tensor.tensor import of_array

hops = polyop.ops.higher_order
X = of_array(np.arange(1.0, 4.0))


def leaf() -> Tensor:
    return X.clone().requires_grad_()


# -- checkpoint ---------------------------------------------------------------


def test_checkpoint_keeps_nothing_and_runs_twice() -> None:
    """S179: a checkpointed function keeps none of its tensors; backward runs it again."""
    alive: list[weakref.ref[Tensor]] = []

    def fn(x: Tensor) -> Tensor:
        inner = x.exp()
        alive.append(weakref.ref(inner))
        return (inner * inner).sum()

    x = leaf()
    out = hops.checkpoint(fn, x)
    gc.collect()
    assert len(alive) == 1
    assert alive[0]() is None
    out.backward()
    assert len(alive) == 2
    assert np.allclose(x.grad, 2 * np.exp(2 * X.numpy()))


def test_checkpoint_draws_the_same_numbers() -> None:
    """S179: backward draws what forward drew, and leaves the generator where it stood."""
    drawn: list[Any] = []

    def fn(x: Tensor) -> Tensor:
        drawn.append(polyop.rand(3))
        return (x * drawn[-1]).sum()

    x = leaf()
    polyop.manual_seed(3)
    out = hops.checkpoint(fn, x)
    after = polyop.rand(2)
    out.backward()
    later = polyop.rand(2)
    assert np.array_equal(drawn[0], drawn[1])
    assert np.allclose(x.grad, drawn[0])
    polyop.manual_seed(3)
    assert [np.asarray(polyop.rand(n)).tolist() for n in (3, 2, 2)] == [
        np.asarray(t).tolist() for t in (drawn[0], after, later)
    ]


def test_checkpoint_of_closures_and_second_gradients() -> None:
    """S179: closures get gradients, nested checkpoints too, and gradients have gradients."""
    w, x = leaf(), leaf()

    def inner(y: Tensor) -> Tensor:
        return y * w * w

    def fn(y: Tensor) -> Tensor:
        return hops.checkpoint(inner, y).sin().sum()

    first = polyop.autograd.grad(hops.checkpoint(fn, x), [x, w], create_graph=True)
    plain = polyop.autograd.grad((x * w * w).sin().sum(), [x, w], create_graph=True)
    for a, b in zip(first, plain, strict=True):
        assert np.allclose(a.detach(), b.detach())
    second = [polyop.autograd.grad((g[0] * g[1]).sum(), [x, w]) for g in (first, plain)]
    for a, b in zip(*second, strict=True):
        assert np.allclose(a, b)


def test_checkpoint_of_what_no_closure_shows() -> None:
    """S179: a tensor inside an object would get no gradient: refused, but for no_grad."""

    class Model:
        weight = leaf()

        def apply(self, x: Tensor) -> Tensor:
            return x * self.weight

    with pytest.raises(SubgraphError, match="neither an operand nor in its closure"):
        hops.checkpoint(Model().apply, X)
    with polyop.no_grad():
        assert np.array_equal(hops.checkpoint(Model().apply, X), X.numpy() ** 2)


def test_checkpoint_that_draws_in_a_trace() -> None:
    """S179: in a program backward would draw other numbers, so that is an error."""
    fn = lambda x: hops.checkpoint(lambda x: (x * polyop.rand(3)).sum(), x)  # noqa: E731
    assert make_fx(fn, "fake")(X) is not None
    with pytest.raises(AutogradError, match="draw other random numbers"):
        make_fx(grad(fn), "fake")(X)


# -- settings -----------------------------------------------------------------


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_inside(outer: bool, enabled: bool) -> None:
    """S179: grad mode inside is the operator's, outside what it was: eager, traced, compiled."""

    def fn(x: Tensor) -> Tensor:
        return hops.wrap_with_set_grad_enabled(enabled, lambda x: (x * x).sum(), x)

    program = make_fx(fn, "fake")(X)
    compiled = polyop.compile(fn, fullgraph=True)
    for call in (fn, program, compiled):
        x = leaf()
        with polyop.set_grad_enabled(outer):
            out = call(x)
        assert out.requires_grad is enabled
        if enabled:
            out.backward()
            assert np.array_equal(x.grad, 2 * X.numpy())
    traced = make_fx(grad(lambda x: fn(x) + x.sum()), "fake")(X)
    assert np.array_equal(traced(X), 2 * X.numpy() * enabled + 1)


def test_autocast_inside() -> None:
    """S179: autocast is on inside, for the operators that take part, and part of a program."""
    with polyop.scoped_library("hopcast", "FRAGMENT") as lib:
        lib.define("half(Tensor x) -> Tensor")
        lib.impl("half", lambda x: x * 1, "CompositeExplicitAutograd", with_keyset=False)
        library.register_fake("hopcast::half", lambda x: x * 1, lib=lib)
        library.register_autocast("hopcast::half", "cpu", polyop.bfloat16, lib=lib)

        def fn(x: Tensor) -> Tensor:
            return hops.wrap_with_autocast(
                "cpu", None, True, None, polyop.ops.hopcast.half, x.astype(polyop.float32)
            )

        assert fn(X).dtype == polyop.bfloat16
        program = make_fx(fn, "fake")(X)
        assert program(X).dtype == polyop.bfloat16
        with polyop.autocast("cpu", polyop.bfloat16):
            off = hops.wrap_with_autocast(
                "cpu", None, False, None, polyop.ops.hopcast.half, X.astype(polyop.float32)
            )
        assert off.dtype == polyop.float32


# -- subgraphs ----------------------------------------------------------------


def test_one_subgraph_for_all_calls() -> None:
    """S179: calls of one function on operands of one kind share a subgraph of the program."""

    def twice(x: Tensor) -> Tensor:
        return x * 2

    def fn(x: Tensor) -> Tensor:
        for _ in range(3):
            x = hops.invoke_subgraph(twice, "twice", x)
        return hops.invoke_subgraph(twice, "twice", x[:2])

    program = make_fx(fn, "fake")(X)
    program.graph.lint()
    assert np.array_equal(program(X), X.numpy()[:2] * 16)
    assert sum(n.op == "get_attr" for n in program.graph.nodes) == 2
    closed = make_fx(lambda x: hops.invoke_subgraph(lambda y: y * x, "a", x), "fake")(X)
    assert np.array_equal(closed(X), X.numpy() ** 2)


def test_foreach_map_of_bad_lists() -> None:
    """S179: lists have one length, and there is one."""
    for bad in (([X], [X, X]), (X,)):
        with pytest.raises(SubgraphError, match="have one length"):
            hops.foreach_map(polyop.add, *bad)


# -- calls --------------------------------------------------------------------


def test_out_dtype_computes_wide() -> None:
    """S179: a product of int8 in int32 does not overflow; eager, traced, under vmap."""
    x = of_array(np.full((2, 3), 100, "int8"))
    op = polyop.ops.core.multiply.default

    def fn(x: Tensor) -> Tensor:
        return hops.out_dtype(op, polyop.int32, x, x)

    for call in (fn, polyop.vmap(fn), make_fx(fn, "fake")(x), functionalize(fn)):
        out = call(x)
        assert out.dtype == polyop.int32
        assert np.array_equal(out, np.full((2, 3), 10000))
    with pytest.raises(SubgraphError, match="write nothing and give one Tensor"):
        hops.out_dtype(polyop.ops.core.add_.default, polyop.int32, x, x)


def test_flat_apply_is_a_black_box() -> None:
    """S179: a program keeps the call whole, and calls the function when it runs."""
    runs: list[Any] = []

    def fn(x: Tensor, *, scale: int) -> Tensor:
        runs.append(type(x.payload).__name__)
        return x * scale

    leaves, spec = polyop.tree.flatten(((X,), {"scale": 3}))
    program = make_fx(lambda x: hops.flat_apply(fn, spec, x, 3), "fake")(X)
    assert np.array_equal(program(X), X.numpy() * 3)
    assert runs == ["Meta", "ndarray"]
    assert np.array_equal(hops.flat_apply(fn, spec, *leaves), X.numpy() * 3)
    with pytest.raises(UsageTypeError, match="the structure of its arguments"):
        hops.flat_apply(fn, X)


def test_print_keeps_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    """S179: prints are neither removed nor moved; a program prints when it runs."""

    def fn(x: Tensor) -> Tensor:
        hops.print("first {}", x[0])
        y = x * 2
        hops.print("then {last}", last=y[0])
        return x

    program = make_fx(lambda x: fn(x) + 1, "fake")(X)
    assert capsys.readouterr().out == ""
    polyop.graph.eliminate_dead_code(program.graph)
    program.recompile()
    program(X)
    printed = "first tensor(1., dtype=float64)\nthen tensor(2., dtype=float64)\n"
    assert capsys.readouterr().out == printed
    polyop.compile(lambda x: fn(x) + 1, fullgraph=True)(X)
    assert capsys.readouterr().out == printed
    for call in (fn, functionalize(fn), grad(lambda x: fn(x).sum())):
        call(X)
        assert capsys.readouterr().out.count("first") == 1
    polyop.vmap(lambda x: hops.print("{}", x) or x)(X)
    assert capsys.readouterr().out == "".join(f"{x!r}\n" for x in polyop.unstack(X))
    with pytest.raises(UsageTypeError, match="takes a text first"):
        hops.print(X)


def test_print_is_part_of_the_chain_of_effects(capsys: pytest.CaptureFixture[str]) -> None:
    """S188: print is ordered, so that tokens go through it, and out of it again."""
    program = make_fx(lambda x: [hops.print(t, x[0]) for t in ("a {}", "b {}")] and x * 2, "fake")(
        X
    )
    assert add_tokens(program) == (EffectType.ORDERED,)
    program.graph.lint()
    token, out = program(polyop.zeros(0), X)
    assert (token.shape, out.shape) == ((0,), (3,))
    remove_tokens(program)
    program(X)
    assert capsys.readouterr().out.replace("tensor(1., dtype=float64)", "") == "a \nb \n" * 2


def test_custom_function_call_takes_functions() -> None:
    """S179: only subclasses of autograd.Function are applied."""
    with pytest.raises(UsageTypeError, match="subclass of autograd.Function"):
        hops.custom_function_call(lambda x: x, X)


def test_schemas() -> None:
    """S179: gen_schema tells of one call: functions, leaves and results."""
    calls: list[tuple[Any, tuple[Any, ...], int, int]] = [
        (
            hops.cond,
            (X.sum() > 0, lambda x: (x * 1, x.sum()), lambda x: (x * 2, x.sum()), (X,)),
            4,
            2,
        ),
        (hops.map, (lambda x, y: x * y, X, 2.0), 3, 1),
        (hops.scan, (lambda c, x: (c * x, x * 1), X[0], X), 3, 2),
        (hops.while_loop, (lambda x: x < 1, lambda x: (x * 2,), (X.sum(),)), 3, 1),
        (hops.while_loop_carries, (lambda x: x < 1, lambda x: (x * 2,), (X.sum(),)), 3, 3),
        (hops.associative_scan, (lambda a, b: a + b, X), 2, 1),
        (hops.foreach_map, (lambda x: x * 2, [X, X]), 3, 2),
        (hops.invoke_subgraph, (lambda x: x * 2, "a", X), 3, 1),
        (hops.wrap_with_set_grad_enabled, (True, lambda x: x * 2, X), 3, 1),
        (hops.wrap_with_autocast, ("cpu", None, True, None, lambda x: x * 2, X), 6, 1),
        (hops.checkpoint, (lambda x: x * 2, X), 2, 1),
        (hops.wrap, (lambda x: x * 2, X), 2, 1),
        (hops.out_dtype, (polyop.ops.core.multiply.default, polyop.float64, X, X), 4, 1),
        (hops.print, ("{}", X), 2, 0),
    ]
    for hop, args, taken, given in calls:
        schema = hop.gen_schema(*args)
        assert (len(schema.arguments), len(schema.returns)) == (taken, given), str(schema)
        assert not schema.is_mutable


NAMES = (
    "associative_scan checkpoint cond custom_function_call flat_apply foreach_map invoke_subgraph "
    "map out_dtype print scan while_loop while_loop_carries wrap wrap_with_autocast "
    "wrap_with_set_grad_enabled"
)


def test_all_are_provided() -> None:
    """S179: each is found by its name, in both places, and is its own copy."""
    for name in NAMES.split():
        hop = getattr(hops, name)
        assert (hop.name(), getattr(polyop.hop, name), copy.copy(hop)) == (name, hop, hop)
        assert name in dir(hops)
        assert hop.has_schema
    for name in ("cond", "while_loop", "scan", "map", "associative_scan"):
        assert getattr(polyop, name) is getattr(hops, name)


def test_associative_scan_modes() -> None:
    """S182: an unknown combine_mode is refused."""
    with pytest.raises(UsageError, match="no combine_mode 'fast'"):
        polyop.associative_scan(lambda a, b: a + b, X, combine_mode="fast")


def test_threads() -> None:
    """S179: calls, traces and gradients in several threads do not see each other."""

    def fn(x: Tensor) -> Any:
        return polyop.scan(lambda c, x: (c + x, c * x), x[0] * 1, x)[1].sum()

    expected = np.asarray(grad(fn)(X))

    def work(i: int) -> bool:
        call = grad(fn) if i % 2 else make_fx(grad(fn), "fake")(X)
        return np.allclose(call(X), expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))

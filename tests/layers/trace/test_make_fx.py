"""What a trace records, and that its program gives what the function gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.library import Library
from polyop.dispatch.registry import disown, find_operator, places_of
from polyop.errors import DataDependentOutputError, MissingFakeError, UsageError
from polyop.layers.autograd import grad
from polyop.layers.fake import get_ctx
from polyop.layers.trace import make_fx
from polyop.ops.elementwise import add, multiply, negative, sin
from polyop.ops.joining import concat
from polyop.ops.reductions import sum as sum_
from polyop.ops.views import permute_dims, reshape
from polyop.tensor.tensor import Tensor, of_array, of_meta

MODES = ("real", "fake", "symbolic")
modes = pytest.mark.parametrize("mode", MODES)


def real(*shape: int) -> Tensor:
    return of_array(np.linspace(0, 1, int(np.prod(shape)), dtype="float32").reshape(shape))


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a.numpy(), b.numpy()))


def targets(module: Any) -> list[str]:
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


# -- programs ------------------------------------------------------------------


@modes
def test_the_program_equals_the_function(mode: str) -> None:
    """S209: the traced program gives what the function gives, on other data too."""

    def f(x: Tensor, y: Tensor) -> Tensor:
        return multiply(add(sin(x), y), 2.0)

    module = make_fx(f, mode)(real(2, 3), real(3))
    module.graph.lint(module)
    x, y = add(real(2, 3), 1), real(3)
    assert same(module(x, y), f(x, y))
    assert targets(module) == ["core.sin.default", "core.add.default", "core.multiply.Scalar"]


@modes
def test_nodes_know_their_results(mode: str) -> None:
    """S209: each node has the shape and dtype of its result, and no data."""
    module = make_fx(lambda x: sum_(sin(x), axis=[0]), mode)(real(2, 3))
    hints = [
        tuple(getattr(n, "hint", n) for n in node.val.shape)
        for node in module.graph.nodes
        if node.op != "output"
    ]
    assert hints == [(2, 3), (2, 3), (3,)]
    assert all(not isinstance(n.val, np.ndarray) for n in module.graph.nodes)


@modes
def test_containers_in_and_out(mode: str) -> None:
    """S209: the leaves of the arguments are the inputs; the result has its own structure."""

    def f(pair: Any, scale: Any) -> Any:
        return {"sum": add(pair["a"], pair["b"]), "rest": [None, (scale,)]}

    x = real(2)
    module = make_fx(f, mode)({"a": x, "b": x}, 2.5)
    assert [n.name for n in module.graph.placeholders] == ["pair_0", "pair_1", "scale"]
    out = module(x, x, 2.5)
    assert same(out["sum"], add(x, x)) and out["rest"] == [None, (2.5,)]


@modes
def test_defaults_are_left_out(mode: str) -> None:
    """S65: nodes have no arguments that equal their defaults, class and all."""

    @custom_op("testtrace::defaults", mutates_args=(), replace=True)
    def defaults(x: Tensor, n: int = 1, s: float = 1.0, *, flag: bool = False) -> Tensor:
        return sin(x)

    defaults.register_fake(lambda x, n, s, flag: x)

    def f(x: Tensor) -> Any:
        return [
            defaults(x), defaults(x, 1, 1.0, flag=False), defaults(x, 2), defaults(x, 1, 2.0),
            defaults(x, flag=True),
        ]  # fmt: skip

    nodes = [n for n in make_fx(f, mode)(real(2)).graph.nodes if n.op == "call_function"]
    assert [(n.args[1:], n.kwargs) for n in nodes] == [
        ((), {}), ((), {}), ((2,), {}), ((1, 2.0), {}), ((), {"flag": True}),
    ]  # fmt: skip


@modes
def test_lists_and_optional_tensors(mode: str) -> None:
    """S208: tensors in lists, and missing ones, are arguments and have users."""
    index = find_operator("core::index").entry

    def f(x: Tensor, i: Tensor) -> Tensor:
        return index(concat([x, x], axis=0), [None, i])

    i = of_array(np.array([0, 2]))
    module = make_fx(f, mode)(real(2, 3), i)
    module.graph.lint(module)
    assert same(module(real(2, 3), i), f(real(2, 3), i))


@modes
def test_several_results(mode: str) -> None:
    """S208: the tensors of several results, and of lists, are items taken out of the call."""

    @custom_op("testtrace::several", mutates_args=(), replace=True)
    def several(x: Tensor) -> tuple[Tensor, list[Tensor], int]:
        return sin(x), [negative(x), add(x, 1)], 3

    several.register_fake(lambda x: (sin(x), [sin(x), sin(x)], 3))

    def f(x: Tensor) -> Any:
        a, (b, c), n = several(x)
        return add(add(a, b), multiply(c, n))

    module = make_fx(f, mode)(real(4))
    module.graph.lint(module)
    assert same(module(real(4)), f(real(4)))
    assert [t for t in targets(module) if "getitem" in t] == ["<built-in function getitem>"] * 4


@modes
def test_gradients_are_recorded(mode: str) -> None:
    """S209: a gradient that is computed in the function is part of its program."""

    def f(x: Tensor, y: Tensor) -> Any:
        return grad(sum_(multiply(sin(x), y)), [x, y])

    x, y = real(2, 3).requires_grad_(), real(3).requires_grad_()
    module = make_fx(f, mode)(x, y)
    module.graph.lint(module)
    assert all(
        np.array_equal(a.numpy(force=True), b.numpy(force=True))
        for a, b in zip(module(x, y), f(x, y), strict=True)
    )


# -- writes --------------------------------------------------------------------


@modes
def test_writes_stay_in_order(mode: str) -> None:
    """S210: a write is a node, and what is read afterwards reads what was written."""
    add_ = find_operator("core::add_").entry

    def f(x: Tensor) -> Any:
        y = sin(x)
        before = multiply(y, 1)
        view = reshape(y, [-1])
        add_(view, before.__class__ and reshape(x, [-1]))
        return before, y, add(y, 0)

    module = make_fx(f, mode)(real(2, 3))
    module.graph.lint(module)
    assert all(same(a, b) for a, b in zip(module(real(2, 3)), f(real(2, 3)), strict=True))


def test_a_written_value_is_known_by_its_last_write() -> None:
    """S209: a tensor that was written is the node of the write from then on."""
    add_ = find_operator("core::add_").entry

    def f(x: Tensor) -> Tensor:
        y = sin(x)
        assert add_(y, x) is y
        return add(y, y)

    module = make_fx(f, "fake")(real(2))
    write = next(n for n in module.graph.nodes if "add_" in str(n.target))
    assert next(n for n in module.graph.nodes if n.name == "add").args == (write, write)


# -- constants and other traces --------------------------------------------------


@modes
def test_constants_are_attributes(mode: str) -> None:
    """S209: a tensor from elsewhere is one attribute of the program, however often it is read."""
    w = real(3)
    module = make_fx(lambda x: add(multiply(x, w), w), mode)(real(2, 3))
    assert [n.target for n in module.graph.nodes if n.op == "get_attr"] == ["_tensor_constant0"]
    assert module._tensor_constant0 is w
    assert same(module(real(2, 3)), add(multiply(real(2, 3), w), w))


@modes
def test_a_tensor_outlives_its_trace(mode: str) -> None:
    """S209: what an earlier trace made is a constant in a later one."""
    kept: list[Tensor] = []
    make_fx(lambda x: kept.append(sin(x)) or kept[0], "real")(real(3))
    module = make_fx(lambda x: add(x, kept[0]), mode)(real(3))
    module.graph.lint(module)
    assert module._tensor_constant0 is kept[0]
    assert same(module(real(3)), add(real(3), sin(real(3))))


def test_inputs_are_left_unmarked() -> None:
    """S209: the caller's tensors are not part of the trace afterwards."""
    x = real(3)
    make_fx(sin, "real")(x)
    assert not hasattr(x, "graph_node")


@modes
def test_traces_nest(mode: str) -> None:
    """S209: a function that traces can be traced; a program can be traced again."""

    def f(x: Tensor) -> Tensor:
        inner = make_fx(lambda y: multiply(sin(y), 2), mode)(x)
        inner.graph.lint(inner)
        assert len(targets(inner)) == 2
        return add(inner(x), x)

    module = make_fx(f, mode)(real(3))
    assert targets(module) == ["core.sin.default", "core.multiply.Scalar", "core.add.default"]
    again = make_fx(module, mode)(real(3))
    assert targets(again) == targets(module)
    assert same(again(real(3)), add(multiply(sin(real(3)), 2), real(3)))


def test_traces_in_threads() -> None:
    """S98: traces in several threads record their own calls only."""
    found: list[int] = []

    def f(x: Tensor, n: int) -> Tensor:
        for _ in range(n):
            x = sin(x)
        return x

    def work(n: int) -> None:
        module = make_fx(lambda x: f(x, n), "symbolic")(real(3, n))
        found.append(len(targets(module)) - n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20, 60, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0] * 8


@modes
def test_an_error_ends_the_trace(mode: str) -> None:
    """S98: after an error nothing records."""

    def f(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_fx(f, mode)(real(3))
    assert word().tracer is None


# -- operators of authors ----------------------------------------------------------


@pytest.fixture
def op() -> Iterator[CustomOpDef]:
    """An operator that looks into its data."""

    @custom_op("testtrace::op", mutates_args=(), replace=True)
    def op(x: Tensor) -> Tensor:
        assert word().tracer is None
        return sin(of_array(x.numpy() + 1))

    yield op
    disown(places_of("testtrace::op"))


@modes
def test_a_custom_operator_is_one_node(op: CustomOpDef, mode: str) -> None:
    """S209: neither its kernel nor its fake rule is recorded."""
    op.register_fake(lambda x: add(sin(x), 1))
    module = make_fx(lambda x: add(op(x), x), mode)(real(3))
    assert targets(module) == ["testtrace.op.default", "core.add.default"]
    assert same(module(real(3)), add(op(real(3)), real(3)))


def test_a_missing_fake_is_named(op: CustomOpDef) -> None:
    """S145: tracing on fakes without a fake rule gives the line to write."""
    for mode in ("fake", "symbolic"):
        with pytest.raises(MissingFakeError, match=r"register_fake\('testtrace::op', rule\)"):
            make_fx(op, mode)(real(3))
    assert targets(make_fx(op, "real")(real(3))) == ["testtrace.op.default"]


@modes
def test_a_decomposition_is_recorded_in_parts(mode: str) -> None:
    """S209: an operator that decomposes does so in the trace."""
    lib = Library("testtracelib", "FRAGMENT")
    lib.define("parts(Tensor x, *, int n=2) -> Tensor")
    lib.impl("parts", lambda x, *, n=2: multiply(sin(x), n), "CompositeImplicitAutograd")
    module = make_fx(lambda x: find_operator("testtracelib::parts").entry(x, n=3), mode)(real(3))
    assert targets(module) == ["core.sin.default", "core.multiply.Scalar"]
    lib._destroy()


@modes
def test_a_table_replaces_operators(op: CustomOpDef, mode: str) -> None:
    """S209: the functions of `decomposition_table` are traced instead of operators."""
    table = {op: lambda x: sin(add(x, 1)), "core::sin": lambda x: multiply(x, 3)}
    module = make_fx(lambda x: op(x), mode, decomposition_table=table)(real(3))
    assert targets(module) == ["core.add.Scalar", "core.multiply.Scalar"]


# -- what cannot be traced -----------------------------------------------------------


@modes
def test_data_of_traced_tensors(mode: str) -> None:
    """S142: a look at a traced value names the place; a look at a constant is free."""
    w = real(3)
    assert make_fx(lambda x: multiply(x, w.numpy()[1].item()), mode)(real(3))
    for look in (Tensor.item, Tensor.__bool__, Tensor.tolist, Tensor.numpy):
        with pytest.raises(DataDependentOutputError, match=r"test_make_fx.py:\d+"):
            make_fx(lambda x, f=look: f(sin(x)), mode)(real(1))


def test_options() -> None:
    """S3: an unknown tracing mode is answered with the nearest."""
    with pytest.raises(UsageError, match="did you mean 'symbolic'"):
        make_fx(sin, "symbolc")


# -- sizes -----------------------------------------------------------------------------


def test_sizes_are_computed_by_the_program() -> None:
    """S150: a symbolic program runs at other sizes, and its guards say at which."""

    def f(x: Tensor, y: Tensor) -> Any:
        n, m = x.shape
        z = reshape(permute_dims(add(x, y), [1, 0]), [n * m // 2, 2])
        return z, n * m + 1

    module = make_fx(f, "symbolic")(real(4, 6), real(6))
    module.graph.lint(module)
    env = module.shape_env
    for n, m in ((4, 6), (3, 8), (10, 3)):
        sizes = {"x.shape[0]": n, "x.shape[1]": m, "y.shape[0]": m}
        assert env.check_guards(env.bind(sizes)) is None
        out, count = module(real(n, m), real(m))
        assert same(out, f(real(n, m), real(m))[0]) and count == n * m + 1


def test_integer_inputs_are_symbols() -> None:
    """S150: an int among the inputs is a symbol, and the program computes with it."""
    module = make_fx(lambda x, n: reshape(x, [n, -1]), "symbolic")(real(4, 6), 8)
    assert module(real(4, 6), 12).shape == (12, 2)


def test_a_branch_is_a_guard() -> None:
    """S150: a branch on a size is kept as a guard."""
    module = make_fx(lambda x: sin(x) if x.shape[0] > 3 else x, "symbolic")(real(5))
    (guard,) = module.shape_env.guards
    assert module.shape_env.evaluate(guard.condition, {"s0": 4})
    assert not module.shape_env.evaluate(guard.condition, {"s0": 3})


@pytest.fixture
def places() -> Iterator[CustomOpDef]:
    """An operator whose result has at most five elements."""

    @custom_op("testtrace::places", mutates_args=(), replace=True)
    def places(x: Tensor) -> Tensor:
        return of_array(np.flatnonzero(x.numpy()))

    @places.register_fake
    def places_fake(x: Tensor) -> Tensor:
        n = get_ctx().new_dynamic_size(min=1, max=5)
        return of_meta(x.payload.space.meta((n,), np.dtype("int64")))

    yield places
    disown(places_of("testtrace::places"))


def test_dynamic_sizes_flow(places: CustomOpDef) -> None:
    """S212: a size that depends on data is read from what made it."""

    def f(x: Tensor) -> Any:
        i = places(x)
        return reshape(i, [i.shape[0], 1]), i.shape[0] * 2

    module = make_fx(f, "symbolic")(real(4))
    module.graph.lint(module)
    for n in (3, 5):
        out, double = module(real(n))
        assert out.shape == (n - 1, 1) and double == 2 * (n - 1)


def test_dynamic_sizes_are_asserted(places: CustomOpDef) -> None:
    """S153: a traced program asserts that a dynamic size lies in its range, and says which."""
    module = make_fx(lambda x: sin(places(x)), "symbolic")(real(4))
    names = [getattr(n.target, "__name__", "") for n in module.graph.nodes]
    assert names.index("assert_holds") < names.index("sin.default")
    for bad in (real(8), of_array(np.zeros(3, "float32"))):
        with pytest.raises(UsageError, match=r"1 <= u0 <= 5(.|\n)*testtrace::places"):
            module(bad)


# -- size of programs --------------------------------------------------------------------


def test_long_programs() -> None:
    """S210: ten thousand calls are ten thousand nodes, each with one user, in order."""

    def f(x: Tensor) -> Tensor:
        for _ in range(5000):
            x = add(sin(x), 1)
        return x

    module = make_fx(f, "symbolic")(real(2, 3))
    nodes = list(module.graph.nodes)
    assert len(nodes) == 10_002
    assert all(len(n.users) == 1 for n in nodes[:-1])
    module.graph.lint(module)
    assert same(module(real(2, 3)), f(real(2, 3)))

"""The laws of calls that write, as calls that write nothing (S170 to S173)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import tree
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import (
    register_autograd,
    register_fake,
    register_kernel,
    register_vmap,
)
from polyop.errors import AliasError, ArgumentError, UsageError
from polyop.func import functionalize, grad, vmap
from polyop.graph import make_fx
from polyop.graph.purity import is_impure
from polyop.hop import SubgraphOperator
from polyop.hop.auto_functionalize import (
    auto_functionalized,
    auto_functionalized_v2,
    can_auto_functionalize,
)
from polyop.layers.fake import FakeTensorMode
from polyop.schema.tags import Tag

NS = "autofunc"
F32 = np.dtype("float32")


def tensor(*shape: int) -> Any:
    return polyop.from_numpy(np.arange(1.0, 1.0 + np.prod(shape), dtype=F32).reshape(shape))


def lists(value: Any) -> Any:
    return tree.map_leaves(lambda x: x.numpy().tolist() if hasattr(x, "numpy") else x, value)


def push(x: Any, ys: Any, by: float, *, z: Any = None) -> Any:
    """Write everything, each through what was written before."""
    x.numpy()[...] += by
    for y in ys:
        y.numpy()[...] *= 2
    if z is not None:
        z.numpy()[...] = 7
    return polyop.from_numpy(x.numpy() * 10)


@pytest.fixture(scope="module", autouse=True)
def lib() -> Iterator[Library]:
    made = Library(NS, "FRAGMENT")
    made.define("push(Tensor(a!) x, Tensor(b!)[] ys, float by, *, Tensor(c!)? z=None) -> Tensor")
    register_kernel(f"{NS}::push", "cpu", push, lib=made)
    register_fake(f"{NS}::push", lambda x, ys, by, *, z=None: x * 10, lib=made)
    made.define("nothing(Tensor(a!) x) -> ()")
    register_kernel(f"{NS}::nothing", "cpu", nothing, lib=made)
    made.define("fill(Tensor x, *, Tensor(a!) out) -> Tensor(a!)", tags=(Tag.out,))
    register_kernel(f"{NS}::fill", "cpu", fill, lib=made)
    made.define("bump(Tensor(a!) x, Tensor y) -> Tensor(a!)", tags=(Tag.inplace,))
    register_kernel(f"{NS}::bump", "cpu", bump, lib=made)
    made.define("first(Tensor(a!) x) -> Tensor(a)")
    register_kernel(f"{NS}::first", "cpu", first, lib=made)
    register_fake(f"{NS}::first", lambda x: x[0], lib=made)
    made.define("many(Tensor(a!) x, Tensor y) -> Tensor[]")
    register_kernel(f"{NS}::many", "cpu", many, lib=made)
    register_fake(f"{NS}::many", lambda x, y: [x + 0, y + 0], lib=made)
    made.define("pure(Tensor x) -> Tensor")
    register_kernel(f"{NS}::pure", "cpu", lambda x: x.clone(), lib=made)
    twin = op("push").functional
    register_autograd(
        twin, lambda ctx, g, gx, gy, gz: (gx + 10 * g, [2 * y for y in gy], None, None), lib=made
    )
    register_vmap(twin, push_twin_batched, lib=made)
    yield made
    made._destroy()


def push_twin_batched(info: Any, in_dims: Any, x: Any, ys: Any, by: Any, *, z: Any = None) -> Any:
    twin = op("push").functional
    return twin(x, ys, by, z=z), (in_dims[0], in_dims[0], in_dims[1], None)


def nothing(x: Any) -> None:
    x.numpy()[...] += 1


def fill(x: Any, *, out: Any) -> Any:
    out.numpy()[...] = x.numpy() * 2
    return out


def bump(x: Any, y: Any) -> Any:
    x.numpy()[...] += y.numpy()
    return x


def first(x: Any) -> Any:
    x.numpy()[...] += 1
    return x[0]


def many(x: Any, y: Any) -> Any:
    x.numpy()[...] += 1
    return [x * 2, y * 3]


def op(name: str) -> Any:
    return find_operator(f"{NS}::{name}")


# -- the first form -----------------------------------------------------------


def test_results_then_new_values() -> None:
    """S170: results come first, then each written argument's new value; nothing is written."""
    x, y = tensor(2), tensor(3)
    got = auto_functionalized(op("push"), x=x, ys=[y, y], by=1.0, z=None)
    assert lists(got) == (
        [20.0, 30.0],
        [2.0, 3.0],
        [[2.0, 4.0, 6.0], [2.0, 4.0, 6.0]],
        None,
    )
    assert lists([x, y]) == [[1, 2], [1, 2, 3]]
    assert lists(auto_functionalized(op("push"), x=x, ys=[], by=0.0, z=y))[3] == [7, 7, 7]


def test_no_results_are_none() -> None:
    """S170: an operator that returns nothing gives None before the new values, as in PyTorch."""
    lib = torch.library.Library("autofuncoracle", "FRAGMENT")
    lib.define("nothing(Tensor(a!) x) -> ()")
    lib.impl("nothing", lambda x: x.add_(1) and None, "CPU")
    want = torch.ops.higher_order.auto_functionalized(
        torch.ops.autofuncoracle.nothing.default, x=torch.zeros(1)
    )
    got = auto_functionalized(op("nothing"), x=polyop.zeros(1))
    assert [None if v is None else v.numpy().tolist() for v in got] == [
        None if v is None else v.numpy().tolist() for v in want
    ]


def test_declared_aliases_and_lists() -> None:
    """S173: returned inputs are the new values; views and lists of Tensors are results too."""
    x, y = tensor(2), tensor(2)
    result, new = auto_functionalized(op("bump"), x=x, y=y)
    assert result is new and lists(new) == [2, 4]
    result, new = auto_functionalized(op("first"), x=tensor(2, 2))
    assert lists([result, new]) == [[2, 3], [[2, 3], [4, 5]]]
    assert not np.shares_memory(result.numpy(), new.numpy())
    assert lists(auto_functionalized(op("many"), x=x, y=y)) == ([[4, 6], [3, 6]], [2, 3])
    filled, out = auto_functionalized(op("fill"), x=x, out=y)
    assert filled is out and lists([out, y]) == [[2, 4], [1, 2]]


def test_which_operators() -> None:
    """S173: operators that write Tensors have the form; built-in, pure and own ones do not."""
    assert can_auto_functionalize(op("push"))
    assert can_auto_functionalize(f"{NS}::bump")
    for name in ("first", "many", "fill", "nothing"):
        assert can_auto_functionalize(op(name)), name
    for bad, why in (
        (op("pure"), "writes nothing"),
        (polyop.ops.core.add_.default, "built in"),
        (op("push").functional, "writes nothing"),
    ):
        assert not can_auto_functionalize(bad)
        for hop in (auto_functionalized, auto_functionalized_v2):
            with pytest.raises(UsageError, match=why):
                hop(bad, x=tensor(2))


def test_own_functionalization(lib: Library) -> None:
    """S173: an operator that says itself what functionalization does keeps that."""
    lib.define("own(Tensor(a!) x) -> ()")
    own = find_operator(f"{NS}::own")
    assert can_auto_functionalize(own)
    own.py_functionalize_impl(lambda ctx, x: None)
    assert not can_auto_functionalize(own)
    with pytest.raises(UsageError, match="kernel of its own at Functionalize"):
        auto_functionalized(own, x=tensor(1))


def test_wrong_arguments_write_nothing() -> None:
    """S4: a call with wrong arguments raises, and writes nothing."""
    x = tensor(2)
    for hop, arguments, text in (
        (auto_functionalized, {"x": x, "ys": [x]}, "by"),
        (auto_functionalized, {"x": x, "ys": [x], "by": 1.0, "w": 1}, "w"),
        (auto_functionalized_v2, {"x": x, "ys": [], "by": 1.0}, "_all_bases"),
        (auto_functionalized_v2, {"x": x, "ys": [], "by": 1.0, "_all_bases": [x]}, "x is written"),
        (auto_functionalized_v2, on_bases(x) | {"w": 1}, "no argument 'w'"),
        (auto_functionalized_v2, on_bases(x) | {"_x_base_index": 3}, "names no base"),
        (auto_functionalized_v2, on_bases(x) | {"_x_slice_dim": 0}, "_x_slice_start"),
        (auto_functionalized_v2, on_bases(x) | {"_only_clone_these_bases": [2]}, "not there"),
        (auto_functionalized_v2, {"_all_bases": [x], "_x_base_index": 0}, "missing"),
    ):
        with pytest.raises(ArgumentError, match=text):
            hop(op("push"), **arguments)
    assert lists(x) == [1, 2]


def on_bases(x: Any) -> dict[str, Any]:
    return {"_all_bases": [x], "_x_base_index": 0, "by": 1.0, "_ys_length": 0}


# -- the second form ----------------------------------------------------------

SPECS: list[tuple[dict[str, Any], Callable[[Any], Any]]] = [
    ({}, lambda b: b),
    ({"_alias": True}, lambda b: b),
    ({"_slice_dim": 0, "_slice_start": 1, "_slice_end": 3}, lambda b: b[1:3]),
    ({"_slice_dim": 1, "_slice_start": 0, "_slice_end": 1}, lambda b: b[:, :1]),
    ({"_size": [2], "_stride": [4], "_storage_offset": 1}, lambda b: b.reshape(-1)[1:9:4]),
    ({"_size": [3, 4], "_stride": [1, 3], "_storage_offset": 0}, lambda b: b.reshape(4, 3).T),
    ({"_size": [2], "_stride": [-2], "_storage_offset": 5}, lambda b: b.reshape(-1)[5:1:-2]),
    ({"_size": [0], "_stride": [1], "_storage_offset": 12}, lambda b: b.reshape(-1)[12:]),
]


def call_on(spec: dict[str, Any], base: Any, other: Any) -> Any:
    given = {f"_x{k}": v for k, v in spec.items()} | {"_x_base_index": 0}
    given |= {"_ys_length": 1, "_ys_0_base_index": 1}
    return auto_functionalized_v2(op("push"), by=1.0, z=None, _all_bases=[base, other], **given)


@pytest.mark.parametrize(("spec", "view"), SPECS)
def test_views_of_bases(spec: dict[str, Any], view: Any) -> None:
    """S171: each way to say a view gives that view; results, then new bases; none is written."""
    base, other = tensor(4, 3), tensor(2)
    want = base.numpy().copy()
    view(want)[...] += 1
    result, new, second = call_on(spec, base, other)
    assert lists([result, new, second]) == [(view(want) * 10).tolist(), want.tolist(), [2, 4]]
    assert lists([base, other]) == lists([tensor(4, 3), tensor(2)])


def test_slices_as_in_pytorch() -> None:
    """S171: the same arguments mean the same in PyTorch."""
    lib = torch.library.Library("autofuncoracle2", "FRAGMENT")
    lib.define("push(Tensor(a!) x, Tensor(b!)[] ys, float by, *, Tensor(c!)? z=None) -> Tensor")

    def run(x: Any, ys: Any, by: float, *, z: Any = None) -> Any:
        x.add_(by)
        for y in ys:
            y.mul_(2)
        return x * 10

    lib.impl("push", run, "CPU")
    theirs = torch.ops.higher_order.auto_functionalized_v2
    for spec, _ in SPECS:
        if "_stride" in spec and min(spec["_stride"]) < 0:
            continue  # PyTorch has no negative strides
        given = {f"_x{k}": v for k, v in spec.items()} | {"_x_base_index": 0}
        given |= {"_ys_length": 1, "_ys_0_base_index": 1, "by": 1.0}
        given["_z_base_index"] = None
        bases = [torch.arange(1.0, 13).reshape(4, 3), torch.arange(1.0, 3)]
        want = theirs(torch.ops.autofuncoracle2.push.default, _all_bases=bases, **given)
        got = call_on(spec, tensor(4, 3), tensor(2))
        assert [g.numpy().tolist() for g in got] == [w.numpy().tolist() for w in want]


def test_a_base_of_two_arguments() -> None:
    """S171: arguments with one base share its memory, as in the call that writes."""
    base = tensor(4)
    _, new = auto_functionalized_v2(
        op("push"), by=1.0, z=None, _all_bases=[base], _x_base_index=0, _x_slice_dim=0,
        _x_slice_start=0, _x_slice_end=3, _ys_length=1, _ys_0_base_index=0, _ys_0_slice_dim=0,
        _ys_0_slice_start=1, _ys_0_slice_end=4,
    )  # fmt: skip
    assert lists(new) == [2, 6, 8, 8]


def test_only_some_bases_are_copied() -> None:
    """S171: a base that is not named in `_only_clone_these_bases` is written itself."""
    x, y = tensor(2), tensor(2)
    given = {"_x_base_index": 0, "_ys_length": 1, "_ys_0_base_index": 1, "by": 1.0, "z": None}
    _, a, b = auto_functionalized_v2(
        op("push"), _all_bases=[x, y], _only_clone_these_bases=[1], **given
    )
    assert a is x and lists([x, y, b]) == [[2, 3], [1, 2], [2, 4]]


def test_out_and_inplace() -> None:
    """S172: outs are made as size, stride and dtype say; in place, result and base are one."""
    facts = {"size": [2, 3], "stride": [1, 2], "dtype": F32, "device": polyop.device("cpu")}
    given = {f"_out_{k}": v for k, v in facts.items()}
    out = auto_functionalized_v2(op("fill"), x=tensor(2, 3), _all_bases=[], **given)
    assert out.stride() == (1, 2) and lists(out) == [[2, 4, 6], [8, 10, 12]]
    result, base = auto_functionalized_v2(
        op("bump"), y=tensor(2), _all_bases=[tensor(2)], _x_base_index=0
    )
    assert result is base and lists(base) == [2, 4]


def test_bad_places_are_refused() -> None:
    """S171: a place outside of its base, or of a base that is not in order, is refused."""
    given = {"_x_base_index": 0, "_x_storage_offset": 0, "by": 1.0, "_ys_length": 0}
    for base, size, stride in (
        (tensor(4), [3], [2]),
        (tensor(4), [2], [-1]),
        (polyop.transpose(tensor(2, 3), 0, 1), [2], [1]),
        (tensor(4), [2, 1], [1]),
    ):
        with pytest.raises(ArgumentError, match=r"reaches out|in order|for each axis"):
            auto_functionalized_v2(
                op("push"), _all_bases=[base], _x_size=size, _x_stride=stride, **given
            )


# -- everywhere ---------------------------------------------------------------


def v1(x: Any, y: Any) -> Any:
    return auto_functionalized(op("push"), x=x, ys=[y], by=1.0)


def v2(x: Any, y: Any) -> Any:
    return call_on(SPECS[2][0], x, y)


def twin(x: Any, y: Any) -> Any:
    return op("push").functional(x, [y], 1.0)


def loss(f: Any) -> Any:
    def run(*args: Any) -> Any:
        parts = [t for t in tree.leaves(f(*args)) if t is not None]
        return sum(((t * t).sum() for t in parts), polyop.zeros(()))

    return run


@pytest.mark.parametrize("f", [v1, v2])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_one_node(f: Any, mode: str, pre_dispatch: bool) -> None:
    """S170, S171: a trace has one readable node; the program passes lint, and runs."""
    module = make_fx(f, mode, pre_dispatch=pre_dispatch)(tensor(4, 2), tensor(2))
    module.graph.lint(module)
    calls = [n for n in module.graph.nodes if str(n.target).startswith("auto_functionalized")]
    assert len(calls) == 1 and f"({NS}.push, " in str(module.graph)
    assert not any(n.op == "get_attr" for n in module.graph.nodes)
    x, y = tensor(4, 2), tensor(2)
    assert lists(tuple(module(x, y))) == lists(tuple(f(x, y)))
    assert lists([x, y]) == lists([tensor(4, 2), tensor(2)])


def test_fakes() -> None:
    """S170: fakes have the shapes, dtypes and strides of the results."""
    for f in (v1, v2):
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(t) for t in (tensor(4, 2), tensor(2))]
            got = tree.leaves(f(*fakes))
        want = tree.leaves(f(tensor(4, 2), tensor(2)))
        facts = [
            [v if v is None else (v.shape, v.dtype, v.stride()) for v in a] for a in (got, want)
        ]
        assert facts[0] == facts[1]


def test_gradients_are_the_twins() -> None:
    """S170: the gradient is that of the functional twin, in a trace too."""
    x, y = tensor(4, 2), tensor(2)
    want = lists(grad(loss(twin), argnums=(0, 1))(x, y))
    assert lists(grad(loss(v1), argnums=(0, 1))(x, y)) == want
    a, b = tensor(4, 2).requires_grad_(), tensor(2).requires_grad_()
    loss(v1)(a, b).backward()
    assert lists((a.grad, b.grad)) == want
    part = lambda x, y: twin(x[1:3], y)  # noqa: E731
    of_part = lists(grad(loss(part), argnums=0)(x, y))
    rest = lists(2 * x)
    inner = [rest[0], *of_part[1:3], rest[3]]
    got = grad(loss(v2), argnums=0)(x, y)
    np.testing.assert_allclose(got.numpy(), inner)
    for f in (v1, v2):
        program = make_fx(grad(loss(f), argnums=(0, 1)))(x, y)
        assert lists(program(x, y)) == lists(grad(loss(f), argnums=(0, 1))(x, y))


@pytest.mark.parametrize("f", [v1, v2])
def test_batches(f: Any) -> None:
    """S170, S171: vmap equals the loop, where one argument is not batched too."""
    xs, y = tensor(3, 4, 2), tensor(3, 2)
    got = vmap(f)(xs, y)
    want = [f(xs[i], y[i]) for i in range(3)]
    for g, w in zip(tree.leaves(got), zip(*map(tree.leaves, want), strict=True), strict=True):
        assert g is None or lists(g) == [lists(t) for t in w]


@pytest.mark.parametrize("f", [v1, v2])
def test_functionalized_twice(f: Any) -> None:
    """S168: what writes nothing stays one node under functionalize of functionalize."""
    x, y = tensor(4, 2), tensor(2)
    twice = functionalize(functionalize(f))
    assert lists(tuple(twice(x, y))) == lists(tuple(f(x, y)))
    text = str(make_fx(twice)(x, y).graph)
    assert text.count("higher_order.") == 1

    def writes(x: Any, y: Any) -> Any:
        out = f(x, y)
        out[1].mul_(3)
        return out[0], out[1]

    assert lists(functionalize(writes)(x, y)) == lists(writes(x, y))


def test_effects_and_draws_stay() -> None:
    """S210: a call whose operator only writes may go; a random one stays."""
    program = make_fx(v1)(tensor(4, 2), tensor(2))
    node = next(n for n in program.graph.nodes if n.target is auto_functionalized)
    assert not is_impure(node)
    lib = Library(NS, "FRAGMENT")
    lib.define("draw(Tensor(a!) x) -> ()", tags=(Tag.nondeterministic_seeded,))
    register_kernel(f"{NS}::draw", "cpu", lambda x: None, lib=lib)
    random = make_fx(lambda x: auto_functionalized(op("draw"), x=x)[1])(tensor(2))
    assert is_impure(next(n for n in random.graph.nodes if n.target is auto_functionalized))
    lib._destroy()


# -- higher-order operators ---------------------------------------------------


def test_higher_order_operators() -> None:
    """S172: an operator with gen_schema goes by that: operands that the function writes."""
    block = SubgraphOperator(f"{NS}_block")
    x, y = tensor(2), tensor(2)

    def body(a: Any, b: Any) -> Any:
        return a.add_(b) * 2

    f = lambda x, y: auto_functionalized(block, subgraph=body, operand0=x, operand1=y)  # noqa: E731
    assert can_auto_functionalize(block)
    assert lists(f(x, y)) == ([4, 8], [2, 4])
    assert lists(x) == [1, 2]
    program = make_fx(f)(x, y)
    program.graph.lint(program)
    assert lists(tuple(program(x, y))) == ([4, 8], [2, 4])
    assert lists(x) == [1, 2]
    with pytest.raises(UsageError, match="named as"):
        auto_functionalized(block, subgraph=body, x=x, y=y)
    with pytest.raises(UsageError, match="takes an overload"):
        auto_functionalized_v2(block, subgraph=body, operand0=x, operand1=y)


# -- shared memory in functionalized programs ---------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=3))
def test_arguments_that_share_memory(parts: list[tuple[int, int]]) -> None:
    """S168: an operator that gets overlapping views works on one memory, as it does eagerly."""

    def f(x: Any) -> Any:
        y = x * 2
        spans = [slice(a, a + n) for a, n in parts]
        result = op("push")(y[1:4], [y[s] for s in spans], 1.0, z=y[::-1])
        return y, result

    want = lists(f(tensor(6)))
    assert lists(functionalize(f)(tensor(6))) == want
    program = make_fx(functionalize(f), "fake")(tensor(6))
    program.graph.lint(program)
    assert lists(tuple(program(tensor(6)))) == want


def test_undeclared_aliases_are_still_refused(lib: Library) -> None:
    """S47: an operator that returns what it wrote without saying so is an error here too."""
    lib.define("liar(Tensor(a!) x) -> Tensor")
    register_kernel(f"{NS}::liar", "cpu", lambda x: x, lib=lib)
    with pytest.raises(AliasError):
        auto_functionalized(op("liar"), x=tensor(2))

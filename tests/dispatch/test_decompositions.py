"""Tables of decompositions: what they take, what they refuse, and what a trace makes of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import library
from polyop.dispatch.decompositions import REGISTRY
from polyop.errors import (
    DuplicateRegistrationError,
    OperatorNotFoundError,
    UsageTypeError,
)
from polyop.graph import GraphModule
from polyop.layers.trace import make_fx
from polyop.library import (
    DecompTable,
    core_decompositions,
    get_decompositions,
    register_decomposition,
    scoped_library,
)
from polyop.tensor.tensor import Tensor

softmax = polyop.ops.core.softmax.default
where = polyop.ops.core.where


def targets(module: GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def parts(*args: Any) -> Any:
    return args[0] * 2


# -- registering ----------------------------------------------------------------


@pytest.mark.parametrize(
    "op", [softmax, polyop.ops.core.softmax, "core::softmax", softmax.entry, [softmax]]
)
def test_an_operator_is_taken_in_every_form(op: Any) -> None:
    """S199: an overload, a packet, a name, the function, a list; the function is given back."""
    table = DecompTable()
    assert register_decomposition(op, table)(parts) is parts
    assert list(table) == [softmax]
    assert table[softmax] is table["core::softmax"] is table[polyop.ops.core.softmax] is parts


def test_a_packet_means_all_its_overloads() -> None:
    """S199: what is registered for a packet is found for each overload."""
    table = DecompTable()
    register_decomposition([where], table)(parts)
    assert {op._overloadname for op in table} == set(where.overloads())


def test_twice_in_one_table_is_refused_and_changes_nothing() -> None:
    """S199: a second decomposition is an error that names the place of the first."""
    table = DecompTable()
    register_decomposition(softmax, table)(parts)
    with pytest.raises(DuplicateRegistrationError, match="core::softmax has a decomp") as caught:
        register_decomposition([polyop.ops.core.log_softmax, softmax], table)(lambda x: x)
    assert __file__ in caught.value.declared and "registry=" in caught.value.fix
    assert list(table) == [softmax] and table[softmax] is parts
    register_decomposition(softmax, DecompTable())(parts)  # another table is another matter


def test_the_global_table_has_the_built_in_ones() -> None:
    """S199: without a table of one's own, the built-in decompositions are there already."""
    with pytest.raises(DuplicateRegistrationError):
        register_decomposition(softmax)(parts)
    assert get_decompositions([softmax])[softmax] is core_decompositions()[softmax]


@pytest.mark.parametrize("wrong", [3, None, np.sin, [softmax, 3], object()])
def test_no_operator_is_refused(wrong: Any) -> None:
    """S199: what is no operator is a UsageTypeError, at once."""
    with pytest.raises(UsageTypeError):
        register_decomposition(wrong)
    with pytest.raises(UsageTypeError):
        get_decompositions([wrong])


def test_mistakes_are_said() -> None:
    """S199: an unknown name, no function, no list."""
    with pytest.raises(OperatorNotFoundError, match="softmax"):
        register_decomposition("core::softmaxx")
    with pytest.raises(UsageTypeError, match="a decomposition is a function"):
        register_decomposition("core::sin", DecompTable())(3)  # type: ignore[arg-type]
    with pytest.raises(UsageTypeError, match="a decomposition is a function"):
        DecompTable()["core::sin"] = 3  # type: ignore[assignment]
    for single in ("core::sin", polyop.ops.core.sin, softmax):
        with pytest.raises(UsageTypeError, match="takes a list"):
            get_decompositions(single)


def test_a_plain_dict_is_a_table() -> None:
    """S199: any mutable mapping can be filled."""
    table: dict[Any, Any] = {}
    register_decomposition(softmax, table)(parts)
    assert table == {softmax: parts}


def test_a_removed_operator_leaves_the_table() -> None:
    """S199: the operator that takes a removed one's name can be decomposed anew."""
    for _ in range(2):
        with scoped_library("decomposition_tests", "DEF") as lib:
            lib.define("gone(Tensor x) -> Tensor")
            op = polyop.ops.decomposition_tests.gone.default
            register_decomposition(op)(parts)
            assert get_decompositions([op]) == {op: parts}
    get_decompositions([])
    assert all(op.alive for op in REGISTRY)


def test_threads_register_each_once() -> None:
    """S199: of threads that register one operator at once, one succeeds."""
    table = DecompTable()

    def attempt(_: int) -> bool:
        try:
            register_decomposition(where, table)(parts)
        except DuplicateRegistrationError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(40))) == 1
    assert len(table) == len(where.overloads())


# -- tables ---------------------------------------------------------------------


def test_a_table_is_mutable_and_ones_own() -> None:
    """S199: what is taken out of, or put into, one table stays in the others."""
    table = core_decompositions()
    removed = table.pop(softmax)
    assert softmax not in table and "core::softmax" not in table
    assert core_decompositions()[softmax] is removed
    table["core::softmax"] = parts
    assert core_decompositions()[softmax] is removed
    copy = table.copy()
    copy.clear()
    assert table and isinstance(copy, DecompTable) and repr(copy) == "DecompTable()"


def test_get_leaves_out_what_has_none() -> None:
    """S199: of the operators asked for, those with a decomposition are given."""
    got = get_decompositions([polyop.ops.core.sin, softmax, polyop.ops.core.lerp])
    assert [op.name() for op in got] == ["core::softmax", "core::lerp", "core::lerp.Scalar"]


def test_the_names_are_public() -> None:
    """S199: the names stand in `polyop.library`."""
    names = {"DecompTable", "core_decompositions", "get_decompositions", "register_decomposition"}
    assert names <= set(library.__all__)


# -- traces ---------------------------------------------------------------------


def test_a_trace_has_the_parts_of_parts() -> None:
    """S199, S209: functions of the table are traced through the table again."""
    x = polyop.ones(2, 3)
    table = core_decompositions()
    found = targets(make_fx(lambda x: polyop.std(x), decomposition_table=table)(x))
    assert "core.sum.default" in found
    assert not {str(op) for op in table} & set(found)


def test_gradients_in_a_trace_are_decomposed_too() -> None:
    """S199: no operator of the table is left in a program with its gradient."""

    def loss_and_gradient(x: Tensor) -> Any:
        loss = polyop.mean(polyop.log_softmax(x) * polyop.std(x, axis=-1, keepdims=True))
        return loss, *polyop.autograd.grad([loss], [x])

    x = polyop.from_numpy(np.random.default_rng(0).normal(size=(3, 4))).requires_grad_()
    table = core_decompositions()
    module = make_fx(loss_and_gradient, "symbolic", decomposition_table=table)(x)
    assert not {str(op) for op in table} & set(targets(module))
    for got, wanted in zip(module(x), loss_and_gradient(x), strict=True):
        assert np.allclose(got.detach().numpy(), wanted.detach().numpy())


def test_an_authors_operator_is_decomposed_by_its_table() -> None:
    """S199: a custom operator is one node, or what a table says that it is."""
    with scoped_library("decomposition_tests", "DEF") as lib:
        lib.define("twice(Tensor x) -> Tensor")
        lib.impl("twice", lambda x: x.clone() * 2, "CompositeExplicitAutograd")
        polyop.library.register_fake(
            "decomposition_tests::twice", lambda x: x.new_empty(x.shape), lib=lib
        )
        op = polyop.ops.decomposition_tests.twice
        table = {op.default: lambda x: x + x}
        assert targets(make_fx(op, "fake")(polyop.ones(2))) == ["decomposition_tests.twice.default"]
        found = make_fx(op, "fake", decomposition_table=table)(polyop.ones(2))
        assert targets(found) == ["core.add.default"]

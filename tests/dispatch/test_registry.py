"""Names, tables and memos: how operators are found, and what they remember."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dispatch.registry_state import refused, settled

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.dumps import dispatch_check_invariants, dispatch_dump_table
from polyop.dispatch.guards import exclude_keys, force_keys, include_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.namespaces import ops
from polyop.dispatch.registry import as_operator, full_name, split_name
from polyop.dispatch.table import fallthrough_kernel
from polyop.errors import (
    MissingKernelError,
    OperatorNotFoundError,
    RegistrationError,
    UsageError,
    UsageTypeError,
)
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)
K = DispatchKey


def adds(n: float) -> Any:
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + n)

    return kernel


def call(op: Any) -> float:
    return float(op(of_array(ONE)).item())


# -- names --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a::b", ("a::b", "", 0)),
        ("a::b.default", ("a::b", "", 0)),
        ("a::b.c", ("a::b", "c", 0)),
        ("a::b.c@12", ("a::b", "c", 12)),
        ("a::b@1", ("a::b", "", 1)),
    ],
)
def test_split_name(text: str, parts: tuple[str, str, int]) -> None:
    """S29, S42: a name is namespace, operator, overload and version."""
    assert split_name(text) == parts
    again = split_name(full_name(text))
    assert (again[0], again[1], again[2] or 1) == (parts[0], parts[1], parts[2] or 1)


@pytest.mark.parametrize("text", ["a", "", "a::b@", "a::b@x", "a::b@-1"])
def test_what_is_no_name(text: str) -> None:
    """S42: a text that is no operator name is a usage error."""
    with refused(UsageError, "is no operator name", repr(text)):
        as_operator(text)


def test_the_nearest_name() -> None:
    """S3, S39: an unknown operator or overload names the nearest."""
    custom_op("registry::nearly", adds(1), mutates_args=())
    with refused(OperatorNotFoundError, "registry::nearby", "'registry::nearly'"):
        as_operator("registry::nearby")
    with refused(OperatorNotFoundError, "registry::nearly has no overload 'x'"):
        as_operator("registry::nearly.x")


@pytest.mark.parametrize("thing", [None, 3, [], of_array(ONE), adds(1)])
def test_no_operator(thing: Any) -> None:
    """S36: what is neither name nor operator is a type error."""
    with refused(UsageTypeError, "is no operator"):
        as_operator(thing)


# -- tables -------------------------------------------------------------------

PLACES = [K.CPU, K.CompositeExplicitAutograd, K.AutogradCPU, K.Autograd, K.CUDA]


@settings(max_examples=40, deadline=None)
@given(st.permutations(PLACES), st.sets(st.sampled_from(PLACES)))
def test_the_table_knows_no_order(order: list[DispatchKey], removed: set[DispatchKey]) -> None:
    """S106: the table is that of the living registrations, in whatever order they came and went."""
    tables = []
    for places in (order, PLACES):
        owner = Library("registry_table", "FRAGMENT")
        owner.define("f(Tensor x) -> Tensor")
        libs = {place: Library("registry_table", "IMPL") for place in places}
        for place in places:
            libs[place].impl("f", adds(PLACES.index(place)), place)
            ops.registry_table.f.default.table[K.CPU]  # noqa: B018 - computed, then dropped
        for place in sorted(removed):
            libs[place].destroy()
        dispatch_check_invariants("registry_table::f")
        tables.append(dispatch_dump_table("registry_table::f"))
        for place in set(PLACES) - removed:
            libs[place].destroy()
        owner.destroy()
    assert tables[0] == tables[1]


def test_removal_gives_back_the_table() -> None:
    """S106: a registration and its removal leave the table as it was."""
    op = custom_op("registry::back", adds(1), mutates_args=())
    before, state = dispatch_dump_table(op), settled()
    with scoped_library("registry", "IMPL") as lib:
        lib.impl("back", adds(2), "CPU")
        lib.impl("back", fallthrough_kernel, "AutogradCPU")
        assert dispatch_dump_table(op) != before
    assert dispatch_dump_table(op) == before and settled() == state


def test_a_stale_table_is_found() -> None:
    """S105: `dispatch_check_invariants` tells a table that is not what the registrations give."""
    op = custom_op("registry::stale", adds(1), mutates_args=())._opoverload
    dispatch_check_invariants()
    op.table[K.CPU]  # noqa: B018
    op.table[K.CUDA] = op.table[K.AutogradCPU]  # type: ignore[index]
    with pytest.raises(RegistrationError, match="registry::stale is stale(.|\n)*CUDA"):
        dispatch_check_invariants(op)
    op.changed()
    dispatch_check_invariants(op)


def test_handlers_are_remembered_and_dropped() -> None:
    """S107: a handler is remembered per key set, and dropped by registrations and fallbacks."""
    op = custom_op("registry::memo", adds(1), mutates_args=())
    overload = op._opoverload
    with include_keys(["Negative"]):
        assert [call(op), call(op)] == [2, 2]
        assert len(overload.memo) == 1
    with scoped_library("registry", "IMPL") as lib:
        lib.impl("memo", adds(5), "Negative")
        assert not overload.memo
        with include_keys(["Negative"]):
            assert call(op) == 6
    assert not overload.memo
    with include_keys(["Negative"]):
        call(op)
    with scoped_library("_", "IMPL") as lib:
        lib.fallback(lambda op, x: of_array(x.numpy() + 9), "Negative")
        assert not overload.memo
        with include_keys(["Negative"]):
            assert call(op) == 10
    with include_keys(["Negative"]):
        assert call(op) == 2


# -- who acts -----------------------------------------------------------------


def test_the_highest_key_acts() -> None:
    """S92: the call goes to the highest key of the included ones and the tensors'."""
    op = custom_op("registry::highest", adds(1), mutates_args=())
    with scoped_library("registry", "IMPL") as lib:
        lib.impl("highest", adds(10), "Negative")
        lib.impl("highest", adds(20), "Conjugate")
        assert call(op) == 2
        with include_keys(["Negative"]):
            assert call(op) == 11
            with include_keys(["Conjugate"]):
                top = max(K.Negative, K.Conjugate)
                assert call(op) == (21 if top is K.Conjugate else 11)
                with exclude_keys([top]):
                    assert call(op) == (11 if top is K.Conjugate else 21)
            with exclude_keys(["Negative"]):
                assert call(op) == 2


def test_a_fallthrough_and_ones_own_kernel() -> None:
    """S93: a fallthrough fallback takes a key out; an operator's own kernel brings it back."""
    op = custom_op("registry::mask", adds(1), mutates_args=())
    with include_keys(["Negative"]):
        assert call(op) == 2  # passed over by the built-in fallback
        with scoped_library("registry", "IMPL") as lib:
            lib.impl("mask", adds(3), "Negative")
            assert call(op) == 4
            lib.impl("mask", fallthrough_kernel, "Negative")
            assert call(op) == 2


def test_redispatch_looks_at_nothing_else() -> None:
    """S103: `redispatch` goes by the given set, whatever context and arguments say."""
    op = custom_op("registry::re", adds(1), mutates_args=())
    with scoped_library("registry", "IMPL") as lib:
        lib.impl("re", adds(10), "Negative")
        lib.impl("re", adds(20), "CUDA")
        x, overload = of_array(ONE), op._opoverload
        with include_keys(["Negative"]):
            assert overload.redispatch(DispatchKeySet(["CPU"]), x).item() == 2
        assert overload.redispatch(DispatchKeySet(["CPU", "Negative"]), x).item() == 11
        assert overload.redispatch(DispatchKeySet(["CUDA"]), x=x).item() == 21


def test_a_keyset_kernel_goes_on_below() -> None:
    """S103: a kernel with the key set can pass the call on to the keys below its own."""
    op = custom_op("registry::below", adds(1), mutates_args=())

    def negative(keys: DispatchKeySet, x: Tensor) -> Any:
        assert keys.has(K.Negative) and keys.has(K.CPU)
        return op._opoverload.redispatch(keys - DispatchKeySet(["Negative"]), x)

    with scoped_library("registry", "IMPL") as lib, include_keys(["Negative"]):
        lib.impl("below", negative, "Negative", with_keyset=True)
        assert call(op) == 2


def test_undefined_serves_calls_without_keys() -> None:
    """S90: with no key left the default kernel acts; a device's kernel does not."""
    default = custom_op("registry::none", adds(1), mutates_args=())
    device = custom_op("registry::none2", adds(1), mutates_args=(), device_types="cpu")
    everything = ["CPU", "AutogradCPU", "ADInplaceOrView", "BackendSelect"]
    with force_keys([], everything):
        assert call(default) == 2
        with pytest.raises(MissingKernelError):
            call(device)


def test_missing_kernels_say_why() -> None:
    """S90, S91: the error names operator, key, device, the devices that have one, and the line."""
    op = custom_op("registry::miss", adds(1), mutates_args=(), device_types=["cuda", "xpu"])
    words = ("registry::miss", "no kernel for cpu", "key CPU", "kernels for: cuda, xpu", __file__,
             "register_kernel('registry::miss', 'cpu', fn)")  # fmt: skip
    with refused(MissingKernelError, *words):
        call(op)
    many = custom_op("registry::miss2", lambda xs: xs[0], mutates_args=(), device_types="cpu",
                     schema="(Tensor[] xs) -> Tensor")  # fmt: skip
    with refused(MissingKernelError, "registry::miss2", "no Tensor"):
        many([])

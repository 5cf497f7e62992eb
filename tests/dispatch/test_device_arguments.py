"""Which argument says on what device a call without tensors runs."""

from __future__ import annotations

from typing import Any

import pytest

import polyop
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.errors import UsageError
from polyop.fake import FakeTensorMode
from polyop.library import scoped_library

SCHEMAS = [
    "(int n, Device src, Device dst) -> int",
    "(int n, Device where) -> int",
    "(int n, str device) -> int",
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_only_an_argument_named_device_says_it(schema: str) -> None:
    """S51, S28: no other argument is guessed, whatever its type."""
    with pytest.raises(UsageError, match="device"):
        custom_op("devarg::f", len, mutates_args=(), schema=schema, device_types="cpu")


def test_it_is_found_among_other_devices() -> None:
    """S104: another argument of type Device says nothing."""
    with polyop.library.scoped_library("devarg_lib", "DEF") as lib:
        lib.define("f(Device src, Device device) -> int")
        lib.impl("f", lambda src, device: 1, "CPU")
        lib.impl("f", lambda src, device: 2, "CUDA")
        assert polyop.ops.devarg_lib.f("cpu", "cuda") == 2
        assert polyop.ops.devarg_lib.f("cuda", "cpu") == 1


@pytest.mark.parametrize("types", ["cpu", ["default", "cuda"], iter(["cpu"])], ids=["s", "l", "i"])
def test_a_kernel_that_no_call_reaches_is_refused(types: Any) -> None:
    """S4, S51: `impl` asks for an argument `device` as `register_kernel` does."""
    with scoped_library("devarg_impl", "DEF") as lib:
        lib.define("f(int n) -> int")
        with pytest.raises(UsageError, match="no Tensor argument"):
            polyop.library.impl("devarg_impl::f", types, abs)
        assert not polyop.ops.devarg_impl.f.default.kernels()


def test_kernels_that_calls_reach_by_key_are_not_refused() -> None:
    """S42, S61: a key is reached by `redispatch`, a default kernel by calls, `meta` by fakes."""
    with scoped_library("devarg_keys", "DEF") as lib:
        lib.define("f(int n) -> int")
        for types, n in ("default", 1), ("CPU", 2), ("meta", 3):
            polyop.library.impl("devarg_keys::f", types, lambda _, n=n: n)
        op = polyop.ops.devarg_keys.f.default
        assert op(0) == 1
        assert op.redispatch(DispatchKeySet(DispatchKey.CPU), 0) == 2
        with FakeTensorMode():
            assert op(0) == 3

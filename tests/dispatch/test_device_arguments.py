"""Which argument says on what device a call without tensors runs."""

from __future__ import annotations

import pytest

import polyop
from polyop.dispatch.custom_op import custom_op
from polyop.errors import UsageError

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

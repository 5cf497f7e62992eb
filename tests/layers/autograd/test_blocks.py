"""Blocks that say whether calls are recorded, made with arguments that they do not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop.errors import ArgumentError, UsageTypeError

BLOCKS = ["no_grad", "enable_grad", "inference_mode", "set_grad_enabled"]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("args", "named"), [((1, 2), {}), ((), {"on": True}), ((len, len), {})])
def test_other_arguments_are_told(name: str, args: Any, named: Any) -> None:
    """S1, S140: a block that is called otherwise says how it is, and changes no mode."""
    with pytest.raises(ArgumentError, match=f"{name} takes") as told:
        getattr(polyop, name)(*args, **named)
    assert isinstance(told.value, TypeError)
    assert f"with {name}(" in told.value.fix
    assert polyop.is_grad_enabled()


@pytest.mark.parametrize("name", ["inference_mode", "set_grad_enabled"])
@pytest.mark.parametrize("mode", [0, "False", None, 1.5, polyop.asarray(False)], ids=repr)
def test_what_is_no_bool_turns_nothing_off(name: str, mode: Any) -> None:
    """S1, S140: a number, a text or None might mean either; PyTorch refuses them too."""
    with pytest.raises(UsageTypeError, match="is told by a bool"):
        getattr(polyop, name)(mode)
    assert polyop.is_grad_enabled()


def test_a_mode_is_needed() -> None:
    """S1, S140: `set_grad_enabled()` says so."""
    with pytest.raises(ArgumentError, match="set_grad_enabled takes one bool"):
        polyop.set_grad_enabled()  # type: ignore[call-arg]


def test_bools_of_numpy_are_bools() -> None:
    """S140: what a comparison of arrays gives may be passed on."""
    with polyop.set_grad_enabled(np.float64(1) > 2):
        assert not polyop.is_grad_enabled()
    with polyop.inference_mode(np.float64(1) < 2):
        assert not polyop.is_grad_enabled()

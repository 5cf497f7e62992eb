"""Kernels switched off and on by several at once."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.switch import KernelSwitch
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)


def default(x: Tensor) -> Tensor:
    return of_array(x.numpy() + 1)


def on_cpu(x: Tensor) -> Tensor:
    return of_array(x.numpy() + 10)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Switching to the state that is there warns, which is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def switched() -> Any:
    op = custom_op("switch::op", default, mutates_args=(), replace=True)
    op.register_kernel("cpu", on_cpu)
    return op


def is_on(op: Any) -> bool:
    return bool(op(of_array(ONE)).item() == 11)


def test_blocks_may_overlap() -> None:
    """S52: of two blocks the first to open closes first, and the kernel is off until both are."""
    op = switched()
    first, second = op.set_kernel_enabled("cpu", False), None
    first.__enter__()
    second = op.set_kernel_enabled("cpu", False)
    second.__enter__()
    first.__exit__()
    assert not is_on(op)
    second.__exit__()
    assert is_on(op)


def test_tasks_that_switch_leave_the_kernel_as_it_was() -> None:
    """S52, S98: many tasks with blocks of their own each find the kernel off, and all leave it
    on."""
    op = switched()

    async def work(n: int) -> None:
        await asyncio.sleep(0)
        with op.set_kernel_enabled("cpu", False):
            for _ in range(n % 5):
                assert not is_on(op)
                await asyncio.sleep(0)
            assert not is_on(op)

    async def all_of_them() -> None:
        await asyncio.gather(*(work(n) for n in range(50)))

    asyncio.run(all_of_them())
    assert is_on(op)


def test_a_block_ends_what_was_switched_inside_it() -> None:
    """S52: at the end of a block the state is that before it, whatever was switched inside."""
    op = switched()
    with op.set_kernel_enabled("cpu", False):
        op.set_kernel_enabled("cpu", True)
        assert is_on(op)
        op.set_kernel_enabled("cpu", False)
        assert not is_on(op)
    assert is_on(op)


def test_a_switch_may_be_entered_again() -> None:
    """S52: a switch that is kept switches each time it is entered, inside itself too."""
    op = switched()
    switch = op.set_kernel_enabled("cpu", False)
    for _ in range(2):
        with switch:
            assert not is_on(op)
            with switch:
                pass
            assert not is_on(op)
        assert is_on(op)


def test_switching_for_good_keeps_nothing() -> None:
    """S52: an operator that is switched over and over remembers the last times alone."""
    op = switched()
    for i in range(100):
        op.set_kernel_enabled("cpu", bool(i % 2))
    assert len(op._opoverload.switches) <= 2


@given(st.lists(st.tuples(st.sampled_from(["off", "on", "open off", "open on", "close"]))))
def test_nested_blocks_are_a_stack(acts: list[tuple[str]]) -> None:
    """S52: the state is that of the newest switch; closing the newest block gives back the state
    before it."""
    op = switched()
    states, blocks = [True], []
    for (act,) in acts:
        if act == "close":
            if blocks:
                blocks.pop().__exit__()
                states.pop()
        elif act.startswith("open"):
            block: KernelSwitch = op.set_kernel_enabled("cpu", act.endswith("on"))
            blocks.append(block.__enter__())
            states.append(act.endswith("on"))
        else:
            op.set_kernel_enabled("cpu", act == "on")
            states[-1] = act == "on"
        assert is_on(op) is states[-1]
        assert (DispatchKey.CPU in op._opoverload.disabled) is not states[-1]

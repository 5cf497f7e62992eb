"""The law of axes that an author lets be cut: part of the index law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.checking.law import Case, Verdict, judge, law_named
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.tensor.tensor import Tensor, of_array


def make(kernel: Any, index: str, *names: str) -> CustomOpDef:
    made: CustomOpDef = custom_op(
        f"cuts_law::{kernel.__name__}", kernel, mutates_args=(), index=index, replace=True
    )
    made.register_chunks(*names)
    return made


def verdict(op: CustomOpDef, *shapes: tuple[int, ...]) -> Verdict:
    found = op._opoverload
    args = [of_array(np.linspace(0.5, 2.0, int(np.prod(s))).reshape(s)) for s in shapes]
    return judge(law_named("test_index"), Case(found, sample_of(found, args, {})))


def sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x.numpy()[..., :, None], y.numpy()[..., None, :]
    return of_array(a + b), of_array(np.swapaxes(a * b, -1, -2))


@pytest.mark.parametrize("sizes", [(4, 3), (1, 5), (0, 2)])
def test_a_right_rule_holds(sizes: tuple[int, int]) -> None:
    """S56: an operator of which each part is computed from itself holds the law at every size."""
    op = make(sums, "(m),(n)->(m,n),(n,m)", "m", "n")
    assert verdict(op, (sizes[0],), (sizes[1],)).error is None


def cumulated(x: Tensor) -> Tensor:
    return of_array(np.cumsum(x.numpy(), -1))


def centred(x: Tensor) -> Tensor:
    return of_array(x.numpy() - x.numpy().mean(-1, keepdims=True))


def even(x: Tensor) -> Tensor:
    if x.shape[-1] % 2 and x.shape[-1] not in (1, 7):
        raise ValueError("an even number of elements")
    return of_array(x.numpy() * 2)


@pytest.mark.parametrize("kernel", [cumulated, centred])
def test_a_kernel_that_looks_further_is_found(kernel: Any) -> None:
    """S56: where a part needs what was cut away, the law says which part and axis."""
    told = verdict(make(kernel, "(n)->(n)", "n"), (6,))
    assert told.error is not None
    text = str(told.error)
    assert "of axis n, which register_chunks lets be cut" in text
    assert "take 'n' out of register_chunks" in text and "test_cuts_law.py" in text


def test_a_kernel_that_refuses_a_part_is_found() -> None:
    """S56: a part that the kernel refuses is an error of the law."""
    told = verdict(make(even, "(n)->(n)", "n"), (6,))
    assert told.error is not None and "refuses arguments for 0:3 of axis n" in str(told.error)

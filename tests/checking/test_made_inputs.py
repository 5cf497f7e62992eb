"""The law of fakes at inputs that the sample does not show: flags, numbers, mixed dtypes (S204)."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from polyop.checking.law import LAWS, Case, Verdict, judge
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

_number = count()


def verdict(kernel: Any, fake: Any, *args: Any) -> Verdict:
    op = custom_op(f"made_inputs::f{next(_number)}", kernel, mutates_args=())
    op.register_fake(fake)
    found = op._opoverload
    return judge(LAWS["test_faketensor"], Case(found, sample_of(found, args, {})))


def x(dtype: str = "float64") -> Tensor:
    return of_array(np.arange(12.0).reshape(3, 4).astype(dtype))


def total(x: Tensor, keep: bool) -> Tensor:
    return of_array(np.asarray(x.numpy().sum(-1, keepdims=keep)))


def reduced(x: Tensor, keep: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], *(1,) * keep))


@pytest.mark.parametrize("keep", [False, True])
def test_flags_are_turned_over(keep: bool) -> None:
    """S204: a rule that is right for one value of a flag only is told."""
    fixed = verdict(total, lambda x, flag: reduced(x, keep), x(), keep)
    assert fixed.broken
    assert f"at keep={not keep}" in fixed.reason
    right = verdict(total, reduced, x(), keep)
    assert (right.kind, right.reason) == ("holds", "")


def test_a_flag_that_either_refuses_says_nothing() -> None:
    """S204: a rule may refuse what the kernel takes; that is no silent difference."""

    def fake(x: Tensor, keep: bool) -> Tensor:
        if keep:
            raise NotImplementedError
        return x.new_empty(x.shape[:-1])

    assert verdict(total, fake, x(), False).kind == "holds"


def padded(x: Tensor, k: int) -> Tensor:
    """Give a moving sum; made for odd windows."""
    wide = np.pad(x.numpy(), ((0, 0), (k // 2, k // 2)))
    return of_array(np.stack([wide[:, i : i - k + 1 or None] for i in range(k)]).sum(0))


def test_other_numbers_are_a_note() -> None:
    """S204: the author may have meant some numbers only, so a wrong rule for others is a note."""
    found = verdict(padded, lambda x, k: x.new_empty(x.shape), x(), 3)
    assert found.kind == "holds"
    assert "takes numbers for which the fake rule is wrong" in found.reason
    assert "at k=4" in found.reason


def added(x: Tensor, y: Tensor) -> Tensor:
    return of_array(x.numpy() + y.numpy())


def strict(x: Tensor, y: Tensor) -> Tensor:
    assert x.shape == y.shape
    return added(x, y)


def test_mixed_dtypes_are_a_note() -> None:
    """S204: so it is for arguments of two dtypes; a rule that promotes has no note."""
    given = x("float32"), x("float32")
    found = verdict(strict, lambda x, y: x.new_empty(x.shape), *given)
    assert found.kind == "holds"
    assert "at y of dtype float64" in found.reason
    assert "promote in both" in found.reason
    right = verdict(added, lambda x, y: x + y, *given)
    assert (right.kind, right.reason) == ("holds", "")

"""Writes into tensors with a history, against PyTorch: what is written over has no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop

Program = Callable[[Any, Any], Any]


def assigned(a: Any, xp: Any) -> Any:
    x = a * 1
    x[3:] = 0.0
    return x


def filled_part(a: Any, xp: Any) -> Any:
    x = a * 1
    x[1:3].fill_(2.0)
    return x


def filled_whole(a: Any, xp: Any) -> Any:
    x = a * 1
    x.fill_(3.0)
    return x * a


def zeroed_part(a: Any, xp: Any) -> Any:
    x = a * 1
    x[:2].zero_()
    return x + a * a


def zeroed_whole(a: Any, xp: Any) -> Any:
    x = a * 1
    x.zero_()
    return x + a


def view_of_view(a: Any, xp: Any) -> Any:
    x = (a * 1)[None]
    x[..., 1:4] *= 2.0
    x[..., 4:] = 0.0
    return x[0]


def masked(a: Any, xp: Any) -> Any:
    x = a * 1
    x[xp.asarray([True, False, True, True, False])] = 2.0
    return x * a


def gathered(a: Any, xp: Any) -> Any:
    x = a * 1
    x[xp.asarray([1, 2])] *= 3
    return x * a


def scattered(a: Any, xp: Any) -> Any:
    x = xp.zeros(5, dtype=a.dtype)
    x[1:3] = a[1:3] * a[:2]
    x[xp.asarray([0, 3])] = a[3:]
    x[4] = a[0]
    return x * x


def scattered_into_view(a: Any, xp: Any) -> Any:
    x = xp.zeros((2, 5), dtype=a.dtype)
    row = x[1]
    row[xp.asarray([0, 1])] = a[:2] * 3
    row[2] = 7
    return x * x


def accumulated(a: Any, xp: Any) -> Any:
    x = a * 1
    x.index_put_((xp.asarray([0, 0, 1]),), a[:3], True)
    return x * x


PROGRAMS = [
    assigned, filled_part, filled_whole, zeroed_part, zeroed_whole, view_of_view, masked,
    gathered, scattered, scattered_into_view, accumulated,
]  # fmt: skip
#: These write no new array, and so work at a level too.
AT_LEVELS = [p for p in PROGRAMS if not p.__name__.startswith("scattered")]


def by_backward(program: Program, xp: Any) -> Any:
    a = xp.asarray(np.arange(1.0, 6)).requires_grad_()
    (program(a, xp) * xp.asarray(np.arange(2.0, 7))).sum().backward()
    return np.asarray(a.grad)


def by_func(program: Program, xp: Any) -> Any:
    grad = (polyop if xp is polyop else torch).func.grad
    return np.asarray(grad(lambda a: program(a, xp).sum())(xp.asarray(np.arange(1.0, 6))))


@pytest.mark.parametrize("program", PROGRAMS)
def test_backward_is_torchs(program: Program) -> None:
    """S135: a write has a gradient: what was overwritten gets none, what was written gets it."""
    np.testing.assert_allclose(by_backward(program, polyop), by_backward(program, torch))


@pytest.mark.parametrize("program", AT_LEVELS)
def test_func_grad_is_torchs(program: Program) -> None:
    """S134, S135: the same under `func.grad`."""
    np.testing.assert_allclose(by_func(program, polyop), by_func(program, torch))

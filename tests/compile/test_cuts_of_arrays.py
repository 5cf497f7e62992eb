"""A function that looks at data, and computes with arrays of other libraries (SPEC S211, S212)."""

from __future__ import annotations

from typing import Any

import pytest

import polyop
from polyop import Tensor


def _of_torch(values: list[float]) -> Any:
    return pytest.importorskip("torch").tensor(values)


def _of_jax(values: list[float]) -> Any:
    return pytest.importorskip("jax.numpy").asarray(values)


def _of_dask(values: list[float]) -> Any:
    return pytest.importorskip("dask.array").from_array(polyop.tensor(values).numpy())


@pytest.mark.parametrize("make", [_of_torch, _of_jax, _of_dask])
def test_results_are_of_the_library(make: Any) -> None:
    """S212: what an eager call gives over a library's array, a call in parts gives over one too."""
    outer = polyop.from_array(make([1.0, 2.0, 3.0]))

    def fn(x: Tensor) -> list[Tensor]:
        scale = x.sum().item()
        made = polyop.from_array(make([2.0, 2.0, 2.0]))
        product = outer * x * made
        view = product[1:]
        view.mul_(3)
        inside = (outer * scale).sum().item()
        return [product, view + 1, outer.sum() * inside, x * 2]

    x = polyop.ones(3)
    for found, expected in zip(polyop.compile(fn)(x), fn(x), strict=True):
        assert type(found.payload) is type(expected.payload)
        assert found.keys == expected.keys
        assert (found * 2).tolist() == (expected * 2).tolist()

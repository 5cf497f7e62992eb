"""Operators defined again, reloaded, in two versions: Dask computes the one that is there now."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import pytest

import polyop
from polyop.errors import OperatorGoneError

#: That an operator without an index signature gets whole arrays is no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PolyopWarning")
MODULE = """
import polyop

@polyop.custom_op("dask_reloaded::plus", mutates_args=(), index="(n)->(n)")
def plus(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() + {by})
"""


def ones() -> Any:
    return da.ones(4, chunks=2)


def define(by: int, *, extra: bool = False) -> Any:
    """Define the operator of a cell, as running the cell does."""
    if extra:

        @polyop.custom_op("dask_cells::plus", mutates_args=(), replace=True)
        def plus(x: polyop.Tensor, n: int) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() + n)

        plus.register_fake(lambda x, n: polyop.empty_like(x))
        return plus

    @polyop.custom_op("dask_cells::plus", mutates_args=(), replace=True)
    def plus_one(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() + by)

    plus_one.register_fake(lambda x: polyop.empty_like(x))
    return plus_one


def test_a_cell_run_again() -> None:
    """S44: an operator that is defined anew is the new one; recipes of the former are gone."""
    first = define(1)
    assert first(ones()).compute().tolist() == [2.0] * 4
    held = first(ones())
    second = define(0, extra=True)
    assert second(ones(), 4).compute().tolist() == [5.0] * 4
    with pytest.raises(OperatorGoneError):
        first(ones())
    with pytest.raises(OperatorGoneError):
        held.compute()


def test_a_module_that_is_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S44: reloading a module, and importing it twice, leaves one operator, with the new kernel."""
    path = tmp_path / "dask_reloaded_module.py"
    path.write_text(MODULE.format(by=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module: Any = importlib.import_module("dask_reloaded_module")
    assert importlib.import_module("dask_reloaded_module") is module
    old = module.plus
    assert old(ones()).compute().tolist() == [2.0] * 4
    path.write_text(MODULE.format(by=10))
    importlib.reload(module)
    assert module.plus(ones()).compute().tolist() == [11.0] * 4
    assert old(ones()).compute().tolist() == [11.0] * 4


def test_two_versions_side_by_side() -> None:
    """S29: versions of one name are two operators, in one recipe."""
    made = []
    for version in (1, 2):

        @polyop.custom_op("dask_cells::versioned", mutates_args=(), version=version)
        def op(x: polyop.Tensor, n: int = version) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() * n)

        op.register_fake(lambda x, n=0: polyop.empty_like(x))
        made.append(op)
    both = made[0](ones()) + 10 * made[1](ones())
    assert both.compute().tolist() == [21.0] * 4

"""Operators defined again, reloaded, in two versions: JAX runs the one that is there now."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import polyop
from polyop.errors import OperatorGoneError

X = jnp.ones(3)
MODULE = """
import polyop

@polyop.custom_op("jax_reloaded::plus", mutates_args=())
def plus(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() + {by})

plus.register_fake(lambda x: polyop.empty_like(x))
"""


def define(by: int, *, extra: bool = False) -> Any:
    """Define the operator of a cell, as running the cell does."""
    if extra:

        @polyop.custom_op("jax_cells::plus", mutates_args=(), replace=True)
        def plus(x: polyop.Tensor, n: int) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() + n)

        plus.register_fake(lambda x, n: polyop.empty_like(x))
        return plus

    @polyop.custom_op("jax_cells::plus", mutates_args=(), replace=True)
    def plus_one(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() + by)

    plus_one.register_fake(lambda x: polyop.empty_like(x))
    return plus_one


def test_a_cell_run_again() -> None:
    """S44: an operator that is defined anew is the new one, in eager and in new programs."""
    first = define(1)
    assert first(X).tolist() == jax.jit(first)(X).tolist() == [2.0] * 3
    second = define(5)
    assert second(X).tolist() == jax.jit(lambda x: second(x))(X).tolist() == [6.0] * 3
    third = define(0, extra=True)
    assert third(X, 4).tolist() == jax.jit(lambda x: third(x, 4))(X).tolist() == [5.0] * 3
    for gone in (first, second):
        with pytest.raises(OperatorGoneError):
            gone(X)


def test_the_same_cell_run_again_keeps_its_handles() -> None:
    """S44: the same schema again is the same operator, with the new kernel for old handles too."""

    def cell(by: int) -> Any:
        @polyop.custom_op("jax_cells::same", mutates_args=())
        def same(x: polyop.Tensor) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() + by)

        same.register_fake(lambda x: polyop.empty_like(x))
        return same

    first = cell(1)
    run = jax.jit(lambda x: first(x) * 2)
    assert run(X).tolist() == [4.0] * 3
    second = cell(2)
    assert first(X).tolist() == second(X).tolist() == [3.0] * 3
    assert run(X).tolist() == [6.0] * 3  # compiled before: it calls the operator of the name


def test_a_module_that_is_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S44: reloading a module, and importing it twice, leaves one operator, with the new kernel."""
    path = tmp_path / "jax_reloaded_module.py"
    path.write_text(MODULE.format(by=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module: Any = importlib.import_module("jax_reloaded_module")
    assert importlib.import_module("jax_reloaded_module") is module
    old = module.plus
    assert old(X).tolist() == [2.0] * 3
    path.write_text(MODULE.format(by=10))
    importlib.reload(module)
    assert module.plus(X).tolist() == old(X).tolist() == [11.0] * 3
    assert jax.jit(lambda x: module.plus(x) * 2)(X).tolist() == [22.0] * 3


def test_two_versions_side_by_side() -> None:
    """S29: versions of one name are two primitives, each with its own kernel and shapes."""
    made = []
    for version in (1, 2):

        @polyop.custom_op("jax_cells::versioned", mutates_args=(), version=version)
        def op(x: polyop.Tensor, n: int = version) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() * n)

        op.register_fake(lambda x, n=0: polyop.empty_like(x))
        made.append(op)
    one, two = made
    both = jax.jit(lambda x: (one(x), two(x)))
    assert [y.tolist() for y in both(X)] == [[1.0] * 3, [2.0] * 3]
    assert [op(X).tolist() for op in made] == [[1.0] * 3, [2.0] * 3]


def test_what_is_removed_is_gone() -> None:
    """S41: programs that hold an operator which is gone say so when they call it."""
    lib = polyop.library.Library("jax_gone", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    op = polyop.ops.jax_gone.f.default
    polyop.library.register_kernel(op, None, lambda x: x * 3, lib=lib)
    polyop.library.register_fake(op, lambda x: polyop.empty_like(x), lib=lib)
    assert op(X).tolist() == [3.0] * 3
    lib._destroy()
    with pytest.raises(OperatorGoneError, match="was removed"):
        op(X)
    with pytest.raises(OperatorGoneError, match="was removed"):
        jax.jit(lambda x: op(x))(X)

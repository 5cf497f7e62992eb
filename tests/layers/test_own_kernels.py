"""Kernels at the keys of transforms, under the transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet, after_autograd_keys
from polyop.dispatch.library import Library
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.layers.autograd.transforms import grad
from polyop.layers.vmap import vmap
from polyop.tensor.tensor import Tensor, of_array

Made = tuple[OpOverload, Library, list[str]]


@pytest.fixture
def made() -> Iterator[Made]:
    """An operator that squares, its library, and a list of the kernels that ran."""
    lib, log = Library("own_kernels", "DEF"), []
    lib.define("square(Tensor x) -> Tensor")

    def dense(x: Tensor) -> Tensor:
        log.append("dense")
        return of_array(x.numpy() ** 2)

    lib.impl("square", dense, "CPU")
    yield DEFINITIONS["own_kernels::square"].op, lib, log
    lib.destroy()


def noting(log: list[str], name: str) -> Callable[[Any], Any]:
    def kernel(x: Any) -> Any:
        log.append(name)
        return x * x

    return kernel


X = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "key", ["FuncTorchBatched", "FuncTorchBatchedDecomposition", "FuncTorchVmapMode"]
)
def test_a_kernel_of_vmap_acts(made: Made, key: str) -> None:
    """S80, S88, S100: under vmap the kernel at a key of vmap acts, once for the whole batch."""
    op, lib, log = made
    lib.impl("square", noting(log, key), key)
    np.testing.assert_array_equal(vmap(op)(of_array(X)).numpy(), X * X)
    assert log == [key]
    log.clear()
    np.testing.assert_array_equal(vmap(vmap(op))(of_array(X)).numpy(), X * X)
    assert log == [key]
    log.clear()
    op(of_array(X))
    assert log == ["dense"]


@pytest.mark.parametrize("key", ["Autograd", "AutogradCPU"])
def test_a_kernel_of_autograd_acts(made: Made, key: str) -> None:
    """S80, S100: under grad the kernel at an autograd key acts, and is differentiated through."""
    op, lib, log = made
    lib.impl("square", noting(log, key), key)
    x = of_array(np.array([1.0, 3.0]))
    gradient = grad(lambda x: op(x).sum())(x)
    np.testing.assert_array_equal(gradient.numpy(), [2.0, 6.0])
    second = grad(lambda x: (grad(lambda y: op(y).sum())(x) * x).sum())(x)
    np.testing.assert_array_equal(second.numpy(), [4.0, 12.0])
    assert set(log) == {key}


def test_going_on_below_autograd(made: Made) -> None:
    """S97, S100: below autograd the level is taken off, and the operator called anew."""
    op, lib, log = made

    def kernel(keys: DispatchKeySet, x: Any) -> Any:
        log.append("autograd")
        return op.redispatch(keys & after_autograd_keys, x) + x

    lib.impl("square", kernel, "Autograd", with_keyset=True)
    x = of_array(np.array([1.0, 3.0]))
    # What went on below autograd is a constant; on its way it meets the kernel again.
    gradient = grad(lambda x: op(x).sum())(x)
    np.testing.assert_array_equal(gradient.numpy(), [1.0, 1.0])
    assert log == ["autograd", "autograd", "dense"]
    np.testing.assert_array_equal(op(x).numpy(), [2.0, 12.0])


def test_other_levels_keep_their_ways(made: Made) -> None:
    """S100: a kernel of vmap leaves a gradient to autograd, and the other way round."""
    op, lib, log = made
    polyop.library.register_autograd(
        op, lambda ctx, g: 2 * ctx.saved_tensors[0] * g, setup_context=keep_input
    )
    lib.impl("square", noting(log, "vmap"), "FuncTorchBatched")
    each = vmap(grad(lambda row: op(row).sum()))(of_array(X))
    np.testing.assert_array_equal(each.numpy(), 2 * X)
    whole = grad(lambda x: vmap(op)(x).sum())(of_array(X))
    np.testing.assert_array_equal(whole.numpy(), 2 * X)


def keep_input(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


def test_removal_brings_back_the_levels_way(made: Made) -> None:
    """S107: without its kernel an operator is batched as before, and remembers nothing."""
    op, _, log = made
    over = Library("own_kernels", "IMPL")
    over.impl("square", noting(log, "batched"), DispatchKey.FuncTorchBatched)
    vmap(op)(of_array(X))
    over.destroy()
    log.clear()
    with pytest.warns(polyop.errors.PolyopWarning, match="no vmap rule"):
        vmap(op)(of_array(X))
    assert log == ["dense"] * 3


@pytest.mark.parametrize("rule", ["key", "all three"])
def test_functionalization_runs_the_kernel_at_its_key(made: Made, rule: str) -> None:
    """S80, S110: under func.functionalize the operator's own functionalization acts."""
    op, lib, log = made

    def functionalized(ctx: Any, x: Tensor) -> Any:
        log.append("functionalized")
        with ctx.redispatch_to_next():
            return ctx.wrap_tensors(op(ctx.unwrap_tensors(x)) + 1)

    if rule == "key":
        lib.impl("square", noting(log, "kernel"), "Functionalize")
    else:
        op.py_functionalize_impl(functionalized)

    def f(x: Tensor) -> Any:
        y = x.clone()
        y += 1
        return op(y)

    found = polyop.func.functionalize(f)(of_array(X))
    if rule == "all three":
        assert log == ["functionalized", "dense"]
        np.testing.assert_array_equal(found.numpy(), (X + 1) ** 2 + 1)
        each = vmap(polyop.func.functionalize(f))(of_array(X))
        np.testing.assert_array_equal(each.numpy(), (X + 1) ** 2 + 1)
    else:
        assert log == ["kernel"]


@pytest.mark.parametrize("kind", ["Vmap", "Grad", "Functionalize"])
def test_a_rule_for_a_transform_acts(made: Made, kind: str) -> None:
    """S109: py_impl of a transform acts in it, and `lower` takes it off; others are as before."""
    op, _, log = made

    def rule(interpreter: Any, x: Tensor) -> Tensor:
        log.append(interpreter.key().name)
        with interpreter.lower():
            op(of_array(X))
        return x * 3

    op.py_impl(TransformType[kind])(rule)
    x = of_array(X)
    transforms = {
        "Vmap": lambda: vmap(op)(x),
        "Grad": lambda: grad(lambda x: op(x).sum())(x),
        "Functionalize": lambda: polyop.func.functionalize(op)(x),
    }
    expected = {"Vmap": X * 3, "Grad": np.full_like(X, 3), "Functionalize": X * 3}[kind]
    np.testing.assert_array_equal(transforms[kind]().numpy(), expected)
    assert log == [kind, "dense"]
    np.testing.assert_array_equal(op(x).numpy(), X**2)
    if kind != "Vmap":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the loop, once per operator
            np.testing.assert_array_equal(vmap(op)(x).numpy(), X**2)


@pytest.mark.parametrize("lowered", [True, False])
def test_a_rule_that_took_its_transform_off_does_not_call_itself(made: Made, lowered: bool) -> None:
    """S109: a batched value in `interpreter.lower()` is run by vmap's own way; it ends."""
    op, _, log = made

    def rule(interpreter: Any, x: Tensor) -> Tensor:
        with interpreter.lower():
            return op(x) if lowered else polyop.multiply(x, x)

    op.py_impl(TransformType.Vmap)(rule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the loop
        np.testing.assert_array_equal(vmap(op)(of_array(X)).numpy(), X**2)
    assert bool(log) is lowered

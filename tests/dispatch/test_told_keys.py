"""The key set that a kernel is told: who may act, from itself on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop.dispatch.keyset import DispatchKeySet, after_autograd_keys
from polyop.dispatch.library import Library, fallthrough_kernel
from polyop.graph import make_fx
from polyop.tensor.tensor import Tensor

KEYS = pytest.mark.parametrize(
    "key",
    [
        "CompositeExplicitAutograd",
        "CompositeExplicitAutogradNonFunctional",
        "CompositeImplicitAutograd",
    ],
)


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library with an operator that has no kernels."""
    made = Library("told_keys", "DEF")
    made.define("f(Tensor x) -> Tensor")
    yield made
    made.destroy()


def f(x: Tensor) -> Any:
    return polyop.ops.told_keys.f(x)


def noting(seen: list[Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any) -> Any:
        seen.append(args[0])
        return fn(*args)

    return kernel


def on(keys: DispatchKeySet, x: Tensor) -> Any:
    """Redispatch without the key that acts, as kernels usually do."""
    return polyop.ops.told_keys.f.default.redispatch(keys.remove(keys.highest()), x)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("cast", [False, True])
def test_the_usual_redispatch_runs_a_kernel_once(lib: Library, grad: bool, cast: bool) -> None:
    """S92, S93, S99, S103: keys that fell through, or acted above, are not among the told ones."""
    seen: list[DispatchKeySet] = []
    lib.impl("f", noting(seen, on), "ADInplaceOrView", with_keyset=True)
    lib.impl("f", noting(seen, lambda _, x: x.clone()), "CPU", with_keyset=True)
    with polyop.autocast("cpu", polyop.bfloat16, enabled=cast):
        f(polyop.ones(2, requires_grad=grad))
    assert seen == [DispatchKeySet("ADInplaceOrView", "CPU"), DispatchKeySet("CPU")]


def test_a_kernel_above_autograd_goes_on_through_it(lib: Library) -> None:
    """S99, S103: autograd has still to act after a kernel above it."""
    lib.impl("f", on, "AutocastCPU", with_keyset=True)
    lib.impl("f", lambda x: x.clone(), "CPU")
    polyop.library.register_autograd("told_keys::f", lambda _, g: 3 * g, lib=lib)
    x = polyop.ones(2, requires_grad=True)
    with polyop.autocast("cpu", polyop.bfloat16):
        f(x).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_a_kernel_of_vmap_goes_on_below_it(lib: Library) -> None:
    """S100, S103: the key of its transform is the highest that it is told."""
    seen: list[DispatchKeySet] = []
    lib.impl("f", noting(seen, lambda _, x: x * 2), "FuncTorchBatched", with_keyset=True)
    lib.impl("f", lambda x: x.clone(), "CPU")
    assert polyop.vmap(f)(polyop.ones(2)).tolist() == [2, 2]
    assert [str(keys.highest()) for keys in seen] == ["FuncTorchBatched"]


def test_a_call_on_which_all_keys_fall_through(lib: Library) -> None:
    """S90, S103: the kernel of no key at all is told the empty set."""
    seen: list[Any] = []
    lib.impl("f", fallthrough_kernel, "CPU")
    lib.impl(
        "f", noting(seen, lambda _, x: x.clone()), "CompositeExplicitAutograd", with_keyset=True
    )
    f(polyop.ones(2))
    assert [list(keys) for keys in seen] == [[]]


@KEYS
def test_a_kernel_is_told_the_keys_of_fakes(lib: Library, key: str) -> None:
    """S103, S146: where a kernel answers fakes, it is told a key set on which it may go on."""
    seen: list[Any] = []

    def kernel(keys: DispatchKeySet, x: Tensor) -> Any:
        return polyop.ops.core.multiply.default.redispatch(keys & after_autograd_keys, x, x)

    lib.impl("f", noting(seen, kernel), key, with_keyset=True)
    x = polyop.tensor([2.0, 3.0])
    assert f(x).tolist() == make_fx(f, "fake")(x)(x).tolist() == [4, 9]
    assert f(polyop.ones(2, device="meta")).shape == (2,)
    assert all(isinstance(keys, DispatchKeySet) and keys for keys in seen)


def test_a_meta_kernel_is_told_the_keys_of_fakes(lib: Library) -> None:
    """S103, S146: so is a kernel at Meta."""
    seen: list[Any] = []
    lib.impl("f", noting(seen, lambda _, x: x.clone()), "Meta", with_keyset=True)
    lib.impl("f", lambda x: x.clone(), "CPU")
    make_fx(f, "fake")(polyop.ones(2))
    f(polyop.ones(2, device="meta"))
    assert seen == [DispatchKeySet("Python", "CPU"), DispatchKeySet("Meta")]


def test_a_kernel_for_non_functional_backends_serves_meta(lib: Library) -> None:
    """S81, S85: the kernel that the table names for Meta runs there, and answers fakes."""
    lib.impl("f", lambda x: x.clone(), "CompositeExplicitAutogradNonFunctional")
    x = polyop.ones(2)
    assert f(polyop.ones(2, device="meta")).shape == (2,)
    assert make_fx(f, "fake")(x)(x).tolist() == [1, 1]


def test_a_decomposition_that_falls_through_answers_no_fake(lib: Library) -> None:
    """S93: a fallthrough is no function, on the device meta and in a trace too."""
    lib.impl("f", fallthrough_kernel, "CompositeImplicitAutograd")
    lib.impl("f", lambda x: x.clone(), "CompositeExplicitAutograd")
    x = polyop.ones(2)
    assert f(polyop.ones(2, device="meta")).shape == (2,)
    assert make_fx(f, "fake")(x)(x).tolist() == [1, 1]

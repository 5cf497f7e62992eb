"""What builders may ask: the keys of tensors, of contexts and of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.context import word
from polyop.dispatch.guards import (
    below_autograd,
    enable_python_dispatcher,
    excluded_keys,
    included_keys,
)
from polyop.dispatch.keys import ALIAS_KEYS, AUTOGRAD_KEYS, RUNTIME_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.readers import keys_of, resolve_key
from polyop.dispatch.registry import DEFINITIONS, find_operator
from polyop.errors import (
    AmbiguousKernelError,
    MissingKernelError,
    OperatorGoneError,
    OperatorNotFoundError,
    UsageError,
    UsageTypeError,
)
from polyop.layers.autograd.modes import inference_mode, no_grad
from polyop.layers.autograd.transforms import grad
from polyop.layers.fake import FakeTensorMode
from polyop.layers.vmap import vmap
from polyop.tensor.tensor import Tensor, of_array

K = DispatchKey
PLAIN = DispatchKeySet(["CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU"])


def ones(*, requires_grad: bool = False) -> Tensor:
    made = of_array(np.ones((2, 2)))
    if requires_grad:
        made.requires_grad_()
    return made


def inside(transform: Callable[[Any], Any]) -> DispatchKeySet:
    """The keys of what a transform gives to its function."""
    seen: list[DispatchKeySet] = []

    def look(x: Any) -> Any:
        seen.append(keys_of(x))
        return x.sum()

    transform(look)(ones())
    return seen[0]


def test_keys_of_plain_tensors() -> None:
    """S79: a tensor has its backend's keys, whether or not it requires grad."""
    assert keys_of(ones()) == keys_of(ones(requires_grad=True)) == PLAIN
    with inference_mode():
        assert keys_of(of_array(np.ones(2)) + 1) == DispatchKeySet(["CPU", "AutocastCPU"])


def test_keys_of_other_tensors() -> None:
    """S79: fakes have Python's keys, and values inside transforms those of their wrappers."""
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(ones())
    python = DispatchKeySet(["Python", "PythonTLSSnapshot"])
    assert keys_of(fake) == PLAIN | python
    assert inside(vmap) == PLAIN | DispatchKeySet("FuncTorchBatched")
    assert inside(grad) == PLAIN | DispatchKeySet("FuncTorchGradWrapper")


@pytest.mark.parametrize("thing", [np.ones(2), 3, None, "CPU"])
def test_what_has_no_keys(thing: Any) -> None:
    """S79: only tensors have keys."""
    with pytest.raises(UsageTypeError, match="only tensors have dispatch keys"):
        keys_of(thing)


def test_keys_that_are_on_no_tensor() -> None:
    """S73: some keys are free for extenders: no tensor of polyop's has them, a kernel acts."""
    free = [K.TESTING_ONLY_GenericMode, K.ZeroTensor, K.Negative, K.Conjugate, K.FPGA]
    for keys in (keys_of(ones()), inside(vmap), inside(grad)):
        assert not any(keys.has(key) for key in free)


class Silent(DispatchMode):
    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {}))


def test_keys_of_what_is_active() -> None:
    """S95: a mode, a transform and the Python dispatcher include their keys while they last."""
    before = included_keys()
    with Silent():
        assert included_keys() == before | DispatchKeySet(["Python", "PythonTLSSnapshot"])
    with enable_python_dispatcher():
        assert included_keys() == before | DispatchKeySet("PythonDispatcher")
    seen = []

    def look(x: Any) -> Any:
        seen.append(included_keys())
        return x

    vmap(look)(ones())
    both = ["FuncTorchDynamicLayerFrontMode", "FuncTorchDynamicLayerBackMode"]
    assert seen == [before | DispatchKeySet(both)]
    assert included_keys() == before


def test_grad_modes_and_keys() -> None:
    """S94: `no_grad` changes no set; `inference_mode` takes views out and excludes autograd."""
    sets = included_keys(), excluded_keys()
    with no_grad():
        assert (included_keys(), excluded_keys()) == sets
    with inference_mode():
        assert not included_keys().has("ADInplaceOrView")
        assert excluded_keys() == sets[1] | DispatchKeySet(AUTOGRAD_KEYS)
    assert int(word()) == 0


# -- operators ----------------------------------------------------------------


@pytest.fixture
def lib() -> Iterator[Library]:
    made = Library("readers", "DEF")
    made.define("f(Tensor x, int n=3, *, float s=1.0) -> Tensor")
    yield made
    made.destroy()


def op_f() -> OpOverload:
    return DEFINITIONS["readers::f"].op


def test_the_python_dispatcher_acts_first(lib: Library) -> None:
    """S71, S95: a kernel at PythonDispatcher goes before all others, while it is enabled."""
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy() * n), "CPU")
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy() * 0), "PythonDispatcher")
    assert op_f()(ones()).numpy().sum() == 12
    with enable_python_dispatcher():
        assert op_f()(ones()).numpy().sum() == 0
    assert op_f()(ones()).numpy().sum() == 12


def test_resolve_key_takes_any_form(lib: Library) -> None:
    """S88, S46: `resolve_key` takes a name, a packet or an overload."""
    lib.impl("f", lambda x, n, *, s: x, "CPU")
    lib.impl("f", lambda x, n, *, s: x)
    for form in ("readers::f", op_f(), op_f().packet):
        assert resolve_key(form, "CPU") is K.CPU
        assert resolve_key(form, "CUDA") is K.CompositeImplicitAutograd
    lib.impl("f", lambda x, n, *, s: x, "FPGA")
    with pytest.raises(AmbiguousKernelError):
        resolve_key("readers::f", "AutogradOther")
    with pytest.raises(OperatorNotFoundError):
        resolve_key("readers::nothing", "CPU")
    with pytest.raises(UsageError, match="did you mean 'CPU'"):
        resolve_key("readers::f", "CPUU")


def test_ambiguity_is_met_by_calls_only(lib: Library) -> None:
    """S87: what a mode or a kernel above handles never meets an ambiguous entry."""
    lib.impl("f", lambda x, n, *, s: x * n)
    lib.impl("f", lambda x, n, *, s: x * n, "SparseCPU")
    keys = DispatchKeySet(["AutogradOther", "CPU"])
    with pytest.raises(AmbiguousKernelError, match="SparseCPU"):
        op_f().redispatch(keys, ones())
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy().copy()), "AutocastCPU")
    assert op_f().redispatch(keys.add("AutocastCPU"), ones()).numpy().sum() == 4
    assert op_f()(ones()).numpy().sum() == 12


def test_the_highest_key_or_nothing(lib: Library) -> None:
    """S92, S91: a call goes to its highest key; where nobody serves that, no lower one does."""
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy().copy()), "CPU")
    with pytest.raises(MissingKernelError, match="FPGA") as caught:
        op_f().redispatch(DispatchKeySet(["FPGA", "CPU"]), ones())
    assert "impl('readers::f', \"FPGA\", fn)" in str(caught.value)


def test_below_autograd_means_all_of_it(lib: Library) -> None:
    """S99: once polyop acts at one autograd key, the call goes on below all of them."""
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy().copy()), "CPU")
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy() * 0), "AutogradOther")
    both = DispatchKeySet(["AutogradCPU", "AutogradOther", "CPU"])
    assert op_f().redispatch(both, ones()).numpy().sum() == 4
    only = DispatchKeySet(["AutogradOther", "CPU"]).remove("AutogradCPU")
    assert op_f().redispatch(only.add("AutogradOther"), ones()).numpy().sum() == 0


def test_redispatch_keeps_modes_and_grad_mode(lib: Library) -> None:
    """S103: the keys are those given; a mode among them is met, and no grad mode is kept."""
    lib.impl("f", lambda x, n, *, s: of_array(x.numpy().copy()), "CPU")
    polyop.library.register_autograd("readers::f", lambda ctx, g: (g, None))
    seen: list[Any] = []

    class Notes(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(op)
            return op(*args, **(kwargs or {}))

    x, keys = ones(requires_grad=True), DispatchKeySet(["AutogradCPU", "CPU"])
    with Notes():
        assert op_f().redispatch(keys, x).requires_grad
        assert seen == []
        op_f().redispatch(keys.add("Python"), x)
        assert seen == [op_f()]
    with no_grad():
        assert not op_f().redispatch(keys, x).requires_grad
    with below_autograd():
        assert op_f().redispatch(keys, x).requires_grad
    with pytest.raises(UsageTypeError):
        op_f().redispatch(3, x)  # type: ignore[arg-type]


def test_what_an_operator_says_of_its_kernels(lib: Library) -> None:
    """S61: kernels are asked for by key or name; alias keys do not count among many."""
    lib.impl("f", lambda x, n, *, s: x * n)
    op = op_f()
    assert op.has_kernel_for_dispatch_key("CompositeImplicitAutograd")
    assert not op.has_kernel_for_dispatch_key(K.CPU)
    assert not op.has_kernel_for_any_dispatch_key(DispatchKeySet([*RUNTIME_KEYS, *ALIAS_KEYS]))
    lib.impl("f", lambda x, n, *, s: x * n, "CUDA")
    assert op.has_kernel_for_any_dispatch_key(DispatchKeySet("CUDA"))
    with pytest.raises(UsageError, match="CUDAA"):
        op.has_kernel_for_dispatch_key("CUDAA")


def test_decompose_fills_defaults(lib: Library) -> None:
    """S61, S65: the decomposition sees all arguments, and the keys of each call if it asks."""
    seen: list[Any] = []

    def noting(x: Any, n: int, *, s: float) -> Any:
        seen.append((n, s))
        return of_array(x.numpy() * n)

    def asking(keys: DispatchKeySet, x: Any, n: int, *, s: float) -> Any:
        seen.append(keys.highest())
        return of_array(x.numpy() * n)

    lib.impl("f", noting)
    op_f().decompose(ones())
    op_f().decompose(ones(), s=2)
    op_f().decompose(x=ones(), n=np.int64(5))
    assert seen == [(3, 1.0), (3, 2.0), (5, 1.0)]
    lib.impl("f", asking, with_keyset=True)
    op_f().decompose(ones())
    assert seen[-1] is K.AutogradCPU


def test_what_composite_kernels_mean(lib: Library) -> None:
    """S83: one made of operators is differentiated through them; one for all backends is not."""
    lib.impl("f", lambda x, n, *, s: x * x)
    x: Any = ones(requires_grad=True)
    op_f()(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * np.ones((2, 2)))
    lib.define("g(Tensor x) -> Tensor")
    lib.impl("g", lambda x: of_array(x.numpy() ** 2), "CompositeExplicitAutograd")
    with pytest.raises(NotImplementedError, match="backward"):
        find_operator("readers::g")(ones(requires_grad=True)).sum().backward()


def test_a_fallback_gets_the_keys_first(lib: Library) -> None:
    """S35, S40: with `with_keyset` a fallback gets the key set, then the operator."""
    seen: list[Any] = []

    def fallback(keys: DispatchKeySet, op: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((keys.highest(), op))
        return op.redispatch(keys.remove("Negative"), *args, **kwargs)

    lib.impl("f", lambda x, n, *, s: of_array(x.numpy().copy()), "CPU")
    everyone = Library("_", "IMPL")
    everyone.fallback(fallback, "Negative", with_keyset=True)
    op_f().redispatch(DispatchKeySet(["Negative", "CPU"]), ones())
    everyone.destroy()
    assert seen == [(K.Negative, op_f())]


def test_handles_of_a_removed_operator() -> None:
    """S41: whatever is asked of one, it says that it was removed."""
    lib = Library("readers_gone", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: of_array(x.numpy() * 2), "CPU")
    op = find_operator("readers_gone::f")
    lib.destroy()
    ways: list[Callable[[], Any]] = [
        lambda: op(ones()),
        lambda: op.redispatch(DispatchKeySet(["CPU"]), ones()),
        lambda: op.decompose(ones()),
        lambda: resolve_key(op, "CPU"),
        lambda: op.py_impl(DispatchKey.CPU),
    ]
    for way in ways:
        with pytest.raises(OperatorGoneError, match="readers_gone::f was removed"):
            way()

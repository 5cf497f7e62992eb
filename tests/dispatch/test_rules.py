"""`register_...`, `get_kernel` and autocast: one way in for every slot."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.dispatch.registry_state import refused

import polyop.assembly  # noqa: F401
import polyop.ops.rounding  # noqa: F401
from polyop.dispatch.class_slots import make_slot
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.guards import excluded_keys
from polyop.dispatch.keys import AUTOCAST_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.library_functions import define
from polyop.dispatch.namespaces import ops
from polyop.dispatch.registry import as_operator
from polyop.dispatch.rules import (
    get_kernel,
    register_autocast,
    register_autograd,
    register_dispatch,
    register_fake,
    register_jvp,
    register_kernel,
    register_samples,
    register_vmap,
)
from polyop.errors import (
    ArgumentError,
    DuplicateRegistrationError,
    MissingGradientError,
    MissingKernelError,
    OperatorGoneError,
    OperatorNotFoundError,
    RegistrationError,
    ReturnError,
    UsageError,
    UsageTypeError,
)
from polyop.func import jvp
from polyop.layers.autocast import autocast, autocast_dtype, is_autocast_enabled
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)
DECORATORS = {
    "fake": register_fake,
    "vmap": register_vmap,
    "jvp": register_jvp,
    "kernel": lambda op, fn=None, **k: register_kernel(
        op, "cpu", *(() if fn is None else (fn,)), **k
    ),
    "dispatch": lambda op, fn=None, **k: register_dispatch(op, Tensor, fn, **k),
    "samples": register_samples,
}


def adds(n: float) -> Any:
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + n)

    return kernel


def call(op: Any, x: Any = ONE) -> float:
    return float(op(of_array(x)).item())


def new(name: str) -> Any:
    return custom_op(f"rules::{name}", adds(1), mutates_args=(), replace=True)


@pytest.mark.parametrize("slot", DECORATORS)
@pytest.mark.parametrize("form", ["name", "overload name", "overload", "packet", "def"])
def test_every_form_and_both_ways(slot: str, form: str) -> None:
    """S46: a rule takes an operator in any form, as a call and as a decorator, and is returned."""
    op = new("forms")
    given = {
        "name": "rules::forms",
        "overload name": "rules::forms.default",
        "overload": op._opoverload,
        "packet": ops.rules.forms,
        "def": op,
    }[form]
    register, first, second = DECORATORS[slot], adds(1), adds(2)
    assert register(given, first) is first
    assert register(given)(second) is second
    place = {"kernel": DispatchKey.CPU, "dispatch": make_slot(Tensor)}.get(slot, slot)
    found = op._opoverload.places.top(place)
    assert found is not None and inspect.unwrap(found.fn) is second  # type: ignore[arg-type]
    assert found.source.file == __file__
    assert len([p for p, _ in op._opoverload.places.items() if p == place]) == 1


@pytest.mark.parametrize("slot", [s for s in DECORATORS if s != "samples"])
def test_a_rule_is_a_function(slot: str) -> None:
    """S46: a rule that cannot be called is refused, with the operator and its place."""
    op = new("callable")
    with refused(UsageTypeError, "rules::callable(Tensor x)", "is a function", "3", __file__):
        DECORATORS[slot](op, 3)


@pytest.mark.parametrize("slot", DECORATORS)
def test_of_no_operator(slot: str) -> None:
    """S46: an unknown name, a thing that is no operator, or several overloads, are refused."""
    custom_op("rules::two.a", adds(1), mutates_args=(), replace=True)
    custom_op("rules::two.b", adds(1), mutates_args=(), replace=True)
    register = DECORATORS[slot]
    with refused(OperatorNotFoundError, "rules::nowhere"):
        register("rules::nowhere", adds(1))
    with refused(UsageTypeError, "float", "is no operator"):
        register(2.5, adds(1))
    with refused(UsageTypeError, "several overloads", "a, b"):
        register(ops.rules.two, adds(1))
    with refused(UsageError, "no operator name"):
        register("bare", adds(1))


@pytest.mark.parametrize("slot", DECORATORS)
def test_of_a_removed_operator(slot: str) -> None:
    """S41: a rule for an operator that is gone is refused, also by an old decorator."""
    with scoped_library("rules_gone", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        op = ops.rules_gone.f.default
        late = DECORATORS[slot](op)
    for attempt in (lambda: DECORATORS[slot](op, adds(1)), lambda: late(adds(1))):
        with refused(OperatorGoneError, "rules_gone::f was removed", __file__):
            attempt()


def test_a_librarys_rule_goes_with_it() -> None:
    """S37: rules of a library lie on those of the operator, and go with the library."""
    op = new("stacked")
    first, second = adds(1), adds(2)
    register_fake(op, first)
    with scoped_library("rules", "IMPL") as lib:
        register_fake(op, second, lib=lib)
        assert op._opoverload.rule("fake") is second
    assert op._opoverload.rule("fake") is first


def test_a_fake_may_be_kept() -> None:
    """S37: with `allow_override=False` a second fake is refused and names the first."""
    op = new("kept")
    first = adds(1)
    register_fake(op, first)
    line = f"{__file__}:{first.__code__.co_firstlineno}"
    with refused(DuplicateRegistrationError, "rules::kept", "fake", line):
        register_fake(op, adds(2), allow_override=False)


def test_no_gradient_for_a_writer() -> None:
    """S124: an operator that writes its arguments cannot have a gradient; the error says which."""
    op = custom_op(
        "rules::writes", lambda x: None, mutates_args={"x"}, schema="(Tensor(a!) x) -> ()"
    )
    with refused(RegistrationError, "rules::writes", "writes x", __file__):
        register_autograd(op, adds(1))
    register_autograd(op, None)


def test_each_device_has_its_own_function() -> None:
    """S50: kernels registered in a loop are each their own; None is the default."""
    op = custom_op("rules::loop", adds(0), mutates_args=(), device_types="xpu")
    for n, device in enumerate(["cpu", "cuda"]):
        register_kernel(op, device, adds(n + 1))
    register_kernel(op, None, adds(9))
    sums = {k.name: call(kernel.fn) for k, kernel in op._opoverload.kernels().items()}
    assert sums == {"XPU": 1, "CPU": 2, "CUDA": 3, "CompositeExplicitAutograd": 10}
    assert call(op) == 2


@pytest.mark.parametrize("device", ["gpu", ["cpu", "gpu"], 3])
def test_unknown_devices(device: Any) -> None:
    """S50: an unknown device registers no kernel at all."""
    op = new("devices")
    with refused(UsageError):
        register_kernel(op, device, adds(1))


def test_a_kernel_of_builtins_and_partials() -> None:
    """S46: what has no line of its own is registered at the line of the call."""
    op = new("partial")
    frame = inspect.currentframe()
    register_kernel(op, "cpu", of_array)
    assert frame is not None
    register_kernel(op, "cuda", np.sin)
    assert str(op._opoverload.rule_source(DispatchKey.CUDA)) == f"{__file__}:{frame.f_lineno - 1}"
    register_kernel(op, "cpu", partial(adds(1)))
    assert op._opoverload.rule_source(DispatchKey.CPU).file == __file__


# -- get_kernel ---------------------------------------------------------------


def test_get_kernel_goes_on() -> None:
    """S55: the kernel that acts at a key now, callable after an override too."""
    op = new("get")
    register_kernel(op, "cpu", adds(5))
    kernel = get_kernel(op, "CPU")
    register_kernel(op, "cpu", adds(7))
    assert call(op) == 8 and call(kernel) == 6
    assert call(get_kernel("rules::get", "CUDA")) == 2
    assert kernel.call_boxed(DispatchKeySet(["CPU"]), of_array(ONE)).item() == 6
    assert kernel(x=of_array(ONE)).item() == 6


def test_get_kernel_checks_as_calls_do() -> None:
    """S55, S47: arguments are bound, and results checked."""
    op = new("get_checked")
    kernel = get_kernel(op, DispatchKey.CPU)
    with pytest.raises(ArgumentError, match="misses argument 'x'"):
        kernel()
    register_kernel(op, "cpu", lambda x: None)
    with pytest.raises(ReturnError):
        get_kernel(op, "CPU")(of_array(ONE))


def test_the_keyset_of_a_boxed_call() -> None:
    """S55: a kernel with a key set gets the one that `call_boxed` names."""
    lib = Library("rules_boxed", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    seen: list[Any] = []

    def kernel(keys: Any, x: Tensor) -> Tensor:
        seen.append(keys)
        return of_array(x.numpy() + 1)

    lib.impl("f", kernel, "CPU", with_keyset=True)
    keys = DispatchKeySet(["CPU", "AutogradCPU"])
    get_kernel("rules_boxed::f", "CPU").call_boxed(keys, of_array(ONE))
    assert seen == [keys]


def test_get_kernel_of_nothing() -> None:
    """S55: a bad key, no operator, and no kernel each have their error."""
    op = custom_op("rules::only_cuda", adds(1), mutates_args=(), device_types="cuda")
    with refused(UsageError, "Nope"):
        get_kernel(op, "Nope")
    with refused(OperatorNotFoundError, "rules::nowhere"):
        get_kernel("rules::nowhere", "CPU")
    with refused(MissingKernelError, "rules::only_cuda", "CPU", "CUDA", __file__):
        get_kernel(op, "CPU")


def test_the_kernel_of_a_library_that_is_gone() -> None:
    """S55: when the owner is gone, so is the kernel, and the error has file and line."""
    define("rules::owned", "(Tensor x) -> Tensor")
    lib = Library("rules", "IMPL")
    fn = adds(1)
    lib.impl("owned", fn, "CPU")
    kernel = get_kernel("rules::owned", "CPU")
    assert call(kernel) == 2
    lib.destroy()
    with pytest.raises(OperatorGoneError) as caught:
        call(kernel)
    assert f"{__file__}:{fn.__code__.co_firstlineno}" in str(caught.value)


# -- autocast -----------------------------------------------------------------


def watching(name: str, seen: list[str]) -> Any:
    def kernel(x: Tensor, y: Tensor | None = None, *, zs: list[Tensor], n: int = 0) -> Tensor:
        seen.extend(t.dtype.name for t in [x, y, *zs] if t is not None)
        return of_array(np.zeros(1, x.dtype))

    return custom_op(f"rules::{name}", kernel, mutates_args=(), replace=True)


def of(dtype: str) -> Tensor:
    return of_array(np.ones(1, dtype))


def test_autocast_casts_floating_arguments() -> None:
    """S53, S94: under autocast floating leaves are cast, float64 and integers excepted."""
    seen: list[str] = []
    op = watching("cast", seen)
    register_autocast(op, "cpu", "float16")

    def use() -> list[str]:
        seen.clear()
        op(of("float32"), of("float64"), zs=[of("float32"), of("int32"), of("float16")])
        return list(seen)

    plain = ["float32", "float64", "float32", "int32", "float16"]
    cast = ["float16", "float64", "float16", "int32", "float16"]
    assert use() == plain
    with autocast("cpu"):
        assert use() == cast
        with autocast("cpu", enabled=False):
            assert use() == plain
        assert use() == cast
    with autocast("cuda"):
        assert use() == plain
    assert use() == plain


def test_the_kernel_runs_with_autocast_excluded() -> None:
    """S53: inside the operator autocast is off."""
    inside: list[bool] = []

    def kernel(x: Tensor) -> Tensor:
        inside.append(excluded_keys().has(DispatchKey.AutocastCPU))
        return of_array(x.numpy() + 1)

    op = custom_op("rules::inside", kernel, mutates_args=())
    op.register_autocast("cpu", "float16")
    with autocast("cpu"):
        assert op(of("float32")).dtype == np.float16
        assert not excluded_keys().has(DispatchKey.AutocastCPU)
    assert inside == [True]


def test_a_later_dtype_replaces() -> None:
    """S53: registering again replaces the dtype; a library's goes with the library."""
    seen: list[str] = []
    op = watching("recast", seen)
    register_autocast(op, "cpu", "bfloat16")
    register_autocast(op, "cpu", np.float16)
    with scoped_library("rules", "IMPL") as lib:
        register_autocast(op, "cpu", "bfloat16", lib=lib)
        with autocast("cpu"):
            op(of("float32"), zs=[])
    with autocast("cpu"):
        op(x=of("float32"), zs=[])
    assert seen == ["bfloat16", "float16"]


def test_bad_autocast() -> None:
    """S53: a device type is a string that has autocast, and the cast a dtype."""
    op = new("badcast")
    with refused(UsageTypeError, "device type is a string"):
        register_autocast(op, 3, "float16")  # type: ignore[arg-type]
    with refused(UsageError, "'meta' has no autocast"):
        register_autocast(op, "meta", "float16")
    with refused(UsageTypeError, "no dtype"):
        register_autocast(op, "cpu", "float17")
    for value in ({}, [], (1,), 3.5):
        with refused(UsageTypeError, "not a dtype"):
            register_autocast(op, "cpu", value)
    with refused(UsageError, "meta"):
        autocast("meta")


def test_the_context_of_autocast() -> None:
    """S94: every autocast key is excluded by default; the block lets one in, and restores it."""
    assert all(excluded_keys().has(key) for key in AUTOCAST_KEYS)
    with autocast("cpu", "bfloat16"):
        assert is_autocast_enabled("cpu") and not is_autocast_enabled("cuda")
        assert str(autocast_dtype("cpu")) == "bfloat16"
    assert not is_autocast_enabled("cpu") and autocast_dtype("cpu") is None

    @autocast("cpu")
    def inside() -> bool:
        return is_autocast_enabled("cpu")

    assert inside() and not is_autocast_enabled("cpu")


def test_samples_are_kept_as_given() -> None:
    """S46: samples are a function or a list."""
    op = new("samples")
    register_samples(op, [(1, 2)])
    assert as_operator(op).rule("samples") == [(1, 2)]


def test_a_jvp_is_used_from_its_registration_to_its_end() -> None:
    """S132, S46: forward mode uses the jvp of the library that lives, and forgets it with it."""
    op = new("pushed")
    x, t = of_array(np.ones(2)), of_array(np.array([1.0, 2.0]))
    push = lambda: jvp(op, (x,), (t,))[1].tolist()  # noqa: E731
    with pytest.raises(MissingGradientError, match="neither a jvp nor a backward"):
        push()
    register_jvp(op, lambda ctx, t: t)
    assert push() == [1, 2]
    with scoped_library("rules", "IMPL") as lib:
        register_jvp(op, lambda ctx, t: t * 3, lib=lib)
        assert push() == [3, 6]
    assert push() == [1, 2]

"""Implementations of one operator: kernels by key, rules by mode, subclass and transform."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.guards import exclude_keys
from polyop.dispatch.implementations import (
    TransformType,
    get_cached_ops,
    reset_cached_ops,
)
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.pre_dispatch import (
    len_mode_stack_pre_dispatch,
    pop_mode_pre_dispatch,
    set_mode_pre_dispatch,
)
from polyop.dispatch.table import fallthrough_kernel
from polyop.errors import (
    DuplicateRegistrationError,
    MissingKernelError,
    ModeError,
    OperatorGoneError,
    UsageError,
    UsageTypeError,
)
from polyop.hop import FunctionalTensorMode
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.tensor import Tensor, of_array

ONE = of_array(np.ones(2))


@pytest.fixture
def op() -> Iterator[OpOverload]:
    """An operator with a CPU kernel that adds one."""
    with scoped_library("impls", "DEF") as lib:
        lib.define("f(Tensor x, int n=1) -> Tensor")
        lib.impl("f", lambda x, n=1: x + n, "CPU")
        yield ops.impls.f.default


class Mode(DispatchMode):
    """Goes on."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {})) + 100


# -- kernels ------------------------------------------------------------------


def test_a_kernel_goes_before_the_library_s(op: OpOverload) -> None:
    """S108: a kernel of py_impl acts instead of a Library's, with the arguments of the call."""
    assert op(ONE, 4).tolist() == [5, 5]
    assert op.py_impl(DispatchKey.CPU)(kernel := (lambda x, n=1: x + 10 * n)) is kernel
    assert op(ONE, 4).tolist() == [41, 41]


def test_a_kernel_stays_before_later_ones(op: OpOverload) -> None:
    """S108: also before a Library's that comes later; it goes with none of them."""
    op.py_impl(DispatchKey.CPU)(lambda x, n=1: x * 7)
    later = Library("impls", "FRAGMENT")
    later.impl("f", lambda x, n=1: x * 3, "CPU", allow_override=True)
    assert op(ONE).tolist() == [7, 7]
    later.destroy()
    assert op(ONE).tolist() == [7, 7]


@pytest.mark.parametrize(
    "key", [DispatchKey.CompositeExplicitAutograd, DispatchKey.AutogradCPU, DispatchKey.CUDA]
)
def test_a_kernel_counts(op: OpOverload, key: DispatchKey) -> None:
    """S108: it counts in has_kernel_for_dispatch_key, and in the table, at an alias key too."""
    assert not op.has_kernel_for_dispatch_key(key)
    op.py_impl(key)(lambda x, n=1: x)
    assert op.has_kernel_for_dispatch_key(key) and key in op.kernels()


def test_an_autograd_kernel_acts(op: OpOverload) -> None:
    """S80, S108: a kernel at an autograd key is never skipped."""
    op.py_impl(DispatchKey.AutogradCPU)(lambda x, n=1: x * 9)
    assert op(ONE).tolist() == [9, 9]


def test_a_key_is_taken_once(op: OpOverload) -> None:
    """S108: a key that has one → DuplicateRegistrationError with its place; nothing changes."""
    op.py_impl(DispatchKey.CPU)(lambda x, n=1: x * 2)
    with pytest.raises(DuplicateRegistrationError, match=r"(?s)CPU already.*test_implementations"):
        op.py_impl(DispatchKey.CPU)(lambda x, n=1: x * 3)
    assert op(ONE).tolist() == [2, 2]


@pytest.mark.parametrize("by", [DispatchKey.Python, DispatchKey.Undefined, "CPU", 3, None, int])
def test_no_key(op: OpOverload, by: Any) -> None:
    """S108: the key Python, and what is neither key, mode, subclass nor transform, is refused."""
    with pytest.raises(UsageTypeError, match="impls::f"):
        op.py_impl(by)
    assert not op.python_key_table and not op.py_kernels


def test_no_function(op: OpOverload) -> None:
    """S108: an implementation is a function."""
    with pytest.raises(UsageTypeError, match="is a function"):
        op.py_impl(DispatchKey.CPU)(3)  # type: ignore[type-var]


def test_kernels_go_with_their_operator() -> None:
    """S108, S41: a removed operator takes its kernels along; its name defined anew has none."""
    with scoped_library("impls_gone", "DEF") as lib:
        lib.define("g(Tensor x) -> Tensor")
        old = ops.impls_gone.g.default
        old.py_impl(DispatchKey.CPU)(lambda x: x * 2)
        assert old(ONE).tolist() == [2, 2]
    with pytest.raises(OperatorGoneError):
        old(ONE)
    with scoped_library("impls_gone", "DEF") as lib:
        lib.define("g(Tensor x) -> Tensor")
        with pytest.raises(MissingKernelError):
            ops.impls_gone.g.default(ONE)


# -- rules --------------------------------------------------------------------


def test_a_rule_for_a_mode(op: OpOverload) -> None:
    """S109: a mode's rule is called fn(mode, *args, **kwargs), with the mode off."""
    seen: list[Any] = []

    @op.py_impl(Mode)
    def rule(mode: Mode, x: Tensor, n: int = 1) -> Tensor:
        seen.append(mode)
        return op(x, n) * 2

    assert op.python_key_table == {Mode: rule}
    with Mode() as mode:
        assert op(ONE, 3).tolist() == [8, 8]
    assert seen == [mode]


@pytest.mark.parametrize("by", [Mode, FakeTensorMode, Tracer, *TransformType])
def test_a_rule_is_given_once(op: OpOverload, by: Any) -> None:
    """S109: a second rule for a mode or transform → DuplicateRegistrationError."""
    op.py_impl(by)(lambda *_: 1)
    with pytest.raises(DuplicateRegistrationError, match=getattr(by, "__name__", str(by))):
        op.py_impl(by)(lambda *_: 2)
    assert {**op.python_key_table, **op.functorch_table}[by]() == 1


def test_functionalization_is_three_rules(op: OpOverload) -> None:
    """S110: py_functionalize_impl fills the key, the mode and the transform, all or none."""
    op.py_functionalize_impl(lambda ctx, x, n=1: x)
    assert op.has_kernel_for_dispatch_key(DispatchKey.Functionalize)
    assert [c.__name__ for c in op.python_key_table] == ["FunctionalTensorMode"]
    assert list(op.functorch_table) == [TransformType.Functionalize]


def test_functionalization_is_refused_whole(op: OpOverload) -> None:
    """S110, S4: with one of the three taken, none is registered."""
    op.py_impl(TransformType.Functionalize)(lambda *_: 1)
    with pytest.raises(DuplicateRegistrationError):
        op.py_functionalize_impl(lambda ctx, x, n=1: x)
    assert not op.python_key_table
    assert not op.has_kernel_for_dispatch_key(DispatchKey.Functionalize)


# -- the cache ----------------------------------------------------------------


def test_what_a_key_comes_to_is_kept(op: OpOverload) -> None:
    """S111: _get_dispatch gives the function of py_impl, else the key whose kernel acts."""
    assert op._get_dispatch(DispatchKey.CPU) is DispatchKey.CPU
    assert op._dispatch_cache == {DispatchKey.CPU: DispatchKey.CPU}
    kernel = op.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda x, n=1: x)
    assert op._dispatch_cache == {}, "any registration empties it"
    assert op._get_dispatch(DispatchKey.CUDA) is kernel
    assert op._get_dispatch(DispatchKey.CPU) is DispatchKey.CPU


def test_a_library_s_registration_empties_the_cache(op: OpOverload) -> None:
    """S111: so does a registration of a library, and its end."""
    op._get_dispatch(DispatchKey.CPU)
    other = Library("impls", "FRAGMENT")
    other.impl("f", lambda x, n=1: x, "CUDA")
    assert op._dispatch_cache == {}
    op._get_dispatch(DispatchKey.CUDA)
    other.destroy()
    assert op._dispatch_cache == {}


def test_the_key_python(op: OpOverload) -> None:
    """S111: Python is itself without rules, else a handler that finds the mode at each call."""
    assert op._get_dispatch(DispatchKey.Python) is DispatchKey.Python
    op.py_impl(Mode)(lambda mode, x, n=1: x * 50)
    handler = op._get_dispatch(DispatchKey.Python)
    assert callable(handler) and op._dispatch_cache[DispatchKey.Python] == handler
    with Mode():
        assert handler(ONE).tolist() == [50, 50]

    class Other(Mode):
        """Has no rule of its own; it is the base's."""

    class Another(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return op(*args) * 2

    with Another():
        assert handler(ONE).tolist() == [4, 4]
    with pytest.raises(ModeError, match="none is entered"):
        handler(ONE)


def test_pre_dispatch_is_never_kept(op: OpOverload) -> None:
    """S111: PreDispatch is never cached, neither handler nor kernel."""
    op.py_impl(DispatchKey.PreDispatch)(kernel := lambda x, n=1: x)
    assert op._get_dispatch(DispatchKey.PreDispatch) is kernel
    assert DispatchKey.PreDispatch not in op._dispatch_cache


def test_pre_dispatch_with_a_mode(op: OpOverload) -> None:
    """S111, S116: with a mode on the pre-dispatch stack, a handler that takes it off for a call."""
    op.py_impl(DispatchKey.PreDispatch)(lambda x, n=1: x)
    mode = FunctionalTensorMode()
    op.py_impl(FunctionalTensorMode)(lambda by, x, n=1: (by, len_mode_stack_pre_dispatch()))
    set_mode_pre_dispatch(mode)
    try:
        handler: Any = op._get_dispatch(DispatchKey.PreDispatch)
        assert handler(ONE) == (mode, 0)
        assert len_mode_stack_pre_dispatch() == 1 and op._dispatch_cache == {}
        with exclude_keys(DispatchKey.Python):
            assert op._get_dispatch(DispatchKey.PreDispatch) is not handler
    finally:
        pop_mode_pre_dispatch()
    with pytest.raises(ModeError, match="none is set"):
        handler(ONE)


def test_missing_and_python_s_own_errors(op: OpOverload) -> None:
    """S111, S88: a key that nothing serves → MissingKernelError; nothing is kept."""
    with pytest.raises(MissingKernelError, match="CUDA"):
        op._get_dispatch(DispatchKey.CUDA)
    assert op._dispatch_cache == {}
    with pytest.raises(UsageError):
        op._get_dispatch("nothing")  # type: ignore[arg-type]


def test_cached_operators(op: OpOverload) -> None:
    """S112: get_cached_ops lists who has a filled cache, reset_cached_ops empties them."""
    reset_cached_ops()
    assert get_cached_ops() == set()
    op._get_dispatch(DispatchKey.CPU)
    op._get_dispatch(DispatchKey.Python)
    assert get_cached_ops() == {op}
    op._uncache_dispatch(DispatchKey.CPU)
    assert list(op._dispatch_cache) == [DispatchKey.Python]
    op._uncache_dispatch(DispatchKey.CPU)  # again: nothing to forget
    reset_cached_ops()
    assert op._dispatch_cache == {} and get_cached_ops() == set()


def test_the_list_of_cached_operators_keeps_none_alive() -> None:
    """S112, S41: an operator that nobody holds is not held by the cache."""
    with scoped_library("impls_weak", "DEF") as lib:
        lib.define("g(Tensor x) -> Tensor")
        lib.impl("g", lambda x: x, "CPU")
        ops.impls_weak.g.default._get_dispatch(DispatchKey.CPU)
        assert "impls_weak::g" in {x.name() for x in get_cached_ops()}
    gc.collect()
    assert "impls_weak::g" not in {x.name() for x in get_cached_ops()}


def test_no_tables_until_they_are_asked_for() -> None:
    """S108: an operator without implementations carries no tables."""

    def f(x: Tensor) -> Tensor:
        return x + 1

    made = custom_op("impls_lazy::f", f, mutates_args=())
    made(ONE)
    assert not {"py_kernels", "python_key_table", "functorch_table"} & set(
        vars(ops.impls_lazy.f.default)
    )


def test_a_fallthrough_passes_its_key_over(op: OpOverload) -> None:
    """S108: `py_impl(key)(fallthrough_kernel)` passes the key over, as `Library.impl` does."""
    op.py_impl(DispatchKey.AutogradCPU)(fallthrough_kernel)
    wanted = of_array(np.ones(2)).requires_grad_()
    for x in (ONE, wanted):
        assert op(x, 3).tolist() == [4.0, 4.0]
    assert not op(wanted).requires_grad
    entry = op.table[DispatchKey.AutogradCPU]
    assert entry.kernel is not None and entry.kernel.fallthrough
    assert entry.kernel.source.file == __file__
    assert op._get_dispatch(DispatchKey.AutogradCPU) is DispatchKey.AutogradCPU
    lib = Library("impls", "IMPL", "AutogradCPU")
    lib.impl("f", lambda x, n=1: x * 0)  # of a library, which comes after
    assert op(wanted).tolist() == [2.0, 2.0]
    lib.destroy()


def test_only_keys_are_passed_over(op: OpOverload) -> None:
    """S108: a fallthrough for a mode, a subclass or a transform is refused; nothing is kept."""
    for by in (Mode, TransformType.Vmap):
        with pytest.raises(UsageTypeError, match="passes a dispatch key over"):
            op.py_impl(by)(fallthrough_kernel)
    assert not op.python_key_table and not op.functorch_table
    with Mode():
        assert op(ONE).tolist() == [102.0, 102.0]

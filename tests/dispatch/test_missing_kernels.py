"""What the error of a missing kernel says: who has one, and what could be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyop
from polyop import Tensor, custom_op
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library
from polyop.dispatch.table import resolve_key
from polyop.errors import MissingKernelError, OperatorGoneError
from polyop.hop.operator import HigherOrderOperator

X = polyop.ones(2)


@pytest.fixture
def lib() -> Iterator[Library]:
    lib = Library("missing_kernels", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: x + 1, "CPU")
    yield lib
    lib.destroy()


def test_what_would_serve_undefined_can_be_registered(lib: Library) -> None:
    """S90, S82: no advice to register at Undefined, or at an alias key that contains it."""
    op = polyop.ops.missing_kernels.f.default
    fix = "(?s)empty key set.*fix: +register one at CompositeExplicitAutograd"
    with pytest.raises(MissingKernelError, match=fix):
        resolve_key(op, DispatchKey.Undefined)
    with pytest.raises(MissingKernelError, match=fix):
        op._get_dispatch(DispatchKey.Undefined)
    with pytest.raises(MissingKernelError, match=r"fix: +polyop.library.register_kernel\(.*None"):
        op.redispatch(DispatchKeySet(), X)


def test_a_higher_order_operator_whose_keys_fall_through() -> None:
    """S90, S121: it is told the same."""

    class Passed(HigherOrderOperator):
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x)  # type: ignore[no-any-return]

    op = Passed("missing_kernels_passed")
    op.fallthrough(DispatchKey.CPU)
    op.fallthrough(DispatchKey.AutogradCPU)
    with pytest.raises(MissingKernelError, match="CompositeExplicitAutograd"):
        op(X)


def test_a_disabled_kernel_is_named() -> None:
    """S52: without a default kernel the error says that the one there is disabled."""

    @custom_op("missing_kernels::off", mutates_args=(), device_types="cpu")
    def off(x: Tensor) -> Tensor:
        return x + 1

    with off.set_kernel_enabled("cpu", False):
        with pytest.raises(MissingKernelError, match=r"(?s)disabled.*set_kernel_enabled\('cpu'\)"):
            off(X)
        with pytest.raises(MissingKernelError, match="enable"):
            resolve_key(off._opoverload, DispatchKey.CPU)
    assert resolve_key(off._opoverload, DispatchKey.CPU) is DispatchKey.CPU


def test_a_kernel_for_every_device_counts(lib: Library) -> None:
    """S91: the devices that have a kernel are named, also where one kernel serves them."""
    keys = DispatchKeySet([DispatchKey.TESTING_ONLY_GenericMode])
    with pytest.raises(MissingKernelError, match="kernels for: every device"):
        polyop.ops.core.add.default.redispatch(keys, X, X)
    with pytest.raises(MissingKernelError, match=r"kernels for: cpu\n"):
        polyop.ops.missing_kernels.f.default.redispatch(keys, X)


def test_a_removed_operator_decides_nothing(lib: Library) -> None:
    """S41: `_get_dispatch` of a removed operator says that it was removed."""
    op = polyop.ops.missing_kernels.f.default
    lib.destroy()
    for key in (DispatchKey.CPU, DispatchKey.Python, DispatchKey.PreDispatch):
        with pytest.raises(OperatorGoneError, match="missing_kernels::f was removed"):
            op._get_dispatch(key)

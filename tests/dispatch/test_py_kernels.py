"""`py_kernels` is what acts, not a picture of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import scoped_library
from polyop.dispatch.operator import OpOverload
from polyop.errors import UsageTypeError
from polyop.hop.operator import HigherOrderOperator

X, CPU = polyop.ones(1), DispatchKey.CPU


@pytest.fixture
def op() -> Iterator[OpOverload]:
    with scoped_library("py_kernels", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", lambda x: x + 1, "CPU")
        yield polyop.ops.py_kernels.f.default


def test_a_kernel_that_is_taken_out_acts_no_more(op: OpOverload) -> None:
    """S108: then the kernel of the library acts again."""
    op.py_impl(CPU)(lambda x: x + 10)
    assert op(X).item() == 11 and list(op.py_kernels) == [CPU]
    assert callable(op.py_kernels.pop(CPU))
    assert op(X).item() == 2 and op.py_kernels == {}


def test_a_kernel_that_is_put_in_acts(op: OpOverload) -> None:
    """S108, S4: as if `py_impl` had been given it; what is refused changes nothing."""
    op.py_kernels[CPU] = lambda x: x + 10
    assert op(X).item() == 11
    op.py_kernels[CPU] = lambda x: x + 20
    assert op(X).item() == 21
    with pytest.raises(UsageTypeError):
        op.py_kernels[CPU] = 3  # type: ignore[assignment]
    with pytest.raises(UsageTypeError):
        op.py_kernels[DispatchKey.Python] = abs
    assert op(X).item() == 21 and list(op.py_kernels) == [CPU]


def test_higher_order_operators_too() -> None:
    """S108, S118: a replaced kernel is called from the next call on."""

    class Hop(HigherOrderOperator):
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x)  # type: ignore[no-any-return]

    hop = Hop("py_kernels_hop")
    hop.fallthrough(DispatchKey.AutogradCPU)
    hop.py_impl(CPU)(lambda x: x + 1)
    assert hop(X).item() == 2
    hop.py_kernels[CPU] = lambda x: x + 2
    assert hop(X).item() == 3

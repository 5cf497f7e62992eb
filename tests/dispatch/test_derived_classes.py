"""Rules for classes of modes and tensors are for these classes, not for those derived from them."""

from __future__ import annotations

from typing import Any

import polyop
from polyop import Tensor
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import scoped_library
from polyop.dispatch.modes import DispatchMode
from polyop.hop.operator import HigherOrderOperator
from polyop.library import register_dispatch
from polyop.tensor.subclass import make_wrapper_subclass

X = polyop.ones(2)


class Base(DispatchMode):
    """A mode with rules."""

    supports_higher_order_operators = True

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return polyop.zeros(1)


class Derived(Base):
    """A mode that has its own way with everything."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return polyop.zeros(3)


class Hop(HigherOrderOperator):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x)  # type: ignore[no-any-return]


def test_a_derived_mode_keeps_its_own_way() -> None:
    """S109, S113, S119: as in PyTorch, a rule is for the very class that it is registered for."""
    hop = Hop("derived_classes")
    hop.fallthrough(DispatchKey.AutogradCPU)
    hop.py_impl(Base)(lambda mode, x: polyop.zeros(2))
    with scoped_library("derived_classes", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.define("g(Tensor x) -> Tensor")
        f, g = polyop.ops.derived_classes.f.default, polyop.ops.derived_classes.g.default
        f.py_impl(Base)(lambda mode, x: polyop.zeros(2))
        register_dispatch(g, Base, lambda mode, op, types, args, kwargs: polyop.zeros(2))
        for op in (hop, f, g):
            with Base():
                assert op(X).shape == (2,)
            with Derived():
                assert op(X).shape == (3,)


def test_so_it_is_for_subclasses_of_tensors() -> None:
    """S109, S113: both ways to register mean the same."""

    class Wrap(Tensor):
        @classmethod
        def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return polyop.zeros(3)

    class Inner(Wrap):
        pass

    made = [make_wrapper_subclass(c, (2,), dtype="float32", device="cpu") for c in (Wrap, Inner)]
    with scoped_library("derived_classes", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.define("g(Tensor x) -> Tensor")
        f, g = polyop.ops.derived_classes.f.default, polyop.ops.derived_classes.g.default
        f.py_impl(Wrap)(lambda x: polyop.zeros(2))
        register_dispatch(g, Wrap, lambda cls, op, types, args, kwargs: polyop.zeros(2))
        for op in (f, g):
            assert [op(x).shape for x in made] == [(2,), (3,)]

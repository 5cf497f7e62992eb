"""`polyop.ops`: operators as attributes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from tests.dispatch.registry_state import refused

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.library import scoped_library
from polyop.dispatch.namespaces import ops
from polyop.errors import OperatorGoneError, OperatorNotFoundError
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)


def plus(x: Tensor) -> Tensor:
    return of_array(x.numpy() + 1)


def test_objects_are_made_once() -> None:
    """S58: namespace, packet and overload are the same objects each time."""
    custom_op("names::once", plus, mutates_args=())
    assert ops.names is ops.names
    assert ops.names.once is ops.names.once
    assert ops.names.once.default is ops.names.once.default
    assert ops.names.once.default.overloadpacket is ops.names.once


def test_lists_say_what_exists() -> None:
    """S58: `dir` and iteration list the operators and overloads that there are now."""
    with scoped_library("names_list", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.define("f.out(Tensor x, *, Tensor(a!) out) -> Tensor(a!)")
        lib.define("g(Tensor x) -> Tensor")
        assert list(ops.names_list) == ["f", "g"]
        assert list(ops.names_list.f) == ["default", "out"]
        assert {"f", "g"} <= set(dir(ops.names_list)) and "out" in dir(ops.names_list.f)
        assert "names_list" in list(ops) and "names_list" in dir(ops)
        for shown in (ops, ops.names_list, ops.names_list.f, ops.higher_order):
            assert len(dir(shown)) == len(set(dir(shown)))  # what was read too
    assert list(ops.names_list) == [] and "names_list" not in list(ops)


@pytest.mark.parametrize("name", ["nothing", "__nothing__", "_x"])
def test_unknown_names(name: str) -> None:
    """S58: an unknown operator or overload, with a dunder name too, is not found."""
    custom_op("names::known", plus, mutates_args=())
    for place in (ops.names, ops.names.known):
        with refused(OperatorNotFoundError, name):
            getattr(place, name)
        assert not hasattr(place, name)
    with refused(OperatorNotFoundError, name):
        getattr(ops.higher_order, name)


def test_any_namespace_is_accepted() -> None:
    """S58: a namespace needs no operators."""
    assert list(ops.names_of_nobody) == []


@pytest.mark.parametrize("name", ["name", "__and__", "_private", "caches", "from_"])
def test_operators_of_any_name(name: str) -> None:
    """S58: an operator's name is not shadowed by what a namespace has of its own."""
    custom_op(f"names_any::{name}", plus, mutates_args=())
    assert getattr(ops.names_any, name)(of_array(ONE)).item() == 2


def test_a_removed_name_is_forgotten() -> None:
    """S58, S41: a removed operator is not found; a handle of its packet says that it is gone."""
    with scoped_library("names_gone", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        packet = ops.names_gone.f
    with refused(OperatorNotFoundError, "names_gone::f"):
        ops.names_gone.f  # noqa: B018
    with refused(OperatorGoneError, "names_gone::f was removed", "define it again"):
        packet(of_array(ONE))
    with scoped_library("names_gone", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        assert ops.names_gone.f is not packet


def test_an_overload_added_later_is_seen() -> None:
    """S62: a packet knows overloads that came after it."""
    with scoped_library("names_later", "FRAGMENT") as lib:
        lib.define("f(Tensor x) -> Tensor")
        packet = ops.names_later.f
        lib.define("f.two(Tensor x, Tensor y) -> Tensor")
        assert packet.overloads() == ["default", "two"]
        assert packet.two.name() == "names_later::f.two"


def test_copies_and_pickles() -> None:
    """S59: `ops` and namespaces are themselves when copied or pickled."""
    for thing in (ops, ops.names):
        assert copy.deepcopy(thing) is thing and copy.copy(thing) is thing
        assert pickle.loads(pickle.dumps(thing)) is thing


def test_what_an_operator_says_of_itself() -> None:
    """S59: names, schema, tags and kinds are attributes; `str` and `repr` name the overload."""
    op = custom_op("names::self.over", plus, mutates_args=())._opoverload
    assert op.name() == "names::self.over" and op.__name__ == "self.over"
    assert (op.namespace, op._opname, op._overloadname) == ("names", "self", "over")
    assert str(op) == "names.self.over"
    assert "names.self" in repr(op) and "over" in repr(op)
    assert str(op._schema) == "names::self.over(Tensor x) -> Tensor"
    assert op.overloadpacket is ops.names.self and hash(op) == hash(op)
    assert op._defined_in_python and not op.is_view
    assert op.op(of_array(ONE)).item() == 2
    assert custom_op("names::selfd", plus, mutates_args=())._opoverload.__name__ == "selfd.default"


def test_decompose() -> None:
    """S61: `decompose` runs the CompositeImplicitAutograd kernel, or is NotImplemented."""
    with scoped_library("names_de", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        op: Any = ops.names_de.f.default
        assert op.decompose(of_array(ONE)) is NotImplemented and not op._can_decompose()
        lib.impl("f", plus)
        assert op._can_decompose() and op.decompose(of_array(ONE)).item() == 2


def test_load_library_names_the_path() -> None:
    """S67: a library that cannot be loaded is an OSError with its path."""
    with pytest.raises(OSError, match=r"/no/such/lib\.so"):
        ops.load_library("/no/such/lib.so")
    assert "/no/such/lib.so" not in ops.loaded_libraries


def test_import_module() -> None:
    """S67: `import_module` imports."""
    assert ops.import_module("polyop.errors").PolyopError is OperatorGoneError.__mro__[1]

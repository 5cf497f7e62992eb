"""The names of operator objects, and which overloads a packet can show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import polyop
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library
from polyop.dispatch.operator import OpOverload
from polyop.errors import OperatorNotFoundError, UsageError
from polyop.schema.tags import Tag

X = polyop.ones(2)


@pytest.fixture
def lib() -> Iterator[Library]:
    lib = Library("operator_names", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.define("f.more(Tensor x, int n) -> Tensor", tags=(Tag.pointwise,))
    lib.impl("f", lambda x: x + 1, "CPU")
    yield lib
    lib.destroy()


@pytest.mark.parametrize("name", ["add", "drop", "Tensor", "out"])
def test_an_overload_is_reached_by_its_name(lib: Library, name: str) -> None:
    """S58: no method of the packet stands in its way."""
    lib.define(f"f.{name}(Tensor x, str s) -> Tensor")
    lib.impl(f"f.{name}", lambda x, s: x + 2, "CPU")
    assert getattr(polyop.ops.operator_names.f, name)(X, "s").tolist() == [3.0, 3.0]


@pytest.mark.parametrize("name", ["at", "versions", "explain", "gone", "namespace", "op", "_all"])
def test_an_overload_that_could_not_be_reached_is_refused(lib: Library, name: str) -> None:
    """S58, S4: by name, where it is defined; nothing is left of it."""
    with pytest.raises(UsageError, match=rf"f\.{name} is an attribute of every packet"):
        lib.define(f"f.{name}(Tensor x, str s) -> Tensor")
    assert polyop.ops.operator_names.f.overloads() == ["default", "more"]


def test_names_that_code_for_pytorch_reads(lib: Library) -> None:
    """S58, S59: the attributes of PyTorch's overloads give what they give there."""
    theirs, ours = torch.ops.aten.add.Tensor, polyop.ops.operator_names.f.more
    assert theirs._name == theirs.name() and ours._name == ours.name()
    assert theirs._namespace == theirs.namespace and ours._namespace == ours.namespace
    assert theirs._tags == theirs.tags and ours._tags == ours.tags
    assert theirs._overloadpacket is theirs.overloadpacket
    assert ours._overloadpacket is ours.overloadpacket and ours._op is ours.op
    assert theirs._op is theirs.op and OpOverload.__annotations__ == {}
    packet = ours.overloadpacket
    assert packet.op is packet._op is packet
    assert packet._overload_names == list(packet._schemas) == ["", "more"]
    assert packet._schemas["more"] == ours._schema and packet._dir == packet.overloads()
    assert packet.default._op_dk(DispatchKey.CPU, X).tolist() == [2.0, 2.0]
    with pytest.raises(OperatorNotFoundError, match="get_kernel"):
        _ = ours._handle

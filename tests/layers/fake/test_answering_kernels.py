"""Which kernel answers without data, where an operator has several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.table import resolve_key
from polyop.fake import FakeTensorMode


@pytest.fixture
def lib() -> Iterator[Library]:
    lib = Library("testanswers", "FRAGMENT")
    yield lib
    lib.destroy()


def test_the_kernel_of_the_table_answers_without_data(lib: Library) -> None:
    """S85: on meta and fake tensors too an explicit kernel goes before an implicit one."""
    ran: list[str] = []

    def kernel(name: str) -> Callable[..., Any]:
        return lambda x: (ran.append(name), polyop.empty_like(x))[1]

    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", kernel("explicit"), "CompositeExplicitAutograd")
    lib.impl("f", kernel("implicit"), "CompositeImplicitAutograd")
    op = find_operator("testanswers::f")
    op(polyop.ones(2, device="meta"))
    op(FakeTensorMode().from_tensor(polyop.ones(2)))
    assert ran == ["explicit", "explicit"]
    assert resolve_key(op, DispatchKey.Meta) is DispatchKey.CompositeExplicitAutograd

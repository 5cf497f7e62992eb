"""What the errors about missing rules of higher-order operators advise works (S119)."""

from __future__ import annotations

from typing import Any

import pytest

import polyop
from polyop.dispatch.namespaces import ops
from polyop.errors import CaptureError, MissingKernelError
from polyop.extend import (
    DispatchKey,
    DispatchMode,
    HigherOrderOperator,
    register_higher_order,
)
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx

X = polyop.ones(3)


@pytest.fixture
def hop() -> Any:
    """An operator with an eager rule only."""

    class Thrice(HigherOrderOperator):
        def __call__(self, *args: Any) -> Any:
            return super().__call__(*args)

    made = Thrice("missing_rules")
    made.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda x: x * 3)
    made.fallthrough(DispatchKey.AutogradCPU)
    yield made
    del ops.higher_order.table["missing_rules"]


def test_fakes(hop: Any) -> None:
    """S119, S177: fakes want a fake rule, and the function that registers it is named."""
    fake = FakeTensorMode().from_tensor(X)
    with pytest.raises(MissingKernelError, match="no rule for fakes") as caught:
        hop(fake)
    assert "polyop.library.register_fake(polyop.ops.higher_order.missing_rules, fn)" in (
        caught.value.fix
    )
    polyop.library.register_fake(polyop.ops.higher_order.missing_rules, polyop.empty_like)
    assert hop(fake).shape == (3,)


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_traces(hop: Any, *, pre_dispatch: bool) -> None:
    """S119: traces want what `register_higher_order` makes; no private class is named."""
    with pytest.raises(MissingKernelError, match="no rule for traces") as caught:
        make_fx(hop, pre_dispatch=pre_dispatch)(X)
    assert "polyop.extend.register_higher_order" in caught.value.fix
    made = register_higher_order("missing_rules_made", lambda x: x * 3)
    try:
        traced = make_fx(made, pre_dispatch=pre_dispatch)(X)
        assert polyop.array_equal(traced(X), X * 3)
    finally:
        del ops.higher_order.table["missing_rules_made"]


def test_captures(hop: Any) -> None:
    """S119: `compile` says the same."""
    with pytest.raises(CaptureError) as caught:
        polyop.compile(lambda x: hop(x), fullgraph=True)(X)
    assert "register_higher_order" in str(caught.value.__cause__)


def test_modes(hop: Any) -> None:
    """S119: a user's mode is given a rule as the error says."""

    class Mine(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return op(*args, **(kwargs or {}))

    with pytest.raises(MissingKernelError, match="no rule for the mode Mine") as caught, Mine():
        hop(X)
    assert "higher_order.missing_rules.py_impl(Mine)(rule)" in caught.value.fix
    polyop.ops.higher_order.missing_rules.py_impl(Mine)(lambda mode, x: x + 4)
    with Mine():
        assert polyop.array_equal(hop(X), X + 4)

"""What opcheck and the registration of samples refuse, and how they say so (S201)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import polyop as p
from polyop.checking import opcheck
from polyop.checking.capabilities.matrix import capabilities
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.rules import register_samples
from polyop.errors import UsageTypeError


@pytest.fixture
def op() -> Iterator[Any]:
    @custom_op("refusals::twice", mutates_args=(), replace=True)
    def twice(x: p.Tensor) -> p.Tensor:
        return x + x

    twice.register_fake(lambda x: x.new_empty(x.shape))
    yield twice


@pytest.mark.parametrize("samples", [3.5, "ab", {"x": 1}, p.ones(2)])
def test_samples_are_a_list(op: Any, samples: Any) -> None:
    """S201: what is no list of argument lists is refused when it is registered."""
    with pytest.raises(UsageTypeError, match=r"the samples of refusals::twice[\s\S]*fix: "):
        register_samples(op, samples)


@pytest.mark.parametrize("check", [opcheck, capabilities])
def test_a_function_of_samples_gives_a_list(op: Any, check: Any) -> None:
    """S201: what a function gives is seen when it is called; the function is named."""
    op.samples(lambda: 3.5)
    with pytest.raises(UsageTypeError, match=r"seen: +float\n +where: .*test_refusals.py"):
        check(op)


@pytest.mark.parametrize("kwargs", ["str", 3, [("x", 1)]])
def test_named_arguments_are_a_dict(op: Any, kwargs: Any) -> None:
    """S201: arguments by name are one dict."""
    with pytest.raises(UsageTypeError, match=r"arguments by name as one dict[\s\S]*fix: "):
        opcheck(op, None, kwargs)


def test_samples_of_a_generator_are_kept(op: Any) -> None:
    """S200: an iterator of samples is tried again in the next check."""
    op.samples((p.ones(n),) for n in (2, 3))
    assert opcheck(op)["test_schema"] == "SUCCESS"
    assert opcheck(op)["test_schema"] == "SUCCESS"

"""Operators that need no fake rule, however their kernels were registered (S146)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, library
from polyop.errors import MissingFakeError, PolyopWarning
from polyop.fake import FakeTensorMode
from polyop.schema.tags import Tag

BY_HAND: dict[str, Callable[[str, Any], Any]] = {
    "impl": lambda name, fn: library.impl(name, "CompositeExplicitAutograd", fn),
    "impl default": lambda name, fn: library.impl(name, "default", fn),
    "impl not functional": lambda name, fn: library.impl(
        name, "CompositeExplicitAutogradNonFunctional", fn
    ),
    "kernel": lambda name, fn: library.register_kernel(name, None, fn),
}


@pytest.mark.parametrize("way", BY_HAND)
def test_a_kernel_by_hand_runs_on_fakes_without_a_library(way: str) -> None:
    """S145, S146: what was put at CompositeExplicitAutograd without `lib` answers fakes too."""
    name = f"needless_rules::by_{way.replace(' ', '_')}"
    library.define(name, "(Tensor x) -> Tensor")
    BY_HAND[way](name, lambda x: x.reshape([-1]) * 2)
    with FakeTensorMode():
        found = getattr(polyop.ops.needless_rules, name.rpartition(":")[2])(polyop.ones(2, 3))
    assert found.shape == (6,)


def test_the_function_of_an_operator_does_not_run_on_fakes() -> None:
    """S146: a `custom_op`'s own function looks into data."""

    @polyop.custom_op("needless_rules::own", mutates_args=())
    def own(x: Tensor) -> Tensor:
        return x * 2

    with FakeTensorMode(), pytest.raises(MissingFakeError):
        own(polyop.ones(2))


def define(name: str, tag: Tag, lib: polyop.Library | None) -> Any:
    if tag is Tag.inplace:
        schema, fn = "(Tensor(a!) x) -> Tensor(a!)", lambda x: x
    else:
        schema, fn = "(Tensor x, *, Tensor(a!) out) -> Tensor(a!)", lambda x, *, out: out
    library.define(name, schema, tags=(tag,), lib=lib)
    return fn


@pytest.mark.parametrize("tag", [Tag.inplace, Tag.out])
@pytest.mark.parametrize("way", ["define", "library", "decorated"])
def test_a_rule_of_a_tagged_operator_warns_and_is_used(tag: Tag, way: str) -> None:
    """S146: it gives back what it wrote, with or without a rule; the rule is heard all the same."""
    lib = polyop.Library("needless_rules", "FRAGMENT") if way == "library" else None
    name = f"needless_rules::{tag.name}_{way}"
    fn = define(name, tag, lib)
    calls = []

    def rule(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return fn(*args, **kwargs)

    with pytest.warns(PolyopWarning, match=f"has the tag {tag.name}") as caught:
        if way == "decorated":
            library.register_fake(name)(rule)
        else:
            library.register_fake(name, rule, lib=lib)
    assert [w.filename for w in caught] == [__file__]
    with FakeTensorMode():
        x, out = polyop.ones(2), polyop.ones(2)
        op = getattr(polyop.ops.needless_rules, name.rpartition(":")[2])
        assert (op(x) if tag is Tag.inplace else op(x, out=out)) is (
            x if tag is Tag.inplace else out
        )
    assert calls == [1]

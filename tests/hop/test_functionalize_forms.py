"""The laws of the three forms of a functionalization rule, by an operator that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.errors import UsageError, UsageTypeError
from polyop.extend import DispatchKey, HigherOrderOperator
from polyop.hop import FunctionalizeAPI, FunctionalTensorMode
from polyop.layers.functionalize import FunctionalLevel

NUMBERS = count()


class Into(HigherOrderOperator):
    """Writes `fn(x)` into `x`, and gives the sum of what was there."""

    def __call__(self, fn: Callable[[Any], Any], x: Any) -> Any:
        """Call it."""
        return super().__call__(fn, x)


@pytest.fixture
def into() -> Into:
    hop = Into(f"test_forms_{next(NUMBERS)}")

    @hop.py_impl(DispatchKey.CompositeExplicitAutograd)
    def eager(fn: Any, x: Any) -> Any:
        total = x.sum()
        x.copy_(fn(x))
        return total

    hop.py_autograd_impl(eager)

    @hop.py_functionalize_impl
    def rule(ctx: FunctionalizeAPI, fn: Any, x: Any) -> Any:
        value = ctx.unwrap_tensors(x)
        with ctx.redispatch_to_next():
            total, new = value.sum(), ctx.functionalize(fn)(value.clone())
        ctx.replace(x, new)
        ctx.commit_update(x)
        ctx.sync(x)
        return ctx.wrap_tensors(total)

    return hop


@pytest.fixture
def api() -> Iterator[FunctionalizeAPI]:
    level = FunctionalLevel(copy_views=False)
    yield FunctionalizeAPI(level)
    level.alive = False


def tensor() -> Any:
    return polyop.from_numpy(np.arange(1.0, 5.0))


def writes(x: Any) -> Any:
    return x.mul_(2) + 1


def test_by_the_transform(into: Into) -> None:
    """S110: func.functionalize runs the rule; the written input is written at the end."""

    def f(x: Any) -> Any:
        y = x + 0
        before = into(writes, y[1:3])
        return y, before, into(lambda t: t * 10, x)

    a, b = tensor(), tensor()
    want = [t.numpy().tolist() for t in (*f(a), a)]
    # Eagerly `fn` writes its argument too, which is then written over.
    assert [t.numpy().tolist() for t in (*func.functionalize(f)(b), b)] == want
    assert b._version == 1


def test_at_the_key(into: Into, api: FunctionalizeAPI) -> None:
    """S110: the form at the key finds the functionalization by the tensors; aliases see writes."""
    plain = tensor()
    x = api.wrap_tensors(plain)
    total = into.dispatch(DispatchKey.Functionalize, lambda t: t * 3, x)
    assert api.level.owns(total)
    assert api.unwrap_tensors(total).numpy() == 10
    assert api.unwrap_tensors(x).numpy().tolist() == [3, 6, 9, 12]
    assert plain.numpy().tolist() == [1, 2, 3, 4]


def test_by_the_mode(into: Into) -> None:
    """S110: the form of the mode works on functional tensors of the mode."""
    plain = tensor()
    with FunctionalTensorMode() as mode:
        ctx = FunctionalizeAPI(mode.level)
        x = ctx.wrap_tensors(plain)
        total = into.python_key_table[FunctionalTensorMode](mode, lambda t: t * 3, x)
        assert mode.level.owns(total)
        assert ctx.unwrap_tensors(x).numpy().tolist() == [3, 6, 9, 12]
    assert plain.numpy().tolist() == [1, 2, 3, 4]


def test_one_tensor_is_wrapped_once(api: FunctionalizeAPI) -> None:
    """S169: a tensor that comes twice in a tree is one functional tensor; others stay."""
    x = tensor()
    a, (b, c), n = api.wrap_tensors((x, [x, tensor()], 3))
    assert a is b and a is not c and n == 3
    assert api.wrap_tensors(a) is a
    api.replace(a, x * 2)
    assert api.unwrap_tensors([b])[0].numpy().tolist() == [2, 4, 6, 8]


def test_replacements_are_checked_first(api: FunctionalizeAPI) -> None:
    """S4: a new value that does not fit is refused, and nothing is replaced."""
    a, b = api.wrap_tensors([tensor(), tensor()])
    for new, text in (
        ([tensor() * 2, tensor()[1:]], "shape and the dtype"),
        ([tensor() * 2, tensor().astype("float32")], "shape and the dtype"),
        ([tensor() * 2], "one value"),
    ):
        with pytest.raises(UsageError, match=text):
            api.replace([a, b], new)
    for bad in (tensor(), 3):
        for act in (api.sync, api.commit_update, api.mark_mutation_hidden_from_autograd):
            with pytest.raises(UsageTypeError, match="no functional tensor"):
                act(bad)
    assert api.unwrap_tensors(a).numpy().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
def test_the_option_goes_on(remove: str) -> None:
    """S169: ctx.functionalize removes what the functionalization around it removes."""
    hop = Into(f"test_forms_{next(NUMBERS)}")
    shared: list[bool] = []

    @hop.py_functionalize_impl
    def rule(ctx: FunctionalizeAPI, fn: Any, x: Any) -> Any:
        value = ctx.unwrap_tensors(x)
        with ctx.redispatch_to_next():
            out = ctx.functionalize(fn)(value)
        shared.append(np.shares_memory(out.numpy(), value.numpy()))
        return ctx.wrap_tensors(out)

    func.functionalize(lambda x: hop(lambda t: t[1:], x + 1), remove=remove)(tensor())
    assert shared == [remove == "mutations"]

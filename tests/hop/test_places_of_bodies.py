"""Where a function is written that does not fit its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import associative_scan, cond, scan, while_loop
from polyop.errors import SubgraphError, UsageTypeError
from polyop.layers.trace.make_fx import make_fx


def whole(a: Any, b: Any) -> Any:
    return a, b


def part(a: Any, b: Any) -> Any:
    return a[:1], b + 1


def nothing(a: Any, b: Any = None) -> Any:
    return None


def writes(a: Any, b: Any = None) -> Any:
    a.add_(1)
    return a + 1, a + 1


def view(a: Any, b: Any = None) -> Any:
    return a[:1]


CALLS: dict[str, tuple[Callable[..., Any], list[Callable[..., Any]]]] = {
    "scan": (lambda fn, c, x: scan(fn, c, x), [whole, part, nothing, writes]),
    "associative_scan": (lambda fn, c, x: associative_scan(fn, x, 0), [whole, view, nothing]),
    "map": (lambda fn, c, x: polyop.map(fn, x), [view, writes]),
    "while_loop": (
        lambda fn, c, x: while_loop(lambda c: c.sum() < 9, fn, (c,)), [view, nothing],
    ),
    "cond_fn": (lambda fn, c, x: while_loop(fn, lambda c: (c + 1,), (c,)), [nothing]),
    "cond": (lambda fn, c, x: cond(c.sum() > 0, fn, lambda c: c.sum(), (c,)), [view, writes]),
}  # fmt: skip
CASES = [(name, fn) for name, (_, fns) in CALLS.items() for fn in fns]


@pytest.mark.parametrize(("name", "fn"), CASES, ids=lambda x: getattr(x, "__name__", x))
def test_a_refusal_says_where_the_function_is(name: str, fn: Callable[..., Any]) -> None:
    """S1, S180, S181, S182: the error of a traced call shows the user's line, not one of ours."""
    call = CALLS[name][0]
    with pytest.raises(SubgraphError) as told:
        make_fx(lambda c, x: call(fn, c, x))(polyop.ones(2), polyop.ones((3, 2)))
    line = fn.__code__.co_firstlineno + (fn is writes)  # of a write, the line that does it
    assert told.value.source == f"{__file__}:{line}"


def test_so_does_an_eager_predicate() -> None:
    """S182: what is no predicate shows its function."""
    with pytest.raises(SubgraphError, match="cond_fn") as told:
        while_loop(nothing, lambda c: c + 1, (polyop.ones(2),))
    assert told.value.source == f"{__file__}:{nothing.__code__.co_firstlineno}"


def many(a: Any, b: Any, c: Any) -> Any:
    raise AssertionError("it cannot be called")


@pytest.mark.parametrize("around", ["eager", "trace"])
@pytest.mark.parametrize("name", CALLS)
def test_a_function_with_other_parameters_is_told_so(name: str, around: str) -> None:
    """S1: the error names the function, what it gets and what it takes."""

    def run(c: Any, x: Any) -> Any:
        return CALLS[name][0](many, c, x)

    with pytest.raises(UsageTypeError, match="does not take what it is given") as told:
        (run if around == "eager" else make_fx(run))(polyop.ones(2), polyop.ones((3, 2)))
    assert told.value.seen == "many(a: 'Any', b: 'Any', c: 'Any') -> 'Any'"
    assert told.value.source == f"{__file__}:{many.__code__.co_firstlineno}"


def test_an_author_s_own_type_error_stays() -> None:
    """S1: only the failed call of a function is told."""
    with pytest.raises(TypeError, match="has no len") as told:
        scan(lambda c, x: len(3), polyop.ones(2), polyop.ones((3, 2)))  # type: ignore[arg-type]
    assert not isinstance(told.value, UsageTypeError)

"""Programs with symbolic sizes run for the sizes that they were traced for, and refuse others."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import pytest

import polyop
from polyop.errors import UsageError
from polyop.graph import make_fx

Program = Callable[..., Any]


def ones(*shapes: Any) -> list[Any]:
    return [polyop.ones(s) if isinstance(s, tuple) else s for s in shapes]


#: A function, inputs to trace it on, others that it holds for, and some that it does not.
CASES: dict[str, tuple[Program, list[Any], list[Any], list[Any]]] = {
    "equal": (lambda x, y: polyop.zeros(y.shape[0]), [(3,), (3,)], [(5,), (5,)], [(4,), (5,)]),
    "fixed": (lambda x: polyop.stack(polyop.unstack(x)[::-1]), [(3, 2)], [(3, 7)], [(4, 2)]),
    "branch": (lambda x: x * 2 if x.shape[0] > 4 else x, [(5,)], [(9,)], [(4,)]),
    "one": (lambda x, y: x.reshape(-1) + y, [(1, 4), (4,)], [(1, 3), (3,)], [(2, 3), (6,)]),
    "number": (lambda x, n: polyop.zeros(n) + x.sum(), [(3,), 7], [(4,), 9], [(4,), 1]),
    "strides": (lambda x: x.T.reshape(-1), [(3, 4)], [(5, 6)], [(1, 6)]),
}


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_other_sizes_are_refused(name: str, pre_dispatch: bool) -> None:
    """S150, S209: a program gives what the function gives, or says what its trace relied on."""
    f, first, again, other = CASES[name]
    module: Any = make_fx(f, "symbolic", pre_dispatch=pre_dispatch)(*ones(*first))
    for shapes in (first, again, again):
        found, want = module(*ones(*shapes)), f(*ones(*shapes))
        assert found.tolist() == want.tolist()
    for axes in ((), (2, 3, 4)):
        with pytest.raises(UsageError, match="traced for other sizes"):
            module(polyop.ones(axes), *ones(*first[1:]))
    for program in (module, copy(module)):
        with pytest.raises(UsageError, match=r"traced for other sizes(.|\n)*test_guarded"):
            program(*ones(*other))


def test_strides_are_told_apart() -> None:
    """S150: a guard on strides is asked of the input's."""
    module: Any = make_fx(lambda x: x * 2, "symbolic")(polyop.ones(3, 4).T)
    for x in (polyop.ones(5, 6).T, polyop.ones(5, 6)):
        assert module(x).shape == x.shape


def test_a_guarded_program_inside_another_trace() -> None:
    """S209: fakes with sizes of their own pass; the trace around has guards for them."""
    inner: Any = make_fx(lambda x: x.sum() + x, "symbolic")(polyop.ones(3))
    outer: Any = make_fx(lambda x: inner(x) * 2, "symbolic")(polyop.ones(4))
    x = polyop.arange(5.0)
    assert outer(x).tolist() == ((x.sum() + x) * 2).tolist()


def test_graphs_of_fixed_sizes_are_not_asked() -> None:
    """S209: without symbols there are no guards; broadcasting decides, as in the function."""
    module = make_fx(lambda x: x * 2, "fake")(polyop.ones(3))
    assert module(polyop.ones(1, 4)).shape == (1, 4)

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


def told(f: Program, x: Any) -> Any:
    """Give the result as lists, and the input afterwards; or that it is refused."""
    try:
        return f(x).detach().tolist(), x.detach().tolist()
    except UsageError:
        return "refused"


def with_grad(x: Any) -> Any:
    x.requires_grad_().grad = x.detach() * 1
    return x


#: What may be asked of a tensor besides its size, and inputs with other answers.
ASKING: dict[str, Program] = {
    "dtype": lambda x: x * 2 if x.dtype == polyop.float32 else x * 3,
    "requires_grad": lambda x: x * 2 if x.requires_grad else x * 3,
    "is_leaf": lambda x: x * 2 if (x * 1).is_leaf else x * 3,
    "grad": lambda x: x * 2 if x.grad is None else x * 3,
    "_base": lambda x: x * 2 if x._base is None else x * 3,
    "is_contiguous": lambda x: x * 2 if (x * 1).is_contiguous() else x * 3,
    "stride": lambda x: x * x.stride()[0],
}
KINDS: dict[str, Callable[[], Any]] = {
    "plain": lambda: polyop.ones(4, 3),
    "double": lambda: polyop.ones(4, 3, dtype=polyop.float64),
    "requiring": lambda: polyop.ones(4, 3).requires_grad_(),
    "with a gradient": lambda: with_grad(polyop.ones(4, 3)),
    "computed": lambda: polyop.ones(4, 3).requires_grad_() * 1,
    "view": lambda: polyop.ones(12).reshape(4, 3),
    "transposed": lambda: polyop.ones(3, 4).T,
    "gaps": lambda: polyop.ones(8, 3)[::2],
}


@pytest.mark.parametrize("kind", ["plain", "transposed", "requiring"])
@pytest.mark.parametrize("name", ASKING)
def test_other_answers_are_refused(name: str, kind: str) -> None:
    """S209: a program is for inputs that answer what its function asks as those of the trace."""
    f = ASKING[name]
    module: Any = make_fx(f, "symbolic")(KINDS[kind]())
    for make in KINDS.values():
        found = told(module, make())
        assert found in ("refused", told(f, make()))
    assert kind != "plain" or told(module, polyop.ones(4, 3)) == told(f, polyop.ones(4, 3))


@pytest.mark.parametrize("value", [1.0, 1, "a", None, False])
def test_other_values_are_refused(value: Any) -> None:
    """S209: an argument that is no tensor and no size is part of the program."""
    module: Any = make_fx(lambda x, v: x * 2 if v is True else x, "symbolic")(polyop.ones(3), True)
    assert module(polyop.ones(4), True).tolist() == [2.0] * 4
    with pytest.raises(UsageError, match=r"another kind of input\n  argument: v"):
        module(polyop.ones(4), value)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_contiguous_copies_where_it_must(mode: str) -> None:
    """S209: whether `contiguous` gives its argument or a copy, each run decides."""

    def f(x: Any) -> Any:
        return x.contiguous().add_(1)

    square = polyop.arange(9.0).reshape(3, 3)
    for first, second in ((square, square.T), (square.T, square)):
        module: Any = make_fx(f, mode)(first.clone().T.T)
        for x in (first, second):
            given, wanted = x * 1, x * 1
            assert told(module, given) == told(f, wanted)


def test_what_a_program_asks_is_asked_by_the_trace_around_it() -> None:
    """S209: a guarded program that is traced makes the outer program depend on the same."""
    inner: Any = make_fx(ASKING["requires_grad"], "symbolic")(polyop.ones(3))
    outer: Any = make_fx(lambda x: inner(x) * 2, "symbolic")(polyop.ones(4))
    assert outer(polyop.ones(4)).tolist() == [6.0] * 4
    assert told(outer, polyop.ones(4).requires_grad_()) == "refused"

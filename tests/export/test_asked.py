"""A program is for inputs that answer what its function asks as those of the export (S213)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import polyop as p
from polyop.errors import CaptureError, ProgramFileError, UsageError
from polyop.export import Dim, export, load, save
from polyop.graph import make_fx

Program = Callable[..., Any]

ASKING: dict[str, Program] = {
    "requires_grad": lambda x: x * 2 if x.requires_grad else x * 3,
    "of a result": lambda x: x * 2 if (x * 1).requires_grad else x * 3,
    "is_leaf": lambda x: x * 2 if (x * 1).is_leaf else x * 3,
    "grad_fn": lambda x: x * 2 if (x * 1).grad_fn is None else x * 3,
    "grad": lambda x: x * 2 if x.grad is None else x * 3,
    "_base": lambda x: x * 2 if x._base is None else x * 3,
    "is_contiguous": lambda x: x * 2 if (x * 1).is_contiguous() else x * 3,
    "stride": lambda x: x * x.stride()[0],
}
KINDS: dict[str, Callable[[], Any]] = {
    "plain": lambda: p.ones(4, 3),
    "requiring": lambda: p.ones(4, 3).requires_grad_(),
    "computed": lambda: p.ones(4, 3).requires_grad_() * 1,
    "view": lambda: p.ones(12).reshape(4, 3),
    "transposed": lambda: p.ones(3, 4).T,
    "gaps": lambda: p.ones(8, 3)[::2],
    "wider gaps": lambda: p.ones(12, 3)[::3],
}


def told(f: Program, x: Any) -> Any:
    """Give the result as lists, and the input afterwards; or that it is refused."""
    try:
        return f(x).detach().tolist(), x.detach().tolist()
    except CaptureError:
        return "refused"


@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
@pytest.mark.parametrize("kind", ["plain", "requiring", "transposed", "gaps"])
@pytest.mark.parametrize("name", ASKING)
def test_other_answers_are_refused(name: str, kind: str, saved: bool, tmp_path: Path) -> None:
    """S213: what a function asks of a tensor, its program takes for granted, and checks."""
    f, sample = ASKING[name], KINDS[kind]
    program = export(f, (sample(),))
    if saved:
        save(program, tmp_path / "p")
        program = load(tmp_path / "p")
    module = program.module()
    for make in KINDS.values():
        found = told(module, make())
        assert found in ("refused", told(f, make()))
    assert name == "_base" or told(module, sample()) == told(f, sample())


def test_what_is_not_asked_is_not_checked() -> None:
    """S213: a program of operators runs on inputs of other layouts and histories."""
    module = export(lambda x: x.contiguous().reshape(-1) * 2, (p.ones(4, 3),)).module()
    for make in KINDS.values():
        assert module(make()).tolist() == [2.0] * 12


@pytest.mark.parametrize("dynamic", [False, True])
def test_contiguous_copies_where_it_must(dynamic: bool) -> None:
    """S213: no write reaches an input that the function copies."""

    def f(x: Any) -> Any:
        return x.contiguous().add_(1)

    square = p.arange(9.0).reshape(3, 3)
    dims = {"x": {0: Dim.AUTO, 1: Dim.AUTO}} if dynamic else None
    for first, second in ((square, square.T), (square.T, square)):
        module = export(f, (first * 1,), dynamic_shapes=dims).module()
        assert told(module, first * 1) == told(f, first * 1)
        assert told(module, second * 1) in ("refused", told(f, second * 1))


def test_a_trace_around_a_program_relies_on_the_same() -> None:
    """S209, S213: what runs a program inside asks of its inputs what the program asks."""
    inner = export(ASKING["requires_grad"], (p.ones(3),)).module()
    outer: Any = make_fx(lambda x: inner(x) * 2, "symbolic")(p.ones(3))
    assert outer(p.ones(3)).tolist() == [6.0] * 3
    with pytest.raises(UsageError, match="requires_grad: True"):
        outer(p.ones(3).requires_grad_())


def first_value(d: Any) -> Any:
    return next(iter(d.values())) * 1


@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
def test_another_order_of_keys_is_refused(saved: bool, tmp_path: Path) -> None:
    """S213: a function may see in which order the keys of a dict are."""
    a, b = p.ones(2), p.zeros(2)
    program = export(first_value, ({"b": b, "a": a},))
    if saved:
        save(program, tmp_path / "p")
        program = load(tmp_path / "p")
    assert program.module()({"b": b, "a": a}).tolist() == [0.0, 0.0]
    with pytest.raises(CaptureError, match=r"another order(.|\n)*declared: b, a\n  seen:     a, b"):
        program.module()({"a": a, "b": b})


def test_keyword_arguments_have_no_order() -> None:
    """S213: keyword arguments are bound by name."""
    module = export(lambda *, u, v: u - v, (), {"u": p.ones(2), "v": p.zeros(2)}).module()
    assert module(v=p.ones(2), u=p.zeros(2)).tolist() == [-1.0, -1.0]


def test_a_file_that_asks_for_more_is_refused(tmp_path: Path) -> None:
    """S214: what a program relies on, and this version does not check, is an error by name."""
    program = export(ASKING["requires_grad"], (p.ones(3),))
    inputs = (program.signature.inputs[0]._replace(asked=("colour",)),)
    odd = replace(program, signature=replace(program.signature, inputs=inputs))
    save(odd, tmp_path / "p")
    with pytest.raises(ProgramFileError, match="asks of the input x"):
        load(tmp_path / "p")

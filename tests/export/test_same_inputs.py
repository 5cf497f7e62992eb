"""One tensor given twice, and tensors that share memory: a capture sees what the call sees."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError, UsageError
from polyop.export import export, load, save
from polyop.graph import make_fx
from polyop.objects.identity import compares_identity


def compared(x: Tensor, y: Tensor) -> bool:
    """Compare by identity."""
    return x is y


class Model:
    """Compares in a method that it calls by name."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Multiply."""
        return x * self.factor(x, y)

    def factor(self, x: Tensor, y: Tensor) -> int:
        """Give a number for one tensor, and another for two."""
        return 3 if x is y else 5


COMPARING: dict[str, Callable[..., Any]] = {
    "is": lambda x, y: x * 3 if x is y else x * 5,
    "is not": lambda x, y: x * 5 if x is not y else x * 3,
    "any": lambda x, y: x * 3 if any(t is x for t in [y]) else x * 5,
    "id": lambda x, y: x * 3 if id(x) == id(y) else x * 5,
    "operator": lambda x, y: x * 3 if operator.is_(x, y) else x * 5,
    "another function": lambda x, y: x * 3 if compared(x, y) else x * 5,
    "a method": Model(),
}
OTHER: dict[str, Callable[..., Any]] = {
    "none": lambda x, y=None: x if y is None else x + y,
    "classes": lambda x, y: x * y if type(y) is polyop.Tensor else x,
    "neither": lambda x, y: x @ y,
}
WRITING: dict[str, Callable[..., Any]] = {
    "first": lambda x, y: (x.add_(1), y * 2)[1],
    "both": lambda x, y: (x.add_(1), y.mul_(2), x + y)[2],
    "part": lambda x, y: (x[:1].add_(1), y * 2)[1],
}


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Give tensors that share memory in all ways."""
    x, base = polyop.arange(1.0, 4.0), polyop.arange(1.0, 7.0)
    return {
        "apart": (x * 1, x * 2),
        "same": (a := x * 1, a),
        "a view": (a := x * 1, a[:]),
        "of a view": ((a := x * 1)[:], a),
        "overlapping": ((b := base * 1)[:3], b[1:4]),
        "side by side": ((b := base * 1)[:3], b[3:]),
    }


def told(f: Callable[..., Any], args: tuple[Tensor, Tensor]) -> Any:
    """Give the result, and what became of the arguments; or that it is refused."""
    try:
        return [f(*args).tolist(), *[x.tolist() for x in args]]
    except (CaptureError, UsageError):
        return "refused"


@pytest.mark.parametrize("name", [*COMPARING, *WRITING])
@pytest.mark.parametrize("whole", [False, True])
def test_compile_tells_shared_inputs_apart(name: str, whole: bool) -> None:
    """S211: a program for inputs that share memory, or are one, is for no others."""
    f = (COMPARING | WRITING)[name]
    for first in pairs():
        compiled = polyop.compile(f, fullgraph=whole)
        compiled(*pairs()[first])
        for kind in pairs():
            assert told(compiled, pairs()[kind]) == told(f, pairs()[kind])


@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
@pytest.mark.parametrize("name", [*COMPARING, *WRITING])
def test_programs_refuse_what_their_function_tells_apart(
    name: str, saved: bool, tmp_path: Path
) -> None:
    """S213, S214: a program runs as its function does on inputs that are one, or refuses them."""
    f = (COMPARING | WRITING)[name]
    program = export(f, pairs()["apart"])
    if saved:
        save(program, tmp_path / "p")
        program = load(tmp_path / "p")
    module = program.module()
    for kind in pairs():
        assert told(module, pairs()[kind]) in ("refused", told(f, pairs()[kind]))
    assert told(module, pairs()["same"]) == "refused"
    assert told(module, pairs()["side by side"]) == told(f, pairs()["side by side"])


@pytest.mark.parametrize("name", COMPARING)
def test_traces_refuse_one_tensor_for_two(name: str) -> None:
    """S209: an input of a trace is one tensor; its program says so, if it has guards."""
    f = COMPARING[name]
    for mode in ("real", "fake", "symbolic"):
        with pytest.raises(CaptureError, match="by identity") as caught:
            make_fx(f, mode)(*pairs()["same"])
        assert "another tensor than" in str(caught.value)
    program = make_fx(f, "symbolic")(*pairs()["apart"])
    assert told(program, pairs()["same"]) == "refused"
    assert told(program, pairs()["a view"]) == told(f, pairs()["a view"])


def test_a_trace_around_a_program_tells_them_apart_too() -> None:
    """S209, S213: what runs a program inside relies on what the program relies on."""
    inner = export(COMPARING["is"], pairs()["apart"]).module()
    outer: Any = make_fx(lambda x, y: inner(x, y) * 2, "symbolic")(*pairs()["apart"])
    assert told(outer, pairs()["same"]) == "refused"


@pytest.mark.parametrize("name", OTHER)
def test_other_functions_take_one_tensor_twice(name: str) -> None:
    """S209, S213: comparisons with None and with classes tell no tensors apart."""
    f = OTHER[name]
    assert not compares_identity(f)
    x = polyop.arange(1.0, 4.0)
    assert polyop.allclose(export(f, pairs()["apart"]).module()(x, x), f(x, x))
    for mode in ("real", "fake", "symbolic"):
        assert polyop.allclose(make_fx(f, mode)(x, x)(x, x), f(x, x))

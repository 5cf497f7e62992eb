"""Errors of modes, subclasses and definitions blame who is at fault, and what they advise works."""

from __future__ import annotations

import re
from typing import Any

import pytest

import polyop
from polyop.errors import DuplicateRegistrationError, ModeError, ReturnError
from polyop.extend import DispatchMode, make_subclass

X = polyop.ones(3)


class Answers(DispatchMode):
    """Answers every call with the same thing."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.given


class Three(polyop.Tensor):
    """A class that answers every call with 3."""

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return 3


def line_of(cls: Any) -> str:
    code = getattr(cls.__dispatch__, "__func__", cls.__dispatch__).__code__
    return f"{__file__}:{code.co_firstlineno}"


@pytest.mark.parametrize("given", [None, 3, "a"])
@pytest.mark.parametrize("op", [polyop.sin, polyop.unique_all])
def test_a_mode_s_wrong_answer(op: Any, given: Any) -> None:
    """S1, S48: the mode and the place of its `__dispatch__` are named, not the kernel."""
    with pytest.raises(ReturnError, match="the mode Answers, which answers core::") as caught:
        with Answers(given):
            op(X)
    assert caught.value.source == line_of(Answers)
    assert "kernel" not in str(caught.value)


def test_a_subclass_s_wrong_answer() -> None:
    """S1, S48: so are the class and the place of its `__dispatch__`."""
    made = make_subclass(Three, X)
    with pytest.raises(ReturnError, match="the class Three, which answers core::sin") as caught:
        polyop.sin(made)
    assert caught.value.source == line_of(Three)


def test_a_rule_s_wrong_answer() -> None:
    """S1, S48: a rule of the operator for the mode is named by its own place."""

    def rule(mode: Any, x: Any) -> str:
        return "a"

    with polyop.scoped_library("blame", "FRAGMENT") as lib:
        lib.define("f(Tensor x) -> Tensor")
        polyop.ops.blame.f.default.py_impl(Answers)(rule)
        with pytest.raises(ReturnError, match="mode Answers") as caught, Answers(None):
            polyop.ops.blame.f(X)
    assert caught.value.source == f"{__file__}:{rule.__code__.co_firstlineno}"


def test_a_mode_without_dispatch() -> None:
    """S1, S113: the mode, the operator and the method to define are named."""

    class Bare(DispatchMode):
        """Defines nothing."""

    with pytest.raises(ModeError, match=r"(?s)mode Bare.*core::sin.*define Bare\.__dispatch__"):
        with Bare():
            polyop.sin(X)


def test_a_taken_name() -> None:
    """S1, S34: the call that takes the place of a definition is spelled, and works."""
    with polyop.scoped_library("blame", "FRAGMENT") as lib:
        lib.define("g.two(Tensor x) -> Tensor")
        with pytest.raises(DuplicateRegistrationError) as caught:
            lib.define("g.two(Tensor y, int n=3) -> Tensor")
        found = re.search(r"polyop\.library\.define\((.*?), (.*), replace=True\)", caught.value.fix)
        assert found is not None
        polyop.library.define(found[1].strip("'"), found[2].strip("'"), replace=True)
        schema = polyop.ops.blame.g.two._schema
        assert str(schema) == "blame::g.two(Tensor y, int n=3) -> Tensor"

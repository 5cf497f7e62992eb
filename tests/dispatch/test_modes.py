"""Dispatch modes: who sees a call, in which order, and under which stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.library import scoped_library
from polyop.dispatch.modes import (
    DispatchMode,
    current_dispatch_mode,
    disable_current_modes,
    dispatch_mode_stack,
    is_in_dispatch_mode,
    pop_mode_temporarily,
)
from polyop.dispatch.namespaces import ops
from polyop.errors import ArgumentError, ModeError, ReturnError, UnhandledDispatchError
from polyop.ops.elementwise import add
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)


def f(x: Tensor, n: int = 2, *, m: int = 3, ks: list[int] | None = None) -> Tensor:
    return of_array(x.numpy() * n * m)


op = custom_op("modes::f", f, mutates_args=())


class Log(DispatchMode):
    """Writes down each call with the stack that it saw, and goes on."""

    def __init__(self, log: list[Any] | None = None, name: str = "") -> None:
        self.log: list[Any] = [] if log is None else log
        self.name = name

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.log.append((self.name, op.name(), args[1:], kwargs, dispatch_mode_stack()))
        return op(*args, **(kwargs or {}))


class Declines(DispatchMode):
    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


def test_a_mode_sees_calls_of_its_block() -> None:
    """S161: a mode handles each call in its block, with itself off the stack, and none after."""
    with Log() as log:
        assert op(of_array(ONE)).item() == 6
        add(of_array(ONE), of_array(ONE))
    op(of_array(ONE))
    assert [(entry[1], entry[-1]) for entry in log.log] == [("modes::f", ()), ("core::add", ())]


def test_a_mode_puts_itself_back() -> None:
    """S161: `with self:` inside the handler puts the mode back on the stack."""
    depth: list[int] = []

    class Again(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            depth.append(len(dispatch_mode_stack()))
            if len(depth) < 3:
                with self:
                    return op(*args, **(kwargs or {}))
            return op(*args, **(kwargs or {}))

    with Again():
        assert op(of_array(ONE)).item() == 6
    assert depth == [0, 0, 0]


def test_a_classmethod_is_refused() -> None:
    """S161: a mode is an object, so its handler is no classmethod."""
    with pytest.raises(ModeError, match=r"Bad\.__dispatch__ is a classmethod(.|\n)*fix"):

        class Bad(DispatchMode):
            @classmethod
            def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return None


def test_from_the_innermost_outward() -> None:
    """S162: the innermost mode acts first; what it calls meets the modes around it."""
    log: list[Any] = []
    with Log(log, "outer") as outer, Log(log, "inner"):
        op(of_array(ONE))
    assert [(entry[0], entry[-1]) for entry in log] == [("inner", (outer,)), ("outer", ())]


def test_not_implemented_sends_a_call_on() -> None:
    """S162: a mode that declines hands the call to the next one outward."""
    with Log() as log, Declines():
        assert op(of_array(ONE)).item() == 6
    assert len(log.log) == 1


def test_nobody_handles_it() -> None:
    """S113: when every mode declines, the error names the operator and the modes."""
    with Declines(), Declines(), pytest.raises(UnhandledDispatchError) as caught:
        op(of_array(ONE))
    text = str(caught.value)
    assert "modes::f" in text and "Declines, Declines" in text and __file__ in text


@pytest.mark.parametrize(
    ("args", "kwargs", "seen"),
    [
        ((), {}, ((), {})),
        ((2,), {"m": 3}, ((), {})),
        ((5,), {}, ((5,), {})),
        ((), {"n": 5, "m": 4}, ((5,), {"m": 4})),
        ((), {"ks": (1, 2)}, ((), {"ks": [1, 2]})),
        ((True,), {}, ((1,), {})),
    ],
)
def test_modes_see_the_shortened_form(args: Any, kwargs: Any, seen: Any) -> None:
    """S65: trailing and keyword arguments that equal their defaults are left out."""
    with Log() as log:
        op(of_array(ONE), *args, **kwargs)
    assert (log.log[0][2], log.log[0][3]) == seen


def test_bad_arguments_never_reach_a_mode() -> None:
    """S63, S65: arguments are bound and converted before a mode sees them."""
    with Log() as log, pytest.raises(ArgumentError):
        op(of_array(ONE), "two")
    assert log.log == []


def test_a_mode_sees_calls_without_tensors() -> None:
    """S161: an operator without tensors goes to the mode too."""
    with scoped_library("modes_none", "DEF") as lib:
        lib.define("f(int n) -> int")
        lib.impl("f", lambda n: n + 1, "CompositeExplicitAutograd")
        with Log() as log:
            assert ops.modes_none.f(1) == 2
    assert log.log[0][1] == "modes_none::f"


def test_a_mode_answers_what_the_schema_declares() -> None:
    """S48, S161: what the handler returns is the call's result, if it is of the declared type."""
    answer = of_array(ONE)

    class Answer(DispatchMode):
        given: Any = answer

        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return self.given

    with Answer() as mode:
        assert op(of_array(ONE)) is answer
        for mode.given in ("answer", None, 3, (answer,), [answer], ONE):
            for x in (of_array(ONE), of_array(ONE).requires_grad_()):
                with pytest.raises(ReturnError, match="answers modes::f, returned a wrong type"):
                    op(x)
    assert not answer.requires_grad


def test_an_exception_in_a_handler() -> None:
    """S98: an exception from a handler leaves the stack as it was."""

    class Fails(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise ZeroDivisionError

    before = word()
    with Fails() as mode:
        with pytest.raises(ZeroDivisionError):
            op(of_array(ONE))
        assert dispatch_mode_stack() == (mode,)
    assert word() is before


def test_readers_of_the_stack() -> None:
    """S161: the stack, the innermost mode, and whether there is one, can be read."""
    assert (dispatch_mode_stack(), current_dispatch_mode(), is_in_dispatch_mode()) == (
        (),
        None,
        False,
    )
    with Log() as outer, Log() as inner:
        assert dispatch_mode_stack() == (outer, inner)
        assert current_dispatch_mode() is inner and is_in_dispatch_mode()
        with pop_mode_temporarily() as popped:
            assert popped is inner and dispatch_mode_stack() == (outer,)
        with disable_current_modes() as off:
            assert off == (outer, inner) and not is_in_dispatch_mode()
            op(of_array(ONE))
        assert dispatch_mode_stack() == (outer, inner)
    assert inner.log == []
    with pytest.raises(ModeError, match="no mode to pop"), pop_mode_temporarily():
        pass


def test_leaving_in_the_wrong_order() -> None:
    """S1, S161: it is an error to leave a mode that is not the innermost, and changes nothing."""
    outer, inner = Log(), Log()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(ModeError, match="not the innermost"):
        outer.__exit__(None, None, None)
    assert dispatch_mode_stack() == (outer, inner)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    assert dispatch_mode_stack() == ()


def test_an_error_leaves_modes_in_any_order() -> None:
    """S162: an error passes a block once; after it no mode of that block is on the stack."""
    outer, inner = Log(), Log()
    with pytest.raises(ModeError, match="not the innermost") as told, outer:
        inner.__enter__()
        raise KeyError
    assert isinstance(told.value.__context__, KeyError)
    assert dispatch_mode_stack() == (inner,)
    inner.__exit__(None, None, None)


def test_kernels_meet_no_mode() -> None:
    """S99: what a kernel calls below a mode is not seen by it."""
    with scoped_library("modes_in", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", lambda x: add(x, x), "CompositeExplicitAutograd")
        with Log() as log:
            ops.modes_in.f(of_array(ONE))
    assert [entry[1] for entry in log.log] == ["modes_in::f"]

"""Values that functions in front of operators do not take: the errors are those of operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.modes import DispatchMode
from polyop.errors import ArgumentError, OutOfRangeError, PolyopError, UsageTypeError

Fn = Callable[..., Any]
X = polyop.ones(3, 2)
#: What is called, and what its error names.
WRONG: list[tuple[str, Fn, str]] = [
    ("where", lambda: polyop.where(), "condition"),  # noqa: PLW0108 - a call without arguments
    ("hstack of none", lambda: polyop.hstack([]), "arrays"),
    ("hstack", lambda: polyop.hstack([1, 2]), "arrays"),
    ("vstack", lambda: polyop.vstack(3), "arrays"),
    ("stride", lambda: X.stride(3), "dim"),
    ("ravel", lambda: polyop.ravel([1]), "make it a tensor"),
    ("diff", lambda: polyop.diff([1]), "make it a tensor"),
    ("diff n", lambda: polyop.diff(X, [1, 2]), "argument: n"),
    ("unstack", lambda: polyop.unstack([X, X]), "make it a tensor"),
    ("tensordot", lambda: polyop.tensordot(X, [1]), "x2"),
    ("take", lambda: polyop.take([1], X), "make it a tensor"),
    ("broadcast_arrays", lambda: polyop.broadcast_arrays(X, [1]), "arrays"),
    ("cross", lambda: polyop.linalg.cross(polyop.ones(3), [1]), "argument: b"),
    ("solve", lambda: polyop.linalg.solve(X, "a"), "argument: b"),
    ("matrix_power", lambda: polyop.linalg.matrix_power(7, 2), "make it a tensor"),
    ("fft", lambda: polyop.fft.fft([1.0]), "make it a tensor"),
    ("hfft", lambda: polyop.fft.hfft(X, n=[None]), "argument: n"),
    ("fftn", lambda: polyop.fft.fftn(X, s=["a"]), "argument: s"),
    ("fftshift", lambda: polyop.fft.fftshift([1]), "make it a tensor"),
    ("fftfreq", lambda: polyop.fft.fftfreq("a"), "argument: n"),
    ("flatten", lambda: X.flatten("a"), "start_axis"),
    ("roll", lambda: polyop.roll(X, "a"), "shift"),
    ("split", lambda: polyop.split(X, [1, None]), "split_size_or_sections"),
    ("rand_like", lambda: polyop.rand_like(2), "make it a tensor"),
    ("randint", lambda: polyop.randint(0, 3, object()), "size"),
    ("a negative size", lambda: polyop.rand(-1), "size"),
    ("type_as", lambda: X.type_as([1]), "other"),
    ("pad", lambda: polyop.pad(3, 1), "make it a tensor"),
    ("pad pairs", lambda: polyop.pad(polyop.ones(3), ((1, 2), (3, 4))), "pad_width"),
    ("pad fractions", lambda: polyop.pad(X, 1.5), "pad_width"),
    ("repeat", lambda: polyop.repeat(X, 2.0), "repeats"),
    ("tile", lambda: polyop.tile(X, slice(0)), "repetitions"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "named"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_wrong_value_is_named(call: Fn, named: str) -> None:
    """S63: the error is one of ours, and names the argument and what it should be."""
    with pytest.raises(PolyopError, match=named) as caught:
        call()
    assert isinstance(caught.value, (ArgumentError, OutOfRangeError))


def test_an_error_of_somebody_else_is_not_replaced() -> None:
    """S63: the door speaks of arguments alone; what else fails inside is raised as it is."""

    class Fails(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any, kwargs: Any) -> Any:
            raise AttributeError("of the mode")

    with pytest.raises(AttributeError, match="of the mode"), Fails():
        polyop.ravel(X)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        polyop.split(X)


def test_a_door_changes_no_signature() -> None:
    """S200: what asks for a function's parameters finds those of the function."""
    assert list(inspect.signature(polyop.tensordot).parameters) == ["x1", "x2", "axes"]
    assert "x1: a tensor" in (polyop.tensordot.__doc__ or "")
    assert list(inspect.signature(polyop.split).parameters)[0] == "x"


def test_padding_takes_whatever_broadcasts_to_pairs() -> None:
    """S200: widths are NumPy's, and symbols among them stay what they are."""
    x = np.arange(6.0).reshape(2, 3)
    for width in 1, (1, 2), ((1, 2), (0, 3)), np.int8(2), [[1], [2]]:
        ours = polyop.pad(polyop.asarray(x), width)
        assert np.array_equal(ours.numpy(), np.pad(x, width))


NOT_NUMBERS = [
    np.array(["a"]), np.array([object()]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "V8"),
    np.zeros(2, [("a", "f4")]), np.str_("a"), np.array([1], "m8[s]"),
]  # fmt: skip


@pytest.mark.parametrize("array", NOT_NUMBERS, ids=lambda a: str(a.dtype))
@pytest.mark.parametrize("make", [polyop.asarray, polyop.tensor])
def test_only_numbers_become_tensors(make: Fn, array: Any) -> None:
    """S200: text, objects, times and records are refused by what makes tensors of data."""
    with pytest.raises(UsageTypeError, match="no array of numbers"):
        make(array)


class Failing(DispatchMode):
    """Raises an error of its own."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ValueError("mine")


@pytest.mark.parametrize(
    "call",
    [lambda: polyop.hstack(x for x in [X, X]), lambda: polyop.broadcast_arrays(X, np.ones(2))],
    ids=["generator", "array"],
)
def test_what_somebody_else_raises_stays(call: Fn) -> None:
    """S2: an error that no code of ours met is not about the arguments."""
    call()
    with pytest.raises(ValueError, match=r"^mine$"), Failing():
        call()

"""Every name of the standard is there, and announces the standard's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import pytest
from tests.standard import forms

import polyop as xp


def stated(text: str) -> list[tuple[str, str]]:
    """Read lines of `name(parameters)`."""
    return [(line.partition("(")[0], line) for line in text.split("\n") if line]


def parameters(fn: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(fn).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


def form(line: str) -> list[tuple[str, Any, Any]]:
    """Give the parameters of a line of the standard."""
    scope: dict[str, Any] = {}
    exec(f"def {line}: pass", scope)
    return parameters(scope[line.partition("(")[0]])


CASES = [
    *[("", *case) for case in stated(forms.MAIN)],
    *[("", n, f"{n}(x, /)") for n in forms.OF_ONE.split()],
    *[("", n, f"{n}(x1, x2, /)") for n in forms.OF_TWO.split()],
    *[("linalg", *case) for case in stated(forms.LINALG)],
    *[("fft", *case) for case in stated(forms.FFT)],
]


@pytest.mark.parametrize(("space", "name", "line"), CASES)
def test_functions_have_the_standards_signatures(space: str, name: str, line: str) -> None:
    """Names, kinds and defaults are the standard's; what is ours comes after, with defaults."""
    found = parameters(getattr(getattr(xp, space) if space else xp, name))
    wanted = form(line)
    assert found[: len(wanted)] == wanted
    for _, kind, default in found[len(wanted) :]:
        assert kind is inspect.Parameter.KEYWORD_ONLY
        assert default is not inspect.Parameter.empty


def test_the_table_misses_no_function() -> None:
    """The examination knows every name that the strict implementation of this version has."""
    strict.set_array_api_strict_flags(api_version="2024.12")
    known = {(space, name) for space, name, _ in CASES}
    for space in ("", "linalg", "fft"):
        there = getattr(strict, space) if space else strict
        names = [n for n in there.__all__ if "strict_flags" not in n]
        functions = {n for n in names if inspect.isfunction(getattr(there, n))}
        assert {(space, n) for n in functions - {"broadcast_shapes", "isin"}} <= known  # of 2025
    strict.reset_array_api_strict_flags()


@pytest.mark.parametrize(("name", "line"), stated(forms.METHODS))
def test_methods_have_the_standards_signatures(name: str, line: str) -> None:
    """A method of a tensor takes what the standard's takes; positional-only names are free."""
    found, wanted = parameters(getattr(xp.ones(2), name)), form(line)
    assert [p[1:] for p in found] == [p[1:] for p in wanted]
    named = [p[0] for p in wanted if p[1] is not inspect.Parameter.POSITIONAL_ONLY]
    assert [p[0] for p in found if p[1] is not inspect.Parameter.POSITIONAL_ONLY] == named


@pytest.mark.parametrize("prefix", ["", "r", "i"])
@pytest.mark.parametrize("name", forms.ARITHMETIC.split())
def test_operators_take_one_operand_by_position(prefix: str, name: str) -> None:
    """Operators, those of the right operand and those in place have `(other, /)`."""
    (only,) = inspect.signature(getattr(xp.ones(2), f"__{prefix}{name}__")).parameters.values()
    assert only.kind is inspect.Parameter.POSITIONAL_ONLY


@pytest.mark.parametrize("name", forms.COMPARISONS.split())
def test_comparisons_take_one_operand_by_position(name: str) -> None:
    """Comparisons have `(other, /)`."""
    (only,) = inspect.signature(getattr(xp.ones(2), f"__{name}__")).parameters.values()
    assert only.kind is inspect.Parameter.POSITIONAL_ONLY


def test_attributes_constants_and_dtypes_are_there() -> None:
    """Arrays have the standard's attributes; the namespace its constants and dtypes."""
    assert all(hasattr(xp.ones((2, 2)), name) for name in forms.ATTRIBUTES.split())
    assert all(hasattr(xp, name) for name in forms.DTYPES.split())
    assert xp.newaxis is None
    assert xp.nan != xp.nan
    assert (type(xp.pi), type(xp.e), xp.inf) == (float, float, float("inf"))


@pytest.mark.parametrize(("name", "line"), stated(forms.INFO))
def test_the_inspection_has_the_standards_signatures(name: str, line: str) -> None:
    """So has what `__array_namespace_info__` gives."""
    assert parameters(getattr(xp.__array_namespace_info__(), name)) == form(line)


def test_a_signature_can_be_changed_and_compared() -> None:
    """What is announced is a whole `Signature`: it is bound, replaced, compared and shown."""
    found = inspect.signature(xp.sum)
    assert found.bind(1, axis=0).arguments == {"x": 1, "axis": 0}
    assert found.replace(parameters=[]) == inspect.Signature()
    assert found == inspect.signature(lambda x, /, *, axis=None, dtype=None, keepdims=False: x)
    assert str(found) == "(x, /, *, axis=None, dtype=None, keepdims=False)"
    assert not hasattr(found, "nonsense")


def test_more_is_accepted_than_announced() -> None:
    """Calls in PyTorch's manner go on working: sizes one by one, tensors by name."""
    assert xp.zeros(2, 3).shape == xp.zeros(shape=(2, 3)).shape == (2, 3)
    assert xp.squeeze(xp.ones((1, 2))).shape == (2,)
    assert xp.flip(xp.arange(2), 0).tolist() == [1, 0]

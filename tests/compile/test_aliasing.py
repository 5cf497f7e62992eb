"""Compiled code checks what custom operators give back for undeclared aliasing (S175)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.library import Library, scoped_library
from polyop.errors import AliasError, PolyopWarning, UsageError, UsageTypeError
from polyop.tensor.tensor import Tensor, of_array


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("aliasing_tests", "DEF") as made:
        yield made


def values() -> Tensor:
    return of_array(np.arange(6.0).reshape(2, 3))


def fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def two(x: Tensor) -> Any:
    return fake(x), fake(x)


def some(x: Tensor) -> Any:
    return [fake(x), fake(x)]


def same_twice(x: Tensor) -> Any:
    made = of_array(x.numpy() * 2)
    return made, of_array(made.numpy()[:])


#: Schema, kernel, fake: each gives back memory that its schema says is new.
SHARING: dict[str, tuple[str, Any, Any]] = {
    "itself": ("(Tensor x) -> Tensor", lambda x: x, fake),
    "view": ("(Tensor x) -> Tensor", lambda x: of_array(x.numpy()[...]), fake),
    "each_other": ("(Tensor x) -> (Tensor, Tensor)", same_twice, two),
    "list": ("(Tensor x) -> Tensor[]", lambda x: [of_array(x.numpy() * 1), x], some),
    "list_each_other": ("(Tensor x) -> Tensor[]", lambda x: [*same_twice(x)], some),
    "first_and_input": ("(Tensor x) -> (Tensor, Tensor)", lambda x: (x, x), two),
}


def make(lib: Library, name: str) -> Any:
    signature, kernel, rule = SHARING[name]
    lib.define(f"{name}{signature}")
    lib.impl(name, kernel, "CompositeExplicitAutograd")
    polyop.library.register_fake(f"aliasing_tests::{name}", rule, lib=lib)
    op = getattr(polyop.ops.aliasing_tests, name)

    def f(x: Tensor) -> Any:
        found = op(x * 1)
        return list(found) if isinstance(found, (list, tuple)) else [found]

    return op, f


@pytest.mark.parametrize("name", SHARING)
def test_compiled_code_warns_once_and_gives_a_copy(lib: Library, name: str) -> None:
    """S175: by default a warning names operator, line and fix, and results share nothing."""
    op, f = make(lib, name)
    compiled = polyop.compile(f, fullgraph=True)
    with pytest.raises(AliasError):
        op(values())
    with pytest.warns(PolyopWarning, match=f"of aliasing_tests::{name} shares storage") as caught:
        found = compiled(values())
    assert __file__ in str(caught[0].message) and "return a copy" in str(caught[0].message)
    assert caught[0].filename == __file__
    for i, t in enumerate(found):
        assert not any(np.shares_memory(t.numpy(), u.numpy()) for u in found[:i])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in compiled(values()):
            again.add_(1)
    wanted = SHARING[name][1](values())
    for a, b in zip(found, wanted if len(found) > 1 else [wanted], strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("name", SHARING)
def test_an_option_makes_it_an_error(lib: Library, name: str) -> None:
    """S175: with `error_on_custom_op_aliasing` it is an AliasError, as in an eager call."""
    _, f = make(lib, name)
    for options in ({}, {"check_custom_op_aliasing": False}):
        compiled = polyop.compile(f, options={"error_on_custom_op_aliasing": True, **options})
        with pytest.raises(AliasError, match=f"aliasing_tests::{name} shares storage"):
            compiled(values())


def test_an_option_leaves_the_check_out(lib: Library) -> None:
    """S175: without `check_custom_op_aliasing` the kernel's own memory is given back, unsaid."""
    _, f = make(lib, "itself")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = polyop.compile(f, options={"check_custom_op_aliasing": False})(values())
    assert np.array_equal(found.numpy(), values().numpy())


def test_the_check_is_for_the_program_alone(lib: Library) -> None:
    """S175: after a compiled call an eager one raises again, in backward programs too."""
    op, f = make(lib, "view")
    polyop.library.register_autograd("aliasing_tests::view", lambda ctx, g: op(g * 3), lib=lib)
    x = values().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        polyop.compile(f, fullgraph=True)(x)[0].sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full((2, 3), 3.0))
    with pytest.raises(AliasError):
        op(values())


def test_declared_aliases_are_left_alone(lib: Library) -> None:
    """S175: a declared view is a view in compiled code too, and no warning is given."""
    lib.define("rows(Tensor(a) x) -> Tensor(a)")
    lib.impl("rows", lambda x: of_array(x.numpy()[:1]), "CompositeExplicitAutograd")
    polyop.library.register_fake("aliasing_tests::rows", lambda x: x[:1], lib=lib)
    op = polyop.ops.aliasing_tests.rows
    x = values()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = polyop.compile(lambda x: op(x), fullgraph=True)(x)
    assert np.shares_memory(found.numpy(), x.numpy())


def test_options_are_checked() -> None:
    """S175: a misspelt option, and one that is no bool, are errors before any call."""
    with pytest.raises(UsageError, match="did you mean 'check_custom_op_aliasing'"):
        polyop.compile(values, options={"check_custom_op_alias": True})
    with pytest.raises(UsageTypeError, match="'error_on_custom_op_aliasing' is True or False"):
        polyop.compile(values, options={"error_on_custom_op_aliasing": "yes"})

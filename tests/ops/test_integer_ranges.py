"""Numbers that a dtype does not hold are refused by name, and nothing is changed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import array_api_strict
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop.errors import IntegerRangeError
from polyop.func import vmap

BYTES = polyop.asarray([1, 2], dtype=polyop.uint8)
REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "add": (lambda: BYTES + 300, "b (position 1)", "an integer from 0 to 255"),
    "from the left": (lambda: 300 - BYTES, "a (position 0)", "an integer from 0 to 255"),
    "negative": (lambda: polyop.maximum(BYTES, -1), "b (position 1)", "an integer from 0 to 255"),
    "signed": (
        lambda: polyop.asarray([1], dtype=polyop.int8) * 1000,
        "b (position 1)",
        "an integer from -128 to 127",
    ),
    "where": (
        lambda: polyop.where(BYTES > 1, BYTES, -1),
        "b (position 2)",
        "an integer from 0 to 255",
    ),
    "in place": (lambda: BYTES.add_(300), "b (position 1)", "an integer from 0 to 255"),
    "batched": (
        lambda: vmap(lambda x: x + 300)(BYTES),
        "b (position 1)",
        "an integer from 0 to 255",
    ),
    "full": (
        lambda: polyop.full(2, 300, dtype=polyop.int8),
        "value (position 1)",
        "an integer from -128 to 127",
    ),
    "full without a dtype": (
        lambda: polyop.full(1, np.uint64(2**63)),
        "value (position 1)",
        f"an integer from {-(2**63)} to {2**63 - 1}",
    ),
    "beside truth values": (
        lambda: polyop.asarray([True]) + np.uint64(2**63),
        "b (position 1)",
        f"an integer from {-(2**63)} to {2**63 - 1}",
    ),
    "full_like": (
        lambda: polyop.full_like(polyop.ones(2), 300, dtype=polyop.int8),
        "fill_value (position 1)",
        "an integer from -128 to 127",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_outside_of_a_dtype(name: str) -> None:
    """S1: the error names operator, argument, range and number, and is an `OverflowError` too."""
    call, argument, declared = REFUSED[name]
    with pytest.raises(IntegerRangeError) as caught:
        call()
    assert isinstance(caught.value, OverflowError)
    words = str(caught.value)
    assert f"argument: {argument}" in words
    assert f"declared: {declared}" in words
    assert BYTES.tolist() == [1, 2]


@pytest.mark.parametrize("make", [polyop.asarray, polyop.tensor])
@pytest.mark.parametrize("data", [[300], -1, [[2**70]]])
def test_data_outside_of_a_dtype(make: Callable[..., Any], data: Any) -> None:
    """S1: so it is where a tensor is made of numbers."""
    with pytest.raises(IntegerRangeError, match="an integer is outside uint8"):
        make(data, dtype=polyop.uint8)


def test_numbers_at_the_ends() -> None:
    """S64: the least and the greatest integer of a dtype pass."""
    assert (BYTES * 0 + 255).tolist() == [255, 255]
    small = polyop.asarray([0], dtype=polyop.int8)
    assert ((small + 127).tolist(), (small + -128).tolist()) == ([127], [-128])
    assert (BYTES == 300).tolist() == [False, False]
    assert polyop.clip(BYTES, -5, 300).tolist() == [1, 2]


SMALL = np.array([1, 2, 3], dtype="i1")
LIBRARIES: dict[str, Callable[[], Any]] = {
    "numpy": lambda: polyop.from_numpy(SMALL.copy()),
    "torch": lambda: polyop.from_array(torch.tensor(SMALL)),
    "jax": lambda: polyop.from_array(jnp.asarray(SMALL)),
    "strict": lambda: polyop.from_array(array_api_strict.asarray(SMALL)),
    "dask": lambda: polyop.from_array(da.from_array(SMALL)),
}
PAYLOADS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "add": (lambda x: x + 200, "core::add", "b (position 1)"),
    "from the left": (lambda x: 200 - x, "core::subtract", "a (position 0)"),
    "in place": (lambda x: x.mul_(-200), "core::multiply_", "b (position 1)"),
    "where": (lambda x: polyop.where(x > 1, x, 200), "core::where", "b (position 2)"),
    "fill": (lambda x: x.fill_(200), "core::fill_", "value (position 1)"),
    "slice": (lambda x: operator.setitem(x, slice(2), 200), "core::fill_", "value (position 1)"),
    "mask": (lambda x: operator.setitem(x, x > 2, 1000), "core::index_put_", "values"),
    "list": (lambda x: operator.setitem(x, [0, 1], [2**70, 1]), "core::index_put_", "values"),
    "part": (lambda x: operator.setitem(x, slice(2), [1, 200]), "core::copy_", "values"),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_numbers_outside_of_a_dtype_on_every_payload(library: str, name: str) -> None:
    """S1: the error is the same over each library, comes at once, and nothing is written."""
    call, op, argument = PAYLOADS[name]
    x = LIBRARIES[library]()
    with pytest.raises(IntegerRangeError, match=op) as caught:
        call(x)
    assert f"argument: {argument}" in str(caught.value)
    assert x.tolist() == [1, 2, 3]

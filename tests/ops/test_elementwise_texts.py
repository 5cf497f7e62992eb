"""Gradient texts mean the same on tensors as on bare arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.ops.formulas import overloads

import polyop.assembly  # noqa: F401
from polyop.ops.define import ON_ARRAYS, ON_TENSORS
from polyop.tensor.tensor import Tensor, of_array

TEXTS = [
    (op, name)
    for op in overloads()
    if op.rule("formula") is not None
    for name in op.rule("formula").text
]
STATIC = {"Scalar": 0.5, "Scalar?": 0.5, "int": 0, "float": 1.5, "SymInt[]": [4]}


def bare(value: Any) -> Any:
    return value.payload if isinstance(value, Tensor) else value


@pytest.mark.parametrize(("op", "name"), TEXTS, ids=[f"{o.name()}-{n}" for o, n in TEXTS])
def test_a_text_gives_the_same_on_tensors(op: Any, name: str) -> None:
    """Both readings of a gradient's text give equal values, and equal dtypes."""
    rng = np.random.default_rng(1)
    values: dict[str, Any] = {}
    for a in op._schema.arguments:
        is_tensor = str(a.type).startswith("Tensor")
        values[a.name] = (
            of_array(rng.uniform(0.1, 0.9, 4).astype("float32"))
            if is_tensor
            else (STATIC.get(str(a.type), np.dtype("float64")))
        )
    for flag in {"condition", "mask"} & set(values):
        values[flag] = of_array(values[flag].payload > 0.5)
    r = of_array(rng.uniform(0.1, 0.9, 4).astype("float32"))
    values |= {"r": r, "g": of_array(np.ones(4, "float32"))}
    text = op.rule("formula").text[name]
    with np.errstate(all="ignore"):
        on_tensors = eval(text, {**ON_TENSORS, **values})
        on_arrays = eval(text, {**ON_ARRAYS, **{k: bare(v) for k, v in values.items()}})
    assert isinstance(on_tensors, Tensor)
    np.testing.assert_array_equal(on_tensors.payload, on_arrays)
    assert on_tensors.dtype == on_arrays.dtype
    assert on_tensors.dtype.name in {"float32", "complex64"}

"""What is no view has memory of its own, over a library whose arrays share memory too (S66)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests.payloads.samples import Sample, operators, samples_of

import polyop
from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.errors import PolyopError
from polyop.payloads.held import Held

FAMILIES = 12
REFUSALS = (PolyopError, ArithmeticError, ValueError, TypeError, IndexError, RuntimeError)


def _tensors(sample: Sample) -> list[Any]:
    def made(value: Any) -> Any:
        known = isinstance(value, np.ndarray)
        return polyop.from_array(torch.from_numpy(value.copy())) if known else value

    return [[made(v) for v in a] if isinstance(a, list) else made(a) for a in sample.args]


def _places(tensors: Any) -> list[int]:
    """Give the addresses of what PyTorch's tensors have in memory."""
    held = [t.payload for t in tree.leaves(tensors) if isinstance(t, polyop.Tensor)]
    arrays = [p.array for p in held if isinstance(p, Held) and p.array.numel()]
    return [a.untyped_storage().data_ptr() for a in arrays]


def _fault(sample: Sample) -> str:
    try:
        args = _tensors(sample)
        before, results = _places(args), tree.leaves(dispatch(sample.op, args))
    except REFUSALS:
        return ""
    new = [t for t in results if getattr(t, "view_of", None) is None]
    new = [t for t in new if not any(t is a for a in tree.leaves(args))]
    places = _places(new)
    if len(set(places)) < len(places) or set(places) & set(before):
        return f"{sample}: shares memory"
    for t in new:
        steps = zip(t.shape, t.stride(), strict=True)
        if isinstance(t.payload, Held) and any(n > 1 and step == 0 for n, step in steps):
            return f"{sample}: repeats elements, strides {t.stride()}"
    return ""


@pytest.mark.parametrize("part", range(FAMILIES))
def test_new_results_own_their_memory(part: int) -> None:
    """A write to a result reaches one element, and no argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = [op for op in operators()[part::FAMILIES] if not op._schema.is_mutable]
        faults = [_fault(sample) for op in chosen for sample in samples_of(op, few=True)]
    assert not [fault for fault in faults if fault]


def test_filled_tensors_are_written_by_element() -> None:
    """Eager, batched, compiled and differentiated."""
    x = polyop.from_array(torch.ones(3))

    def program(a: Any) -> Any:
        c = polyop.full_like(a, 2.0)
        c[0] = 9.0
        return c * a

    for found in (program(x), polyop.compile(program)(x), polyop.vmap(program)(x[None])[0]):
        assert found.tolist() == [9.0, 2.0, 2.0]
    assert polyop.func.grad(lambda a: polyop.sum(program(a)))(x).tolist() == [9.0, 2.0, 2.0]

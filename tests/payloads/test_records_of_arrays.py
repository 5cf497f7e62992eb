"""Records over other libraries' arrays: their tensors are found, computed with, and written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.payloads.pair import tensor_of

import polyop
from polyop import Tensor


@dataclass
class Layer:
    """A record with a number between its tensors."""

    w: Tensor
    n: int
    b: Tensor


class Pair(NamedTuple):
    """A named tuple of a tensor and a number."""

    w: Tensor
    n: int


@pytest.fixture
def scope() -> Iterator[None]:
    """Operators that are gone after the test."""
    with polyop.scoped_library("record_tests", "FRAGMENT"):
        yield


def fill_(s: Tensor, layer: Layer, pairs: list[Pair]) -> None:
    """Add to all tensors in records."""
    layer.w.numpy()[...] += s.numpy() * layer.n
    layer.b.numpy()[...] -= s.numpy()
    for pair in pairs:
        pair.w.numpy()[...] += pair.n


def product(layer: Layer) -> Tensor:
    """Multiply the tensors of a record, which are all that the call has."""
    return polyop.from_numpy(layer.w.numpy() * layer.b.numpy() * layer.n)


def test_what_is_written_in_records_is_written_back(library: Any, scope: None) -> None:
    """S66: a kernel's writes into records, and records in lists, reach the library's arrays."""
    op = polyop.custom_op("record_tests::fill_", fill_, mutates_args=("layer", "pairs"))

    def run(wrap: Any) -> list[Any]:
        w, b, p = (wrap(np.full(2, i)) for i in (1.0, 2.0, 3.0))
        op(wrap(np.array([1.0, 2.0])), Layer(w, 10, b), [Pair(p, 5)])
        assert w._version == b._version == p._version == 1
        return [t.tolist() for t in (w, b, p)]

    assert run(lambda x: tensor_of(library, x)) == run(polyop.from_numpy)


def test_bare_tensors_in_records_are_written(scope: None) -> None:
    """S66: PyTorch's own tensors in a record are written in place."""
    op = polyop.custom_op("record_tests::fill_", fill_, mutates_args=("layer", "pairs"))
    w, b, p = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    op(torch.ones(2), Layer(w, 3, b), [Pair(p, 5)])
    assert (w.tolist(), b.tolist(), p.tolist()) == ([3, 3], [-1, -1], [5, 5])


def test_a_record_may_hold_all_arrays_of_a_call(library: Any, scope: None) -> None:
    """S66: an operator whose only arrays lie in a record computes, and answers in kind."""
    op = polyop.custom_op("record_tests::product", product, mutates_args=())
    op.register_fake(lambda layer: polyop.empty_like(layer.w))
    w, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    found = op(Layer(tensor_of(library, w), 2, polyop.from_numpy(b)))
    assert found.payload.library is library and found.tolist() == [6, 16]

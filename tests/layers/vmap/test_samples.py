"""What a sample is to an operator: its containers whole, its axes its own, its draws as asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pytest

import polyop
from polyop import Tensor, linalg
from polyop.errors import ArgumentError
from polyop.func import jacfwd, vmap

slow = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


@dataclass
class WithTuple:
    """A record with a tuple of numbers."""

    w: Tensor
    t: tuple[int, int]


@dataclass
class WithTensors:
    """A record with a tuple that holds a tensor."""

    w: Tensor
    t: tuple[Tensor, int]


class Result(TypedDict):
    """A result with numbers."""

    y: Tensor
    a: tuple[float, float]


def defined(name: str, fn: Callable[..., Any]) -> Any:
    return polyop.custom_op(f"vmap_samples::{name}", fn, mutates_args=())


def numbers(p: WithTuple) -> Tensor:
    return polyop.from_numpy(p.w.numpy() * float(p.t[0] + p.t[1]))


def tensors(p: WithTensors) -> Tensor:
    return polyop.from_numpy(p.w.numpy() + p.t[0].numpy() * p.t[1])


def given(x: Tensor) -> Result:
    return {"y": polyop.from_numpy(x.numpy() * 2.0), "a": (1.0, 2.0)}


NUMBERS, TENSORS = defined("numbers", numbers), defined("tensors", tensors)
GIVEN = defined("given", given)


@slow
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_tuples_in_records(dims: Any) -> None:
    """S157: a loop over samples gives the kernel the tuples of a record, and tensors in them."""
    x = polyop.from_numpy(np.arange(6.0).reshape(3, 2))
    w, v = (x if d == 0 else x[0] for d in dims)
    found = vmap(lambda w, v: TENSORS(WithTensors(w, (v, 3))), in_dims=dims)(w, v)
    np.testing.assert_array_equal(found.numpy(), (w + v * 3.0).numpy())
    found = vmap(lambda w: NUMBERS(WithTuple(w, (1, 5))))(x)
    np.testing.assert_array_equal(found.numpy(), x.numpy() * 6.0)


@slow
def test_results_with_numbers() -> None:
    """S158: of a result that holds numbers beside tensors the loop stacks the tensors."""
    seen: list[Any] = []

    def run(x: Tensor) -> Any:
        seen.append(GIVEN(x))
        return seen[-1]["y"]

    x = polyop.ones((3, 2))
    assert vmap(run)(x).tolist() == [[2.0, 2.0]] * 3
    assert seen[-1]["a"] == (1.0, 2.0)


MATRIX: dict[str, Callable[[Any], Any]] = {
    "tril": polyop.tril,
    "triu": polyop.triu,
    "inv": linalg.inv,
    "det": linalg.det,
    "cholesky": linalg.cholesky,
    "eigh": linalg.eigh,
    "eigvalsh": linalg.eigvalsh,
    "svd": linalg.svd,
    "svdvals": linalg.svdvals,
    "qr": linalg.qr,
    "pinv": linalg.pinv,
    "slogdet": linalg.slogdet,
}


@pytest.mark.parametrize("name", MATRIX)
def test_a_batch_of_vectors_is_no_matrix(name: str) -> None:
    """S157: what a sample alone is refused for, a batch is refused for too."""
    x = polyop.from_numpy(np.arange(9.0).reshape(3, 3) + 5.0 * np.eye(3))
    with pytest.raises(ArgumentError):
        MATRIX[name](x[0])
    with pytest.raises(ArgumentError):
        vmap(MATRIX[name])(x)
    batch = polyop.stack([x, x * 2.0])
    found, alone = vmap(MATRIX[name])(batch), MATRIX[name](x)
    for one, other in zip(polyop.tree.leaves(found), polyop.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one[0].numpy(), other.numpy(), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, None])
def test_one_draw_in_all_chunks(size: int | None) -> None:
    """S160: `randomness="same"` draws once, however many chunks there are."""
    x = polyop.ones((4, 3))

    def noisy(x: Tensor) -> Any:
        first = x + polyop.rand(3)
        return polyop.stack([first, x + polyop.rand(3)])

    polyop.manual_seed(5)
    found = vmap(noisy, randomness="same", chunk_size=size)(x)
    polyop.manual_seed(5)
    whole = vmap(noisy, randomness="same")(x)
    np.testing.assert_array_equal(found.numpy(), whole.numpy())
    assert (found.numpy() == found.numpy()[:1]).all()
    assert (found.numpy()[:, 0] != found.numpy()[:, 1]).any()
    polyop.manual_seed(5)
    column = jacfwd(lambda x: x * polyop.rand(3), randomness="same", chunk_size=size)(x[0])
    polyop.manual_seed(5)
    np.testing.assert_array_equal(column.numpy(), np.diag(polyop.rand(3).numpy()))


def test_draws_that_differ_differ_in_chunks() -> None:
    """S160: `randomness="different"` draws for each sample, in chunks too."""
    found = vmap(lambda x: x + polyop.rand(3), randomness="different", chunk_size=2)(
        polyop.ones((4, 3))
    )
    assert len({tuple(row) for row in found.tolist()}) == 4

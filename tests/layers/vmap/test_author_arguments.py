"""Custom operators of every signature stand equal under vmap, with a rule and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.layers.author_signatures import (
    CASES,
    RESULTS,
    Box,
    Data,
    Made,
    Pair,
    made,
    made_result,
    plain,
    same,
    tensors,
)

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import VmapError
from polyop.library import custom_op

pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


def with_rule(case: Any) -> Made:
    """Define the operator of a case with a batching rule."""
    one = made(case, "vmapargs_rule")

    def rule(info: Any, in_dims: Any, *args: Any, **kwargs: Any) -> Any:
        axes = case.parts(*in_dims, **info.kwarg_dims)
        parts = case.parts(*args, **kwargs)
        moved = [
            p if p is None else (polyop.moveaxis(p, axis, 0) if axis is not None else p[None])
            for p, axis in zip(parts, axes, strict=True)
        ]
        out = plain(moved)
        return polyop.broadcast_to(out, (info.batch_size, *out.shape[1:])), 0

    one.op.register_vmap(rule)
    return one


def result_with_rule(case: Any) -> Made:
    """Define the operator of a kind of result with a batching rule that mirrors it."""
    one = made_result(case, "vmapargs_rule")

    def rule(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> Any:
        u = polyop.moveaxis(x, in_dims[0], 0) if in_dims[0] is not None else x
        v = polyop.moveaxis(y, in_dims[1], 0) if in_dims[1] is not None else y
        axes = [None if d is None else 0 for d in in_dims]
        dims = case.build(*axes) if case.name != "r_record_and_one" else (Data(*axes), axes[0])
        if case.name == "r_numbers":
            dims = (None, axes[0], None, axes[1])
        results = case.build(u * u, v * v * 2.0)
        if case.name == "r_record_and_one":
            results = (results[0], u * u)
        return results, dims

    one.op.register_vmap(rule)
    return one


LOOPS = [
    *[made(case, "vmapargs") for case in CASES],
    *[made_result(case, "vmapargs") for case in RESULTS],
]
RULES = [*map(with_rule, CASES), *map(result_with_rule, RESULTS)]
EVERY = [*LOOPS, *RULES]


def total(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Sum what a function gives."""
    return lambda *args: f(*args).sum()


def first_only(one: Made, f: Callable[..., Tensor]) -> Any:
    """Batch the first argument only, along its last axis."""
    dims = (1, *(None,) * (one.count - 1))
    return func.vmap(f, dims)(tensors(1, 3, 4)[0], *tensors(one.count - 1, 3, seed=1))


def eager_gradient(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give the plain gradients of a batched call."""
    args = [x.requires_grad_() for x in tensors(one.count, 4, 3)]
    return autograd.grad(func.vmap(f)(*args).sum(), args)


def places(one: Made) -> tuple[int, ...]:
    """Name all arguments."""
    return tuple(range(one.count))


COLUMNS: dict[str, Callable[[Made, Callable[..., Tensor]], Any]] = {
    "vmap": lambda one, f: func.vmap(f)(*tensors(one.count, 4, 3)),
    "first only": first_only,
    "nested": lambda one, f: func.vmap(func.vmap(f))(*tensors(one.count, 2, 4, 3)),
    "no samples": lambda one, f: func.vmap(f)(*tensors(one.count, 0, 3)),
    "vmap of grad": lambda one, f: func.vmap(func.grad(total(f), places(one)))(
        *tensors(one.count, 4, 3)
    ),
    "grad of vmap": lambda one, f: func.grad(total(func.vmap(f)), places(one))(
        *tensors(one.count, 4, 3)
    ),
    "gradient of vmap": eager_gradient,
    "jvp of vmap": lambda one, f: func.jvp(
        func.vmap(f), tensors(one.count, 4, 3), tensors(one.count, 4, 3, seed=1)
    ),
    "compiled": lambda one, f: polyop.compile(func.vmap(f), fullgraph=True)(
        *tensors(one.count, 4, 3)
    ),
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.op._qualname)
def test_every_signature_in_batches(one: Made, column: str) -> None:
    """S155, S157: loop and rule give what plain code gives, for every kind of argument."""
    same(COLUMNS[column](one, one.call), COLUMNS[column](one, one.plain))


def test_kernels_and_rules_get_the_authors_classes() -> None:
    """S8, S155: in a batch a NamedTuple stays one, a tuple a tuple, and so do their axes."""
    seen: list[Any] = []

    def fn(p: Pair, q: tuple[Tensor, int], box: Box) -> Tensor:
        seen.append((type(p).__name__, type(q).__name__, type(box).__name__, p.a.shape))
        return p.a * 1.0

    op = custom_op("vmapargs::classes", fn, mutates_args=(), replace=True)
    x, y = tensors(2, 4, 3)

    def call(x: Tensor, y: Tensor) -> Tensor:
        return op(Pair(x), (y, 2), Box(y, k=3.0))

    func.vmap(call, (0, None))(x, y)
    assert seen == [("Pair", "tuple", "Box", (3,))] * 4
    axes: list[Any] = []

    def rule(info: Any, in_dims: Any, p: Pair, q: Any, box: Box) -> Any:
        axes.append((in_dims[0].a, in_dims[0].b, in_dims[1], in_dims[2].a, p.a.shape, box.k))
        return p.a, in_dims[0].a

    op.register_vmap(rule)
    func.vmap(call, (1, 0))(x, polyop.moveaxis(y, 0, 1))
    assert axes == [(1, None, [0, None], 0, (4, 3), 3.0)]


class Counted(NamedTuple):
    """A record with a number between its tensors."""

    a: Tensor
    n: int
    c: dict[str, Tensor]


def test_records_with_numbers_are_written_for_each_sample() -> None:
    """S159: what lies between the tensors of a written record is no tensor to write."""

    def fn(s: Tensor, rows: list[Counted]) -> None:
        for row in rows:
            row.a.numpy()[...] += row.n * s.numpy()
            row.c["x"].numpy()[...] -= row.n

    op = custom_op("vmapargs::counted_", fn, mutates_args=("rows",), replace=True)

    def call(s: Tensor, a: Tensor, b: Tensor) -> Any:
        op(s, [Counted(a, 3, {"x": b}), Counted(b, 2, {"x": a})])
        return a * 1, b * 1

    given = tensors(3, 4, 3)
    looped = [call(*[x[i].clone() for x in given]) for i in range(4)]
    batched = func.vmap(call)(*[x.clone() for x in given])
    same(batched, tuple(polyop.stack([row[k] for row in looped]) for k in (0, 1)))


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (lambda u: (Data(u, u), Data(0, 5)), "result 0.v"),
        (lambda u: (Data(u, u), [0, 0]), "result 0"),
        (lambda u: (Data(u, u), {"w": 0}), "result 0"),
        (lambda u: (Data(u, u), "0"), "result 0"),
    ],
)
def test_axes_that_do_not_fit_a_record(given: Any, where: str) -> None:
    """S158: axes of a record are one number, or mirror it; an error names the field."""
    case = next(case for case in RESULTS if case.name == "r_data")
    one = made_result(case, "vmapargs_wrong")
    one.op.register_vmap(lambda info, dims, x, y: given(x))
    with pytest.raises(VmapError, match="vmap rule") as caught:
        func.vmap(one.call)(*tensors(2, 4, 3))
    assert caught.value.argument == where


def test_one_axis_for_a_whole_record() -> None:
    """S158: one number says where the samples of every tensor in a record are."""
    case = next(case for case in RESULTS if case.name == "r_data")
    one = made_result(case, "vmapargs_whole")
    one.op.register_vmap(lambda info, dims, x, y: (Data(x * x, y * y * 2.0), 0))
    args = tensors(2, 4, 3)
    same(func.vmap(one.call)(*args), func.vmap(one.plain)(*args))


@pytest.mark.parametrize("kind", ["none", "tensor"])
def test_results_that_differ_between_samples(kind: str) -> None:
    """S157: the loop cannot stack what is there for some samples only, and says so."""

    def fn(x: Tensor) -> Tensor | None:
        return x * 1.0 if (x.item() > 0.5) == (kind == "none") else None

    op = custom_op(f"vmapargs::differ_{kind}", fn, mutates_args=(), replace=True)
    with pytest.raises(VmapError, match="differs from sample to sample"):
        func.vmap(op)(polyop.from_numpy(np.array([1.0, 0.0])))

"""Reductions, products, searches, linear algebra: fakes and batches."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.cases import CASES, Case, arrays_in

import polyop.assembly  # noqa: F401
from polyop.errors import ArgumentError
from polyop.layers.vmap import vmap
from polyop.ops.axes import call
from polyop.ops.define import ON_TENSORS, operator_of
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta, MetaSpace, meta_of
from polyop.tensor.tensor import of_array

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")


def run(name: str, values: list[Any]) -> list[Any]:
    """Call on tensors; give the results' arrays as a list."""
    with np.errstate(all="ignore"):
        found = call(name, *[of_array(v) if isinstance(v, np.ndarray) else v for v in values])
    return [t.payload for t in found] if isinstance(found, tuple) else [found.payload]


def described(name: str, values: list[Any], **more: Any) -> list[Any]:
    """Call the fake rule on metas; give the results' metas as a list."""
    space = MetaSpace()
    metas = [meta_of(of_array(v), space) if isinstance(v, np.ndarray) else v for v in values]
    found = operator_of(ON_TENSORS[name]).rule("meta")(*metas, **more)
    return list(found) if isinstance(found, tuple) else [found]


def agree(fake: Meta, real: Any) -> None:
    """Shape, dtype and strides are the same; strides of axes of size one say nothing."""
    whole = meta_of(of_array(real), fake.space)
    assert fake.shape == whole.shape
    assert fake.dtype == whole.dtype
    if 0 not in fake.shape:
        wide = [i for i, n in enumerate(fake.shape) if n != 1]
        assert [fake.strides[i] for i in wide] == [whole.strides[i] for i in wide]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fake_says_what_the_result_is(case: Case) -> None:
    """Shape, dtype and strides of the fake are the real ones, of C and Fortran ordered arrays."""
    for order in ("C", "F"):
        values = case.values()
        values = [np.array(v, order=order) if isinstance(v, np.ndarray) else v for v in values]
        for fake, real in zip(described(case.name, values), run(case.name, values), strict=True):
            agree(fake, real)


REDUCTIONS = [
    *(("sum", None), ("prod", None), ("mean",), ("var", 0.0), ("std", 1.0), ("any",), ("all",)),
    *(("max",), ("min",), ("count_nonzero",), ("logsumexp",), ("norm2",)),
]


@st.composite
def laid_out(draw: Any) -> Any:
    """An array whose axes lie in any order, sliced, reversed, repeated, or empty."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    x = np.arange(np.prod([2 * n for n in shape], dtype=int)).reshape([2 * n for n in shape])
    x = (x % 5).astype(dtype)
    back = [slice(n - 1, None, -1) if n else slice(0) for n in shape]
    parts = [
        draw(st.sampled_from([slice(0, n), slice(0, 2 * n, 2), b]))
        for n, b in zip(shape, back, strict=True)
    ]
    x = x[tuple(parts)]
    return np.asarray(x).transpose(draw(st.permutations(range(len(shape)))))


@settings(max_examples=300, deadline=None)
@given(laid_out(), st.sampled_from(REDUCTIONS), st.data())
def test_reductions_keep_the_order_of_axes(x: Any, which: Any, data: Any) -> None:
    """For any layout and axes, the fake of a reduction is the real one, or refuses too."""
    name, *middle = which
    axis = data.draw(st.none() | st.lists(st.integers(0, max(x.ndim - 1, 0)), unique=True))
    axis = axis if x.ndim else None
    values = [x, axis, *middle, data.draw(st.booleans())]
    if x.dtype.kind == "c" and name == "logsumexp":
        return
    try:
        real = run(name, values)
    except ArgumentError:
        with pytest.raises(ArgumentError):
            described(name, values)
        return
    agree(described(name, values)[0], real[0])


ALONG = [
    *(("softmax",), ("log_softmax",), ("cumulative_sum", None, False), ("argmax", False)),
    *(("cumulative_prod", None, True), ("sort", True, True), ("argsort", False, True)),
]


@settings(max_examples=300, deadline=None)
@given(laid_out(), st.sampled_from(ALONG), st.data())
def test_operators_along_an_axis_have_true_fakes(x: Any, which: Any, data: Any) -> None:
    """For any layout and axis, the fake of an operator along an axis is the real one."""
    name, *rest = which
    if x.dtype.kind == "c" and "softmax" in name:
        return
    values = [x, data.draw(st.integers(-3, 3)), *rest]
    try:
        real = run(name, values)
    except ArgumentError:
        with pytest.raises(ArgumentError):
            described(name, values)
        return
    agree(described(name, values)[0], real[0])


def symbolic(value: Any, env: ShapeEnv, space: MetaSpace) -> Meta:
    """Describe an array with a symbol for each size."""
    shape = tuple([env.create_symbol(n) for n in value.shape])
    return space.meta(shape, value.dtype, None)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_symbolic_sizes_stand_for_the_real_ones(case: Case) -> None:
    """With symbols for sizes, the fake's sizes have the real ones as their hints."""
    env, space = ShapeEnv(), MetaSpace()
    values = case.values()
    metas = [symbolic(v, env, space) if isinstance(v, np.ndarray) else v for v in values]
    found = case.op.rule("meta")(*metas)
    for fake, real in zip(
        found if isinstance(found, tuple) else [found], run(case.name, values), strict=True
    ):
        assert tuple([n if isinstance(n, int) else n.hint for n in fake.shape]) == real.shape
        assert fake.dtype == real.dtype


@pytest.mark.parametrize("name", ["argwhere", "unique_values"])
def test_sizes_that_depend_on_data_lie_within_their_bounds(name: str) -> None:
    """A data-dependent fake asks for a new size, of at most as many elements as there are."""
    asked = []

    def new_size(least: int, most: int) -> int:
        asked.append((least, most))
        return 2

    x = np.array([[0.0, 1.0], [1.0, 0.0]])
    fake = described(name, [x], new_size=new_size)[0]
    agree(fake, run(name, [x])[0])
    ((least, most),) = asked
    assert least <= 2 <= most == 4


@pytest.mark.parametrize("name", ["unique_all", "unique_counts", "unique_inverse"])
def test_unique_fakes_share_their_size(name: str) -> None:
    """All results with one element per unique value have the same new size."""
    x = np.array([[3, 1], [3, 3]])
    for fake, real in zip(described(name, [x], new_size=lambda *_: 2), run(name, [x]), strict=True):
        agree(fake, real)


class Info:
    """What a batching rule reads of its vmap."""

    batch_size = 3
    randomness = "error"


BATCHED = [c for c in CASES if c.op.rule("vmap") is not None]


def patterns(case: Case, values: list[Any]) -> list[tuple[Any, ...]]:
    """Every choice of a batch's axis, or none, for each array."""
    arrays = [i for i, v in enumerate(values) if isinstance(v, np.ndarray)]
    choices = [
        sorted({0, values[i].ndim}) + [None] if i in arrays else [None] for i in range(len(values))
    ]
    return [p for p in itertools.product(*choices) if any(d is not None for d in p)]


@pytest.mark.parametrize("case", BATCHED, ids=str)
def test_a_batching_rule_equals_the_loop(case: Case) -> None:
    """S155: the rule's result, at its axis, is what a loop over the batch gives."""
    samples = [case.values(seed) for seed in range(3)]
    for i in range(len(samples[0])):
        if isinstance(case.args[i], np.ndarray) and case.name != "searchsorted":
            for k, sample in enumerate(samples):  # indices differ too
                sample[i] = np.roll(sample[i], k, -1)
    for dims in patterns(case, samples[0]):
        given_ = [
            np.stack([s[i] for s in samples], d) if d is not None else samples[0][i]
            for i, d in enumerate(dims)
        ]
        tensors = [of_array(v) if isinstance(v, np.ndarray) else v for v in given_]
        out, out_dims = case.op.rule("vmap")(Info, dims, *tensors)
        outs = out if isinstance(out, tuple) else (out,)
        out_dims = out_dims if isinstance(out_dims, tuple) else (out_dims,)
        for n, (found, dim) in enumerate(zip(outs, out_dims, strict=True)):
            for k in range(3):
                one = [
                    samples[k][i] if d is not None else samples[0][i] for i, d in enumerate(dims)
                ]
                wanted = run(case.name, one)[n]
                np.testing.assert_allclose(
                    np.take(found.payload, k, dim), wanted, rtol=1e-9, atol=1e-12
                )


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("shapes", [((2,), (2, 2)), ((2, 2), (2,)), ((2,), (2,))])
def test_a_batch_of_vectors_is_no_batch_of_matrices(shapes: Any, dims: Any) -> None:
    """S157: the rule refuses what one sample refuses, in the same words."""
    a, b = (of_array(np.ones(shape)) for shape in shapes)
    with pytest.raises(ArgumentError) as alone:
        call("solve_matrix", a, b)
    stacks = [
        x if d is None else of_array(np.stack([x.payload] * 2))
        for x, d in zip((a, b), dims, strict=True)
    ]
    with pytest.raises(ArgumentError) as batched:
        vmap(partial(call, "solve_matrix"), dims)(*stacks)
    assert str(batched.value).splitlines()[0] == str(alone.value).splitlines()[0]


def test_the_cases_cover_the_operators() -> None:
    """Every operator of these families is among the cases, bar those that depend on data."""
    assert {c.name for c in CASES} >= {
        *(n for n, *_ in REDUCTIONS), *(n for n, *_ in ALONG),
        *("matmul", "vecdot", "topk", "searchsorted", "take_along_axis", "det", "inv"),
    }  # fmt: skip
    assert arrays_in([np.ones(2)], Case("sum", ((2,), None, None, False))) == [0]

"""Each chunk that is computed is what its recipe declares, or an error that says what is not."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bridges.dask import operators as ops

import polyop
from polyop.bridges.dask.blocks import MOST
from polyop.errors import MetadataMismatchError, ReturnError

Define = Callable[..., Any]


@pytest.fixture(autouse=True)
def in_order() -> Iterator[None]:
    """Tasks run one after the other."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def define() -> Iterator[Define]:
    """Gives a function that defines an operator, which is gone after the test."""
    with polyop.scoped_library("dask_declared", "FRAGMENT") as lib:

        def defined(kernel: Any, fake: Any, tags: Any = ("pointwise",), schema: str = "") -> Any:
            text = schema or "(Tensor x) -> Tensor"
            lib.define(f"f{text}", tags=tuple(polyop.Tag[tag] for tag in tags))
            lib.impl("f", kernel, "CPU")
            if fake is not None:
                polyop.library.register_fake("dask_declared::f", fake, lib=lib)
            return polyop.ops.dask_declared.f.default

        yield defined


def first(x: Any, n: int) -> Any:
    """The first elements, with memory of their own."""
    return polyop.from_numpy(x.numpy()[:n].copy())


def kept(x: Any, whole: int) -> int:
    """All elements of a whole array, and one of any part."""
    return whole if x.shape[0] == whole else 1


# -- when the recipe is written -----------------------------------------------------------------


def test_parts_that_are_no_parts_of_the_whole_are_refused(define: Define) -> None:
    """A fake rule that says less of blocks than of the whole is found before anything runs."""
    f = define(lambda x: first(x, kept(x, 20)), lambda x: x.new_empty([kept(x, 20)]))
    with pytest.raises(MetadataMismatchError) as caught:
        f(da.ones(20, chunks=4))
    error = caught.value
    assert error.problem.startswith("a chunk of result 0 of dask_declared::f is not what was decl")
    assert error.declared == "float64[4], as the arguments are cut"
    assert error.seen == "float64[1], of arguments float64[4]"
    assert "test_declared.py" in error.source and "the tag pointwise" in error.fix
    assert f(da.ones(20, chunks=-1)).compute().shape == (20,)


def test_a_dtype_that_depends_on_the_size_is_refused(define: Define) -> None:
    """A fake rule that says another dtype of blocks than of the whole is found too."""

    def dtype(x: Any) -> Any:
        return polyop.float64 if x.shape[0] == 20 else polyop.float32

    f = define(lambda x: x.to(dtype(x)), lambda x: x.new_empty(x.shape, dtype=dtype(x)))
    with pytest.raises(MetadataMismatchError, match=r"(?s)float64\[5\], as.*seen: +float32\[5\]"):
        f(da.ones(20, chunks=5))


def test_each_result_is_looked_at(define: Define) -> None:
    """Of several results the one that is not as the whole is named."""
    f = define(
        lambda x: (x.clone(), first(x, kept(x, 20))),
        lambda x: (x.new_empty(x.shape), x.new_empty([kept(x, 20)])),
        schema="(Tensor x) -> (Tensor, Tensor)",
    )
    with pytest.raises(MetadataMismatchError, match="a chunk of result 1 of dask_declared::f"):
        f(da.ones(20, chunks=4))


def test_arguments_that_are_repeated_say_nothing_of_the_size(define: Define) -> None:
    """Blocks of an axis of one element are repeated: the others say what a chunk is."""

    def part(x: Any, y: Any) -> Any:
        return (x + y)[:, :1] if x.shape[0] < 4 else x + y

    f = define(lambda x, y: part(x, y).clone(), part, schema="(Tensor x, Tensor y) -> Tensor")
    x, y = da.ones((4, 5), chunks=(2, 2)), da.ones((4, 1), chunks=(2, 1))
    with pytest.raises(MetadataMismatchError, match=r"float64\[2, 2\], as the arguments are cut"):
        f(x, y)


def test_pointwise_sizes_do_not_depend_on_data(define: Define) -> None:
    """What drops elements is not pointwise, however it is cut: it is refused, in one chunk too."""
    f = define(
        lambda x: polyop.from_numpy(x.numpy()[x.numpy() > 0]),
        lambda x: x.new_empty([polyop.library.get_ctx().new_dynamic_size()]),
    )
    for chunks in (4, -1):
        with pytest.raises(MetadataMismatchError, match=r"(?s)shape \(nan,\).*shape \(20,\)"):
            f(da.arange(20, chunks=chunks))


# -- when it is computed ------------------------------------------------------------------------


def test_chunks_of_other_sizes_than_were_looked_at(define: Define) -> None:
    """Of chunks of many sizes some are looked at when they are computed, and none is wrong."""
    sizes = tuple(range(1, MOST + 2))
    f = define(
        lambda x: first(x, 1 if x.shape[0] == sizes[-1] else sizes[-1]),
        lambda x: x.new_empty([1 if x.shape[0] == sizes[-1] else x.shape[0]]),
    )
    whole = f(da.ones(sum(sizes), chunks=(sizes,)))
    assert whole[: -sizes[-1]].compute().shape == (sum(sizes[:-1]),)
    with pytest.raises(MetadataMismatchError, match=r"a chunk of result 0 of dask_declared::f is"):
        whole.compute()
    with pytest.raises(MetadataMismatchError):
        whole[-1:].compute()


def test_what_a_fake_rule_raises_of_a_block_is_raised_where_it_is_computed(define: Define) -> None:
    """A recipe whose odd block nobody asks for is computed; the block itself is an error."""

    def fake(x: Any) -> Any:
        if x.shape[0] < 4:
            raise IndexError("at least four")
        return x.new_empty(x.shape)

    found = define(lambda x: x.clone(), fake)(da.ones(10, chunks=4))
    assert found[:8].compute().tolist() == [1.0] * 8
    with pytest.raises(IndexError, match="at least four"):
        found.compute()


def test_one_task_is_held_to_its_recipe(define: Define) -> None:
    """A fake rule that changes its mind after the recipe was written makes no wrong shape."""
    asked: list[int] = []

    def fake(x: Any) -> Any:
        asked.append(1)
        return x.new_empty([20 if len(asked) == 1 else 7])

    found = define(lambda x: first(x, 7), fake, tags=())(da.ones(20, chunks=-1))
    assert found.shape == (20,)
    with pytest.raises(MetadataMismatchError) as caught:
        found.compute()
    assert caught.value.problem.startswith("the data of result 0 of dask_declared::f is not what")
    assert caught.value.declared == "float64[20]" and "float64[7]" in caught.value.seen
    assert "whenever it is asked" in caught.value.fix


def test_index_signatures_hold_kernels_too(define: Define) -> None:
    """S56: sizes that follow from an index signature are those of each chunk, or it is said."""
    f = define(lambda x: first(x, 2), None, tags=())
    polyop.library.register_index("dask_declared::f", "(k)->(k)")
    polyop.library.register_chunks("dask_declared::f", "k")
    found = f(da.ones(6, chunks=((2, 4),)))
    assert found[:2].compute().shape == (2,)
    with pytest.raises(MetadataMismatchError, match=r"(?s)shape of result 0.*\(4,\).*\(2,\)"):
        found.compute()
    polyop.library.register_fake("dask_declared::f", lambda x: x.new_empty([2]))
    with pytest.raises(ReturnError, match=r"does not fit \(k\)->\(k\)"):
        f(da.ones(6, chunks=((2, 4),)))


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (lambda run, x: x.map_blocks(lambda b: b[b > 0], meta=x._meta), r"float64\[2\]"),
        (lambda run, x: x.map_blocks(lambda b: b.astype("f4"), meta=x._meta), r"float32\[4\]"),
        (lambda run, x: x.map_blocks(lambda b: b[:, None], meta=x._meta), r"float64\[4, 1\]"),
    ],
)
def test_chunks_of_an_author_s_rule(define: Define, rule: Any, seen: str) -> None:
    """register_chunks: what an author's rule declares of its chunks, they are, or it is said."""
    f = define(lambda x: x.clone(), lambda x: polyop.empty_like(x), tags=())
    polyop.library.register_chunks("dask_declared::f", rule)
    x = da.from_array(np.array([1.0, 1, 1, 1, -1, -1, 1, 1]), chunks=4)
    with pytest.raises(ReturnError, match=rf"(?s)chunk \([01],\) of result 0 .* {seen}") as caught:
        f(x)[4:].compute() if "2" in seen else f(x).compute()
    assert "map_blocks takes dtype=" in caught.value.fix
    assert "test_declared.py" in caught.value.source
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


# -- what is right ------------------------------------------------------------------------------


@st.composite
def cuts(draw: Any, n: int) -> tuple[int, ...]:
    """Chunks of an axis, of which some may be empty; Dask cannot join axes of empty ones alone."""
    if not n:
        return (0,)
    ends = sorted(draw(st.lists(st.integers(0, n), max_size=3)))
    return tuple(b - a for a, b in zip([0, *ends], [*ends, n], strict=True))


@st.composite
def broadcast(draw: Any) -> tuple[list[tuple[tuple[int, ...], ...]], tuple[int, ...]]:
    """Chunks of two arrays that broadcast, and the shape of what comes of them."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))
    found = []
    for whole in (True, False):
        skip = 0 if whole else draw(st.integers(0, len(shape)))
        sizes = [n if whole or draw(st.booleans()) else 1 for n in shape[skip:]]
        found.append(tuple((1,) if n == 1 else draw(cuts(n)) for n in sizes))
    return found, shape


@settings(max_examples=60, deadline=None)
@given(broadcast())
def test_declared_and_computed_are_one(drawn: Any) -> None:
    """However arrays are cut, and broadcast, each chunk of the result is what was declared."""
    (a, b), shape = drawn
    x, y = (np.random.default_rng(0).normal(size=tuple(map(sum, c))) for c in (a, b))
    found = mixed(da.from_array(x, chunks=a), da.from_array(y, chunks=b))
    assert found.shape == shape and found.dtype == x.dtype
    np.testing.assert_array_equal(found.compute(), x + y)
    for index in np.ndindex(found.numblocks):
        part = found.blocks[index]
        assert part.compute().shape == part.shape


@polyop.custom_op("daskdeclared::mixed", mutates_args=(), tags=["pointwise"])
def mixed(x: polyop.Tensor, y: polyop.Tensor) -> polyop.Tensor:
    """The sum, block by block."""
    return x + y


mixed.register_fake(lambda x, y: polyop.empty_like(x + y))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_sizes_that_nobody_knows_are_held_when_they_are_known(define: Define) -> None:
    """Where an argument's sizes depend on data, a chunk is as large as that of the argument."""
    x = da.from_array(np.array([1.0, -1, 2, -2, 3, 4]), chunks=2)
    unknown = x[x > 0]
    assert mixed(unknown, np.ones(1)).compute().tolist() == [2.0, 3.0, 4.0, 5.0]

    def size(x: Any) -> Any:
        return 1 if str(x.shape[0]) == "2" else x.shape[0]

    f = define(lambda x: first(x, size(x)), lambda x: x.new_empty([size(x)]))
    with pytest.raises(MetadataMismatchError, match=r"float64\[2\], as the arguments are cut"):
        f(unknown).compute()


def test_named_axes_that_are_cut() -> None:
    """register_chunks: chunks of named axes are those of the arguments, contracted ones whole."""
    a, b = da.ones((4, 3), chunks=(2, 3)), da.ones((3, 2), chunks=-1)
    with polyop.scoped_library("dasktest", "FRAGMENT") as own:
        polyop.library.register_chunks(ops.product, "m", lib=own)
        assert ops.product(a, b).compute().tolist() == [[3.0, 3.0]] * 4

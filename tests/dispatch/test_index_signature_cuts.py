"""Cuts along loops: chunks of results, and placements over a mesh, from an index signature."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax  # noqa: F401 - the rule's reader needs the whole package
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax._src.custom_partitioning_sharding_rule import str_to_sdy_sharding_rule

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.index_cuts import Chunks, Placement
from polyop.dispatch.index_signature import IndexSignature, index_of
from polyop.errors import ArgumentError, UsageError
from polyop.tensor.tensor import Tensor, of_array

Array = np.ndarray[Any, Any]


@custom_op("index_cuts::matmul", mutates_args=(), index="(m,n),(n,k)->(m,k)")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return of_array(np.matmul(a.numpy(), b.numpy()))


@custom_op("index_cuts::spread", mutates_args=(), index="(n),()->(n,count),(3)")
def spread(x: Tensor, y: Tensor, count: int, more: int = 2) -> tuple[Tensor, Tensor]:
    made = x.numpy()[..., None] * y.numpy()[..., None, None] * np.ones(count)
    return of_array(made), of_array(made.sum((-1, -2))[..., None] + np.arange(3.0))


def index(op: Any = matmul) -> IndexSignature:
    found = index_of(op)
    assert found is not None
    return found


def array(*shape: int) -> Array:
    return np.linspace(0.1, 1.0, int(np.prod(shape))).reshape(shape)


# -- chunks -------------------------------------------------------------------


@st.composite
def chunked_loops(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """The chunks of some loops."""
    pieces = st.lists(st.integers(1, 2), min_size=1, max_size=2).map(tuple)
    return tuple(draw(st.lists(pieces, max_size=2)))


def block(x: Array, cuts: Any, place: Any) -> Array:
    """The block of an array at a place of its chunks."""
    starts = [np.cumsum([0, *c]) for c in cuts]
    pairs = zip(starts, place, strict=True)
    return x[tuple(slice(int(s[p]), int(s[p + 1])) for s, p in pairs)]


@given(chunked_loops(), st.integers(0, 2), st.lists(st.booleans(), min_size=2, max_size=2))
def test_blocks_of_results_are_results_of_blocks(loops: Any, drop: int, single: list[bool]) -> None:
    """S56: chunk by chunk comes what the whole call gives, with fewer loops and repeated ones."""
    first = (*loops, (2,), (3,))
    less = [(1,) if s else c for c, s in zip(loops, single, strict=False)][drop:]
    second = (*less, (3,), (4,))
    shapes = [tuple(map(sum, cuts)) for cuts in (first, second)]
    a, b = (array(*shape) for shape in shapes)
    chunks = index().chunks(first, second)
    whole = np.matmul(a, b)
    assert tuple(map(sum, chunks.results[0])) == whole.shape
    for place in product(*map(range, chunks.counts)):
        places = chunks.blocks(place)
        given = [block(x, c, p) for x, c, p in zip((a, b), chunks.inputs, places, strict=True)]
        got = matmul(*map(of_array, given)).numpy()
        np.testing.assert_allclose(got, block(whole, chunks.results[0], (*place, 0, 0)))


def test_what_is_whole_and_how_results_are_cut() -> None:
    """S56: named axes are one chunk in each argument and result, loops are cut."""
    found = index(spread).chunks(((2, 2), (1,), (5,)), ((3, 1),), count=6)
    assert found == Chunks(
        (((2, 2), (1,), (5,)), ((3, 1),)),
        (((2, 2), (3, 1), (5,), (6,)), ((2, 2), (3, 1), (3,))),
        ((2,), ()),
    )
    assert (found.counts, found.loops) == ((2, 2), 2)
    assert found.blocks((1, 0)) == ((1, 0, 0), (0,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([((2,), (2, 1)), ((3,), (4,))], ("'a'", "axis n in one chunk", "(2, 1)", "rechunk a")),
        ([((2,), (3,)), ((4,), (4,))], ("'b'", "axis n of size 3 as in argument 'a'", "size 4")),
        (
            [((2, 2), (2,), (3,)), ((1, 3), (3,), (4,))],
            ("'b'", "loop 0 cut into (2, 2)", "cut into (1, 3)", "rechunk one of the arguments"),
        ),
        ([((2,),), ((3,), (4,))], ("'a'", "axes (m, n)", "shape (2,)")),
        ([((2,), (3,))], ("'a, b'", "chunks of 2 Tensors", "of 1")),
        ([(2, 3), ((3,), (4,))], ("'a'", "the sizes of the chunks of each axis", "(2, 3)")),
        ([((2,), (-3,)), ((3,), (4,))], ("'a'", "the sizes of the chunks", "((2,), (-3,))")),
        ([3, ((3,), (4,))], ("'a'", "the sizes of the chunks of each axis", "seen:     3")),
    ],
)
def test_chunks_that_do_not_fit(given: Any, words: tuple[str, ...]) -> None:
    """S56: a cut named axis, loops cut otherwise, and sizes that differ name the axis."""
    with pytest.raises(ArgumentError) as caught:
        index().chunks(*given)
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({}, ("'count'", "the size of axis count", "give count=...")),
        ({"count": -1}, ("'count'", "count=-1")),
        ({"count": 2, "length": 3}, ("'length'", "the sizes ['count', 'more']", "length=3")),
    ],
)
def test_sizes_that_are_missing_or_wrong(sizes: Any, words: tuple[str, ...]) -> None:
    """S56: sizes of results that int arguments give are asked for by name."""
    with pytest.raises(ArgumentError) as caught:
        index(spread).chunks(((5,),), (), **sizes)
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("place", [(2, 0), (0,), (0, -1)])
def test_there_is_no_such_block(place: Any) -> None:
    """S56: a place outside of the chunks is a UsageError."""
    found = index(spread).chunks(((2, 2), (1,), (5,)), ((3, 1),), count=6)
    with pytest.raises(UsageError, match="no such block"):
        found.blocks(place)


# -- meshes -------------------------------------------------------------------


def test_axes_have_names() -> None:
    """S56: loops are named from the result's first; a repeated one has a name of its own."""
    assert str(index().sharding()) == "... m n, ... n k -> ... m k"
    found = index().sharding((4, 5, 2, 3), (1, 3, 4))
    assert str(found) == "loop0 loop1 m n, repeated0 n k -> loop0 loop1 m k"
    assert found.loops == ("loop0", "loop1")
    assert set(found.whole) == {"m", "n", "k", "repeated0"}
    assert str(index(spread).sharding((5,), ())) == "n,  -> n count, size3"


@pytest.mark.parametrize("shapes", [(), ((2, 3), (3, 4)), ((4, 1, 2, 3), (6, 3, 4))])
def test_the_text_is_a_rule_that_jax_reads(shapes: Any) -> None:
    """S56: JAX reads the text as a sharding rule, with one factor per axis."""
    found = index().sharding(*shapes)
    rule = str_to_sdy_sharding_rule(str(found))
    lengths = [len(mapping) for mapping in (*rule.operand_mappings, *rule.result_mappings)]
    assert lengths == [len(group) for group in (*found.inputs, *found.outputs)]


def test_placements_are_none_and_each_loop() -> None:
    """S56: over one axis of a mesh all is whole, or one loop is sharded in all that have it."""
    found = index().sharding((4, 5, 2, 3), (5, 3, 4))
    assert found.placements("x") == (
        Placement("x", None, (None, None), (None,)),
        Placement("x", "loop0", (0, None), (0,)),
        Placement("x", "loop1", (1, 0), (1,)),
    )
    specs = found.specs(found.placements("x")[2])
    assert specs == ((None, "x", None, None), ("x", None, None), (None, "x", None, None))


@given(st.integers(0, 2), st.integers(0, 2), st.lists(st.booleans(), min_size=4, max_size=4))
def test_each_placement_computes_the_whole(p: int, q: int, single: list[bool]) -> None:
    """S56: shards put together are the whole result, for every placement."""
    a = array(*(1 if s else 4 for s in single[2 - p : 2]), 2, 3)
    b = array(*(1 if s else 4 for s in single[4 - q :]), 3, 2)
    whole = np.matmul(a, b)
    for place in index().sharding(a.shape, b.shape).placements("x"):
        if place.outputs[0] is None or whole.shape[place.outputs[0]] == 1:
            continue
        shards = [
            [x] * 2 if axis is None else np.split(x, 2, axis)
            for x, axis in zip((a, b), place.inputs, strict=True)
        ]
        parts = [matmul(of_array(x), of_array(y)).numpy() for x, y in zip(*shards, strict=True)]
        np.testing.assert_allclose(np.concatenate(parts, place.outputs[0]), whole)


def test_loops_that_are_not_known_cannot_be_placed() -> None:
    """S56: without shapes there are no placements, and the error says what to give."""
    with pytest.raises(UsageError, match=r"sharding\(\*shapes\)"):
        index().sharding().placements("x")


def test_shapes_that_do_not_fit() -> None:
    """S56: shapes for a sharding are held against the signature."""
    with pytest.raises(ArgumentError, match="axis n of size 3"):
        index().sharding((2, 3), (4, 5))
    with pytest.raises(ArgumentError, match="shapes of 2 Tensors"):
        index().sharding((2, 3))


def test_names_of_loops_are_free() -> None:
    """S56: a named axis may be called as a loop would be."""

    @custom_op("index_cuts::taken", mutates_args=(), index="(loop0)->(loop0)")
    def taken(x: Tensor) -> Tensor:
        return of_array(x.numpy().copy())

    assert str(index(taken).sharding((2, 3))) == "loop_0 loop0 -> loop_0 loop0"

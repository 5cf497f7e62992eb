"""`sum_to` and `expand_to`: each undoes the shape of the other, and is its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ops.formulas import gradient

import polyop.assembly  # noqa: F401
from polyop.errors import ArgumentError
from polyop.layers.autograd.transforms import grad
from polyop.ops.broadcasting import expand_to, expand_to_vmap, sum_to, sum_to_vmap
from polyop.ops.define import ON_ARRAYS, operator_of
from polyop.ops.define import ON_TENSORS as OPS
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import MetaSpace, meta_of
from polyop.tensor.tensor import of_array


@st.composite
def shapes(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape, and one that it broadcasts to."""
    large = draw(st.lists(st.integers(0, 4), max_size=4))
    small = [1 if draw(st.booleans()) else n for n in large]
    return tuple(small[draw(st.integers(0, len(large))) :]), tuple(large)


def numbers(shape: tuple[int, ...]) -> Any:
    return np.arange(float(np.prod(shape, dtype=int))).reshape(shape)


@given(shapes())
def test_expand_to_broadcasts(pair: Any) -> None:
    """`expand_to` gives a new array in C order with the values of broadcasting."""
    small, large = pair
    x = numbers(small)
    r = expand_to(of_array(x), list(large)).payload
    assert r.shape == large
    assert (r == np.broadcast_to(x, large)).all()
    assert r.flags.c_contiguous
    assert r.flags.owndata


@given(shapes(), st.sampled_from(["int8", "float32", "complex128"]))
def test_sum_to_is_the_transpose_of_expand_to(pair: Any, dtype: str) -> None:
    """`<expand_to(a), b> == <a, sum_to(b)>`, in the dtype of the argument."""
    small, large = pair
    a, b = (numbers(small) % 3).astype(dtype), (numbers(large) % 2).astype(dtype)
    r = sum_to(of_array(b), list(small)).payload
    assert r.shape == small
    assert r.dtype == dtype
    assert r.flags.owndata
    whole = np.asarray(np.broadcast_to(a, large), complex)
    assert (whole * b).sum() == (a.astype(complex) * r).sum() or dtype == "int8"


@given(shapes())
def test_each_is_the_gradient_of_the_other(pair: Any) -> None:
    """The gradients have the argument's shape, and are those of a linear map."""
    small, large = pair
    x, y = numbers(small), numbers(large)
    found = (
        gradient(operator_of(sum_to), "x", x, x, {"x": y})
        if small == large
        else eval(operator_of(sum_to).rule("formula").text["x"], {**ON_ARRAYS, "g": x, "x": y})
    )
    assert (found == np.broadcast_to(x, large)).all()
    back = eval(operator_of(expand_to).rule("formula").text["x"], {**ON_ARRAYS, "g": y, "x": x})
    assert (back == sum_to(of_array(y), list(small)).payload).all()


@given(shapes())
def test_the_fakes_are_the_real_ones(pair: Any) -> None:
    """Shape, dtype and strides of the fakes are the real ones, for transposed arguments too."""
    small, large = pair
    for op, shape, wanted in ((expand_to, small, large), (sum_to, large, small)):
        x = numbers(shape[::-1]).T
        space = MetaSpace()
        fake = operator_of(op).rule("meta")(meta_of(of_array(x), space), list(wanted))
        assert fake is meta_of(op(of_array(x), list(wanted)), space)


def test_symbolic_sizes_are_taken_at_their_word() -> None:
    """The fakes ask nothing about symbolic sizes."""
    env, space = ShapeEnv(), MetaSpace()
    n = env.create_symbol(7, "x.shape[0]")
    x = space.meta((n, 3), np.dtype("float32"))
    assert operator_of(sum_to).rule("meta")(x, [1, 3]).shape == (1, 3)
    assert operator_of(expand_to).rule("meta")(x, [2, n, 3]).shape == (2, n, 3)
    assert not env.guards


@pytest.mark.parametrize("fn", [sum_to, expand_to])
def test_shapes_that_do_not_broadcast_are_refused(fn: Any) -> None:
    """Real and fake refuse a shape by name, and say which."""
    x = of_array(np.ones((2, 3)))
    with pytest.raises(ArgumentError, match=r"\(2, 4\)"):
        fn(x, [2, 4])
    with pytest.raises(ArgumentError, match="does not broadcast"):
        operator_of(fn).rule("meta")(meta_of(x, MetaSpace()), [2, 4])


def test_a_formula_gets_the_array_itself_where_nothing_is_summed() -> None:
    """In formulas `sum_to` copies nothing; the operator does."""
    x = np.ones((2, 3))
    assert ON_ARRAYS["sum_to"](x, (2, 3)) is x
    assert sum_to(of_array(x), [2, 3]).payload is not x


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_batched_equals_the_loop(dim: int) -> None:
    """The batching rules give what a loop over the batch gives."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    parts = np.moveaxis(x, dim, 0)
    for fn, rule, shape in (
        (sum_to, sum_to_vmap, [parts.shape[2]]),
        (sum_to, sum_to_vmap, [parts.shape[1], 1]),
        (expand_to, expand_to_vmap, [5, *parts.shape[1:]]),
    ):
        out, out_dim = rule(None, (dim, None), of_array(x), shape)
        looped = np.stack([fn(of_array(part), shape).payload for part in parts])
        assert out_dim == 0
        np.testing.assert_allclose(out.payload, looped)


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">c16", ">i4"])
def test_bytes_in_the_other_order(dtype: str) -> None:
    """S134: what a foreign machine's bytes say is summed as the machine's own are."""
    x = np.arange(6).reshape(2, 3).astype(dtype)
    summed = sum_to(of_array(x), [1, 3])
    assert summed.dtype == x.dtype
    assert summed.tolist() == [x.sum(0).tolist()]
    if x.dtype.kind == "f":
        total = grad(lambda t: OPS["sum"](expand_to(t, [4, 2, 3])))
        assert total(of_array(x)).tolist() == [[4] * 3] * 2

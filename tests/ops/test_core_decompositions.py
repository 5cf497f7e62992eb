"""Each built-in decomposition computes what its operator computes: values, dtypes, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.autograd import grad
from polyop.dispatch.operator import OpOverload
from polyop.layers.trace import make_fx
from polyop.ops.decompositions import core_decompositions
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, is_floating, of_array

TABLE = core_decompositions()
Draw = Callable[[st.SearchStrategy[Any]], Any]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, math.inf, -math.inf, math.nan, 1e30, -1e30, 40.0, -700.0]

floats = st.one_of(st.sampled_from(SPECIAL), st.floats(-5, 5, width=32))
smooth = st.floats(-3, 3, width=32).map(lambda v: v + math.copysign(0.0625, v))
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
dtypes = st.sampled_from(["float64", "float32", "float16", "int64", "int8", "uint8", "bool"])


def array(draw: Draw, shape: tuple[int, ...], dtype: str, values: Any) -> Tensor:
    size = math.prod(shape)
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        values = st.integers(0, 1) if dtype == "bool" else st.integers(0, 7)
    found = draw(st.lists(values, min_size=size, max_size=size))
    with np.errstate(all="ignore"):
        made = np.array(found, "float64").astype(dtype).reshape(shape)
    return of_array(np.asarray(made, order=draw(st.sampled_from("CF"))))


def axes(draw: Draw, ndim: int) -> list[int] | None:
    some = st.lists(st.integers(-ndim, ndim - 1), max_size=2, unique_by=lambda a: a % ndim)
    return draw(st.one_of(st.none(), some)) if ndim else None


def reduction(draw: Draw, x: Tensor) -> tuple[Any, dict[str, Any]]:
    return (x,), {"axis": axes(draw, x.ndim), "keepdims": draw(st.booleans())}


def moments(draw: Draw, x: Tensor) -> Any:
    args, kwargs = reduction(draw, x)
    return args, kwargs | {"correction": draw(st.sampled_from([0.0, 1.0, 0.5]))}


def along(draw: Draw, x: Tensor) -> Any:
    return (x, draw(st.integers(-x.ndim, x.ndim - 1))), {}


def unary(draw: Draw, x: Tensor) -> Any:
    return (x,), {}


def fellow(draw: Draw, x: Tensor, values: Any) -> Tensor:
    """Draw a tensor that broadcasts with another."""
    shape = tuple(draw(st.sampled_from([n, 1])) for n in x.shape)
    return array(draw, shape, x.dtype.name, values)


def binary(draw: Draw, x: Tensor, values: Any) -> Any:
    return (x, fellow(draw, x, values)), {}


def number(draw: Draw, x: Tensor, values: Any) -> Any:
    return (x, draw(values)), {}


def number_first(draw: Draw, x: Tensor, values: Any) -> Any:
    return (draw(values), x), {}


def ternary(draw: Draw, x: Tensor, values: Any) -> Any:
    scale = draw(st.sampled_from([1, 2, 0.5, 1.0]))
    return (x, fellow(draw, x, values), fellow(draw, x, values)), {"value": scale}


def lerp(draw: Draw, x: Tensor, values: Any) -> Any:
    return (x, fellow(draw, x, values), fellow(draw, x, values)), {}


def lerp_number(draw: Draw, x: Tensor, values: Any) -> Any:
    return (x, fellow(draw, x, values), draw(st.sampled_from([0.25, 1, 0.0]))), {}


def fill(draw: Draw, x: Tensor, values: Any) -> Any:
    mask = array(draw, x.shape, "bool", values)
    return (x, mask, draw(st.sampled_from([0, 2, 3.0]))), {}


def fill_tensor(draw: Draw, x: Tensor, values: Any) -> Any:
    mask = array(draw, x.shape, "bool", values)
    return (x, mask, array(draw, (), "float64", st.floats(0, 5))), {}


def triangle(draw: Draw, x: Tensor) -> Any:
    return (x, draw(st.integers(-3, 3))), {}


def spread(draw: Draw, x: Tensor) -> Any:
    keep, axis = draw(st.booleans()), axes(draw, x.ndim)
    small = polyop.sum(x, axis=axis, keepdims=keep, dtype=x.dtype)
    return (small, list(x.shape), axis, keep), {}


def mean_grad(draw: Draw, x: Tensor) -> Any:
    return spread(draw, x)


def exchange(draw: Draw, x: Tensor) -> Any:
    axis = st.integers(-x.ndim, x.ndim - 1)
    return (x, draw(axis), draw(axis)), {}


def stack(draw: Draw, x: Tensor, values: Any) -> Any:
    others = [array(draw, x.shape, x.dtype.name, values) for _ in range(draw(st.integers(0, 2)))]
    return ([x, *others], draw(st.integers(-x.ndim - 1, x.ndim))), {}


def vecdot(draw: Draw, x: Tensor, values: Any) -> Any:
    return (x, array(draw, x.shape, x.dtype.name, values)), {"axis": draw(st.integers(-x.ndim, -1))}


def sizes(draw: Draw, x: Tensor) -> Any:
    return (list(x.shape),), {"dtype": draw(st.sampled_from([None, x.dtype]))}


def like(draw: Draw, x: Tensor) -> Any:
    return (x,), {"dtype": draw(st.sampled_from([None, np.dtype("float32")]))}


#: For each operator: how its arguments are drawn, whether values are too, the fewest axes.
INPUTS: dict[str, tuple[Any, bool, int]] = {
    **dict.fromkeys(["square", "rsqrt", "exp2", "log2", "log10"], (unary, False, 0)),
    **dict.fromkeys(["softplus", "isfinite"], (unary, False, 0)),
    "matrix_transpose": (unary, False, 2),
    **dict.fromkeys(["hypot", "logaddexp"], (binary, True, 0)),
    **dict.fromkeys(["hypot.Scalar", "logaddexp.Scalar"], (number, True, 0)),
    **dict.fromkeys(["hypot.ScalarTensor", "logaddexp.ScalarTensor"], (number_first, True, 0)),
    **dict.fromkeys(["addcmul", "addcdiv"], (ternary, True, 0)),
    "lerp": (lerp, True, 0),
    "lerp.Scalar": (lerp_number, True, 0),
    **dict.fromkeys(["mean", "norm2", "count_nonzero", "all", "logsumexp"], (reduction, False, 0)),
    **dict.fromkeys(["var", "std"], (moments, False, 0)),
    "deviation": (moments, False, 0),
    **dict.fromkeys(["softmax", "log_softmax"], (along, False, 1)),
    "vecdot": (vecdot, True, 1),
    "spread": (spread, False, 0),
    "mean_grad": (mean_grad, False, 0),
    "masked_fill": (fill_tensor, True, 0),
    "masked_fill.Scalar": (fill, True, 0),
    **dict.fromkeys(["tril", "triu"], (triangle, False, 2)),
    "stack": (stack, True, 0),
    **dict.fromkeys(["transpose", "moveaxis"], (exchange, False, 1)),
    **dict.fromkeys(["zeros", "ones"], (sizes, False, 0)),
    **dict.fromkeys(["zeros_like", "ones_like"], (like, False, 0)),
}


def operator(name: str) -> OpOverload:
    packet, _, overload = name.partition(".")
    found: OpOverload = getattr(getattr(polyop.ops.core, packet), overload or "default")
    return found


def drawn(draw: Draw, name: str, dtype: str, values: Any) -> Any:
    make, with_values, least = INPUTS[name]
    shape = draw(shapes.filter(lambda s: len(s) >= least))
    x = array(draw, shape, dtype, values)
    with np.errstate(all="ignore"):
        args, kwargs = make(draw, x, values) if with_values else make(draw, x)
    if name == "deviation":
        args, kwargs = (args[0], kwargs["axis"], kwargs["correction"]), {}
    return args, kwargs


def outcome(fn: Any, args: Any, kwargs: Any) -> Any:
    with np.errstate(all="ignore"):
        return fn(*args, **kwargs)


def agree(got: Any, wanted: Any, loose: bool = False) -> None:
    a, b = got.detach().numpy(), wanted.detach().numpy()
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if all(n > 1 for n in a.shape) and not loose:
        assert a.strides == b.strides
    rtol = {"float16": 2e-2, "float32": 2e-5}.get(b.dtype.name, 1e-9) * (100 if loose else 1)
    with np.errstate(all="ignore"):
        assert np.allclose(a.astype("float64"), b.astype("float64"), rtol, rtol, equal_nan=True)


def test_every_decomposition_is_tried() -> None:
    """S199: what stands in the table stands in this test."""
    assert {op.name().removeprefix("core::") for op in TABLE} == set(INPUTS)
    assert all(Tag.core in op.tags for op in TABLE)


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_values_and_dtypes(name: str, data: st.DataObject) -> None:
    """S199, S197: a decomposition equals its operator: values, infinities, NaN, dtypes, strides."""
    args, kwargs = drawn(data.draw, name, data.draw(dtypes), floats)
    op = operator(name)
    try:
        wanted = outcome(op, args, kwargs)
    except (polyop.errors.PolyopError, TypeError, ValueError, OverflowError):
        return  # the operator does not take it
    agree(outcome(TABLE[op], args, kwargs), wanted)


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_gradients(name: str, data: st.DataObject) -> None:
    """S199: gradients of a decomposition equal those of its operator, zeros and ties included."""
    values = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), smooth)
    op = operator(name)
    if name in {"hypot", "hypot.Scalar", "hypot.ScalarTensor", "rsqrt", "log2", "log10", "addcdiv"}:
        values = smooth.map(abs)  # elsewhere they are not defined
    args, kwargs = drawn(data.draw, name, "float64", values)
    if name == "mean_grad" and 0 in args[1]:
        return  # the operator's own gradient is the mean of no elements: NaN
    found = []
    for fn in (op, TABLE[op]):
        given_ = [_marked(a) for a in args]
        inputs = [t for a in given_ for t in (a if isinstance(a, list) else [a])]
        inputs = [t for t in inputs if isinstance(t, Tensor) and is_floating(t.dtype)]
        result = outcome(fn, given_, kwargs)
        if not result.requires_grad:
            found.append([])
            continue
        weights = of_array(np.linspace(0.5, 1.5, result.size).reshape(result.shape))
        with np.errstate(all="ignore"):
            found.append(grad([result], inputs, [weights], allow_unused=True))
    wanted, got = found
    for a, b in zip(got, wanted, strict=True):
        if b is not None:
            agree(a, b, loose=True)


def _marked(value: Any) -> Any:
    if isinstance(value, list):
        return [_marked(v) for v in value]
    if isinstance(value, Tensor) and is_floating(value.dtype):
        return of_array(value.numpy().copy()).requires_grad_()
    return value


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=3, deadline=None)
@given(st.data())
def test_a_symbolic_trace_is_the_operator(name: str, data: st.DataObject) -> None:
    """S199, S209: a trace with the table has none of its operators, and gives what they give."""
    args, kwargs = drawn(data.draw, name, "float32", st.floats(0.5, 2, width=32))
    op = operator(name)
    tensors = [t for a in args for t in (a if isinstance(a, list) else [a])]
    places = [i for i, t in enumerate(tensors) if isinstance(t, Tensor)]

    def program(*given: Tensor) -> Any:
        rest = iter(given)
        put = [
            [next(rest) for _ in a] if isinstance(a, list) and a and isinstance(a[0], Tensor) else
            next(rest) if isinstance(a, Tensor) else a
            for a in args
        ]  # fmt: skip
        return op(*put, **kwargs)

    inputs = [tensors[i] for i in places]
    traced = make_fx(program, "symbolic", decomposition_table=TABLE)(*inputs)
    assert not {node.target for node in traced.graph.nodes} & set(TABLE)
    agree(outcome(traced, inputs, {}), outcome(program, inputs, {}))

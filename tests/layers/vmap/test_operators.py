"""The law of batching: for every built-in operator, the rule equals the loop (S157)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.layers.vmap.oracle import arrays, looped, patterns, put_batch

import polyop.assembly  # noqa: F401
from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import ArgumentError, VmapError
from polyop.layers.vmap import vmap
from polyop.ops import views
from polyop.ops.elementwise import add
from polyop.ops.inplace import add_, copy_, multiply_
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, of_array

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
BUILT_IN = [d.op for d in DEFINITIONS.values() if d.op.is_builtin]
POINTWISE = [
    op
    for op in BUILT_IN
    if Tag.pointwise in op.tags
    and not op._schema.is_mutable
    and all(str(a.type) != "str" for a in op._schema.arguments)
]
WRITING = [op for op in BUILT_IN if Tag.pointwise in op.tags and op._schema.is_mutable]

X = np.array([[0.1, 0.7, 0.3], [0.5, 0.9, 0.2]])
SHAPES: list[tuple[int, ...]] = [(2, 3), (3,), (2, 1), ()]

#: For operators that are not pointwise: arguments, with arrays where tensors go.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "sum_to": [(X, [3]), (X, [1, 3]), (X, [])],
    "expand_to": [(X, [4, 2, 3]), (X[:1], [2, 3])],
    "sum": [(X, None, None, False), (X, [1], None, True), (X, [-1, 0], None, False)],
    "max": [(X, [0], False)],
    "min": [(X, None, True)],
    "any": [(X > 0.5, [1], False)],
    "all": [(X > 0.0, None, False)],
    "count_nonzero": [(X, [1], False)],
    "argmax": [(X, 1, False), (X, None, False)],
    "argmin": [(X, 0, True)],
    "prod": [(X, [1], None, False)],
    "reshape": [(X, [3, 2]), (X, [-1]), (X, [6, 1])],
    "view": [(X, [2, 3, 1])],
    "permute_dims": [(X, [1, 0])],
    "transpose": [(X, 0, 1), (X, -1, 0)],
    "matrix_transpose": [(X,)],
    "moveaxis": [(X, 0, 1), (X, -1, 0)],
    "squeeze": [(X[:1], None), (X[:1], [0])],
    "expand_dims": [(X, 0), (X, -1), (X, 1)],
    "broadcast_to": [(X, [4, 2, 3])],
    "select": [(X, 0, 1), (X, -1, -1)],
    "slice": [(X, 1, 1, None, 1), (X, -1, None, None, -1)],
    "diagonal": [(X, 0, 0, 1), (X, 1, 1, 0)],
    "flip": [(X, None), (X, [-1])],
    "alias": [(X,)],
    "contiguous": [(X,), (X.T,)],
    "detach": [(X,)],
    "real_part": [(X * (1 + 2j),)],
    "imag_part": [(X * (1 + 2j),)],
    "matmul": [(X, X.T), (X, X[0]), (X[:, 0], X), (X[0], X[0]), (np.stack([X, X]), X.T)],
    "vecdot": [(X, X, -1), (X, X[0], -1)],
    "zero_like": [(X,)],
    "select_scatter": [(X, X[0], 0, 1)],
    "slice_scatter": [(X, X[:, :2], 1, 0, 2, 1)],
    "diagonal_scatter": [(X, X[0, :2], 0, 0, 1)],
    "select_grad": [(X[0], [2, 3], 0, 1)],
    "slice_grad": [(X[:, :2], [2, 3], 1, 0, 2, 1)],
    "concat": [([X, X], 0), ([X, X[:1]], -2), ([X, X], None)],
    "stack": [([X, X], 0), ([X, X], -1)],
    "pad": [(X, [1, 0], [0, 2], 0)],
    "tril": [(X, 0)],
    "triu": [(X, 1)],
    "index": [(X, [np.array([0, 1, 1])]), (X, [np.array([0, 1]), np.array([2, 0])])],
    "index_put": [(X, [np.array([0])], X[:1], False)],
}
OTHERS = [
    (op, i)
    for op in BUILT_IN
    if op._opname in CALLS and op._overloadname == "default"
    for i in range(len(CALLS[op._opname]))
]


def pointwise_args(op: OpOverload) -> list[Any]:
    """Give arrays of shapes that broadcast, and numbers."""
    args: list[Any] = []
    for argument in op._schema.arguments:
        kind, text = leaf_kind(argument.type), str(argument.type)
        if kind in {"tensor", "tensor?"}:
            args.append(X + len(args))
        elif argument.has_default_value():
            args.append(argument.default_value)
        else:
            args.append({"Scalar": 2, "int": 1, "ScalarType": np.dtype("float32")}.get(text, 1.5))
    return args


def check(op: OpOverload, args: list[Any], size: int = 4) -> None:
    """Compare the rule with the loop, for every way of mapping the tensors."""
    leaves, structure = tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray)]

    def call(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for i, t in zip(places, tensors, strict=True):
            filled[i] = t
        return dispatch(op, tree.unflatten(structure, filled))

    for dims in patterns(len(places)):
        given = [put_batch(leaves[i], d, size, i) for i, d in zip(places, dims, strict=True)]
        want = looped(call, dims, *given)
        got = arrays(vmap(call, dims)(*given))
        tree.map_leaves(np.testing.assert_allclose, got, want)
        tree.map_leaves(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), got, want)


def works(op: OpOverload, args: list[Any]) -> bool:
    """Tell whether the operator takes these arguments at all."""
    try:
        dispatch(op, [of_array(a.copy()) if isinstance(a, np.ndarray) else a for a in args])
    except (ArgumentError, TypeError):
        return False
    return True


@pytest.mark.parametrize("op", POINTWISE, ids=lambda op: op.name())
@pytest.mark.parametrize("kind", ["f8", "i8", "?"])
def test_pointwise_operators(op: OpOverload, kind: str) -> None:
    """S157: a pointwise operator on batches of any ranks is the loop over samples."""
    args = [a.astype(kind) if isinstance(a, np.ndarray) else a for a in pointwise_args(op)]
    if not works(op, args):
        pytest.skip(f"not defined for {kind}")
    check(op, args)
    tensors = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]
    for shape in SHAPES:
        for i in tensors[:2]:
            smaller = list(args)
            smaller[i] = args[i].reshape(-1)[: int(np.prod(shape))].reshape(shape).copy()
            if works(op, smaller):
                check(op, smaller)


@pytest.mark.parametrize(
    ("op", "i"), OTHERS, ids=lambda x: x.name() if isinstance(x, OpOverload) else x
)
def test_other_operators(op: OpOverload, i: int) -> None:
    """S157: every other operator's rule equals the loop, for each way of mapping its tensors."""
    check(op, list(CALLS[op._opname][i]))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("op", WRITING, ids=lambda op: op.name())
def test_writing_operators(op: OpOverload) -> None:
    """S159: a write inside vmap writes each sample of the caller's memory, wherever its axis is."""
    args = pointwise_args(op)
    kind = "f8" if works(op, args) else "i8"
    args = [a.astype(kind) if isinstance(a, np.ndarray) else a for a in args]
    places = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]

    def call(*tensors: Tensor) -> Any:
        filled = list(args)
        for i, t in zip(places, tensors, strict=True):
            filled[i] = t
        return dispatch(op, filled)

    for dims in patterns(len(places)):
        given = [put_batch(args[i], d, 4, i) for i, d in zip(places, dims, strict=True)]
        before = [t.numpy().copy() for t in given]
        if dims[0] is None:
            with pytest.raises(VmapError, match="writes argument"):
                vmap(call, dims)(*given)
            np.testing.assert_array_equal(given[0].numpy(), before[0])
            continue
        want = looped(call, dims, *given)
        version = given[0]._version
        got = vmap(call, dims)(*given)
        assert given[0].shape == before[0].shape
        assert given[0]._version == version + 1
        np.testing.assert_allclose(got.numpy(), want)
        np.testing.assert_allclose(np.moveaxis(given[0].numpy(), dims[0], 0), want)


def test_writes_through_views_are_seen() -> None:
    """S159: a write through a view of a sample reaches the sample and the caller's memory."""
    x = of_array(X.copy())

    def f(a: Tensor) -> Tensor:
        part = views.select(a, 0, 1)
        multiply_(part, of_array(np.array(10.0)))
        return add(a, a)

    got = vmap(f, 1)(x)
    want = X.copy()
    want[1] *= 10
    np.testing.assert_allclose(x.numpy(), want)
    np.testing.assert_allclose(got.numpy(), 2 * want.T)


def test_a_larger_result_cannot_be_written() -> None:
    """S159: what does not fit into the written sample is refused, as it is outside of vmap."""
    x = of_array(np.zeros((2, 3)))
    with pytest.raises(ArgumentError):
        vmap(add_)(x, of_array(np.zeros((2, 2, 3))))
    with pytest.raises(ArgumentError):
        vmap(copy_, (0, None))(x, of_array(np.zeros((2, 3))))

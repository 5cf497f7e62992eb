"""Axes are those of a sample: every built-in operator under vmap, against the loop (S206)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.layers.vmap.oracle import arrays, looped

import polyop
from polyop import Tensor
from polyop.dispatch.late_operators import LATE_OPERATORS, bring
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import ArgumentError, OutOfRangeError, PolyopError
from polyop.func import vmap
from polyop.tensor.tensor import of_array

for _name in ("core::add", *LATE_OPERATORS):
    bring(_name)

AXES = {"axis", "axes", "axis1", "axis2", "source", "destination"}
#: Gradients call these, with axes that were checked.
INNER = {"core::spread", "core::peaks", "core::mean_grad"}
OPERATORS = [
    d.op
    for name, d in DEFINITIONS.items()
    if name.startswith("core::")
    and name not in INNER
    and AXES & {a.name for a in d.op._schema.arguments}
]
#: A sample has two elements along each axis, so that a wrong axis does not show by its size.
STATIC = {"k": 1, "index": 0, "n": 2}
RANGE = range(-4, 4)


def axes_of(argument: Any) -> list[Any]:
    """Give what an axis argument is tried with."""
    kind = str(argument.type)
    none: list[Any] = [None] if kind.endswith("?") else []
    if "[" in kind:
        return [*none, [], *[[i] for i in RANGE], [0, 1], [1, 0], [-1, 0], [0, -2]]
    return [*none, *RANGE]


def batch_of(op: Any, argument: Any, ndim: int, dim: int | None) -> Tensor:
    """Give a batch of two samples along `dim`, or one sample."""
    view = op.name().startswith(("core::select_", "core::diagonal_"))
    ndim = max(ndim - 1, 0) if argument.name == "part" and view else ndim
    shape = [2] * (ndim + (dim is not None))
    rng = np.random.default_rng(len(argument.name))
    if argument.name == "indices":
        return of_array(rng.integers(0, 2 if ndim else 1, shape))
    x = np.asarray(rng.normal(size=shape))
    return of_array(x + 1j * x[::-1] if op.name() in {"core::fft_c2c", "core::fft_c2r"} else x)


def batches(op: Any, tensors: list[Any], ndim: int) -> Iterator[tuple[Any, list[Tensor]]]:
    """Give all ways of mapping an operator's tensors over axis 0, axis 1, or not at all."""
    for dims in product((0, 1, None), repeat=len(tensors)):
        some = any(d is not None for d in dims)
        if some and all(
            d != 1 or ndim > (a.name == "part") for d, a in zip(dims, tensors, strict=True)
        ):
            yield dims, [batch_of(op, a, ndim, d) for a, d in zip(tensors, dims, strict=True)]


def called(op: Any, tensors: list[Any], named: dict[str, Any], given: Sequence[Tensor]) -> Any:
    """Call an operator with tensors, and lists of them where it takes lists."""
    pairs = zip(tensors, given, strict=True)
    return op(**named, **{a.name: [x, x] if "[" in str(a.type) else x for a, x in pairs})


def result_of(fn: Callable[[], Any]) -> Any:
    """Give the arrays of a result, or None for an error of ours."""
    try:
        return arrays(fn())
    except PolyopError:
        return None


@pytest.mark.parametrize("ndim", [0, 1, 2, 3])
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name())
def test_an_axis_is_one_of_the_sample(op: Any, ndim: int) -> None:
    """S206: a batch gives what the loop gives, and refuses an axis that one sample has not."""
    arguments = op._schema.arguments
    tensors = [a for a in arguments if str(a.type).startswith("Tensor")]
    axes = [a for a in arguments if a.name in AXES]
    statics = STATIC | {"shape": [2] * ndim}
    rest = {a.name: statics.get(a.name, a.default_value) for a in arguments if a not in tensors}
    for dims, given in batches(op, tensors, ndim):
        for chosen in product(*map(axes_of, axes)):
            named = rest | {a.name: axis for a, axis in zip(axes, chosen, strict=True)}
            fn = partial(lambda named, *xs: called(op, tensors, named, xs), named)
            wanted = result_of(partial(looped, fn, dims, *given))
            found = result_of(partial(vmap(fn, in_dims=dims), *given))
            assert (wanted is None) == (found is None), (dims, named)
            for a, b in zip(leaves(wanted), leaves(found), strict=True):
                np.testing.assert_allclose(a, b, err_msg=repr((dims, named)))


def leaves(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("shape", [(), (2,), (1, 2), (2, 2)])
def test_what_is_put_is_repeated_in_each_sample(shape: tuple[int, ...]) -> None:
    """S206: values with fewer axes than a sample never meet those of another sample."""
    rng = np.random.default_rng(0)
    x, values = (of_array(np.asarray(rng.normal(size=(2, *s)))) for s in ((2, 3), shape))
    places = of_array(np.array([[[0, 1], [1, 2]], [[2, 0], [0, 1]]]))
    fn = partial(polyop.ops.core.put_along_axis, axis=1)
    found = vmap(fn)(x, places, values)
    np.testing.assert_array_equal(found.numpy(), looped(fn, (0, 0, 0), x, places, values))


def test_a_refused_axis_is_named() -> None:
    """S206: the error of a batch is that of one sample."""
    x = of_array(np.ones((2, 3)))
    with pytest.raises(OutOfRangeError, match=r"axis -2 is out of range for 1 axes"):
        vmap(lambda a: polyop.take_along_axis(a, polyop.asarray([0]), axis=-2))(x)
    with pytest.raises(ArgumentError, match=r"vecdot counts its axis from the last one"):
        vmap(lambda a: polyop.vecdot(a, a, axis=-2))(x)
    with pytest.raises(ArgumentError, match=r"cumulative_sum needs an axis"):
        vmap(polyop.cumulative_sum)(of_array(np.ones((2, 3, 3))))
    with pytest.raises(OutOfRangeError, match=r"axis 3 is out of range for 0 axes"):
        vmap(vmap(lambda a: polyop.take_along_axis(a, polyop.asarray(0), axis=3)))(x)

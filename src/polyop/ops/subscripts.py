"""`x[...]` and `x[...] = y`: a key becomes views, and one `index` for the tensors in it.

Integers, slices, None and the ellipsis are views, taken first; then tensors,
arrays and lists index together. So an integer beside a tensor never moves axes.
"""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np

from polyop.dispatch.bits import NUMPY
from polyop.dispatch.context import word
from polyop.dispatch.parts import PARTS
from polyop.errors import ArgumentError, IntegerRangeError, OutOfRangeError
from polyop.lazy import load
from polyop.ops.constants import constant
from polyop.ops.define import ON_TENSORS
from polyop.ops.indexing import index, index_put_
from polyop.ops.inplace import copy_, fill_
from polyop.ops.sets import argwhere
from polyop.ops.view_metas import refuse
from polyop.ops.views import alias, expand_dims, reshape, select, slice_axis
from polyop.symbolic import SymInt
from polyop.tensor.masked import check_unmasked
from polyop.tensor.tensor import Tensor

_INTEGERS = (int, SymInt, np.integer)
#: No axis is longer.
_FAR = 2**63 - 1


def get_item(x: Any, key: Any, /) -> Any:
    """Give `x[key]`."""
    kind = key.__class__
    if kind is int:
        try:
            return select(x, 0, key)
        except IntegerRangeError:
            _not_there(key)
    if kind is slice:
        return _sliced(x, 0, key)
    view, indices = parts(x, key)
    if indices:
        return index(view, indices)
    return alias(x) if view is x else view


def set_item(x: Any, key: Any, value: Any, /) -> None:
    """Do `x[key] = value`."""
    view, indices = parts(x, key)
    if indices:
        index_put_(view, indices, _without_ones(_as_tensor("index_put_", value, x)))
    elif isinstance(value, Tensor):
        copy_(view, value if value.ndim <= view.ndim else _without_ones(value))
    elif isinstance(value, (int, float, complex)):
        fill_(view, value)
    else:
        copy_(view, _without_ones(_as_tensor("copy_", value, x)))


def put_along_axis(x: Any, indices: Any, values: Any, axis: int = -1) -> None:
    """Write values at indices along one axis into the tensor itself, as NumPy's function does.

    The operator `core::put_along_axis` gives a new tensor.
    """
    if isinstance(x, Tensor):
        indices, values = _as_index(indices), _as_tensor("put_along_axis", values, x)
    copy_(x, ON_TENSORS["put_along_axis"](x, indices, values, axis=axis))


def _without_ones(value: Any) -> Any:
    """Take off the axes of one element in front: they say nothing of what is written where."""
    shape = value.shape
    ones = 0
    while ones < len(shape) and shape[ones].__class__ is int and shape[ones] == 1:
        ones += 1
    return reshape(value, shape[ones:]) if ones else value


def _as_tensor(op: str, value: Any, x: Any) -> Any:
    """Give what is written to a tensor as one of its dtype."""
    if isinstance(value, Tensor):
        return value
    check_unmasked(value)
    try:
        return constant(np.asarray(value, dtype=x.dtype))
    except OverflowError:
        raise IntegerRangeError(
            f"an integer that is written is outside {x.dtype.name}",
            op=f"core::{op}",
            argument="values",
            declared=x.dtype.name,
            seen=f"{value!r:.80}",
            fix="write to a tensor of a wider dtype, such as polyop.int64",
        ) from None


def parts(x: Any, key: Any) -> tuple[Any, list[Any]]:
    """Give the view that the basic part of a key makes, and the tensors that index it."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [_as_index(k) for k in keys]
    view, axis = x, 0
    indices: list[Any] = []
    for i, part in enumerate(keys):
        if part is Ellipsis:
            skipped = x.ndim - sum(map(_axes_of, keys))
            if skipped < 0 or any(k is Ellipsis for k in keys[i + 1 :]):
                _too_many(x, key)
            indices += [None] * skipped
            axis += skipped
        elif part is None:
            view = expand_dims(view, axis)
            indices.append(None)
            axis += 1
        elif isinstance(part, (bool, np.bool_)) or _is_single(part):
            view = expand_dims(view, axis)
            indices.append(_of_single(part))
            axis += 1
        elif isinstance(part, Tensor):
            found = _of_mask(view, axis, part) if part.dtype == np.bool_ else [part]
            view = _past_mask(view, axis, found)
            indices += found
            axis += len(found)
        else:
            view, axis = _basic(x, view, axis, part, key)
            indices += [None] * (axis - len(indices))
    if view.ndim < axis:
        _too_many(x, key)
    while indices and indices[-1] is None:
        indices.pop()
    return view, indices


def _is_single(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == np.bool_ and not part.ndim


def _of_single(part: Any) -> Any:
    """Give what indexes the new axis of size one that a single bool stands for."""
    if not isinstance(part, Tensor):
        return constant(np.arange(int(part)))
    row = expand_dims(part, 0)
    return _of_mask(row, 0, row)[0]


def _basic(x: Any, view: Any, axis: int, part: Any, key: Any) -> tuple[Any, int]:
    if axis >= view.ndim:
        _too_many(x, key)
    if part.__class__ is slice:
        # Not part == slice(None): tensors stand in slices, and compare by element.
        whole = part.start is part.stop is part.step is None
        return (view if whole else _sliced(view, axis, part)), axis + 1
    try:
        return select(view, axis, part), axis
    except IntegerRangeError:
        _not_there(part)


def _sliced(x: Any, axis: int, part: slice) -> Any:
    step = 1 if part.step is None else part.step
    try:
        return slice_axis(x, axis, part.start, part.stop, step)
    except ArgumentError:
        ends = [_bound(n) for n in (part.start, part.stop, step)]
        if ends == [part.start, part.stop, step]:
            raise
    return slice_axis(x, axis, *ends)


def _bound(n: Any) -> Any:
    """Give an end of a slice: what only stands for an integer becomes one, of 64 bits."""
    if isinstance(n, (SymInt, Tensor)) or not hasattr(n, "__index__"):
        return n
    return max(-_FAR, min(operator.index(n), _FAR))


def _axes_of(key: Any) -> int:
    """Count the axes that a part of a key takes."""
    if key is None or key is Ellipsis or isinstance(key, (bool, np.bool_)):
        return 0
    return key.ndim if isinstance(key, Tensor) and key.dtype == np.bool_ else 1


def _as_index(key: Any) -> Any:
    """Give a part of a key as one of the kinds that are told apart."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    if isinstance(key, Tensor):
        return _checked(key)
    if isinstance(key, (bool, np.bool_, *_INTEGERS)):
        return key
    if PARTS.is_array(key) and not isinstance(key, np.ndarray):
        return _checked(load("polyop.payloads.api:from_array")(key))
    if hasattr(key, "__index__") and not isinstance(key, np.ndarray):
        return operator.index(key)
    if isinstance(key, (list, tuple, np.ndarray)):
        check_unmasked(key)
        array = np.asarray(key)
        # A list without elements says nothing of their kind; NumPy would have it float64.
        untold = not array.size and not isinstance(key, np.ndarray)
        return _checked(constant(array.astype(np.int64) if untold else array))
    return refuse(
        "index",
        f"a tensor cannot be indexed with {type(key).__name__}",
        argument="key",
        declared="integers, slices, None, ..., and tensors of integers or bools",
        seen=repr(key)[:80],
    )


def _checked(key: Any) -> Any:
    if key.dtype.kind not in "iub":
        refuse(
            "index",
            f"a tensor of {key.dtype} is no index",
            argument="key",
            declared="integers or bools",
            seen=key.dtype,
        )
    return key


def _of_mask(x: Any, axis: int, mask: Any) -> list[Any]:
    shape = tuple(x.shape[axis : axis + mask.ndim])
    same = len(shape) == mask.ndim and all(map(operator.eq, shape, mask.shape))
    if not same:
        raise OutOfRangeError(
            f"a mask of shape {tuple(mask.shape)} does not fit {shape}",
            op="core::index",
            argument="key",
        )
    if mask.keys | word() == NUMPY:
        return [constant(places) for places in mask.numpy().nonzero()]
    places = argwhere(mask)
    return [select(places, 1, i) for i in range(mask.ndim)]


def _past_mask(x: Any, axis: int, found: list[Any]) -> Any:
    if axis + len(found) > x.ndim:
        raise OutOfRangeError(
            f"too many indices for {x.ndim} axes", op="core::index", argument="key"
        )
    return x


def _not_there(key: Any) -> NoReturn:
    raise OutOfRangeError(
        "an index is outside 64 bits", op="core::index", argument="key", seen=key
    ) from None


def _too_many(x: Any, key: Any) -> NoReturn:
    raise OutOfRangeError(
        f"too many indices for a tensor of shape {tuple(x.shape)}",
        op="core::index",
        argument="key",
        declared=f"at most {x.ndim}, and one ...",
        seen=repr(key)[:80],
    )

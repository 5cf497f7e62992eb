"""`x[...]` and `x[...] = y`: a key becomes views, and one `index` for the tensors in it.

Integers, slices, None and the ellipsis are views, taken first; then tensors,
arrays and lists index together. So an integer beside a tensor never moves axes.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from polyop.dispatch.bits import NUMPY
from polyop.dispatch.context import word
from polyop.ops.factories import constant
from polyop.ops.indexing import index, index_put_
from polyop.ops.inplace import copy_, fill_
from polyop.ops.sets import argwhere
from polyop.ops.view_metas import refuse
from polyop.ops.views import alias, expand_dims, select, slice_axis
from polyop.symbolic import SymInt
from polyop.tensor.tensor import Tensor

_INTEGERS = (int, SymInt, np.integer)


def get_item(x: Any, key: Any) -> Any:
    """Give `x[key]`."""
    kind = key.__class__
    if kind is int:
        return select(x, 0, key)
    if kind is slice:
        return _sliced(x, 0, key)
    view, indices = parts(x, key)
    if indices:
        return index(view, indices)
    return alias(x) if view is x else view


def set_item(x: Any, key: Any, value: Any) -> None:
    """Do `x[key] = value`."""
    view, indices = parts(x, key)
    if indices:
        index_put_(view, indices, _as_tensor(value, x))
    elif isinstance(value, Tensor):
        copy_(view, value)
    elif isinstance(value, (int, float, complex)):
        fill_(view, value)
    else:
        copy_(view, _as_tensor(value, x))


def _as_tensor(value: Any, x: Any) -> Any:
    return value if isinstance(value, Tensor) else constant(np.asarray(value, dtype=x.dtype))


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


def _basic(x: Any, view: Any, axis: int, part: Any, key: Any) -> tuple[Any, int]:
    if axis >= view.ndim:
        _too_many(x, key)
    if part.__class__ is slice:
        return (view if part == slice(None) else _sliced(view, axis, part)), axis + 1
    return select(view, axis, part), axis


def _sliced(x: Any, axis: int, part: slice) -> Any:
    step = 1 if part.step is None else part.step
    return slice_axis(x, axis, part.start, part.stop, step)


def _axes_of(key: Any) -> int:
    """Count the axes that a part of a key takes."""
    if key is None or key is Ellipsis:
        return 0
    return key.ndim if isinstance(key, Tensor) and key.dtype == np.bool_ else 1


def _as_index(key: Any) -> Any:
    """Give a part of a key as one of the kinds that are told apart."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    if isinstance(key, Tensor):
        return _checked(key)
    if isinstance(key, (bool, np.bool_)):
        return constant(np.asarray(key))
    if isinstance(key, _INTEGERS):
        return key
    if isinstance(key, (list, tuple, np.ndarray)):
        array = np.asarray(key)
        return _checked(constant(array if array.size else array.astype(np.int64)))
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
    if len(shape) != mask.ndim or any(a != b for a, b in zip(shape, mask.shape, strict=True)):
        refuse("index", f"a mask of shape {tuple(mask.shape)} does not fit {shape}", argument="key")
    if not mask.ndim:
        return []
    if mask.keys | word() == NUMPY:
        return [constant(places) for places in mask.numpy().nonzero()]
    places = argwhere(mask)
    return [select(places, 1, i) for i in range(mask.ndim)]


def _past_mask(x: Any, axis: int, found: list[Any]) -> Any:
    if not found:
        refuse("index", "a single bool is no index", argument="key", fix="use None, or a mask")
    if axis + len(found) > x.ndim:
        refuse("index", f"too many indices for {x.ndim} axes", argument="key")
    return x


def _too_many(x: Any, key: Any) -> NoReturn:
    refuse(
        "index",
        f"too many indices for a tensor of shape {tuple(x.shape)}",
        argument="key",
        declared=f"at most {x.ndim}, and one ...",
        seen=repr(key)[:80],
    )

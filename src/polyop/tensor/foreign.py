"""Arrays of other libraries, answered in kind (S66).

An operator called with NumPy arrays alone gives NumPy arrays back: they are
wrapped, not copied, so a mutable operator writes the caller's own array.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.bits import OTHER
from polyop.dispatch.parts import PARTS
from polyop.dispatch.write import base_scope, call_text, indent, make_function, shape_of
from polyop.errors import MissingKernelError
from polyop.lazy import load
from polyop.tensor.masked import check_unmasked
from polyop.tensor.tensor import Tensor, of_array


def is_array(value: Any) -> bool:
    """Tell whether a value is an array that is no `Tensor`."""
    if isinstance(value, (Tensor, int, float, complex, bool, str, type(None), np.generic)):
        return False
    if isinstance(value, np.ndarray):
        return True
    if hasattr(value, "__array_namespace__") or hasattr(value, "__dlpack__"):
        return True
    # Arrays of Dask say neither; a module that nobody has read has made no array.
    return type(value).__module__.startswith("dask.array") or is_reference(value)


def is_reference(value: Any) -> bool:
    """Tell whether a value is a reference of JAX, whose array can be replaced."""
    cls = getattr(sys.modules.get("jax"), "Ref", None)
    return cls is not None and isinstance(value, cls)


def call_foreign(op: Any, values: Sequence[Any]) -> Any:
    """Call an operator with other libraries' arrays; the answer is in kind.

    Raises:
        ArgumentError: an array of a library that has no bridge here, or a masked one.
    """
    leaves = tree.leaves(list(values))
    if any(is_array(leaf) and not isinstance(leaf, np.ndarray) for leaf in leaves):
        return load("polyop.bridges.calls:call_foreign")(op, values)
    in_kind = not any(isinstance(leaf, Tensor) for leaf in leaves)
    n = len(op._schema.positional)
    wrapped = [tree.map_leaves(_wrapped, value) for value in values]
    names = [a.name for a in op._schema.keyword_only]
    result = op.entry(*wrapped[:n], **dict(zip(names, wrapped[n:], strict=True)))
    return tree.map_leaves(_bare, result) if in_kind else result


#: What stands where tensors are declared, in calls that are written out.
_PLAIN = {np.ndarray, Tensor, type(None)}


def quick_call(op: Any, classes: Sequence[type]) -> Callable[..., Any] | None:
    """Write the call with NumPy arrays among arguments of these classes; None for other forms."""
    shape = shape_of(op._schema)
    places = [i for i, kind in enumerate(shape.kinds) if kind != "static"]
    given = {classes[i] for i in places}
    tensors = {"tensor", "tensor?"}.issuperset(shape.kinds[i] for i in places)
    if not tensors or not given <= _PLAIN or np.ndarray not in given:
        return None
    lines = [
        f"_t = Tensor(); _t.payload = a{i}; _t.keys = 1; _t.version = 0; a{i} = _t"
        for i in places
        if classes[i] is np.ndarray
    ]
    call = call_text(shape, payloads=False, kernel="entry")
    if Tensor in given:
        lines.append(f"return {call}")
    else:
        lines += [
            f"_r = {call}",
            "if _r.__class__ is Tensor: return _r.numpy(force=True)",
            "return map_leaves(bare, _r)",
        ]
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(lines)])
    scope = base_scope(op, entry=op.entry, map_leaves=tree.map_leaves, bare=_bare)
    names = [a.name for a in op._schema.arguments]
    return make_function(text, scope, op._opname, names)


def _wrapped(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    check_unmasked(value)
    return of_array(value)


def _bare(value: Any) -> Any:
    return value.numpy(force=True) if isinstance(value, Tensor) else value


def no_backend(op: Any, code: int) -> Any:
    """Give the handler for arrays of other libraries, or refuse what has no kernel."""
    if code & OTHER:
        return load("polyop.layers.payloads:handler_of")(op, code)
    raise MissingKernelError(
        f"{op.name()} has no kernel for this payload", op=op._schema, seen=f"keys {code:#x}"
    )


PARTS.is_array = is_array
PARTS.call_foreign = call_foreign
PARTS.quick_call = quick_call
PARTS.no_backend = no_backend

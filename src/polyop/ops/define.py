"""How a built-in operator is written down: one call with its schema and all its rules.

`define` makes an operator of the namespace `core`. Its rules are:

- `kernel`: takes bare NumPy arrays where the schema has tensors, all arguments
  by position, and gives bare arrays.
- `fake`: the same with metas (`tensor/meta.py`) in the place of arrays. It says
  shape, dtype, strides and device of each result.
- `grad`: for each differentiable argument, the text of its gradient.
- `vmap`: the batching rule; elementwise operators have the tag `pointwise`
  instead, which says it all.

NOTE [Gradients are text]
A gradient is an expression over the arguments' names, `g` (the gradient of
the result; `g0`, `g1`, ... of several, zeros where nobody sent one, while `g`
is a row with None there), `r` (the result; `r0`, ...), and the names of
built-in operators. Two functions are compiled from it: one on bare arrays,
where `cos` is the kernel of `core::cos`, for the backward that nobody watches,
and one on tensors, where `cos` is the operator, for gradients that are
themselves differentiated, traced or batched. One text cannot drift from
itself, and the compiler sees which arguments it reads, so only those are kept
(PERFORMANCE section 7). Gradients of pointwise operators are summed to the
argument's shape afterwards; the text need not care. For complex numbers the
convention is PyTorch's: the gradient is conjugated, as in `g * conj(b)`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.late_operators import bring
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import define as define_schema
from polyop.dispatch.registry import places_of
from polyop.dispatch.table import Kernel
from polyop.ops.texts import text_of
from polyop.records import NamedTuple
from polyop.schema.parse import parse_schema
from polyop.schema.tags import Tag
from polyop.source import Source

Fn = Callable[..., Any]


class _Functions(dict[str, Fn]):
    """Functions by name; one whose operator is defined late is made when it is asked for."""

    def __missing__(self, name: str) -> Fn:
        bring(f"core::{name}")
        if name not in self:
            raise KeyError(name)
        return self[name]


#: For each built-in name that formulas may use: what it is on bare arrays, and on tensors.
ON_ARRAYS: dict[str, Fn] = _Functions()
ON_TENSORS: dict[str, Fn] = _Functions()


class Formula(NamedTuple):
    """The gradient of a built-in operator, as text by argument."""

    text: Mapping[str, str]


def define(
    schema: str,
    kernel: Fn,
    *,
    fake: Fn | None = None,
    grad: Mapping[str, str] | None = None,
    vmap: Fn | None = None,
    tags: tuple[Tag, ...] = (),
) -> Fn:
    """Define a built-in operator; gives the function that users call.

    A named overload is reached through the default one, or as an object: it is
    given as the object, whose entry is made when it is first used.

    Args:
        schema: without namespace, such as `"cos(Tensor x) -> Tensor"`.
        kernel: on bare arrays.
        fake: on metas; None for an operator that writes and returns nothing new.
        grad: the gradient's text for each differentiable argument; None where
            no gradient is defined (comparisons, rounding to integers, ...).
        vmap: `(info, in_dims, *args) -> (output, out_dims)`.
        tags: facts, `Tag.pointwise` among them.
    """
    parsed = parse_schema(f"core::{schema}")
    name = parsed.qualified_name
    owner, source = places_of(name), _source(kernel)
    # Rules first: put one by one under an operator that exists, each would drop what it decided.
    on_arrays = Kernel(kernel, source, owner, payload=True)
    owner.put(DispatchKey.CompositeExplicitAutograd, on_arrays)
    formula = None if grad is None else Formula(grad)
    for slot, rule in (("meta", fake), ("formula", formula), ("vmap", vmap)):
        if rule is not None:
            owner.put(slot, Kernel(rule, source, owner))  # type: ignore[arg-type]
    op = define_schema(parsed, (Tag.core, *tags), source, owner)
    if parsed.overload_name:
        return op
    entry = op.entry
    entry.__doc__ = text_of(parsed.short_name)
    ON_ARRAYS[parsed.short_name] = kernel
    ON_TENSORS[parsed.short_name] = entry
    return entry


def _source(kernel: Fn) -> Source:
    """Give the place of a kernel, or for NumPy's own the place where it is made an operator."""
    code = getattr(kernel, "__code__", None)
    if code is not None:
        return Source(code.co_filename, code.co_firstlineno)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(_DEFINERS):
        frame = frame.f_back
    return Source(frame.f_code.co_filename, frame.f_lineno)


_DEFINERS = ("define.py", "pointwise.py")


def operator_of(entry: Fn) -> OpOverload:
    """Give the operator behind a built-in function."""
    if isinstance(entry, OpOverload):
        return entry
    found: OpOverload = entry.op  # type: ignore[attr-defined]
    return found

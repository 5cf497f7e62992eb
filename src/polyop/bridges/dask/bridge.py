"""Calls of an operator with Dask's arrays, or with tensors of ours over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop import tree
from polyop.bridges.dask.arrays import da
from polyop.bridges.dask.blocks import axes_of, blocked
from polyop.bridges.dask.declared import compared, declared_whole, fits
from polyop.bridges.dask.outlines import Outline, Slot, fact_of, filled
from polyop.bridges.dask.tasks import Call
from polyop.bridges.dask.whole import is_cut, warn_whole, whole
from polyop.bridges.held import linked, written
from polyop.dispatch.bind import bind
from polyop.dispatch.chunk_rule import chunks_of
from polyop.dispatch.context import word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.errors import ArgumentError, GuardOnDataDependentError, ReturnError
from polyop.layers.fake.handlers import plan_of
from polyop.layers.payloads.authors import call_held
from polyop.payloads.api import from_array
from polyop.payloads.held import Held, of_held
from polyop.payloads.libraries import LIBRARIES
from polyop.payloads.library import Library
from polyop.schema.model import FunctionSchema
from polyop.tensor.masked import check_unmasked
from polyop.tensor.tensor import Tensor

DASK: Library = LIBRARIES["dask.array"][1]


def remove(op: OpOverload) -> None:
    """Do nothing: recipes hold the operator itself, which says that it was removed."""


def takes(op: OpOverload, values: Sequence[Any]) -> bool:
    """Tell whether a call stays a recipe; if not, its arrays are computed now, in order.

    Now means: it has an effect, writes an array of NumPy, has a result that is no tensor, or has
    no fake rule. Tensors of ours whose sizes nobody knows would be of no use to what comes next.
    """
    leaves = tree.leaves(list(values))
    tensors = any(isinstance(leaf, Tensor) for leaf in leaves)
    if op._schema.is_mutable:
        return _are_held(op, values) if tensors else _written_dask(op, values) is not None
    if op.rule("effect") is not None or not gives_arrays(op._schema):
        return False
    if plan_of(op) is None:
        if is_cut(leaves):
            warn_whole(op, "soon as it is called, on whole arrays, for it has no fake rule")
        return False
    return not tensors or _sizes_known(op, values)


def gives_arrays(schema: FunctionSchema) -> bool:
    """Tell whether all results are tensors, or lists of them."""
    return bool(schema.returns) and all(
        str(r.type).partition("[")[0] == "Tensor" for r in schema.returns
    )


def _are_held(op: OpOverload, values: Sequence[Any]) -> bool:
    """Tell whether what a call writes are tensors over Dask's arrays."""
    twin = op.functional
    pairs = zip(op._schema.arguments, values, strict=True)
    targets = [t for a, v in pairs if a.is_write for t in tree.leaves(v) if isinstance(t, Tensor)]
    known = gives_arrays(twin._schema) and plan_of(op) is not None and op.rule("effect") is None
    return (
        known and all(t.payload.__class__ is Held for t in targets) and _sizes_known(twin, values)
    )


def _sizes_known(op: OpOverload, values: Sequence[Any]) -> bool:
    try:
        _, _, outline = _described(op, values)
    except GuardOnDataDependentError:
        return False
    return all(fact.is_known for fact in outline.facts)


# -- calls ------------------------------------------------------------------------------------


def call(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with Dask's arrays; its results are such arrays.

    Raises:
        ArgumentError: it writes an argument, which Dask's arrays never let happen.
        GuardOnDataDependentError: it asks for a size that Dask has not computed.
    """
    if op._schema.is_mutable:
        _refuse_write(op, values)
    if word():  # someone watches: through the layers, down to `call_tensors`
        return call_held(op, values)
    return _structured(op, *_laid(op, values))


def call_tensors(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with tensors of ours over Dask's arrays; its results are such tensors."""
    if op._schema.is_mutable:
        return written(op, values, call_tensors)
    arrays, outline = _laid(op, values)
    made = _structured(op, [of_held(Held(x, DASK)) for x in arrays], outline)
    return linked(op, values, made)


def _structured(op: OpOverload, leaves: Sequence[Any], outline: Outline) -> Any:
    made = tree.unflatten(outline.spec, leaves)
    return tuple(made) if len(op._schema.returns) > 1 else made


def _laid(op: OpOverload, values: Sequence[Any]) -> tuple[list[Any], Outline]:
    """Give the recipes of the results."""
    template, given, outline = _described(op, values)
    operands = [_kept(x) for x in given]
    task = Call(op, template, declared_whole(outline.facts))
    if chunks_of(op) is not None and not isinstance(chunks_of(op), tuple):
        return _by_rule(op, template, operands, outline), outline
    axes = axes_of(op, len(operands), len(outline.facts))
    made = None
    if axes is not None:
        made = blocked(task, axes, [_chunked(x) for x in operands], outline.facts)
    elif is_cut(operands):
        warn_whole(op)
    return whole(task, operands, outline.facts) if made is None else made, outline


def _described(op: OpOverload, values: Sequence[Any]) -> tuple[list[Any], list[Any], Outline]:
    """Give the arguments with slots for arrays, the arrays, and what is known of the results."""
    operands: list[Any] = []

    def taken(leaf: Any) -> Any:
        array = _array(op, leaf)
        if array is None:
            return leaf
        operands.append(array)
        return Slot.ARRAY

    template = [tree.map_leaves(taken, value) for value in values]
    facts = tuple([fact_of(x) for x in operands])
    return template, operands, Call(op, template).outlines.of(facts)


def _array(op: OpOverload, leaf: Any) -> Any:
    """Give the array that a leaf is, or holds; None if it is something else."""
    if isinstance(leaf, Tensor):
        held = leaf.payload
        return DASK.ready(held.array) if held.__class__ is Held else held
    if not PARTS.is_array(leaf):
        return None
    if not isinstance(leaf, da.Array):
        check_unmasked(leaf)
        return leaf
    DASK.check(leaf)
    return DASK.ready(leaf)


def _kept(x: Any) -> Any:
    # A recipe must not see what is written to an array of NumPy later.
    return x if isinstance(x, da.Array) else np.array(x)


def _chunked(x: Any) -> Any:
    return x if isinstance(x, da.Array) else da.from_array(x, chunks=-1)


# -- rules of authors -------------------------------------------------------------------------


def _by_rule(
    op: OpOverload, template: Sequence[Any], operands: Sequence[Any], outline: Outline
) -> list[Any]:
    """Give what the author's rule makes of a call.

    Raises:
        ReturnError: its results are not as the fake rule says.
    """
    rule: Callable[..., Any] = chunks_of(op)  # type: ignore[assignment]
    values = filled(template, map(_chunked, operands))
    names = [a.name for a in op._schema.keyword_only]
    n = len(values) - len(names)
    made = rule(_runner(op), *values[:n], **dict(zip(names, values[n:], strict=True)))
    arrays = tree.leaves(made)
    if len(arrays) != len(outline.facts):
        _differs(op, "the number of results", len(outline.facts), len(arrays))
    for i, (x, fact) in enumerate(zip(arrays, outline.facts, strict=True)):
        if not isinstance(x, da.Array):
            _differs(op, f"result {i}", "an array of Dask", type(x).__name__)
        if not fits(x.shape, fact.shape) or x.dtype != fact.dtype:
            _differs(op, f"result {i}", fact, fact_of(x))
    return [compared(op, i, x) for i, x in enumerate(arrays)]


def _runner(op: OpOverload) -> Callable[..., Any]:
    """Give the function that runs the kernel on whole arrays, for an author's rule."""

    def run(*args: Any, **kwargs: Any) -> Any:
        named = {name: _wrapped(value) for name, value in kwargs.items()}
        values = bind(op, [_wrapped(value) for value in args], named)
        template, given, outline = _described(op, values)
        task = Call(op, template, declared_whole(outline.facts))
        return _structured(op, whole(task, [_kept(x) for x in given], outline.facts), outline)

    return run


def _wrapped(value: Any) -> Any:
    return tree.map_leaves(lambda x: from_array(x) if PARTS.is_array(x) else x, value)


def _differs(op: OpOverload, what: str, declared: object, seen: object) -> None:
    raise ReturnError(
        f"{what} of the chunks rule of {op.name()} is not what the fake rule says",
        op=op._schema,
        declared=declared,
        seen=seen,
        source=op.rule_source("chunks"),
        fix="give arrays of the shapes and dtypes that the operator gives; nan is right for a "
        "size that depends on data",
    )


# -- writes -----------------------------------------------------------------------------------


def _written_dask(op: OpOverload, values: Sequence[Any]) -> tuple[Any, Any] | None:
    """Give the first argument that is written and is Dask's, and its value."""
    for argument, value in zip(op._schema.arguments, values, strict=True):
        if argument.is_write and any(isinstance(x, da.Array) for x in tree.leaves(value)):
            return argument, value
    return None


def _refuse_write(op: OpOverload, values: Sequence[Any]) -> None:
    found = _written_dask(op, values)
    assert found is not None
    raise ArgumentError(
        f"{op.name()} writes its argument {found[0].name!r}, and arrays of Dask are never written",
        op=op._schema,
        argument=found[0].name,
        seen=type(tree.leaves(found[1])[0]).__name__,
        source=op.source,
        fix=f"call its functional twin, {op.functional.name()}, which returns the new value "
        "(op.functional); or wrap the array: t = polyop.from_array(x); after the call "
        "polyop.to_array(t) is the new array",
    )

"""Batching rules, built-in and of authors: what they get, and checks of what they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, NoReturn

from polyop import tree
from polyop.dispatch.bits import BATCHED
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import converted, describe
from polyop.errors import VmapError
from polyop.layers.rule_notes import note_rule
from polyop.layers.vmap.batch import VmapInfo, VmapLevel, batched, peel_all
from polyop.schema.tags import Tag
from polyop.schema.values import Mismatch
from polyop.tensor.storage import Version, share, shares_memory
from polyop.tensor.tensor import Tensor


class Known(NamedTuple):
    """What is known of an operator's batching rule, until something is registered.

    Attributes:
        rule: the rule.
        named: the keyword-only arguments that it takes by name.
        single: whether the operator gives one new tensor.
    """

    rule: Callable[..., Any]
    named: tuple[str, ...]
    single: bool


def _known(op: OpOverload) -> Known:
    # Built-in rules are ours and take all by position, as kernels do.
    named = () if op.is_builtin else tuple([a.name for a in op._schema.keyword_only])
    return Known(op.rule("vmap"), named, result_forms(op._schema) == _ONE_NEW)


def run_rule(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run the operator's batching rule with the level off, and wrap its results."""
    try:
        known = op.notes["vmap rule"]
    except KeyError:
        known = op.note("vmap rule", _known)
    values, dims = peel_all(level, op, args)
    outer = word()
    try:
        set_word(level.below())
        if known.named:
            given = _called(known, level, values, dims)
        else:
            given = known.rule(level.info, tuple(dims), *values)
    except Exception as error:
        note_rule(error, op, "vmap rule")
        raise
    finally:
        set_word(outer)
    if not isinstance(given, tuple) or len(given) != 2:
        _refuse(op, "must return two values", "(output, out_dims)", describe(given))
    output, out_dims = given
    if known.single and output.__class__ is Tensor and out_dims.__class__ is int:
        return batched(output, check_axis(level, op, "result 0", output, out_dims), level)
    return wrap_results(level, op, args, output, out_dims)


def _called(known: Known, level: VmapLevel, values: Sequence[Any], dims: Sequence[Any]) -> Any:
    """Call a rule that takes arguments by name."""
    n = len(values) - len(known.named)
    info = VmapInfo(
        level.batch_size, level.randomness, dict(zip(known.named, dims[n:], strict=True))
    )
    named = dict(zip(known.named, values[n:], strict=True))
    return known.rule(info, tuple(dims[:n]), *values[:n], **named)


def wrap_results(
    level: VmapLevel, op: OpOverload, args: Sequence[Any], output: Any, out_dims: Any
) -> Any:
    """Wrap each result by its axis.

    Raises:
        VmapError: number, structure, axis or size does not fit (S158).
    """
    forms = op.notes.get("vmap forms")
    if forms is None:
        forms = op.notes["vmap forms"] = result_forms(op._schema)
    if not forms:
        if output is not None:
            _refuse(op, "must give no result", "(None, None)", describe(output))
        return None
    outputs = [output] if len(forms) == 1 else _several(op, output, len(forms), "results")
    dims = _spread(op, out_dims, len(forms))
    if not op.is_builtin:
        outputs = [_typed(op, i, value) for i, value in enumerate(outputs)]
    done = [
        _result(op, args, form, _wrap(level, op, f"result {i}", value, dim))
        for i, (value, dim, form) in enumerate(zip(outputs, dims, forms, strict=True))
    ]
    return done[0] if len(forms) == 1 else tuple(done)


_ONE_NEW = (("new", -1),)


def _typed(op: OpOverload, i: int, value: Any) -> Any:
    """Give a result as the schema declares it; what was written is an argument in any case."""
    declared = op._schema.returns[i]
    if declared.is_write:
        return value
    try:
        value = converted(declared.type, value)
    except Mismatch:
        where = f"result {i}"
        _refuse(op, f"gives a wrong type as {where}", declared.type, describe(value), where)
    return value


def _several(op: OpOverload, value: Any, n: int, what: str) -> list[Any]:
    if not isinstance(value, (tuple, list)) or len(value) != n:
        _refuse(op, f"must give {n} {what}", f"{n} {what}", describe(value))
    return list(value)


def _spread(op: OpOverload, out_dims: Any, n: int) -> list[Any]:
    """Give an entry of `out_dims` to each result; one number serves them all."""
    if n == 1:
        # A rule may write the axes of its only result as a tuple of one.
        single = isinstance(out_dims, tuple) and len(out_dims) == 1
        return [out_dims[0] if single else out_dims]
    if out_dims is None or isinstance(out_dims, int):
        return [out_dims] * n
    return _several(op, out_dims, n, "out_dims")


def _result(op: OpOverload, args: Sequence[Any], form: tuple[str, int], done: Any) -> Any:
    """Give a result its place among the aliases."""
    kind, position = form
    if kind == "argument":
        return args[position]
    if kind in {"view", "views"} and not isinstance(args[position], Tensor):
        return done  # a view into a container: nobody may write either
    if kind == "view" and isinstance(done, Tensor) and done is not args[position]:
        base = args[position]
        maybe = Tag.maybe_aliasing_or_mutating in op.tags
        if maybe and not shares_memory(_below(base), _below(done)):
            return done  # memory was not shared after all
        done.version = _shared(op, base, done)
        statics = tuple(a for j, a in enumerate(args) if j != position)
        done.view_of = (base, op, statics)
    elif kind == "views":
        for t in done:
            t.version = _shared(op, args[position], t)
    return done


def _shared(op: OpOverload, base: Tensor, view: Tensor) -> Version:
    """Give the version of a base and its view; it is noted where the view is a copy.

    So it is where samples were called in turn, or an author's rule gives one: writes are refused.
    """
    version = share(base)
    whole = _below(view)
    if not op.is_builtin and 0 not in whole.shape and not shares_memory(_below(base), whole):
        version.copied = op
    return version


def _below(tensor: Tensor) -> Tensor:
    """Give the tensor that holds the whole batch."""
    found: Tensor = tensor.payload.value if tensor.keys & BATCHED else tensor
    return found


def _wrap(level: VmapLevel, op: OpOverload, where: str, value: Any, dim: Any) -> Any:
    if isinstance(value, Tensor):
        if dim is None:
            return value
        if not isinstance(dim, int):
            _unfit(op, where, value, dim)
        return batched(value, check_axis(level, op, where, value, dim), level)
    if value.__class__ in {list, tuple}:
        whole = dim is None or isinstance(dim, int)
        dims = [dim] * len(value) if whole else _several(op, dim, len(value), "out_dims")
        items = zip(value, dims, strict=True)
        done = [_wrap(level, op, f"{where}[{j}]", v, d) for j, (v, d) in enumerate(items)]
        return value.__class__(done)
    return _wrap_record(level, op, where, value, dim)


def _wrap_record(level: VmapLevel, op: OpOverload, where: str, value: Any, dim: Any) -> Any:
    """Wrap a record or dict; its axes are one number, or a record, dict or tuple of the fields."""
    named = named_parts(value)
    if named is None:
        if isinstance(dim, int) and value is not None:
            _unfit(op, where, value, dim)
        return value
    dims = dict.fromkeys(named, dim) if dim is None or isinstance(dim, int) else named_parts(dim)
    if dims is None or not set(dims) <= set(named):
        _unfit(op, where, value, dim)
    done = {
        key: _wrap_field(level, op, f"{where}.{key}", part, dims.get(key))
        for key, part in named.items()
    }
    return with_parts(value, done)


def _wrap_field(level: VmapLevel, op: OpOverload, where: str, value: Any, dim: Any) -> Any:
    plain = not tree.leaves(value) or tree.children(value)[1] is None
    if plain and not isinstance(value, Tensor):
        return value  # one number for a whole record says nothing of its numbers
    return _wrap(level, op, where, value, dim)


def _unfit(op: OpOverload, where: str, value: Any, dim: Any) -> NoReturn:
    _refuse(op, f"gives out_dims that do not fit {where}", f"an axis of {where}, or None",
            f"{dim!r} for {describe(value)}", where)  # fmt: skip


def named_parts(value: Any) -> dict[Any, Any] | None:
    """Give the parts of a record or dict by name, or None for anything else."""
    if isinstance(value, dict):
        return value
    names = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    if names is None and is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if f.init]
    return None if names is None else {name: getattr(value, name) for name in names}


def with_parts(value: Any, parts: dict[Any, Any]) -> Any:
    """Give a record or dict like another, with other parts."""
    if isinstance(value, dict):
        return parts
    return type(value)(**parts) if isinstance(value, tuple) else tree.with_fields(value, parts)


def check_axis(level: VmapLevel, op: OpOverload, where: str, value: Tensor, dim: int) -> int:
    """Give the batch axis of a result as a number from 0.

    Raises:
        VmapError: there is no such axis, or it has not the batch's size.
    """
    shape = value.payload.shape
    if not -len(shape) <= dim < len(shape):
        _refuse(op, f"gives an axis that {where} does not have", f"an axis of shape {shape}",
                f"out_dims {dim}", where)  # fmt: skip
    size, wanted = shape[dim], level.batch_size
    if size is not wanted and size != wanted:
        seen = f"size {size} at axis {dim} of shape {tuple(shape)}"
        what = f"gives an axis of {where} that has not the batch's size"
        _refuse(op, what, f"size {wanted}", seen, where)
    return dim % len(shape)


def _refuse(op: OpOverload, what: str, declared: object, seen: object, where: str = "") -> NoReturn:
    raise VmapError(
        f"the vmap rule of {op.name()} {what}",
        op=op._schema,
        argument=where,
        declared=declared,
        seen=seen,
        source=op.rule_source("vmap"),
        fix="return (output, out_dims), with the axis of each result that counts the samples, "
        "or None for a result without one",
    )

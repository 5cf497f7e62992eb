"""What a fake call does when no memo answers: run the rule, check and remember its answer.

Both kinds of rule end the same way, in metas: a built-in rule maps metas to
metas, an author's rule maps tensors without data to such tensors. The
generated handler (`handlers.py`) wraps the metas anew at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from polyop import tree
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import PLAIN, Word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError, FakeError, ReturnError
from polyop.layers.fake.rule import RuleContext, dynamic_env, note_failure, note_used
from polyop.lazy import load
from polyop.schema.opaque import holds_reference, makes_objects
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.schema.values import Mismatch, convert
from polyop.symbolic import is_symbolic
from polyop.tensor.meta import META_SPACE, Meta, MetaSpace
from polyop.tensor.tensor import Tensor, of_meta

#: A memo is dropped when it has this many entries.
MEMO_LIMIT = 1 << 16


class Plan(NamedTuple):
    """How one operator computes the metas of its results.

    Attributes:
        op: the operator.
        run: `(space, values)` to the meta or plain value of each result.
        context: of the author's rule; a record of its own for a built-in one. Memo keys begin
            with it, so a new rule never meets old entries.
        fixed: whether the answer depends on nothing but the arguments.
        holders: the positions of arguments that can hold tensors; the others are passed on.
    """

    op: OpOverload
    run: Callable[[MetaSpace, Sequence[Any]], Any]
    context: RuleContext
    fixed: bool
    holders: tuple[int, ...]


def holders_of(op: OpOverload) -> tuple[int, ...]:
    """Give the positions of arguments that can hold tensors."""
    arguments = enumerate(op._schema.arguments)
    return tuple(i for i, argument in arguments if leaf_kind(argument.type) != "static")


def compute(plan: Plan, space: MetaSpace | None, key: Any, values: Sequence[Any]) -> Any:
    """Give the metas of the results, and remember them.

    Args:
        plan: of the operator.
        space: of the active mode or of the device `meta`; None if the arguments say.
        key: makes the memo key of arguments; None if the answer is not to be remembered.
        values: the arguments, tensors as they came.

    Raises:
        FakeError: a real tensor, or a fake of another mode, among the arguments.
    """
    space = space or space_in(values)
    values = list(values)
    for i in plan.holders:
        values[i] = _in_space(plan.op, i, values[i], space)
    remember = key is not None and plan.fixed and not plan.context.used
    known = _lookup(space, key, values) if remember else None
    if known is not None:
        return known
    found = plan.run(space, values)
    if remember and not plan.context.used:
        _store(space, key, values, found)
    return found


def _lookup(space: MetaSpace, key: Any, values: Sequence[Any]) -> Any:
    try:
        return space.memo.get(key(*values))
    except TypeError:  # an argument without a hash: computed anew each time
        return None


def _store(space: MetaSpace, key: Any, values: Sequence[Any], found: Any) -> None:
    if len(space.memo) >= MEMO_LIMIT:
        space.memo.clear()
    try:
        space.memo[key(*values)] = found
    except TypeError:
        return


def compute_new(plan: Plan, space: MetaSpace, key: Any, values: Sequence[Any]) -> Any:
    """Give the metas of the results for arguments whose memo key is known, and new."""
    for i in plan.holders:
        value = values[i]
        if value.__class__ is Tensor:
            if not _is_in(value, space):
                return compute(plan, None if space is META_SPACE else space, None, values)
        elif value.__class__ not in _NO_TENSORS and not _is_plain_list(value, space):
            return compute(plan, space, None, values)
    found = plan.run(space, values)
    if not plan.context.used:
        if len(space.memo) >= MEMO_LIMIT:
            space.memo.clear()
        space.memo[key] = found
    return found


def _is_plain_list(value: Any, space: MetaSpace) -> bool:
    if value.__class__ is not list:
        return False
    return all(
        _is_in(x, space) if x.__class__ is Tensor else x.__class__ in _NO_TENSORS for x in value
    )


# -- arguments ----------------------------------------------------------------


def space_in(values: Sequence[Any]) -> MetaSpace:
    """Find the mode of the fakes among the arguments."""
    first = values[0] if values else None
    if first.__class__ is Tensor and first.payload.__class__ is Meta and first.payload.space.mode:
        found: MetaSpace = first.payload.space
        return found
    spaces = [
        leaf.payload.space
        for value in values
        for leaf in tree.leaves(value)
        if isinstance(leaf, Tensor) and leaf.payload.__class__ is Meta
    ]
    return next((s for s in spaces if s.mode is not None), META_SPACE)


def _in_space(op: OpOverload, i: int, value: Any, space: MetaSpace) -> Any:
    """Give an argument with all its tensors in one space."""
    if value.__class__ is Tensor:
        return value if _is_in(value, space) else _convert(op, i, value, space)
    if value.__class__ in _NO_TENSORS:
        return value
    return tree.map_leaves(
        lambda leaf: (
            _convert(op, i, leaf, space)
            if isinstance(leaf, Tensor) and not _is_in(leaf, space)
            else leaf
        ),
        value,
    )


_NO_TENSORS = frozenset({int, float, bool, str, complex, type(None)})


def _is_in(tensor: Tensor, space: MetaSpace) -> bool:
    return tensor.payload.__class__ is Meta and tensor.payload.space is space


def _convert(op: OpOverload, i: int, tensor: Tensor, space: MetaSpace) -> Tensor:
    mode = space.mode
    real = tensor.payload.__class__ is not Meta
    if mode is not None and (mode.allow_non_fake_inputs or not real):
        found: Tensor = mode.constant(tensor)
        return found
    argument = op._schema.arguments[i]
    what = "a real tensor" if real else "a fake tensor"
    raise FakeError(
        f"{op.name()} got {what} among " + ("fake ones" if mode else "ones on the device meta"),
        op=op._schema,
        argument=f"{argument.name} (position {i})",
        declared="fake tensors of one mode" if mode else "tensors on the device meta",
        seen=repr(tensor)[:120],
        source=op.source,
        fix="convert it with mode.from_tensor(t), or pass allow_non_fake_inputs=True to the mode"
        if mode
        else "move it with .to('meta')",
    )


def _metas(value: Any) -> Any:
    if value.__class__ is Tensor:
        return value.payload
    if value.__class__ in _NO_TENSORS:
        return value
    if value.__class__ is list:
        return [_metas(x) for x in value]
    return tree.map_leaves(lambda x: x.payload if isinstance(x, Tensor) else x, value)


# -- built-in rules -----------------------------------------------------------


def builtin_plan(op: OpOverload, rule: Callable[..., Any]) -> Plan:
    """Plan an operator of ours, whose rule maps metas to metas."""
    context = RuleContext(op, rule, op.rule_source("meta"))
    dynamic = Tag.dynamic_output_shape in op.tags
    forms = result_forms(op._schema)
    written = forms[0][1] if len(forms) == 1 and forms[0][0] == "argument" else -1

    holders = holders_of(op)

    def run(space: MetaSpace, values: Sequence[Any]) -> Any:
        metas = list(values)
        for i in holders:
            metas[i] = _metas(metas[i])
        if dynamic:
            found = rule(*metas, new_size=partial(_new_size, space, context))
        else:
            found = rule(*metas)
        found = _into(space, found)
        if written >= 0:
            _check_written(op, op._schema.arguments[written].name, metas[written], found)
        return found

    return Plan(op, run, context, not dynamic, holders)


def _new_size(space: MetaSpace, context: RuleContext, min: int = 0, max: Any = None) -> Any:
    op = context.op
    if space.mode is None:
        raise FakeError(
            f"the result of {op.name()} has a size that depends on data, and a tensor on the "
            "device meta has none",
            op=op._schema,
            fix="use a FakeTensorMode with a ShapeEnv instead of the device meta",
        )
    env = dynamic_env(space.mode, op, context.source)
    most = env.range_of(max)[1] if is_symbolic(max) else max
    most = most if isinstance(most, int) else None
    return env.create_unbacked(min=min, max=most, origin=f"made by {op.name()}")


def _into(space: MetaSpace, found: Any) -> Any:
    """Bring metas of the device `meta` into a mode: what a rule without tensors gives."""
    if found.__class__ is Meta:
        if found.space is space:
            return found
        return space.meta(found.shape, found.dtype, found._strides, found.device)
    return tuple([_into(space, x) for x in found]) if found.__class__ in {tuple, list} else found


def _check_written(op: OpOverload, name: str, argument: Any, found: Any) -> None:
    """Refuse a result that does not fit into the argument which it is written to."""
    if found.__class__ is not Meta or argument.__class__ is not Meta:
        return
    sizes = zip(argument.shape, found.shape, strict=False)
    if len(argument.shape) != len(found.shape) or not all(a is b or a == b for a, b in sizes):
        problem = f"a result of shape {found.shape} cannot be written to one of shape "
        raise ArgumentError(f"{problem}{argument.shape}", op=op._schema, argument=name)


# -- rules of authors ---------------------------------------------------------


def author_plan(op: OpOverload, rule: Callable[..., Any], source: Any) -> Plan:
    """Plan an operator whose rule maps tensors without data to such tensors."""
    context = RuleContext(op, rule, source)
    call = by_name(op, rule)
    lone = [str(r.type) for r in op._schema.returns] == ["Tensor"]
    # What a fake of an object answers depends on what was done to it before.
    fixed = not op._schema.is_mutable and not op.objects and not makes_objects(op._schema)

    holders = holders_of(op)

    def run(space: MetaSpace, values: Sequence[Any]) -> Any:
        given = list(values)
        for i in holders:
            given[i] = _fresh(given[i])
        for i in op.objects:
            given[i] = load("polyop.objects.fakes:fakes_in")(space.mode, given[i])
        try:
            outer = word()
            try:
                set_word(_rule_word(space, context))
                out = call(*given)
            finally:
                set_word(outer)
        except Exception as error:
            note_failure(space, context, error)
            raise
        if context.used:
            note_used()  # by the rule that called this one
        if lone and out.__class__ is Tensor and _is_in(out, space):  # as nearly all are
            return out.payload
        return _results(context, space, out)

    return Plan(op, run, context, fixed, holders)


def by_name(op: OpOverload, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Call an author's function, with keyword-only arguments by name."""
    names = tuple(a.name for a in op._schema.keyword_only)
    if not names:
        return fn
    n = len(op._schema.positional)
    return lambda *values: fn(*values[:n], **dict(zip(names, values[n:], strict=True)))


def _rule_word(space: MetaSpace, context: RuleContext) -> Word:
    """Give the word of a rule: its mode, and nobody else who watches."""
    words = context.words if space.mode is None else space.mode.rule_words
    made: Word | None = words.get(context)
    if made is None:
        made = words[context] = PLAIN.but(grad=False, fake=space.mode, rule=context)
    return made


def _fresh(value: Any) -> Any:
    """Give new tensors for a rule: it sees no gradients, and may keep what it gets."""
    if value.__class__ is Tensor:
        return of_meta(value.payload)
    if value.__class__ in _NO_TENSORS:
        return value
    return tree.map_leaves(lambda x: of_meta(x.payload) if isinstance(x, Tensor) else x, value)


def _results(context: RuleContext, space: MetaSpace, out: Any) -> Any:
    """Check what a rule gave back, and give the metas.

    Raises:
        ReturnError: the number or a type is not the schema's.
        FakeError: a result has data, or is of another mode.
    """
    returns = context.op._schema.returns
    if not returns:
        if out is not None:
            _refuse(context, "must return nothing", "() (None)", out)
        return None
    if len(returns) == 1:
        return _result(context, space, 0, out)
    if out.__class__ not in {tuple, list} or len(out) != len(returns):
        _refuse(context, f"must return {len(returns)} results", _declared(context), out)
    return tuple([_result(context, space, i, value) for i, value in enumerate(out)])


def _result(context: RuleContext, space: MetaSpace, i: int, value: Any) -> Any:
    result = context.op._schema.returns[i]
    if value.__class__ is Tensor and str(result.type) == "Tensor":
        return _meta_of(context, space, i, value)
    if result.is_write and value is None:
        return None
    if not is_symbolic(value):
        try:
            value = convert(result.type, value)
        except Mismatch:
            _refuse(context, f"returned a wrong type as result {i}", result.type, value)
    if value.__class__ is Tensor:
        return _meta_of(context, space, i, value)
    if holds_reference(result.type):
        value = load("polyop.objects.fakes:fakes_in")(space.mode, value)
    return tree.map_leaves(
        lambda x: _meta_of(context, space, i, x) if isinstance(x, Tensor) else x, value
    )


def _meta_of(context: RuleContext, space: MetaSpace, i: int, tensor: Tensor) -> Meta:
    payload: Any = tensor.payload
    if payload.__class__ is Meta:
        if payload.space is space:
            return payload
        if payload.space is META_SPACE:
            return space.meta(payload.shape, payload.dtype, payload._strides, payload.device)
    raise FakeError(
        f"the fake rule of {context.op.name()} returned "
        + ("a fake of another mode" if payload.__class__ is Meta else "a tensor with data"),
        op=context.op._schema,
        argument=f"result {i}",
        declared="a tensor made inside the rule, by operators",
        seen=repr(tensor)[:120],
        source=context.source,
        fix="make it inside the rule, as with x.new_empty(shape)",
    )


def _declared(context: RuleContext) -> str:
    return str(context.op._schema).partition(" -> ")[2]


def _refuse(context: RuleContext, what: str, declared: object, seen: Any) -> NoReturn:
    raise ReturnError(
        f"the fake rule of {context.op.name()} {what}",
        op=context.op._schema,
        declared=declared,
        seen=f"{type(seen).__name__} {seen!r:.80}",
        source=context.source,
        fix="return what the schema declares",
    ) from None


def current_space() -> MetaSpace | None:
    """Give the space of the active mode, or None."""
    mode = word().fake
    return None if mode is None else mode.space

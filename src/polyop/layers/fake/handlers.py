"""The layers of fakes, and the handler that each operator gets from them.

A handler looks up the metas of the arguments, and the other arguments by
value, in the memo of their space, and wraps what it finds: one frame, and no
loop over arguments (PERFORMANCE section 8). Everything else (a call not seen
before, a real tensor, a value without a hash) is `compute`'s.

NOTE [What answers a fake call]
In this order: the fake rule; a kernel at `Meta`; the decomposition; nothing,
if the operator returns nothing new; a kernel that was put by hand at a key
for all backends below autograd. A `custom_op`'s own function stands there too, and
never answers: it looks into data (S146).

The decomposition runs in place of the call, and is seen by whoever sees calls.
Where a kernel goes before it, the call is one call, and the decomposition no
more than its fake rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from polyop import tree
from polyop.dispatch.bits import (
    BACKENDS,
    FAKE,
    FAKE_MODE,
    INFERENCE,
    INFERENCE_TENSOR,
    TRACE,
)
from polyop.dispatch.body import Number, result_forms
from polyop.dispatch.context import word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.write import (
    Shape,
    base_scope,
    bumps_text,
    indent,
    make_function,
    shape_of,
    spelled_tuple,
)
from polyop.errors import DataDependentOutputError, MissingFakeError
from polyop.layers.fake.compute import (
    Plan,
    author_plan,
    builtin_plan,
    compute,
    compute_new,
    current_space,
    space_in,
)
from polyop.layers.fake.kernels import as_rule, decomposed, decomposition, rule_kernel, stays_whole
from polyop.schema.tags import Tag
from polyop.tensor.meta import META_SPACE, Meta
from polyop.tensor.storage import share
from polyop.tensor.tensor import META_KEYS, keys_of_meta, of_meta


class FakeLayer:
    """Acts on fakes, and on every call inside a fake mode."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if the call has fakes or a mode is entered."""
        return make_handler(way) if way.code & (FAKE | FAKE_MODE) else None


class MetaLayer:
    """Acts on tensors on the device `meta`, unless a kernel is registered there."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if the operator has no kernel at `Meta`."""
        if way.op.places.top(DispatchKey.Meta) is not None:
            return None
        return make_handler(way)


# -- which rule ---------------------------------------------------------------


def make_handler(way: Way) -> Handler:
    """Make the handler of an operator's fake calls; see NOTE [What answers a fake call]."""
    op = way.op
    if Tag.data_dependent_output in op.tags:
        return partial(_looks_at_data, op)
    plan = plan_of(op)
    if plan is None:
        composite = decomposition(op)
        if composite is not None and not stays_whole(op):
            return decomposed(way, composite)
        if composite is not None:
            plan = op.note("fake of a whole", _plan_of_whole)
        elif not returns_arguments(op):
            op.missing("fake", MissingFakeError)
    return generate(way, plan)


def plan_of(op: OpOverload) -> Plan | None:
    """Give the plan of an operator that has a rule; one plan for all its codes."""
    try:
        found: Plan | None = op.notes["fake"]
    except KeyError:
        found = op.note("fake", _make_plan)
    return found


def _make_plan(op: OpOverload) -> Plan | None:
    rule = op.rule("fake")
    if rule is not None:
        return author_plan(op, rule, op.rule_source("fake"))
    if op.rule("meta") is not None:
        return builtin_plan(op, op.rule("meta"))
    at_meta = op.places.top(DispatchKey.Meta)
    if at_meta is not None and at_meta.fn is not None:
        return author_plan(op, as_rule(op, at_meta), at_meta.source)
    if decomposition(op) is not None or returns_arguments(op):
        return None
    by_hand = rule_kernel(op)
    return None if by_hand is None else author_plan(op, as_rule(op, by_hand), by_hand.source)


def _plan_of_whole(op: OpOverload) -> Plan:
    """Plan an operator that is one call, by what it is made of: nobody is to see that twice."""
    composite = decomposition(op)
    assert composite is not None
    return author_plan(op, as_rule(op, composite), composite.source)


def returns_arguments(op: OpOverload) -> bool:
    """Tell whether an operator returns nothing but arguments that it wrote (S146)."""
    return all(form == "argument" for form, _ in result_forms(op._schema))


def _looks_at_data(op: OpOverload, *values: Any) -> Any:
    tracer = None if word() & (FAKE_MODE | TRACE) else tracer_in(values)
    found = NotImplemented if tracer is None else tracer.elsewhere(op, values)
    if found is not NotImplemented:
        return found
    told = op.rule("fake") is not None
    raise DataDependentOutputError(
        f"{op.name()} looks at the data of a fake tensor, which has none",
        op=op._schema,
        declared="the tag data_dependent_output: without data, nothing is known of its results",
        source=op.source,
        fix="take the tag off the operator, because its fake rule tells them"
        if told
        else "compute sizes from shapes alone, or leave this call out of the traced part",
    )


# -- the text -----------------------------------------------------------------


def generate(way: Way, plan: Plan | None) -> Handler:
    """Write the handler: look up, bump, wrap."""
    op, shape = way.op, shape_of(way.op._schema)
    scope = base_scope(
        op, plan=plan, compute=compute, compute_new=compute_new, current_space=current_space,
        meta_space=META_SPACE, freeze=freeze, Meta=Meta, keys_of=keys_of_meta, shares=shares,
        wrap_value=wrap_value, wrap_metas=wrap_metas, wrap_meta_views=wrap_meta_views,
        Number=Number, tracer_in=tracer_in,
        context=plan and plan.context,
    )  # fmt: skip
    names = [a.name for a in op._schema.arguments]
    if plan is not None:
        key = f"def f({', '.join(shape.names)}):\n    return {key_text(op, shape)}"
        scope["key_of"] = make_function(key, scope, op._opname, names)
    lines = elsewhere_text(shape, way.code)
    lines += [] if plan is None else lookup_text(op, shape, way.code, plan)
    lines += bumps_text(shape) + results_text(op, shape, way.code)
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(lines)])
    return make_function(text, scope, op._opname, names)


def elsewhere_text(shape: Shape, code: int) -> list[str]:
    """Lines that leave a call to the trace whose fakes it has, where that does not see the call.

    Outside its mode a fake of a trace is in a thread that the traced function has begun.
    """
    if not code & FAKE or code & (FAKE_MODE | TRACE):
        return []
    given = spelled_tuple(shape.names)
    return [
        f"try: _e = {_space_text(shape, code)[0]}.mode.tracer",
        f"except (TypeError, AttributeError, IndexError): _e = tracer_in({given})",
        "if _e is not None:",
        f"    _r = _e.elsewhere(op, {given})",
        "    if _r is not NotImplemented: return _r",
    ]


def tracer_in(values: Sequence[Any]) -> Any:
    """Give what traces the function whose tensors are among some values."""
    mode = space_in(values).mode
    return None if mode is None else mode.tracer


def lookup_text(op: OpOverload, shape: Shape, code: int, plan: Plan) -> list[str]:
    """Lines that leave the metas of the results in `_r`."""
    given = spelled_tuple(shape.names)
    space, memo = _space_text(shape, code)
    # A first tensor that is real names no space; then the long way finds one.
    known = "None" if "payload" in space else space
    miss = f"_r = compute(plan, {known}, key_of, {given})"
    if not plan.fixed:
        return [miss]
    return [
        "try:",
        f"    _k = {key_text(op, shape)}",
        f"    _r = {memo}.get(_k)",  # a KeyError for each new shape would take as long as its rule
        # A real tensor has no memo, and an array or a list no hash.
        "except (TypeError, AttributeError, IndexError): _r = _k = None",
        # Not in the clause: what a rule raises is no consequence of what the memo does.
        "if _r is None:",
        f"    if _k is None: {miss}",
        f"    else: _r = compute_new(plan, {space}, _k, {given})",
    ]


def _space_text(shape: Shape, code: int) -> tuple[str, str]:
    """Spell the space of a call, and its memo."""
    if code & FAKE_MODE:
        return "current_space()", "word().fake.memo"
    if not code & FAKE:
        return "meta_space", "meta_space.memo"
    for a in shape.of("tensor"):
        return f"{a}.payload.space", f"{a}.payload.memo"
    for a in shape.of("tensor[]"):
        return f"{a}[0].payload.space", f"{a}[0].payload.memo"
    return "None", "None"  # None has no items, and the long way finds the space


def key_text(op: OpOverload, shape: Shape) -> str:
    """Spell the memo key of a call: the rule, the metas, the other arguments by value."""
    parts = ["context"]
    for i, kind in enumerate(shape.kinds):
        parts.append(_key_part(f"a{i}", kind, shape.types[i], op.is_builtin))
    return f"({', '.join(parts)},)"


def _key_part(a: str, kind: str, text: str, builtin: bool) -> str:
    if kind == "tensor":
        return f"{a}.payload"
    if kind == "tensor?":
        return f"(None if {a} is None else {a}.payload)"
    if kind == "tensor[]":
        return f"(*[_x.payload for _x in {a}],)"
    if kind == "tensor?[]":
        return f"(*[None if _x is None else _x.payload for _x in {a}],)"
    base = _LENGTH.sub("[]", text.removesuffix("?"))
    if kind == "static" and base in _HASHED:
        return a
    # 1 == 1.0 == True: where the schema allows several classes, the class is in the key, and an
    # author's rule may tell them apart where ours does not.
    if kind == "static" and base in _BY_CLASS and builtin:
        return f"{a}, {a}.__class__"
    if kind == "static" and base in _PLAIN:
        return a if builtin else f"{a}, {a}.__class__"
    if kind == "static" and base in _LISTS and builtin:
        return f"(None if {a} is None else (*{a},))" if text.endswith("?") else f"(*{a},)"
    return f"freeze({a})"


#: The length in `int[2]`; a value is a list all the same.
_LENGTH = re.compile(r"\[\d+\]")
_HASHED = frozenset({"str", "Device", "ScalarType", "Layout", "MemoryFormat"})
_BY_CLASS = frozenset({"Scalar", "number", "float"})
_PLAIN = frozenset({"int", "SymInt", "bool"})
_LISTS = frozenset({"int[]", "SymInt[]", "bool[]"})


def freeze(value: Any) -> Any:
    """Give a key for a value of any class; equal values of two classes have two keys."""
    kind = value.__class__
    if kind in {list, tuple}:
        return kind, tuple([freeze(v) for v in value])
    if kind is dict:
        return kind, tuple([(freeze(k), freeze(v)) for k, v in value.items()])
    if kind is float or kind is complex:
        return kind, repr(value)  # 0.0 == -0.0
    payload = getattr(value, "payload", None)
    return payload if payload.__class__ is Meta else (kind, value)


# -- results ------------------------------------------------------------------


def results_text(op: OpOverload, shape: Shape, code: int) -> list[str]:
    """Lines that wrap the metas in `_r` and return."""
    forms = result_forms(op._schema)
    if not forms:
        return ["return None"]
    if all(form == "argument" for form, _ in forms):
        return [f"return {', '.join(f'a{i}' for _, i in forms)}"]
    keys = _keys_text(shape, code)
    if len(forms) == 1:
        return [*_wrap_text(op, shape, forms[0], keys, "_r"), "return _t"]
    names = [f"_r{i}" for i in range(len(forms))]
    lines = [f"{', '.join(names)} = _r"]
    for n, (name, form) in enumerate(zip(names, forms, strict=True)):
        lines += [*_wrap_text(op, shape, form, keys, name, f"Number({n})"), f"{name} = _t"]
    return [*lines, f"return {', '.join(names)}"]


def _keys_text(shape: Shape, code: int) -> str:
    more = INFERENCE_TENSOR if code & INFERENCE else 0
    moves = any(text.startswith(("Device", "Any")) for text in shape.types)
    if not code & (FAKE | FAKE_MODE):
        return str(META_KEYS | more)
    if code & BACKENDS or moves or not any(k.startswith("tensor") for k in shape.kinds):
        return f"keys_of({{}}) | {more}" if more else "keys_of({})"
    return str(FAKE | more)


def _wrap_text(  # noqa: PLR0917 - what a result is
    op: OpOverload, shape: Shape, form: tuple[str, int], keys: str, r: str, which: str = ""
) -> list[str]:
    kind, i = form
    if kind in {"view", "views"} and shape.kinds[i] not in {"tensor", "tensor?"}:
        kind = "new" if kind == "view" else "list"  # a view into a container: nobody may write it
    if kind == "either":
        kind = "value"  # nor one of one of several arguments
    more = INFERENCE_TENSOR if keys.endswith(f"| {INFERENCE_TENSOR}") else 0
    if kind == "argument":
        return [f"_t = a{i}"]
    if kind == "value":
        return [f"_t = wrap_value({r}, {more})"]
    if kind == "list":
        return [f"_t = wrap_metas({r}, {more})"]
    kept = [a for a in (*shape.names, which) if a and a != f"a{i}"]
    statics = spelled_tuple(kept)
    if kind == "views":
        return [f"_t = wrap_meta_views(a{i}, {r}, {more}, op, {statics})"]
    whole = [f"_t = Tensor(); _t.payload = {r}; _t.keys = {keys.format(r)}; _t.version = 0"]
    if kind == "new":
        return whole
    alias = [f"_t.version = share(a{i})", f"_t.view_of = (a{i}, op, {statics})"]
    if Tag.maybe_aliasing_or_mutating not in op.tags:
        return [*whole, *alias]
    return [*whole, f"if shares({r}, a{i}.payload):", *indent(alias)]


def shares(result: Meta, argument: Any) -> bool:
    """Tell whether a result that may be a view is one: a copy would lie in order."""
    if result is argument:
        return True
    if result.dtype is not argument.dtype or result.device is not argument.device:
        return False
    return argument.__class__ is Meta and (argument._strides is None or result._strides is not None)


def wrap_metas(metas: Any, more: int) -> list[Any]:
    """Make a tensor of each meta."""
    made = [of_meta(meta) for meta in metas]
    if more:
        for t in made:
            t.keys |= more
    return made


def wrap_meta_views(
    base: Any, metas: Any, more: int, op: OpOverload, statics: tuple[Any, ...]
) -> list[Any]:
    """Make tensors of several views of one base."""
    made = wrap_metas(metas, more)
    for i, t in enumerate(made):
        t.version = share(base)
        t.view_of = (base, op, (*statics, i))
    return made


def wrap_value(value: Any, more: int) -> Any:
    """Make a tensor of each meta in a result of any type."""
    if value.__class__ is Meta:
        t = of_meta(value)
        t.keys |= more
        return t
    if value.__class__ in {list, tuple}:
        return value.__class__([wrap_value(v, more) for v in value])
    if value.__class__ is dict:
        return {k: wrap_value(v, more) for k, v in value.items()}
    if value is None or value.__class__ in {int, float, bool, str}:
        return value
    # A record of the author's; objects and symbols are leaves, and stay as they are.
    return tree.map_leaves(lambda x: wrap_value(x, more) if x.__class__ is Meta else x, value)


__all__ = ["FakeLayer", "MetaLayer", "plan_of", "returns_arguments"]

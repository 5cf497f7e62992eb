"""The layer that records calls, and the handler that each operator gets from it.

A handler runs the call below it (on fakes, or on data), then adds a node with
plain stores: one frame, and no loop over arguments (PERFORMANCE section 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.below import below_passed, whole_of
from polyop.dispatch.bits import BATCHED, FAKE, FAKE_MODE, FUNCTIONAL, LIFTED, TENSOR_BITS, TRACE
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, set_word, word
from polyop.dispatch.entry import BACKEND_KEYS
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import Way, keyset_of, way_of
from polyop.dispatch.results import tensors_in
from polyop.dispatch.table import Kernel
from polyop.dispatch.write import Shape, base_scope, indent, make_function, shape_of, spelled_tuple
from polyop.errors import CaptureError, MissingRuleError
from polyop.graph import Node
from polyop.graph.node import CALL_FUNCTION
from polyop.layers.fake.compute import by_name
from polyop.layers.fake.kernels import decomposed, decomposition, stays_whole
from polyop.layers.trace.tracer import FAILURES, describe
from polyop.schema.values import thaw
from polyop.tensor.tensor import Tensor

#: What levels wrap, vmap's apart: a call with it comes here if a kernel named a backend itself.
BEYOND = LIFTED | FUNCTIONAL


class TraceLayer:
    """Records a call, and runs it below."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if a trace records."""
        if not way.code & TRACE:
            return None
        if way.code & BEYOND and not way.code & BATCHED:
            return lambda *values: off_levels(way, values)
        composite = decomposition(way.op)
        if composite is not None and not stays_whole(way.op):
            # What it is made of is recorded instead (S209).
            return decomposed(way, composite)
        target = below_passed(way.op, way.keys, plain_keys(way.code))
        return generate(way, target)


def off_levels(way: Way, values: Sequence[Any]) -> Any:
    """Record a call on what is inside of the innermost level, which a kernel passed by (S103).

    Raises:
        CaptureError: a tangent goes with it.
    """
    level = innermost_of(values)
    if level.kind == "func.functionalize" and way.op._schema.is_mutable:
        return level.run(way.op, values)  # nobody else knows what is written
    refuse_lost(way.op, level, values)
    given = [level.peel(value) for value in values]
    outer = word()
    try:
        set_word(level.below())
        code = PARTS.code_of(given) | word()
        result = way_of(way.op, int(code), way.keys, ours=True).handler()(*given)
    finally:
        set_word(outer)
    if level.kind == "func.functionalize":
        return level.wrap(result)
    written = zip(given, values, strict=True)
    return next((value for inside, value in written if inside is result is not None), result)


def innermost_of(values: Sequence[Any]) -> Any:
    """Give the deepest level among the tensors of a call."""
    levels = [t.payload.level for t in tensors_in(values) if t.keys & BEYOND]
    return max(levels, key=lambda level: level.depth)


def refuse_lost(op: OpOverload, level: Any, values: Sequence[Any]) -> None:
    """Refuse what a level has to follow.

    Raises:
        CaptureError: a tensor of it has a tangent.
    """
    own = [t for t in tensors_in(values) if t.keys & BEYOND and t.payload.level is level]
    if any(getattr(t.payload, "tangent", None) is not None for t in own):
        raise CaptureError(
            f"a kernel calls {op.name()} at a backend, past {level.kind}, and no program can say "
            "what becomes of the tangent there",
            op=op._schema,
            source=op.source,
            fix="let the kernel go on with keyset & after_autograd_keys, or trace the function "
            f"without {level.kind}",
        )


def plain_keys(code: int) -> DispatchKeySet:
    """Give the keys of a call of the same tensors where nothing is active."""
    return keyset_of(code & TENSOR_BITS)


def generate(way: Way, target: OpOverload) -> Handler:
    """Write the handler: run, make the node, link it, name the results by it."""
    op, shape = way.op, shape_of(way.op._schema)
    scope = base_scope(
        op, below=_below(way), target=target, listed=whole_of(op), Node=Node, CALL=CALL_FUNCTION,
        describe=describe, is_default=is_default, instead=instead, plain=_PLAIN, TensorType=Tensor,
        FAILURES=FAILURES,
    )  # fmt: skip
    for i, argument in enumerate(op._schema.arguments):
        if argument.has_default_value():
            scope[f"d{i}"] = thaw(argument.default_value)
    lines = [
        "_tr = word().tracer",
        "if _tr.table and listed in _tr.table: "
        f"return instead(_tr, listed, {spelled_tuple(shape.names)})",
        *before_text(op, shape),
        f"try: _r = below({', '.join(shape.names)})",
        "except FAILURES as _e: _tr.note_failure(_e); raise",
        "_g = _tr.graph",
        *nodes_text(shape),
        "_n = Node(); _n.op = CALL; _n.target = target; _n.users = {}",
        *arguments_text(op, shape),
        *users_text(shape),
        # After the arguments: these may have added nodes of their own.
        "_l = _g.last; _n.graph = _g; _n.prev = _l; _l.next = _n; _g.last = _n",
        *results_text(op, shape, way.code),
    ]
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(lines)])
    return make_function(text, scope, op._opname, [a.name for a in op._schema.arguments])


def before_text(op: OpOverload, shape: Shape) -> list[str]:
    """Lines that tell the trace what is going to be written."""
    lines = []
    for i, (argument, kind) in enumerate(zip(op._schema.arguments, shape.kinds, strict=True)):
        if argument.is_write and kind == "tensor":
            lines.append(f"_tr.before_write(a{i})")
        elif argument.is_write and kind in {"tensor?", "tensor[]", "tensor?[]"}:
            listed = f"[a{i}]" if kind == "tensor?" else f"a{i}"
            lines += [f"for _y in {listed}:", "    if _y is not None: _tr.before_write(_y)"]
    return lines


def _below(way: Way) -> Handler:
    """Give the handler below; what it misses is an error of the call, which a table may spare."""
    try:
        return _unseen(way) if _goes_on(way) else way.handler()
    except MissingRuleError:

        def missing(*values: Any) -> Any:
            return way.handler()(*values)

        return missing


def _goes_on(way: Way) -> bool:
    """Tell whether the kernel below is a step on the way, as one at BackendSelect is."""
    if way.code & (FAKE | FAKE_MODE) or not way.steps:
        return False
    key, step = way.steps[-1]
    return isinstance(step, Kernel) and key not in BACKEND_KEYS


def _unseen(way: Way) -> Handler:
    """Give the handler below, whose calls are part of the one that is recorded."""
    handler = way.handler()
    return lambda *values: run_under(word().but(tracer=None), handler, *values)


def instead(tracer: Any, op: OpOverload, values: tuple[Any, ...]) -> Any:
    """Run the function that a decomposition table has for an operator."""
    return by_name(op, tracer.table[op])(*values)


def nodes_text(shape: Shape) -> list[str]:
    """Lines that leave the node, or constant, of each argument in `_x0`, `_x1`, ..."""
    lines = []
    for i, kind in enumerate(shape.kinds):
        a, x = f"a{i}", f"_x{i}"
        if kind == "tensor":
            lines += _node_text(a, x)
        elif kind == "tensor?":
            lines += [f"if {a} is None: {x} = None", "else:", *indent(_node_text(a, x))]
        elif kind in {"tensor[]", "tensor?[]"}:
            lines.append(f"{x} = [None if _y is None else _tr.node_of(_y) for _y in {a}]")
        else:
            lines.append(f"{x} = {a} if {a}.__class__ in plain else _tr.value({a})")
    return lines


def _node_text(a: str, x: str) -> list[str]:
    return [
        f"try: {x} = {a}.graph_node",
        f"except AttributeError: {x} = _tr.lift({a})",
        "else:",
        # The node may be of an earlier trace, or of one around this one.
        f"    if {x}.graph is not _g: {x} = _tr.lift({a})",
    ]


_PLAIN = frozenset({int, float, bool, str, complex, type(None)})


def arguments_text(op: OpOverload, shape: Shape) -> list[str]:
    """Lines that set the node's arguments, without those that equal their defaults (S65)."""
    n = shape.positional
    given = [f"_x{i}" for i in range(n)]
    optional = [i for i in shape.optional if i < n]
    if not optional:
        lines = [f"_n.args = {spelled_tuple(given)}"]
    else:
        lines = [f"_m = {n}"]
        for depth, i in enumerate(reversed(optional)):
            test = f"if is_default(a{i}, d{i}):"
            lines += [f"{'    ' * depth}{test}", f"{'    ' * (depth + 1)}_m = {i}"]
        lines.append(f"_n.args = {spelled_tuple(given)}[:_m]")
    lines.append("_n.kwargs = _kw = {}")
    for i, name in enumerate(shape.keywords, n):
        keep = f"_kw[{name!r}] = _x{i}"
        lines.append(f"if not is_default(a{i}, d{i}): {keep}" if i in shape.optional else keep)
    return lines


def is_default(value: Any, default: Any) -> bool:
    """Tell whether a value is the default, class and all."""
    if value.__class__ is not default.__class__:
        return False
    if value.__class__ is list:
        return len(value) == len(default) and all(map(is_default, value, default))
    return (
        value is default
        or (value.__class__ in _PLAIN and value == default)
        or (
            value.__class__ not in _PLAIN
            and not isinstance(value, Tensor)
            and bool(value == default)
        )
    )


def users_text(shape: Shape) -> list[str]:
    """Lines that tell the arguments' nodes who reads them."""
    lines = []
    for i, kind in enumerate(shape.kinds):
        a, x = f"a{i}", f"_x{i}"
        if kind == "tensor":
            lines.append(f"{x}.users[_n] = None")
        elif kind == "tensor?":
            lines.append(f"if {x} is not None: {x}.users[_n] = None")
        elif kind in {"tensor[]", "tensor?[]"}:
            lines += [f"for _y in {x}:", "    if _y is not None: _y.users[_n] = None"]
        else:
            lines.append(f"if {a}.__class__ not in plain: _tr.add_users(_n, {x})")
    return lines


def results_text(op: OpOverload, shape: Shape, code: int) -> list[str]:
    """Lines that note the result in the node, and the node in the tensors of the result."""
    forms = result_forms(op._schema)
    if len(forms) == 1 and forms[0][0] in {"new", "view"}:
        val = "_r.payload" if code & (FAKE | FAKE_MODE) else "describe(_r)"
        return [f"_n.val = {val}; _r.graph_node = _n", "return _r"]
    if len(forms) == 1 and forms[0][0] == "argument":
        return [f"_n.val = describe(_r); _tr.written(a{forms[0][1]}, _n)", "return _r"]
    written = [f"a{i}" for form, i in forms if form == "argument"]
    return [f"_tr.results(_n, _r, {spelled_tuple(written)})", "return _r"]

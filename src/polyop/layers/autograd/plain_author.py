"""The quick way of an author's gradient: plain tensors and static values in, new tensors out.

`author.py` records any call; this file writes the forward of the common ones
as text, with the kernel in it: one frame runs the kernel, then `setup_context`
under the same word, and makes the node (PERFORMANCE section 7). What it leaves
on the node is what `author.py` reads, so a gradient that somebody watches, and
every mistake, goes that way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.bits import GRAD
from polyop.dispatch.body import Looks, result_forms
from polyop.dispatch.context import reset_word, set_word, word
from polyop.dispatch.entry import scope_of
from polyop.dispatch.operator import Handler
from polyop.dispatch.table import Kernel
from polyop.dispatch.write import call_text, indent, make_function, shape_of
from polyop.layers.autograd.arrays import send
from polyop.layers.autograd.author import AuthorRecorder, author_backward
from polyop.layers.autograd.context import Context
from polyop.layers.autograd.node import Node, collect, next_seq
from polyop.layers.rule_notes import note_rule
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, is_differentiable

#: Dtypes that gradients flow through, as seen so far.
DIFFERENTIABLE: dict[Any, bool] = {}


def differentiable(dtype: Any) -> bool:
    """Tell whether gradients flow through a dtype."""
    try:
        return DIFFERENTIABLE[dtype]
    except KeyError:
        found = DIFFERENTIABLE[dtype] = is_differentiable(dtype)
        return found


def quick_author(found: AuthorRecorder, kernel: Kernel) -> Handler | None:
    """Write the handler of a call, or give None if its schema is not of the common form."""
    op = found.op
    shape, forms = shape_of(op._schema), result_forms(op._schema)
    if (
        set(shape.kinds) - {"tensor", "static"}
        or shape.keywords
        or shape.written
        or not forms
        or any(form != ("new", -1) for form in forms)
        or kernel.payload
        or kernel.with_keyset
        or kernel.takes_op
    ):
        return None
    scope = scope_of(
        op, kernel=kernel.fn, Context=Context, Node=Node, next_seq=next_seq, GRAD=GRAD,
        differentiable=differentiable, setup=found.setup,
        author_setup=found.rule.setup_context, ref=weakref.ref,
        owner=found, backward=plain_backward_of(found),
        more=(None, found, [0]), Inputs=found.inputs_class, general=general(found), NONE={},
        note_rule=note_rule, places=[*range(len(forms))], collect=collect,
    )  # fmt: skip
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(_text(found, shape))])
    return make_function(text, scope, op._opname, found.names)


def general(found: AuthorRecorder) -> Callable[..., Any]:
    """Give the function that checks an odd result, and records it the long way."""

    def run(args: tuple[Any, ...], out: Any) -> Any:
        found.record(args, args, out, out, kept=False, node_of=_node_of, plain=True)
        return out

    return run


def _node_of(tensor: Any) -> Node | None:
    found: Node | None = tensor.grad_node if tensor.keys & GRAD else None
    return found


def _text(found: AuthorRecorder, shape: Any) -> list[str]:
    given = f"({', '.join(shape.names)},)"
    tensors = [f"a{i}" for i, kind in enumerate(shape.kinds) if kind == "tensor"]
    odd = f"return general({given}, results(op, _r, {given}))"
    one = len(tensors) == 1  # then it is the one that requires grad
    some = "True" if one else "{}.keys & GRAD != 0"
    needs = [some.format(a) if a in tensors else "False" for a in shape.names]
    results = [f"_r{i}" for i in range(len(shape.results))] if len(shape.results) > 1 else ["_r"]
    lines = [
        "_token = set_word(word().in_kernel)",
        "try:",
        f"    _r = {call_text(shape, payloads=False)}",
        *indent(Looks(shape, odd).of_types(["Tensor"] * len(results))),
        *indent(_dtypes_text(results, tensors if one else [], odd)),
        f"    _c = Context(); _c.needs_input_grad = ({', '.join(needs)},)",
    ]
    if found.setup is not None:
        ids = ", ".join(f"id({a})" for a in shape.names)
        lines += [
            f"    try: {_setup_text(found, given)}",
            "    except Exception as _e: note_rule(_e, op, 'setup_context'); raise",
            f"    _c._ids = ({ids},)",
            *indent(_saved_text(results)),
        ]
    lines.append("finally: reset_word(_token)")
    if len(results) == 1:
        lines.append("if _c._without and id(_r) in _c._without: return _r")
    spec = "({0}.grad_node if {0}.keys & GRAD else None, {0}.payload.shape, {0}.payload.dtype)"
    spec = "({0}.grad_node, _q.shape, _q.dtype)" if one else spec
    specs = [spec.format(a) if a in tensors else "None" for a in shape.names]
    nodes = (
        f"{tensors[0]}.grad_node"
        if one
        else f"tuple([_x.grad_node for _x in ({', '.join(tensors)},) if _x.keys & GRAD])"
    )
    return [
        *lines,
        "_n = Node(); _n.backward = backward; _n.seq = next_seq(); _n.op = op",
        f"_n.n0 = {nodes}; _n.s0 = _c; _n.s1 = ({', '.join(specs)},)",
        # A saved result needs its node again; weakly, since the node keeps the context.
        "_c._node = ref(_n) if _c._saved.__class__ is list else owner",
        *_history_text(results),
        "return _r",
    ]


def _dtypes_text(results: Sequence[str], one: Sequence[str], odd: str) -> list[str]:
    """Lines that leave calls whose results have no gradient."""
    if len(results) > 1:
        some = " and ".join(f"differentiable({r}.payload.dtype)" for r in results)
        return [f"if not ({some}): {odd}"]
    changed = f"_p.dtype is not {one[0]}.payload.dtype and " if one else ""
    return [f"if {changed}not differentiable(_p.dtype): return _r"]


def _saved_text(results: Sequence[str]) -> list[str]:
    """Lines that keep no result itself in the context."""
    if len(results) > 1:
        return [f"if _c._saved: _c.keep_twins(({', '.join(results)}))"]
    return ["for _s in _c._saved:", "    if _s is _r: _c.keep_twin(_r); break"]


def _history_text(results: Sequence[str]) -> list[str]:
    """Lines that give results their node; of several each has its own, which collects."""
    if len(results) == 1:
        return ["_n.more = more; _r.keys = 3; _r.grad_node = _n"]
    facts = ", ".join(f"({r}.payload.shape, {r}.payload.dtype)" for r in results)
    lines = [f"_n.more = ([{facts}], owner, places)"]
    for i, r in enumerate(results):
        lines += [
            f"if not (_c._without and id({r}) in _c._without):",
            "    _m = Node(); _m.backward = collect; _m.seq = next_seq(); _m.op = op",
            f"    _m.n0 = _n; _m.x0 = {i}; {r}.keys = 3; {r}.grad_node = _m",
        ]
    return lines


def _setup_text(found: AuthorRecorder, given: str) -> str:
    rule = found.rule.setup_context
    if found.setup_is_plain and rule is not None:
        return f"author_setup(_c, Inputs({given}), _r)"
    return f"setup(_c, Inputs({given}), NONE, _r)"


def plain_backward_of(found: AuthorRecorder) -> Callable[..., Any]:
    """Write the backward on bare arrays; anything odd that an author returns goes the long way."""
    kinds = [leaf_kind(a.type) for a in found.op._schema.arguments]
    n = len(kinds)
    names = [f"d{i}" for i in range(n)]
    if n == 1:
        unpack = ["d0 = given[0] if given.__class__ is tuple and len(given) == 1 else given"]
    else:
        unpack = [
            f"if given.__class__ is not tuple or len(given) != {n}:",
            "    return odd(n, given, grads, push)",
            f"{', '.join(names)} = given",
        ]
    checks, sends = [], []
    for i, kind in enumerate(kinds):
        if kind != "tensor":
            checks.append(f"if d{i} is not None: return odd(n, given, grads, push)")
            continue
        checks += [
            f"if d{i} is not None:",
            f"    m{i}, shape, dtype = n.s1[{i}]",
            f"    if d{i}.__class__ is not Tensor or d{i}.keys & -3 != 1: "
            "return odd(n, given, grads, push)",
            f"    d{i} = d{i}.payload",
            f"    if d{i}.shape != shape or d{i}.dtype is not dtype: "
            "return odd(n, given, grads, push)",
        ]
        sends += [
            f"if d{i} is not None and m{i} is not None:",
            f"    if m{i} in grads: grads[m{i}] = grads[m{i}] + d{i}",
            "    else:",
            f"        grads[m{i}] = d{i}",
            f"        if m{i}.seq: push(m{i})",
        ]
    count = len(found.op._schema.returns)
    incoming = ["t"] if count == 1 else [f"t{i}" for i in range(count)]
    lines = [
        *_incoming_text(incoming),
        "token = set_word(word().without_grad)",
        f"try: given = rule(n.s0, {', '.join(incoming)})",
        "except Exception as error: note_rule(error, n.op, 'backward'); raise",
        "finally: reset_word(token)",
        *unpack,
        *checks,
        *sends,
    ]
    text = "\n".join(["def f(n, g, grads, push):", *indent(lines)])
    scope = {
        "Tensor": Tensor, "ndarray": np.ndarray, "asarray": np.asarray, "set_word": set_word,
        "reset_word": reset_word, "word": word, "rule": found.backward, "odd": odd_gradients,
        "note_rule": note_rule, "zeros": np.zeros,
    }  # fmt: skip
    made = make_function(text, scope, f"{found.op._opname}_backward", ())
    made.tensor = author_backward.tensor  # type: ignore[attr-defined]
    return made


def _incoming_text(names: Sequence[str]) -> list[str]:
    """Lines that make tensors of what comes in; of several, what nobody sent is zero, or None."""
    if len(names) == 1:
        return [_tensor_text(names[0], "g")]
    lines = [f"{', '.join(f'g{i}' for i in range(len(names)))}, = g", "filled = n.s0._materialize"]
    for i, t in enumerate(names):
        lines += [
            f"if g{i} is None and filled: g{i} = zeros(*n.more[0][{i}])",
            f"if g{i} is None: {t} = None",
            f"else: {_tensor_text(t, f'g{i}')}",
        ]
    return lines


def _tensor_text(t: str, g: str) -> str:
    array = f"{g} if {g}.__class__ is ndarray else asarray({g})"
    return f"{t} = Tensor(); {t}.payload = {array}; {t}.keys = 1; {t}.version = 0"


def odd_gradients(n: Node, given: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    """Look at what backward returned: convert it, or raise the error that says what is wrong."""
    recorder: AuthorRecorder = n.more[1]
    for node, d in recorder.matched(n, given):
        send(node, d.payload, grads, push)

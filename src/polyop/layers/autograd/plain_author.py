"""The quick way of an author's gradient: tensors, lists, trees, static values in, new tensors out.

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
from polyop.dispatch.context import set_word, word
from polyop.dispatch.entry import scope_of
from polyop.dispatch.operator import Handler
from polyop.dispatch.table import Kernel
from polyop.dispatch.write import Shape, call_text, indent, make_function, shape_of
from polyop.layers.autograd.arrays import send
from polyop.layers.autograd.author import AuthorRecorder, author_backward, own_history
from polyop.layers.autograd.context import Context
from polyop.layers.autograd.node import Node, collect, next_seq
from polyop.layers.autograd.plain_trees import (
    FACTS,
    Trees,
    at_length,
    classes_of,
    tree_alone_text,
    tree_check_text,
    tree_facts_text,
    trees_of,
)
from polyop.layers.rule_notes import note_rule
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, is_differentiable

#: Arguments that hold several tensors.
LISTS = {"tensor[]", "tensor?[]"}
CONTAINERS = {*LISTS, "tree"}
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
    shape, forms, trees = shape_of(op._schema), result_forms(op._schema), trees_of(op._schema)
    if (
        trees is None
        or shape.keywords
        or shape.written
        or not forms
        or any(form != ("new", -1) for form in forms)
        or kernel.payload
        or kernel.with_keyset
        or kernel.takes_op
    ):
        return None
    record = general(found)
    scope = scope_of(
        op, kernel=kernel.fn, Context=Context, Node=Node, next_seq=next_seq, GRAD=GRAD,
        differentiable=differentiable, setup=found.setup,
        author_setup=found.alone, ref=weakref.ref,
        owner=found, backward=plain_backward_of(found, trees),
        more=(None, found, [0]), Inputs=found.inputs_class, general=record, NONE={},
        note_rule=note_rule, places=[*range(len(forms))], collect=collect,
        own_history=own_history, at_length=at_length(kernel, record, found), **classes_of(trees),
    )  # fmt: skip
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(_text(found, shape, trees))])
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


def _text(found: AuthorRecorder, shape: Shape, trees: Trees) -> list[str]:
    given = f"({', '.join(shape.names)},)"
    odd = f"_r = general({given}, results(op, _r, {given})); reset_word(_token); return _r"
    kinds = dict(zip(shape.names, shape.kinds, strict=True))
    one = [a for a in shape.names if kinds[a] != "static"]
    one = one if [kinds[a] for a in one] == ["tensor"] else []  # it is what requires grad
    results = [f"_r{i}" for i in range(len(shape.results))] if len(shape.results) > 1 else ["_r"]
    first = not CONTAINERS.isdisjoint(shape.kinds)  # a kernel may change its list
    lengthy = f"_r = at_length({', '.join(shape.names)})"
    leave = "return _r" if first else "reset_word(_token); return _r"
    facts = _facts_text(shape, one, trees, f"{lengthy}; {leave}")
    kept, put_back = _kept_text(shape, trees)
    lines = [
        *(facts if first else []),
        *kept,
        "_outer = word()",
        "try:",
        "    _token = set_word(_outer.in_kernel)",
        f"    _r = {call_text(shape, payloads=False)}",
        *indent(put_back),
        *indent(Looks(shape, odd).of_types(["Tensor"] * len(results))),
        *indent(_dtypes_text(results, one, odd)),
        # Somebody else knows the memory: the result may be a view.
        *[f"    if {r}.version.__class__ is not int: own_history(({r},))" for r in results],
        *indent([] if first else facts),
    ]
    if found.setup is not None:
        ids = ", ".join(f"id({a})" for a in shape.names)
        lines += [
            f"    try: {_setup_text(found, given)}",
            "    except Exception as _e: note_rule(_e, op, 'setup_context'); raise",
            f"    _c._ids = ({ids},)",
            *indent(_saved_text(results)),
        ]
    lines += ["except BaseException: set_word(_outer); raise", "reset_word(_token)"]
    if len(results) == 1:
        lines.append("if _c._without and id(_r) in _c._without: return _r")
    return [
        *lines,
        "_n = Node(); _n.backward = backward; _n.seq = next_seq(); _n.op = op",
        "_n.n0 = _m; _n.s0 = _c; _n.s1 = _s1",
        # A saved result needs its node again; weakly, since the node keeps the context.
        "_c._node = ref(_n) if _c._saved.__class__ is list else owner",
        *_history_text(results),
        "return _r",
    ]


def _kept_text(shape: Shape, trees: Trees) -> tuple[list[str], list[str]]:
    """Lines that copy lists and dicts before the kernel, and put the copies back after it.

    A kernel may take things out of its own; what is recorded is the call as it came.
    """
    copies = {f"a{i}": f"[*a{i}]" for i, kind in enumerate(shape.kinds) if kind in LISTS}
    for i, form in trees.items():
        if form.cls is dict:
            copies[f"a{i}"] = f"{{**a{i}}} if a{i}.__class__ is dict else a{i}"
    kept = [f"_k{a} = {copy}" for a, copy in copies.items()]
    return kept, [f"{a} = _k{a}" for a in copies]


def _facts_text(shape: Shape, one: Sequence[str], trees: Trees, odd: str) -> list[str]:
    """Lines that leave the context in `_c`, the nodes of arguments in `_m`, facts in `_s1`."""
    opened, needs, facts, nodes = [], [], [], []
    for i, (a, kind) in enumerate(zip(shape.names, shape.kinds, strict=True)):
        need, fact, node = _facts_of(i, kind)
        if kind == "tree":
            opened += tree_facts_text(i, trees[i], odd)
        needs.append("True" if a in one else need)
        facts.append(f"({a}.grad_node, _q.shape, _q.dtype)" if a in one else fact)
        nodes += [node] if node else []
    made = f"{one[0]}.grad_node" if one else f"({', '.join(nodes)},)"
    return [
        *opened,
        f"_m = {made}",
        f"_c = Context(); _c.needs_input_grad = ({', '.join(needs)},)",
        f"_s1 = ({', '.join(facts)},)",
    ]


def _facts_of(i: int, kind: str) -> tuple[str, str, str]:
    """Spell which parts of an argument require grad, what is known of them, and their nodes."""
    a = f"a{i}"
    if kind == "static":
        return "False", "None", ""
    if kind == "tree":
        return f"_w{i}", f"_f{i}", f"*_m{i}"
    some = "_x is not None and " if "?" in kind else ""
    xs = a if kind in LISTS else f"({a},)"
    nodes = f"*[_x.grad_node for _x in {xs} if {some}_x.keys & GRAD]"
    x = "_x" if kind in LISTS else a
    need, fact = f"{x}.keys & GRAD != 0", FACTS.format(x)
    if "?" in kind:
        need, fact = f"{x} is not None and {need}", f"None if {x} is None else {fact}"
    if kind in LISTS:
        return f"[{need} for _x in {a}]", f"[{fact} for _x in {a}]", nodes
    return need, fact, nodes


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


def plain_backward_of(found: AuthorRecorder, trees: Trees) -> Callable[..., Any]:
    """Write the backward on bare arrays; anything odd that an author returns goes the long way."""
    kinds = [leaf_kind(a.type) for a in found.op._schema.arguments]
    odd = "return odd(n, given, grads, push)"
    checks, sends = [], []
    for i, kind in enumerate(kinds):
        if kind == "static":
            checks.append(f"if d{i} is not None: {odd}")
        elif kind in LISTS:
            checks += _list_check_text(i, odd)
            sends += _list_send_text(i)
        elif kind == "tree":
            checks += tree_check_text(i, trees[i], odd)
            sends += [f"for m, p in e{i}:", *_send_text("m", "p")]
        else:
            checks += _check_text(i, kind, odd)
            sends += [f"if d{i} is not None and m{i} is not None:", *_send_text(f"m{i}", f"d{i}")]
    count = len(found.op._schema.returns)
    incoming = ["t"] if count == 1 else [f"t{i}" for i in range(count)]
    lines = [
        "facts = n.s1",
        *_incoming_text(incoming),
        "outer = word()",
        f"try: set_word(outer.without_grad); given = rule(n.s0, {', '.join(incoming)})",
        "except Exception as error: note_rule(error, n.op, 'backward'); raise",
        "finally: set_word(outer)",
        *_unpack_text(kinds, trees, odd),
        *checks,
        *sends,
    ]
    text = "\n".join(["def f(n, g, grads, push):", *indent(lines)])
    scope = {
        "Tensor": Tensor, "ndarray": np.ndarray, "asarray": np.asarray, "set_word": set_word,
        "word": word, "rule": found.backward,
        "odd": odd_gradients, "note_rule": note_rule, "zeros": np.zeros,
        "argument": found.names[0], **classes_of(trees),
    }  # fmt: skip
    made = make_function(text, scope, f"{found.op._opname}_backward", ())
    made.tensor = author_backward.tensor  # type: ignore[attr-defined]
    return made


def _unpack_text(kinds: Sequence[str], trees: Trees, odd: str) -> list[str]:
    """Lines that leave the gradient of each argument in `d0`, `d1`, ..."""
    n = len(kinds)
    if n > 1:
        return [
            f"if given.__class__ is not tuple or len(given) != {n}: {odd}",
            f"{', '.join(f'd{i}' for i in range(n))} = given",
        ]
    if trees:
        return tree_alone_text(odd)
    alone = "given.__class__ is tuple and len(given) == 1"
    if kinds[0] in LISTS:  # a tuple may be the mirror of the list, or hold it
        alone += " and (given[0] is None or given[0].__class__ is list)"
    return [f"d0 = given[0] if {alone} else given"]


def _check_text(i: int, kind: str, odd: str) -> list[str]:
    """Lines that look at the gradient of a tensor, and leave its node in `m0`, `m1`, ..."""
    absent = [f"    if facts[{i}] is None: {odd}"] if kind == "tensor?" else []
    return [
        f"if d{i} is not None:",
        *absent,
        f"    m{i}, shape, dtype = facts[{i}]",
        f"    if d{i}.__class__ is not Tensor or d{i}.keys & -3 != 1: {odd}",
        f"    d{i} = d{i}.payload",
        f"    if d{i}.shape != shape or d{i}.dtype is not dtype: {odd}",
    ]


def _list_check_text(i: int, odd: str) -> list[str]:
    """Lines that look at the gradients of a list, each beside the facts of its tensor."""
    several = f"(d{i}.__class__ is list or d{i}.__class__ is tuple)"
    return [
        f"if d{i} is not None:",
        f"    s{i} = facts[{i}]",
        f"    if not {several} or len(d{i}) != len(s{i}): {odd}",
        f"    d{i} = [*zip(d{i}, s{i})]",
        f"    for d, s in d{i}:",
        "        if d is None: continue",
        f"        if s is None or d.__class__ is not Tensor or d.keys & -3 != 1: {odd}",
        "        p = d.payload",
        f"        if p.shape != s[1] or p.dtype is not s[2]: {odd}",
    ]


def _list_send_text(i: int) -> list[str]:
    return [
        f"if d{i} is not None:",
        f"    for d, s in d{i}:",
        "        if d is not None and s[0] is not None:",
        "            m = s[0]; p = d.payload",
        *indent(_send_text("m", "p"), 2),
    ]


def _send_text(m: str, d: str) -> list[str]:
    """Lines that add a gradient to a node's."""
    return [
        f"    if {m} in grads: grads[{m}] = grads[{m}] + {d}",
        "    else:",
        f"        grads[{m}] = {d}",
        f"        if {m}.seq: push({m})",
    ]


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
        payload = d.payload
        if payload.__class__ is not np.ndarray:  # another library's
            payload = payload.look("backward")
        send(node, payload, grads, push)

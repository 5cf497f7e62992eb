"""Trees of tensors in the quick way of an author's gradient: dicts, dataclasses, NamedTuples.

Each tree of a schema is taken apart where the call is recorded, by lines that
are written from its type; backward lays what the author returns beside the
facts that these lines leave. A value of another class (a subclass with more
fields, say) and a gradient that is laid out otherwise go the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polyop.dispatch.context import set_word, word
from polyop.dispatch.operator import Handler
from polyop.dispatch.results import results
from polyop.dispatch.table import Kernel
from polyop.dispatch.trees import TreeForm, form_of
from polyop.dispatch.write import indent
from polyop.layers.autograd.author import AuthorRecorder, copied
from polyop.schema.model import FunctionSchema
from polyop.schema.types import leaf_kind

#: The trees of a schema, by position.
Trees = Mapping[int, TreeForm]


def trees_of(schema: FunctionSchema) -> Trees | None:
    """Give the forms of a schema's trees, or None if one of them is read by a walk."""
    types = [(i, a.type) for i, a in enumerate(schema.arguments)]
    found = {i: form_of(t) for i, t in types if leaf_kind(t) == "tree"}
    known = {i: form for i, form in found.items() if form is not None}
    return known if len(known) == len(found) else None


def classes_of(trees: Trees) -> dict[str, type]:
    """Give the classes of trees, by their names in texts."""
    return {f"cls{i}": form.cls for i, form in trees.items()}


# -- the call -----------------------------------------------------------------

#: What backward must know of a tensor: its node, shape and dtype.
FACTS = "({0}.grad_node if {0}.keys & GRAD else None, {0}.payload.shape, {0}.payload.dtype)"


#: Types of fields that hold a tensor.
TENSORS = {"Tensor", "Tensor?"}


def tree_facts_text(i: int, form: TreeForm, odd: str) -> list[str]:
    """Lines that take a tree apart.

    They leave its tensors in `_t0`, the nodes of those that require grad in `_m0`, and, laid out
    as the tree is, which ones these are in `_w0` and the facts of all in `_f0`.

    Args:
        i: the position of the argument.
        form: of the tree.
        odd: leaves the call, where the tree is of another class.
    """
    if form.cls is dict:
        lines = _dict_text(i, form, odd)
    else:
        lines = [f"if a{i}.__class__ is not cls{i}: {odd}", *_fields_text(i, form)]
    if not form.optional:
        return lines
    empty = f"_t{i} = _m{i} = (); _w{i} = False; _f{i} = None"
    return [f"if a{i} is None: {empty}", "else:", *indent(lines)]


def _dict_text(i: int, form: TreeForm, odd: str) -> list[str]:
    """Lines for a dict, whose items are gone through in the caller's order."""
    types = {text for _, text in form.fields}
    empty = "_x is None" if form.absent or "Tensor?" in types else ""
    empty = empty if types <= TENSORS else "not isinstance(_x, Tensor)"
    skip = [f"if {empty}:", f"    _w{i}[_k] = False; _f{i}[_k] = None", "    continue"]
    return [
        *([f"if a{i}.__class__ is not dict: {odd}"] if form.fields else []),
        f"_t{i} = []; _m{i} = []; _w{i} = {{}}; _f{i} = {{}}",
        f"for _k, _x in a{i}.items():",
        *indent(skip if empty else []),
        f"    _t{i}.append(_x); _q = _x.payload",
        "    if _x.keys & GRAD:",
        f"        _g = _x.grad_node; _w{i}[_k] = True; _m{i}.append(_g)",
        f"    else: _g = None; _w{i}[_k] = False",
        f"    _f{i}[_k] = (_g, _q.shape, _q.dtype)",
    ]


def _fields_text(i: int, form: TreeForm) -> list[str]:
    """Lines for a record of a class of its own."""
    lines, needs, facts = [f"_t{i} = []; _m{i} = []"], [], []
    for n, (name, text) in enumerate(form.fields):
        x, need, fact = f"_x{i}_{n}", "False", "None"
        if text in TENSORS:
            need, fact = f"{x}.keys & GRAD != 0", FACTS.format(x)
            node = f"if {x}.keys & GRAD: _m{i}.append({x}.grad_node)"
            lines.append(f"{x} = a{i}.{name}")
            found = [f"_t{i}.append({x})", node]
            if text == "Tensor?":
                found = [f"if {x} is not None:", *indent(found)]
                need, fact = f"{x} is not None and {need}", f"None if {x} is None else {fact}"
            lines += found
        needs.append(f"{name!r}: {need}")
        facts.append(f"{name!r}: {fact}")
    return [*lines, f"_w{i} = {{{', '.join(needs)}}}", f"_f{i} = {{{', '.join(facts)}}}"]


def at_length(kernel: Kernel, record: Callable[..., Any], found: AuthorRecorder) -> Handler:
    """Make what runs the kernel of a call with an odd tree, and records it the long way."""
    fn, op = kernel.fn, found.op
    assert fn is not None

    def run(*args: Any) -> Any:
        outer = word()
        try:
            set_word(outer.in_kernel)
            out = fn(*map(copied, args))
        finally:
            set_word(outer)
        return record(args, results(op, out, args))

    return run


# -- backward -----------------------------------------------------------------


def tree_alone_text(odd: str) -> list[str]:
    """Lines that leave the gradient of the only argument, a tree, in `d0`.

    A tuple may hold it, and a dict may name the argument instead of a part of it.
    """
    held = "given[0] is None or given[0].__class__ is dict or given[0].__class__ is cls0"
    return [
        f"if given.__class__ is tuple and len(given) == 1 and ({held}): d0 = given[0]",
        f"elif given.__class__ is dict and len(given) == 1 and argument in given: {odd}",
        "else: d0 = given",
    ]


def tree_check_text(i: int, form: TreeForm, odd: str) -> list[str]:
    """Lines that look at the gradients of a tree; they leave those to send in `e0`, `e1`, ..."""
    made = ", ".join(f"{name!r}: d{i}.{name}" for name, _ in form.fields)
    opened, absent = [f"if c is not dict: {odd}"], f"if f is None: {odd}"
    if form.cls is not dict:
        opened = [
            f"if c is cls{i}:",
            f"    try: d{i} = {{{made}}}",
            f"    except AttributeError: {odd}",
            f"elif c is not dict: {odd}",
        ]
        # The author's class needs a number there, which says nothing.
        absent = f"if f is None and c is cls{i} and not isinstance(d, Tensor): continue"
    return [
        f"e{i} = []",
        f"if d{i} is not None:",
        f"    s = facts[{i}]; c = d{i}.__class__",
        f"    if s is None: {odd}",
        *indent(opened),
        f"    for k, d in d{i}.items():",
        f"        if k not in s: {odd}",
        "        if d is None: continue",
        "        f = s[k]",
        f"        {absent}",
        f"        if f is None or d.__class__ is not Tensor or d.keys & -3 != 1: {odd}",
        "        p = d.payload",
        f"        if p.shape != f[1] or p.dtype is not f[2]: {odd}",
        f"        if f[0] is not None: e{i}.append((f[0], p))",
    ]

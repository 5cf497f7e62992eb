"""The functions of a plan, written from its texts: what forward records, what backward does.

NOTE [Variants]
Each part of a plan has up to six backwards, compiled when first needed:
`plain` on bare arrays where inputs and result have one real dtype (so `conj`
is nothing and no gradient is cast), `general` on bare arrays of any dtypes,
and the same two on tensors; and those two again behind an adapter, for nodes
whose payloads are no NumPy arrays. Which one a node gets is decided when it
is recorded.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.body import new_text
from polyop.dispatch.write import call_text, indent, make_function
from polyop.errors import MissingGradientError
from polyop.layers.autograd.arrays import (
    adapted,
    cast_array,
    cast_tensor,
    conj_array,
    conj_tensor,
    fill_arrays,
    fill_tensors,
    plus,
    sum_array_to,
    sum_tensor_to,
)
from polyop.layers.autograd.node import Node, next_seq
from polyop.layers.autograd.plan import FACTS, Part, Plan, Read, load, store
from polyop.layers.autograd.saved import Twin, check, count_of, revive, stale, twin
from polyop.ops.define import ON_ARRAYS, ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
VERSION = "{v} = {a}.version; {v} = {v} if {v}.__class__ is int else {v}.n"

# -- recording ----------------------------------------------------------------


def record_lines(
    plan: Plan,
    part: Part,
    node: Callable[[int], str],
    results: Sequence[str],
    *,
    saved: Callable[[int], str],
    counted: Callable[[int], str],
    quick: bool,
    prefix: str = "",
) -> list[str]:
    """Lines that make the node of a call and give it to the results.

    Args:
        plan: of the operator.
        part: the inputs that need gradients.
        node: spells the node of an argument.
        results: the variables of the results; of a list result, one that holds the list.
        saved: spells what is kept of a result.
        counted: spells its version.
        quick: whether nothing was made under inference mode, and all is NumPy.
        prefix: of the names of the backwards.
    """
    lines = ["_n = Node()", "_n.op = op", "_n.seq = next_seq()"]
    lines += store("n", [node(i) for i in part.needs], 2)
    values: list[str] = []
    versions: list[str] = []
    for read in part.reads:
        value, version = _kept(read, saved, counted)
        values.append(value)
        if version and quick and read.kind == "tensor":
            v = f"_v{len(versions)}"
            lines.append(VERSION.format(v=v, a=value))
            version = v
        versions += [version] if version else []
    lines += store("s", values, 3) if values else []
    lines += store("v", versions, 2) if versions else []
    if plan.broadcasts:
        lines += store("x", [f"a{i}.payload.shape" for i in part.needs], 2)
    return lines + _choose(plan, part, results, prefix, quick=quick)


def _kept(
    read: Read, saved: Callable[[int], str], counted: Callable[[int], str]
) -> tuple[str, str]:
    """Spell what is kept of a thing, and its version if it has one."""
    a = f"a{read.index}"
    return {
        "tensor": (a, f"count_of({a})"),
        "tensor?": (a, f"(None if {a} is None else count_of({a}))"),
        "tensor[]": (a, f"[count_of(_x) for _x in {a}]"),
        "tensor?[]": (a, f"[None if _x is None else count_of(_x) for _x in {a}]"),
        "fact": (FACTS.get(read.fact, "").format(p=f"{a}.payload"), ""),
        "facts": (f"[{FACTS.get(read.fact, '').format(p='_x.payload')} for _x in {a}]", ""),
        "result_fact": (FACTS.get(read.fact, "").format(p=f"r{read.index}.payload"), ""),
        "result": (saved(read.index), counted(read.index)),
        "results": (
            "([twin(_x, _i) for _i, _x in enumerate(r)] if kept is None else kept)",
            "[count_of(_x) for _x in (r if kept is None else kept)]",
        ),
    }.get(read.kind, (a, ""))


def _choose(
    plan: Plan, part: Part, results: Sequence[str], prefix: str, *, quick: bool
) -> list[str]:
    dtypes = [_dtypes_of(plan, i) for i in part.needs]
    dtypes_text = f"({', '.join(dtypes)},)"
    general = [f"_n.backward = {prefix}general"]
    if not plan.single:
        facts = results[0] if plan.forms[0][0] in {"list", "views"} else f"({', '.join(results)},)"
        return [*general, f"_n.more = ([facts(_x) for _x in {facts}], {dtypes_text})"]
    more = f"_n.more = (None, {dtypes_text})"
    if any(plan.shape.kinds[i] == "tensor[]" for i in part.needs):
        return [*general, more]
    tests = [f"{d} is not _d" for d in dtypes]
    # Equal dtypes may be several objects (of a pickle, say), so that identity only ever saves time.
    is_complex = "(_d is not f32 and _d is not f64 and _d.kind == 'c')"
    r = results[0]
    # Nobody has looked yet whether gradients flow through the result: integers have none.
    constant = [f"if not differentiable(_d): {r}.keys = 1; return {r}"] if quick else []
    return [
        f"_d = {r}.payload.dtype",
        f"if {' or '.join([*tests, is_complex])}:",
        *indent([*constant, *general, more]),
        f"else: _n.backward = {prefix}plain",
    ]


def _dtypes_of(plan: Plan, i: int) -> str:
    if plan.shape.kinds[i].endswith("[]"):
        return f"[None if _x is None else _x.payload.dtype for _x in a{i}]"
    return f"a{i}.payload.dtype"


def facts(tensor: Any) -> Any:
    """Give what a missing gradient of one of several results is made of."""
    if not isinstance(tensor, Tensor):
        return None
    found = tensor.payload
    return found.shape, found.dtype


def recorder(plan: Plan, needs: tuple[int, ...], *, quick: bool) -> Callable[..., Any]:
    """Write `(values, nodes, results, saved) -> node`; `saved` are results to keep, or None."""
    key = ("record", needs, quick)
    if key not in plan.written:
        plan.written[key] = _recorder(plan, needs, quick)
    made: Callable[..., Any] = plan.written[key]
    return made


def _recorder(plan: Plan, needs: tuple[int, ...], quick: bool) -> Callable[..., Any]:
    part = plan.part(needs)
    many = plan.forms[0][0] in {"list", "views"}
    names = ["r"] if many else [f"r{i}" for i in range(len(plan.forms))]
    last = -1 if plan.single else 0

    def saved(i: int) -> str:
        return f"(twin(r{i}, {i if last == 0 else -1}) if kept is None else kept[{i}])"

    def counted(i: int) -> str:
        return f"count_of(r{i} if kept is None else kept[{i}])"

    lines = [f"{', '.join(plan.shape.names)}, = args"]
    lines.append("r = results" if many else f"{', '.join(names)}, = results")
    nodes = {i: f"nodes[{i}]" for i in needs}
    lines += record_lines(
        plan, part, nodes.__getitem__, names, saved=saved, counted=counted, quick=False,
        prefix="" if quick else "adapted_",
    )  # fmt: skip
    text = "\n".join(["def f(args, nodes, results, kept):", *indent([*lines, "return _n"])])
    return make_function(text, _scope(plan, needs), f"{plan.op._opname}_record", ())


def _scope(plan: Plan, needs: tuple[int, ...]) -> dict[str, Any]:
    return {
        "op": plan.op, "Node": Node, "Tensor": Tensor, "next_seq": next_seq, "twin": twin,
        "count_of": count_of, "facts": facts, "f32": F32, "f64": F64,
        "differentiable": is_differentiable,
        **{v: backward(plan, needs, v) for v in VARIANTS},
    }  # fmt: skip


# -- forward on bare arrays ---------------------------------------------------


def fused(plan: Plan, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Write the forward that runs a kernel on bare arrays and records the call, in one frame."""
    lines = [
        f"_r = {call_text(plan.shape, payloads=True)}",
        "if _r.__class__ is not ndarray: _r = asarray(_r)",
        *new_text("_r", 3),
    ]
    scope: dict[str, Any] = {"kernel": kernel, "ndarray": np.ndarray, "asarray": np.asarray}
    lines += _by_needs(plan, list(plan.diff), (), scope)
    text = "\n".join([f"def f({', '.join(plan.shape.names)}):", *indent([*lines, "return _t"])])
    return make_function(text, scope, plan.op._opname, plan.names)


def _by_needs(
    plan: Plan, left: list[int], needs: tuple[int, ...], scope: dict[str, Any]
) -> list[str]:
    """Lines that find out which inputs need gradients, one branch for each answer."""
    if not left:
        return _branch(plan, needs, scope)
    i, rest = left[0], left[1:]
    yes, no = _by_needs(plan, rest, (*needs, i), scope), _by_needs(plan, rest, needs, scope)
    if len(plan.shape.of("tensor", "tensor?", "tensor[]", "tensor?[]", "tree")) == 1:
        return yes
    return [f"if a{i}.keys & 2:", *indent(yes), "else:", *indent(no)]


def _branch(plan: Plan, needs: tuple[int, ...], scope: dict[str, Any]) -> list[str]:
    if not needs:
        return ["_t.keys = 1"]
    prefix = "b" + "_".join(map(str, needs)) + "_"
    inner = _scope(plan, needs)
    scope |= {prefix + v: inner.pop(v) for v in VARIANTS} | inner
    lines = record_lines(
        plan, plan.part(needs), lambda i: f"a{i}.grad_node", ["_t"],
        saved=lambda _: "twin(_t, -1)", counted=lambda _: "0", quick=True, prefix=prefix,
    )  # fmt: skip
    return [*[line.replace("r0.payload", "_r") for line in lines], "_t.grad_node = _n"]


# -- backward -----------------------------------------------------------------

#: The names of the variants that a recording chooses from (NOTE [Variants]).
VARIANTS = ("plain", "general", "adapted_plain", "adapted_general")


def backward(plan: Plan, needs: tuple[int, ...], variant: str) -> Callable[..., Any]:
    """Give a backward, which is compiled when it is first called."""
    key = (variant, needs)
    if key not in plan.written:
        plan.written[key] = _lazy(plan, needs, variant)
    made: Callable[..., Any] = plan.written[key]
    return made


def _lazy(plan: Plan, needs: tuple[int, ...], variant: str) -> Callable[..., Any]:
    if variant.startswith("adapted_"):
        inner = backward(plan, needs, "tensor_" + variant.removeprefix("adapted_"))
        return adapted(inner)
    if variant == "plain":
        # The one of nearly every backward: written at once, so that it costs one frame.
        made = _write_backward(plan, plan.part(needs), variant)
        made.tensor = backward(plan, needs, "tensor_plain")  # type: ignore[attr-defined]
        return made
    real: list[Callable[..., Any]] = []

    def first(n: Node, g: Any, grads: Any, push: Any) -> None:
        if not real:
            real.append(_write_backward(plan, plan.part(needs), variant))
        real[0](n, g, grads, push)

    if not variant.startswith("tensor_"):
        first.tensor = backward(plan, needs, "tensor_" + variant)  # type: ignore[attr-defined]
    return first


def _write_backward(plan: Plan, part: Part, variant: str) -> Callable[..., Any]:
    tensors, general = variant.startswith("tensor_"), variant.endswith("general")
    lines = [] if plan.single else _several(plan)
    names = [read.name for read in part.reads]
    lines += load("s", names, 3) if names else []
    versioned = [r for r in part.reads if r.kind not in {"static", "fact", "facts", "result_fact"}]
    lines += load("v", [f"v_{r.name}" for r in versioned], 2) if versioned else []
    for read in part.reads:
        lines += _use(read, tensors)
    for j, text in enumerate(part.texts):
        lines += _gradient_lines(plan, part, j, _simple(text, variant), general=general)
    text = "\n".join(["def f(_n, g, grads, push):", *indent(lines)])
    return make_function(
        text, _backward_scope(plan, part, tensors), f"{plan.op._opname}_backward", ()
    )


def _several(plan: Plan) -> list[str]:
    if plan.forms[0][0] in {"list", "views"}:
        return ["g = fill(_n, g)"]
    return [f"{', '.join(f'g{i}' for i in range(len(plan.forms)))}, = fill(_n, g)"]


def _use(read: Read, tensors: bool) -> list[str]:
    """Lines that check a saved value and make it ready for the formula."""
    x, v = read.name, f"v_{read.name}"
    if read.kind == "result":
        inner = f"_x = {x}.tensor if {x}.__class__ is Twin else {x}"
        return [
            inner,
            *_check("_x", x, v),
            f"{x} = revive(_n, {x})" if tensors else f"{x} = _x.payload",
        ]
    if read.kind == "results":
        bare = f"{x} = [_x.tensor.payload for _x in {x}]"
        ready = f"{x} = [revive(_n, _x) for _x in {x}]" if tensors else bare
        inner = "_x.tensor if _x.__class__ is Twin else _x"
        return [f"for _x, _w in zip({x}, {v}): check(_n, {x!r}, {inner}, _w)", ready]
    if read.kind == "tensor":
        return [*_check(x, x, v), *([] if tensors else [f"{x} = {x}.payload"])]
    if read.kind == "tensor?":
        inside = _check(x, x, v) + ([] if tensors else [f"{x} = {x}.payload"])
        return [f"if {x} is not None:", *indent(inside)]
    if read.kind in {"tensor[]", "tensor?[]"}:
        loop = [f"for _x, _w in zip({x}, {v}):", f"    if _x is not None: check(_n, {x!r}, _x, _w)"]
        bare = f"{x} = [None if _x is None else _x.payload for _x in {x}]"
        return loop + ([] if tensors else [bare])
    return []


def _check(x: str, name: str, v: str) -> list[str]:
    return [
        f"_v = {x}.version",
        f"if _v is not {v} and (_v if _v.__class__ is int else _v.n) != {v}: "
        f"stale(_n, {name!r}, {x}, {v})",
    ]


def _gradient_lines(plan: Plan, part: Part, j: int, text: str, *, general: bool) -> list[str]:
    i, count = part.needs[j], len(part.needs)
    node = f"_n.n{j}" if count <= 2 else f"_n.n0[{j}]"
    if plan.shape.kinds[i].endswith("[]"):
        push = indent(
            ["if m is not None and d is not None:", "    d = cast(d, _dt)", *indent(_push())]
        )
        return [f"for d, m, _dt in zip({text}, {node}, _n.more[1][{j}]):", *push]
    lines = [f"d = {text}"]
    if plan.broadcasts:
        shape = f"_n.x{j}" if count <= 2 else f"_n.x0[{j}]"
        lines.append(f"if d.shape != {shape}: d = sum_to(d, {shape})")
    if general:
        lines.append(f"d = cast(d, _n.more[1][{j}])")
    return [*lines, f"m = {node}", *_push()]


def _push() -> list[str]:
    return [
        "if m in grads: grads[m] = plus(grads[m], d)",
        "else:",
        "    grads[m] = d",
        "    if m.seq: push(m)",
    ]


def _simple(text: str, variant: str) -> str:
    """Take `conj` out where all is real."""
    if variant != "plain" or "conj(" not in text:
        return text

    class Real(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            named = isinstance(node.func, ast.Name) and node.func.id == "conj"
            return node.args[0] if named else node

    return ast.unparse(Real().visit(ast.parse(text, mode="eval")))


def _backward_scope(plan: Plan, part: Part, tensors: bool) -> dict[str, Any]:
    table = ON_TENSORS if tensors else ON_ARRAYS
    scope: dict[str, Any] = {
        "Twin": Twin, "check": check, "stale": stale, "revive": revive,
        "fill": fill_tensors if tensors else fill_arrays,
        "cast": cast_tensor if tensors else cast_array,
        "sum_to": sum_tensor_to if tensors else sum_array_to,
        "plus": table["add"] if tensors else plus,
    }  # fmt: skip
    for name in part.calls:
        if name not in scope:
            scope[name] = _called(plan, name, table)
    scope["conj"] = conj_tensor if tensors else conj_array
    return scope


def _called(plan: Plan, name: str, table: dict[str, Any]) -> Any:
    if name in table:
        return table[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise MissingGradientError(
        f"the gradient of {plan.op.name()} calls {name!r}, which is no built-in operator",
        op=plan.op._schema,
        source=plan.op.source,
        fix="define it, or write the gradient with other operators",
    )


__all__ = ["backward", "fused", "recorder"]

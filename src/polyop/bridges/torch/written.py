"""The functions that are written from an operator's schema: its kernel in PyTorch, and its call.

NOTE [Written for PyTorch]
Most calls are of dense tensors on the CPU, watched by nobody or recorded by PyTorch's autograd
alone. For these the way in and the way to the kernel are each one function without a loop. Both
ask first whether they may; whatever they cannot do at once, as data that NumPy cannot share, goes
to the general functions (`Kernel`, `call`), which have the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from sys import getrefcount
from typing import Any

import torch

from polyop.bridges.told import told
from polyop.bridges.torch.agreed import MOST, TRACED, agree, hashed, in_a_row
from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.kernel import Kernel, chosen, new_tensor, refuse_shared
from polyop.bridges.torch.recorded import TAPE, Target, recorded
from polyop.bridges.torch.schema import Translation
from polyop.bridges.torch.watch import QUICK, unpack_dual
from polyop.dispatch.body import new_text
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.entry import fused_kernel, scope_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import results
from polyop.dispatch.write import (
    Shape,
    call_text,
    checks_text,
    indent,
    make_function,
    shape_of,
    spelled_tuple,
)
from polyop.schema.model import MISSING

#: Whether PyTorch runs a rule of the bare operator, whose calls are of bare operators too.
BARE: ContextVar[bool] = ContextVar("bare", default=False)
_TENSORS = {"tensor", "tensor?"}
#: The types whose values are keys as they are.
_EXACT = {"int", "SymInt", "float", "bool", "str"}
_MAKERS = {"tensor": "{0}.numpy()", "tensor?": "None if {0} is None else {0}.numpy()"}


def is_writable(plan: Translation) -> bool:
    """Tell whether a schema has what the texts can say: tensors, values, and new results."""
    kinds = {kind for kind, _ in plan.forms}
    known = all(p.kind in {*_TENSORS, "static"} for p in plan.places)
    return known and (kinds <= {"new"} or kinds == {"argument"})


def has_autocast(op: OpOverload) -> bool:
    """Tell whether an operator's arguments may be cast by PyTorch's autocast."""
    return any(slot.startswith("autocast") for slot in op.slots())


def _made(op: OpOverload, text: str, scope: dict[str, Any], defaults: Sequence[Any]) -> Any:
    names = [a.name for a in op._schema.arguments]
    return announce(make_function(text, scope, op._opname, names, tuple(defaults)))


# -- the kernel -------------------------------------------------------------------------------


def write_kernel(op: OpOverload, plan: Translation, general: Kernel) -> Callable[..., Any]:
    """Give the kernel of PyTorch's operator: for arrays that NumPy shares, without a look back.

    Args:
        op: the operator.
        plan: its schema in PyTorch's words.
        general: the kernel for whatever this one leaves.
    """
    if not is_writable(plan):
        return general
    shape = shape_of(op._schema)
    scope = scope_of(
        op,
        again=lambda *values: run_under(PLAIN, made, *values),
        agree=_agree,
        built=lambda op: _built(op, plan, made),
        finish=_finished,
        from_numpy=torch.from_numpy,
        general=general,
        hashed=hashed,
        held=held_kernel,
        increment_version=torch.autograd.graph.increment_version,
        PLAIN=PLAIN,
        plan=plan,
        refs=getrefcount,
        tape=TAPE.get,
        told=told,
        unshared=refuse_shared,
        checked=results,
    )
    scope |= {f"k{i}": p.taken for i, p in enumerate(plan.places)}
    text = _whole_kernel_text(shape, plan, op in TRACED)
    made: Callable[..., Any] = _made(op, text, scope, _trailing(plan.defaults))
    return made


def _built(op: OpOverload, plan: Translation, made: Any) -> Callable[..., Any] | None:
    """Give the author's kernel; where PyTorch has traced the operator, write the text anew."""
    if op not in TRACED:
        return quick_kernel(op)
    text = _whole_kernel_text(shape_of(op._schema), plan, True)
    made.__code__ = _made(op, text, made.__globals__, made.__defaults__).__code__
    return None  # this call, and those under way, are general


def held_kernel(op: OpOverload) -> tuple[Callable[..., Any] | None, dict[Any, Any]]:
    """Give the author's kernel, and a table of what its results must be."""
    return quick_kernel(op), {}


def _agree(op: OpOverload, values: Sequence[Any], out: Any, said: dict[Any, Any], key: Any) -> None:
    """Refuse a result that is not as the fake rule says; remember what is."""
    agree(op, values, [out])
    if len(said) >= MOST:
        said.clear()
    said[key] = (out.payload.shape, out.payload.dtype)


def _whole_kernel_text(shape: Shape, plan: Translation, compares: bool) -> str:
    names, count = shape.names, len(_trailing(plan.defaults))
    words = [f"{a}=None" if i >= len(names) - count else a for i, a in enumerate(names)]
    lines = _kernel_text(shape, plan, compares)
    return "\n".join([f"def f({', '.join(words)}):", *indent(lines)])


def _trailing(defaults: Sequence[Any]) -> list[Any]:
    """Give the defaults of the last arguments, which PyTorch leaves out when they are equal."""
    found: list[Any] = []
    for value in reversed(defaults):
        if value is MISSING:
            break
        found.insert(0, value)
    return found


def _kernel_text(shape: Shape, plan: Translation, compares: bool) -> list[str]:
    given = ", ".join(shape.names)
    tensors = [(a, kind) for a, kind in zip(shape.names, shape.kinds, strict=True)]
    tensors = [(a, kind) for a, kind in tensors if kind != "static"]
    lines = [f"if word() is not PLAIN: return again({given})", "try:"]
    lines += [f"    p{a} = {_MAKERS[kind].format(a)}" for a, kind in tensors] or ["    pass"]
    # What has no array of NumPy's, or only as a copy, says so by these.
    lines += [f"except (RuntimeError, TypeError): return general({given})"]
    if compares:
        lines += ["try: kernel, said = notes['torch held kernel']"]
        lines += ["except KeyError: kernel, said = op.note('torch held kernel', held)"]
    else:
        lines += ["try: kernel = notes['torch kernel']"]
        lines += ["except KeyError: kernel = op.note('torch kernel', built)"]
    lines += [f"if kernel is None: return general({given})"]
    for i, (a, place) in enumerate(zip(shape.names, plan.places, strict=True)):
        if plan.defaults[i].__class__ is tuple:
            lines += [f"if {a}.__class__ is tuple: {a} = [*{a}]"]
        lines += [] if place.taken is None else [f"{a} = k{i}({a})"]
    written = [f"a{i}" for i in shape.written]
    for a in written:
        lines += [_some(shape, a, f"unshared(op, {a})")]
    if written:
        # Before the kernel: one that fails half-way has written too.
        lines += [f"increment_version([_x for _x in {spelled_tuple(written)} if _x is not None])"]
    for a, kind in tensors:
        wrapped = [*new_text(f"p{a}", 1), f"{a} = _t"]
        lines += wrapped if kind == "tensor" else [f"if p{a} is not None:", *indent(wrapped)]
    lines += ["_t = None", f"try: _r = {call_text(shape, payloads=False)}"]
    lines += ["except Exception as _e: told(_e, op, 'torch'); raise"]
    return [*lines, *_results_text(shape, plan, [a for a, _ in tensors], compares)]


def _results_text(
    shape: Shape, plan: Translation, tensors: Sequence[str], compares: bool
) -> list[str]:
    inputs = spelled_tuple([f"p{a}" for a in tensors])
    values = spelled_tuple(shape.names)
    check = f"return finish(op, plan, checked(op, _r, {values}), {inputs}, {values})"
    if plan.forms != (("new", -1),):
        return [check]
    # Counted: an array that nobody else has is nobody's argument and nobody's cache.
    return [
        "if _r.__class__ is Tensor and _r.keys == 1 and refs(_r) == 2:",
        "    _p = _r.payload",
        "    if _p.base is None and refs(_p) == 3 and _p.flags.carray:",
        "        try: _t = from_numpy(_p)",
        "        except (TypeError, ValueError): _p = None",
        "        else:",
        *(_compared_text(shape, values) if compares else []),
        "            _c = tape()",
        f"            if _c is not None: _c[:] = (_t, {values}, _r)",
        "            return _t",
        check,
    ]


def _compared_text(shape: Shape, values: str) -> list[str]:
    """Compare a result with what the fake rule has said of the same arguments."""
    facts: list[str] = []
    for a, kind, type_ in zip(shape.names, shape.kinds, shape.types, strict=True):
        if kind == "tensor":
            facts += [f"p{a}.shape", f"p{a}.dtype"]
        elif kind == "tensor?":
            facts += [f"None if p{a} is None else (p{a}.shape, p{a}.dtype)"]
        else:
            facts += [a if type_ in _EXACT else f"hashed({a})"]
    return [
        f"            _k = {spelled_tuple(facts)}",
        "            if said.get(_k) != (_p.shape, _p.dtype):",
        f"                agree(op, {values}, _r, said, _k)",
    ]


def _finished(
    op: OpOverload, plan: Translation, out: Any, inputs: Sequence[Any], values: Sequence[Any]
) -> Any:
    if op in TRACED:
        agree(op, values, in_a_row(op, out))
    arrays = [array for array in inputs if array is not None]
    return chosen(plan.forms, out, lambda t: new_tensor(op, t, arrays))


def quick_kernel(op: OpOverload) -> Callable[..., Any] | None:
    """Give the author's kernel, if it alone acts on plain calls."""
    found = fused_kernel(op)
    return None if found is None or found.payload else found.fn


# -- the call ---------------------------------------------------------------------------------


def write_call(
    op: OpOverload, plan: Translation, target: Any, general: Any, what: Target
) -> Callable[..., Any]:
    """Give the call of an operator with tensors of PyTorch as they are.

    Args:
        op: the operator.
        plan: its schema in PyTorch's words, which the texts can say.
        target: PyTorch's operator.
        general: calls the operator with a row of values, whatever they are.
        what: what a recorded call needs to know.
    """
    shape = shape_of(op._schema)
    scope: dict[str, Any] = scope_of(
        op,
        again=lambda *values: general(op, values),
        apply=lambda *values: _first_recorded(scope, what, values),
        autocast=torch.is_autocast_enabled,
        bare=BARE.get,
        below=QUICK.below,
        compiling=torch.compiler.is_compiling,
        grads=torch.is_grad_enabled,
        levels=QUICK.levels,
        target=getattr(target, "_op", target),
        transforms=QUICK.transforms,
        unpack_dual=unpack_dual,
        wrapped=QUICK.wrapped,
    )
    scope |= {f"g{i}": p.given for i, p in enumerate(plan.places)}
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(_call_text(op, shape, plan))])
    made: Any = _made(op, text, scope, ())
    made.converts = True
    return made  # type: ignore[no-any-return]


def _first_recorded(scope: dict[str, Any], what: Target, values: Sequence[Any]) -> Any:
    """Make the function of recorded calls at the first."""
    scope["apply"] = apply = recorded(what)
    return apply(*values)


def _call_text(op: OpOverload, shape: Shape, plan: Translation) -> list[str]:
    given, tensors = ", ".join(shape.names), shape.of("tensor", "tensor?")
    rare = ["compiling()", "bare()", *[_some(shape, a, f"wrapped({a})") for a in tensors]]
    if QUICK.levels is None:
        rare += [_some(shape, a, f"unpack_dual({a}).tangent is not None") for a in tensors]
    else:
        rare.append("levels._current_level >= 0")
    if has_autocast(op):
        rare += ['autocast("cpu")', 'autocast("cuda")']
    lines = [f"if {' or '.join(rare)}: return again({given})"]
    recorded = " or ".join(_some(shape, a, f"{a}.requires_grad") for a in tensors)
    mutable = op._schema.is_mutable
    one = not mutable and len(shape.results) == 1  # as `recorded` has them
    unseen = "transforms()" if one else "True"
    watched = [f"if {unseen}: return again({given})"]
    lines += [f"if grads() and ({recorded}):", *indent(watched)] if recorded else []
    converts = checks_text(shape)
    converts += [f"a{i} = g{i}(a{i})" for i, p in enumerate(plan.places) if p.given is not None]
    if recorded and one:
        lines += [*indent(converts), f"    return apply({given})"]
    lines += converts
    if not mutable or plan.results:
        return [*lines, f"with below(): return target({given})"]
    answer = ", ".join(f"a{i}" for _, i in plan.forms)
    return [*lines, f"with below(): target({given})", f"return {answer or None}"]


def _some(shape: Shape, a: str, test: str) -> str:
    optional = shape.kinds[int(a[1:])] == "tensor?"
    return f"({a} is not None and {test})" if optional else test

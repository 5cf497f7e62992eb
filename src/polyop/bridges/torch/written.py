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
from polyop.dispatch.shortened import spelled_tuple
from polyop.dispatch.write import (
    Shape,
    call_text,
    checks_text,
    indent,
    make_function,
    shape_of,
)
from polyop.schema.model import MISSING

#: Whether PyTorch runs a rule of the bare operator, whose calls are of bare operators too.
BARE: ContextVar[bool] = ContextVar("bare", default=False)
_TENSORS = {"tensor", "tensor?"}
_MAKERS = {"tensor": "{0}.numpy()", "tensor?": "None if {0} is None else {0}.numpy()"}


def is_writable(plan: Translation) -> bool:
    """Tell whether a schema has what the texts can say: tensors, values, and new results."""
    kinds = {kind for kind, _ in plan.forms}
    known = all(p.kind in {*_TENSORS, "static"} for p in plan.places)
    return known and (kinds <= {"new"} or kinds == {"argument"})


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
        built=quick_kernel,
        finish=_finished,
        from_numpy=torch.from_numpy,
        general=general,
        increment_version=torch.autograd.graph.increment_version,
        PLAIN=PLAIN,
        plan=plan,
        refs=getrefcount,
        tape=TAPE.get,
        unshared=refuse_shared,
        checked=results,
    )
    scope |= {f"k{i}": p.taken for i, p in enumerate(plan.places)}
    given = _trailing(plan.defaults)
    names = shape.names
    words = [f"{a}=None" if i >= len(names) - len(given) else a for i, a in enumerate(names)]
    text = "\n".join([f"def f({', '.join(words)}):", *indent(_kernel_text(shape, plan))])
    made: Callable[..., Any] = _made(op, text, scope, given)
    return made


def _trailing(defaults: Sequence[Any]) -> list[Any]:
    """Give the defaults of the last arguments, which PyTorch leaves out when they are equal."""
    found: list[Any] = []
    for value in reversed(defaults):
        if value is MISSING:
            break
        found.insert(0, value)
    return found


def _kernel_text(shape: Shape, plan: Translation) -> list[str]:
    given = ", ".join(shape.names)
    tensors = [(a, kind) for a, kind in zip(shape.names, shape.kinds, strict=True)]
    tensors = [(a, kind) for a, kind in tensors if kind != "static"]
    lines = [f"if word() is not PLAIN: return again({given})", "try:"]
    lines += [f"    p{a} = {_MAKERS[kind].format(a)}" for a, kind in tensors] or ["    pass"]
    # What has no array of NumPy's, or only as a copy, says so by these.
    lines += [f"except (RuntimeError, TypeError): return general({given})"]
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
    lines += [f"_t = None; _r = {call_text(shape, payloads=False)}"]
    return [*lines, *_results_text(shape, plan, [a for a, _ in tensors])]


def _results_text(shape: Shape, plan: Translation, tensors: Sequence[str]) -> list[str]:
    inputs = spelled_tuple([f"p{a}" for a in tensors])
    check = f"return finish(op, plan, checked(op, _r, {spelled_tuple(shape.names)}), {inputs})"
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
        "            _c = tape()",
        f"            if _c is not None: _c[:] = (_t, {spelled_tuple(shape.names)}, _r)",
        "            return _t",
        check,
    ]


def _finished(op: OpOverload, plan: Translation, out: Any, inputs: Sequence[Any]) -> Any:
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
    if any(slot.startswith("autocast") for slot in op.slots()):
        rare += ['autocast("cpu")', 'autocast("cuda")']
    lines = [f"if {' or '.join(rare)}: return again({given})"]
    recorded = " or ".join(_some(shape, a, f"{a}.requires_grad") for a in tensors)
    mutable = op._schema.is_mutable
    unseen = "True" if mutable else "transforms()"
    watched = [f"if {unseen}: return again({given})"]
    lines += [f"if grads() and ({recorded}):", *indent(watched)] if recorded else []
    converts = checks_text(shape)
    converts += [f"a{i} = g{i}(a{i})" for i, p in enumerate(plan.places) if p.given is not None]
    if recorded and not mutable:
        lines += [*indent(converts), f"    return apply({given})"]
    lines += converts
    if not mutable or plan.results:
        return [*lines, f"with below(): return target({given})"]
    answer = ", ".join(f"a{i}" for _, i in plan.forms)
    return [*lines, f"with below(): target({given})", f"return {answer or None}"]


def _some(shape: Shape, a: str, test: str) -> str:
    optional = shape.kinds[int(a[1:])] == "tensor?"
    return f"({a} is not None and {test})" if optional else test

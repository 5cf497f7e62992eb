"""The `autograd.Function` of common calls: single tensors and values in, one new tensor out.

NOTE [Small gradients run in NumPy]
Where nobody watches a backward, as in training, the author's rule computes on the CPU with the
memory that NumPy and PyTorch share, and on our tensors over NumPy's arrays: a rule of three
operators takes less time than one of PyTorch's own calls. Where somebody may (grad mode, a mode,
a transform, another device), or there are so many elements that PyTorch's threads pay off, it
computes on tensors over PyTorch's.

NOTE [The kernel's own tensors]
What `setup_context` sees are the tensors that the kernel has made for itself. They come by the
`TAPE`, beside the result, by whose identity the forward knows that they are of its own call; where
a mode has answered instead, there are none, and tensors over PyTorch's are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from sys import getrefcount
from typing import Any

import numpy as np
import torch

from polyop import tree
from polyop.bridges.torch.arrays import QUIET, At, Call, split
from polyop.bridges.torch.gradient import (
    OWN,
    BridgeContext,
    Kept,
    Running,
    Saved,
    backward,
    fill,
    gradients,
    keep,
    setup,
)
from polyop.bridges.torch.hidden import announce
from polyop.bridges.torch.schema import TORCH, Translation
from polyop.bridges.torch.watch import QUICK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.write import Shape, base_scope, indent, make_function, shape_of, spelled_tuple
from polyop.errors import MissingKernelError
from polyop.layers.autograd.author import AuthorRecorder
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.rule_notes import note_rule
from polyop.tensor.tensor import Tensor

#: So many elements, of all that a backward sees, and it computes in PyTorch.
MANY = 32768
#: Where a kernel leaves its result as PyTorch's tensor, its arguments and its result as ours.
TAPE: ContextVar[list[Any] | None] = ContextVar("tape", default=None)
#: Stand for the tensors that most contexts save, none of which was written since it was made.
_SAVED = tuple([Saved(i) for i in range(8)])
_VERSIONS = (0,) * 8


class Target:
    """What a call needs to know of the operator.

    Attributes:
        op: the operator.
        plan: its schema in PyTorch's words.
        target: PyTorch's operator.
        single: calls it with any values.
        call: every call without its tensors, where an operator has tensors alone; else None.
        running: who is running, for errors.
    """

    def __init__(self, op: OpOverload, plan: Translation, target: Any, single: Any) -> None:
        self.op = op
        self.plan = plan
        self.target = target
        self.single = single
        alone = all(p.kind == "tensor" for p in plan.places)
        self.call = self._call([At(i) for i in range(len(plan.places))]) if alone else None
        self.running = Running(op, [p.name for p in plan.places])

    def _call(self, values: Sequence[Any]) -> Call:
        call = Call(self.op, self.plan, self.target, values)
        call.single = self.single
        call.layout = [None] * len(self.plan.results)
        return call

    def call_of(self, given: Sequence[Any]) -> Call:
        """Give a call without its tensors."""
        return self.call or self._call(split(self.plan, given)[1])


class Ready:
    """An author's gradient, as it stands until a rule changes.

    Attributes:
        recorder: calls the author's functions.
        setup: runs the author's, of `ctx`, all arguments and the result; None if there is none.
        backward: the author's.
    """

    __slots__ = ("backward", "recorder", "setup")

    def __init__(self, recorder: AuthorRecorder) -> None:
        self.recorder = recorder
        self.backward = recorder.backward
        self.setup = None if recorder.setup is None else recorder.set_up


def _ready(op: OpOverload) -> Ready | None:
    found = recorder_of(op)
    return Ready(found) if isinstance(found, AuthorRecorder) else None


def recorded(what: Target) -> Callable[..., Any]:
    """Make the function that calls an operator and lets PyTorch's autograd record it.

    Nobody may ask for it where a transform of `torch.func` runs, or a dual exists.
    """
    op, shape = what.op, shape_of(what.op._schema)
    scope = base_scope(
        op,
        any_backward=partial(_any_backward, what),
        below=QUICK.below,
        Context=BridgeContext,
        copied=partial(np.array, order="C"),
        from_numpy=torch.from_numpy,
        general=partial(_remember_any, what),
        grads=torch.is_grad_enabled,
        MANY=MANY,
        MissingKernelError=MissingKernelError,
        modes=QUICK.modes,
        NAMES=NAMES,
        note_rule=note_rule,
        notes=op.notes,
        parted=_parted,
        QUIET=QUIET,
        ready_of=_ready,
        refs=getrefcount,
        refill=_refill,
        rest=_converted,
        reset_tape=TAPE.reset,
        run=getattr(what.target, "_op", what.target),
        running=what.running,
        set_tape=TAPE.set,
        VERSIONS=_VERSIONS,
        what=what,
    )
    rules = {
        name: staticmethod(make_function("\n".join(lines), scope, op._opname, ()))
        for name, lines in (("forward", _forward_text(shape)), ("backward", _backward_text(shape)))
    }
    for rule in rules.values():
        announce(rule.__func__)
    made: Any = type(op._opname, (_FUNCTION,), rules)
    # PyTorch's own apply looks for transforms first, of which there are none here.
    apply: Callable[..., Any] = made.apply if QUICK.reason else super(_FUNCTION, made).apply
    return apply


_CPU = torch.device("cpu")
_FUNCTION: Any = torch.autograd.Function
#: The names of what a context has whose author has saved tensors, and nothing else.
NAMES = {"needs_input_grad", "_saved", "_versions"}


def _forward_text(shape: Shape) -> list[str]:
    names, tensors = shape.names, shape.of("tensor", "tensor?")
    given, ours = ", ".join(names), [f"b{a}" for a in names]
    fact = "None if b{0} is None else (b{0}.payload.shape, b{0}.payload.dtype)"
    facts = [fact.format(a) for a in tensors]
    return [
        f"def f(ctx, {given}):",
        "    _tape = []",
        "    _token = set_tape(_tape)",
        "    try:",
        f"        with below(): _out = run({given})",
        "    finally: reset_tape(_token)",
        "    try: _ready = notes['torch gradient']",
        "    except KeyError: _ready = op.note('torch gradient', ready_of)",
        "    if _ready is None or not _tape or _tape[0] is not _out:",
        f"        general(ctx, {spelled_tuple(names)}, _out)",
        "        return _out",
        "    _, _values, _r = _tape",
        f"    {spelled_tuple(ours)} = _values",
        "    _own = Context()",
        "    _own.needs_input_grad = ctx.needs_input_grad",
        "    if _ready.setup is not None:",
        "        _outer = word()",
        "        try: set_word(QUIET); _ready.setup(_own, _values, _r)",
        "        finally: set_word(_outer)",
        "    _kept, _more = [], None",
        "    for _t in _own._saved:",
        *[
            f"        {'el' if i else ''}if _t is b{a}: _kept.append({a})"
            for i, a in enumerate(tensors)
        ],
        f"        {'el' if tensors else ''}if _t is _r: _kept.append(_out)",
        "        else: _more = NAMES",
        "    if _more is not None or not _own.__dict__.keys() <= NAMES:",
        f"        _kept, _more = parted(ctx, _own, (*_values, _r), ({given}, _out), _out)",
        "    ctx.save_for_backward(*_kept)",
        "    ctx.ready = _ready",
        "    ctx.attributes = _more",
        f"    ctx.call = what.call or what.call_of({spelled_tuple(names)})",
        f"    ctx.facts = {spelled_tuple(facts)}",
        "    return _out",
    ]


def _backward_text(shape: Shape) -> list[str]:
    names = shape.names
    row = [f"_g{i}" for i in range(len(names))]
    lines = [f"{', '.join(row)}, = _found"] if len(names) > 1 else ["_g0 = _found"]
    wanted = f"_found.__class__ is not tuple or len(_found) != {len(names)}"
    wanted = wanted if len(names) > 1 else "_found.__class__ is not Tensor"
    lines = [f"if {wanted}: return rest(ctx, _found)", *lines]
    tensors = shape.of("tensor", "tensor?")
    for i, a in enumerate(names):
        fact = tensors.index(a) if a in tensors else None
        lines += _gradient_text(f"_g{i}", fact, len(names) > 1)
    return [
        "def f(ctx, _grad):",
        "    _saved, _ready = ctx.saved_tensors, ctx.ready",
        "    if _ready is None or grads() or modes(): return any_backward(ctx, _saved, _grad)",
        "    try:",
        "        _count = 0",
        "        _tensors = []",
        "        for _x in (*_saved, _grad):",
        "            _t = Tensor(); _t.payload = _p = _x.numpy(); _t.keys = 1; _t.version = 0",
        "            _tensors.append(_t)",
        "            _count += _p.size",
        # Not on the CPU, or not as it is, or there is none.
        "    except (RuntimeError, TypeError, AttributeError): _count = MANY + 1",
        "    if _count > MANY: return any_backward(ctx, _saved, _grad)",
        "    _x = _tensors.pop()",
        "    _own = Context()",
        "    _own._node = running",
        "    _own.needs_input_grad = ctx.needs_input_grad",
        "    _own._saved = tuple(_tensors)",
        "    _own._versions = VERSIONS",
        "    if ctx.attributes is not None: refill(ctx, _own, _tensors)",
        "    _outer = word()",
        "    try: set_word(QUIET); _found = _ready.backward(_own, _x)",
        # An operator in it may have a kernel for PyTorch's tensors alone.
        "    except MissingKernelError: _found = MISSING",
        "    except Exception as _e: note_rule(_e, _ready.recorder.op, 'backward'); raise",
        "    finally: set_word(_outer)",
        "    if _found is MISSING: return any_backward(ctx, _saved, _grad)",
        "    _t = _x = None",
        *indent(lines),
        f"    return {', '.join(row)}",
    ]


def _gradient_text(g: str, fact: int | None, several: bool) -> list[str]:
    if fact is None:
        return [f"if {g} is not None: return rest(ctx, _found)"]
    # Counted: PyTorch may write into what it gets, so it must be nobody else's.
    alone = f"_p.base is None and refs(_p) == 3 and refs({g}) == 3 and _p.flags.carray"
    return [
        f"if {g} is not None:",
        f"    _p = {g}.payload if {g}.__class__ is Tensor else None",
        f"    if _p.__class__ is not ndarray or (_p.shape, _p.dtype) != ctx.facts[{fact}]:",
        "        return rest(ctx, _found)",
        f"    {g} = from_numpy(_p if {alone} else copied(_p))",
    ]


# -- forward ----------------------------------------------------------------------------------


def _parted(
    ctx: Any, own: BridgeContext, ours: Sequence[Any], theirs: Sequence[Any], out: Any
) -> tuple[list[Any], dict[str, Any]]:
    """Part what a context has into PyTorch's tensors and the rest."""
    table = {id(v): t for v, t in zip(ours, theirs, strict=True) if isinstance(v, Tensor)}
    arrays: list[Any] = []

    def kept(value: Any) -> Any:
        known = table.get(id(value))
        if known is None:
            return keep(arrays, value)
        arrays.append(known)
        return Saved(len(arrays) - 1)

    if own._without:
        ctx.mark_non_differentiable(out)
    if not own._materialize:
        ctx.set_materialize_grads(False)
    names = OWN | {"_forward"}  # no dual exists
    pairs = [(k, v) for k, v in own.__dict__.items() if k not in names]
    return arrays, {k: tree.map_leaves(kept, v) for k, v in pairs}


def _remember_any(what: Target, ctx: Any, given: Any, out: Any) -> None:
    ctx.ready = None
    row, values = split(what.plan, given)
    call = Call(what.op, what.plan, what.target, values)
    call.single = what.single
    setup(ctx, call, row, call.in_a_row(out), [t.requires_grad for t in row])


# -- backward ---------------------------------------------------------------------------------


def _any_backward(what: Target, ctx: Any, saved: Sequence[Any], *grads: Any) -> Any:
    if ctx.ready is not None:
        ctx.kept = _kept(ctx, len(saved))
    call: Call = ctx.kept.call
    pairs = zip(ctx.needs_input_grad, call.values, strict=True)
    row = backward(ctx, [n for n, v in pairs if v.__class__ is At], grads, saved)
    return tuple(call.mirrored(row))


def _kept(ctx: Any, count: int) -> Kept:
    """Give what a forward kept as the general functions take it."""
    found = ctx.attributes
    attributes = {"_saved": _SAVED[:count]} if found is None else found
    facts = [(fact[0], TORCH.native(fact[1])) for fact in ctx.facts if fact is not None]
    recorder = ctx.ready.recorder
    return Kept(ctx.call, recorder, frozenset(), True, attributes, facts, [], _CPU)


def _refill(ctx: Any, own: BridgeContext, saved: Sequence[Any]) -> None:
    """Give a context what its author has put there."""
    fill(own, ctx.attributes, saved)


def _converted(ctx: Any, found: Any) -> Any:
    """Give gradients that need a look, or a word to their author."""
    return tuple(ctx.call.mirrored(gradients(_kept(ctx, 0), found, None)))

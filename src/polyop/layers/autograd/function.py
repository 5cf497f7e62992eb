"""`Function`: a gradient written as a class, for code that is no operator (S137)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from polyop.dispatch.bits import (
    ANOMALY,
    FUNCTIONAL,
    FUNCTIONALIZE,
    GRAD,
    PACKING,
    SUBCLASS,
    WRAPPED,
)
from polyop.dispatch.context import run_under, word
from polyop.dispatch.results import tensors_in
from polyop.errors import AutogradError, MissingGradientError, MissingKernelError
from polyop.layers.autograd.anomaly import note_results
from polyop.layers.autograd.arrays import adapted, send
from polyop.layers.autograd.author import (
    call_backward,
    flatten_results,
    give_node,
    own_history,
)
from polyop.layers.autograd.context import Context, refuse
from polyop.layers.autograd.dirty import (
    follow,
    follow_at_level,
    marked,
    places,
    substitutes,
)
from polyop.layers.autograd.grad_level import GradLevel
from polyop.layers.autograd.mirror import describe, matched, needs_of, nodes_in, spec_of
from polyop.layers.autograd.node import SUBCLASS_NODES, Node, next_seq, node_of
from polyop.layers.autograd.packing import pack_results
from polyop.layers.autograd.taken import watching
from polyop.layers.autograd.write import facts
from polyop.layers.levels import LEVEL_BITS
from polyop.layers.rule_notes import note_rule
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS
from polyop.source import source_of
from polyop.tensor.tensor import MADE, Tensor

Apply = Callable[[type["Function"], Sequence[Any]], Any]

#: By kind of level (its class): how it applies a `Function`. `vmap` puts its own here.
APPLY: dict[type, Callable[[Any, type[Function], Sequence[Any]], Any]] = {}


class Traits:
    """What a `Function` class defines, read once."""

    def __init__(self, cls: type[Function]) -> None:
        self.cls = cls
        self.source = source_of(cls.forward)
        if cls.forward is Function.forward:
            raise MissingKernelError(
                f"{cls.__name__} defines no forward",
                op=cls.__name__,
                fix="define the static method forward(ctx, *args), which gives the results",
            )

    @cached_property
    def setup(self) -> Callable[..., Any] | None:
        """Its `setup_context`, or None if `forward` takes `ctx`."""
        found: Callable[..., Any] | None = getattr(self.cls, "setup_context", None)
        return None if found is None else watching(found, found)

    @cached_property
    def names(self) -> list[str]:
        """The names of the arguments."""
        names = list(inspect.signature(self.cls.forward).parameters)
        return names if self.setup is not None else names[1:]

    def name(self) -> str:
        """Name the class, in errors."""
        return self.cls.__name__

    def __str__(self) -> str:
        return self.name()


class Function:
    """A differentiable function: subclass it, and call it by `apply`.

    Define `forward(ctx, *args)`, or `forward(*args)` with
    `setup_context(ctx, inputs, output)`; and `backward(ctx, *grads)`, which
    returns one gradient per argument. All are static methods. Under transforms
    the second form is needed, and `vmap(info, in_dims, *args)` or
    `generate_vmap_rule = True` for `vmap`.
    """

    generate_vmap_rule = False
    _polyop_traits: ClassVar[Traits]

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the results."""
        raise NotImplementedError("a Function defines forward")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Give one gradient per argument."""
        raise NotImplementedError("a Function defines backward, or vjp")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call it."""
        traits = traits_of(cls)
        level = _acting(args)
        if level is None:
            return _apply(traits, args)
        if not level.alive:
            level.escaped()
        if traits.setup is None:
            raise AutogradError(
                f"{cls.__name__} cannot run under {level.kind}: its forward takes ctx",
                op=cls.__name__, source=traits.source,
                fix="write forward(*args), and setup_context(ctx, inputs, output)",
            )  # fmt: skip
        if level.kind in _RULES:  # read when it is first needed
            load(_RULES[level.kind])
        for kind in type(level).__mro__:
            if kind in APPLY:
                return APPLY[kind](level, cls, args)
        raise AutogradError(f"{cls.__name__} cannot run under {level.kind}", op=cls.__name__)


#: Where the entries of `APPLY` stand that need more than this part, by kind of level.
_RULES = {
    "vmap": "polyop.layers.vmap.functions",
    "func.functionalize": "polyop.layers.functionalize.functions",
}


def _acting(args: Sequence[Any]) -> Any:
    """Give the level that a call belongs to: the deepest of its tensors, or of what they make.

    A functionalization has the operators of forward for its own, and so the call only if it
    differentiates or maps something below.
    """
    now = word()
    found = now.functional if now & FUNCTIONALIZE else None
    for tensor in tensors_in(tuple(args)):
        if tensor.keys & WRAPPED:
            level = tensor.payload.level
            if found is None or level.depth > found.depth:
                found = level
    if found is not None and found.kind == "func.functionalize":
        return found if any(map(_is_watched, tensors_in(tuple(args)))) else None
    return found


def _is_watched(tensor: Tensor) -> bool:
    """Tell whether a transform below a functionalization has a tensor, or autograd."""
    while tensor.keys & FUNCTIONAL:
        tensor = tensor.payload.value()
    return bool(tensor.keys & (GRAD | LEVEL_BITS))


def traits_of(cls: type[Function]) -> Traits:
    """Give what a class defines; it is kept on the class itself, and ends with it."""
    found: Traits | None = cls.__dict__.get("_polyop_traits")
    if found is None:
        found = cls._polyop_traits = Traits(cls)
    return found


def _apply(traits: Traits, args: Sequence[Any]) -> Any:
    specs = [spec_of(a, node_of) for a in args]
    ctx = Context()
    ctx.needs_input_grad = tuple(map(needs_of, specs))
    nodes = tuple(node for spec in specs for node in nodes_in(spec))
    out = _unrecorded(_forward, traits, ctx, args)
    if not nodes or not word().grad:
        asked: set[str] = getattr(word().recorder, "asked", set())
        asked.add("tangent")  # a trace has the operators of `forward`: another derivative
        return out
    written = marked(traits, ctx, args, out) if ctx._dirty else ()
    out = _no_inputs(ctx, args, out)
    shared = {id(t.version) for t in tensors_in(tuple(args))}
    # Others are views of what `forward` made; a write to a view of an argument is refused.
    own_history([t for t in tensors_in(out) if id(t.version) not in shared])
    results = substitutes(written, out) if written else out
    attach(traits, ctx, specs, nodes, args, out=out, results=results, kept=False)
    if written:
        follow(traits, written, out, results)
    return out


def _unrecorded(fn: Callable[..., Any], *args: Any) -> Any:
    """Call what autograd does not see; in a program before dispatch its operators have gradients.

    The program knows them alone, and not the `Function`.
    """
    now = word()
    proxy: Any = now.pre[0] if now.pre else None
    if not hasattr(proxy, "holding"):
        return run_under(now.without_grad, fn, *args)
    with proxy.holding(now.grad):
        return run_under(now.without_grad, fn, *args)


def _forward(traits: Traits, ctx: Context, args: Sequence[Any]) -> Any:
    cls = traits.cls
    if traits.setup is None:
        return cls.forward(ctx, *args)
    out = cls.forward(*args)
    try:
        traits.setup(ctx, tuple(args), out)
    except Exception as error:
        note_rule(error, traits, "setup_context")
        raise
    return out


def _no_inputs(ctx: Context, args: Sequence[Any], out: Any) -> Any:
    """Give another tensor in the place of an input that is returned, unless it is dirty."""
    given = list(tensors_in(tuple(args)))

    def fresh(value: Any) -> Any:
        same = any(value is t for t in given)
        if not same or id(value) in ctx._dirty:
            return value
        copy = run_under(word().without_grad, ON_TENSORS["alias"], value)
        ctx._without += (id(copy),) if id(value) in ctx._without else ()
        return copy

    return tuple(map(fresh, out)) if isinstance(out, tuple) else fresh(out)


def attach(
    traits: Traits,
    ctx: Context,
    specs: Sequence[Any],
    nodes: tuple[Node, ...],
    args: Sequence[Any],
    *,
    out: Any,
    results: Any,
    kept: bool,
) -> None:
    """Give results the history of a call."""
    flat, shape = flatten_results(results)
    inner = flatten_results(out)[0]
    ctx.seal(list(zip(traits.names, args, strict=False)), inner, inner if kept else None)
    node = Node()
    node.backward = function_backward
    node.op = traits
    node.seq = next_seq()
    node.n0 = nodes
    node.s0 = ctx
    node.s1 = specs
    node.more = ([facts(t) for t in flat], traits, shape)
    give_node(node, flat, inner, ctx._without)
    if MADE.subclasses and any(t.keys & SUBCLASS for t in tensors_in((tuple(args), flat))):
        SUBCLASS_NODES.add(node)
    if word() & ANOMALY:
        note_results(flat, node.seq - 1)
    if word() & PACKING:
        pack_results(flat, node.seq - 1)


def _function_backward(
    n: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]
) -> None:
    traits: Traits = n.more[1]
    cls = traits.cls
    if cls.backward is Function.backward:
        raise MissingGradientError(
            f"{cls.__name__} has no backward", op=cls.__name__, source=traits.source,
            fix="define the static method backward(ctx, *grads)",
        )  # fmt: skip
    given = call_backward(n, n.s0.running(n), g, n.more[2], cls.backward)
    values = list(given) if isinstance(given, tuple) else [given]
    if len(values) > len(n.s1) and all(v is None for v in values[len(n.s1) :]):
        values = values[: len(n.s1)]
    if len(values) != len(n.s1):
        raise refuse(
            cls.__name__, f"{cls.__name__}.backward returned a wrong number of gradients",
            declared=f"a tuple of {len(n.s1)}" if len(n.s1) != 1 else "1",
            seen=describe(given), source=traits.source,
            fix="return one value per argument of forward in a tuple, None where there is no "
            "gradient",
        )  # fmt: skip
    names = [*traits.names, *[f"argument {i}" for i in range(len(traits.names), len(values))]]
    for name, spec, value in zip(names, n.s1, values, strict=False):
        for node, d in matched(cls.__name__, traits.source, name, spec, value):
            send(node, d, grads, push)


function_backward = adapted(_function_backward)


def _apply_at_level(level: GradLevel, cls: type[Function], args: Sequence[Any]) -> Any:
    """Apply it below a gradient level, and record it there."""
    traits = traits_of(cls)
    values = [level.peel(a) for a in args]
    recorded = level.always or word().grad
    specs = [spec_of(a, level.node_of) for a in args]
    ctx = Context()
    ctx.needs_input_grad = tuple(map(needs_of, specs))

    def below() -> Any:
        # Outer levels and plain autograd have the call as a `Function` of their own.
        out = cls.apply(*values)
        assert traits.setup is not None
        try:
            _unrecorded(traits.setup, ctx, tuple(values), out)
        except Exception as error:
            note_rule(error, traits, "setup_context")
            raise
        results = level.wrap_all(out)
        nodes = tuple(node for spec in specs for node in nodes_in(spec))
        written = marked(traits, ctx, values, out) if ctx._dirty else ()
        if recorded and nodes:
            attach(traits, ctx, specs, nodes, values, out=out, results=results, kept=True)
        return results, places(values, out, written) if written else []

    results, written = run_under(level.below(), below)
    return follow_at_level(traits, level, args, written, results)


APPLY[GradLevel] = _apply_at_level


__all__ = ["APPLY", "Function", "attach", "traits_of"]

"""`make_fx`: the program that a function runs on some inputs, as a graph (S209)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import run_under, word
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.dispatch.registry import as_operator
from polyop.errors import CaptureError, UsageError, nearest
from polyop.graph import GraphModule
from polyop.graph.node import identifier
from polyop.layers.fake.mode import FakeTensorMode, mode_inside
from polyop.layers.trace.callers import Callers
from polyop.layers.trace.guarded import SizeGuards, answers_of, guarded, refuse_same
from polyop.layers.trace.kinds import refuse_kind
from polyop.layers.trace.nested import refuse_lost_writes
from polyop.layers.trace.outside import is_outside, levels_outside, share_as_outside
from polyop.layers.trace.proxy import PreDispatchModule, ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.trace.wrappers import inside, put_together, taken_apart
from polyop.lazy import load
from polyop.schema.opaque import is_input
from polyop.source import source_of
from polyop.symbolic import ShapeEnv
from polyop.tensor.asked import answering
from polyop.tensor.meta import Meta
from polyop.tensor.storage import share
from polyop.tensor.tensor import Tensor

MODES = ("real", "fake", "symbolic")


def make_fx(
    f: Callable[..., Any],
    tracing_mode: str = "real",
    pre_dispatch: bool = False,
    decomposition_table: Mapping[Any, Callable[..., Any]] | None = None,
) -> Callable[..., GraphModule]:
    """Give a function that traces `f` on its arguments.

    Args:
        f: a function of tensors, in any nesting of containers.
        tracing_mode: run it on the data (`"real"`), on fakes (`"fake"`), or on fakes with
            symbolic sizes (`"symbolic"`).
        pre_dispatch: record calls as written, before autograd and decompositions act; grad
            mode and autocast are part of the program then.
        decomposition_table: functions that are traced instead of operators.

    Returns:
        A function of the same arguments; it gives a `GraphModule`, whose inputs are the leaves
        of the arguments, and whose `shape_env` has the guards. Traced with symbolic sizes, it
        raises `UsageError` for inputs of which a guard does not hold, that are of other dtypes or
        values, or answer otherwise what the function asks (`is_contiguous()`, `requires_grad`).
        A traceable wrapper counts as the tensors inside it, as an argument and as a result.

    Raises:
        UsageError: an unknown mode.
        CaptureError: in a trace: a result is no tensor, number or container of them, or another
            thread computes with a tensor of a trace on fakes.
        DataDependentOutputError: in a trace: the function looks at data, also where it catches
            this.
        UsageTypeError: a tensor of a subclass that is no traceable wrapper.

    Example:
        >>> import numpy as np
        >>> import polyop.assembly
        >>> from polyop.ops.elementwise import add, sin
        >>> from polyop.tensor.tensor import of_array
        >>> x = of_array(np.zeros(3, "float32"))
        >>> print(make_fx(lambda x: add(sin(x), 1), "fake")(x).graph)
        graph(x: f32[3]):
            sin: f32[3] = core.sin(x)
            add: f32[3] = core.add.Scalar(sin, 1)
            return add
    """
    if tracing_mode not in MODES:
        raise UsageError(
            f"{tracing_mode!r} is no tracing mode{nearest(tracing_mode, MODES)}",
            declared=", ".join(MODES),
        )
    table = {as_operator(op): fn for op, fn in (decomposition_table or {}).items()}

    def trace(*args: Any) -> GraphModule:
        return _traced(f, args, tracing_mode, table, pre_dispatch=pre_dispatch)

    return trace


def _traced(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    tracing_mode: str,
    table: Mapping[Any, Callable[..., Any]],
    *,
    pre_dispatch: bool,
) -> GraphModule:
    """Run a function on stand-ins for its arguments, and give what it did as a graph."""
    leaves, spec = tree.flatten(args)
    outer, outside = word().recorder, levels_outside(word())
    found = mode = _mode(tracing_mode, leaves)
    own = ShapeEnv() if mode is None and tracing_mode == "symbolic" else None
    fakes = tracing_mode != "real" or any(is_outside(leaf, outside) for leaf in leaves)
    if mode is None and fakes:
        # Tensors that the function closes over become constants of the program.
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=own)
    tracer = Tracer(table=table, outside=outside)
    named = zip(leaf_names(f, args), leaves, strict=True)
    parts = [part for pair in named for part in taken_apart(*pair)]
    _look_for_same(f, tracer, parts, guards=own is not None)
    inputs = [_input(tracer, mode, *part) for part in parts]
    share_as_outside([x for _, x in parts], inputs, outside)
    before = [answers_of(x) for x in inputs] if own is not None else []
    given = tree.unflatten(spec, put_together(leaves, inputs))
    # What the function makes is of the trace alone, also inside a functionalization.
    plain = word().but(tracer=None, pre=(), fake=mode, functional=None, levels=())
    under = plain.but(tracer=tracer)
    proxy = ProxyMode(tracer) if pre_dispatch else None
    if proxy is not None:
        under = with_pre_dispatch(plain, proxy)
    callers = [x for _, x in parts]
    asked = Callers(tracer, zip(inputs, callers, strict=True) if own is None else None)
    traced = nullcontext() if mode is None or mode is found else mode.traced_by(tracer)
    with traced:
        result = answering(asked, lambda: inside(run_under(under, f, *given)))
    real = zip([x for _, x in parts], inputs, strict=True) if tracing_mode == "real" else ()
    refuse_lost_writes(outer, tracer, [*real])
    for leaf in tree.leaves(result):
        refuse_kind(leaf, source_of(f))
    if proxy is not None:
        proxy.note(plain)
    env = None if mode is None else mode.shape_env
    module: GraphModule = run_under(plain, tracer.finish, result, env)
    if proxy is not None:
        module.__class__ = PreDispatchModule
    if own is not None:
        names = [name for name, _ in parts]
        module = guarded(module, SizeGuards(own, names, inputs, before, tracer.asked))
    module.__dict__["shape_env"] = env
    return module


def _look_for_same(
    f: Callable[..., Any], tracer: Tracer, parts: Sequence[tuple[str, Any]], *, guards: bool
) -> None:
    """Refuse one tensor as two inputs, or note to do so later, if the function compares them.

    Raises:
        CaptureError: there are such inputs, which are two tensors in the trace.
    """
    tensors = [part for part in parts if isinstance(part[1], Tensor)]
    same = len({id(x) for _, x in tensors}) < len(tensors)
    asks = load("polyop.objects.identity:compares_identity")
    if (same or (guards and len(tensors) > 1)) and asks(f):
        tracer.asked.add("is")
        refuse_same([name for name, _ in tensors], [x for _, x in tensors], CaptureError)


def _mode(tracing_mode: str, leaves: Sequence[Any]) -> FakeTensorMode | None:
    """Give the mode of fake inputs, or the one that a trace of real tensors is in, or None."""
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.payload.__class__ is Meta and leaf.payload.space.mode:
            found: FakeTensorMode = leaf.payload.space.mode
            return found
        if isinstance(leaf, Tensor) and leaf.keys & WRAPPED and (inner := mode_inside(leaf)):
            return inner
    if tracing_mode == "real":
        active: FakeTensorMode | None = word().fake
        return active
    return None


def leaf_names(f: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """Name the leaves of the arguments: by parameter, and by number inside containers."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = []
    for i, arg in enumerate(args):
        positional = i < len(parameters) and parameters[i].kind in _POSITIONAL
        name = identifier(parameters[i].name) if positional else f"arg{i}"
        count = len(tree.leaves(arg))
        single = count == 1 and not isinstance(arg, (list, tuple, dict))
        names += [name] if single else [f"{name}_{k}" for k in range(count)]
    return names


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _input(tracer: Tracer, mode: FakeTensorMode | None, name: str, leaf: Any) -> Any:
    """Add the placeholder of an input, and give what the function gets for it."""
    value = leaf
    if is_outside(leaf, tracer.outside):
        value = mode.from_outside(leaf, source=name)  # type: ignore[union-attr]
    elif isinstance(leaf, Tensor):
        value = fresh_input(leaf, mode, name)
    elif type(leaf) is int and mode is not None and mode.shape_env and not mode.static_shapes:
        value = mode.shape_env.create_symbol(leaf, name)
    elif mode is not None and is_input(leaf):
        value = mode.from_object(leaf)
    tracer.placeholder(name, value)
    return value


def fresh_input(tensor: Tensor, mode: FakeTensorMode | None, source: str) -> Tensor:
    """Give a new tensor with the contents of an input, so that the caller's is not marked."""
    found = tensor if mode is None else mode.from_tensor(tensor, source=source)
    fresh = Tensor()
    fresh.payload = found.payload
    fresh.keys = found.keys & ~GRAD
    fresh.version = share(found)
    if tensor.keys & GRAD:
        fresh.requires_grad_()
    return fresh

"""`register_higher_order`: a higher-order operator with all its rules in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.rules import register_fake
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.source import caller

Rule = Callable[..., Any]


def register_higher_order(
    name: str,
    eager: Rule,
    *,
    autograd: Rule | None = None,
    fake: Rule | None = None,
    trace: Rule | None = None,
    functionalize: Rule | None = None,
    vmap: Rule | None = None,
    grad: Rule | None = None,
    gen_schema: Rule | None = None,
    cacheable: bool = False,
) -> HigherOrderOperator:
    """Make a higher-order operator; where it has no rule, `eager`'s own operators are dealt with.

    Args:
        name: it appears as `polyop.ops.higher_order.<name>`.
        eager: what a call does.
        autograd: the same, while gradients are wanted (`py_autograd_impl`).
        fake: the same for fakes.
        trace: `trace(tracer, *args, **kwargs)` records a call; `record_call` adds the node.
        functionalize: `functionalize(ctx, *args, **kwargs)` (`FunctionalizeAPI`).
        vmap: `vmap(interpreter, *args, **kwargs)`, on batched tensors.
        grad: `grad(interpreter, *args, **kwargs)`, on tensors of `func.grad`.
        gen_schema: gives the schema of a call.
        cacheable: whether compiled programs with it may be kept.

    Raises:
        DuplicateRegistrationError: the name is in use, from another file and line.

    Example:
        >>> import polyop
        >>> thrice = register_higher_order("example_thrice", lambda fn, x: fn(fn(fn(x))))
        >>> thrice(lambda x: x * 2, polyop.ones(2))
        tensor([8., 8.])
    """
    hop = _without_rules(name, gen_schema, cacheable=cacheable)

    def inline(_: Any, /, *args: Any, **kwargs: Any) -> Any:
        return eager(*args, **kwargs)

    hop.py_impl(DispatchKey.CompositeExplicitAutograd)(eager)
    if autograd is None:
        hop.py_impl(DispatchKey.Autograd)(eager)
    else:
        hop.py_autograd_impl(autograd)
    register_fake(hop, fake or eager)
    hop.py_impl(Tracer)(trace or _recording(eager))
    hop.py_impl(ProxyMode)(_before(eager))
    hop.py_impl(TransformType.Vmap)(vmap or inline)
    hop.py_impl(TransformType.Grad)(grad or inline)
    hop.py_impl(TransformType.Jvp)(inline)
    hop.py_functionalize_impl(functionalize or inline)
    return hop


def _without_rules(name: str, gen_schema: Rule | None, *, cacheable: bool) -> HigherOrderOperator:
    """Make the one object of a class of its own."""

    def call(self: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
        return HigherOrderOperator.__call__(self, *args, **kwargs)

    scope: dict[str, Any] = {"__call__": call, "made_at": caller()}
    if gen_schema is not None:
        scope["gen_schema"] = staticmethod(gen_schema)
    made: HigherOrderOperator = type(name, (HigherOrderOperator,), scope)(name, cacheable=cacheable)
    return made


def _recording(eager: Rule) -> Rule:
    """Let a trace record what `eager` calls."""

    def traced(tracer: Tracer, /, *args: Any, **kwargs: Any) -> Any:
        return run_under(word().but(tracer=tracer), eager, *args, **kwargs)

    return traced


def _before(eager: Rule) -> Rule:
    def traced(mode: ProxyMode, /, *args: Any, **kwargs: Any) -> Any:
        return run_under(with_pre_dispatch(word(), mode), eager, *args, **kwargs)

    return traced

"""`call_custom_autograd_function`: a `Function` by its name, as one call of a program (S195)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, LEVELS, TRACE
from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.errors import ObjectError, UsageError, UsageTypeError, nearest
from polyop.graph.node import CALL_FUNCTION
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.pullbacks import REPEATING, Unrepeated
from polyop.hop.rules import register_fake
from polyop.layers.autograd import Function
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.trace.whole import Whole
from polyop.objects.effects import EffectType
from polyop.tensor.tensor import Tensor


class CallCustomAutogradFunction(HigherOrderOperator):
    """Calls `apply` of the class `"module.Class"`; a trace records the call as one node.

    So an exported program keeps the backward of the class.

    Raises:
        UsageError: a name without a dot, or a class without `apply`.
        ObjectError: no such module or class.
    """

    #: What a class does is in no graph: its calls stay, in their order.
    effect = EffectType.ORDERED
    #: It refuses by itself what a gradient would repeat.
    refuses_repeats = True

    def __call__(self, function_cls_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the class."""
        now = word()
        if now & TRACE and not now & LEVELS:
            return _recorded(now.tracer, function_cls_name, args, kwargs)
        return super().__call__(function_cls_name, *args, **kwargs)


call_custom_autograd_function = CallCustomAutogradFunction("call_custom_autograd_function")


def _grows(values: Any) -> bool:
    return any(isinstance(x, Tensor) and x.keys & GRAD for x in tree.leaves(values))


def call_eager(function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Import the class, and call it."""
    return _applied(found_class(function_cls_name, import_module), args, kwargs)


def _applied(cls: Any, args: Any, kwargs: Any) -> Any:
    """Call a class; inside a program that runs again for a gradient, it may not act or draw."""
    if REPEATING.get() is None:
        return cls.apply(*args, **kwargs)
    with Unrepeated():
        return cls.apply(*args, **kwargs)


def call_inline(_: Any, function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Let the class deal with a transform itself."""
    return call_eager(function_cls_name, *args, **kwargs)


call_custom_autograd_function.py_impl(DispatchKey.CompositeExplicitAutograd)(call_eager)
call_custom_autograd_function.py_impl(DispatchKey.Autograd)(call_eager)
register_fake(call_custom_autograd_function, call_eager)
for _kind in (TransformType.Vmap, TransformType.Grad, TransformType.Jvp):
    call_custom_autograd_function.py_impl(_kind)(call_inline)


@call_custom_autograd_function.py_functionalize_impl
def call_functionalize(ctx: Any, function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Go on with plain tensors, so that the call stays whole."""
    given, named = ctx.unwrap_tensors((args, kwargs))
    with ctx.redispatch_to_next():
        return ctx.wrap_tensors(call_custom_autograd_function(function_cls_name, *given, **named))


@call_custom_autograd_function.py_impl(Tracer)
def call_trace(tracer: Tracer, function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Record the call as one node."""
    return _recorded(tracer, function_cls_name, args, kwargs)


@call_custom_autograd_function.py_impl(ProxyMode)
def call_trace_before(mode: ProxyMode, function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Record the call before dispatch."""
    mode.note(word())
    return _recorded(mode.tracer, function_cls_name, args, kwargs, proxy=mode)


def call_loaded_autograd_function(function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a class for a program from a file, which imports nothing.

    Raises:
        ObjectError: its module is not imported, or it is no `Function`.
    """
    cls = found_class(function_cls_name, sys.modules.__getitem__)
    if not (isinstance(cls, type) and issubclass(cls, Function)):  # a file may name anything
        raise ObjectError(
            f"{function_cls_name} is no custom autograd function",
            op=call_custom_autograd_function,
            declared="a subclass of polyop.autograd.Function",
            seen=repr(cls),
        )
    return _applied(cls, args, kwargs)


call_loaded_autograd_function.is_impure = True  # type: ignore[attr-defined]
call_loaded_autograd_function.refuses_repeats = True  # type: ignore[attr-defined]


def _recorded(
    tracer: Tracer, name: str, args: Any, kwargs: Any, proxy: ProxyMode | None = None
) -> Any:
    """Record a call as one node; a gradient in the same program may read what is inside."""
    now = word()
    if now.grad and _grows((args, kwargs)):
        under = now.but(tracer=tracer) if proxy is None else with_pre_dispatch(now, proxy)
        run = partial(run_under, under, partial(call_eager, **kwargs))
        if not tracer.whole_calls:
            return run(name, *args)
        whole = Whole(call_custom_autograd_function, call_custom_autograd_function,
                      (name, *args), kwargs)  # fmt: skip
        return whole.record(tracer, run, (name, *args))
    result = run_under(word().but(tracer=None), call_eager, name, *args, **kwargs)
    given, named = tree.map_leaves(tracer.value, (tuple(args), dict(kwargs)))
    node = tracer.graph.create_node(
        CALL_FUNCTION, call_custom_autograd_function, (name, *given), named
    )
    tracer.results(node, result)
    return result


def found_class(name: str, find: Callable[[str], Any]) -> Any:
    """Give a class with `apply` by its dotted name.

    Args:
        name: module and class.
        find: gives a module by name.
    """
    if not isinstance(name, str):
        raise UsageTypeError(
            "a custom autograd function is named by module and class",
            op=call_custom_autograd_function,
            argument="function_cls_name",
            declared='"module.Class"',
            seen=f"{type(name).__name__} {name!r:.80}",
            fix="give the name as a string",
        )
    module_name, dot, class_name = name.rpartition(".")
    if not dot or not module_name:
        raise UsageError(
            "a custom autograd function is named by module and class",
            op=call_custom_autograd_function,
            declared='"module.Class"',
            seen=name,
        )
    try:
        module = find(module_name)
    except (ImportError, KeyError) as error:
        raise ObjectError(
            f"the module {module_name} of a custom autograd function is not there",
            op=call_custom_autograd_function,
            seen=name,
            fix=f"import {module_name} first",
        ) from error
    cls = getattr(module, class_name, None)
    if cls is None:
        raise ObjectError(
            f"{module_name} has no {class_name}{nearest(class_name, vars(module))}",
            op=call_custom_autograd_function,
            seen=name,
        )
    if not hasattr(cls, "apply"):
        raise UsageError(
            f"{name} has no apply",
            op=call_custom_autograd_function,
            declared="a subclass of polyop.autograd.Function",
            seen=repr(cls),
        )
    return cls

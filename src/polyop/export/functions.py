"""`call_custom_autograd_function`: a `Function` by its name, as one call of a program (S195)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from polyop import tree
from polyop.dispatch.bits import LEVELS, TRACE
from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.errors import ObjectError, UsageError, nearest
from polyop.graph.node import CALL_FUNCTION
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.rules import register_fake
from polyop.layers.autograd import Function
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer


class CallCustomAutogradFunction(HigherOrderOperator):
    """Calls `apply` of the class `"module.Class"`; a trace records the call as one node.

    So an exported program keeps the backward of the class.

    Raises:
        UsageError: a name without a dot, or a class without `apply`.
        ObjectError: no such module or class.
    """

    def __call__(self, function_cls_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the class."""
        now = word()
        if now & TRACE and not now & LEVELS:
            return _recorded(now.tracer, function_cls_name, args, kwargs)
        return super().__call__(function_cls_name, *args, **kwargs)


call_custom_autograd_function = CallCustomAutogradFunction("call_custom_autograd_function")


def call_eager(function_cls_name: str, *args: Any, **kwargs: Any) -> Any:
    """Import the class, and call it."""
    return found_class(function_cls_name, import_module).apply(*args, **kwargs)


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
    return _recorded(mode.tracer, function_cls_name, args, kwargs)


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
    return cls.apply(*args, **kwargs)


def _recorded(tracer: Tracer, name: str, args: Any, kwargs: Any) -> Any:
    """Run the call unseen, and record it."""
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

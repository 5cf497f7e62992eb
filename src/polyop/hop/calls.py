"""Operators that call something else than a traced function, or are one node for their effect."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from polyop import tree
from polyop.devices import as_dtype
from polyop.dispatch.bind import code_of
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import run_under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.dispatch.registry import as_operator
from polyop.errors import PolyopError, SubgraphError, UsageError, UsageTypeError
from polyop.hop.functionalize_api import FunctionalizeAPI
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.rules import Interpreter, below_autograd, register_fake
from polyop.hop.schema import HopSchemaGenerator
from polyop.hop.subgraph import record_call
from polyop.layers.autograd.function import Function
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.vmap.batch import peel
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS
from polyop.ops.rounding import astype
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class CallOperator(HigherOrderOperator):
    """Base of operators that call something, with the layers on what that calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name, cacheable=True)
        self.py_impl(DispatchKey.CompositeExplicitAutograd)(self.eager)
        self.py_impl(DispatchKey.Autograd)(self.autograd)
        self.py_impl(Tracer)(self.trace)
        self.py_impl(ProxyMode)(self.trace_before)
        for kind in (TransformType.Vmap, TransformType.Grad, TransformType.Jvp):
            self.py_impl(kind)(self.at_level)
        self.py_functionalize_impl(self.at_level)
        register_fake(self, self.eager)

    def eager(self, *args: Any, **kwargs: Any) -> Any:
        """Do what a call means."""
        raise NotImplementedError

    def autograd(self, *args: Any, **kwargs: Any) -> Any:
        """Leave the gradient to what it calls; without one, a program keeps the call whole."""
        if word().grad and code_of((args, kwargs)) & GRAD:
            return self.eager(*args, **kwargs)
        return self.below(*args, **kwargs)

    def below(self, *args: Any, **kwargs: Any) -> Any:
        """Call it below autograd."""
        call = HigherOrderOperator.__call__
        return run_under(below_autograd(word()), call, self, *args, **kwargs)

    def at_level(self, to: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Leave a call to what it calls."""
        return self.eager(*args, **kwargs)

    def trace(self, tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one node."""
        out = HigherOrderOperator.__call__(self, *args, **kwargs)
        return record_call(tracer, self, args, kwargs, out)

    def trace_before(self, mode: ProxyMode, *args: Any, **kwargs: Any) -> Any:
        """Record the call as one node before dispatch."""
        out = self.trace(mode.tracer, *args, **kwargs)
        mode.note(word())
        return out

    def gen_schema(self, *args: Any, **kwargs: Any) -> Any:
        """Give the schema of one call."""
        made = HopSchemaGenerator(self)
        for i, leaf in enumerate(tree.leaves(args)):
            made.add_arg(f"arg{i}", leaf)
        for name, option in kwargs.items():
            made.add_arg(name, option, kw_only=True)
        for leaf in tree.leaves(self.sample(*args, **kwargs)):
            made.add_output(leaf)
        return made.gen_schema()

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Give results like those of a call."""
        mode = load("polyop.layers.fake.mode:FakeTensorMode")(allow_non_fake_inputs=True)
        with mode:
            return self.eager(*args, **kwargs)


class OutDtype(CallOperator):
    """Calls an operator on arguments of a wider dtype, such as a product of int8 in int32.

    Args:
        op: an operator that writes nothing and gives one Tensor.
        output_dtype: the dtype of the computation and of the result.
        args: what it is called with.

    Raises:
        SubgraphError: the operator writes, or does not give one Tensor.

    Example:
        >>> import polyop
        >>> x = polyop.full((1,), 100, dtype=polyop.int8)
        >>> polyop.hop.out_dtype(polyop.ops.core.multiply.default, polyop.int32, x, x)
        tensor([10000], dtype=int32)
    """

    def __call__(self, op: Any, output_dtype: Any, *args: Any) -> Any:
        """Call the operator."""
        found = as_operator(op)
        returns = [str(r.type) for r in found._schema.returns]
        if found._schema.is_mutable or returns != ["Tensor"]:
            raise SubgraphError(
                f"{self} calls operators that write nothing and give one Tensor",
                op=self,
                argument="op",
                declared=found._schema,
                fix="give the operator that returns a new tensor",
            )
        return super().__call__(found, as_dtype(output_dtype), *args)

    def eager(self, op: OpOverload, dtype: Any, *args: Any) -> Any:
        """Cast, call, and cast back what a comparison or the like gave."""
        given = [astype(x, dtype) if isinstance(x, Tensor) else x for x in args]
        out = op(*given)
        return out if out.dtype == dtype else astype(out, dtype)


class FlatApply(CallOperator):
    """Calls a function on arguments that are given as leaves; a program keeps the call whole.

    Args:
        func: the function; a trace does not look into it unless gradients are wanted.
        in_spec: the structure of `(args, kwargs)`.
        flat_args: their leaves.

    Example:
        >>> import polyop
        >>> leaves, spec = polyop.tree.flatten(((1, 2), {"scale": 3}))
        >>> polyop.hop.flat_apply(lambda a, b, scale: (a + b) * scale, spec, *leaves)
        9
    """

    def __call__(self, func: Fn, in_spec: Any, *flat_args: Any) -> Any:
        """Call the function."""
        if not callable(func) or not hasattr(in_spec, "num_leaves"):
            raise UsageTypeError(
                f"{self} takes a function, the structure of its arguments, and their leaves",
                op=self,
                seen=f"{func!r:.60}, {type(in_spec).__name__}",
                fix="leaves, spec = polyop.tree.flatten((args, kwargs))",
            )
        return super().__call__(func, in_spec, *flat_args)

    def eager(self, func: Fn, in_spec: Any, *flat_args: Any) -> Any:
        """Call the function."""
        args, kwargs = tree.unflatten(in_spec, flat_args)
        return func(*args, **kwargs)


class Print(CallOperator):
    """Prints a text with values in it; programs keep its place.

    Args:
        format_str: a text, with places for the values as `str.format` has them.
        args, kwargs: the values.

    Example:
        >>> import polyop
        >>> polyop.hop.print("{} and {last}", polyop.ones(1), last=2)
        tensor([1.]) and 2
    """

    def __call__(self, format_str: str, *args: Any, **kwargs: Any) -> None:
        """Print."""
        if not isinstance(format_str, str):
            raise UsageTypeError(
                f"{self} takes a text first", op=self, argument="format_str", seen=repr(format_str)
            )
        super().__call__(format_str, *args, **kwargs)

    def eager(self, format_str: str, *args: Any, **kwargs: Any) -> None:
        """Print."""
        if word().fake is None:
            builtins.print(self._filled(format_str, args, kwargs))

    def _filled(self, format_str: str, args: Any, kwargs: Any) -> str:
        try:
            return format_str.format(*args, **kwargs)
        except PolyopError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                "the values do not fill the places of the text",
                op=self,
                argument="format_str",
                declared=f"{format_str!r}: {error}",
                seen=f"{len(args)} values without a name; with one: {', '.join(kwargs) or 'none'}",
                fix="give a value for each place of the text; write {{ for a brace",
            ) from error

    def at_level(self, to: Any, /, *args: Any, **kwargs: Any) -> None:
        """Print for each sample, or what is inside."""
        if isinstance(to, FunctionalizeAPI):
            given, named = to.unwrap_tensors((args, kwargs))
            with to.redispatch_to_next():
                self(*given, **named)
            return
        assert isinstance(to, Interpreter)
        if to.key() is TransformType.Vmap:
            self._for_each(to, args, kwargs)
            return
        given, named = tree.map_leaves(to.level.peel, (args, kwargs))
        with to.lower():
            self(*given, **named)

    def autograd(self, *args: Any, **kwargs: Any) -> None:
        """Print; nothing has a gradient."""
        self.below(*args, **kwargs)

    def _for_each(self, to: Interpreter, args: Any, kwargs: Any) -> None:
        leaves, spec = tree.flatten((args, kwargs))
        pairs = [peel(x, to.level) for x in leaves]
        count = 1 if all(a is None for _, a in pairs) else int(to.batch_size())
        select = ON_TENSORS["select"]
        with to.lower():
            for i in range(count):
                row = [v if a is None else select(v, a, i) for v, a in pairs]
                given, named = tree.unflatten(spec, row)
                self(*given, **named)


class CustomFunctionCall(CallOperator):
    """Applies an `autograd.Function`; each layer acts as its `apply` does.

    Args:
        function: the class.
        args: what it is applied to.

    Example:
        >>> import polyop
        >>> class Double(polyop.autograd.Function):
        ...     @staticmethod
        ...     def forward(x):
        ...         return x * 2
        ...     @staticmethod
        ...     def setup_context(ctx, inputs, output):
        ...         pass
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         return g * 2
        >>> polyop.hop.custom_function_call(Double, polyop.ones(1))
        tensor([2.])
    """

    def __call__(self, function: type[Function], *args: Any) -> Any:
        """Apply the function."""
        if not isinstance(function, type) or not issubclass(function, Function):
            raise UsageTypeError(
                f"{self} takes a subclass of autograd.Function", op=self, seen=repr(function)
            )
        return super().__call__(function, *args)

    def eager(self, function: type[Function], *args: Any) -> Any:
        """Apply the function."""
        return function.apply(*args)

    def trace(self, tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
        """Record what it calls."""
        return run_under(word().but(tracer=tracer), self.eager, *args)

    def trace_before(self, mode: ProxyMode, *args: Any, **kwargs: Any) -> Any:
        """Record what it calls."""
        return run_under(with_pre_dispatch(word(), mode), self.eager, *args)


out_dtype = OutDtype("out_dtype")
flat_apply = FlatApply("flat_apply")
print = Print("print")
custom_function_call = CustomFunctionCall("custom_function_call")

# Effects stand beside this part; only their registration is needed.
load("polyop.objects.effects:register_effect")(
    print, load("polyop.objects.effects:EffectType").ORDERED
)

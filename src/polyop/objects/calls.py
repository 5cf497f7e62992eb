"""The two higher-order operators of this part: `call_object` and `with_effects` (S186, S189).

Neither computes anything itself. What they run meets every layer by its own
operators; a trace alone records them as they are, as one node each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from polyop import tree
from polyop.dispatch.bits import BATCHED, GRAD, LIFTED, WRAPPED
from polyop.dispatch.context import word
from polyop.dispatch.keys import AUTOGRAD_KEYS, DispatchKey
from polyop.dispatch.objects import is_fake_object
from polyop.dispatch.operator import OperatorBase, OpOverload
from polyop.errors import AutogradError, ObjectError, SubgraphError, VmapError, an
from polyop.hop import (
    FunctionalizeAPI,
    HigherOrderOperator,
    Interpreter,
    TransformType,
    record_call,
    register_fake,
)
from polyop.layers.trace.tracer import Tracer
from polyop.objects.effects import EffectType, aliases, new_token, unpacked
from polyop.objects.fake_classes import FAKE_CLASSES
from polyop.objects.fakes import FakeObject, fake_of
from polyop.schema.opaque import is_reference
from polyop.tensor.tensor import Tensor


class Passing(HigherOrderOperator):
    """Base of operators that run something with all layers on, and are one node of a trace."""

    #: Passes keep each call, in its place.
    is_impure: ClassVar[bool] = True

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments, and call."""
        self.check(*args)
        return super().__call__(*args, **kwargs)

    def check(self, *args: Any) -> None:
        """Refuse arguments that no layer could do anything with."""
        raise NotImplementedError

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, with what is active now."""
        raise NotImplementedError

    def add_rules(self) -> None:
        """Give the operator its rules."""
        for key in AUTOGRAD_KEYS:
            self.fallthrough(key)
        self.py_impl(DispatchKey.CompositeExplicitAutograd)(self.run)
        self.py_impl(Tracer)(self._trace)
        register_fake(self, self.run, skip_cache=True)
        for transform in (TransformType.Vmap, TransformType.Grad, TransformType.Jvp):
            self.py_impl(transform)(self._transform)
        self.py_functionalize_impl(self._functionalize)

    def _trace(self, tracer: Tracer, /, *args: Any, **kwargs: Any) -> Any:
        leaves = tree.leaves((args, kwargs))
        if word().grad and any(isinstance(x, Tensor) and x.keys & GRAD for x in leaves):
            _no_gradient(self, "a trace")
        return record_call(tracer, self, args, kwargs, self.run(*args, **kwargs))

    def _transform(self, interpreter: Interpreter, /, *args: Any, **kwargs: Any) -> Any:
        leaves = tree.leaves((args, kwargs))
        wrapped = [x for x in leaves if isinstance(x, Tensor) and x.keys & WRAPPED]
        if not any(x.payload.level is interpreter.level for x in wrapped):
            with interpreter.lower():
                return self(*args, **kwargs)
        if any(map(is_fake_object, leaves)):
            self._refuse_fake(wrapped)
        return self.run(*args, **kwargs)

    def _refuse_fake(self, wrapped: Sequence[Tensor]) -> None:
        if any(x.keys & LIFTED for x in wrapped):
            _no_gradient(self, "func.grad")
        if any(x.keys & BATCHED for x in wrapped):
            raise VmapError(
                f"{self.name()} of an object gets a batched tensor in a trace, "
                "and the object of the program would get the whole batch",
                op=self.name(),
                fix="make an operator of the call (polyop.custom_op): vmap runs it per sample",
            )

    def _functionalize(self, ctx: FunctionalizeAPI, /, *args: Any, **kwargs: Any) -> Any:
        given, named = ctx.unwrap_tensors((args, kwargs))
        with ctx.redispatch_to_next():
            result = self(*given, **named)
        return ctx.wrap_tensors(result)


def _no_gradient(hop: HigherOrderOperator, where: str) -> NoReturn:
    raise AutogradError(
        f"{hop.name()} gets a tensor that requires grad in {where}, and has no gradient there",
        op=hop.name(),
        fix="detach the tensor, or make an operator with a gradient (polyop.custom_op, "
        "register_autograd)",
    )


class CallObject(Passing):
    """Calls a method of an opaque object: `call_object(obj, "method", *args, **kwargs)`.

    A fake object runs the method of its fake class.

    Raises:
        ObjectError: no opaque object, or it has no such method.
    """

    effect = EffectType.ORDERED

    def check(self, obj: Any = None, method: Any = None, /, *args: Any) -> None:
        """Refuse what is no object with such a method."""
        if not is_reference(obj):
            raise ObjectError(
                "call_object calls a method of an object of a registered reference class",
                seen=f"{type(obj).__name__} {obj!r:.80}",
                fix="register its class: register_opaque_type(cls, typ='reference')",
            )
        owner = obj.wrapped_obj if type(obj) is FakeObject else obj
        if not isinstance(method, str) or not callable(getattr(owner, method, None)):
            raise ObjectError(
                f"{'the fake of ' if owner is not obj else ''}a {obj.__class__.__qualname__} "
                f"has no method {method!r}",
                seen=f"{an(type(owner).__qualname__)}",
                fix="define it in the class, and in its fake class",
            )

    def run(self, obj: Any, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; in a fake mode, that of the object's fake."""
        mode = word().fake
        obj = obj if mode is None else fake_of(mode, obj)
        if type(obj) is not FakeObject:
            return getattr(obj, method)(*args, **kwargs)
        result = getattr(obj.wrapped_obj, method)(*args, **kwargs)
        return tree.map_leaves(lambda x: _refaked(obj, x), result)


def _refaked(obj: FakeObject, value: Any) -> Any:
    """Wrap an object of a fake class that a fake method gave."""
    if value is obj.wrapped_obj:
        return obj
    if type(value) is type(obj.wrapped_obj):
        return FakeObject(value, obj.class_name, obj.real_obj, None)
    if any(type(value) is cls for cls, _ in FAKE_CLASSES.values()):
        raise ObjectError(
            f"a method of the fake of {an(obj.class_name)} gives {an(type(value).__qualname__)}, "
            "the fake of another class",
            fix="make an operator that gives the object (polyop.custom_op)",
        )
    return value


class WithEffects(Passing):
    """Calls an operator behind the call that made a token: `with_effects(token, op, *args)`.

    Gives the new token, then the results of the operator in a row.

    Raises:
        SubgraphError: the first argument is no Tensor, the second no operator, or
            one that writes or aliases.
    """

    def check(self, token: Any = None, op: Any = None, /, *args: Any) -> None:
        """Refuse what is no token, and what is no operator."""
        if not isinstance(token, Tensor):
            raise SubgraphError(
                "with_effects takes a token first",
                declared="an empty Tensor",
                seen=f"{type(token).__name__} {token!r:.80}",
                fix="begin a chain with polyop.zeros(0)",
            )
        if not isinstance(op, OperatorBase):
            raise SubgraphError(
                "with_effects takes an operator behind the token",
                seen=f"{type(op).__name__} {op!r:.80}",
                fix="give an overload (polyop.ops.ns.op.default), or a higher-order operator",
            )
        if isinstance(op, OpOverload) and aliases(op):
            raise SubgraphError(
                f"{op.name()} writes or aliases its arguments, which no token orders",
                op=op._schema,
                source=op.source,
                fix="call it as it is, or its functional twin: op.functional",
            )

    def run(self, token: Tensor, op: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run the operator."""
        results = unpacked(op, op(*args, **kwargs))
        return (new_token(), *results)


call_object = CallObject("call_object")
with_effects = WithEffects("with_effects")
call_object.add_rules()
with_effects.add_rules()

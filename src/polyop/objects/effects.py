"""Effects: which operators act on the world, and how their order is kept (S188, S189).

An operator with an effect is neither removed nor merged nor moved by any pass.
In a program whose order is data, as in an exported one, each effect type is a
chain: a token goes into every call, and out of it into the next one.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import Enum
from typing import Any

from polyop.dispatch.library import Library, owner_of
from polyop.dispatch.objects import ObjectOpOverload
from polyop.dispatch.operator import OperatorBase, OpOverload
from polyop.dispatch.registry import as_operator, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import RegistrationError, SubgraphError, UsageTypeError
from polyop.lazy import load
from polyop.source import caller
from polyop.tensor.tensor import Tensor


class EffectType(Enum):
    """A chain of effects: calls of one type keep their order."""

    ORDERED = "ordered"


def register_effect(op: Any, effect: EffectType | None, /, *, lib: Library | None = None) -> None:
    """Say that calls of an operator act on the world, in order, or that they do not.

    Args:
        op: the operator, in any form, or a higher-order operator.
        effect: `EffectType.ORDERED`, or None for no effect, which operators with an
            argument for opaque references would have otherwise.
        lib: the library that owns the registration.

    Raises:
        UsageTypeError: `effect` is neither.
        RegistrationError: the operator writes, or its results share storage.
    """
    if effect is not None and not isinstance(effect, EffectType):
        raise UsageTypeError(
            "an effect is an EffectType, or None",
            seen=repr(effect),
            fix="give polyop.library.EffectType.ORDERED",
        )
    found = operator_of(op)
    if not isinstance(found, OpOverload):
        found.__dict__["effect"] = effect
        return
    if effect is not None and aliases(found):
        raise RegistrationError(
            f"{found.name()} writes or aliases its arguments, so it can have no effect besides",
            op=found._schema,
            source=found.source,
            fix="declare the effect on an operator that returns new tensors; a write keeps its "
            "place in any case",
        )
    put_rule(found, "effect", Kernel(effect, caller(), owner_of(lib, found.places)))  # type: ignore[arg-type]


def operator_of(op: Any) -> OperatorBase:
    """Give the operator, of one schema or of higher order, that a handle stands for."""
    if isinstance(op, OperatorBase):
        return op if not isinstance(op, OpOverload) else as_operator(op)
    return as_operator(op)


def aliases(op: OpOverload) -> bool:
    """Tell whether an operator writes, or gives what shares storage."""
    return any(a.alias_info is not None for a in (*op._schema.arguments, *op._schema.returns))


def effect_of(op: Any) -> EffectType | None:
    """Give the effect type of an operator in any form, or None.

    By default it is ORDERED with an argument for opaque references, else None.
    """
    return effect_of_target(operator_of(op))


def effect_of_target(target: Any) -> EffectType | None:
    """Give the effect type of what a node calls; None for a plain function."""
    if not isinstance(target, OpOverload):
        found: EffectType | None = getattr(target, "effect", None)
        return found if isinstance(target, OperatorBase) else None
    if aliases(target):
        return None
    rule = target.places.top("effect")
    if rule is not None:
        return rule.fn  # type: ignore[return-value]
    return EffectType.ORDERED if isinstance(target, ObjectOpOverload) else None


def has_effects(op: Any) -> bool:
    """Tell whether an operator, in any form, has an effect."""
    return effect_of(op) is not None


def new_token() -> Tensor:
    """Make a token: an empty tensor, whose only use is who makes it and who takes it."""
    made: Tensor = load("polyop.ops.creation:zeros")(0)
    return made


def run_ordered(
    tokens: MutableMapping[EffectType, Tensor], op: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Call an operator behind those of its effect type, and give its results.

    Args:
        tokens: the newest token of each effect type; the operator's is replaced.
        op: the operator; without an effect it is just called.
        *args: its arguments.
        **kwargs: its arguments by name.

    Raises:
        SubgraphError: there is no token for its effect type.
    """
    found: Any = operator_of(op)
    effect = effect_of_target(found)
    if effect is None:
        return found(*args, **kwargs)
    if effect not in tokens:
        raise SubgraphError(
            f"there is no token for the effect {effect.name} of {found.name()}",
            seen=", ".join(e.name for e in tokens) or "no tokens",
            fix=f"begin the chain: tokens = {{EffectType.{effect.name}: polyop.zeros(0)}}",
        )
    tokens[effect], *results = load("polyop.objects.calls:with_effects")(
        tokens[effect], found, *args, **kwargs
    )
    return packed(found, results)


def unpacked(op: Any, result: Any) -> tuple[Any, ...]:
    """Give the results of a call in a row; a higher-order operator's single one is one."""
    if isinstance(op, OpOverload) and len(op._schema.returns) < 2:
        return (result,) if op._schema.returns else ()
    return result if isinstance(result, tuple) else (result,)


def packed(op: Any, results: Any) -> Any:
    """Give results in a row as the operator gives them."""
    if isinstance(op, OpOverload) and len(op._schema.returns) != 1:
        return tuple(results) or None
    return results[0] if len(results) == 1 else tuple(results)

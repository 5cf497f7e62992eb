"""How PyTorch's distributed tensors go through operators: loops are sharded, named axes whole.

The rule follows from the index signature. Without one nobody knows which axes may be cut, so such
an operator takes replicated tensors only, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.distributed.tensor import Replicate, Shard, experimental

from polyop.bridges.torch.bridge import MADE, Bridge, bridges
from polyop.dispatch.index_signature import index_of
from polyop.dispatch.index_text import is_tensor
from polyop.errors import ArgumentError

#: Output placements, then input placements, `None` for what is no tensor.
Rule = tuple[list[Any], list[Any]]
_register: Any = getattr(experimental, "register_sharding", None)


class Shardings:
    """Gives the right ways of laying the tensors of one operator over one axis of a mesh."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge

    def __call__(self, *args: Any, **named: Any) -> Sequence[Rule]:
        """Give the rules for arguments, with descriptions in the place of tensors.

        Raises:
            ArgumentError: a tensor is sharded, and there is no index signature.
        """
        op = self.bridge.op
        index = index_of(op)
        values = [*args, *named.values()]
        if index is None:
            self._refuse_sharded(values)
            return [self._rule(values, {}, [None] * len(self.bridge.plan.results))]
        names = [a.name for a in op._schema.arguments if is_tensor(a)]
        given = dict(zip([p.name for p in self.bridge.plan.places], values, strict=False))
        sharding = index.sharding(*[given[name].shape for name in names])
        return [
            self._rule(values, dict(zip(names, placement.inputs, strict=True)), placement.outputs)
            for placement in sharding.placements("mesh")
        ]

    def _rule(self, values: Sequence[Any], axes: dict[str, Any], outputs: Sequence[Any]) -> Rule:
        inputs: list[Any] = []
        for place, value in zip(self.bridge.plan.places, values, strict=False):
            for one in value if isinstance(value, list | tuple) else [value]:
                inputs.append(_placement(axes.get(place.name)) if _is_tensor(one) else None)
        return [_placement(axis) for axis in outputs], inputs

    def _refuse_sharded(self, values: Sequence[Any]) -> None:
        op = self.bridge.op
        for place, value in zip(self.bridge.plan.places, values, strict=False):
            for one in value if isinstance(value, list | tuple) else [value]:
                if _is_tensor(one) and not all(p.is_replicate() for p in one.placements):
                    raise ArgumentError(
                        f"{op.name()} has no index signature, so nobody knows how it goes over "
                        f"sharded tensors, as {place.name!r} is one",
                        op=op._schema,
                        argument=place.name,
                        declared="a replicated tensor",
                        seen=f"placements {tuple(one.placements)}",
                        source=op.source,
                        fix="say which axes meet with polyop.library.register_index, give "
                        f"{place.name}.redistribute(placements=[Replicate()]), or call it on "
                        "local tensors",
                    )


def _placement(axis: int | None) -> Any:
    return Replicate() if axis is None else Shard(axis)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "placements")


def share(bridge: Bridge) -> None:
    """Tell PyTorch how an operator goes over distributed tensors."""
    _register(bridge.target)(Shardings(bridge))


def announce() -> None:
    """Tell PyTorch of all operators, those that are known to it now, and those to come."""
    if _register is None:
        return  # PyTorch says itself that it has no rule
    MADE.append(share)
    for bridge in bridges():
        share(bridge)

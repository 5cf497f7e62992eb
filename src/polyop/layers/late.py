"""Layers whose files are read when a call first has their bits.

A program that neither batches, traces nor functionalizes does not pay for
them when it imports polyop. Their places among the layers are taken here.
"""

from __future__ import annotations

from typing import Any

from polyop.dispatch.bits import FUNCTIONAL, FUNCTIONALIZE, LEVELS, TRACE
from polyop.dispatch.keys import DispatchKey, functionality_of
from polyop.dispatch.operator import Handler
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import LAYERS, Layer, Way
from polyop.layers.fake.handlers import FAKE_LAYER
from polyop.layers.levels import LEVELS_LAYER
from polyop.lazy import load


class LateLayer:
    """Stands for a layer that has nothing to do without certain bits of the code."""

    __slots__ = ("bits", "place")

    def __init__(self, bits: int, place: str) -> None:
        self.bits = bits
        self.place = place

    def handler(self, way: Way) -> Handler | None:
        """Give the layer's handler, if the call has its bits."""
        if not way.code & self.bits:
            return None
        layer: Layer = load(self.place)()
        return layer.handler(way)


def _insert(key: DispatchKey, above: Layer, *layers: Layer) -> None:
    there = LAYERS[functionality_of(key)]
    there[there.index(above) : there.index(above)] = layers


def _functional_twin(op: Any) -> Any:
    return load("polyop.layers.functionalize:functional_twin")(op)


_insert(DispatchKey.Python, FAKE_LAYER, LateLayer(TRACE, "polyop.layers.trace:TraceLayer"))
_insert(
    DispatchKey.FuncTorchDynamicLayerFrontMode,
    LEVELS_LAYER,
    LateLayer(LEVELS, "polyop.layers.vmap.randomness:RandomLayer"),
    LateLayer(FUNCTIONAL | FUNCTIONALIZE, "polyop.layers.functionalize.level:FunctionalLayer"),
)
PARTS.functional_twin = _functional_twin

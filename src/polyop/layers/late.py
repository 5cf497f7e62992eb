"""What is read when it is first used: the layers, and what they add to `Tensor`.

A program that records no gradients, and neither batches nor traces, does not
pay for these when it imports polyop. Their places among the layers are taken
here, in the order in which they act.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from polyop.dispatch.bits import (
    BATCHED,
    FAKE,
    FAKE_MODE,
    FUNCTIONAL,
    FUNCTIONALIZE,
    GRAD,
    LEVELS,
    LIFTED,
    MODES,
    PRE_DISPATCH,
    SUBCLASS,
    TRACE,
)
from polyop.dispatch.keys import DispatchKey, Functionality, functionality_of
from polyop.dispatch.operator import Handler
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import AROUND, LAYERS, Layer, Way
from polyop.lazy import load
from polyop.tensor.tensor import Tensor


class LateLayer:
    """Stands for a layer that has nothing to do without certain bits of the code."""

    __slots__ = ("bits", "place")

    def __init__(self, bits: int, place: str) -> None:
        self.bits = bits
        self.place = place

    def handler(self, way: Way) -> Handler | None:
        """Give the layer's handler, if the call has its bits."""
        if self.bits and not way.code & self.bits:
            return None
        layer: Layer = load(self.place)()
        return layer.handler(way)


class LateAttribute:
    """Stands for an attribute of `Tensor`, until the file that puts the real one is read."""

    __slots__ = ("name", "place")

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place

    def __get__(self, tensor: Any, owner: type) -> Any:
        load(self.place)
        return getattr(owner if tensor is None else tensor, self.name)

    def __set__(self, tensor: Any, value: Any) -> None:
        load(self.place)
        setattr(tensor, self.name, value)


def late_function(place: str) -> Callable[..., Any]:
    """Give a function that reads its file when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return load(place)(*args, **kwargs)

    return call


#: Of a layer that may act on any code, also 0: that of a call without tensors.
ANY = 0
FAKES = FAKE | FAKE_MODE
AUTOGRAD = LateLayer(GRAD, "polyop.layers.autograd.forward:AutogradLayer")
DEEP_VIEWS = LateLayer(
    BATCHED | LIFTED | FUNCTIONAL | FAKES | TRACE, "polyop.layers.deep_views:DeepViewsLayer"
)
ORDER: dict[Any, list[Layer]] = {
    DispatchKey.FuncTorchDynamicLayerFrontMode: [
        DEEP_VIEWS,
        LateLayer(TRACE | PRE_DISPATCH, "polyop.layers.trace.outside:OutsideLayer"),
        LateLayer(LEVELS, "polyop.layers.vmap.randomness:RandomLayer"),
        LateLayer(LEVELS, "polyop.layers.vmap.mode_kernels:VmapModeLayer"),
        LateLayer(FUNCTIONAL | FUNCTIONALIZE, "polyop.layers.functionalize.level:FunctionalLayer"),
        LateLayer(BATCHED | LIFTED, "polyop.layers.levels:LevelsLayer"),
    ],
    DispatchKey.FuncTorchDynamicLayerBackMode: [
        LateLayer(BATCHED | LIFTED, "polyop.layers.levels:BackLayer")
    ],
    Functionality.AutogradFunctionality: [AUTOGRAD],
    DispatchKey.AutogradOther: [AUTOGRAD],
    DispatchKey.AutogradNestedTensor: [AUTOGRAD],
    functionality_of(DispatchKey.Python): [
        DEEP_VIEWS,
        LateLayer(MODES | SUBCLASS | TRACE | FAKES, "polyop.dispatch.modes:ModesLayer"),
        LateLayer(TRACE, "polyop.layers.trace:TraceLayer"),
        LateLayer(FAKES, "polyop.layers.fake:FakeLayer"),
    ],
    AROUND: [LateLayer(TRACE, "polyop.layers.trace.whole:WholeLayer")],
    DispatchKey.Meta: [LateLayer(ANY, "polyop.layers.fake:MetaLayer")],
}
for _key, _layers in ORDER.items():
    LAYERS.setdefault(_key, []).extend(_layers)

_METHODS = (
    "requires_grad_", "backward", "register_hook", "register_post_accumulate_grad_hook",
    "retain_grad", "grad", "grad_fn",
)  # fmt: skip
for _name in _METHODS:
    setattr(Tensor, _name, LateAttribute(_name, "polyop.layers.autograd.api"))

PARTS.autocast_kernel = late_function("polyop.layers.autocast:autocast_kernel")
PARTS.functional_twin = late_function("polyop.layers.functionalize:functional_twin")
PARTS.refuse_unseen = late_function("polyop.layers.autograd.inplace:refuse_unseen")
PARTS.author_handler = late_function("polyop.bridges.calls:author_handler")
PARTS.noted = late_function("polyop.bridges.calls:noted")
PARTS.defined = late_function("polyop.bridges.frameworks:defined")
PARTS.removed = late_function("polyop.bridges.frameworks:removed")


#: Modules with which the bridges are read, though no author's operator may be there: built-in
#: operators are compiled, and tensors are nodes of trees.
_BRIDGED = ("torch._dynamo", "jax")


class _Finder:
    """Finds a framework's module as the others do, once the bridges wait for it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Give the spec that `bridges/imports.py` gives; it takes this one's place."""
        if name not in _BRIDGED:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        load("polyop.bridges.frameworks")
        return load("polyop.bridges.imports:FINDER").find_spec(name, path, target)


if any(name in sys.modules for name in _BRIDGED):
    load("polyop.bridges.frameworks")
else:
    sys.meta_path.insert(0, _Finder())

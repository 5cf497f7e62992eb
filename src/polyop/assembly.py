"""Puts the parts together: each of these files registers something when it is imported.

Operators, methods and layers are found in tables; the order of `LAYERS` is
written in the files that fill it, and the order of these lines does not matter.
"""

from polyop import graph
from polyop.dispatch import entry, modes, registry
from polyop.layers import autograd, fake, functionalize, levels, trace, vmap
from polyop.layers.trace import make_fx
from polyop.ops import (
    creation,
    elementwise,
    indexing,
    inplace,
    joining,
    linalg,
    linear,
    methods,
    random,
    reductions,
    searching,
    sets,
    statistics,
    views,
)
from polyop.tensor import foreign, storage

PARTS = (
    autograd, creation, elementwise, entry, fake, foreign, functionalize, indexing, inplace,
    joining, levels, linalg, linear, methods, modes, random, reductions, registry, searching,
    sets, statistics, storage, trace, views, vmap,
)  # fmt: skip

# `make_fx` stands above the graph, and is looked for beside it.
graph.make_fx = make_fx  # type: ignore[attr-defined]

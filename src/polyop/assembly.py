"""Puts the parts together: importing this imports every file that registers something."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

for _name in (
    "polyop.dispatch.entry",
    "polyop.tensor.storage",
    "polyop.tensor.foreign",
    "polyop.ops.elementwise",
    "polyop.ops.reductions",
    "polyop.ops.linear",
    "polyop.ops.searching",
    "polyop.ops.views",
    "polyop.ops.joining",
    "polyop.ops.indexing",
    "polyop.ops.creation",
    "polyop.ops.random",
    "polyop.ops.inplace",
    "polyop.ops.methods",
    "polyop.layers.levels",
    "polyop.layers.autograd",
    "polyop.layers.vmap",
    "polyop.layers.functionalize",
    "polyop.layers.trace",
    "polyop.layers.fake",
):
    if find_spec(_name) is not None:
        importlib.import_module(_name)

"""The graph: nodes, text, verifier, runner, passes."""

from polyop.graph.graph import Graph, NodeList
from polyop.graph.module import GraphModule
from polyop.graph.node import Node, inputs_of, make_node, map_nodes
from polyop.graph.passes import (
    eliminate_common_subexpressions,
    eliminate_dead_code,
    fold_constants,
)
from polyop.graph.purity import is_impure, is_write
from polyop.graph.runner import compile_program
from polyop.lazy import lazily

__all__ = [
    "Graph",
    "GraphModule",
    "Node",
    "NodeList",
    "compile_program",
    "eliminate_common_subexpressions",
    "eliminate_dead_code",
    "fold_constants",
    "inputs_of",
    "is_impure",
    "is_write",
    "make_node",
    "map_nodes",
]
# These stand above the graph, and are looked for beside it.
__getattr__, __dir__ = lazily(
    __name__,
    {
        "decompose_auto_functionalized": "polyop.hop.defunctionalize",
        "make_fx": "polyop.layers.trace.make_fx",
        "reinplace": "polyop.hop.defunctionalize",
    },
)

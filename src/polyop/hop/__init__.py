"""Higher-order operators: operators that take functions, and what they are made of."""

from typing import TYPE_CHECKING

from polyop.dispatch.implementations import TransformType
from polyop.dispatch.namespaces import PROVIDED
from polyop.hop.derived import SubgraphOperator
from polyop.hop.functionalize_api import FunctionalizeAPI, FunctionalTensorMode
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.register import register_higher_order
from polyop.hop.rules import Interpreter, register_fake
from polyop.hop.schema import HopSchemaGenerator
from polyop.hop.subgraph import record_call, trace_subgraph
from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.hop.calls import custom_function_call, flat_apply, out_dtype
    from polyop.hop.calls import print as print
    from polyop.hop.carries import while_loop_carries
    from polyop.hop.checkpointing import checkpoint
    from polyop.hop.choosing import cond
    from polyop.hop.looping import while_loop
    from polyop.hop.mapping import map as map
    from polyop.hop.prefixes import associative_scan
    from polyop.hop.scanning import scan
    from polyop.hop.wraps import (
        foreach_map,
        invoke_subgraph,
        wrap,
        wrap_with_autocast,
        wrap_with_set_grad_enabled,
    )

# `map` and `print` are here too, and are not taken over by a star.
__all__ = [
    "FunctionalTensorMode",
    "FunctionalizeAPI",
    "HigherOrderOperator",
    "HopSchemaGenerator",
    "Interpreter",
    "SubgraphOperator",
    "TransformType",
    "associative_scan",
    "checkpoint",
    "cond",
    "custom_function_call",
    "flat_apply",
    "foreach_map",
    "invoke_subgraph",
    "out_dtype",
    "record_call",
    "register_fake",
    "register_higher_order",
    "scan",
    "trace_subgraph",
    "while_loop",
    "while_loop_carries",
    "wrap",
    "wrap_with_autocast",
    "wrap_with_set_grad_enabled",
]
# Where they are is written once, in the list of `polyop.ops.higher_order`.
__getattr__, __dir__ = lazily(
    __name__, {name: place for name, place in PROVIDED.items() if place.startswith(__name__)}
)

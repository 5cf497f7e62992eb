"""Higher-order operators: operators that take functions, and what they are made of."""

from polyop.dispatch.implementations import TransformType
from polyop.hop.derived import SubgraphOperator
from polyop.hop.functionalize_api import FunctionalizeAPI, FunctionalTensorMode
from polyop.hop.operator import HigherOrderOperator
from polyop.hop.register import register_higher_order
from polyop.hop.rules import Interpreter, register_fake
from polyop.hop.schema import HopSchemaGenerator
from polyop.hop.subgraph import record_call, trace_subgraph

__all__ = [
    "FunctionalTensorMode",
    "FunctionalizeAPI",
    "HigherOrderOperator",
    "HopSchemaGenerator",
    "Interpreter",
    "SubgraphOperator",
    "TransformType",
    "record_call",
    "register_fake",
    "register_higher_order",
    "trace_subgraph",
]

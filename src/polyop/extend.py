"""`polyop.extend`: for builders of modes, transforms, compilers and backends."""

from typing import TYPE_CHECKING

from polyop.dispatch.dumps import (
    dispatch_check_invariants,
    dispatch_dump,
    dispatch_dump_table,
)
from polyop.dispatch.guards import (
    below_autograd,
    below_views,
    enable_python_dispatcher,
    exclude_keys,
    excluded_keys,
    force_keys,
    include_keys,
    included_keys,
    preserve_keys,
)
from polyop.dispatch.implementations import (
    TransformType,
    get_cached_ops,
    reset_cached_ops,
)
from polyop.dispatch.keys import (
    DispatchKey,
    backends_of_autograd,
    functionality_of,
    is_alias_key,
    is_included_in_alias,
    key_for_device,
    parse_key,
    rename_backend,
)
from polyop.dispatch.keyset import (
    DispatchKeySet,
    after_autograd_keys,
    after_view_keys,
    full_keyset,
)
from polyop.dispatch.modes import (
    DispatchMode,
    current_dispatch_mode,
    disable_current_modes,
    dispatch_mode_stack,
    is_in_dispatch_mode,
    pop_mode_temporarily,
)
from polyop.dispatch.operator import OperatorBase, OpOverload, OpOverloadPacket
from polyop.dispatch.readers import keys_of, resolve_key
from polyop.dispatch.resolve import LAYERS, Layer, Way, tensor_keys
from polyop.dispatch.table import has_fallback
from polyop.lazy import lazily
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.parse import parse_schema

if TYPE_CHECKING:
    from polyop.dispatch.index_cuts import Chunks, Placement, Sharding
    from polyop.dispatch.index_signature import IndexSignature, index_of
    from polyop.dispatch.infra_modes import ModeKey, infra_mode
    from polyop.dispatch.layouts import layout_of
    from polyop.dispatch.pre_dispatch import (
        current_mode_pre_dispatch,
        get_mode_pre_dispatch,
        len_mode_stack_pre_dispatch,
        pop_mode_pre_dispatch,
        set_mode_pre_dispatch,
        unset_mode_pre_dispatch,
    )
    from polyop.dispatch.python_key import disabled_dispatch
    from polyop.graph.purity import is_impure
    from polyop.hop import (
        FunctionalizeAPI,
        HigherOrderOperator,
        HopSchemaGenerator,
        SubgraphOperator,
        register_higher_order,
        trace_subgraph,
    )
    from polyop.layers.logging_mode import LoggingMode, LoggingTensor
    from polyop.layers.payloads import payload_route
    from polyop.layers.schema_check import SchemaCheckMode
    from polyop.layers.trace.proxy import ProxyMode
    from polyop.objects import with_effects
    from polyop.payloads.libraries import library_of
    from polyop.schema.predicates import (
        fill_defaults,
        get_device_arg_index,
        has_kwarg_only_args,
        has_kwarg_only_tensors,
        has_tensor_arg,
        is_functional_schema,
        is_tensor_like_type,
        is_tensorlist_like_type,
        mutated_args_kwargs,
        zip_schema,
    )
    from polyop.tensor.subclass import (
        is_traceable_wrapper_subclass,
        make_subclass,
        make_wrapper_subclass,
        no_dispatch,
        return_and_correct_aliasing,
    )

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Chunks": "polyop.dispatch.index_cuts",
        "Placement": "polyop.dispatch.index_cuts",
        "Sharding": "polyop.dispatch.index_cuts",
        "library_of": "polyop.payloads.libraries",
        "payload_route": "polyop.layers.payloads",
        "IndexSignature": "polyop.dispatch.index_signature",
        "index_of": "polyop.dispatch.index_signature",
        "ModeKey": "polyop.dispatch.infra_modes",
        "infra_mode": "polyop.dispatch.infra_modes",
        "disabled_dispatch": "polyop.dispatch.python_key",
        "current_mode_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "get_mode_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "len_mode_stack_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "pop_mode_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "set_mode_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "unset_mode_pre_dispatch": "polyop.dispatch.pre_dispatch",
        "is_traceable_wrapper_subclass": "polyop.tensor.subclass",
        "make_subclass": "polyop.tensor.subclass",
        "make_wrapper_subclass": "polyop.tensor.subclass",
        "no_dispatch": "polyop.tensor.subclass",
        "return_and_correct_aliasing": "polyop.tensor.subclass",
        "LoggingMode": "polyop.layers.logging_mode",
        "LoggingTensor": "polyop.layers.logging_mode",
        "SchemaCheckMode": "polyop.layers.schema_check",
        "ProxyMode": "polyop.layers.trace.proxy",
        "FunctionalizeAPI": "polyop.hop",
        "HigherOrderOperator": "polyop.hop",
        "HopSchemaGenerator": "polyop.hop",
        "SubgraphOperator": "polyop.hop",
        "is_impure": "polyop.graph.purity",
        "layout_of": "polyop.dispatch.layouts",
        "register_higher_order": "polyop.hop",
        "trace_subgraph": "polyop.hop",
        "fill_defaults": "polyop.schema.predicates",
        "get_device_arg_index": "polyop.schema.predicates",
        "has_kwarg_only_args": "polyop.schema.predicates",
        "has_kwarg_only_tensors": "polyop.schema.predicates",
        "has_tensor_arg": "polyop.schema.predicates",
        "is_functional_schema": "polyop.schema.predicates",
        "is_tensor_like_type": "polyop.schema.predicates",
        "is_tensorlist_like_type": "polyop.schema.predicates",
        "mutated_args_kwargs": "polyop.schema.predicates",
        "zip_schema": "polyop.schema.predicates",
        "with_effects": "polyop.objects",
    },
)

__all__ = [
    "LAYERS",
    "Argument",
    "Chunks",
    "DispatchKey",
    "DispatchKeySet",
    "DispatchMode",
    "FunctionSchema",
    "FunctionalizeAPI",
    "HigherOrderOperator",
    "HopSchemaGenerator",
    "IndexSignature",
    "Layer",
    "LoggingMode",
    "LoggingTensor",
    "ModeKey",
    "OpOverload",
    "OpOverloadPacket",
    "OperatorBase",
    "Placement",
    "ProxyMode",
    "SchemaCheckMode",
    "Sharding",
    "SubgraphOperator",
    "TransformType",
    "Way",
    "after_autograd_keys",
    "after_view_keys",
    "backends_of_autograd",
    "below_autograd",
    "below_views",
    "current_dispatch_mode",
    "current_mode_pre_dispatch",
    "disable_current_modes",
    "disabled_dispatch",
    "dispatch_check_invariants",
    "dispatch_dump",
    "dispatch_dump_table",
    "dispatch_mode_stack",
    "enable_python_dispatcher",
    "exclude_keys",
    "excluded_keys",
    "fill_defaults",
    "force_keys",
    "full_keyset",
    "functionality_of",
    "get_cached_ops",
    "get_device_arg_index",
    "get_mode_pre_dispatch",
    "has_fallback",
    "has_kwarg_only_args",
    "has_kwarg_only_tensors",
    "has_tensor_arg",
    "include_keys",
    "included_keys",
    "index_of",
    "infra_mode",
    "is_alias_key",
    "is_functional_schema",
    "is_impure",
    "is_in_dispatch_mode",
    "is_included_in_alias",
    "is_tensor_like_type",
    "is_tensorlist_like_type",
    "is_traceable_wrapper_subclass",
    "key_for_device",
    "keys_of",
    "layout_of",
    "len_mode_stack_pre_dispatch",
    "library_of",
    "make_subclass",
    "make_wrapper_subclass",
    "mutated_args_kwargs",
    "no_dispatch",
    "parse_key",
    "parse_schema",
    "payload_route",
    "pop_mode_pre_dispatch",
    "pop_mode_temporarily",
    "preserve_keys",
    "register_higher_order",
    "rename_backend",
    "reset_cached_ops",
    "resolve_key",
    "return_and_correct_aliasing",
    "set_mode_pre_dispatch",
    "tensor_keys",
    "trace_subgraph",
    "unset_mode_pre_dispatch",
    "with_effects",
    "zip_schema",
]

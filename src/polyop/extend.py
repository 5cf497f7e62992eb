"""`polyop.extend`: for builders of modes, transforms, compilers and backends."""

from polyop.dispatch.guards import (
    below_autograd,
    below_views,
    exclude_keys,
    excluded_keys,
    force_keys,
    include_keys,
    included_keys,
    preserve_keys,
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
from polyop.dispatch.resolve import LAYERS, Layer, Way, tensor_keys
from polyop.dispatch.table import has_fallback, resolve_key
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.parse import parse_schema

__all__ = [
    "LAYERS",
    "Argument",
    "DispatchKey",
    "DispatchKeySet",
    "DispatchMode",
    "FunctionSchema",
    "Layer",
    "OpOverload",
    "OpOverloadPacket",
    "OperatorBase",
    "Way",
    "after_autograd_keys",
    "after_view_keys",
    "backends_of_autograd",
    "below_autograd",
    "below_views",
    "current_dispatch_mode",
    "disable_current_modes",
    "dispatch_mode_stack",
    "exclude_keys",
    "excluded_keys",
    "force_keys",
    "full_keyset",
    "functionality_of",
    "has_fallback",
    "include_keys",
    "included_keys",
    "is_alias_key",
    "is_in_dispatch_mode",
    "is_included_in_alias",
    "key_for_device",
    "parse_key",
    "parse_schema",
    "pop_mode_temporarily",
    "preserve_keys",
    "rename_backend",
    "resolve_key",
    "tensor_keys",
]

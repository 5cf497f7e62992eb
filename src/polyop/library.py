"""`polyop.library`: make operators, register their rules, and check them (S57)."""

from typing import TYPE_CHECKING

from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.library_functions import define, impl
from polyop.dispatch.rules import (
    get_kernel,
    register_autocast,
    register_autograd,
    register_dispatch,
    register_fake,
    register_jvp,
    register_kernel,
    register_samples,
    register_vmap,
)
from polyop.dispatch.table import fallthrough_kernel
from polyop.lazy import lazily
from polyop.schema.infer import infer_schema
from polyop.schema.tags import Tag

if TYPE_CHECKING:
    from polyop.bridges.padded import padded
    from polyop.checking import opcheck
    from polyop.checking.capabilities import capabilities
    from polyop.checking.explain import explain
    from polyop.dispatch.chunk_rule import register_chunks
    from polyop.dispatch.decompositions import (
        DecompTable,
        get_decompositions,
        register_decomposition,
    )
    from polyop.dispatch.index_signature import register_index
    from polyop.layers.fake import get_ctx
    from polyop.objects.effects import EffectType, has_effects, register_effect
    from polyop.objects.fake_classes import register_fake_class
    from polyop.objects.types import register_opaque_type
    from polyop.ops.decompositions import core_decompositions
    from polyop.schema.opaque import MemberType

__getattr__, __dir__ = lazily(
    __name__,
    {
        "DecompTable": "polyop.dispatch.decompositions",
        "EffectType": "polyop.objects.effects",
        "MemberType": "polyop.schema.opaque",
        "capabilities": "polyop.checking.capabilities",
        "core_decompositions": "polyop.ops.decompositions",
        "explain": "polyop.checking.explain",
        "get_ctx": "polyop.layers.fake",
        "get_decompositions": "polyop.dispatch.decompositions",
        "has_effects": "polyop.objects.effects",
        "opcheck": "polyop.checking",
        "padded": "polyop.bridges.padded",
        "register_chunks": "polyop.dispatch.chunk_rule",
        "register_decomposition": "polyop.dispatch.decompositions",
        "register_effect": "polyop.objects.effects",
        "register_fake_class": "polyop.objects.fake_classes",
        "register_index": "polyop.dispatch.index_signature",
        "register_opaque_type": "polyop.objects.types",
    },
)

register_torch_dispatch = register_dispatch

__all__ = [
    "CustomOpDef",
    "DecompTable",
    "EffectType",
    "Library",
    "MemberType",
    "Tag",
    "capabilities",
    "core_decompositions",
    "custom_op",
    "define",
    "explain",
    "fallthrough_kernel",
    "get_ctx",
    "get_decompositions",
    "get_kernel",
    "has_effects",
    "impl",
    "infer_schema",
    "opcheck",
    "padded",
    "register_autocast",
    "register_autograd",
    "register_chunks",
    "register_decomposition",
    "register_dispatch",
    "register_effect",
    "register_fake",
    "register_fake_class",
    "register_index",
    "register_jvp",
    "register_kernel",
    "register_opaque_type",
    "register_samples",
    "register_torch_dispatch",
    "register_vmap",
    "scoped_library",
]

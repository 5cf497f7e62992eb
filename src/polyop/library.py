"""`polyop.library`: make operators, register their rules, and check them (S57)."""

from typing import TYPE_CHECKING

from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.library import (
    Library,
    define,
    fallthrough_kernel,
    impl,
    scoped_library,
)
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
from polyop.lazy import lazily
from polyop.schema.infer import infer_schema
from polyop.schema.tags import Tag

if TYPE_CHECKING:
    from polyop.checking import opcheck
    from polyop.layers.fake import get_ctx

__getattr__, __dir__ = lazily(
    __name__, {"get_ctx": "polyop.layers.fake", "opcheck": "polyop.checking"}
)

register_torch_dispatch = register_dispatch

__all__ = [
    "CustomOpDef",
    "Library",
    "Tag",
    "custom_op",
    "define",
    "fallthrough_kernel",
    "get_ctx",
    "get_kernel",
    "impl",
    "infer_schema",
    "opcheck",
    "register_autocast",
    "register_autograd",
    "register_dispatch",
    "register_fake",
    "register_jvp",
    "register_kernel",
    "register_samples",
    "register_torch_dispatch",
    "register_vmap",
    "scoped_library",
]

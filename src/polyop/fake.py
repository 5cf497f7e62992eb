"""Fake tensors: shapes and dtypes without data."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.layers.fake import FakeTensorMode, get_ctx

__all__ = ["FakeTensorMode", "get_ctx"]
__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "polyop.layers.fake"))

"""Fake tensors: shapes and dtypes without data."""

from polyop.layers.fake import FakeTensorMode, get_ctx

__all__ = ["FakeTensorMode", "get_ctx"]

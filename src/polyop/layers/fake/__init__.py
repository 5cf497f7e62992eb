"""Fake tensors: calls that compute shapes, dtypes, strides and devices, and no data."""

from polyop.layers.fake.handlers import FakeLayer, MetaLayer
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.fake.rule import RuleContext, get_ctx

__all__ = ["FakeLayer", "FakeTensorMode", "MetaLayer", "RuleContext", "get_ctx"]

"""The laws; importing this registers them in the order in which they are tried."""

from polyop.checking.laws import schema, index, pointwise  # isort: skip
from polyop.checking.laws import decomposition, gradient, fake, trace, batching  # isort: skip
from polyop.checking.laws import layouts, autocast, determinism, serialisation  # isort: skip

__all__ = [
    "autocast",
    "batching",
    "decomposition",
    "determinism",
    "fake",
    "gradient",
    "index",
    "layouts",
    "pointwise",
    "schema",
    "serialisation",
    "trace",
]

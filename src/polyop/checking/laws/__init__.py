"""The laws; importing this registers them in the order in which they are tried."""

from polyop.checking.laws import schema, index  # isort: skip
from polyop.checking.laws import gradient, fake, trace, batching  # isort: skip
from polyop.checking.laws import layouts, autocast, determinism, serialisation  # isort: skip

__all__ = [
    "autocast",
    "batching",
    "determinism",
    "fake",
    "gradient",
    "index",
    "layouts",
    "schema",
    "serialisation",
    "trace",
]

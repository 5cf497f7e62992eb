"""The laws; importing this registers them in the order in which they are tried."""

from polyop.checking.laws import schema  # isort: skip
from polyop.checking.laws import gradient, fake, trace, batching  # isort: skip
from polyop.checking.laws import layouts, determinism, serialisation  # isort: skip

__all__ = [
    "batching",
    "determinism",
    "fake",
    "gradient",
    "layouts",
    "schema",
    "serialisation",
    "trace",
]

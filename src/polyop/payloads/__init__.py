"""Payloads of other array libraries: the same operators and layers over each."""

from polyop.payloads.api import from_array, to_array
from polyop.payloads.exchange import from_numpy, to_numpy
from polyop.payloads.libraries import library_of
from polyop.payloads.library import Library

__all__ = ["Library", "from_array", "from_numpy", "library_of", "to_array", "to_numpy"]

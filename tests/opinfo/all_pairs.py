"""All pairs, and which published operators have none."""

from __future__ import annotations

import tests.opinfo.algebra
import tests.opinfo.along
import tests.opinfo.making
import tests.opinfo.pointwise
import tests.opinfo.shapes  # noqa: F401
from tests.opinfo.pair import PAIRS, Pair

import polyop.assembly  # noqa: F401

__all__ = ["PAIRS", "Pair"]

"""Dask's functions, of which only a part says its types."""

from __future__ import annotations

from typing import Any

import dask.array
import dask.array.utils
from dask import delayed as _delayed  # type: ignore[attr-defined]

da: Any = dask.array
meta_from_array: Any = dask.array.utils.meta_from_array
delayed: Any = _delayed

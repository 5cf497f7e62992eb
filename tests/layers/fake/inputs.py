"""Arguments for any built-in operator, drawn from its schema."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import polyop.assembly  # noqa: F401
from polyop.devices import DTYPES
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.ops import differences, factorizations, fourier, matrices  # noqa: F401
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, of_array

BUILT_IN = sorted(name for name in DEFINITIONS if name.startswith("core::"))


#: Parts of gradients, which are only called with arguments that belong together.
PARTS_OF_GRADIENTS = {"clip_part", "deviation", "last_put", "peaks"}


def operators() -> list[OpOverload]:
    """List the built-in operators whose results do not depend on data."""
    found = [DEFINITIONS[name].op for name in BUILT_IN]
    dynamic = {Tag.dynamic_output_shape, Tag.data_dependent_output}
    return [
        op for op in found if not dynamic & set(op.tags) and op._opname not in PARTS_OF_GRADIENTS
    ]


ARRAYS: list[Callable[[], Any]] = [
    lambda: np.linspace(0.5, 2, 12, dtype="float32").reshape(3, 4),
    lambda: np.linspace(0.5, 2, 12, dtype="float64").reshape(4, 3).T,
    lambda: np.linspace(0.5, 2, 9, dtype="float32").reshape(3, 3),
    lambda: np.linspace(0.5, 2, 24, dtype="float32").reshape(6, 4)[::2],
    lambda: np.arange(12, dtype="int64").reshape(3, 4) % 3,
    lambda: np.arange(3, dtype="int64"),
    lambda: np.arange(12).reshape(3, 4) % 2 == 0,
    lambda: np.linspace(0.5, 2, 4, dtype="float32"),
    lambda: np.zeros((0, 4), "float32"),
    lambda: np.full((), 1.5, "float32"),
    lambda: np.broadcast_to(np.linspace(0.5, 2, 4, dtype="float32"), (3, 4)).copy(),
    lambda: np.linspace(0.5, 2, 24, dtype="float32").reshape(2, 3, 4).transpose(2, 0, 1),
    lambda: (np.linspace(0.5, 2, 12) + 1j).reshape(3, 4),
]


def draw(rng: random.Random, op: OpOverload) -> list[Any]:
    """Draw a value for each argument; it need not fit."""
    favourite = rng.choice(ARRAYS)
    if any(a.name in {"axis", "axes"} for a in op._schema.arguments) and not favourite().ndim:
        favourite = ARRAYS[0]  # without axes there is none to name
    return [_value(rng, str(a.type), leaf_kind(a.type), favourite) for a in op._schema.arguments]


def _tensor(rng: random.Random, favourite: Callable[[], Any]) -> Tensor:
    return of_array((favourite if rng.random() < 0.7 else rng.choice(ARRAYS))())


def _value(rng: random.Random, text: str, kind: str, favourite: Callable[[], Any]) -> Any:
    if kind == "tensor":
        return _tensor(rng, favourite)
    if kind == "tensor?":
        return _tensor(rng, favourite) if rng.random() < 0.7 else None
    if kind in {"tensor[]", "tensor?[]"}:
        return [_tensor(rng, favourite) for _ in range(rng.randint(1, 3))]
    if text.endswith("?") and rng.random() < 0.4:
        return None
    base = text.removesuffix("?")
    if base.endswith("]"):
        choices = [[3, 4], [12], [0], [1], [2, 3, 4], [4, 3], [1, 0], [3], [-1], [0, 4], []]
        return list(rng.choice(choices))
    return {
        "int": lambda: rng.choice([0, 1, -1, 2]),
        "SymInt": lambda: rng.choice([0, 1, 2, 3]),
        "float": lambda: rng.choice([0.0, 1.5]),
        "bool": lambda: rng.random() < 0.5,
        "Scalar": lambda: rng.choice([2, 1.5, True]),
        "ScalarType": lambda: rng.choice([DTYPES["float64"], DTYPES["int64"], DTYPES["bool"]]),
        "str": lambda: "ij",
    }.get(base, lambda: None)()


def call(op: OpOverload, values: list[Any]) -> Any:
    """Call with keyword-only arguments by name."""
    n = len(op._schema.positional)
    return op.entry(
        *values[:n], **{a.name: v for a, v in zip(op._schema.keyword_only, values[n:], strict=True)}
    )

"""Calls of every built-in operator, made from its schema or taken from the other tests' cases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from tests.ops import cases, linear_cases

import polyop
from polyop.devices import Device
from polyop.dispatch.registry import DEFINITIONS
from polyop.schema.tags import Tag

polyop.ops.core  # noqa: B018 - all built-in operators are defined


class Sample(NamedTuple):
    """One call: arrays in the place of tensors, all arguments in schema order."""

    op: Any
    args: tuple[Any, ...]
    #: How results are compared: "values", or "facts" (shape and dtype alone).
    by: str = "values"

    def __str__(self) -> str:
        return f"{self.op.name()}({', '.join(map(_text, self.args))})"


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else repr(value)


FLOATS = [0.0, 1.0, -1.0, 0.5, 2.5, np.nan, np.inf, -np.inf, -0.0, 3.0, -7.25, 0.125]
WHOLE = [0, 1, 2, 3, -1, 5, -3, 7, 4, 0, 2, 6]


def array(dtype: str, shape: tuple[int, ...], turn: int = 0) -> Any:
    """Make an array of interesting numbers."""
    kind = np.dtype(dtype).kind
    n = int(np.prod(shape))
    if kind == "c":
        rng = np.random.default_rng(turn)
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    line = np.roll(
        np.array(FLOATS if kind == "f" else np.abs(WHOLE) if kind == "u" else WHOLE), turn
    )
    return np.resize(line, n).astype(dtype).reshape(shape)


ONE = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")
PAIRS = (
    ("float32", "float32"), ("int32", "float32"), ("int64", "float64"), ("bool", "int8"),
    ("uint8", "int8"), ("float32", "float64"), ("complex64", "float32"), ("bool", "bool"),
    ("int8", "int8"), ("uint8", "uint8"), ("int64", "int64"), ("float16", "float32"),
)  # fmt: skip
SHAPES = (((3, 4), (4,), (3, 1)), ((), (2,), ()), ((0, 3), (1, 3), (3,)))
NUMBERS = (2, -1, 2.5, 0, True, 1j)


def pointwise(op: Any, few: bool) -> Iterator[Sample]:
    """Make calls of a pointwise operator."""
    types = [str(a.type) for a in op._schema.arguments]
    tensors = sum(t.startswith("Tensor") for t in types)
    combos = [(d,) for d in ONE] if tensors == 1 else [(*p, p[0]) for p in PAIRS]
    shapes = SHAPES[:1] if few else SHAPES
    numbers = NUMBERS[:3] if few else NUMBERS
    scalar = any(t.startswith("Scalar") and not t.startswith("ScalarType") for t in types)
    for dtypes, sizes, number in product(combos, shapes, numbers if scalar else (2,)):
        yield Sample(op, tuple(_filled(op, types, dtypes, sizes, number)))


def _filled(op: Any, types: list[str], dtypes: Any, shapes: Any, number: Any) -> Iterator[Any]:
    place = 0
    for argument, text in zip(op._schema.arguments, types, strict=True):
        if text.startswith("Tensor"):
            dtype = "bool" if argument.name in {"condition", "mask"} else dtypes[place]
            yield array(dtype, shapes[place], place)
            place += 1
        elif text.startswith("ScalarType"):
            yield np.dtype("float64")
        elif text.startswith("Scalar"):
            yield number
        elif argument.name == "part":
            yield "inside"
        else:
            yield argument.default_value


F34 = array("float32", (3, 4), 1)
S33 = np.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 5]])
CIRCLE = np.exp(1j * np.arange(6.0)).reshape(2, 3)
MASK = np.array([[True, False, True, False]] * 3)
MORE: dict[str, list[tuple[Any, ...]]] = {
    "argwhere": [(MASK,)], "batch_numbers": [(F34, 3, 2)], "contiguous_copy": [(F34.T,)],
    "cumulative_sum": [(np.arange(6, dtype="int32").reshape(2, 3), 1, None, False),
                       (F34, 0, np.dtype("float64"), False)],
    "real_part": [(CIRCLE,), (CIRCLE.T,)], "imag_part": [(CIRCLE,), (np.array(1 + 2j),)],
    "detach": [(F34,)], "expand_to": [(F34, [2, 3, 4])], "sum_to": [(F34, [1, 4]), (F34, [4])],
    "empty_like": [], "full_like": [(F34, 2.5, None, None), (F34, 3, np.dtype("int16"), None)],
    "ones_like": [(F34, None, None), (F34, np.dtype("int32"), None)],
    "zeros_like": [(F34, None, None), (F34, np.dtype("bool"), None)],
    "to_device": [(F34, Device("cpu")), (F34.T, Device("cpu"))],
    "zero_like": [(F34,)], "zero_of": [(F34, [2, 2])], "mean_or_zero": [(F34[:, :1], [1], False)],
    "prod_others": [(np.arange(1.0, 13).reshape(3, 4), None)],
    "unique_all": [(np.array([3, 1, 3, 2]),)], "unique_counts": [(np.array([3, 1, 3]),)],
    "unique_inverse": [(np.array([3, 1, 3]),)], "unique_values": [(np.array([3, 1, 3]),)],
    "contiguous": [(F34,), (F34.T,)],
    "alias": [(F34,)], "take_along_axis": [(F34, np.array([[0, -1], [1, 2], [-4, 3]]), 1)],
    "eigvalsh": [(S33,), (S33.astype("complex128"),)], "qr": [(S33, "reduced")],
    "copy": [(np.zeros((2, 3), "int32"), np.array([1.5, 2.5, -3.5]))],
    "index": [(F34, [np.array([0, -1], "int8")]), (F34, [np.array([9])]),
              (F34, [None, np.array([-5])])],
    "last_put": [(F34, [np.array([0, 0, 2])]), (F34, [None, np.array([[1, -1], [3, 1]])])],
    "last_put_along_axis": [(F34, np.array([[0, -1, 0], [1, 2, 3], [-4, 0, 1]]), 1)],
    "index_put": [(F34, [np.array([0, 7])], np.float32([1, 2, 3, 4]), False)],
    "sum": [(np.array([[True, False]]), None, None, False), (np.zeros((0, 3)), [0], None, False),
            (np.arange(5, dtype="uint8"), [0], None, True), (F34, [], None, False),
            (F34, [2], None, False),
            (array("float16", (3, 4), 3), [1], None, False), (np.array(2.5), [0], None, False)],
    "max": [(np.zeros((0, 3)), [0], False), (F34, [-1], True), (MASK, [0], False),
            (F34, [], False)],
    "mean": [(np.arange(6).reshape(2, 3), [1], False), (array("float16", (3, 4), 9), [0], False)],
    "any": [(F34, None, False), (np.zeros((0, 2)), [0], True)], "all": [(F34, [1], False)],
    "argmax": [(F34, 1, False), (np.zeros((2, 0)), 1, False)],
    "sort": [(F34, -1, False, True), (np.array([3, 1, 2], "uint8"), 0, True, True)],
    "argsort": [(F34, -1, True, True)],
    "matmul": [(np.ones((2, 3), "int32"), np.ones((3,), "float32")), (np.ones((2, 3)), np.ones(2)),
               (MASK, MASK.T), (np.zeros((2, 0)), np.zeros((0, 3)))],
    "concat": [([np.ones(2, "int8"), np.ones(3, "float32")], 0)],
    "reshape": [(F34, [5, -1]), (F34.T, [12])], "permute_dims": [(F34, [0])],
    "broadcast_to": [(F34, [2, 4])], "select": [(F34, 0, 3), (F34, 5, 0)],
    "slice": [(F34, 1, 0, 4, 0)],
    "inv": [(np.zeros((2, 2)),)], "cholesky_lower": [(-S33,)],
    "solve_matrix": [(np.zeros((2, 2)), np.ones((2, 1)))],
    "tril": [(F34, 1)], "triu": [(F34, -1)], "stack": [([F34, F34], 1)],
    "transpose": [(F34, 0, -1)], "norm2": [(F34[:, :1], None, False)],
    "softmax": [(array("float32", (3, 4), 5)[:, 3:], 0)], "pad": [(F34, [1, 0], [0, 2], 1.5)],
    "std": [(np.arange(6).reshape(2, 3), None, 1.0, False)],
}  # fmt: skip
#: Whose results are random, or whatever memory held.
FACTS = {"bernoulli", "empty_like", "normal", "normal_", "uniform", "uniform_"}


def others(op: Any) -> Iterator[Sample]:
    """Give calls that are written down for an operator."""
    name = op.name().removeprefix("core::")
    for args in MORE.get(name, []):
        yield Sample(op, args)
    if name == "bernoulli":
        yield Sample(op, (np.full((3,), 0.5), None), "facts")
    if name == "empty_like":
        yield Sample(op, (F34, None, None), "facts")
    if name.rstrip("_") in {"normal", "uniform"}:
        yield Sample(op, (F34.copy(), 0.0, 1.0, None), "facts")
    if name == "index_put_":
        yield Sample(op, (F34.copy(), [np.array([0, 2])], np.float32([1, 2, 3, 4]), True))


def _cases() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for case in [*linear_cases.VIEWS, *linear_cases.OTHERS]:
        full = list(case.args)
        for argument in case.op._schema.arguments[len(full) :]:
            full.append(argument.default_value)
        found.setdefault(case.op.name(), []).append(Sample(case.op, tuple(full)))
    for item in cases.CASES:
        for dtype in ("float64", "float32"):
            sample = Sample(item.op, tuple(item.values(dtype=dtype)))
            found.setdefault(item.op.name(), []).append(sample)
    return found


CASES = _cases()


def samples_of(op: Any, few: bool = False) -> list[Sample]:
    """Give the calls of an operator."""
    given = [*others(op), *CASES.get(op.name(), [])]
    if few:
        given = given[:4]
    if Tag.pointwise in op.tags and op.name() not in CASES:
        given += pointwise(op, few)
    return given


def operators() -> list[Any]:
    """Give the built-in operators that take tensors."""
    found = [d.op for d in DEFINITIONS.values() if d.op.name().startswith("core::")]
    return [op for op in found if any("Tensor" in str(a.type) for a in op._schema.arguments)]

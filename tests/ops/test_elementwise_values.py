"""Pointwise operators against PyTorch: values, and the gradients of their texts."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from tests.ops.formulas import gradient, operator, overloads, torch_gradients

import polyop.assembly  # noqa: F401
from polyop.ops import comparison
from polyop.tensor.tensor import of_array

FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")

#: Operators of one tensor: their PyTorch function if named otherwise, and an interval inside
#: which real numbers are in the domain.
UNARY: dict[str, tuple[Any, float, float]] = {
    "abs": (torch.abs, -3, 3), "acos": (torch.acos, -0.9, 0.9), "acosh": (torch.acosh, 1.1, 4),
    "angle": (torch.angle, -3, 3), "asin": (torch.asin, -0.9, 0.9),
    "asinh": (torch.asinh, -3, 3), "atan": (torch.atan, -3, 3),
    "atanh": (torch.atanh, -0.9, 0.9), "ceil": (torch.ceil, -3, 3),
    "clone": (torch.clone, -3, 3), "conj": (torch.conj_physical, -3, 3),
    "cos": (torch.cos, -3, 3), "cosh": (torch.cosh, -3, 3), "exp": (torch.exp, -3, 3),
    "exp2": (torch.exp2, -3, 3), "expm1": (torch.expm1, -3, 3), "floor": (torch.floor, -3, 3),
    "imag": (torch.imag, -3, 3), "log": (torch.log, 0.1, 4), "log10": (torch.log10, 0.1, 4),
    "log1p": (torch.log1p, -0.9, 4), "log2": (torch.log2, 0.1, 4),
    "nan_to_num": (torch.nan_to_num, -3, 3), "negative": (torch.neg, -3, 3),
    "positive": (torch.positive, -3, 3), "real": (torch.real, -3, 3),
    "reciprocal": (torch.reciprocal, 0.2, 4), "relu": (torch.relu, -3, 3),
    "round": (torch.round, -3, 3), "rsqrt": (torch.rsqrt, 0.2, 4),
    "sigmoid": (torch.sigmoid, -30, 30), "sign": (torch.sgn, -3, 3), "sin": (torch.sin, -3, 3),
    "sinh": (torch.sinh, -3, 3), "softplus": (torch.nn.functional.softplus, -10, 10),
    "sqrt": (torch.sqrt, 0.1, 4), "square": (torch.square, -3, 3), "tan": (torch.tan, -1.4, 1.4),
    "tanh": (torch.tanh, -3, 3), "trunc": (torch.trunc, -3, 3),
}  # fmt: skip
#: Those that PyTorch or NumPy has for real numbers only.
REAL_ONLY = {"ceil", "exp2", "floor", "nan_to_num", "relu", "softplus", "trunc", "round"}
#: PyTorch has no imaginary part of real numbers.
COMPLEX_ONLY = {"imag"}

BINARY: dict[str, tuple[Any, float, float]] = {
    "add": (torch.add, -3, 3), "atan2": (torch.atan2, -3, 3), "copysign": (torch.copysign, -3, 3),
    "divide": (torch.div, 0.3, 3), "fmod": (torch.fmod, 0.3, 3), "hypot": (torch.hypot, -3, 3),
    "logaddexp": (torch.logaddexp, -3, 3), "maximum": (torch.maximum, -3, 3),
    "minimum": (torch.minimum, -3, 3), "multiply": (torch.mul, -3, 3), "pow": (torch.pow, 0.2, 3),
    "remainder": (torch.remainder, 0.3, 3), "subtract": (torch.sub, -3, 3),
}  # fmt: skip
BINARY_COMPLEX = {"add", "divide", "logaddexp", "multiply", "pow", "subtract"}
#: NumPy compares complex numbers by their parts in turn; PyTorch does not compare them.
ORDERED = {"maximum", "minimum"}
#: Both take a number on either side in PyTorch.
NUMBER_RIGHT = {"add", "copysign", "divide", "fmod", "multiply", "pow", "remainder", "subtract"}


def generator(*seed: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(seed).encode()))


def numbers(rng: Any, shape: tuple[int, ...], dtype: str, low: float, high: float) -> Any:
    """Random numbers; complex ones lie in the same square of the plane."""
    x = rng.uniform(low, high, shape)
    if dtype in COMPLEX:
        x = x + 1j * rng.uniform(-2, 2, shape)
    return x.astype(dtype)


def close(a: Any, b: Any, dtype: str) -> None:
    fine = dtype in {"float64", "complex128"}
    np.testing.assert_allclose(a, b, rtol=1e-9 if fine else 2e-4, atol=1e-10 if fine else 1e-5)


def compare(op: Any, fn: Any, values: dict[str, Any], dtype: str, rng: Any) -> None:
    """Compare the result and every gradient with PyTorch's."""
    arrays = {k: of_array(v) if isinstance(v, np.ndarray) else v for k, v in values.items()}
    with np.errstate(all="ignore"):
        r = op(*arrays.values()).payload
    g = numbers(rng, r.shape, str(r.dtype), -2, 2)
    theirs, grads = torch_gradients(fn, g, values)
    assert r.dtype == theirs.dtype
    close(r, theirs, dtype)
    for name, wanted in grads.items():
        close(gradient(op, name, g, r, values), wanted, dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
@pytest.mark.parametrize("name", UNARY)
def test_unary_equals_torch(name: str, dtype: str) -> None:
    """An operator of one tensor has PyTorch's values and gradients."""
    fn, low, high = UNARY[name]
    if name in (REAL_ONLY if dtype in COMPLEX else COMPLEX_ONLY):
        return  # the fakes' tests say which dtypes NumPy refuses
    rng = generator(name, dtype)
    compare(operator(name), fn, {"x": numbers(rng, (40,), dtype, low, high)}, dtype, rng)


@pytest.mark.parametrize("name", [n for n in UNARY if n not in COMPLEX_ONLY | {"positive"}])
def test_unary_gradients_at_special_points(name: str) -> None:
    """Where a function has a kink or a pole its gradient is PyTorch's."""
    fn = UNARY[name][0]
    points = np.array([0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -2.5, 2.0])
    values = {"x": np.abs(points) + 1 if name == "acosh" else points}
    r = np.asarray(quiet(operator(name), values["x"]))
    g = np.linspace(0.5, 2.0, 8)
    _, grads = torch_gradients(fn, g, values)
    close(gradient(operator(name), "x", g, r, values), grads["x"], "float64")


def quiet(op: Any, *arrays: Any) -> Any:
    with np.errstate(all="ignore"):
        return op(*map(of_array, arrays)).payload


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
@pytest.mark.parametrize("name", BINARY)
def test_binary_equals_torch(name: str, dtype: str) -> None:
    """An operator of two tensors, which broadcast, has PyTorch's values and gradients."""
    fn, low, high = BINARY[name]
    if dtype in COMPLEX and name not in BINARY_COMPLEX | ORDERED:
        with pytest.raises(TypeError):
            operator(name)(of_array(np.ones(2, dtype)), of_array(np.ones(2, dtype)))
        return
    if dtype in COMPLEX and name in ORDERED:
        return
    rng = generator(name, dtype)
    a, b = numbers(rng, (5, 1, 4), dtype, low, high), numbers(rng, (3, 4), dtype, low, high)
    compare(operator(name), fn, {"a": a, "b": b}, dtype, rng)


@pytest.mark.parametrize("name", sorted(NUMBER_RIGHT))
@pytest.mark.parametrize("number", [2.0, 3, 0.7, 1])
def test_a_number_on_the_right_equals_torch(name: str, number: float) -> None:
    """A number beside a tensor has no dtype of its own."""
    fn, low, high = BINARY[name]
    for dtype in FLOATS:
        rng = generator(name, dtype)
        values = {"a": numbers(rng, (9,), dtype, low, high), "b": number}
        compare(operator(name, "Scalar"), fn, values, dtype, rng)


@pytest.mark.parametrize("number", [2.0, 3, 0.5, 0, 1.5 + 1j])
def test_a_number_to_the_power_of_a_tensor(number: Any) -> None:
    """The gradient of the exponent is PyTorch's, for a base of zero too."""
    for dtype in (*FLOATS, *COMPLEX):
        rng = generator(dtype)
        b = numbers(rng, (9,), dtype, 0.2, 3)
        # PyTorch has NaN for a complex power of zero, whose gradient is zero.
        if dtype in COMPLEX if number == 0 else dtype in FLOATS and isinstance(number, complex):
            continue
        compare(operator("pow", "ScalarTensor"), torch.pow, {"a": number, "b": b}, dtype, rng)


@pytest.mark.parametrize("name", [n for n in BINARY if n not in {"divide", "fmod", "remainder"}])
def test_binary_gradients_at_special_points(name: str) -> None:
    """At ties, zeros and edges the gradients are PyTorch's."""
    points = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -2.0])
    a, b = (m.ravel() for m in np.meshgrid(points, points))
    if name == "pow":
        a = np.abs(a)  # a negative base has no real logarithm
    r, g = quiet(operator(name), a, b), np.linspace(0.5, 2.0, a.size)
    _, grads = torch_gradients(BINARY[name][0], g, {"a": a, "b": b})
    for x, wanted in grads.items():
        close(gradient(operator(name), x, g, r, {"a": a, "b": b}), wanted, "float64")


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
def test_products_in_threes_equal_torch(dtype: str) -> None:
    """`lerp`, `addcmul` and `addcdiv` have PyTorch's values and gradients."""
    rng = generator(dtype)
    x, y, z = (numbers(rng, shape, dtype, 0.5, 2) for shape in ((3, 4), (4,), (3, 1)))
    names = ("a", "b", "weight")
    compare(operator("lerp"), torch.lerp, dict(zip(names, (x, y, z), strict=True)), dtype, rng)
    compare(operator("lerp", "Scalar"), torch.lerp, {"a": x, "b": y, "weight": 0.3}, dtype, rng)
    for name in ("addcmul", "addcdiv"):
        theirs = getattr(torch, name)
        values = {"x": x, "a": y, "b": z}
        value = 1.5

        def ours(*arrays: Any, name: str = name, value: float = value) -> Any:
            return operator(name)(*arrays, value=value)

        r = ours(*map(of_array, values.values())).payload
        g = numbers(rng, r.shape, dtype, -2, 2)
        wanted, grads = torch_gradients(lambda *t: theirs(*t, value=value), g, values)
        close(r, wanted, dtype)
        for k, grad in grads.items():
            text = {**values, "value": value}
            close(gradient(operator(name), k, g, r, text), grad, dtype)


def test_where_and_masked_fill_equal_torch() -> None:
    """What is not chosen gets no gradient."""
    rng = generator("where")
    c = rng.random((3, 4)) > 0.5
    a, b = numbers(rng, (4,), "float64", -1, 1), numbers(rng, (3, 1), "float64", -1, 1)
    values = {"condition": c, "a": a, "b": b}
    compare(operator("where"), torch.where, values, "float64", rng)
    compare(operator("where", "ScalarB"), torch.where, {**values, "b": 2.0}, "float64", rng)
    compare(operator("where", "ScalarA"), torch.where, {**values, "a": 2.0}, "float64", rng)
    x = numbers(rng, (3, 4), "float64", -1, 1)
    filled = {"x": x, "mask": c, "value": np.array(3.0)}
    compare(operator("masked_fill"), torch.masked_fill, filled, "float64", rng)
    filled["value"] = 3
    compare(operator("masked_fill", "Scalar"), torch.masked_fill, filled, "float64", rng)


@pytest.mark.parametrize("sides", [(-0.5, 0.5), (None, 0.5), (-0.5, None), (0.5, -0.5)])
def test_clip_equals_torch(sides: tuple[Any, Any]) -> None:
    """An element on the edge keeps its gradient, and sides in the wrong order give `max`."""
    rng = generator("clip")
    x = np.concatenate([rng.uniform(-1, 1, 20), [-0.5, 0.5]])
    numbers_ = dict(zip(("min", "max"), sides, strict=True))
    compare(operator("clip", "Scalar"), torch.clamp, {"x": x, **numbers_}, "float64", rng)
    arrays = {k: None if v is None else np.full(22, v) for k, v in numbers_.items()}
    compare(operator("clip"), torch.clamp, {"x": x, **arrays}, "float64", rng)


def test_nan_to_num_equals_torch() -> None:
    """NaN and the infinities become numbers, and pass no gradient."""
    for dtype in FLOATS:
        x = np.array([np.nan, np.inf, -np.inf, 1.5, -0.0], dtype)
        compare(operator("nan_to_num"), torch.nan_to_num, {"x": x}, dtype, generator(dtype))
        given = {"x": x, "nan": 1.0, "posinf": 2.0, "neginf": None}
        compare(operator("nan_to_num"), torch.nan_to_num, given, dtype, generator(dtype))


def test_sigmoid_and_softplus_do_not_overflow() -> None:
    """Elements far from zero give no warning: warnings are errors here."""
    x = of_array(np.array([-1e4, -800.0, 0.0, 800.0, 1e4]))
    assert operator("sigmoid")(x).payload.tolist() == [0, 0, 0.5, 1, 1]
    assert operator("softplus")(x).payload.tolist() == [0, 0, np.log(2), 800, 1e4]


@pytest.mark.parametrize("name", "equal not_equal less less_equal greater greater_equal".split())
def test_comparisons_equal_torch(name: str) -> None:
    """A comparison gives bools, NaN and infinities included."""
    points = np.array([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf])
    a, b = points[:, None], points[None, :]
    theirs = getattr(torch, {"equal": "eq", "not_equal": "ne"}.get(name, name))
    found = operator(name)(of_array(a), of_array(b)).payload
    wanted = theirs(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert found.dtype == np.bool_
    assert (found == wanted).all()
    assert (operator(name)(of_array(points), 1).payload == found[:, 2]).all()
    assert (operator(name)(1, of_array(points)).payload == found[2]).all()


@pytest.mark.parametrize("name", "and or xor left_shift right_shift".split())
def test_bitwise_operators_equal_torch(name: str) -> None:
    """Bits are combined as PyTorch combines them."""
    rng = generator(name)
    for dtype in ("int8", "int32", "int64", "uint8"):
        a = rng.integers(0, 100, (5, 1)).astype(dtype)
        b = rng.integers(0, 6, (4,)).astype(dtype)
        found = operator(f"bitwise_{name}")(of_array(a), of_array(b)).payload
        wanted = getattr(torch, f"bitwise_{name}")(torch.from_numpy(a), torch.from_numpy(b))
        assert found.dtype == a.dtype
        assert (found == wanted.numpy()).all()


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logical_operators_equal_torch(name: str) -> None:
    """Anything but zero is true."""
    a, b = np.array([[0.0], [2.0]]), np.array([0, 3])
    found = operator(name)(of_array(a), of_array(b)).payload
    wanted = getattr(torch, name)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert (found == wanted).all()


def test_every_differentiable_operator_has_a_gradient() -> None:
    """An operator without a gradient gives bools, or has none in PyTorch either."""
    without = {op.name() for op in overloads() if op.rule("formula") is None}
    bools = {f"core::{n}" for n in vars(comparison) if hasattr(vars(comparison)[n], "op")}
    bools |= {"core::nextafter", "core::clip_part", "core::where.Scalars"}
    packets = {name for name in without if name not in bools}
    assert {name.partition(".")[0] for name in packets} <= bools
    assert len(overloads()) - len(without) > 80

"""Python's numbers beside `bfloat16` and its kin: they leave an array's dtype what it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop import Tensor, errors
from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.func import grad, jvp, vmap

SMALL = [polyop.bfloat16, polyop.float8_e4m3fn]
NUMBERS = [0.1, 3, -2.7]


def with_numbers() -> Iterator[OpOverload]:
    """Give the pointwise operators of tensors and numbers that write nothing."""
    for found in DEFINITIONS.values():
        op = found.op
        types = [str(a.type) for a in op._schema.arguments]
        plain = {"Tensor", "Scalar", "Scalar?", "str"}.issuperset(types)
        if op.is_builtin and polyop.Tag.pointwise in op.tags and plain:
            number = any(t.startswith("Scalar") for t in types) and "Tensor" in types
            fits = "bitwise" not in op.name() and op.name() != "core::where.Scalars"
            if number and fits and not op._schema.is_mutable:
                yield op


def arguments(op: OpOverload, dtype: Any, number: Any) -> list[Any]:
    """Give tensors and the number, and where there is a choice, bools."""
    x = polyop.asarray([0.5, 1.5, 3.0]).astype(dtype)
    given: list[Any] = []
    for a in op._schema.arguments:
        choice = a.name in {"condition", "mask"}
        tensor = polyop.asarray([True, False, True]) if choice else x
        given.append(tensor if str(a.type) == "Tensor" else number)
        if str(a.type) == "str":
            given[-1] = "inside"
    return given


@pytest.mark.parametrize("dtype", SMALL, ids=str)
@pytest.mark.parametrize("op", list(with_numbers()), ids=lambda op: op.name())
def test_a_number_is_one_of_the_dtype(op: OpOverload, dtype: Any) -> None:
    """S134: beside a small float a number is what an array of that dtype would hold."""
    for number in NUMBERS:
        given = arguments(op, dtype, number)
        with np.errstate(all="ignore"):
            found: Tensor = dispatch(op, given)
            assert found.dtype in {dtype, polyop.bool}
            if op._opname not in {"masked_fill", "fill"} and not op._schema.keyword_only:
                as_array = polyop.asarray(number).astype(dtype)
                wanted = getattr(polyop.ops.core, op._opname)(
                    *[as_array if x is number else x for x in given]
                )
                assert wide(found) == pytest.approx(wide(wanted), nan_ok=True)
        with polyop.fake.FakeTensorMode() as mode:
            fakes = [mode.from_tensor(x) if isinstance(x, Tensor) else x for x in given]
            assert dispatch(op, fakes).dtype == found.dtype


def wide(x: Tensor) -> Any:
    return x.astype(polyop.float32).tolist()


@pytest.mark.parametrize(
    "name", ["add", "multiply", "subtract", "maximum", "divide", "pow", "atan2"]
)
def test_as_jax_has_it(name: str) -> None:
    """S134: dtype and values of JAX, whose numbers are weak as well, from both sides."""
    mine = getattr(polyop, name)
    theirs = getattr(jnp, {"pow": "power"}.get(name, name))
    x, y = polyop.asarray([0.5, 1.5]).astype(polyop.bfloat16), jnp.asarray([0.5, 1.5], jnp.bfloat16)
    for number in NUMBERS:
        for a, b in (((x, number), (y, number)), ((number, x), (number, y))):
            with np.errstate(all="ignore"):
                found, wanted = mine(*a), theirs(*b)
            assert (found.dtype.name, wanted.dtype.name) == ("bfloat16", "bfloat16")
            np.testing.assert_allclose(
                found.astype(polyop.float32).numpy(), np.asarray(wanted, "f4"), rtol=1e-2
            )


def test_transforms_keep_it() -> None:
    """S134: gradients, tangents and batches of such a call are of the small dtype."""
    x = polyop.asarray([0.5, 1.5]).astype(polyop.bfloat16)

    def scaled(x: Tensor) -> Tensor:
        return polyop.where(x > 1, x * 0.5, 0.1) + polyop.clip(x, 0.0, 1.0) ** 2.0

    assert grad(lambda x: scaled(x).sum())(x).dtype is polyop.bfloat16
    assert grad(lambda x: scaled(x).sum())(x).astype(polyop.float32).tolist() == [1.0, 0.5]
    assert {t.dtype for t in jvp(scaled, (x,), (x,))} == {polyop.bfloat16}
    assert vmap(scaled)(x).dtype is polyop.bfloat16
    assert polyop.compile(scaled)(x).dtype is polyop.bfloat16


def test_other_dtypes_are_numpys() -> None:
    """S134: numbers beside integers and complex numbers promote as NumPy says."""
    whole = polyop.asarray([1, 2])
    assert (whole * 0.5).dtype is polyop.float64
    assert (whole * 2).dtype is polyop.int64
    x = polyop.asarray([0.5]).astype(polyop.bfloat16)
    assert (x * 1j).dtype.kind == "c"
    with pytest.raises((TypeError, errors.PolyopError)):
        polyop.bitwise_and(x, 1.5)


def test_writes_take_no_memory() -> None:
    """S25: a number is written into an array by the ufunc itself, with no result between."""
    x = polyop.zeros(1 << 20, dtype=polyop.float64)
    tracemalloc.start()
    for write in (x.add_, x.mul_, x.sub_, x.div_):
        write(2.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 8
    small = polyop.asarray([0.5, 1.5]).astype(polyop.bfloat16)
    assert small.add_(0.1).dtype is polyop.bfloat16
    assert small.mul_(2).astype(polyop.float32).tolist() == pytest.approx([1.2, 3.2], rel=1e-2)


WRITES = {
    **{n: lambda x, z, n=n: getattr(x, n)(z) for n in ("add_", "sub_", "mul_", "div_", "pow_")},
    "number": lambda x, z: x.add_(1j),
    "lerp": lambda x, z: polyop.ops.core.lerp_(x, z, 0.5),
    "addcmul": lambda x, z: polyop.ops.core.addcmul_(x, x, x, value=1j),
    "clip": lambda x, z: polyop.ops.core.clip_(x, z, None),
    "product": lambda x, z: x.__imatmul__(z),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("dtype", [*SMALL, polyop.float32], ids=str)
def test_no_float_takes_complex_numbers(dtype: Any, name: str) -> None:
    """S63: a write of complex numbers is refused, by kernels, fakes and gradients.

    NumPy says of small floats that they hold them.
    """
    z = polyop.asarray([[1 + 2j, 3], [1j, 2]]).astype(polyop.complex64)
    write = WRITES[name]
    x = polyop.ones(2, 2).astype(dtype)
    with pytest.raises(errors.ArgumentError, match="cannot be written"):
        write(x, z)
    assert x.tolist() == [[1, 1], [1, 1]]
    with polyop.fake.FakeTensorMode(), pytest.raises(errors.ArgumentError, match="be written"):
        write(polyop.ones(2, 2).astype(dtype), polyop.ones(2, 2).astype(polyop.complex64))

    def written(y: Tensor) -> Any:
        return polyop.real(write(y.astype(dtype) * 1, z)).sum()

    with pytest.raises(errors.ArgumentError, match="be written"):
        grad(written)(polyop.ones(2, 2))

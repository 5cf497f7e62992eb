"""Dtypes: promotion, casting, limits, and what may be asked of them."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.standard.arrays import (
    ALL,
    COMPLEX,
    FLOATING,
    INTEGERS,
    NUMERIC,
    arrays,
    examined,
    into,
    pairs_of,
    promoted,
    quiet,
    same,
)

import polyop as xp

KINDS = [
    "bool", "signed integer", "unsigned integer", "integral", "real floating",
    "complex floating", "numeric", (), ("bool", "integral"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ALL)
def test_dtypes_are_compared_and_hashed(dtype: str) -> None:
    """A dtype is equal to itself, as a bool, and to no other; it can be a key."""
    ours = getattr(xp, dtype)
    for other in ALL:
        assert (ours == getattr(xp, other)) is (dtype == other)
        assert (ours != getattr(xp, other)) is (dtype != other)
    assert {ours: 1}[xp.ones(1, dtype=ours).dtype] == 1


@examined
@given(pairs_of(ALL))
def test_result_type(pair: tuple[str, str]) -> None:
    """Dtypes and arrays, of any shape, promote by the standard's table."""
    one, other = (getattr(xp, name) for name in pair)
    wanted = promoted(*pair)
    x, y = xp.ones(2, dtype=one), xp.ones((), dtype=other)
    for given_ in ((one, other), (x, other), (one, y), (x, y), (y, x), (x, y, one)):
        assert xp.result_type(*given_) == wanted


@pytest.mark.parametrize("dtype", ALL)
def test_result_type_of_numbers(dtype: str) -> None:
    """A Python number of the array's kind, or a lower one, leaves its dtype."""
    ladder: list[Any] = [1, 1.5, 1j]
    kind = np.dtype(dtype).kind
    fits = [True] if kind == "b" else ladder[: {"i": 1, "u": 1, "f": 2, "c": 3}[kind]]
    for number in fits:
        assert xp.result_type(getattr(xp, dtype), number) == dtype
        assert xp.result_type(number, xp.ones(1, dtype=dtype)) == dtype
    with pytest.raises(ValueError, match="at least one"):
        xp.result_type(*fits)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_isdtype(kind: Any) -> None:
    """Kinds, dtypes, and tuples of both, which may be empty."""
    for dtype in ALL:
        found = xp.isdtype(getattr(xp, dtype), kind)
        assert found is strict.isdtype(getattr(strict, dtype), kind)
        assert xp.isdtype(getattr(xp, dtype), (kind, getattr(xp, dtype))) is True
        assert xp.isdtype(dtype=getattr(xp, dtype), kind=xp.int8) is (dtype == "int8")
    with pytest.raises(ValueError, match="no such kind"):
        xp.isdtype(xp.int8, "nonsense")


@examined
@given(st.data())
def test_can_cast_and_astype(data: Any) -> None:
    """Every value becomes NumPy's; `copy=False` gives the array itself where it may."""
    one, other = (data.draw(st.sampled_from(ALL)) for _ in range(2))
    if one in COMPLEX and other not in COMPLEX:
        other = one
    x = data.draw(arrays(one, special=False))
    if np.dtype(other).kind == "u":
        x = np.asarray(np.abs(x))
    for given_ in (getattr(xp, one), into(x)):
        assert xp.can_cast(given_, getattr(xp, other)) is np.can_cast(one, other)
    ours = into(x)
    wanted = quiet(x.astype, other)
    for copy in (True, False):
        same(quiet(xp.astype, ours, np.dtype(other), copy=copy), wanted)
    same(quiet(xp.astype, ours, np.dtype(other), device=ours.device), wanted)
    assert xp.astype(ours, ours.dtype, copy=False) is ours
    assert not np.may_share_memory(xp.astype(ours, ours.dtype).numpy(), ours.numpy())


@pytest.mark.parametrize("dtype", FLOATING)
def test_finfo(dtype: str) -> None:
    """Limits are Python numbers; those of complex numbers are their parts'."""
    wanted = np.finfo(dtype)
    for given_ in (getattr(xp, dtype), xp.ones(1, dtype=dtype)):
        found = xp.finfo(given_)
        for name in ("eps", "max", "min", "smallest_normal"):
            value = getattr(found, name)
            assert (type(value), value) == (float, float(getattr(wanted, name)))
        assert (type(found.bits), found.bits) == (int, wanted.bits)
        assert found.dtype == wanted.dtype
    for name in INTEGERS:
        with pytest.raises(TypeError):
            xp.finfo(getattr(xp, name))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_iinfo(dtype: str) -> None:
    """Limits of integers are Python's."""
    wanted = np.iinfo(dtype)
    for given_ in (getattr(xp, dtype), xp.ones(1, dtype=dtype)):
        found = xp.iinfo(given_)
        assert (found.bits, found.max, found.min) == (wanted.bits, wanted.max, wanted.min)
        assert {type(found.bits), type(found.max), type(found.min)} == {int}
        assert found.dtype == dtype
    for name in FLOATING:
        with pytest.raises(TypeError):
            xp.iinfo(getattr(xp, name))


@examined
@given(st.data())
def test_broadcasting(data: Any) -> None:
    """`broadcast_arrays` takes any number of arrays; `broadcast_to` one and a shape."""
    dtype = data.draw(st.sampled_from(NUMERIC))
    shapes = data.draw(st.sampled_from([[], [(2,)], [(3,), (2, 1)], [(), (2,)], [(0, 1), (3,)]]))
    found = xp.broadcast_arrays(*[xp.ones(s, dtype=dtype) for s in shapes])
    wanted = np.broadcast_shapes(*shapes)
    assert [(x.shape, x.dtype) for x in found] == [(wanted, dtype)] * len(shapes)
    x = data.draw(arrays(dtype, st.sampled_from([(), (1,), (3,), (2, 1)])))
    same(xp.broadcast_to(into(x), shape=(0, 2, 3)), np.broadcast_to(x, (0, 2, 3)))
    for fn in (lambda: xp.broadcast_to(xp.ones(2), (3,)), lambda: xp.ones(2) + xp.ones(3)):
        with pytest.raises(ValueError, match="broadcast"):
            fn()

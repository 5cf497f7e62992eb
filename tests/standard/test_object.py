"""The array object and the namespace: attributes, conversions, devices, DLPack, inspection."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import array_api
from tests.standard.arrays import ALL, SHAPES, arrays, examined, into, quiet, same

import polyop as xp

VERSIONS = ["2021.12", "2022.12", "2023.12", "2024.12"]
CONVERSIONS = [bool, int, float, complex, operator.index]


@examined
@given(st.data())
def test_attributes(data: Any) -> None:
    """`dtype`, `device`, `ndim`, `shape`, `size`, `T` and `mT` are those of NumPy's array."""
    dtype = data.draw(st.sampled_from(ALL))
    x = data.draw(arrays(dtype))
    ours = into(x)
    assert (ours.dtype, ours.ndim, ours.shape, ours.size) == (x.dtype, x.ndim, x.shape, x.size)
    assert (type(ours.shape), type(ours.size), type(ours.ndim)) == (tuple, int, int)
    assert ours.device == xp.__array_namespace_info__().default_device()
    if x.ndim == 2:
        same(ours.T, x.T)
    if x.ndim > 1:
        same(ours.mT, x.mT)
    else:
        with pytest.raises(ValueError, match="two axes"):
            _ = ours.mT


@pytest.mark.parametrize("convert", CONVERSIONS)
@examined
@given(st.data())
def test_conversions_to_python(convert: Any, data: Any) -> None:
    """An array without axes becomes a Python number where NumPy's does, else the same error."""
    dtype = data.draw(st.sampled_from(ALL))
    x = data.draw(arrays(dtype, ()))
    try:
        wanted = convert(x)
    except (TypeError, ValueError, OverflowError) as error:
        with pytest.raises(type(error)):
            convert(into(x))
        return
    found = convert(into(x))
    assert type(found) is type(wanted)
    assert found == wanted or found != found


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_conversions_of_several_elements_are_refused(convert: Any) -> None:
    """An array of several elements, or none, is no number."""
    for n in (2, 0):
        with pytest.raises((TypeError, ValueError)):
            convert(xp.ones(n, dtype=xp.int64))


@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_the_namespace_in_each_version(version: str | None) -> None:
    """`__array_namespace__` gives polyop for each version that there has been until 2024.12."""
    assert xp.ones(1).__array_namespace__(api_version=version) is xp


@pytest.mark.parametrize("version", ["2020.12", "2099.12", "", 2024])
def test_other_versions_are_refused(version: Any) -> None:
    """Another version is an error that names those that are answered."""
    with pytest.raises(ValueError, match=r"2024\.12"):
        xp.ones(1).__array_namespace__(api_version=version)


def test_inspection() -> None:
    """Capabilities, defaults and dtypes are dictionaries with the standard's keys."""
    info = xp.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64,
    }  # fmt: skip
    assert xp.zeros((1,) * 64).ndim == 64
    assert info.default_device() in info.devices()
    for device in (None, info.default_device(), *info.devices()):
        assert set(info.default_dtypes(device=device)) == {
            "real floating", "complex floating", "integral", "indexing",
        }  # fmt: skip
        assert info.dtypes(device=device) == {name: getattr(xp, name) for name in ALL}
        assert info.dtypes(device=device, kind="bool") == {"bool": xp.bool}
    assert info.dtypes(kind=()) == {}
    for kind in ("nonsense", ("bool", "nonsense")):
        with pytest.raises(ValueError, match="no such kind"):
            info.dtypes(kind=kind)


def test_every_device_that_is_listed_holds_data() -> None:
    """Programs loop over `devices()` and compute there."""
    for device in xp.__array_namespace_info__().devices():
        x = xp.ones((2,), device=device)
        assert bool(xp.all(x.to_device(device) + xp.asarray(1.0, device=device) == 2))
        assert x.device == device


def test_to_device() -> None:
    """The same device gives the same elements; one that is none is an error."""
    x = xp.arange(3)
    for device in (x.device, "cpu"):
        same(x.to_device(device, stream=None), np.arange(3))
    with pytest.raises(ValueError, match="no device"):
        x.to_device("nowhere")
    with pytest.raises(ValueError, match="no device"):
        xp.ones(1, device="nowhere")


def test_dlpack_of_a_tensor() -> None:
    """The capsule is versioned for who knows versions; another device or a stream is refused."""
    x = xp.ones(2)
    assert x.__dlpack_device__() == (1, 0)
    assert "versioned" in repr(x.__dlpack__(max_version=(1, 0), copy=True))
    assert "versioned" not in repr(x.__dlpack__(stream=None, dl_device=(1, 0), copy=False))
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(ValueError, match="no streams"):
        x.__dlpack__(stream=1)


@examined
@given(st.data())
def test_iteration_and_length(data: Any) -> None:
    """Arrays with axes have a length and are iterated along the first one."""
    x = data.draw(arrays("int64", SHAPES))
    if x.ndim:
        assert len(into(x)) == len(x)
        for ours, theirs in zip(into(x), x, strict=True):
            same(ours, theirs)
        return
    for fn in (len, iter):
        with pytest.raises(TypeError):
            fn(into(x))


xps = array_api.make_strategies_namespace(xp, api_version="2024.12")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hypothesis_draws_arrays_of_ours(data: Any) -> None:
    """Hypothesis's own strategies for the standard make tensors, without a warning."""
    dtype = data.draw(xps.scalar_dtypes())
    shape = data.draw(xps.array_shapes(min_dims=0, min_side=0))
    x = data.draw(xps.arrays(dtype, shape))
    assert (type(x), x.dtype, x.shape) == (xp.Tensor, dtype, shape)
    key = data.draw(xps.indices(shape, allow_newaxis=True))
    same(x[key], x.numpy()[key])
    number = data.draw(xps.from_dtype(dtype))
    quiet(x.__setitem__, key, number)
    assert quiet(operator.eq, x, number).dtype == xp.bool

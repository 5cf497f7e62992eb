"""Gradients of complex numbers: every operator that takes them, beside finite differences."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import AutogradError, MissingGradientError, PolyopError

core = polyop.ops.core
rng = np.random.default_rng(0)
#: Arguments beside the tensors: none, an axis, axes.
EXTRAS: tuple[tuple[Any, ...], ...] = ((), (1,), ([1],))
#: Made for gradients alone, of arguments that fit each other.
PARTS = {"last_put_along_axis", "matmul_left", "matmul_right", "scatter_along_axis"}
NAMES = sorted(n for n in {*dir(core)} - PARTS if not n.startswith("_") and not n.endswith("_"))
STEP = 1e-6


def _numbers(shape: Any) -> Any:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _floating(results: Any) -> list[Tensor]:
    every = results if isinstance(results, (tuple, list)) else [results]
    return [t for t in every if isinstance(t, Tensor) and t.dtype.kind in "fc"]


def _slope(fn: Any, arrays: list[Any], place: int, weights: list[Any]) -> Any:
    """Give the conjugated gradient of `Re(sum(conj(w) * fn))` for one argument, by differences."""

    def value(moved: Any) -> float:
        given = [moved if i == place else a for i, a in enumerate(arrays)]
        results = _floating(fn(*map(polyop.from_numpy, given)))
        return sum(
            float(np.sum(w.conj() * t.numpy()).real) for w, t in zip(weights, results, strict=True)
        )

    found = np.zeros(arrays[place].shape, complex)
    for at in np.ndindex(*found.shape):
        for turn in (1, 1j):
            step = np.zeros(found.shape, complex)
            step[at] = STEP * turn
            rise = value(arrays[place] + step) - value(arrays[place] - step)
            found[at] += turn * rise / (2 * STEP)
    return found


def _takes(fn: Any, arrays: list[Any]) -> bool:
    """Tell whether an operator computes finite numbers of complex ones, and has a gradient."""
    try:
        results = _floating(fn(*[polyop.from_numpy(a.copy()).requires_grad_() for a in arrays]))
    except (PolyopError, TypeError, ValueError):
        return False
    finite = all(np.isfinite(t.detach().numpy()).all() for t in results)
    return bool(results) and finite and all(t.requires_grad for t in results)


def _calls(name: str) -> Iterator[tuple[Any, list[Any]]]:
    """Give calls of an operator that compute finite complex numbers: a function, and its arrays."""
    for count in (1, 2):
        for extra in EXTRAS:
            arrays = [_numbers((2, 2)) for _ in range(count)]

            def fn(*tensors: Any, extra: Any = extra) -> Any:
                return getattr(core, name)(*tensors, *extra)

            if _takes(fn, arrays):
                yield fn, arrays


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_of_each_operator(name: str) -> None:
    """S124: the gradient of a complex argument is the conjugated derivative."""
    for fn, arrays in _calls(name):
        inputs = [polyop.from_numpy(a.copy()).requires_grad_() for a in arrays]
        results = _floating(fn(*inputs))
        weights = [
            _numbers(t.shape) if t.dtype.kind == "c" else rng.normal(size=t.shape) for t in results
        ]
        try:
            grads = polyop.autograd.grad(
                results, inputs, [polyop.from_numpy(w) for w in weights], allow_unused=True
            )
        except MissingGradientError:
            continue
        except AutogradError as error:  # of factors with a free phase
            assert "phases" in str(error)
            continue
        for place, grad in enumerate(grads):
            found = np.zeros((2, 2)) if grad is None else grad.numpy()
            wanted = _slope(fn, arrays, place, weights)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_of_a_dtype_that_is_another_object(name: str) -> None:
    """S124: an array of a pickle has an equal dtype that is not the same object."""
    for fn, arrays in _calls(name):
        found = []
        for given in (arrays, pickle.loads(pickle.dumps(arrays))):
            inputs = [polyop.from_numpy(a).requires_grad_() for a in given]
            results = _floating(fn(*inputs))
            try:
                grads = polyop.autograd.grad(
                    results, inputs, [t.detach() * 1 for t in results], allow_unused=True
                )
            except (AutogradError, MissingGradientError):
                continue
            found.append([None if g is None else g.numpy() for g in grads])
        assert len(found) in {0, 2}
        for one, other in zip(*found, strict=True) if found else ():
            np.testing.assert_array_equal(one, other)

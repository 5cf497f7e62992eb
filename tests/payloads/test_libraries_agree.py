"""Every built-in operator gives over each library what it gives over NumPy."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.payloads.conftest import MADE, routes
from tests.payloads.pair import difference, tensor_of
from tests.payloads.samples import operators, samples_of

import polyop
from polyop import from_array, to_array, tree
from polyop.dispatch.bind import dispatch
from polyop.errors import PolyopError
from polyop.layers.payloads import answers, payload_route
from polyop.payloads.libraries import library_of

OPERATORS = operators()
FAMILIES = 24
#: Compiling each call, or cutting it into tasks, takes its time: fewer calls of each operator.
SLOW = {"jax", "dask"}


EDGES = [0.0, -0.0, 1, -1, 0.5, 2.5, np.nan, np.inf, -np.inf, 3, -7.25, 0.1, 1e30, -1e-30]
REAL = ("floor_divide", "remainder", "fmod", "pow", "divide", "maximum", "minimum", "atan2",
        "hypot", "logaddexp", "nextafter", "copysign", "less", "equal")  # fmt: skip


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_pairs_of_edges(library: Any, name: str, dtype: str) -> None:
    """S66: zeros, infinities, NaN and large numbers meet each other as over NumPy."""
    a, b = (x.ravel() for x in np.meshgrid(*[np.array(EDGES, dtype)] * 2))
    op = getattr(polyop, name)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = op(polyop.from_numpy(a), polyop.from_numpy(b)).numpy()
        found = op(tensor_of(library, a), tensor_of(library, b)).numpy()
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_signs_of_complex_edges(library: Any, dtype: str) -> None:
    """S66: where one part is infinite, the sign is that part's, and small numbers have one."""
    small = [] if library.name == "jax" else [1e-39 if dtype == "complex64" else 1e-309]
    x = np.array([complex(a, b) for a in EDGES + small for b in EDGES + small], dtype)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = polyop.sign(tensor_of(library, x)).numpy()
        wanted = polyop.sign(polyop.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_sign_of_zero_has_no_gradient() -> None:
    """S66: of PyTorch's own tensors too, by its own gradients."""
    x = torch.tensor([0j, 3 + 4j], requires_grad=True)
    polyop.sign(x).real.sum().backward()
    theirs = torch.tensor([0j, 3 + 4j], requires_grad=True)
    torch.sgn(theirs).real.sum().backward()
    assert torch.allclose(x.grad, theirs.grad)


def test_every_operator_is_sampled() -> None:
    """No built-in operator that takes tensors is left out."""
    missing = [op.name() for op in OPERATORS if not samples_of(op, few=True)]
    assert not missing


@pytest.mark.parametrize("part", range(FAMILIES))
def test_results_are_those_of_numpy(library: Any, part: int) -> None:
    """S66: values, dtypes, shapes and refusals over a library are those over NumPy."""
    few = library.name in SLOW
    differences = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zeros and overflows, from other libraries' threads
        for op in OPERATORS[part::FAMILIES]:
            samples = samples_of(op, few=few)
            for sample in samples[:: 14 if few and len(samples) > 10 else 1]:
                text = difference(sample, library)
                if text:
                    differences.append(f"{sample}: {text}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("name", sorted(MADE))
def test_routes_can_be_asked(name: str) -> None:
    """Each operator has one of the routes over each library, and most are native."""
    counts = routes(name)
    assert set(counts) <= {"native", "decomposed", "exchange", "task"}
    assert counts["native"] > sum(counts.values()) * 0.8
    assert counts["exchange"] < sum(counts.values()) * 0.1


def test_what_is_native_is_computed_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator whose route is native is not computed by the exchange in disguise."""
    library = library_of(MADE["torch"]())
    calls: Counter[str] = Counter()
    through: Counter[str] = Counter()
    exchanged = answers.exchanged

    def counting(request: Any, *rest: Any) -> Any:
        through[request.plan.op.name()] += 1
        return exchanged(request, *rest)

    monkeypatch.setattr(answers, "exchanged", counting)
    for op in OPERATORS:
        if payload_route(op, "torch") == "native":
            for sample in samples_of(op, few=True):
                calls[op.name()] += 1
                difference(sample, library)
    shifts = ("shift", "nan_to_num", "reciprocal", "fmod")  # of integers, whose kernels say so
    always = [n for n in through if through[n] >= calls[n] and not any(s in n for s in shifts)]
    assert not always


#: Native kernels of these leave integers, or all but the simplest call, to the exchange.
NEEDS_DATA = {
    *("bitwise_left_shift", "bitwise_right_shift", "bitwise_left_shift_", "bitwise_right_shift_"),
}


def traced(sample: Any) -> bool:
    """Tell whether a call runs on tracers."""
    places = [i for i, a in enumerate(sample.args) if isinstance(a, np.ndarray)]

    def run(*arrays: Any) -> Any:
        args = list(sample.args)
        for i, array in zip(places, arrays, strict=True):
            args[i] = from_array(array)
        args = [a if not isinstance(a, list) else [_held(x) for x in a] for a in args]
        return [to_array(t) for t in tree.leaves(dispatch(sample.op, args))]

    try:
        jax.make_jaxpr(run)(*[jnp.asarray(sample.args[i]) for i in places])
    except PolyopError:
        return False
    return True


def _held(value: Any) -> Any:
    return from_array(jnp.asarray(value)) if isinstance(value, np.ndarray) else value


def test_native_kernels_run_on_tracers() -> None:
    """Each operator whose route is native or decomposed runs under a trace of JAX, without data."""
    failed = []
    for op in OPERATORS:
        name = op.name().removeprefix("core::").partition(".")[0]
        if payload_route(op, "jax") in {"native", "decomposed"} and name not in NEEDS_DATA:
            samples = samples_of(op, few=True)
            floats = [s for s in samples if all(_is_float(a) for a in tree.leaves(s.args))]
            if not any(traced(s) for s in [*floats[:3], *samples[:20]]):
                failed.append(op.name())
    assert not failed


def _is_float(value: Any) -> bool:
    return not isinstance(value, np.ndarray) or value.dtype.kind == "f"

"""Runs a consumer's calls under its own array-API switch; prints what is wrong with each as JSON.

The switch, SCIPY_ARRAY_API, is read when SciPy is first imported: so this is a program of its
own. Each call is made three times: with NumPy arrays, which is the oracle; with tensors; and with
tensors that a gradient flows to, by `backward` and by `func.grad`, against finite differences.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import numpy as np

import polyop
from polyop.errors import PolyopError

Scope = Mapping[str, Any]

SCIPY = "cluster.hierarchy cluster.vq differentiate fft integrate ndimage optimize signal special"
SCIPY_NAMES = [*SCIPY.split(), "stats", "optimize.elementwise", "spatial.transform"]
SKLEARN_NAMES = """decomposition linear_model discriminant_analysis naive_bayes preprocessing
mixture metrics metrics.pairwise model_selection pipeline kernel_approximation""".split()


def scipy_scope() -> dict[str, Any]:
    """The modules of SciPy, and arrays."""
    modules = {name.split(".")[-1]: import_module(f"scipy.{name}") for name in SCIPY_NAMES}
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {n: rng.uniform(0.2, 2, (4, 5)) for n in "xy"}
    arrays |= {n: rng.uniform(0.2, 2, 7) for n in "vw"}
    arrays |= {"m": rng.uniform(0.2, 2, (4, 4)), "q": rng.uniform(0.2, 1.2, (4, 3))}
    arrays |= {"s": np.cumsum(rng.uniform(0.2, 1, 7)), "p": rng.uniform(0.1, 0.9, 6)}
    return {**modules, "Rotation": modules["transform"].Rotation, **arrays}


def sklearn_scope() -> dict[str, Any]:
    """All that scikit-learn's modules have, and arrays."""
    names: dict[str, Any] = {}
    for module in SKLEARN_NAMES:
        names |= vars(import_module(f"sklearn.{module}"))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    t = X @ np.array([1.0, 2, -1, 0.5]) + 0.1 * rng.normal(size=30)
    arrays: dict[str, Any] = {
        "X": X, "K": X @ X.T, "A": np.abs(X[:5]), "B": np.abs(X[5:10]), "t": t,
        "u": t + 0.2 * rng.normal(size=30), "v": np.abs(t) + 0.1, "w": np.abs(t) + 0.5,
        "c": (X[:, 0] + 0.3 * X[:, 1] > 0).astype(np.int64), "d": rng.integers(0, 2, 30),
        "p": rng.uniform(0.1, 0.9, 30),
    }  # fmt: skip
    return names | arrays


def switched(consumer: str) -> Any:
    """The consumer's own switch."""
    if consumer == "scipy":
        return nullcontext()
    return import_module("sklearn").config_context(array_api_dispatch=True)


def evaluate(text: str, scope: Scope, arrays: Scope = {}) -> list[Any]:
    """The leaves of the results of a call."""
    return list(leaves(eval(text, {**scope, **arrays})))


def leaves(value: Any) -> Iterator[Any]:
    """Results in tuples, lists and records."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from leaves(part)
    elif hasattr(value, "__dict__") and hasattr(value, "statistic"):
        yield from (value.statistic, value.pvalue)
    else:
        yield value


def used(text: str, scope: Scope, kinds: str) -> list[str]:
    """The arrays that a call names, of the kinds of dtypes."""
    names = compile(text, text, "eval").co_names
    found = [n for n in dict.fromkeys(names) if isinstance(scope.get(n), np.ndarray)]
    return [n for n in found if scope[n].dtype.kind in kinds]


def tensors(text: str, scope: Scope) -> dict[str, Any]:
    """The same arrays as tensors."""
    return {n: polyop.from_numpy(scope[n].copy()) for n in used(text, scope, "fiu")}


def values_of(text: str, scope: Scope, consumer: str) -> str:
    """Compare with NumPy; gives what differs."""
    wanted = evaluate(text, scope)
    with switched(consumer):
        found = evaluate(text, scope, tensors(text, scope))
    if len(found) != len(wanted):
        return f"{len(found)} results, not {len(wanted)}"
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(f), w, rtol=1e-6, atol=1e-9)
        if isinstance(w, np.ndarray) and not isinstance(f, polyop.Tensor):
            return f"a result is {type(f).__module__}.{type(f).__name__}"
        if isinstance(w, np.ndarray) and f.dtype.kind != w.dtype.kind:
            return f"a result is of {f.dtype}, not of {w.dtype}"
    return ""


# -- gradients ----------------------------------------------------------------------------------


def loss_of(results: list[Any], weights: list[Any]) -> Any:
    """A number of all results: their sum with random weights."""
    total = polyop.zeros((), dtype=polyop.float64)
    for result, weight in zip(results, weights, strict=True):
        if weight is not None and isinstance(result, polyop.Tensor):
            total = total + (polyop.real(result) * polyop.from_numpy(weight)).sum()
    return total


def weights_of(text: str, scope: Scope) -> list[Any]:
    """A random weight for each element of the results that are numbers."""
    rng = np.random.default_rng(1)
    found = [np.asarray(result) for result in evaluate(text, scope)]
    return [rng.normal(size=a.shape) if a.dtype.kind in "fc" else None for a in found]


def by_backward(text: str, scope: Scope, names: list[str], weights: list[Any]) -> list[Any]:
    """The gradients of the arrays by `backward`."""
    given = tensors(text, scope)
    for name in names:
        given[name].requires_grad_()
    loss_of(evaluate(text, scope, given), weights).backward()
    found = [given[name].grad for name in names]
    return [np.zeros(scope[n].shape) if g is None else g.numpy() for n, g in zip(names, found)]


def by_func(text: str, scope: Scope, names: list[str], weights: list[Any]) -> list[Any]:
    """The gradients of the arrays by `func.grad`."""
    given = tensors(text, scope)

    def loss(*floats: Any) -> Any:
        inside = given | dict(zip(names, floats, strict=True))
        return loss_of(evaluate(text, scope, inside), weights)

    found = polyop.func.grad(loss, tuple(range(len(names))))(*[given[n] for n in names])
    return [g.numpy() for g in found]


def by_differences(
    text: str, scope: Scope, names: list[str], weights: list[Any]
) -> Iterator[tuple[int, tuple[int, ...], float]]:
    """Finite differences of NumPy's results at a few elements of each array."""
    step = 1e-6
    for i, name in enumerate(names):
        for place in list(np.ndindex(scope[name].shape))[:6]:
            ends = []
            for sign in (1, -1):
                moved = scope[name].copy()
                moved[place] += sign * step
                results = evaluate(text, scope, {name: moved})
                ends.append(sum(
                    float((np.real(r) * w).sum())
                    for r, w in zip(results, weights, strict=True) if w is not None
                ))  # fmt: skip
            yield i, place, (ends[0] - ends[1]) / (2 * step)


def gradients_of(text: str, scope: Scope, consumer: str) -> dict[str, str]:
    """Compare both ways with finite differences; gives what is wrong, or who refused."""
    names = used(text, scope, "f")
    if not names:
        return {}
    weights = weights_of(text, scope)
    differences = list(by_differences(text, scope, names, weights))
    found: dict[str, str] = {"moves": str(any(abs(d) > 1e-9 for *_, d in differences))}
    ways: dict[str, Callable[..., list[Any]]] = {"backward": by_backward, "func": by_func}
    for way, gradients in ways.items():
        try:
            with switched(consumer):
                given = gradients(text, scope, names, weights)
        except PolyopError as error:
            found[way] = f"refused: {type(error).__name__}"
            continue
        wrong = [
            f"{names[i]}{list(place)}: {given[i][place]} and not {d}"
            for i, place, d in differences
            if not np.isclose(given[i][place], d, rtol=1e-4, atol=1e-5)
        ]
        found[way] = "; ".join(wrong)
    return found


def judged(judge: Callable[..., Any], *args: Any) -> Any:
    """What a judge says, or how the call failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers: too few samples, divisions by zero
            return judge(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(consumer: str) -> None:
    """Print a verdict for each call of a consumer."""
    table = import_module(f"tests.consumers.calls_{consumer}")
    scope = scipy_scope() if consumer == "scipy" else sklearn_scope()
    verdicts = {}
    ways = table.CALLS | dict.fromkeys(getattr(table, "COMPILED", []), "compiled")
    for text, way in ways.items():
        verdicts[text] = {"values": judged(values_of, text, scope, consumer)}
        if way != "none":
            verdicts[text]["gradients"] = judged(gradients_of, text, scope, consumer)
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main(sys.argv[1])

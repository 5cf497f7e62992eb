"""Results of higher-order operators that share memory: a write to one is seen in the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.errors import MutationError
from polyop.graph import make_fx
from polyop.hop import checkpoint, foreach_map, invoke_subgraph, wrap, wrap_with_set_grad_enabled

X = polyop.tensor([[0.3, 0.4, 0.5], [0.6, 0.7, 0.9], [1.1, 1.2, 1.3]], dtype="float64")

CALLS: dict[str, Callable[..., Any]] = {
    "cond": lambda fn, x: polyop.cond(x.sum() > 0, fn, fn, (x,)),
    "checkpoint": checkpoint,
    "wrap": wrap,
    "invoke_subgraph": lambda fn, x: invoke_subgraph(fn, "name", x),
    "foreach_map": lambda fn, x: foreach_map(fn, [x])[0],
    "grad mode": lambda fn, x: wrap_with_set_grad_enabled(True, fn, x),
}
SHARED: dict[str, Callable[[Any], Any]] = {
    "same": lambda t: (t, t),
    "view": lambda t: (t, t[:1]),
    "part first": lambda t: (t[:1], t),
    "apart": lambda t: (t[0], t[1]),
    "turned": lambda t: (t[:2], t[:2].T),
    "reshaped": lambda t: (t, t.reshape((9,))),
}


def written(first: Any, second: Any) -> Any:
    """Write both results; what comes back depends on both."""
    second.add_(1.0)
    first.mul_(2.0)
    return first * 1.0, second * second


def total(out: Any) -> Any:
    return sum((i + 1) * (t * t).sum() for i, t in enumerate(out))


RUNS: dict[str, Callable[[Any, Any], Any]] = {
    "value": lambda f, x: f(x),
    "grad": lambda f, x: func.grad(lambda v: total(f(v)))(x),
    "jvp": lambda f, x: func.jvp(lambda v: total(f(v)), (x,), (x * 2,)),
    "vmap": lambda f, x: func.vmap(f)(polyop.stack([x, x * 2])),
    "vmap of grad": lambda f, x: func.vmap(func.grad(lambda v: total(f(v))))(polyop.stack([x, x])),
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda f: f,
    "trace": lambda f: lambda x: make_fx(f, "fake")(x)(x),
    "functionalized": func.functionalize,
    "export": lambda f: lambda x: polyop.export.export(f, (x,)).module()(x),
}


def arrays(out: Any) -> list[Any]:
    return [t.numpy() for t in polyop.tree.leaves(out)]


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("call", CALLS)
def test_writes_reach_what_shares_memory(call: str, shared: str) -> None:
    """S168, S179: values, gradients, tangents and batches are those of the function itself."""
    body = lambda v: SHARED[shared](polyop.sin(v))  # noqa: E731
    for name, run in RUNS.items():
        expected = arrays(run(lambda x: written(*body(x)), X.clone()))
        for form, make in FORMS.items():
            whole = make(lambda x, run=run: run(lambda v: written(*CALLS[call](body, v)), x))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = arrays(whole(X.clone()))
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_allclose(a, b, err_msg=f"{name}, {form}")


def test_gradients_of_checkpoint_and_a_later_write() -> None:
    """S179: a result that is written has the gradient of all that shares its memory."""
    x, y = (X.clone().requires_grad_() for _ in range(2))
    body = lambda v: (lambda t: (t, t[:1]))(polyop.sin(v))  # noqa: E731
    total(written(*checkpoint(body, x))).backward()
    total(written(*body(y))).backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy())


def test_writes_where_sharing_is_not_known() -> None:
    """S168: without a base among the results, or where branches differ, a write is refused."""
    over = lambda v: (lambda t: (t[:2], t[1:]))(polyop.sin(v))  # noqa: E731
    copied = lambda v: tuple(t * 1.0 for t in over(v))  # noqa: E731
    calls = (
        lambda x: checkpoint(over, x),
        lambda x: checkpoint(lambda v: wrap(over, v), x),
        lambda x: polyop.cond(x.sum() > 0, over, copied, (x,)),
    )
    for call in calls:
        plain = func.functionalize(call)
        np.testing.assert_allclose(plain(X)[1].numpy(), over(X)[1].numpy())
        with pytest.raises(MutationError, match="shares memory with what is, in a way"):
            make_fx(func.functionalize(lambda x, call=call: written(*call(x))), "fake")(X)


# -- batches that choose ------------------------------------------------------------------------


def in_turn(f: Any, batch: Any) -> list[Any]:
    rows = [polyop.tree.leaves(f(x.clone())) for x in batch]
    return [np.stack([t.numpy() for t in column]) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("shared", [s for s in SHARED if s != "apart"])
def test_choices_of_a_batch(shared: str) -> None:
    """S180: each sample's results share memory as those of its function do."""
    batch = polyop.stack([X, X - 2.0])

    def f(x: Any) -> Any:
        fns = (lambda v: SHARED[shared](polyop.sin(v)), lambda v: SHARED[shared](v * 3.0))
        return written(*polyop.cond(x.sum() > 0, *fns, (x,)))

    for a, b in zip(in_turn(f, batch), func.vmap(f)(batch), strict=True):
        np.testing.assert_allclose(a, b.numpy())


def test_choices_that_share_memory_in_one_function() -> None:
    """S180: where only some samples' results share memory, a write is refused."""

    def f(x: Any, *, write: bool) -> Any:
        yes, no = lambda v: (v, v[:1] * 1.0), lambda v: (v * 1.0, v[:1] * 2.0)
        a, b = polyop.cond(x.sum() > 0, yes, no, (x,))
        if write:
            a.add_(1.0)
        return a, b

    batch = polyop.stack([X, X - 2.0])
    found = func.vmap(lambda x: f(x, write=False))(batch)
    for a, b in zip(in_turn(lambda x: f(x, write=False), batch), found, strict=True):
        np.testing.assert_allclose(a, b.numpy())
    with pytest.raises(MutationError, match="shares memory"):
        func.vmap(lambda x: f(x, write=True))(batch)


# -- loops ---------------------------------------------------------------------------------------


def no_trips(x: Any) -> Any:
    (out,) = polyop.while_loop(lambda v: v.sum() < 0, lambda v: (v * 2,), (x,))
    return out.mul_(3.0)


def no_steps(x: Any) -> Any:
    out, _ = polyop.scan(lambda c, z: (c * z, z * 1.0), x, polyop.zeros((0, 3), dtype="float64"))
    return out.mul_(3.0)


def one_carry(x: Any) -> Any:
    body = lambda a, b: (lambda t: (t, t))(a * 2)  # noqa: E731
    a, b = polyop.while_loop(lambda a, b: a.sum() < 30, body, (x, x * 1.0))
    a.add_(1.0)
    return b


@pytest.mark.parametrize("loop", [no_trips, no_steps, one_carry])
def test_a_last_carry_has_its_own_memory(loop: Any) -> None:
    """S182: neither what the loop was given nor another part of the carry sees a write to it."""
    forms: dict[str, Callable[[Any], Any]] = {
        **FORMS,
        "compiled": lambda f: polyop.compile(f, fullgraph=True),
        "batch": lambda f: lambda x: func.vmap(f)(x[None])[0],
    }
    results = []
    for make in forms.values():
        x = X.clone()
        results.append(make(loop)(x).numpy())
        np.testing.assert_array_equal(x.numpy(), X.numpy())
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0])

"""Samples of control flow: a call of each operator, and what Python would compute without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import polyop
from polyop import Tensor
from polyop.tensor.tensor import of_array

hops = polyop.ops.higher_order


class Sample(NamedTuple):
    """A call of an operator on one tensor, and the same in plain Python."""

    name: str
    call: Callable[[Tensor], Any]
    python: Callable[[Tensor], Any]


def inputs() -> list[Tensor]:
    """Give inputs that take different ways."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 1.0, (3, 2))
    return [of_array(x), of_array(-x)]


WEIGHT = of_array(np.array([0.5, -1.5]))


def python_map(f: Any, xs: Any, *args: Any) -> Any:
    return polyop.stack([f(x, *args) for x in polyop.unstack(xs)])


def python_scan(f: Any, carry: Any, xs: Any, *, reverse: bool = False) -> Any:
    rows = polyop.unstack(xs)
    ys = []
    for x in reversed(rows) if reverse else rows:
        carry, y = f(carry, x)
        ys.append(y)
    return carry, polyop.stack(ys[::-1] if reverse else ys)


def python_while(test: Any, body: Any, carry: Any) -> Any:
    while bool(test(*carry)):
        carry = body(*carry)
    return carry


def python_prefixes(f: Any, xs: Any) -> Any:
    done: list[Any] = []
    for x in polyop.unstack(xs):
        done.append(f(done[-1], x) if done else x)
    return polyop.stack(done)


def _cond_tree(x: Tensor) -> Any:
    return polyop.cond(
        x.sum() > 0,
        lambda d: {"a": d["x"] * 2 * d["n"], "b": (d["x"].sum(),)},
        lambda d: {"a": d["x"] - 1, "b": (d["x"].sum() * x.sum(),)},
        ({"x": x, "n": 3},),
    )


def _cond_tree_python(x: Tensor) -> Any:
    if bool(x.sum() > 0):
        return {"a": x * 6, "b": (x.sum(),)}
    return {"a": x - 1, "b": (x.sum() * x.sum(),)}


def _step(c: Tensor, x: Tensor) -> Any:
    return c * 0.5 + x.sin(), (c * x).sum()


def _nested(x: Tensor) -> Any:
    def step(c: Tensor, row: Tensor) -> Any:
        new = polyop.cond(row.sum() > 0, lambda c, r: c + r, lambda c, r: c * r, (c, row))
        return new, polyop.map(lambda e, f: e * f, row, new.sum())

    return polyop.scan(step, x[0] * 1.0, x)


def _nested_python(x: Tensor) -> Any:
    def step(c: Tensor, row: Tensor) -> Any:
        new = c + row if bool(row.sum() > 0) else c * row
        return new, row * new.sum()

    return python_scan(step, x[0] * 1.0, x)


def _twice(x: Tensor) -> Any:
    return (x * x).sin() * WEIGHT


def _doubled(x: Tensor) -> Any:
    return polyop.while_loop(
        lambda i, y: (i < 5) & (y.abs().sum() < 10), lambda i, y: (i + 1, y * 2), (ZERO, x)
    )


ZERO = of_array(np.array(0))

SAMPLES = [
    Sample(
        "cond",
        lambda x: polyop.cond(x.sum() > 0, lambda a: a.sin(), lambda a: a * a, (x,)),
        lambda x: x.sin() if bool(x.sum() > 0) else x * x,
    ),
    Sample("cond of trees", _cond_tree, _cond_tree_python),
    Sample(
        "map",
        lambda x: polyop.map(lambda r, w: (r * w).sum() * r, x, WEIGHT),
        lambda x: python_map(lambda r: (r * WEIGHT).sum() * r, x),
    ),
    Sample(
        "map over its closure",
        lambda x: polyop.map(lambda r: r * x.sum(), x),
        lambda x: x * x.sum(),
    ),
    Sample("scan", lambda x: polyop.scan(_step, x[0] * 2, x),
           lambda x: python_scan(_step, x[0] * 2, x)),
    Sample(
        "scan backwards",
        lambda x: polyop.scan(_step, x[0] * 2, x, reverse=True),
        lambda x: python_scan(_step, x[0] * 2, x, reverse=True),
    ),
    Sample("cond and map in scan", _nested, _nested_python),
    Sample(
        "while_loop",
        _doubled,
        lambda x: python_while(
            lambda i, y: (i < 5) & (y.abs().sum() < 10), lambda i, y: (i + 1, y * 2), (ZERO, x)
        ),
    ),
    Sample(
        "associative_scan",
        lambda x: polyop.associative_scan(lambda a, b: a * b, x),
        lambda x: python_prefixes(lambda a, b: a * b, x),
    ),
    Sample(
        "foreach_map",
        lambda x: hops.foreach_map(lambda a, b: a * b.sin(), polyop.unstack(x), x[0]),
        lambda x: [r * x[0].sin() for r in polyop.unstack(x)],
    ),
    Sample("invoke_subgraph", lambda x: hops.invoke_subgraph(_twice, "twice", x), _twice),
    Sample("wrap", lambda x: hops.wrap(lambda a, w: (a * a).sin() * w, x, WEIGHT), _twice),
    Sample(
        "wrap_with_set_grad_enabled",
        lambda x: hops.wrap_with_set_grad_enabled(True, _twice, x),
        _twice,
    ),
    Sample(
        "wrap_with_autocast",
        lambda x: hops.wrap_with_autocast("cpu", polyop.bfloat16, False, None, _twice, x),
        _twice,
    ),
    Sample("checkpoint", lambda x: hops.checkpoint(_twice, x), _twice),
    Sample(
        "checkpoint of a closure",
        lambda x: hops.checkpoint(lambda a: a * x.sum(), x * 2),
        lambda x: x * 2 * x.sum(),
    ),
    Sample(
        "out_dtype",
        lambda x: hops.out_dtype(polyop.ops.core.multiply.default, polyop.float64, x, x),
        lambda x: x * x,
    ),
    Sample(
        "flat_apply",
        lambda x: hops.flat_apply(
            lambda a, b: a * b.sin(), polyop.tree.structure(((0, 0), {})), x, x
        ),
        lambda x: x * x.sin(),
    ),
    Sample("custom_function_call", lambda x: hops.custom_function_call(Cube, x), lambda x: x**3),
]  # fmt: skip


class Cube(polyop.autograd.Function):
    """The third power, with a gradient of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


def equal(a: Any, b: Any) -> None:
    """Check that two trees have equal structures and data."""
    left, spec = polyop.tree.flatten(a)
    right, other = polyop.tree.flatten(b)
    assert spec == other
    for x, y in zip(left, right, strict=True):
        x, y = np.asarray(x.detach()), np.asarray(y.detach())
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def total(fn: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Give the function of the weighted sum of all results."""

    def summed(x: Tensor) -> Any:
        parts = [y for y in polyop.tree.leaves(fn(x)) if y.dtype == polyop.float64]
        return sum(((y * y).sum() * (i + 1) for i, y in enumerate(parts)), polyop.tensor(0.0))

    return summed

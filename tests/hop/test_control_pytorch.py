"""Control flow gives what PyTorch's gives, results and gradients; any sizes, any nesting (S179)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._higher_order_ops.associative_scan import associative_scan as torch_prefixes
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan as torch_scan
from torch._higher_order_ops.while_loop import while_loop as torch_while

import polyop
from polyop.func import grad
from polyop.graph import make_fx
from polyop.tensor.tensor import of_array

ROWS = np.random.default_rng(1).uniform(0.5, 1.5, (4, 2))


def cond(lib: Any, hops: Any, x: Any) -> Any:
    return hops["cond"](
        x.sum() > 4, lambda x: (x * 2, x.sum()), lambda x: (x - 1, x.sin().sum()), (x,)
    )


def mapped(lib: Any, hops: Any, x: Any) -> Any:
    return hops["map"](lambda r, w: r * w.sum() + r.sum(), x, x[0] * 2)


def scanned(lib: Any, hops: Any, x: Any) -> Any:
    return hops["scan"](lambda c, r: (c * r, c + r.sin()), x[0] * 2, x)


def reversed_scan(lib: Any, hops: Any, x: Any) -> Any:
    return hops["scan"](lambda c, r: (c * r, c + r.sin()), x[0] * 2, x, reverse=True)


def columns(lib: Any, hops: Any, x: Any) -> Any:
    return hops["scan"](lambda c, r: (c * r, c + r.sin()), x[:, 0] * 2, x, dim=1)


def products(lib: Any, hops: Any, x: Any) -> Any:
    return hops["prefixes"](lambda a, b: a * b + a, x, 0, combine_mode="generic")


def products_backwards(lib: Any, hops: Any, x: Any) -> Any:
    return hops["prefixes"](lambda a, b: a * b, x, 1, reverse=True, combine_mode="generic")


OURS = {
    "cond": polyop.cond,
    "map": polyop.map,
    "scan": polyop.scan,
    "prefixes": polyop.associative_scan,
}
THEIRS = {
    "cond": torch.cond,
    "map": torch_map,
    "scan": torch_scan,
    "prefixes": torch_prefixes,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "fn",
    [cond, mapped, scanned, reversed_scan, columns, products_backwards],
    ids=lambda f: f.__name__,
)
def test_results_and_gradients_are_pytorchs(fn: Callable[..., Any]) -> None:
    """S179: results and gradients are PyTorch's, in eager calls and in traced gradients."""
    for array in (ROWS, ROWS - 1):
        theirs = torch.tensor(array, requires_grad=True)
        expected = torch.utils._pytree.tree_leaves(fn(torch, THEIRS, theirs))
        sum((y * y).sum() for y in expected).backward()
        x = of_array(array.copy()).requires_grad_()
        found = polyop.tree.leaves(fn(polyop, OURS, x))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a.detach()), b.detach().numpy())
        sum((y * y).sum() for y in found).backward()
        np.testing.assert_allclose(np.asarray(x.grad), theirs.grad.numpy())

        def total(x: Any) -> Any:
            return sum((y * y).sum() for y in polyop.tree.leaves(fn(polyop, OURS, x)))

        program = make_fx(grad(total), "fake")(x.detach())
        np.testing.assert_allclose(np.asarray(program(x.detach())), theirs.grad.numpy())


@pytest.mark.filterwarnings("ignore")
def test_while_loop_is_pytorchs() -> None:
    """S182: while_loop gives what PyTorch's gives, with a predicate of one element."""
    theirs = torch_while(
        lambda i, x: (i < 7).all(),
        lambda i, x: (i + 1, x * 1.5),
        (torch.tensor([2]), torch.ones(2)),
    )
    ours = polyop.while_loop(
        lambda i, x: i < 7, lambda i, x: (i + 1, x * 1.5), (polyop.tensor([2]), polyop.ones(2))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(a), b.numpy())


# -- any program --------------------------------------------------------------

sizes = st.integers(0, 9)
weights = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(length=sizes, weights=weights, reverse=st.booleans(), seed=st.integers(0, 99))
def test_scan_is_the_loop(length: int, weights: Any, reverse: bool, seed: int) -> None:
    """S182: a scan of any length, with a carry of two tensors, is the loop, and so in a trace."""
    xs = np.random.default_rng(seed).normal(size=(length, 3))
    w = of_array(np.array(weights))

    def fn(xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            total, count = carry["total"], carry["count"]
            return {"total": total * w + x, "count": count + 1}, (total.sum(), x * count)

        first = {"total": polyop.ones(3, dtype=polyop.float64), "count": polyop.tensor(0)}
        return polyop.scan(step, first, xs, reverse=reverse)

    total, count, ys = np.ones(3), 0, []
    for x in reversed(xs) if reverse else xs:
        ys.append((total.sum(), x * count))
        total, count = total * np.array(weights) + x, count + 1
    ys = ys[::-1] if reverse else ys
    for run in (fn, make_fx(fn, "fake")(of_array(xs))):
        carry, (sums, rows) = run(of_array(xs))
        np.testing.assert_allclose(np.asarray(carry["total"]), total)
        assert int(carry["count"]) == length
        assert (sums.shape, rows.shape) == ((length,), (length, 3))
        np.testing.assert_allclose(np.asarray(sums), np.array([s for s, _ in ys]))
        if length:
            np.testing.assert_allclose(np.asarray(rows), np.stack([r for _, r in ys]))


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 20), reverse=st.booleans(), seed=st.integers(0, 99))
def test_associative_scan_is_the_loop(length: int, reverse: bool, seed: int) -> None:
    """S182: prefixes of any length under a function that is no ufunc are those of the loop."""
    xs = np.random.default_rng(seed).normal(size=(length, 2, 2))

    def fn(xs: Any) -> Any:
        return polyop.associative_scan(lambda a, b: {"m": a["m"] @ b["m"]}, {"m": xs}, 0, reverse)

    expected, last = [], np.eye(2)
    for x in reversed(xs) if reverse else xs:
        last = last @ x
        expected.append(last)
    expected = np.stack(expected[::-1] if reverse else expected)
    for run in (fn, make_fx(fn, "fake")(of_array(xs))):
        np.testing.assert_allclose(np.asarray(run(of_array(xs))["m"]), expected, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(starts=st.lists(st.integers(-3, 12), min_size=1, max_size=6), bound=st.integers(-1, 40))
def test_a_batch_of_loops_is_the_loop_of_each(starts: list[int], bound: int) -> None:
    """S182: under vmap each sample has its own number of steps."""

    def fn(x: Any) -> Any:
        return polyop.while_loop(
            lambda i, x: (x < bound) & (i < 5), lambda i, x: (i + 1, x * 2 + 1), (ZERO, x)
        )

    batch = of_array(np.array(starts))
    for run in (polyop.vmap(fn), make_fx(polyop.vmap(fn), "fake")(batch)):
        steps, values = run(batch)
        for start, step, value in zip(starts, steps, values, strict=True):
            i, x = 0, start
            while x < bound and i < 5:
                i, x = i + 1, x * 2 + 1
            assert (int(step), int(value)) == (i, x)


ZERO = of_array(np.array(0))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.floats(-2, 2), min_size=2, max_size=5), nested=st.integers(0, 2))
def test_nests_are_python(rows: list[float], nested: int) -> None:
    """S179: cond in scan in vmap in grad is what Python computes, traced or not."""

    def branch(c: Any, r: Any, depth: int) -> Any:
        if not depth:
            return polyop.cond(r > 0, lambda c, r: c * r, lambda c, r: c - r.sin(), (c, r))
        return polyop.cond(
            c > r,
            lambda c, r: branch(c, r, depth - 1) * 1.5,
            lambda c, r: c + branch(r, c, depth - 1),
            (c, r),
        )

    def fn(x: Any) -> Any:
        def one(shift: Any) -> Any:
            return polyop.scan(lambda c, r: (branch(c, r, nested), c * r), shift, x + shift)[0]

        return (polyop.vmap(one)(polyop.tensor([0.5, -0.5], dtype=polyop.float64)) ** 2).sum()

    def plain(c: Any, r: Any, depth: int) -> Any:
        if not depth:
            return c * r if bool(r > 0) else c - r.sin()
        inner = plain(c, r, depth - 1) * 1.5 if bool(c > r) else c + plain(r, c, depth - 1)
        return inner

    def python(x: Any) -> Any:
        total = polyop.tensor(0.0, dtype=polyop.float64)
        for shift in (0.5, -0.5):
            c = polyop.tensor(shift, dtype=polyop.float64)
            for r in polyop.unstack(x + shift):
                c = plain(c, r, nested)
            total = total + c**2
        return total

    x = of_array(np.array(rows))
    expected = np.asarray(grad(python)(x))
    np.testing.assert_allclose(np.asarray(fn(x)), np.asarray(python(x)))
    np.testing.assert_allclose(np.asarray(grad(fn)(x)), expected)
    np.testing.assert_allclose(np.asarray(make_fx(grad(fn), "fake")(x)(x)), expected)

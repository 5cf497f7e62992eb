"""Gradients of random programs, against finite differences and PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.dispatch.registry import DEFINITIONS
from polyop.layers.autograd import grad, gradcheck, gradgradcheck
from polyop.ops.define import ON_TENSORS as OPS
from polyop.ops.splitting import unstack
from polyop.tensor.tensor import Tensor, of_array

UNARY = ["sin", "cos", "tanh", "negative", "sigmoid", "square"]
BINARY = ["add", "subtract", "multiply"]
TORCH = {"subtract": "sub"}


def leaf(data: Any, dtype: Any = float) -> Tensor:
    """Make a leaf."""
    return of_array(np.array(data, dtype)).requires_grad_()


@st.composite
def programs(draw: Any) -> list[tuple[str, int, int]]:
    """Draw a DAG: each step reads two earlier values."""
    steps = []
    for i in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from(UNARY + BINARY))
        steps.append((name, draw(st.integers(0, i + 2)), draw(st.integers(0, i + 2))))
    return steps


def play(steps: list[tuple[str, int, int]], inputs: Any, lib: Any) -> Any:
    """Run a program, and sum all its values."""
    values = list(inputs)
    for name, i, j in steps:
        given = (values[i],) if name in UNARY else (values[i], values[j])
        values.append(lib(name)(*given))
    total = lib("sum")(values[-1])
    for value in values[-3:-1]:
        total = lib("add")(total, lib("sum")(value))
    return total


def ours(name: str) -> Any:
    """Give an operator of ours."""
    return OPS[name]


def theirs(name: str) -> Any:
    """Give PyTorch's."""
    return getattr(torch, TORCH.get(name, name))


START = (np.array([0.3, -0.7, 0.2]), np.array([[0.5], [0.1]]), np.array(0.4))


@given(programs())
@settings(max_examples=50, deadline=None)
def test_gradients_equal_pytorchs(steps: list[tuple[str, int, int]]) -> None:
    """S133: first and second gradients of any program are PyTorch's."""
    a = [leaf(x) for x in START]
    b = [torch.tensor(x, requires_grad=True) for x in START]
    first = grad(play(steps, a, ours), a, create_graph=True, materialize_grads=True)
    expected = torch.autograd.grad(
        play(steps, b, theirs), b, create_graph=True, materialize_grads=True
    )
    for g, e in zip(first, expected, strict=True):
        np.testing.assert_allclose(g.numpy(force=True), e.detach().numpy(), rtol=1e-9, atol=1e-12)
    second = _total(OPS["sum"], OPS["add"], [OPS["multiply"](g, g) for g in first])
    wanted = _total(torch.sum, torch.add, [e * e for e in expected])
    if not wanted.requires_grad:
        assert not second.requires_grad
        return
    zeros = [of_array(np.zeros(x.shape)) for x in START]
    ours_second = grad(second, a, materialize_grads=True) if second.requires_grad else zeros
    theirs_second = torch.autograd.grad(wanted, b, materialize_grads=True)
    for g, e in zip(ours_second, theirs_second, strict=True):
        np.testing.assert_allclose(g.numpy(), e.detach().numpy(), rtol=1e-8, atol=1e-10)


def _total(total: Any, add: Any, values: list[Any]) -> Any:
    done = total(values[0])
    for value in values[1:]:
        done = add(done, total(value))
    return done


@given(programs())
@settings(max_examples=25, deadline=None)
def test_gradients_equal_finite_differences(steps: list[tuple[str, int, int]]) -> None:
    """S139: gradients of any program are what finite differences say."""
    a = [leaf(x) for x in START]
    gradcheck(lambda *xs: play(steps, xs, ours), a)


@given(programs())
@settings(max_examples=25, deadline=None)
def test_both_modes_agree(steps: list[tuple[str, int, int]]) -> None:
    """The backward on bare arrays and the one on tensors give the same numbers."""
    a = [leaf(x) for x in START]
    out = play(steps, a, ours)
    bare = grad(out, a, retain_graph=True, materialize_grads=True)
    tensors = grad(out, a, create_graph=True, materialize_grads=True)
    for x, y in zip(bare, tensors, strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(force=True), rtol=1e-12, atol=1e-14)


POSITIVE = {"log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "acosh", "pow"}
NAMES = """abs acos acosh add asin asinh atan atan2 atanh conj copysign cos cosh divide exp exp2
expm1 hypot imag log log1p log2 log10 logaddexp maximum minimum multiply negative pow real
reciprocal rsqrt sigmoid sin sinh softplus sqrt square subtract tan tanh relu clone
sum prod mean std var amax amin max min cumulative_sum logsumexp softmax
log_softmax matmul vecdot outer tensordot inv det norm trace flip ravel concat stack""".split()


@pytest.mark.parametrize("name", [n for n in NAMES if f"core::{n}" in DEFINITIONS])
def test_every_formula_is_right_twice(name: str) -> None:
    """S139: first and second gradients of each built-in operator equal finite differences."""
    op = DEFINITIONS[f"core::{name}"].op
    tensors = [a for a in op._schema.arguments if str(a.type) == "Tensor"]
    rng = np.random.default_rng(3)
    shape = (2, 2)
    low = 1.2 if name in {"acosh", *POSITIVE} else 0.2
    values = [leaf(rng.uniform(low, low + 0.6, shape)) for _ in tensors]
    extra = [
        a for a in op._schema.arguments if not a.has_default_value() and str(a.type) != "Tensor"
    ]
    if not tensors or any(not a.kwarg_only and str(a.type) != "int" for a in extra):
        pytest.skip("other arguments are needed")
    statics = [0] * len(extra)
    run = partial(_call, op, statics)
    gradcheck(run, values)
    gradgradcheck(run, values, atol=1e-4)


def _call(op: Any, statics: list[Any], *xs: Any) -> Any:
    named = {"axis": -1} if any(a.name == "axis" for a in op._schema.keyword_only) else {}
    return op(*xs, *statics, **named)


def test_complex_gradients_are_conjugated() -> None:
    """The gradient of complex numbers is PyTorch's: that of a real result is its steepest way."""
    z = np.array([1 + 2j, -0.5 + 0.3j])
    ours_z, theirs_z = leaf(z, complex), torch.tensor(z, requires_grad=True)
    real = leaf([2.0, 3.0])
    theirs_r = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    out = OPS["sum"](OPS["abs"](OPS["multiply"](OPS["exp"](ours_z), real)))
    out.backward()
    torch.abs(torch.exp(theirs_z) * theirs_r).sum().backward()
    np.testing.assert_allclose(ours_z.grad.numpy(), theirs_z.grad.numpy())
    np.testing.assert_allclose(real.grad.numpy(), theirs_r.grad.numpy())
    assert real.grad.dtype == np.float64


@pytest.mark.parametrize("other", ["f8", "f4", "c16"])
def test_a_gradient_has_its_inputs_dtype(other: str) -> None:
    """The gradient of an input has the input's dtype, whatever the result's is."""
    x, y = leaf([1.0, 2.0], "f4"), leaf([3.0, 4.0], other)
    OPS["sum"](OPS["abs"](OPS["multiply"](x, y))).backward()
    assert (x.grad.dtype, y.grad.dtype) == (x.dtype, y.dtype)
    np.testing.assert_allclose(x.grad.numpy(), [3, 4])


def test_several_results_and_lists() -> None:
    """Operators with several results, or lists of tensors, are differentiated."""
    x, y = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([[5.0, 6.0]])
    joined = OPS["concat"]([x, y], axis=0)
    a, *rest = unstack(joined, axis=0)
    OPS["sum"](OPS["multiply"](a, rest[1])).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[5, 6], [0, 0]])
    np.testing.assert_allclose(y.grad.numpy(), [[1, 2]])

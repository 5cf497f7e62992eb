"""Graphs that run on bare arrays, and what they must not hide from anybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor, ops
from polyop.extend import DispatchMode
from polyop.graph import GraphModule, compile_program, make_fx, payloads

UNARY = ["sin", "negative", "abs", "square", "sign"]
PAIRS = ["add", "subtract", "multiply", "maximum", "minimum"]


def module_of(f: Any, *args: Any) -> GraphModule:
    return make_fx(f)(*args)


def on_arrays(module: GraphModule) -> bool:
    return payloads._on_arrays(module.graph)[1] is not None


Steps = list[tuple[str, int, int]]
steps = st.lists(
    st.tuples(st.sampled_from([*UNARY, *PAIRS, "sum", "where"]), st.integers(0), st.integers(0)),
    min_size=1,
    max_size=30,
)


def program_of(chosen: Steps) -> Any:
    def f(x: Tensor, y: Tensor) -> Any:
        values = [x, y]
        for name, i, j in chosen:
            a, b = values[i % len(values)], values[j % len(values)]
            if name in UNARY:
                values.append(getattr(polyop, name)(a))
            elif name == "sum":
                values.append(a.sum(axis=-1, keepdims=True) if a.ndim else a.sum())
            elif name == "where":
                values.append(polyop.where(a > b, a, b * 0.5))
            else:
                values.append(getattr(polyop, name)(a, b))
        return {"last": values[-1], "both": (values[-1], values[len(values) // 2 + 1])}

    return f


@settings(deadline=None)
@given(steps, st.sampled_from([(), (3,), (2, 3), (0,), (40, 40)]))
def test_arrays_give_what_operators_give(chosen: Steps, shape: tuple[int, ...]) -> None:
    """S208: a graph of pure operators gives the same bits, dtypes and classes on bare arrays."""
    f = program_of(chosen)
    x, y = polyop.randn(*shape), polyop.randn(*shape)
    module = module_of(f, x, y)
    whole = compile_program(module.graph, get_attr=module.get_attr)
    for a, b in ((x, y), (y.double(), x), (polyop.randn(2, *shape), y)):
        ours, theirs = module(a, b), whole(a, b)
        for got, want in zip(polyop.tree.leaves(ours), polyop.tree.leaves(theirs), strict=True):
            assert got.__class__ is Tensor and got.keys == want.keys
            assert got.payload.__class__ is np.ndarray and got.dtype == want.dtype
            np.testing.assert_array_equal(got.numpy(), want.numpy())
        assert ours["last"] is ours["both"][0]


def test_which_graphs_run_on_arrays() -> None:
    """S208: writes, views and inputs among the results, randomness and authors' code stay whole."""
    x = polyop.randn(3)
    assert on_arrays(module_of(lambda x: x.sin() * x.reshape(3, 1).sum(axis=1), x))
    assert on_arrays(module_of(lambda x: polyop.stack([x, x * 2]).sum(), x))
    for f in (
        lambda x: (x * 2).add_(1),
        lambda x: (x * 2, x),
        lambda x: (x * 2).reshape(3, 1),
        lambda x: x + polyop.randn(3),
        lambda x: x + x.shape[0] if x.ndim > 5 else 3,
    ):
        assert not on_arrays(module_of(f, x))


class Sees(DispatchMode):
    """Counts the calls that it meets."""

    count = 0

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return op(*args, **(kwargs or {}))


def test_who_acts_on_calls_still_does() -> None:
    """S92, S144: modes, gradients, batches and traces see each operator of a graph."""
    x = polyop.randn(3)
    module = module_of(lambda x: (x * x).sin(), x)
    assert on_arrays(module)
    module(x)
    with Sees() as seen:
        module(x)
    assert seen.count == 2
    w = polyop.randn(3, requires_grad=True)
    (slope,) = polyop.autograd.grad(module(w).sum(), w)
    np.testing.assert_allclose(slope.numpy(), (2 * w * (w * w).cos()).numpy(force=True), rtol=1e-6)
    with polyop.no_grad():
        assert not module(w).requires_grad
    with polyop.inference_mode():
        made = module(x)
    with pytest.raises(polyop.errors.AutogradError, match="inference_mode"):
        made.requires_grad_()
    again = [n.target for n in module_of(module, x).graph.nodes]
    assert again[1:] == [n.target for n in module.graph.nodes][1:]
    batch = polyop.randn(4, 3)
    np.testing.assert_allclose(polyop.vmap(module)(batch).numpy(), module(batch).numpy())


def test_a_kernel_that_changes_is_the_one_that_runs() -> None:
    """S41: a graph that has run on arrays meets an override, and its end."""
    x = polyop.ones(2)
    module = module_of(lambda x: polyop.negative(x) + 1, x)
    assert module(x).tolist() == [0, 0]
    lib = polyop.library.Library("core", "IMPL")
    lib.impl("negative", lambda x: x * 10, "CPU", allow_override=True)
    assert module(x).tolist() == [11, 11]
    lib.destroy()
    assert module(x).tolist() == [0, 0]


def test_errors_are_those_of_the_operators() -> None:
    """S2: what goes wrong on arrays is told by the operator, with its node."""
    module = module_of(lambda x, y: ops.core.add(x.sin(), y), polyop.ones(3), polyop.ones(3))
    with pytest.raises(Exception) as whole:
        compile_program(module.graph)(polyop.ones(3), polyop.ones(2))
    with pytest.raises(type(whole.value)) as found:
        module(polyop.ones(3), polyop.ones(2))
    assert str(found.value) == str(whole.value)
    assert found.value.__notes__ == whole.value.__notes__

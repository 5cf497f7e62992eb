"""Operators with a kernel and a composition: the call is one node, the composition its fake rule.

The kernel and what the operator is made of mean the same, so eager, traced and compiled calls do
it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.dispatch.library import Library
from polyop.export import export
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx
from polyop.symbolic import ShapeEnv

CASES = {
    "written": ("inc_(Tensor(a!) x) -> ()", lambda op, x: (op(x), x * 1)[1]),
    "given back": ("inc_(Tensor(a!) x) -> Tensor(a!)", lambda op, x: op(x) * 1),
    "out": ("inc(Tensor x, *, Tensor(a!) out) -> Tensor(a!)", lambda op, x: op(x, out=x * 0)),
    "list": ("inc_(Tensor(a!)[] xs) -> ()", lambda op, x: (op([x, x * 2]), x * 1)[1]),
    "pure": ("inc(Tensor x) -> Tensor", lambda op, x: op(x) * 1),
}


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library of a test's own."""
    made = Library("whole_composites", "DEF")
    yield made
    made.destroy()


def composed(*given: Any, out: Any = None) -> Any:
    """Add one, in terms of other operators."""
    (x,) = given
    if out is not None:
        return out.copy_(x + 1.0)
    if isinstance(x, list):
        for each in x:
            each.add_(1.0)
        return None
    return x.add_(1.0)


def fast(*given: Any, out: Any = None) -> Any:
    """Add one, in NumPy."""
    (x,) = given
    for each in x if isinstance(x, list) else [x]:
        target = each if out is None else out
        target.numpy()[...] = each.numpy() + 1
    return out if out is not None else x


def defined(lib: Library, case: str) -> Any:
    """Define the operator of a case; give a function that calls it."""
    schema, use = CASES[case]
    name = lib.define(schema).partition("(")[0].rpartition("::")[2]
    if case == "pure":
        lib.impl(name, lambda x: x + 1.0, "CompositeImplicitAutograd")
        lib.impl(name, lambda x: polyop.from_numpy(x.numpy() + 1), "CPU")
    elif "-> ()" in schema:
        lib.impl(name, lambda x: (composed(x), None)[1], "CompositeImplicitAutograd")
        lib.impl(name, lambda x: (fast(x), None)[1], "CPU")
    else:
        lib.impl(name, composed, "CompositeImplicitAutograd")
        lib.impl(name, fast, "CPU")
    op = getattr(getattr(polyop.ops, lib.ns), name)
    return lambda x: use(op, x)


def calls(module: Any) -> list[str]:
    """Name the operators that a program calls."""
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_one_call_is_one_node(lib: Library, case: str, mode: Any, pre_dispatch: bool) -> None:
    """The composition is not recorded beside the call: S209."""
    f = defined(lib, case)
    module = make_fx(f, mode, pre_dispatch=pre_dispatch)(polyop.zeros(2))
    assert sum(name.startswith(lib.ns) for name in calls(module)) == 1
    assert not any("add" in name or "copy_" in name for name in calls(module))
    assert module(polyop.zeros(2)).tolist() == f(polyop.zeros(2)).tolist()


@pytest.mark.parametrize("case", CASES)
def test_compiled_and_exported_calls_write_once(lib: Library, case: str) -> None:
    """Compiled and exported programs compute and write what eager does: S211."""
    f = defined(lib, case)
    eager, compiled, exported = polyop.zeros(2), polyop.zeros(2), polyop.zeros(2)
    want = f(eager).tolist()
    assert polyop.compile(f, fullgraph=True)(compiled).tolist() == want
    assert export(f, (polyop.zeros(2),)).module()(exported).tolist() == want
    assert eager.tolist() == compiled.tolist() == exported.tolist()


def test_an_operator_made_of_such_ones_writes_once(lib: Library) -> None:
    """What an operator is made of may hold such a call: S209."""
    f = defined(lib, "written")
    lib.define("twice_(Tensor(a!) x) -> ()")
    lib.impl("twice_", lambda x: (f(x), f(x), None)[2], "CompositeImplicitAutograd")
    twice_ = getattr(polyop.ops, lib.ns).twice_
    module = make_fx(lambda x: (twice_(x), x * 1)[1], "symbolic")(polyop.zeros(2))
    assert module(polyop.zeros(2)).tolist() == [2.0, 2.0]


def test_compiled_draws_are_those_of_eager(lib: Library) -> None:
    """The composition of a call that draws does not draw as well: S211."""
    tag = polyop.Tag.nondeterministic_seeded
    lib.define("noise(Tensor x) -> Tensor", tags=tag)
    lib.impl("noise", lambda x: polyop.rand(2) * x, "CompositeImplicitAutograd")
    lib.impl("noise", lambda x: polyop.rand(2).clone() * x, "CPU")
    noise = getattr(polyop.ops, lib.ns).noise
    twice = lambda x: noise(x) + 10 * noise(x)  # noqa: E731
    polyop.manual_seed(0)
    want = twice(polyop.ones(2)).tolist()
    polyop.manual_seed(0)
    assert polyop.compile(twice, fullgraph=True)(polyop.ones(2)).tolist() == want


def test_its_formula_is_the_gradient_of_the_node(lib: Library) -> None:
    """A compiled call has the gradient of its formula, as an eager one has: S211."""
    lib.define("sine(Tensor x) -> Tensor")
    lib.impl("sine", lambda x: x.sin(), "CompositeImplicitAutograd")
    lib.impl("sine", lambda x: polyop.from_numpy(np.sin(x.numpy())), "CPU")
    sine = getattr(polyop.ops, lib.ns).sine
    polyop.library.register_autograd(
        f"{lib.ns}::sine",
        lambda ctx, g: g * ctx.saved_tensors[0].cos(),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        lib=lib,
    )
    x = polyop.ones(2, requires_grad=True)
    polyop.compile(lambda x: (sine(x) * 2).sum(), fullgraph=True)(x).backward()
    assert np.allclose(x.grad.numpy(), 2 * np.cos(1))
    traced = make_fx(func.grad(lambda x: sine(x).sum()), "fake")(polyop.ones(2))
    assert np.allclose(traced(polyop.ones(2)).numpy(), np.cos(1))


@pytest.mark.parametrize("key", ["CompositeImplicitAutograd", "CompositeExplicitAutograd"])
def test_a_composition_gives_each_call_a_size_of_its_own(lib: Library, key: str) -> None:
    """Two inputs that look alike may have results of two sizes: S144, S149."""
    lib.define("where(Tensor x) -> Tensor")
    lib.impl("where", lambda x: polyop.nonzero(x)[0], key)
    lib.impl("where", lambda x: polyop.from_numpy(np.nonzero(x.numpy())[0]), "CPU")
    where = getattr(polyop.ops, lib.ns).where
    mode = FakeTensorMode(shape_env=ShapeEnv())
    x, y = mode.from_tensor(polyop.ones(4)), mode.from_tensor(polyop.zeros(4))
    (a,), (b,) = where(x).shape, where(y).shape
    assert a.expr != b.expr


def test_a_rule_that_calls_a_rule_with_new_sizes_is_not_remembered(lib: Library) -> None:
    """A size that a rule makes for another rule is new for that one too: S149."""
    for name in ("inner", "outer"):
        lib.define(f"{name}(Tensor x) -> Tensor")
        lib.impl(name, lambda x: x.clone(), "CPU")
    ops = getattr(polyop.ops, lib.ns)
    sized = lambda x: x.new_empty((polyop.library.get_ctx().new_dynamic_size(),))  # noqa: E731
    polyop.library.register_fake(f"{lib.ns}::inner", sized, lib=lib)
    polyop.library.register_fake(f"{lib.ns}::outer", lambda x: ops.inner(x), lib=lib)
    x = FakeTensorMode(shape_env=ShapeEnv()).from_tensor(polyop.ones(4))
    (a,), (b,) = ops.outer(x).shape, ops.outer(x).shape
    assert a.expr != b.expr

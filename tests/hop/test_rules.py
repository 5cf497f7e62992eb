"""Operators whose every rule is given by hand, and the API of functionalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.dispatch.context import word
from polyop.dispatch.infra_modes import ModeKey, infra_mode
from polyop.dispatch.library import Library
from polyop.errors import DuplicateRegistrationError, UsageError, UsageTypeError
from polyop.extend import DispatchKey, HigherOrderOperator, SubgraphOperator, register_higher_order
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx
from polyop.hop import (
    FunctionalizeAPI,
    FunctionalTensorMode,
    HopSchemaGenerator,
    record_call,
    trace_subgraph,
)
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.vmap.batch import batched, peel

X = np.asarray([1.0, 2.0, 3.0])
ran: list[str] = []


def t(values: Any, requires_grad: bool = False) -> Any:
    made = polyop.tensor(np.asarray(values))
    return made.requires_grad_() if requires_grad else made


# -- an operator with every rule: `apply_scaled(fn, x, scale) = fn(x) * scale` -----


class Scaled(polyop.autograd.Function):
    """Its gradient, for functions that are linear: the function of the gradient."""

    @staticmethod
    def forward(fn: Any, x: Any, scale: float) -> Any:
        return apply_scaled(fn, x, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.fn, _, ctx.scale = inputs

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        ran.append("backward")
        return None, apply_scaled(ctx.fn, g, ctx.scale), None


def eager(fn: Any, x: Any, scale: float) -> Any:
    ran.append("eager")
    return fn(x) * scale


def autograd(fn: Any, x: Any, scale: float) -> Any:
    ran.append("autograd")
    return Scaled.apply(fn, x, scale)


def fake(fn: Any, x: Any, scale: float) -> Any:
    ran.append("fake")
    assert word().fake is not None
    return polyop.empty_like(x)


def trace(tracer: Any, fn: Any, x: Any, scale: float) -> Any:
    ran.append("trace")
    found = trace_subgraph(fn, [x], tracer=tracer)
    args = (found.module, x, scale)
    return record_call(tracer, apply_scaled, args, {}, apply_scaled(*args))


def functionalize(ctx: FunctionalizeAPI, fn: Any, x: Any, scale: float) -> Any:
    ran.append("functionalize")
    x = ctx.unwrap_tensors(x)
    with ctx.redispatch_to_next():
        return ctx.wrap_tensors(apply_scaled(ctx.functionalize(fn), x, scale))


def vmap(interpreter: Any, fn: Any, x: Any, scale: float) -> Any:
    ran.append("vmap")
    value, axis = peel(x, interpreter.level)
    assert interpreter.batch_size() == 2 and interpreter.randomness() == "error"
    with interpreter.lower():
        return batched(apply_scaled(fn, value, scale), axis, interpreter.level)


def gen_schema(fn: Any, x: Any, scale: float) -> Any:
    made = HopSchemaGenerator("test_apply_scaled")
    for name, value in (("fn", fn), ("x", x), ("scale", scale)):
        made.add_arg(name, value)
    return made.gen_schema()


apply_scaled = register_higher_order(
    "test_apply_scaled",
    eager,
    autograd=autograd,
    fake=fake,
    trace=trace,
    functionalize=functionalize,
    vmap=vmap,
    gen_schema=gen_schema,
    cacheable=True,
)


def double(a: Any) -> Any:
    return a + a


def call(x: Any) -> Any:
    return apply_scaled(double, x, 3.0)


def rules_of(fn: Any, *args: Any) -> tuple[Any, list[str]]:
    """The result, and the rules that ran."""
    ran.clear()
    return fn(*args), list(ran)


def gradient(x: Any) -> Any:
    y = x.clone().requires_grad_()
    return polyop.autograd.grad(call(y).sum(), [y])[0]


@pytest.mark.parametrize(
    ("fn", "value", "expected", "rules"),
    [
        (call, X, X * 6, ["eager"]),
        (polyop.vmap(call), [X, X], [X * 6, X * 6], ["vmap", "eager"]),
        (func.functionalize(call), X, X * 6, ["functionalize", "eager"]),
        (gradient, X, [6, 6, 6], ["autograd", "eager", "backward", "eager"]),
        (
            polyop.vmap(func.functionalize(call)),
            [X, X],
            [X * 6, X * 6],
            ["functionalize", "vmap", "eager"],
        ),
    ],
)
def test_each_rule_runs_in_its_place(fn: Any, value: Any, expected: Any, rules: list[str]) -> None:
    """S118, S122, S110: each rule of an operator runs, from the innermost layer outward."""
    got, seen = rules_of(fn, t(value))
    assert np.allclose(got.numpy(), expected) and seen == rules


def test_a_trace_runs_its_rule() -> None:
    """S119, S177: a traced call is one node, by the trace rule above the fake rule."""
    module, seen = rules_of(make_fx(call, "fake"), t(X))
    assert seen == ["trace", "fake"]
    assert "test_apply_scaled" in module.code
    assert np.allclose(module(t(X)).numpy(), X * 6)
    module, seen = rules_of(make_fx(gradient, "fake"), t(X))
    assert seen == ["autograd", "trace", "fake", "backward", "trace", "fake"]
    assert np.allclose(module(t(X)).numpy(), [6, 6, 6])


def test_fakes_run_their_rule() -> None:
    """S177: a fake outside of its mode takes the mode's rule."""
    out, seen = rules_of(call, FakeTensorMode().from_tensor(t(X)))
    assert out.is_fake and seen == ["fake"]


def test_facts() -> None:
    """S123: the schema and the flag that were given."""
    assert apply_scaled.cacheable() and apply_scaled.has_schema
    text = "higher_order::test_apply_scaled(Any fn, Tensor x, float scale) -> ()"
    assert str(apply_scaled.gen_schema(double, t(X), 2.0)) == text


def test_rules_that_are_not_given() -> None:
    """S176: without a rule the operators that `eager` calls are dealt with, one by one."""
    bare = register_higher_order("test_bare", lambda fn, x: fn(x) * 3)

    def f(x: Any) -> Any:
        return bare(lambda a: a * a, x)

    x = t(X, requires_grad=True)
    f(x).sum().backward()
    assert np.allclose(x.grad.numpy(), 6 * X)
    assert np.allclose(func.grad(lambda a: f(a).sum())(t(X)).numpy(), 6 * X)
    assert np.allclose(polyop.vmap(f)(t([X, X])).numpy(), [3 * X * X] * 2)
    assert np.allclose(func.functionalize(f)(t(X)).numpy(), 3 * X * X)
    assert f(FakeTensorMode().from_tensor(t(X))).is_fake
    for before in (False, True):
        module = make_fx(f, "fake", pre_dispatch=before)(t(X))
        assert "multiply" in module.code and "test_bare" not in module.code
        assert np.allclose(module(t(X)).numpy(), 3 * X * X)


# -- the API ------------------------------------------------------------------


@pytest.fixture
def api() -> FunctionalizeAPI:
    return FunctionalizeAPI(FunctionalLevel(copy_views=False))


def test_wrap_and_unwrap(api: FunctionalizeAPI) -> None:
    """S169: trees of tensors are wrapped and unwrapped; what is wrapped or no tensor stays."""
    x = t(X)
    wrapped = api.wrap_tensors({"a": [x, 3], "b": None})
    assert api.level.owns(wrapped["a"][0]) and wrapped["a"][1] == 3 and wrapped["b"] is None
    assert api.wrap_tensors(wrapped)["a"][0] is wrapped["a"][0]
    assert api.unwrap_tensors(wrapped)["a"][0] is x


def test_replace_is_seen_by_views(api: FunctionalizeAPI) -> None:
    """S169: replace, commit_update and sync give a tensor, and its views, a new value."""
    x = api.wrap_tensors(t(X))
    view = x[0]
    api.replace(x, t(X * 2))
    api.commit_update(x)
    api.sync(view)
    assert api.unwrap_tensors(view).item() == 2
    for bad in (t(X), 3):
        with pytest.raises(UsageTypeError, match="no functional tensor"):
            api.replace(bad, t(X))
    with pytest.raises(UsageTypeError, match="new value"):
        api.replace(x, 3)


@pytest.mark.parametrize("hidden", [False, True])
def test_hidden_writes(hidden: bool) -> None:
    """S169: a write that is marked is not seen by autograd when it is done at the end."""
    hop = SubgraphOperator("test_hidden_writes_" + str(hidden))

    def rule(ctx: FunctionalizeAPI, fn: Any, x: Any) -> Any:
        ctx.replace(x, fn(ctx.unwrap_tensors(x)))
        if hidden:
            ctx.mark_mutation_hidden_from_autograd(x)
        return x

    hop.functorch_table.clear()
    hop.py_kernels.pop(DispatchKey.Functionalize)
    hop.python_key_table.pop(FunctionalTensorMode)
    hop.py_functionalize_impl(rule)
    leaf = t(X, requires_grad=True)
    x = leaf * 1
    func.functionalize(lambda a: hop(lambda b: b * 5, a))(x)
    x.sum().backward()
    assert np.allclose(x.detach().numpy(), X * 5)
    assert np.allclose(leaf.grad.numpy(), 1 if hidden else 5)


def test_the_form_at_the_key(api: FunctionalizeAPI) -> None:
    """S110: at the key Functionalize the tensors say which functionalization it is."""
    x = api.wrap_tensors(t(X))
    out, seen = rules_of(apply_scaled.dispatch, DispatchKey.Functionalize, double, x, 3.0)
    assert seen == ["functionalize", "eager"] and api.level.owns(out)
    with pytest.raises(UsageError, match="no functionalization runs"):
        apply_scaled.dispatch(DispatchKey.Functionalize, double, t(X), 3.0)


def test_the_form_of_the_mode() -> None:
    """S110: the mode's form wraps what it gives, and leaves users' subclasses to others."""
    with FunctionalTensorMode() as mode:
        assert infra_mode(ModeKey.FUNCTIONAL) is mode
        out, seen = rules_of(call, t(X))
    assert seen == ["functionalize", "eager"] and mode.level.owns(out)

    class Mine(polyop.Tensor):
        pass

    mine = Mine()
    mine.payload, mine.keys, mine.version = X, 1, 0
    assert apply_scaled.python_key_table[FunctionalTensorMode](mode, double, mine, 3.0) is (
        NotImplemented
    )


def test_library_register_fake_takes_a_higher_order_operator() -> None:
    """S46, S177: `polyop.library.register_fake` gives a higher-order operator its fake rule, which
    belongs to the operator; a second one, or a library for it, is refused."""

    class Doubled(HigherOrderOperator):
        def __call__(self, fn: Any, x: Any) -> Any:
            return super().__call__(fn, x)

    doubled = Doubled("hostile_doubled")
    doubled.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda fn, x: fn(fn(x)))
    doubled.py_autograd_impl(lambda fn, x: fn(fn(x)))
    lib = Library("hostile_fakes", "FRAGMENT")
    with pytest.raises(UsageError, match="belong to it"):
        polyop.library.register_fake(doubled, lambda fn, x: x, lib=lib)

    @polyop.library.register_fake(doubled)
    def fake(fn: Any, x: Any) -> Any:
        return polyop.empty_like(x)

    x = FakeTensorMode().from_tensor(polyop.ones(3))
    assert doubled(lambda a: a, x).shape == (3,)
    with pytest.raises(DuplicateRegistrationError):
        polyop.library.register_fake(doubled, fake)

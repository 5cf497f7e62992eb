"""Operators that call one function: all their rules follow from the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import func
from polyop.errors import MissingKernelError, SubgraphError
from polyop.extend import DispatchMode, SubgraphOperator, trace_subgraph
from polyop.fake import FakeTensorMode
from polyop.graph import GraphModule, eliminate_common_subexpressions, eliminate_dead_code, make_fx
from polyop.graph.node import GET_ATTR

block = SubgraphOperator("test_block")
inner_block = SubgraphOperator("test_inner_block")
X = np.asarray([1.0, 2.0, 3.0])


def t(values: Any, requires_grad: bool = False) -> polyop.Tensor:
    made = polyop.tensor(np.asarray(values))
    return made.requires_grad_() if requires_grad else made


def cube(a: Any) -> Any:
    return (a * a * a).sum()


def calls(module: GraphModule) -> list[str]:
    """The names of what a program calls, without subgraphs."""
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


#: Functions of one vector that call the operator; each in a way that a rule must get right.
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda x: block(lambda a: a * 2 + 1, x),
    "sum": lambda x: block(cube, x),
    "two operands": lambda x: block(lambda a, b: a * b, x, x + 1),
    "twice": lambda x: block(cube, block(lambda a: a * 2, x)),
    "nested": lambda x: block(lambda a: inner_block(lambda b: b * b, a) + a, x),
    "structure": lambda x: (lambda r: r["a"] + r["b"][0])(
        block(lambda a: {"a": a * 3, "b": (a * a, 7)}, x)
    ),
    "tree of operands": lambda x: block(lambda p: p["u"] * p["v"][0], {"u": x, "v": [x * 2]}),
    "a view inside": lambda x: block(lambda a: a.reshape((1, 3)).sum(axis=0) * 2, x),
    "a write inside": lambda x: block(lambda a: (a * 2).add_(1), x),
    "integers too": lambda x: block(lambda a: (a * 2, a.argmax()), x)[0],
}
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda f: f,
    "vmap": lambda f: lambda x: polyop.vmap(f)(polyop.stack([x, x + 1])),
    "grad": lambda f: func.grad(lambda x: f(x).sum()),
    "second grad": lambda f: func.grad(lambda x: func.grad(lambda y: f(y).sum())(x * x).sum()),
    "vmap of grad": lambda f: (
        lambda x: polyop.vmap(func.grad(lambda y: f(y).sum()))(polyop.stack([x, x + 1]))
    ),
    "grad of vmap": lambda f: func.grad(lambda x: polyop.vmap(f)(polyop.stack([x, x * x])).sum()),
    "functionalize": func.functionalize,
    "autograd": lambda f: (
        lambda x: polyop.autograd.grad(f(y := x.clone().requires_grad_()).sum(), [y])[0]
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_rule_is_the_function(
    program: str, transform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S178: under each transform, eager and traced, a call equals a call of its function."""
    f = TRANSFORMS[transform](PROGRAMS[program])
    got = f(t(X))
    traced = [make_fx(f, mode)(t(X)) for mode in ("real", "fake", "symbolic")]
    ran = [module(t(X + 0.5)) for module in traced]
    for module in traced:
        module.graph.lint(module)
        assert any("block" in name for name in calls(module)), "the operator is a node"
    with monkeypatch.context() as patched:
        patched.setattr(SubgraphOperator, "__call__", lambda self, fn, *args: fn(*args))
        expected, later = f(t(X)), f(t(X + 0.5))
    assert np.allclose(got.detach().numpy(), expected.detach().numpy())
    for result in ran:
        assert np.allclose(result.detach().numpy(), later.detach().numpy())


@pytest.mark.parametrize("program", PROGRAMS)
def test_fakes_are_the_function_s(program: str) -> None:
    """S177, S178: with fakes a call gives what its function gives, shape and dtype."""
    mode = FakeTensorMode()
    out = PROGRAMS[program](mode.from_tensor(t(X)))
    real = PROGRAMS[program](t(X))
    assert out.is_fake and (out.shape, out.dtype) == (real.shape, real.dtype)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_are_traced_and_compiled_again(program: str) -> None:
    """S178: a program with subgraphs is a function: traced again, differentiated, compiled."""
    module = make_fx(PROGRAMS[program], "fake")(t(X))
    again = make_fx(module, "fake")(t(X))
    assert calls(again) == calls(module)
    expected = PROGRAMS[program](t(X)).numpy()
    assert np.allclose(again(t(X)).numpy(), expected)
    assert np.allclose(polyop.compile(PROGRAMS[program])(t(X)).numpy(), expected)
    x, y = t(X, requires_grad=True), t(X, requires_grad=True)
    module(x).sum().backward()
    PROGRAMS[program](y).sum().backward()
    assert np.allclose(x.grad.numpy(), y.grad.numpy())


def test_a_trace_before_dispatch() -> None:
    """S118, S209: before dispatch too a call is one node, and its subgraph is traced alike."""
    module = make_fx(PROGRAMS["nested"], "fake", pre_dispatch=True)(t(X))
    assert calls(module) == ["test_block"]
    assert np.allclose(module(t(X)).numpy(), X * X + X)
    x = t(X, requires_grad=True)
    module(x).sum().backward()
    assert np.allclose(x.grad.numpy(), 2 * X + 1)


# -- what a subgraph may use --------------------------------------------------


def test_the_outer_graph_sees_one_node() -> None:
    """S178: a subgraph is an attribute of the program, read by get_attr, and printed with it."""
    module = make_fx(lambda x: block(lambda a: a.sin().cos(), x) + 1, "fake")(t(X))
    assert calls(module) == ["test_block", "core.add.Scalar"]
    (name,) = [str(n.target) for n in module.graph.nodes if n.op == GET_ATTR]
    assert isinstance(module.get_attr(name), GraphModule)
    assert f"class {name}" in module.print_readable(print_output=False)
    scope = module.namespace
    exec(module.code, scope)  # noqa: S102 - printed code runs
    assert np.allclose(scope["forward"](module, t(X)).numpy(), np.cos(np.sin(X)) + 1)


def test_free_tensors_are_operands() -> None:
    """S178: tensors that a traced function closes over become inputs of the subgraph."""

    def f(x: Any) -> Any:
        c = x * 2
        return block(lambda a: a * c + constant, x)

    constant = t([5.0, 5.0, 5.0])
    module = make_fx(f, "fake")(t(X))
    node = next(n for n in module.graph.nodes if "block" in str(n.target) and n.op != GET_ATTR)
    assert len(node.args) == 4  # subgraph, x, c, constant
    assert np.allclose(module(t(X)).numpy(), 2 * X * X + 5)


def test_free_sizes_are_operands() -> None:
    """S178: a size of the trace around is an input too; the program holds for other sizes."""
    module = make_fx(lambda x, y: block(lambda a: a * y.shape[0], x), "symbolic")(
        t(X), polyop.ones(5)
    )
    assert np.allclose(module(t(X), polyop.ones(7)).numpy(), X * 7)


def test_gradients_of_free_tensors_are_not_lost() -> None:
    """S178: a traced function may close over what requires grad: a gradient, or an error."""

    def gradient(hide: bool) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            p, x = t(X, requires_grad=True), x.clone().requires_grad_()
            holder = type("Holder", (), {"p": p})
            fn = (lambda a: (a * holder.p).sum()) if hide else (lambda a: (a * p).sum())
            return polyop.autograd.grad(block(fn, x), [p])[0]

        return f

    assert np.allclose(make_fx(gradient(False), "fake")(t(X))(t(X + 1)).numpy(), X + 1)
    with pytest.raises(SubgraphError, match=r"requires grad and is no operand"):
        make_fx(gradient(True), "fake")(t(X))


@pytest.mark.parametrize("hide", [False, True])
def test_free_batches_stay_beside_their_sample(hide: bool) -> None:
    """S178: a tensor of the same vmap that the function closes over is that of its own sample."""

    def f(a: Any, b: Any) -> Any:
        holder = type("Holder", (), {"b": b})
        return block((lambda x: x * holder.b) if hide else (lambda x: x * b), a)

    g = polyop.vmap(f)
    x, y = t([X, X]), t([2.0, 3.0])
    expected = np.asarray([X * 2, X * 3])
    if hide:  # the other is refused outside of a trace
        assert np.allclose(g(x, y).numpy(), expected)
    assert np.allclose(make_fx(g, "fake")(x, y)(x, y).numpy(), expected)


def test_free_tensors_outside_of_a_trace() -> None:
    """S178: outside of tracing a function that closes over a tensor → SubgraphError naming it."""
    c = t(X)
    helper = lambda a: a * c  # noqa: E731 - a closure within a closure
    for fn in (lambda a: a + c, lambda a: helper(a), lambda a: (lambda: a + c)()):
        with pytest.raises(SubgraphError, match=r"uses the tensor 'c'"):
            block(fn, t(X))
    with pytest.raises(SubgraphError, match="GLOBAL"):
        block(lambda a: a + GLOBAL, t(X))
    with pytest.raises(SubgraphError, match="takes a function"):
        block(t(X), t(X))
    scale = 3
    assert block(lambda a: (a * scale).sum(), t(X)).item() == 18


GLOBAL = t(X)


# -- what a subgraph may do ---------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (lambda a: a.add_(1), r"writes its input 'a'.*add_.*test_subgraph"),
        (lambda a: (a[0].add_(1), a * 2)[1], r"writes its input 'a'.*test_subgraph"),
        (lambda a: a, r"returns memory of its input 'a'.*test_subgraph"),
        (lambda a: (a * 2, a[0]), r"returns memory of its input 'a'.*select"),
    ],
)
def test_writes_and_aliases_are_refused(fn: Any, what: str) -> None:
    """S181: a traced function that writes or aliases an input → SubgraphError, input and line."""
    for mode in ("real", "fake"):
        with pytest.raises(SubgraphError, match=f"(?s){what}"):
            make_fx(lambda x: block(fn, x), mode)(t(X))


def test_writes_to_free_tensors_are_refused() -> None:
    """S181: so is a write to what it closes over."""

    def f(x: Any) -> Any:
        c = x * 1
        return block(lambda a: (c.add_(1), a * 2)[1], x)

    with pytest.raises(SubgraphError, match="writes its input"):
        make_fx(f, "fake")(t(X))


def test_schema_of_a_call() -> None:
    """S123, S178: gen_schema gives the leaves of a call, and which of them are written."""
    assert str(block.gen_schema(cube, t(X))) == (
        "higher_order::test_block(Any subgraph, Tensor operand0) -> Tensor"
    )
    x = t(X)
    written = block.gen_schema(lambda a, n, b: (b.add_(n), a + 1), x, 3, t(X))
    assert [a.name for a in written.written] == ["operand2"]
    assert np.allclose(x.numpy(), X), "nothing was run on the data"


def test_passes_look_into_subgraphs() -> None:
    """S198: a call whose subgraph draws at random stays; others go if nobody reads them."""

    def f(x: Any) -> Any:
        block(lambda a: a + 1, x)
        block(lambda a: a + polyop.rand((3,)), x)
        return x * 2

    module = make_fx(f, "fake")(t(X))
    eliminate_common_subexpressions(module.graph)
    eliminate_dead_code(module.graph)
    module.graph.lint(module)
    assert calls(module).count("test_block") == 1


# -- modes --------------------------------------------------------------------


class Log(DispatchMode):
    """Writes down each call."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(op))
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_mode_gets_the_call_whole(transform: str) -> None:
    """S119, S178: a mode sees one call, batched or differentiated; gradients are as without it."""
    f = TRANSFORMS[transform](PROGRAMS["sum"])
    with Log() as log:
        got = f(t(X))
    assert "test_block" in log.seen
    assert np.allclose(got.numpy(), f(t(X)).numpy())


def test_a_mode_that_knows_no_operators_of_this_kind() -> None:
    """S119: a mode that takes none → MissingKernelError, whatever the operator derives."""

    class Plain(DispatchMode):
        pass

    with pytest.raises(MissingKernelError, match="Plain"), Plain():
        block(cube, t(X))


# -- trace_subgraph -----------------------------------------------------------


def test_trace_subgraph_alone() -> None:
    """S178: outside of a trace it gives a program, what it used, what it wrote, and the result."""
    c = t(X)
    found = trace_subgraph(lambda a, b: (a.add_(b["k"]), a * c)[1], [t(X), {"k": c}], strict=False)
    assert [n.target for n in found.module.graph.placeholders] == ["a", "b_0", "free0"]
    assert found.lifted[0] is c and found.written == (0,)
    found.module.graph.lint(found.module)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["sin", "double", "block", "free", "sum"]), max_size=6))
def test_any_nesting(steps: list[str]) -> None:
    """S178: any nesting of subgraphs, closures and operators traces to a program that is it."""

    def f(x: Any) -> Any:
        def build(rest: list[str], a: Any, before: Any) -> Any:
            if not rest:
                return a * 1
            step, *rest = rest
            if step == "block":
                return block(lambda b: build(rest, b, a), a)
            made = {"sin": a.sin, "double": lambda: a * 2, "sum": lambda: a + a.sum()}
            return build(rest, made.get(step, lambda: a * before)(), a)

        return build(steps, x, x)

    module = make_fx(f, "symbolic")(t(X))
    x, y = t(X, requires_grad=True), t(X, requires_grad=True)
    out = module(x)
    with_blocks, SubgraphOperator.__call__ = (
        SubgraphOperator.__call__,
        lambda self, fn, *args: fn(*args),  # type: ignore[method-assign,assignment]
    )
    try:
        expected = f(y)
    finally:
        SubgraphOperator.__call__ = with_blocks  # type: ignore[method-assign]
    assert np.allclose(out.detach().numpy(), expected.detach().numpy())
    out.sum().backward()
    expected.sum().backward()
    assert np.allclose(x.grad.numpy(), y.grad.numpy())

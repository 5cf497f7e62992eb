"""Each operator of control flow is Python's own, under every layer (S178 to S182)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.hop.control_samples import SAMPLES, Sample, equal, inputs, total

import polyop
from polyop.fake import FakeTensorMode
from polyop.func import functionalize, grad
from polyop.graph import make_fx
from polyop.symbolic import ShapeEnv

every = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
tracing = pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])


@every
def test_a_call_is_python(sample: Sample) -> None:
    """S179: a call gives what plain Python gives, on tensors with data."""
    for x in inputs():
        equal(sample.call(x), sample.python(x))


@every
def test_backward_is_that_of_python(sample: Sample) -> None:
    """S179: backward through a call gives the gradient of plain Python."""
    for x in inputs():
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        total(sample.call)(a).backward()
        total(sample.python)(b).backward()
        equal(a.grad, b.grad)


@every
def test_func_grad_is_that_of_python(sample: Sample) -> None:
    """S179: func.grad of a call, once and twice, is that of plain Python."""
    for x in inputs():
        equal(grad(total(sample.call))(x), grad(total(sample.python))(x))
        second = [grad(lambda y, f=f: (grad(total(f))(y) ** 2).sum())(x) for f in sample[1:3]]
        equal(*second)


@every
def test_vmap_is_the_loop(sample: Sample) -> None:
    """S179: vmap of a call is the loop over its samples, whichever way each of them takes."""
    rows = [sample.python(x) for x in inputs()]
    looped = polyop.tree.map_leaves(lambda *r: polyop.stack(list(r)), rows[0], *rows[1:])
    equal(polyop.vmap(sample.call)(polyop.stack(inputs())), looped)


@every
def test_vmap_of_grad_is_the_loop(sample: Sample) -> None:
    """S179: vmap of the gradient is the loop over gradients."""
    looped = polyop.stack([grad(total(sample.python))(x) for x in inputs()])
    equal(polyop.vmap(grad(total(sample.call)))(polyop.stack(inputs())), looped)


@every
def test_grad_of_vmap_is_the_loop(sample: Sample) -> None:
    """S179: the gradient of vmap is the loop over gradients."""
    looped = polyop.stack([grad(total(sample.python))(x) for x in inputs()])
    found = grad(lambda x: polyop.vmap(total(sample.call))(x).sum())(polyop.stack(inputs()))
    equal(found, looped)


@every
def test_fakes_have_the_form_of_results(sample: Sample) -> None:
    """S179: on fakes a call gives fakes of the structure, shapes and dtypes of its results."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
    for x in inputs():
        with mode:
            fake = sample.call(mode.from_tensor(x))
        forms = [polyop.tree.map_leaves(form, y) for y in (fake, sample.python(x))]
        assert forms[0] == forms[1]


def form(y: Any) -> Any:
    return "x".join(map(str, y.shape)), str(y.dtype)


@every
@tracing
def test_a_trace_runs_like_the_call(sample: Sample, mode: str) -> None:
    """S209: a traced call is a program that passes its verifier, and gives what the call gives."""
    first, second = inputs()
    program = make_fx(sample.call, mode)(first)
    program.graph.lint()
    for x in (first, second):
        equal(program(x), sample.python(x))


@every
def test_a_trace_has_one_node_of_the_operator(sample: Sample) -> None:
    """S178: a traced call is one node, unless the operator is its own operators."""
    program = make_fx(sample.call, "fake")(inputs()[0])
    names = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    expected = sample.name.split(" of")[0].split(" over")[0].split(" back")[0]
    expected = "scan" if " in " in expected else expected
    assert names.count(expected) == (expected != "custom_function_call")


@every
@tracing
def test_a_traced_gradient_is_right(sample: Sample, mode: str) -> None:
    """S179: the program of a gradient computes it, on data that take other ways too."""
    first, second = inputs()
    traced = make_fx(grad(total(sample.call)), mode)
    program = traced(first)
    program.graph.lint()
    for x in (first, second):
        equal(program(x), grad(total(sample.python))(x))


@every
def test_backward_through_a_program(sample: Sample) -> None:
    """S179: backward through the run of a program is backward through the call."""
    first, second = inputs()
    program = make_fx(sample.call, "fake")(first)
    for x in (first, second):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        total(program)(a).backward()
        total(sample.python)(b).backward()
        equal(a.grad, b.grad)


@every
def test_a_trace_of_vmap_is_the_loop(sample: Sample) -> None:
    """S179: the program of a vmap gives what the loop gives."""
    x = polyop.stack(inputs())
    rows = [sample.python(row) for row in inputs()]
    looped = polyop.tree.map_leaves(lambda *r: polyop.stack(list(r)), rows[0], *rows[1:])
    program = make_fx(polyop.vmap(sample.call), "fake")(x)
    program.graph.lint()
    equal(program(x), looped)


@every
def test_a_trace_of_grad_of_vmap_is_the_loop(sample: Sample) -> None:
    """S179: the program of a gradient through vmap gives what the loop over gradients gives."""
    x = polyop.stack(inputs())
    looped = polyop.stack([grad(total(sample.python))(row) for row in inputs()])
    program = make_fx(grad(lambda y: polyop.vmap(total(sample.call))(y).sum()), "fake")(x)
    equal(program(x), looped)
    program = make_fx(polyop.vmap(grad(total(sample.call))), "fake")(x)
    equal(program(x), looped)


@every
def test_functionalized_is_the_call(sample: Sample) -> None:
    """S179: functionalized, and traced so, a call gives what it gives."""
    for x in inputs():
        equal(functionalize(sample.call)(x), sample.python(x))
        program = make_fx(functionalize(sample.call), "fake")(x)
        program.graph.lint()
        equal(program(x), sample.python(x))


@every
def test_compiled_is_the_call(sample: Sample) -> None:
    """S179: compiled as one graph, a call gives what it gives, and its gradient."""
    compiled = polyop.compile(sample.call, fullgraph=True)
    for x in inputs():
        equal(compiled(x), sample.python(x))
    for x in inputs():
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        total(compiled)(a).backward()
        total(sample.python)(b).backward()
        equal(a.grad, b.grad)


@every
def test_a_trace_before_dispatch_is_the_call(sample: Sample) -> None:
    """S209: traced before dispatch, a program gives what the call gives."""
    first, second = inputs()
    program = make_fx(sample.call, "fake", pre_dispatch=True)(first)
    program.graph.lint()
    for x in (first, second):
        equal(program(x), sample.python(x))

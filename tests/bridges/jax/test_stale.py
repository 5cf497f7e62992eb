"""A rule that is registered again is the one that JAX's programs have, from the next call on."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.bridges.changing import stale_slopes

import polyop
from polyop.bridges.jax import anew
from polyop.errors import MetadataMismatchError, OperatorGoneError, UsageError

wrap = polyop.from_numpy


def made(name):
    op = backward_alone(name)
    op.register_jvp(lambda ctx, t: t * 1)
    return op


def backward_alone(name):
    op = polyop.custom_op(
        f"jaxstale::{name}", lambda x: wrap(x.numpy() * 2), mutates_args=(),
        schema="(Tensor x) -> Tensor", replace=True,
    )  # fmt: skip
    op.register_fake(lambda x: polyop.empty_like(x))
    op.register_autograd(lambda ctx, g: g * 1)
    op.register_vmap(lambda info, dims, x: (op(x), dims[0]))
    return op


def in_scan(op):
    def total(x):
        return jax.lax.scan(lambda c, _: (op(c) * 0.5, None), x, None, length=1)[0].sum() * 2

    return total


X = jnp.ones(2)
#: Ways in which a program holds a gradient.
GRADIENTS = {
    "grad": lambda op: jax.jit(jax.grad(lambda x: op(x).sum())),
    "inner jit": lambda op: jax.grad(jax.jit(lambda x: op(x).sum())),
    "scan": lambda op: jax.jit(jax.grad(in_scan(op))),
    "eager scan": lambda op: jax.grad(in_scan(op)),
    "remat": lambda op: jax.jit(jax.grad(jax.checkpoint(lambda x: op(x).sum()))),
    "vmap": lambda op: lambda x: jax.jit(jax.vmap(jax.grad(lambda x: op(x))))(x),
    "linear": lambda op: jax.jit(lambda x: jax.jvp(lambda x: op(x).sum(), (x,), (X,))[1] / 2),
}


@pytest.mark.parametrize("way", GRADIENTS)
def test_a_new_backward(way):
    """S34: in each way, however often; forward mode that is made of it follows it."""
    op = backward_alone("backward")
    run = GRADIENTS[way](op)
    for k in (1, 2, 3):
        op.register_autograd(lambda ctx, g, k=k: g * k)
        for _ in range(2):
            np.testing.assert_allclose(run(X), k)


def test_a_new_forward_mode():
    """S34: the author's `jvp`."""
    op = made("jvp")
    run = jax.jit(lambda x: jax.jvp(op, (x,), (x,))[1])
    for k in (1, 2, 3):
        op.register_jvp(lambda ctx, t, k=k: t * k)
        np.testing.assert_allclose(run(X), k)


def test_a_new_batching_rule():
    """S34: the author's batching rule, and an index signature in its place."""
    op = made("vmap")
    run = jax.jit(lambda x: jax.vmap(op)(x))
    for k in (1, 2, 3):
        op.register_vmap(lambda info, dims, x, k=k: (op(x) * k, dims[0]))
        np.testing.assert_allclose(run(jnp.ones((2, 3))), 2 * k)


def test_a_new_fake_rule():
    """S34: programs are of the new sizes, and so are calls outside of them."""
    op = made("fake")
    run = jax.jit(lambda x: op(x) + 1)
    for call in (op, op, run):
        assert call(jnp.ones(3)).shape == (3,)
    op.register_fake(lambda x: x.new_empty([1]))
    for call in (op, op, run):
        with pytest.raises(
            (MetadataMismatchError, ValueError, jax.errors.JaxRuntimeError),
            match="jaxstale::fake is not what its fake rule says",
        ):
            jax.block_until_ready(call(jnp.ones(3)))
    op.register_kernel("cpu", lambda x: wrap(x.numpy()[:1] * 5))
    for call in (op, op, run):
        assert call(jnp.ones(3)).shape == (1,)


@pytest.mark.parametrize("inside", [True, False])
def test_another_dtype_than_declared_is_refused(inside):
    """S66: a program never takes the bits of one dtype for another."""
    op = made("dtype")
    op.register_kernel("cpu", lambda x: wrap(x.numpy().astype(np.int32)))
    with pytest.raises(
        (MetadataMismatchError, ValueError, jax.errors.JaxRuntimeError),
        match="the dtype of result 0 of jaxstale::dtype is not what its fake rule says",
    ):
        jax.block_until_ready((jax.jit(lambda x: op(x)) if inside else op)(jnp.ones(3, "float32")))


def test_a_new_kernel_leaves_programs_as_they_are(monkeypatch):
    """S34: it runs in them, and they are not compiled anew for it."""
    op = made("kernel")
    run = jax.jit(lambda x: op(x))
    np.testing.assert_allclose(run(X), 2)
    monkeypatch.setattr(anew.COMPILED, "empty", lambda op: pytest.fail("emptied"))
    op.register_kernel("cpu", lambda x: wrap(x.numpy() * 3))
    np.testing.assert_allclose(run(X), 3)
    made("another")
    other = made("called")
    other(X)
    other.register_autograd(lambda ctx, g: g * 2)


def test_a_new_kernel_for_jax():
    """S34: one for JAX's own arrays, which programs contain."""
    op = made("own")
    run = jax.jit(lambda x: op(x))
    np.testing.assert_allclose(run(X), 2)
    for k in (5, 6):
        op.register_kernel(None, lambda x, k=k: x * k, library="jax")
        for call in (run, op):
            np.testing.assert_allclose(call(X), k)


def test_an_effect_that_comes_later():
    """S189: programs that would leave out its calls are refused from then on."""
    op = made("effect")
    run = jax.jit(lambda x: op(x))
    np.testing.assert_allclose(run(X), 2)
    np.testing.assert_allclose(op(X), 2)
    polyop.library.register_effect("jaxstale::effect", polyop.library.EffectType.ORDERED)
    with pytest.raises(UsageError, match="jaxstale::effect has an effect"):
        run(X)
    np.testing.assert_allclose(op(X), 2)


def test_a_program_finds_the_operator_that_is_defined_anew():
    """S15: the cell that defines it is run again; who holds the former one is told."""
    scope = {"op": made("anew")}
    former = scope["op"]
    run, old = jax.jit(lambda x: scope["op"](x)), jax.jit(lambda x: former(x))
    np.testing.assert_allclose(run(X), 2)
    np.testing.assert_allclose(old(X), 2)
    scope["op"] = made("anew")
    scope["op"].register_kernel("cpu", lambda x: wrap(x.numpy() * 7))
    np.testing.assert_allclose(run(X), 7)
    with pytest.raises(OperatorGoneError, match="jaxstale::anew was removed"):
        old(X)


def _ends(call, wanted):
    """Wait until a call gives something: who changes a rule inside of a trace waits for nobody."""
    end = time.monotonic() + 20
    while float(call(X)[0]) != wanted and time.monotonic() < end:
        time.sleep(0.01)
    np.testing.assert_allclose(call(X), wanted)


@pytest.mark.parametrize("where", ["kernel", "fake", "function"])
def test_rules_may_change_while_jax_is_at_work(where):
    """S34: within a kernel, a fake rule or a traced function: the trace ends as it began."""
    op = backward_alone("within")
    new = []

    def change(*_):
        if new:
            k = new.pop()
            op.register_autograd(lambda ctx, g: g * k)

    if where == "kernel":
        op.register_kernel("cpu", lambda x: (change(), wrap(x.numpy() * 2))[1])
    if where == "fake":
        op.register_fake(lambda x: (change(), polyop.empty_like(x))[1])

    def function(x):
        change() if where == "function" else None
        return (op(x) ** 2).sum() / 4

    run = jax.jit(jax.grad(function))
    new.append(5)
    assert float(run(X)[0]) in {1.0, 5.0}
    _ends(run, 5)
    assert not new


def test_threads_call_meanwhile():
    """S34: who calls after a registration gets its rule, however many compile and call."""
    op = backward_alone("threads")
    runs = [GRADIENTS["grad"](op), GRADIENTS["scan"](op)]
    slopes = [lambda run=run: float(run(X)[0]) for run in runs]
    wrong = stale_slopes(op, slopes, last=9, pause=0.05)
    assert not wrong
    for run in runs:
        np.testing.assert_allclose(run(X), 9)

"""Operators in JAX's transformations: each composition equals that of JAX's own function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from tests.bridges.jax import operators as ops

import polyop

# Operators without a batching rule say that they are slow; here that is known.
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


def total(f):
    return lambda *args: (f(*args) ** 2).sum()


def ours(x):
    return ops.sin(x, 2.0)


def theirs(x):
    return jnp.sin(2 * x)


def scanned(f):
    return lambda x: jax.lax.scan(lambda c, row: (c + f(row).sum(), f(row)), 0.0, x)[1]


COMPOSITIONS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "grad": lambda f: jax.grad(total(f)),
    "jit grad": lambda f: jax.jit(jax.grad(total(f))),
    "grad jit": lambda f: jax.grad(total(jax.jit(f))),
    "value_and_grad": lambda f: lambda x: jax.value_and_grad(total(f))(x)[1],
    "vmap": jax.vmap,
    "vmap vmap": lambda f: jax.vmap(jax.vmap(f)),
    "vmap of columns": lambda f: jax.vmap(f, in_axes=1, out_axes=1),
    "jit vmap grad": lambda f: jax.jit(jax.vmap(jax.grad(total(f)))),
    "grad vmap": lambda f: jax.grad(total(jax.vmap(f))),
    "vmap jacfwd": lambda f: jax.vmap(jax.jacfwd(f)),
    "jacrev": jax.jacrev,
    "jacfwd": jax.jacfwd,
    "jacfwd jit": lambda f: jax.jacfwd(jax.jit(f)),
    "hessian": lambda f: jax.hessian(total(f)),
    "jit hessian": lambda f: jax.jit(jax.hessian(total(f))),
    "jacrev jacrev": lambda f: jax.jacrev(jax.jacrev(f)),
    "jacfwd jacfwd": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "jacrev jacfwd": lambda f: jax.jacrev(jax.jacfwd(f)),
    "linearize": lambda f: lambda x: jax.linearize(f, x)[1](x),
    "jvp jvp": lambda f: lambda x: jax.jvp(lambda y: jax.jvp(f, (y,), (x,))[1], (x,), (x,))[1],
    "scan": scanned,
    "grad scan": lambda f: jax.grad(total(scanned(f))),
    "remat": lambda f: jax.grad(total(jax.checkpoint(f))),
    "fori": lambda f: lambda x: jax.lax.fori_loop(0, 3, lambda _, c: f(c), x),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_composition_is_that_of_jax(name):
    """S66: an operator with rules, called with JAX's arrays, is as native as JAX's own function."""
    x = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    compose = COMPOSITIONS[name]
    np.testing.assert_allclose(compose(ours)(x), compose(theirs)(x), rtol=1e-5, atol=1e-5)


def test_second_order_gradients_agree_with_differences():
    """S124: what backward is made of is differentiated again, in both modes."""
    check_grads(ours, (jnp.linspace(0.1, 1.0, 4),), 2, atol=1e-2, rtol=1e-2)


def blended(a, b, mask):
    return ops.blend([a, b], mask, weight=0.25)


def blended_by_jax(a, b, mask):
    return (a + b) * 0.25 * mask, (a > 0).astype(jnp.int32) + (b > 0).astype(jnp.int32)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_lists_optional_tensors_keywords_and_several_results(wrap):
    """S66: lists, optional tensors and keyword-only arguments keep their places; results, too."""
    a, b = jnp.arange(6.0).reshape(2, 3) - 2, jnp.ones((2, 3))
    mask = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    for found, wanted in zip(
        wrap(blended)(a, b, mask), wrap(blended_by_jax)(a, b, mask), strict=True
    ):
        np.testing.assert_allclose(found, wanted)
        assert found.dtype == wanted.dtype
    np.testing.assert_allclose(ops.blend([a, b], None)[0], (a + b) * 0.5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 1, 2)])
def test_gradients_of_lists_and_results_that_have_none(wrap, places):
    """S127: gradients mirror lists; S125: a result without gradient gives nothing."""
    a, b = jnp.arange(3.0), jnp.ones(3)
    mask = jnp.array([0.0, 1.0, 2.0])

    def loss(f):
        return lambda *args: (f(*args)[0] ** 2 * f(*args)[1]).sum()

    found = wrap(jax.grad(loss(blended), places))(a, b, mask)
    wanted = jax.grad(loss(blended_by_jax), places)(a, b, mask)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other)
    tangents = jax.jvp(lambda a: blended(a, b, mask)[0], (a,), (mask,))[1]
    np.testing.assert_allclose(tangents, mask * 0.25 * mask)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_complex_gradients_have_the_convention_of_jax(wrap):
    """S124: authors write PyTorch's gradient of a complex number, the conjugate of JAX's."""
    z, w = jnp.array([1 + 2j, 3 - 1j]), jnp.array([2.0 - 1j, 0.5 + 3j])

    def loss(f):
        return lambda z: (w * f(z)).sum().real + jnp.abs(f(z)).sum()

    found = wrap(jax.grad(loss(ops.square)))(z)
    np.testing.assert_allclose(found, jax.grad(loss(lambda z: z**2))(z), rtol=1e-5)
    tangent = wrap(lambda z: jax.jvp(ops.square, (z,), (w,))[1])(z)
    np.testing.assert_allclose(tangent, 2 * z * w, rtol=1e-5)


def test_a_jvp_alone_serves_both_modes():
    """S132: JAX transposes what an author's `jvp` computes."""
    x = jnp.linspace(0.0, 1.0, 3)
    wanted = jnp.exp(x)
    np.testing.assert_allclose(jax.jvp(ops.exp, (x,), (jnp.ones(3),))[1], wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: ops.exp(x).sum())(x), wanted, rtol=1e-6)
    hessian = jax.jit(jax.hessian(lambda x: ops.exp(x).sum()))(x)
    np.testing.assert_allclose(hessian, jnp.diag(wanted), rtol=1e-6)


def test_each_mode_runs_the_rule_that_its_author_gave():
    """S132: `jvp` with what was saved for it, and backward with what was saved for that."""
    x = jnp.linspace(0.0, 1.0, 3)
    ops.MODES.clear()
    np.testing.assert_allclose(
        jax.jvp(ops.exp_with_both, (x,), (jnp.ones(3),))[1], jnp.exp(x), rtol=1e-6
    )
    assert ops.MODES == ["jvp"]
    ops.MODES.clear()
    np.testing.assert_allclose(
        jax.grad(lambda x: ops.exp_with_both(x).sum())(x), jnp.exp(x), rtol=1e-6
    )
    assert ops.MODES == ["backward"]


def test_without_a_rule_vmap_compiles_one_loop():
    """S157: an operator without a batching rule runs in a loop that JAX compiles."""
    z = jnp.arange(12.0).reshape(4, 3)
    np.testing.assert_allclose(jax.vmap(ops.square)(z), z**2)
    np.testing.assert_allclose(jax.jit(jax.vmap(ops.square, in_axes=1))(z), (z**2).T)
    assert jax.vmap(ops.square)(jnp.zeros((0, 3))).shape == (0, 3)
    text = str(jax.make_jaxpr(jax.vmap(ops.square))(z))
    assert text.count("jaxtest::square[") == 1


def test_examples_are_native():
    """S66: two operators that are each other's gradients, with integers as static arguments."""
    crop = pytest.importorskip("examples.crop").crop
    pic = jnp.arange(168.0).reshape(3, 8, 7)
    batch, box = jnp.stack([pic, 2 * pic]), [1, 2, 5, 6]
    for name in ("jit", "grad", "hessian free", "vmap", "jit vmap grad", "grad vmap"):
        compose = COMPOSITIONS.get(name) or (
            lambda f: lambda p: jax.jvp(jax.grad(total(f)), (p,), (p,))[1]
        )
        x = batch if "vmap" in name else pic
        found = compose(lambda p: crop(p, box))(x)
        np.testing.assert_allclose(found, compose(lambda p: p[:, 2:6, 1:5])(x))


def test_gradients_of_a_decomposition():
    """S124: an operator that only says what it is made of has the gradient of that, here too."""
    cube = polyop.custom_op(
        "jaxtest::cube", lambda x: polyop.from_numpy(x.numpy() ** 3), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    cube.register_fake(lambda x: polyop.empty_like(x))
    cube.register_decomposition(lambda x: x * x * x)
    x = jnp.arange(4.0)
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(wrap(jax.grad(lambda x: cube(x).sum()))(x), 3 * x**2)


def test_our_own_gradients_over_arrays_of_jax():
    """S124: a tensor over JAX's array is differentiated by polyop, through the same operator."""
    t = polyop.from_array(jnp.linspace(0.0, 1.0, 3)).requires_grad_()
    ops.sin(t).sum().backward()
    found = polyop.to_array(t.grad)
    assert isinstance(found, jax.Array)
    np.testing.assert_allclose(found, jnp.cos(jnp.linspace(0.0, 1.0, 3)), rtol=1e-6)


@polyop.custom_op("jaxtest::odd", mutates_args=())
def odd(x: polyop.Tensor, y: polyop.Tensor) -> tuple[polyop.Tensor, polyop.Tensor, polyop.Tensor]:
    order = np.argsort(x.numpy())
    made = (x.numpy() * 2, y.numpy() * 3, order)
    return tuple(polyop.from_numpy(a) for a in made)


@odd.register_fake
def odd_fake(x, y):
    return polyop.empty_like(x), polyop.empty_like(y), polyop.empty(x.shape, dtype=polyop.int64)


def odd_setup(ctx, inputs, output):
    x, y = inputs
    ctx.tree = {"a": x, "b": [1, 2.5, None]}
    ctx.set, ctx.function, ctx.shape = {1, 2}, (lambda: 3), x.shape
    ctx.numpy = np.full(4, 2, np.float32)
    ctx.bare = polyop.to_array(y)
    ctx.new = polyop.ones(4) * 1
    ctx.set_materialize_grads(False)


def odd_backward(ctx, g, h, order):
    assert order is None
    assert (ctx.set, ctx.tree["b"], tuple(ctx.shape)) == ({1, 2}, [1, 2.5, None], (4,))
    assert isinstance(ctx.bare, jax.Array) and isinstance(ctx.tree["a"], polyop.Tensor)
    first = None if g is None else g * polyop.from_numpy(ctx.numpy) * ctx.new
    return first, None if h is None else h * ctx.function()


odd.register_autograd(odd_backward, setup_context=odd_setup)


def test_a_context_keeps_whatever_an_author_keeps():
    """S125: tensors, arrays, containers and objects without a hash arrive in backward."""
    x = jnp.linspace(0.0, 1.0, 4)

    def loss(x, y):
        return (odd(x, y)[0] ** 2).sum()

    for wrap in (lambda f: f, jax.jit):
        first, second = wrap(jax.grad(loss, (0, 1)))(x, x)
        np.testing.assert_allclose(first, 8 * x, rtol=1e-6)
        np.testing.assert_allclose(second, 0 * x)
        np.testing.assert_allclose(wrap(jax.hessian(loss))(x, x), 8 * jnp.eye(4), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(x[None], x[None]), 8 * x[None], rtol=1e-6)


def test_numbers_without_axes_and_control_flow():
    """S66: tensors without axes, branches and loops are JAX's own affair."""
    assert float(jax.jit(jax.grad(ops.sin))(0.5)) == pytest.approx(np.cos(0.5), rel=1e-6)
    x = jnp.linspace(0.0, 1.0, 3)

    def branch(x):
        return jax.lax.cond(x.sum() > 0, lambda x: ops.sin(x).sum(), lambda x: x.sum(), x)

    np.testing.assert_allclose(jax.jit(jax.grad(branch))(x), jnp.cos(x), rtol=1e-6)
    found = jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c + ops.square(c) + 1, x)
    wanted = jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c + c**2 + 1, x)
    np.testing.assert_allclose(found, wanted)
    assert jax.eval_shape(ops.sin, x).shape == (3,)
    assert jax.jit(ops.sin)(jnp.zeros((0, 3))).shape == (0, 3)


def test_random_numbers_are_drawn_by_each_call():
    """S160: equal calls of an operator that draws are not merged; vmap, which would, refuses."""
    draw = polyop.custom_op(
        "jaxtest::draw", lambda x: polyop.from_numpy(np.random.rand(*x.shape).astype(np.float32)),
        mutates_args=(), schema="(Tensor x) -> Tensor", tags=polyop.Tag.nondeterministic_seeded,
    )  # fmt: skip
    draw.register_fake(lambda x: polyop.empty_like(x))
    first, second = jax.jit(lambda x: (draw(x), draw(x)))(jnp.ones(8))
    assert not np.allclose(first, second)
    with pytest.raises(polyop.errors.VmapError, match="inside jax.vmap"):
        jax.vmap(draw)(jnp.ones((2, 3)))
    rows = jax.lax.map(draw, jnp.ones((2, 8)))
    assert not np.allclose(rows[0], rows[1])


@pytest.mark.parametrize("compiled", [jax.jit, lambda f: f])
def test_a_checkpoint_keeps_random_numbers(compiled):
    """S160: the gradient of `jax.checkpoint` is that of the numbers that were drawn."""
    drop = polyop.custom_op(
        "jaxtest::drop", lambda x: polyop.from_numpy(x.numpy() * (np.random.rand(*x.shape) > 0.5)),
        mutates_args=(), schema="(Tensor x) -> Tensor", tags=polyop.Tag.nondeterministic_seeded,
    )  # fmt: skip
    drop.register_fake(lambda x: polyop.empty_like(x))
    drop.register_autograd(
        lambda ctx, g: g * ctx.saved_tensors[0],
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
    )

    def steps(x):
        y = jax.lax.scan(jax.checkpoint(lambda c, _: (c, drop(c))), x, jnp.arange(3))[1]
        return y.sum(), y.sum(0)

    x = jnp.ones(64)
    y, pull = jax.vjp(jax.checkpoint(drop), x)
    assert jnp.array_equal(pull(x)[0], y)
    (_, y), slope = compiled(jax.value_and_grad(steps, has_aux=True))(x)
    assert jnp.array_equal(slope, y)

"""Laws over four devices, for a process of their own: devices are counted when JAX starts.

Each law that does not hold is printed with its reason, by name.
"""

from __future__ import annotations

import json
import os
import traceback
import warnings

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import polyop
from polyop import Tensor
from polyop.bridges.jax import lowering

SEEN: list[tuple[int, ...]] = []
RNG = np.random.default_rng(0)
A, B, W = (RNG.random(s, dtype=np.float32) for s in ((8, 4, 4), (8, 4, 4), (4, 4)))
ROWS = A[:, 0]


@polyop.custom_op("jaxmesh::matmul", mutates_args=())
def matmul(x: Tensor, y: Tensor) -> Tensor:
    SEEN.append(x.shape)
    return polyop.from_numpy(x.numpy() @ y.numpy())


polyop.library.register_index(matmul, "(m,n),(n,k)->(m,k)")


def matmul_backward(ctx, g):
    x, y = ctx.saved_tensors
    return matmul(g, y.transpose(-1, -2)), matmul(x.transpose(-1, -2), g)


matmul.register_autograd(
    matmul_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)


@polyop.custom_op("jaxmesh::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    SEEN.append(x.shape)
    return polyop.from_numpy(x.numpy() * 2)


double.register_fake(lambda x: polyop.empty_like(x))
double.register_autograd(lambda ctx, g: double(g))


SQUARED: list[tuple[int, ...]] = []


@polyop.custom_op("jaxmesh::square", mutates_args=(), tags="pointwise")
def square(x: Tensor) -> Tensor:
    SQUARED.append(x.shape)
    return polyop.from_numpy(x.numpy() ** 2)


square.register_fake(lambda x: polyop.empty_like(x))
square.register_autograd(
    lambda ctx, g: 2 * g * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)

LINE = Mesh(np.array(jax.devices()), ("i",))
SQUARE = Mesh(np.array(jax.devices()).reshape(2, 2), ("i", "j"))


def laid(x, spec, mesh=SQUARE):
    return jax.device_put(x, NamedSharding(mesh, spec))


def index_rule():
    cases = [
        (B, P("i"), P("i"), P("i"), 4),
        (B, P("i"), P(), P("i"), 4),
        (B, P(), P("i"), P("i"), 4),
        (B, P(("i", "j")), P(), P(("i", "j")), 2),
        (B, P(None, "i"), P(None, "i"), P(), 8),  # a named axis is never cut
        (B, P(None, None, "i"), P(None, "i"), P(), 8),
        (W, P("i"), P(), P("i"), 4),
        (W, P("i"), P("i"), P("i"), 4),
    ]
    for y, one, other, result, loops in cases:
        SEEN.clear()
        found = jax.jit(matmul)(laid(A, one), laid(y, other)).block_until_ready()
        np.testing.assert_allclose(found, A @ y, atol=1e-5)
        assert {shape[0] for shape in SEEN} == {loops}, (one, other, SEEN)
        if result:
            assert found.sharding.spec == result, (one, other, found.sharding)


def gradient_under_the_rule():
    SEEN.clear()
    loss = jax.jit(jax.grad(lambda a, b: (matmul(a, b) ** 2).sum(), (0, 1)))
    found = jax.block_until_ready(loss(laid(A, P("i")), laid(B, P("i"))))
    wanted = jax.grad(lambda a, b: ((a @ b) ** 2).sum(), (0, 1))(A, B)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert {shape[0] for shape in SEEN} == {4}


def batches_under_the_rule():
    found = jax.jit(jax.vmap(matmul))(laid(A, P("i")), laid(B, P("i")))
    np.testing.assert_allclose(found, A @ B, atol=1e-5)


def without_a_rule_a_cut_array_is_refused():
    try:
        jax.jit(double)(laid(A, P("i")))
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        assert "jaxmesh::double gets arrays that lie over several devices" in text
        assert "jax.shard_map" in text and "register_index" in text
    else:
        raise AssertionError("not refused")
    np.testing.assert_allclose(jax.jit(double)(laid(A, P())), A * 2)  # whole everywhere
    np.testing.assert_allclose(jax.jit(double)(A), A * 2)


def laid_by_type(x, spec):
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(AxisType.Explicit,) * 2)
    return jax.device_put(x, NamedSharding(mesh, spec))


def explicit_meshes_cut_loops():
    SEEN.clear()
    cases = [
        (A, B, P("i"), P("i"), P("i", None, None), 4),
        (A, B, P(("i", "j")), P(), P(("i", "j"), None, None), 2),
        (A, B, P(), P("j"), P("j", None, None), 4),
        (A, W, P("i", "j"), P("j"), P("i", None, None), 4),
        (A, B, P(None, "i"), P(None, "i"), P(None, None, None), 8),
    ]
    for x, y, one, other, result, loops in cases:
        SEEN.clear()
        found = jax.jit(matmul)(laid_by_type(x, one), laid_by_type(y, other)).block_until_ready()
        np.testing.assert_allclose(found, x @ y, atol=1e-5)
        assert {shape[0] for shape in SEEN} == {loops}, (one, other, SEEN)
        assert found.sharding.spec == result, (one, other, found.sharding)


def explicit_meshes_are_differentiated_and_batched():
    def loss(a, b):
        return (matmul(a, b) ** 2).sum()

    wanted = jax.grad(lambda a, b: ((a @ b) ** 2).sum(), (0, 1))(A, B)
    for one, other in (("i", "i"), (("i", "j"), None), (None, "j")):
        args = laid_by_type(A, P(one)), laid_by_type(B, P(other))
        found = jax.jit(jax.grad(loss, (0, 1)))(*args)
        for g, w, x in zip(found, wanted, args, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)
            assert g.sharding.spec == jax.typeof(x).sharding.spec
    both = laid_by_type(A, P("i")), laid_by_type(B, P("i"))
    np.testing.assert_allclose(jax.jit(jax.vmap(matmul))(*both), A @ B, atol=1e-5)
    _, moved = jax.jit(lambda x: jax.jvp(square, (x,), (x,)))(both[0])
    np.testing.assert_allclose(moved, 2 * A * A, rtol=1e-5)


def explicit_meshes_refuse_what_nothing_cuts():
    try:
        jax.jit(double)(laid_by_type(A, P("i")))
    except polyop.errors.UsageError as error:
        assert "register_index" in error.fix
        assert "shard_map" in error.fix
        assert "reshard" in error.fix
    else:
        raise AssertionError("not refused")
    whole = jax.jit(lambda x: double(jax.sharding.reshard(x, x.aval.sharding.update(spec=P()))))
    np.testing.assert_allclose(whole(laid_by_type(A, P("i"))), A * 2)


def pointwise_operators_are_cut():
    for put in (laid, laid_by_type):
        for spec in (P("i"), P(None, ("j", "i")), P("i", None, "j")):
            SQUARED.clear()
            found = jax.jit(square)(put(A, spec)).block_until_ready()
            np.testing.assert_allclose(found, A * A)
            assert (8, 4, 4) not in SQUARED, spec
            slope = jax.jit(jax.grad(lambda x: square(x).sum()))(put(A, spec))
            np.testing.assert_allclose(slope, 2 * A, rtol=1e-6)


def shard_map_gives_each_device_its_piece():
    for wrap in (lambda f: f, jax.jit):
        SEEN.clear()
        f = wrap(jax.shard_map(double, mesh=LINE, in_specs=P("i"), out_specs=P("i")))
        np.testing.assert_allclose(f(laid(A, P("i"), LINE)).block_until_ready(), A * 2)
        assert set(SEEN) == {(2, 4, 4)}
        np.testing.assert_allclose(jax.grad(lambda x: (f(x) ** 2).sum())(A), 8 * A, rtol=1e-5)
        np.testing.assert_allclose(jax.jvp(f, (A,), (A,))[1], 2 * A)


def what_is_whole_everywhere_gets_the_sum_of_gradients():
    def ours(w):
        f = jax.shard_map(matmul, mesh=LINE, in_specs=(P("i"), P()), out_specs=P("i"))
        return f(jnp.asarray(ROWS), w)

    def theirs(w):
        return jnp.asarray(ROWS) @ w

    w = jnp.asarray(W)
    for wrap in (lambda f: f, jax.jit):
        found = wrap(jax.grad(lambda w: (ours(w) ** 2).sum()))(w)
        wanted = jax.grad(lambda w: (theirs(w) ** 2).sum())(w)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        found = wrap(lambda w: jax.jvp(ours, (w,), (w,))[1])(w)
        np.testing.assert_allclose(found, theirs(w), atol=1e-5)


def collectives_stand_beside_operators():
    def piece(x):
        return jax.lax.psum(double(x).sum(), "i")

    f = jax.shard_map(piece, mesh=LINE, in_specs=P("i"), out_specs=P())
    np.testing.assert_allclose(f(jnp.asarray(A)), 2 * A.sum(), rtol=1e-4)
    np.testing.assert_allclose(jax.grad(f)(jnp.asarray(A)), np.full_like(A, 2.0))


def results_stay_where_arguments_are():
    third = jax.devices()[2]
    x = jax.device_put(A, third)
    for f in (double, double, jax.jit(double)):
        assert f(x).devices() == {third}
    assert not double(jnp.asarray(A)).committed


def the_first_program_may_be_over_a_mesh():
    assert not lowering.tested.cache_info().currsize
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explicit_meshes_cut_loops()
    assert not lowering.tested()


LAWS = [
    the_first_program_may_be_over_a_mesh,
    index_rule, gradient_under_the_rule, batches_under_the_rule,
    without_a_rule_a_cut_array_is_refused, explicit_meshes_cut_loops,
    explicit_meshes_are_differentiated_and_batched, explicit_meshes_refuse_what_nothing_cuts,
    pointwise_operators_are_cut, shard_map_gives_each_device_its_piece,
    what_is_whole_everywhere_gets_the_sum_of_gradients,
    collectives_stand_beside_operators, results_stay_where_arguments_are,
]  # fmt: skip


def main() -> None:
    found = {}
    for law in LAWS:
        try:
            law()
            found[law.__name__] = ""
        except Exception:
            found[law.__name__] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

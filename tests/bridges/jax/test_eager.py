"""Calls outside of programs: the short way gives what the long one gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.bridges.jax import operators as ops

import polyop
from polyop.bridges.jax import eager
from polyop.extend import DispatchMode


@pytest.mark.parametrize("puts", [True, False])
def test_both_ways_of_giving_arrays_to_jax(puts, monkeypatch):
    """S66: results are the same arrays whether JAX's quick way is there or not."""
    assert eager.puts()
    monkeypatch.setattr(eager, "puts", lambda: puts)
    for x in (jnp.arange(5.0), jnp.zeros((0, 3)), jnp.float32(2.0), jnp.ones((3, 2000))):
        for _ in range(3):
            found = ops.sin(x, 2.0)
            assert (found.dtype, found.shape) == (x.dtype, x.shape)
            assert not found.committed and not found.weak_type
            np.testing.assert_allclose(found, np.sin(2 * np.asarray(x)), rtol=1e-6)


def test_repeated_calls_take_the_short_way():
    """S66: it is found by the classes of the arguments, with defaults or without."""
    op = ops.sin._opoverload
    op.changed()
    x = jnp.ones(2)
    ops.sin(x, 1.0)
    quick = [v for v in op.notes.values() if isinstance(v, eager.Quick)]
    assert len(quick) == 2
    np.testing.assert_allclose(ops.sin(x), np.sin(1.0))
    np.testing.assert_allclose(ops.sin(x, 3.0), np.sin(3.0), rtol=1e-6)
    np.testing.assert_allclose(ops.sin(x, -0.0), 0.0)
    np.testing.assert_allclose(ops.sin(x, k=4.0), np.sin(4.0), rtol=1e-6)
    np.testing.assert_allclose(ops.sin(x, 4), np.sin(4.0), rtol=1e-6)  # converted as ever


def test_the_short_way_sees_rules_that_come_later():
    """S34: after a new kernel, or a new fake rule, a repeated call is the new one."""
    op = polyop.custom_op(
        "jaxeager::later", lambda x: polyop.from_numpy(x.numpy() + 1), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    x = jnp.zeros(2)
    for _ in range(3):
        np.testing.assert_array_equal(op(x), 1.0)
    op.register_fake(lambda x: x.new_empty([3]))
    with pytest.raises(polyop.errors.MetadataMismatchError):
        op(x)


def test_modes_see_repeated_calls():
    """S66: who watches sees a call on the short way too."""
    seen = []

    class Watch(DispatchMode):
        def __dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    x = jnp.ones(2)
    for _ in range(2):
        ops.sin(x)
    with Watch():
        ops.sin(x)
    assert seen == ["jaxtest::sin"]


def test_constants_in_a_program_are_calls_in_it():
    """S66: a call with arrays that a program closes over is not run while it is traced."""
    x = jnp.ones(2)
    ops.sin(x)
    ops.RUNS.clear()
    jaxpr = jax.make_jaxpr(lambda: ops.sin(x))()
    assert [e.primitive.name for e in jaxpr.jaxpr.eqns] == ["jaxtest::sin"]
    assert not ops.RUNS


def test_memory_of_results_is_nobody_elses():
    """S66: what a kernel holds on to, or shares, is copied; JAX never sees it change."""
    held = []

    def kernel(x):
        base = np.zeros((4, 64), np.float32)
        held.append(base)
        return polyop.from_numpy(base[1])

    op = polyop.custom_op(
        "jaxeager::shares", kernel, mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    op.register_fake(lambda x: x.new_empty([64]))
    found = [op(jnp.ones(1)) for _ in range(3)]
    for base in held:
        base[...] = 7
    assert all(float(x.sum()) == 0.0 for x in found)


def test_a_view_of_an_argument_outlives_it():
    """S66: a kernel that keeps an argument of an eager call keeps its data, too."""
    held = []

    def kernel(x):
        held.append(x.numpy()[5:])
        return polyop.from_numpy(x.numpy() + 1)

    op = polyop.custom_op("jaxeager::keeps", kernel, mutates_args=(), schema="(Tensor x) -> Tensor")
    op.register_fake(lambda x: polyop.empty_like(x))
    for n in (10, 5000):
        op(jnp.arange(float(n)))
    jnp.zeros(5000).block_until_ready()
    assert all((a == np.arange(5.0, 5 + a.size)).all() for a in held)

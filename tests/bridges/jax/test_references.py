"""Writes into JAX's references, by the functional twin."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.bridges.jax import operators as ops

import polyop
from polyop.errors import ArgumentError


@polyop.custom_op("jaxtest::push", mutates_args={"stack", "count"})
def push(stack: polyop.Tensor, count: polyop.Tensor, x: polyop.Tensor) -> polyop.Tensor:
    """Put x into the next row of a stack, and give the sum of it."""
    rows, at = stack.numpy(), count.numpy()
    rows[int(at)] = x.numpy()
    at += 1
    return polyop.from_numpy(np.asarray(rows.sum()))


push.register_fake(lambda stack, count, x: stack.new_empty([]))


def test_a_reference_is_written():
    """S174: a reference gets the new value; the array that it had stays as it was."""
    before = jnp.arange(3.0)
    ref = jax.new_ref(before)
    assert ops.add_to(jnp.ones(3), ref) is None
    np.testing.assert_array_equal(ref[...], [1, 2, 3])
    np.testing.assert_array_equal(before, [0, 1, 2])


def test_references_in_programs():
    """S174: so it does inside of a program, and as an argument of one, in order."""

    @jax.jit
    def run(x, ref):
        ops.add_to(x, ref)
        own = jax.new_ref(ref[...] * 10)
        ops.add_to(x, own)
        ops.add_to(own[...], ref)
        return own[...]

    ref = jax.new_ref(jnp.zeros(2))
    np.testing.assert_array_equal(run(jnp.ones(2), ref), 11.0)
    np.testing.assert_array_equal(ref[...], 12.0)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_several_references_and_a_result(wrap):
    """S174: each written argument gets its value, and results are given."""
    stack, count = jax.new_ref(jnp.zeros((3, 2))), jax.new_ref(jnp.int32(0))
    total = wrap(lambda x, s, c: push(s, c, x))
    assert float(total(jnp.ones(2), stack, count)) == 2.0
    assert float(total(jnp.full(2, 4.0), stack, count)) == 10.0
    np.testing.assert_array_equal(stack[...], [[1, 1], [4, 4], [0, 0]])
    assert int(count[...]) == 2


def test_a_loop_over_a_reference():
    """S174: a loop that JAX compiles writes the reference once for each turn."""

    @jax.jit
    def run(x, ref):
        jax.lax.fori_loop(0, 5, lambda i, c: (ops.add_to(x, ref), c)[1], 0)

    ref = jax.new_ref(jnp.zeros(2))
    run(jnp.ones(2), ref)
    np.testing.assert_array_equal(ref[...], 5.0)


def test_what_is_not_written_is_given_by_value():
    """S2: a reference where only a value is read is refused, as JAX's own functions do."""
    ref = jax.new_ref(jnp.ones(2))
    with pytest.raises(ArgumentError, match="only reads its argument 'x'") as error:
        ops.sin(ref)
    assert error.value.fix == "give its value: x[...]"
    with pytest.raises(ArgumentError, match="only reads its argument 'x'"):
        ops.add_to(ref, jax.new_ref(jnp.ones(2)))
    with pytest.raises(ArgumentError, match="only reads"):
        jax.jit(lambda r: ops.sin(r))(ref)
    with pytest.raises(ArgumentError):
        polyop.sin(ref)


def test_arrays_beside_references_and_one_reference_twice():
    """S2: a plain array is not written, and one reference is not written in two places."""
    with pytest.raises(ArgumentError, match="writes its argument 'count'") as error:
        push(jax.new_ref(jnp.zeros((3, 2))), jnp.int32(0), jnp.ones(2))
    assert "jax.new_ref" in error.value.fix and "push.functional" in error.value.fix
    both = jax.new_ref(jnp.zeros((2, 2)))
    with pytest.raises(ArgumentError, match="one reference in two places"):
        push(both, both, jnp.ones(2))
    np.testing.assert_array_equal(both[...], 0.0)


class Sum(NamedTuple):
    """A sum, and what each term counts."""

    total: polyop.Tensor
    weight: float = 0.5


@polyop.custom_op("jaxtest::collect", mutates_args={"sums"})
def collect(x: polyop.Tensor, sums: list[Sum]) -> None:
    """Add x to each sum."""
    for total, weight in sums:
        total.numpy()[...] += weight * x.numpy()


def test_references_beside_numbers_in_records():
    """S1, S2: numbers beside the references that are written stay what they are."""
    one, other = jax.new_ref(jnp.zeros(2)), jax.new_ref(jnp.zeros(2))
    collect(jnp.ones(2), [Sum(one), Sum(other)])
    np.testing.assert_array_equal(jnp.stack([one[...], other[...]]), 0.5)
    with pytest.raises(ArgumentError, match="one reference in two places"):
        collect(jnp.ones(2), [Sum(one), Sum(one)])
    np.testing.assert_array_equal(one[...], 0.5)

"""Operators that decompose, in JAX's programs: a program has the kernels that eager calls have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop import func
from polyop.dispatch.library import Library
from polyop.errors import MissingGradientError, OperatorGoneError

COMPOSITE = "CompositeImplicitAutograd"
X = jnp.ones(2)


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library with an operator that triples, and one that is made of it."""
    made = Library("jaxcomposite", "DEF")
    made.define("inner(Tensor x, *, float by=1.0) -> Tensor")
    made.define("outer(Tensor x) -> Tensor")
    made.impl("inner", lambda x, by: x * 3 * by, COMPOSITE)
    made.impl("outer", lambda x: polyop.ops.jaxcomposite.inner(x, by=2.0), COMPOSITE)
    yield made
    made.destroy()


def outer(x: Any) -> Any:
    return polyop.ops.jaxcomposite.outer(x)


def inside(transform: Any) -> Any:
    """Give a program with one of polyop's own transforms in it."""
    return lambda x: transform(outer)(polyop.from_array(x)).payload.array


PROGRAMS = {
    "jit": outer,
    "grad": jax.grad(lambda x: outer(x).sum()),
    "vmap": jax.vmap(outer),
    "scan": lambda x: jax.lax.scan(lambda c, _: (outer(c), None), x, None, length=1)[0],
    "func.grad": inside(lambda f: func.grad(lambda x: f(x).sum())),
    "func.vmap": inside(func.vmap),
    "functionalize": inside(func.functionalize),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_new_decomposition(lib: Library, name: str) -> None:
    """S34, S83: what was compiled of the former one is compiled anew."""
    run = jax.jit(PROGRAMS[name])
    np.testing.assert_array_equal(run(X), [6, 6])
    lib.impl("inner", lambda x, by: x * 5 * by, COMPOSITE, allow_override=True)
    np.testing.assert_array_equal(run(X), [10, 10])


@pytest.mark.parametrize("key", ["CPU", "CompositeExplicitAutograd"])
def test_a_kernel_beside_a_decomposition(lib: Library, key: str) -> None:
    """S85, S89: it acts in a program as it acts in an eager call, until it is taken away."""
    run, slope = jax.jit(outer), jax.jit(jax.grad(lambda x: outer(x).sum()))
    np.testing.assert_array_equal([run(X), slope(X)], [[6, 6], [6, 6]])
    more = Library("jaxcomposite", "IMPL")
    more.impl("inner", lambda x, by: x * 7 * by, key)
    for program in (outer, run, jax.jit(lambda x: outer(x))):
        np.testing.assert_array_equal(program(X), [14, 14])
    with pytest.raises(MissingGradientError, match="jaxcomposite::inner"):
        slope(X)
    more.destroy()
    np.testing.assert_array_equal([run(X), slope(X)], [[6, 6], [6, 6]])


def test_a_library_that_is_gone(lib: Library) -> None:
    """S39: a program does not outlive the operators that it is made of."""
    op = polyop.ops.jaxcomposite.outer
    run = jax.jit(lambda x: op(x))
    run(X)
    lib.destroy()
    with pytest.raises(OperatorGoneError):
        run(X)

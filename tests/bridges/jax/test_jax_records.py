"""Records as arguments and results of operators that JAX calls, beside the same in JAX alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import ReturnError

NUMBERS = count()


@dataclass
class Layer:
    """A record with a number between its tensors."""

    w: Tensor
    n: int
    b: Tensor


class Pair(NamedTuple):
    """A named tuple of a tensor and a number."""

    w: Tensor
    n: int = 2


NEEDS: list[Any] = []


def layer_setup(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep all, and what is asked for."""
    NEEDS[:] = [ctx.needs_input_grad]
    s, _, layer = inputs
    ctx.save_for_backward(s, layer.w, layer.b)
    ctx.n = layer.n


def layer_jvp(ctx: Any, ds: Any, flag: Any, layer: Any) -> Any:
    """Push tangents of any of the tensors."""
    s, w, b = ctx.saved_tensors
    terms = [] if ds is None else [ds * w]
    if layer is not None:
        terms += [] if layer.w is None else [s * layer.w]
        terms += [] if layer.b is None else [2 * ctx.n * b * layer.b]
    return sum(terms[1:], terms[0])


def affine() -> Any:
    """Give an operator `s * w + n * b ** 2` that takes a bool, and a record."""

    def kernel(s: Tensor, flag: bool, layer: Layer) -> Tensor:
        w, b = layer.w.numpy(), layer.b.numpy()
        return polyop.from_numpy(s.numpy() * w + layer.n * b * b)

    op = polyop.custom_op(f"jaxrecords::affine{next(NUMBERS)}", kernel, mutates_args=())
    op.register_fake(lambda s, flag, layer: polyop.empty_like(s))
    return op


def by_jax(s: Any, w: Any, b: Any) -> Any:
    """Compute the same."""
    return s * w + 3 * b * b


ROW = (jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.array([0.5, 4.0]))
ALONG = (jnp.array([1.0, 0.5]), jnp.array([-2.0, 1.0]), jnp.array([3.0, 2.0]))


@pytest.mark.parametrize("places", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_tangents_go_through_records(wrap: Any, places: tuple[int, ...]) -> None:
    """S132: the tangent of a record's tensor reaches `jvp` in such a record, never a zero."""
    op = affine()
    op.register_autograd(lambda ctx, g: None, setup_context=layer_setup)
    op.register_jvp(layer_jvp)

    def pushed(f: Any) -> Any:
        def moved(*some: Any) -> Any:
            whole = dict(enumerate(ROW)) | dict(zip(places, some, strict=True))
            return f(*whole.values())

        some = tuple(ROW[i] for i in places), tuple(ALONG[i] for i in places)
        return wrap(lambda *both: jax.jvp(moved, *both)[1])(*some)

    found = pushed(lambda s, w, b: op(s, True, Layer(w, 3, b)))
    np.testing.assert_allclose(found, pushed(by_jax), rtol=1e-6)
    wanted = {"w": 1 in places, "n": False, "b": 2 in places}
    assert NEEDS == [(0 in places, False, wanted)]


def test_jacobians_of_records() -> None:
    """S132: `jacfwd` of an operator with a record is JAX's own."""
    op = affine()
    op.register_autograd(lambda ctx, g: None, setup_context=layer_setup)
    op.register_jvp(layer_jvp)
    s, w, b = ROW
    found = jax.jacfwd(lambda b: op(s, False, Layer(w, 3, b)))(b)
    np.testing.assert_allclose(found, jax.jacfwd(lambda b: by_jax(s, w, b))(b), rtol=1e-6)


@pytest.mark.parametrize("kind", [tuple, list])
def test_tangents_lie_as_the_argument_does(kind: Any) -> None:
    """S132: those of a tuple are a tuple, those of a list a list."""
    seen: list[Any] = []

    def product(p: Any) -> Tensor:
        return polyop.from_numpy(p[0].numpy() * p[1].numpy())

    def rule(ctx: Any, tangents: Any) -> Any:
        seen.append(type(tangents))
        return tangents[1] * ctx.saved_tensors[0]

    of_two = tuple[Tensor, Tensor] if kind is tuple else list[Tensor]
    product.__annotations__ = {"p": of_two, "return": Tensor}
    op = polyop.custom_op(f"jaxrecords::product{next(NUMBERS)}", product, mutates_args=())
    op.register_fake(lambda p: polyop.empty_like(p[0]))
    op.register_autograd(
        lambda ctx, g: None, setup_context=lambda ctx, i, o: ctx.save_for_backward(i[0][0])
    )
    op.register_jvp(rule)
    x, y = ROW[:2]
    found = jax.jvp(lambda y: op(kind([x, y])), (y,), (ALONG[1],))[1]
    np.testing.assert_allclose(found, x * ALONG[1])
    assert seen == [kind]


def inc_(p: Pair) -> None:
    """Add the number of a record to its tensor."""
    p.w.numpy()[...] += p.n


def test_records_with_numbers_are_results_outside_of_traces() -> None:
    """S47: called with data, an operator may return a record with a number in it."""

    def doubled(x: Tensor) -> Pair:
        return Pair(polyop.from_numpy(x.numpy() * 2), 7)

    op = polyop.custom_op(f"jaxrecords::doubled{next(NUMBERS)}", doubled, mutates_args=())
    op.register_fake(lambda x: Pair(polyop.empty_like(x), 7))
    found = op(jnp.ones(2))
    assert isinstance(found.w, jax.Array) and (found.w.tolist(), found.n) == ([2, 2], 7)
    with pytest.raises(ReturnError, match="JAX traces arrays alone"):
        jax.jit(op)(jnp.ones(2))


def test_the_functional_twin_gives_records_with_numbers() -> None:
    """S47: so does the twin of an operator that writes a record."""
    op = polyop.custom_op(f"jaxrecords::inc{next(NUMBERS)}_", inc_, mutates_args=("p",))
    found = op.functional(Pair(jnp.ones(2), 3))
    assert (found.w.tolist(), found.n) == ([4, 4], 3)

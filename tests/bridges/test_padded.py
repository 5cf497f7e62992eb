"""`padded`: an operator whose size depends on data, as one whose size is known."""

from __future__ import annotations

import numpy as np
import pytest

import polyop
from polyop.errors import (
    ArgumentError,
    DynamicOutputShapeError,
    KernelError,
    MissingFakeError,
    RegistrationError,
)
from polyop.library import padded

# Without a batching rule vmap says that it is slow; here that is known.
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


@polyop.custom_op("padtest::above", mutates_args=())
def above(x: polyop.Tensor, least: float = 0.0) -> tuple[polyop.Tensor, polyop.Tensor]:
    """Give the places and the values above a bound."""
    places = np.flatnonzero(x.numpy() > least)
    return polyop.from_numpy(places), polyop.from_numpy(x.numpy()[places])


@above.register_fake
def above_fake(x, least=0.0):
    size = polyop.library.get_ctx().new_dynamic_size(max=x.shape[0])
    return x.new_empty([size], dtype=polyop.int64), x.new_empty([size])


above.register_autograd(None)
X = np.array([1.0, -1.0, 3.0, 0.5], np.float32)


def test_results_are_filled_and_counted():
    """S143: results are as large as they may be, the rest is filled, the last result counts."""
    places, values, count = padded(above)(X, fill=-1)
    np.testing.assert_array_equal(places, [0, 2, 3, -1])
    np.testing.assert_array_equal(values, [1.0, 3.0, 0.5, -1.0])
    assert int(count) == 3
    assert (places.dtype, values.dtype) == (np.int64, np.float32)
    places, _, count = padded(above)(X, 0.75, max=6)
    np.testing.assert_array_equal(places, [0, 2, 0, 0, 0, 0])
    assert int(count) == 2


def test_one_form_for_each_operator():
    """S56: the padded form is an operator, made once; its schema has the new arguments."""
    form = padded(above)
    assert form is padded("padtest::above") is padded(polyop.ops.padtest.above)
    assert polyop.ops.padtest.above_padded.default is form._opoverload
    polyop.library.opcheck(form, (polyop.from_numpy(X),), {"fill": 2})


def test_more_than_there_is_place_for():
    """S2: what does not fit is an error that says how much place it needs; nothing is cut off."""
    with pytest.raises(KernelError, match="found 3, and there is place for 2") as error:
        padded(above)(X, max=2)
    assert error.value.fix == "give max=3 or more"


def test_nobody_says_how_many():
    """S2: without a bound in the fake rule one has to be given."""
    op = polyop.custom_op(
        "padtest::unbounded", lambda x: polyop.from_numpy(np.flatnonzero(x.numpy())),
        mutates_args=(), schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    with pytest.raises(MissingFakeError):
        padded(op)
    op.register_fake(
        lambda x: x.new_empty([polyop.library.get_ctx().new_dynamic_size()], dtype=polyop.int64)
    )
    with pytest.raises(ArgumentError, match="how many there are at most") as error:
        padded(op)(X)
    assert "max=" in error.value.fix
    assert padded(op)(X, max=5)[0].shape == (5,)


def test_what_cannot_be_padded():
    """S2: writes, other results than Tensors, no open size: each is refused by name."""
    writes = polyop.custom_op(
        "padtest::writes", lambda x: None, mutates_args={"x"}, schema="(Tensor(a!) x) -> ()"
    )
    with pytest.raises(RegistrationError, match="cannot be padded"):
        padded(writes)
    plain = polyop.custom_op(
        "padtest::plain", lambda x: polyop.from_numpy(x.numpy() + 1), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    plain.register_fake(lambda x: polyop.empty_like(x))
    with pytest.raises(DynamicOutputShapeError, match="has 0 sizes"):
        padded(plain)(X)


def test_padded_under_jax():
    """S143: under jit, vmap and scan a padded form runs; an overflow is JAX's error at run time."""
    jax = pytest.importorskip("jax")
    form = padded(above)
    x = jax.numpy.asarray(X)
    for wrap in (lambda f: f, jax.jit):
        places, values, count = wrap(lambda x: form(x, fill=-1))(x)
        np.testing.assert_array_equal(places, [0, 2, 3, -1])
        np.testing.assert_array_equal(values, [1.0, 3.0, 0.5, -1.0])
        assert int(count) == 3
    rows = jax.numpy.stack([x, -x])
    _, values, counts = jax.jit(jax.vmap(lambda x: form(x, max=4)))(rows)
    np.testing.assert_array_equal(counts, [3, 1])
    np.testing.assert_array_equal(values, [[1.0, 3.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])
    counted = jax.lax.scan(lambda c, x: (c + form(x, max=4)[2], None), 0, rows)[0]
    assert int(counted) == 4
    with pytest.raises(jax.errors.JaxRuntimeError, match="there is place for 1"):
        jax.jit(lambda x: form(x, max=1))(x)[0].block_until_ready()
    with pytest.raises(DynamicOutputShapeError, match="depends on data") as error:
        jax.jit(above)(x)
    assert "polyop.library.padded('padtest::above')" in error.value.fix


def test_padded_in_a_compiled_function_of_pytorch():
    """S143: PyTorch's compiler sees sizes that are known."""
    torch = pytest.importorskip("torch")
    form = padded(above)
    assert int(form(torch.tensor(X))[2]) == 3
    run = torch.compile(lambda x: form(x, fill=-1), fullgraph=True, backend="aot_eager")
    found = run(torch.tensor(X))
    np.testing.assert_array_equal(found[0].numpy(), [0, 2, 3, -1])
    assert int(found[2]) == 3

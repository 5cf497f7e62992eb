"""Operators that write: the twin's result, in the written tensor."""

import numpy as np
import pytest

import polyop
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import ArgumentError, MutationError
from polyop.ops.creation import full, ones, tensor, zeros
from polyop.ops.inplace import INPLACE_TWINS, add_
from polyop.tensor.meta import META_SPACE, meta_of
from polyop.tensor.tensor import Tensor, of_array


def arguments(schema):
    """Give arguments for a writing operator, by type."""
    kinds = {"Tensor": lambda: of_array(np.full((2, 3), 0.5)), "Scalar": lambda: 0.5}
    made = []
    for a in schema.arguments:
        text = str(a.type).rstrip("?")
        made.append(
            a.default_value
            if a.has_default_value() and text != "Scalar"
            else kinds.get(text, lambda: 1)()
        )
    return made


#: `index_put_` takes a list of indices, and has its laws in test_subscripts.py.
OTHERS = {"core::index_put_", "core::normal_", "core::uniform_"}  # the latter draw anew


@pytest.mark.parametrize("name", sorted(INPLACE_TWINS.keys() - OTHERS))
def test_writes_what_the_twin_gives(name):
    """S25: the argument itself comes back, once written, with the twin's elements."""
    op, twin = DEFINITIONS[name].op, INPLACE_TWINS[name]
    given = arguments(op._schema)
    if "bitwise" in name or "logical" in name or "masked" in name:
        given = [of_array(np.ones((2, 3), bool)) if isinstance(a, Tensor) else a for a in given]
    if "shift" in name:
        given = [of_array(np.ones((2, 3), int)) if isinstance(a, Tensor) else 1 for a in given]
    if "bitwise" in name and ".Scalar" in name and "shift" not in name:
        given[1] = True
    n = len(op._schema.positional)
    named = dict(zip([a.name for a in op._schema.keyword_only], given[n:], strict=True))
    expected = twin.entry(*given[:n], **named)
    x = given[0]
    assert op.entry(*given[:n], **named) is x and x._version == 1
    assert np.allclose(x.numpy(), expected.numpy().astype(x.dtype), equal_nan=True)
    fake = op.rule("meta")(*[meta_of(a, META_SPACE) if isinstance(a, Tensor) else a for a in given])
    assert fake.shape == x.shape and fake.dtype == x.dtype


def test_refusals():
    """S63: what cannot be written is refused, with both dtypes and shapes."""
    with pytest.raises(ArgumentError, match="Cannot cast"):
        add_(tensor([1, 2]), 0.5)
    with pytest.raises(ArgumentError, match=r"float32\(2,\)"):
        add_(ones(2), ones(3))
    with pytest.raises(ArgumentError, match="Cannot cast"):
        x = tensor([1])
        x /= 2


def test_augmented_assignment_keeps_the_tensor():
    """S135: `x += y` writes x, so that its views see it."""
    x = zeros(2, 2)
    row, first = x[0], x
    x += 2
    x -= 1
    x *= full((2,), 3.0)
    x **= 2
    x @= tensor([[1.0, 0.0], [0.0, 1.0]])
    assert x is first and row.tolist() == [9.0, 9.0] and x._version == 5


@pytest.mark.parametrize("run", [lambda f: f, polyop.compile, polyop.func.functionalize])
def test_a_repeated_tensor_without_elements_can_be_written(run):
    """S135: what repeats no element may be written; the shapes must fit all the same."""

    def empty():
        return ones((1, 0, 1, 3)).expand(2, 0, 2, 3)

    for write in (lambda x: x.neg_(), lambda x: x.fill_(2.0), lambda x: x.copy_(empty())):
        assert run(lambda write=write: write(empty()))().shape == (2, 0, 2, 3)
    with pytest.raises(ArgumentError):
        run(lambda: empty().copy_(ones(5)))()
    with pytest.raises(MutationError):
        run(lambda: ones((1, 3)).expand(2, 3).neg_())()


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_refused_power_writes_nothing(dtype):
    """S1: NumPy itself has written the elements before the exponent that it refuses."""
    x = of_array(np.array([2, 3, 4], "int8"))
    for exponent in (of_array(np.array([2, 1, -1], dtype)), -1):
        with pytest.raises(ArgumentError, match="negative"):
            x.pow_(exponent)
        with pytest.raises(ArgumentError, match="negative"):
            x **= exponent
        np.testing.assert_array_equal(x.numpy(), [2, 3, 4])
    x **= of_array(np.array([2, 1, 0], dtype))
    np.testing.assert_array_equal(x.numpy(), [4, 3, 1])

"""New tensors, and sizes that depend on data, in a fake mode."""

from __future__ import annotations

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop import tree
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import DynamicOutputShapeError, FakeError
from polyop.layers.fake import FakeTensorMode
from polyop.layers.trace import make_fx
from polyop.ops.creation import arange, full, ones, tensor, zeros
from polyop.ops.elementwise import add
from polyop.ops.views import reshape
from polyop.schema.tags import Tag
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import Tensor, of_array


def test_creation_gives_fakes() -> None:
    """S147: inside the mode, creation gives fakes with the real shape, dtype and device."""
    mode = FakeTensorMode()
    with mode:
        made = [zeros(2, 3), ones(2, dtype="int64"), arange(5), full((2,), 1.5), tensor([1, 2])]
        on_cuda = zeros(2, device="cuda:1")
    assert all(t.is_fake and t.payload.space is mode.space for t in made)
    shapes = [((2, 3), "float32"), ((2,), "int64"), ((5,), "int64"), ((2,), "float32")]
    assert [(t.shape, t.dtype.name) for t in made[:4]] == shapes
    assert str(on_cuda.device) == "cuda:1" and str(add(on_cuda, 1).device) == "cuda:1"
    assert not zeros(2).is_fake


def test_creation_is_not_mixed_up_between_modes() -> None:
    """S149: what one mode remembers is not given in another."""
    a, b = FakeTensorMode(), FakeTensorMode()
    for mode in (a, b, a):
        with mode:
            assert zeros(2, 3).payload.space is mode.space


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_creation_is_recorded(mode: str) -> None:
    """S209: what is made inside a traced function is made again by its program."""

    def f(x: Tensor) -> Tensor:
        return add(zeros(x.shape[0] * 2, 2), 1)

    module = make_fx(f, mode)(of_array(np.zeros(3)))
    module.graph.lint(module)
    rows = 5 if mode == "symbolic" else 3
    assert module(of_array(np.zeros(rows))).shape == (2 * rows, 2)
    assert not any(n.op == "get_attr" for n in module.graph.nodes)


DYNAMIC = [
    definition.op
    for name, definition in sorted(DEFINITIONS.items())
    if name.startswith("core::") and Tag.dynamic_output_shape in definition.op.tags
]


@pytest.mark.parametrize("op", DYNAMIC, ids=lambda op: op.name())
def test_built_in_dynamic_sizes(op: object) -> None:
    """S144: built-in operators make dynamic sizes in a mode with a ShapeEnv, and only there."""
    call = op.entry  # type: ignore[attr-defined]
    mask = np.array([True, False, True])
    env = ShapeEnv()
    fake = FakeTensorMode(shape_env=env).from_tensor(of_array(mask))
    if len(op._schema.arguments) > 1:  # type: ignore[attr-defined]
        pytest.skip("it takes more than a mask")

    def first(x: Tensor) -> Tensor:
        return tree.leaves(call(x))[0]

    assert str(first(fake).shape) != str(first(fake).shape)
    assert all(op.name() in origin for origin in env.origins.values())  # type: ignore[attr-defined]
    with pytest.raises(DynamicOutputShapeError, match="ShapeEnv"):
        call(FakeTensorMode().from_tensor(of_array(mask)))
    with pytest.raises(FakeError, match="device meta"):
        call(zeros(3, dtype="bool", device="meta"))
    module = make_fx(lambda x: reshape(first(x), [-1, 1]), "symbolic")(of_array(mask))
    module.graph.lint(module)
    other = of_array(np.array([False, False, True, True, True]))
    assert module(other).shape == reshape(first(other), [-1, 1]).shape

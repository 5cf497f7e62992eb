"""A fake of each built-in operator is what the operator gives, without the data."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
from tests.layers.fake.inputs import call, draw, operators

import polyop.assembly  # noqa: F401
from polyop import tree
from polyop.devices import META
from polyop.dispatch.operator import OpOverload
from polyop.errors import FakeError
from polyop.layers.fake import FakeTensorMode
from polyop.ops.elementwise import add
from polyop.symbolic import ShapeEnv, hint_of
from polyop.tensor.meta import META_SPACE, Meta, element_strides, meta_of
from polyop.tensor.storage import arrays_overlap
from polyop.tensor.tensor import Tensor, of_array, of_meta

TRIES = 60


def cases(op: OpOverload) -> list[tuple[list[Any], list[Any], Any]]:
    """Give some arguments that the operator takes, drawn twice alike, and the result."""
    found: list[tuple[list[Any], list[Any], Any]] = []
    for seed in range(TRIES):
        start = zlib.crc32(op.name().encode()) + seed
        values = draw(random.Random(start), op)
        again = draw(random.Random(start), op)
        try:
            with np.errstate(all="ignore"):
                result = call(op, values)
        except Exception:  # noqa: BLE001, S112 - arguments that do not fit together
            continue
        found.append((again, values, result))
    return found


def facts(tensor: Tensor) -> Any:
    """Give shape, dtype and strides; a stride that leads nowhere says nothing."""
    payload: Any = tensor.payload
    shape = tuple(hint_of(n) for n in payload.shape)
    if isinstance(payload, Meta):
        strides = tuple(hint_of(s) for s in payload.strides)
    else:
        strides = element_strides(payload)
    if 0 in shape:
        return shape, tensor.dtype, None
    said = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    return shape, tensor.dtype, said


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]


def fakes(mode: FakeTensorMode, values: list[Any]) -> list[Any]:
    return [
        tree.map_leaves(lambda x: mode.from_tensor(x) if isinstance(x, Tensor) else x, v)
        for v in values
    ]


def check(op: OpOverload, given: list[Any], real: list[Any], result: Any, faked: Any) -> None:
    pairs = list(zip(tensors(result), tensors(faked), strict=True))
    for a, b in pairs:
        assert facts(b) == facts(a), (op.name(), given)
        for x, y in zip(tensors(real), tensors(given), strict=True):
            assert (a is x) == (b is y), (op.name(), given)
            same = a is not x and a.payload.size > 0 and arrays_overlap(a.payload, x.payload)
            if same:
                assert b.version is y.version, (op.name(), given)
    for a, b in zip(tree.leaves(result), tree.leaves(faked), strict=True):
        if not isinstance(a, Tensor):
            assert a == b


@pytest.mark.parametrize("op", operators(), ids=lambda op: op.name()[6:])
def test_a_fake_equals_the_real_result(op: OpOverload) -> None:
    """S147, S204: shape, dtype, strides and aliasing of a fake result are the real one's."""
    if not any(a.type for a in op._schema.arguments if "Tensor" in str(a.type)):
        pytest.skip("it takes no tensors")
    for fresh, values, result in cases(op):
        mode = FakeTensorMode()
        given = fakes(mode, fresh)
        check(op, given, values, result, call(op, given))
        again = fakes(mode, fresh)
        check(op, again, values, result, call(op, again))


@pytest.mark.parametrize("op", operators(), ids=lambda op: op.name()[6:])
def test_symbolic_sizes_give_the_same(op: OpOverload) -> None:
    """S150: with symbolic sizes the result has the same sizes, by hint."""
    for fresh, _, result in cases(op):
        if not tensors(fresh):
            return
        mode = FakeTensorMode(shape_env=ShapeEnv())
        faked = call(op, fakes(mode, fresh))
        for a, b in zip(tensors(result), tensors(faked), strict=True):
            assert facts(b) == facts(a), (op.name(), fresh)


@pytest.mark.parametrize("op", operators(), ids=lambda op: op.name()[6:])
def test_the_device_meta_gives_the_same(op: OpOverload) -> None:
    """S141: on the device meta, the result has the same shape, dtype and strides."""
    for fresh, _, result in cases(op):
        if not tensors(fresh):
            return
        given = [tree.map_leaves(to_meta, v) if v is not None else None for v in fresh]
        for a, b in zip(tensors(result), tensors(call(op, given)), strict=True):
            assert facts(b) == facts(a), (op.name(), fresh)
            assert str(b.device) == "meta"


def to_meta(value: Any) -> Any:
    return of_meta(meta_of(value, META_SPACE, META)) if isinstance(value, Tensor) else value


def test_most_operators_are_tried() -> None:
    """The drawn arguments reach nearly every operator, so the laws above say something."""
    reached = [op.name() for op in operators() if cases(op)]
    assert len(reached) > 0.85 * len(operators())


def test_real_tensors_do_not_mix_with_meta_ones() -> None:
    """S148: a real tensor beside one on the device meta is refused by name."""
    x = to_meta(of_array(np.zeros(3)))
    with pytest.raises(FakeError, match=r"argument: b \(position 1\)"):
        add(x, of_array(np.zeros(3)))

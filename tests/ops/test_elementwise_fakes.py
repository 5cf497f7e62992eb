"""Pointwise operators on metas: what a fake result says is what the real result is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.formulas import operator, overloads

import polyop.assembly  # noqa: F401
from polyop.devices import DTYPES
from polyop.errors import ArgumentError
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta, MetaSpace, meta_of
from polyop.tensor.tensor import of_array

ALL = sorted(set(DTYPES.values()), key=str)
FEW = [DTYPES[n] for n in ("bool", "int8", "int64", "uint64", "float32", "bfloat16", "complex64")]
SCALARS = (True, 2, 2.0, 2j)
POINTWISE = [
    op for op in overloads() if "shape" not in str(op._schema) and op.name() != "core::astype"
]


def choices(op: Any) -> Any:
    """Every combination of dtypes, and of kinds of numbers, for the arguments of an operator."""
    types = [str(a.type) for a in op._schema.arguments]
    tensors = sum(t.startswith("Tensor") for t in types)
    dtypes = ALL if tensors <= 2 else FEW
    kinds = {
        "Scalar": SCALARS,
        "Scalar?": (*SCALARS, None),
        "int": (0, 1),
        "str": ("inside", "below"),
        "float": (1.5,),
    }
    return itertools.product(
        *[
            dtypes
            if t == "Tensor"
            else [*dtypes, None]
            if t == "Tensor?"
            else kinds.get(t, (None,))
            for t in types
        ]
    )


def described(op: Any, values: Any, space: MetaSpace) -> Any:
    metas = [meta_of(of_array(v), space) if isinstance(v, np.ndarray) else v for v in values]
    return op.rule("meta")(*metas)


def computed(op: Any, values: Any) -> Any:
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    given_ = [of_array(v) if isinstance(v, np.ndarray) else v for v in values]
    with np.errstate(all="ignore"):
        return op(*given_[:n], **dict(zip(names, given_[n:], strict=True))).payload


@pytest.mark.parametrize("op", POINTWISE, ids=lambda op: op.name())
def test_the_dtype_of_a_fake_is_the_real_one(op: Any) -> None:
    """For all dtypes and numbers the fake has the real dtype, and refuses what the kernel does."""
    space, worked = MetaSpace(), 0
    for values in choices(op):
        if "below" in values and None in values:
            continue  # nothing is below a side that is open: no gradient asks
        arrays = [np.ones(2, v) if isinstance(v, np.dtype) else v for v in values]
        try:
            dtype = computed(op, arrays).dtype
        except (TypeError, OverflowError):
            with pytest.raises(ArgumentError, match="does not take these dtypes"):
                described(op, arrays, space)
        else:
            assert described(op, arrays, space).dtype == dtype, values
            worked += 1
    assert worked


def test_the_dtype_of_astype_is_the_one_asked_for() -> None:
    """`astype` gives every dtype, from every dtype."""
    for old, new in itertools.product(ALL, ALL):
        x = np.ones(2, old)
        found = computed(operator("astype"), [x, new])
        assert found.dtype == new == described(operator("astype"), [x, new], MetaSpace()).dtype
        assert found.astype(complex).tolist() == [1, 1]


@st.composite
def operands(draw: Any, count: int) -> list[Any]:
    """Arrays that broadcast, each with its own order of axes, steps and axes of size one."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    arrays = []
    for _ in range(count):
        mine = shape[draw(st.integers(0, len(shape))) :] if draw(st.booleans()) else shape
        mine = [1 if draw(st.integers(0, 4)) == 0 else n for n in mine]
        order = draw(st.permutations(range(len(mine))))
        step = draw(st.sampled_from([1, 1, 2]))
        base = np.ones([mine[i] * step for i in order], "float32")
        base = base[(..., *[slice(None, None, step)] * len(order))]
        arrays.append(base.transpose(np.argsort(order)) if order else base)
    return arrays


def same_layout(op: Any, values: Any) -> None:
    space = MetaSpace()
    real, fake = computed(op, values), described(op, values, space)
    wanted = meta_of(of_array(real), space)
    assert fake.shape == wanted.shape
    assert fake.dtype == wanted.dtype
    # The stride of an axis of size one says nothing.
    long = [i for i, n in enumerate(fake.shape) if n > 1]
    if 0 not in fake.shape:
        assert [fake.strides[i] for i in long] == [wanted.strides[i] for i in long], [
            (v.shape, v.strides) for v in values if isinstance(v, np.ndarray)
        ]


@pytest.mark.parametrize(
    # A mask of `clip_part` may have its axes in another order: nobody sees it.
    "op",
    [op for op in POINTWISE if "clip_part" not in op.name()],
    ids=lambda op: op.name(),
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_layout_of_a_fake_is_the_real_one(op: Any, data: Any) -> None:
    """Shape and strides are the real ones: transposed, sliced, broadcast, of size zero, 0-d."""
    types = [str(a.type) for a in op._schema.arguments]
    arrays = iter(data.draw(operands(len(types))))
    if "bitwise" in op.name():
        arrays = iter([a.astype("int32") for a in arrays])
    numbers = {"Scalar": 2, "Scalar?": 2, "int": 0, "str": "above", "float": 1.5}
    same_layout(op, [next(arrays) if t.startswith("Tensor") else numbers.get(t) for t in types])


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    """The error names the operator, the sizes and the axis."""
    a, b = np.ones((2, 3)), np.ones((2, 4))
    with pytest.raises(ArgumentError, match=r"do not broadcast") as caught:
        described(operator("add"), [a, b], MetaSpace())
    assert caught.value.op == "core::add"
    assert caught.value.seen == "sizes 3 and 4 at axis -1"


def test_symbolic_sizes_stay_symbolic() -> None:
    """Adding tensors of one symbolic shape asks no question about it."""
    env = ShapeEnv()
    n = env.create_symbol(7, "x.shape[0]")
    space = MetaSpace()
    x = space.meta((n, 3), np.dtype("float32"))
    y = operator("add").rule("meta")(x, x)
    z = operator("multiply", "Scalar").rule("meta")(y, n)
    assert isinstance(z, Meta)
    assert z is x
    assert not env.guards

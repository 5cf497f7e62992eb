"""Laws of every operator that moves, joins or indexes elements."""

import numpy as np
import pytest
from tests.ops.linear_cases import (
    OTHERS,
    VIEWS,
    array,
    dot,
    fake_of,
    gradients,
    info,
    is_float,
    kernel_of,
    wrapped,
)

import polyop.assembly  # noqa: F401
from polyop.dispatch.registry import DEFINITIONS
from polyop.ops.define import ON_ARRAYS
from polyop.ops.views import VIEW_INVERSES
from polyop.schema.tags import Tag
from polyop.tensor.meta import element_strides
from polyop.tensor.tensor import Tensor, of_array

CASES = VIEWS + OTHERS


def on_tensors(case):
    return case.entry(*[wrapped(a, of_array) for a in case.args])


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_fake_is_real(case):
    """S145: the fake has the real result's shape, dtype and strides."""
    real, fake = on_tensors(case), fake_of(case)
    assert fake.shape == real.shape and fake.dtype == real.dtype
    if real.size:
        pairs = zip(real.shape, element_strides(real.payload), fake.strides, strict=True)
        assert all(a == b for n, a, b in pairs if n != 1), (real.stride(), fake.strides)
    assert fake.is_contiguous == real.is_contiguous()


@pytest.mark.parametrize("case", VIEWS, ids=repr)
def test_views_share(case):
    """S48: a view shares memory and version, and remembers its base."""
    base = of_array(case.args[0].copy())
    if not case.args[0].flags.c_contiguous:
        base = of_array(case.args[0])
    view = case.entry(base, *case.args[1:])
    if case.op.name() == "core::reshape":  # which copies where it must
        shares = np.shares_memory(view.payload, base.payload) or not view.size
        assert (view.version is base.version and view.version != 0) == shares
        assert hasattr(view, "view_of") == shares
        return
    assert view.version is base.version
    assert view.payload.size == 0 or np.shares_memory(view.payload, base.payload)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_gradient_is_the_transpose(case):
    """S124: for a linear operator, <f(x), g> is <x, gradient(g)>, argument by argument."""
    full = kernel_of(case)(*case.args)
    g = array(*np.shape(full), seed=5)
    for name, grad in gradients(case, g).items():
        i = [a.name for a in case.op._schema.arguments].index(name)
        zeros = [np.zeros_like(a) if is_float(a) and k != i else a for k, a in enumerate(case.args)]
        if Tag.pointwise in case.op.tags:  # whose gradients are summed by autograd
            grad = ON_ARRAYS["sum_to"](grad, case.args[i].shape)
        assert isinstance(grad, list) or np.shape(grad) == np.shape(case.args[i])
        assert dot(kernel_of(case)(*zeros), g) == pytest.approx(dot(case.args[i], grad))


def batches(case):
    """Give the in_dims patterns: each float tensor batched or not, in front or behind."""
    places = [i for i, a in enumerate(case.args) if is_float(a)]
    lists = [i for i, a in enumerate(case.args) if isinstance(a, list) and a and is_float(a[0])]
    for axis in (0, -1):
        for chosen in [places, *([p] for p in places)] if len(places) > 1 else [places]:
            if chosen:
                yield axis, chosen, []
        for i in lists:
            yield axis, [], [(i, k) for k in range(len(case.args[i]))]
            yield axis, [], [(i, 0)]
    indices = [i for i, a in enumerate(case.args) if isinstance(a, list) and not lists]
    for i in indices:
        found = [(i, k) for k, v in enumerate(case.args[i]) if isinstance(v, np.ndarray)]
        if found:
            yield 0, [], found
            yield 0, places, found[:1]


def batched(x, axis, count=3):
    parts = [x if x.dtype.kind == "i" else x * (k + 1) for k in range(count)]
    if x.dtype.kind == "i":
        parts = [(x + k) % 2 for k in range(count)]
    return np.stack(parts, axis % (x.ndim + 1)), parts


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_vmap_rule_is_a_loop(case):
    """S155: the batching rule gives what a loop over samples gives, for every in_dims."""
    for axis, whole, inside in batches(case):
        args, dims, samples = (
            list(case.args),
            [None] * len(case.args),
            [list(case.args) for _ in range(3)],
        )
        for i in whole:
            args[i], parts = batched(case.args[i], axis)
            dims[i] = axis % args[i].ndim
            for sample, part in zip(samples, parts, strict=True):
                sample[i] = part
        for i, k in inside:
            if dims[i] is None:
                args[i], dims[i] = list(case.args[i]), [None] * len(case.args[i])
                for sample in samples:
                    sample[i] = list(sample[i])
            args[i][k], parts = batched(case.args[i][k], axis)
            dims[i][k] = axis % args[i][k].ndim
            for sample, part in zip(samples, parts, strict=True):
                sample[i][k] = part
        out, at = case.op.rule("vmap")(info(3), tuple(dims), *[wrapped(a, of_array) for a in args])
        loop = np.stack([kernel_of(case)(*sample) for sample in samples])
        assert np.allclose(np.moveaxis(out.payload, at, 0), loop), (axis, whole, inside)


@pytest.mark.parametrize("case", VIEWS, ids=repr)
def test_view_inverses(case):
    """S168: put back into its base, a view's value reads as itself."""
    base, *statics = case.args
    view = kernel_of(case)(*case.args)
    value = array(*view.shape, seed=9)
    if case.op.name() == "core::broadcast_to":
        return
    new = VIEW_INVERSES[case.op.name()](of_array(base), of_array(value), *statics)
    assert isinstance(new, Tensor) and new.shape == base.shape
    assert np.array_equal(kernel_of(case)(new.payload, *statics), value)
    copy = base.copy()
    if case.op.name() != "core::reshape":
        kernel_of(case)(copy, *statics)[...] = value
        assert np.array_equal(copy, new.payload)


def test_every_view_has_an_inverse():
    """S168: no view operator of one tensor is without an inverse."""
    views = {n for n, d in DEFINITIONS.items() if n.startswith("core::") and d.op.is_view}
    assert {n for n in views if len(DEFINITIONS[n].op._schema.returns) == 1} <= set(VIEW_INVERSES)

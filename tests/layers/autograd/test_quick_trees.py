"""Gradients of operators with dicts and records of tensors, by the quick way and the long way."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from itertools import product
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.layers.autograd.tree_cases import HOW, WHOLE, Change, Maker, outcome
from tests.layers.autograd.tree_operators import (
    ANSWER,
    GIVEN,
    KERNELS,
    SEEN,
    Deep,
    Layer,
    Pair,
    Twins,
    keep,
    leaf,
    made,
    made_long,
    parts,
    right,
    tensor,
    total,
    values,
)

import polyop
from polyop import Tensor, autograd
from polyop.errors import AliasError, AutogradError
from polyop.library import custom_op


@pytest.fixture(autouse=True)
def fresh() -> None:
    GIVEN[:] = [right]
    SEEN.clear()
    ANSWER.clear()


# -- recorded at once ---------------------------------------------------------


@pytest.mark.parametrize("kind", KERNELS)
def test_trees_are_recorded_at_once(kind: str, long_way: list[Any]) -> None:
    """S127: gradients of trees are right, by one way forth and back."""
    x, op = leaf(2.0, 3.0), made(kind)
    for _ in range(2):
        x.grad = None
        out = op(*values(kind, x))
        out = polyop.add(*out) if kind == "two" else out
        out.sum().backward()
        weight = {"perhaps": 3.0, "many": 6.0, "two": 2.0}.get(kind, 1.0)
        np.testing.assert_array_equal(x.grad.numpy(), [4.0 * weight, 6.0 * weight])
    assert long_way == []


def test_needs_are_mirrored(long_way: list[Any]) -> None:
    """S125: `needs_input_grad` has a dict for a dict and for a record, False for what is absent."""
    x, c = leaf(1.0, 2.0), tensor([1.0, 1.0])
    made("dict")({"a": x, "b": c})
    made("layer")(Layer(x, None))
    made("pair")(Pair(1, c, x))
    made("named")({"times": 1, "weight": x})
    made("perhaps")(x, None, None)
    made("perhaps")(c, None, {"a": None, "b": x})
    made("many")([c, x], Pair(1, c), 1.0, {}, None)
    assert SEEN == [
        ({"a": True, "b": False},),
        ({"weight": True, "bias": False, "scale": False},),
        ({"count": False, "first": False, "second": True},),
        ({"times": False, "weight": True},),
        (True, False, False),
        (False, False, {"a": False, "b": True}),
        ([False, True], {"count": False, "first": False, "second": False}, False, {}, False),
    ]
    assert long_way == []


def test_trees_of_other_classes_go_the_long_way(long_way: list[Any]) -> None:
    """S8: a record of a subclass has the gradients of all its fields."""
    x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    op = made("layer")
    op(Deep(x, y, 2.0, z)).sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), [30.0, 36.0])
    np.testing.assert_array_equal(y.grad.numpy(), [12.0, 16.0])
    assert SEEN[0] == ({"weight": True, "bias": True, "scale": False, "more": True},)
    assert long_way
    long_way.clear()
    op(Layer(x, y)).sum().backward()
    assert long_way == []


def test_schemas_without_classes(long_way: list[Any]) -> None:
    """S8: a record of a schema that is text takes a dict at once, and any record at length."""
    schema = "({Tensor weight, Tensor? bias} p) -> Tensor"
    op = custom_op("quicktrees::text", total, mutates_args=(), schema=schema)
    op.register_autograd(lambda ctx, g: GIVEN[-1](ctx, g), setup_context=keep)
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    op({"bias": y, "weight": x}).sum().backward()
    assert long_way == []
    np.testing.assert_array_equal(y.grad.numpy(), [6.0, 8.0])
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 8.0])
    op(Layer(x, y)).sum().backward()
    assert long_way
    np.testing.assert_array_equal(y.grad.numpy(), [18.0, 24.0])
    np.testing.assert_array_equal(x.grad.numpy(), [6.0, 12.0])


def test_trees_that_are_walked() -> None:
    """S8: an operator with lists inside of a dict is recorded at length, whatever stands beside."""

    @custom_op("quicktrees::walked", mutates_args=())
    def walked(d: dict[str, Tensor], e: dict[str, list[Tensor]]) -> Tensor:
        return total(d, e)

    walked.register_autograd(lambda ctx, g: ({"a": g}, {"b": [g * 2.0]}))
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    walked({"a": x}, {"b": [y]}).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0, 1.0])
    np.testing.assert_array_equal(y.grad.numpy(), [2.0, 2.0])


# -- at once as at length -----------------------------------------------------


def same(maker: Maker, *, again: bool = False) -> None:
    """Hold a call that is recorded at once to the same one that is recorded at length."""
    quick, slow = [outcome(make(maker.kind), maker, again=again) for make in (made, made_long)]
    np.testing.assert_equal(quick[0], slow[0])
    # The gradients of a tensor that stands at several places are added in another order.
    np.testing.assert_equal([g is None for g in quick[1]], [g is None for g in slow[1]])
    for one, other in zip(quick[1], slow[1], strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-6 if one.dtype == np.float32 else 1e-13)


@settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.sampled_from([*KERNELS]), st.integers(0, 2**32), st.booleans())
def test_both_ways_are_one(kind: str, seed: int, again: bool) -> None:
    """S125, S127, S128: values, needs, hooks' order, errors and their texts are the same."""
    same(Maker(kind, seed), again=again)


@pytest.mark.parametrize("kind", KERNELS)
def test_every_layout(kind: str) -> None:
    """S127, S128: each layout of gradients, right or wrong, is taken or refused by both alike."""
    count = len(Maker(kind, None).args())
    wholes = (0, 1) if count == 1 else (0,)  # one gradient comes in a tuple, or alone
    for i, how, whole in product(range(count), range(len(HOW)), wholes):
        same(Maker(kind, None, Change([(i, how)], whole)))
    for whole in range(len(WHOLE)):
        same(Maker(kind, None, Change((), whole)))


@pytest.mark.parametrize("grad", [{}, {"a": None}, Layer(None, None), tensor([1.0, 1.0]), 1.0])
def test_gradients_of_what_is_absent(grad: Any) -> None:
    """S128: a gradient for a tree that is absent is refused, an empty one too."""
    x = leaf(1.0, 2.0)
    for make in (made, made_long):
        for name, grads in (("p", (None, grad, None)), ("d", (None, None, grad))):
            GIVEN[:] = [lambda ctx, g, grads=grads: grads]
            with pytest.raises(AutogradError, match=f"for '{name}', which holds no Tensor"):
                make("perhaps")(x, None, None).sum().backward()


WAYS = pytest.mark.parametrize("make", [made, made_long])


@WAYS
def test_gradients_of_another_library(make: Any) -> None:
    """S127: a gradient that holds an array of another library goes back as NumPy's."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    held = polyop.from_array(torch.tensor([5.0, 6.0], dtype=torch.float64))
    GIVEN[:] = [lambda ctx, g: {"a": held, "b": g}]
    make("dict")({"a": x, "b": y}).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 6.0])
    np.testing.assert_array_equal(y.grad.numpy(), [1.0, 1.0])


@WAYS
def test_what_was_written_since(make: Any) -> None:
    """S125: a part of a tree that was saved and then written raises in backward."""
    x, c = leaf(1.0, 2.0), tensor([1.0, 1.0])
    out = make("layer")(Layer(x, c)).sum()
    c.add_(1.0)
    with pytest.raises(AutogradError, match="'saved tensor 1'.* was written after it was saved"):
        out.backward()


@WAYS
def test_containers_that_callers_change_later(make: Any) -> None:
    """S127: a gradient goes to the tensor that was there in the call."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    GIVEN[:] = [lambda ctx, g: {"a": g} if ctx.kind == "dict" else {"weight": g}]
    for kind, container in (("dict", {"a": x}), ("layer", Layer(x, None))):
        x.grad = None
        op = make(kind, lambda ctx, inputs, output, kind=kind: setattr(ctx, "kind", kind))
        out = op(container).sum()
        if isinstance(container, dict):
            container["a"] = y
        else:
            container.weight = y
        out.backward()
        np.testing.assert_array_equal(x.grad.numpy(), [1.0, 1.0])
        assert y.grad is None


def test_containers_that_kernels_change() -> None:
    """S127: a kernel that changes its container moves no gradient to another tensor."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)

    @custom_op("quicktrees::emptied", mutates_args=())
    def emptied(d: dict[str, Tensor], p: Layer) -> Tensor:
        out = total(d, p)
        d.clear()
        p.weight = out
        return out

    emptied.register_autograd(lambda ctx, g: ({"a": g * 2.0}, {"weight": g * 3.0}))
    given = {"a": x}
    emptied(given, Layer(y, None)).sum().backward()
    assert given == {"a": x}
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])
    np.testing.assert_array_equal(y.grad.numpy(), [3.0, 3.0])


@WAYS
def test_one_tensor_in_many_places(make: Any) -> None:
    """S127: gradients of one tensor are added, and no two leaves share memory."""
    x = leaf(1.0, 2.0)
    make("perhaps")(x, Layer(x, x), {"a": x, "b": x}).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [30.0, 60.0])
    x.grad = None
    GIVEN[:] = [lambda ctx, g: {key: g * s for key, s in (("a", 0.1), ("b", 0.2), ("c", 0.3))}]
    make("dict")({"a": x, "b": x, "c": x}).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.1 + 0.2 + 0.3] * 2)  # in this order
    a, b, c = leaf(1.0, 2.0), leaf(1.0, 2.0), leaf(1.0, 2.0)
    GIVEN[:] = [lambda ctx, g: (g, {"weight": g}, {"a": g})]
    make("perhaps")(a, Layer(b, None), {"a": c}).sum().backward()
    grads = [t.grad.numpy() for t in (a, b, c)]
    assert not any(np.shares_memory(p, q) for p, q in zip(grads, [*grads[1:], grads[0]]))


SHARING: list[tuple[str, Callable[[Tensor, Tensor], Any]]] = [
    ("dict", lambda x, y: ({"a": x, "b": y},)),
    ("layer", lambda x, y: (Layer(x, y),)),
    ("deep", lambda x, y: (Deep(x, None, 1.0, y),)),
    ("pair", lambda x, y: (Pair(1, y, x),)),
    ("pair", lambda x, y: (Twins(1, y, x),)),
    ("named", lambda x, y: ({"times": 1, "weight": x},)),
    ("perhaps", lambda x, y: (x, None, {"a": None, "b": y})),
    ("perhaps", lambda x, y: (x, Layer(y, None), None)),
]


@WAYS
@pytest.mark.parametrize(("kind", "args"), SHARING)
def test_results_that_share_memory(make: Any, kind: str, args: Any) -> None:
    """S47: a result that is a part of a tree, or a view of one, is refused, whichever part."""
    x, y = leaf(1.0, 2.0), tensor([1.0, 2.0])
    op, given = make(kind), args(x, y)
    for part in parts(given):
        for answer in (part.detach(), polyop.from_numpy(part.numpy(force=True)[::-1])):
            ANSWER[:] = [answer]
            with pytest.raises(AliasError, match="shares storage with argument"):
                op(*given)
    ANSWER.clear()
    assert op(*given).requires_grad


@WAYS
def test_marked_results_and_absent_gradients(make: Any) -> None:
    """S125: a result that is marked has no history, and what nobody sends is None if so said."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    sent: list[Any] = []

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    def back(ctx: Any, g: Any, h: Any) -> Any:
        sent.append((g is None, h is None))
        return Layer(g, None), None

    GIVEN[:] = [back]
    one, two = make("two", setup)(Layer(x, None), {"a": y})
    assert (one.requires_grad, two.requires_grad) == (True, False)
    one.sum().backward()
    assert sent == [(False, True)]
    assert y.grad is None


@WAYS
def test_saved_results_make_no_cycle(make: Any) -> None:
    """S125: a saved result has its history in a second gradient, and keeps nothing alive."""

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    GIVEN[:] = [lambda ctx, g: {"weight": g * ctx.saved_tensors[0]}]
    x, op = leaf(1.0, 2.0), make("layer", setup)
    out = op(Layer(x, None))
    (first,) = autograd.grad(out.sum(), [x], create_graph=True)
    (second,) = autograd.grad(first.sum(), [x])
    np.testing.assert_array_equal(first.numpy(force=True), [1.0, 4.0])
    np.testing.assert_array_equal(second.numpy(), [1.0, 4.0])
    out = op(Layer(x, None))
    there = weakref.ref(out)
    gc.disable()
    try:
        del out
        assert there() is None
    finally:
        gc.enable()


@WAYS
def test_freed_and_retained_graphs(make: Any) -> None:
    """S120: a graph that is retained serves gradients of both kinds, in any order."""
    x = leaf(1.0, 2.0)
    out = make("two")(Layer(x, x), {"a": x})
    out = (out[0] + out[1]).sum()
    for create in (False, True, False, True, True, False):
        (found,) = autograd.grad(out, [x], retain_graph=True, create_graph=create)
        np.testing.assert_array_equal(found.numpy(force=True), [8.0, 16.0])
    out.backward()
    with pytest.raises(AutogradError, match="were freed"):
        out.backward()


def test_threads_on_one_graph() -> None:
    """S127: runs of both kinds on one graph at a time, each with the right gradients."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    op, wrong = made("perhaps"), []

    def run(out: Tensor, create: bool) -> None:
        for _ in range(5):
            found = autograd.grad(out, [x, y], retain_graph=True, create_graph=create)
            if [g.numpy(force=True).tolist() for g in found] != [[8.0, 16.0], [12.0, 16.0]]:
                wrong.append(found)

    for _ in range(20):
        out = op(x, Layer(y, None), {"a": x}).sum()
        threads = [Thread(target=run, args=(out, create)) for create in (False, True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", KERNELS)
def test_trees_to_the_second_order(kind: str) -> None:
    """S133: gradients of trees are themselves differentiable, and right."""
    op = made(kind)

    def f(x: Tensor) -> Any:
        return op(*values(kind, x))

    assert autograd.gradcheck(f, (leaf(2.0, 3.0),))
    assert autograd.gradgradcheck(f, (leaf(2.0, 3.0),))

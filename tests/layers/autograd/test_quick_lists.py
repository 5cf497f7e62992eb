"""Gradients of operators with lists of tensors, and with tensors that may be absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.autograd import gradcheck, gradgradcheck
from polyop.errors import AutogradError
from polyop.library import custom_op

GIVEN: list[Any] = []
NEEDS: list[Any] = []


def tensor(array: Any) -> Tensor:
    return polyop.from_numpy(np.asarray(array))


def leaf(*values: float) -> Tensor:
    return tensor(np.array(values)).requires_grad_()


@custom_op("lists::product", mutates_args=())
def product(xs: list[Tensor]) -> Tensor:
    out = np.ones(())
    for x in xs:
        out = out * x.numpy()
    return tensor(out)


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[0])
    NEEDS[:] = [ctx.needs_input_grad]


def product_backward(ctx: Any, g: Tensor) -> Any:
    xs = ctx.saved_tensors
    grads = []
    for i in range(len(xs)):
        d = g
        for j, x in enumerate(xs):
            d = d * x if j != i else d
        grads.append(d * 1.0)
    return (grads,)


product.register_autograd(product_backward, setup_context=keep)


@custom_op("lists::mixed", mutates_args=())
def mixed(x: Tensor, ys: list[Tensor | None], z: Tensor | None, k: int) -> Tensor:
    out = x.numpy() * k
    for y in [*ys, z]:
        out = out + (0.0 if y is None else y.numpy())
    return tensor(out)


def mixed_backward(ctx: Any, g: Tensor) -> Any:
    return GIVEN[-1](ctx, g)


def mixed_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.k = inputs[3]
    ctx.present = [y is not None for y in inputs[1]], inputs[2] is not None
    NEEDS[:] = [ctx.needs_input_grad]


mixed.register_autograd(mixed_backward, setup_context=mixed_setup)


def right(ctx: Any, g: Tensor) -> Any:
    ys, z = ctx.present
    return g * ctx.k, [g * 1.0 if y else None for y in ys], g * 1.0 if z else None, None


@custom_op("lists::emptied", mutates_args=())
def emptied(xs: list[Tensor]) -> Tensor:
    out = np.zeros(2)
    while xs:
        out = out + xs.pop().numpy()
    return tensor(out)


emptied.register_autograd(lambda ctx, g: [g * 1.0, g * 2.0])


def test_lists_are_recorded_at_once(long_way: list[Any]) -> None:
    """S127: the gradient of a list is a list; items that require none get none."""
    x, y, c = leaf(2.0, 3.0), leaf(5.0, 7.0), tensor([1.0, 2.0])
    polyop.sum(product([x, c, y])).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 14.0])
    np.testing.assert_array_equal(y.grad.numpy(), [2.0, 6.0])
    assert c.grad is None
    assert NEEDS == [([True, False, True],)]
    GIVEN[:] = [right]
    z = leaf(1.0, 1.0)
    polyop.sum(mixed(x, [None, y, c], z, 4)).backward()
    assert NEEDS == [(True, [False, True, False], True, False)]
    np.testing.assert_array_equal(x.grad.numpy(), [9.0, 18.0])
    np.testing.assert_array_equal(z.grad.numpy(), [1.0, 1.0])
    polyop.sum(mixed(c, [], z, 4)).backward()
    polyop.sum(mixed(c, [None, y], None, 4)).backward()
    np.testing.assert_array_equal(z.grad.numpy(), [2.0, 2.0])
    assert long_way == []


def test_one_tensor_twice_in_a_list() -> None:
    """S127: the gradients of one tensor in several places are added, and no leaf shares memory."""
    x, y = leaf(2.0, 3.0), leaf(1.0, 1.0)
    polyop.sum(product([x, x, x])).backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * np.array([2.0, 3.0]) ** 2)
    GIVEN[:] = [lambda ctx, g: (g, [g, g], g, None)]
    z, w = leaf(0.0, 0.0), leaf(0.0, 0.0)
    polyop.sum(mixed(x, [y, z], w, 1)).backward()
    grads = [t.grad.numpy() for t in (y, z, w)]
    assert not any(np.shares_memory(a, b) for a, b in zip(grads, [*grads[1:], grads[0]]))


def test_a_list_that_is_changed_after_the_call() -> None:
    """S127: neither the caller's later changes nor the kernel's move a gradient to another item."""
    x, y = leaf(2.0, 3.0), leaf(5.0, 7.0)
    given = [x, y]
    out = product(given)
    given[:] = [y]
    polyop.sum(out).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 7.0])
    np.testing.assert_array_equal(y.grad.numpy(), [2.0, 3.0])
    a, b = leaf(1.0, 1.0), leaf(1.0, 1.0)
    both = [a, b]
    polyop.sum(emptied(both)).backward()
    assert len(both) == 2
    np.testing.assert_array_equal(a.grad.numpy(), [1.0, 1.0])
    np.testing.assert_array_equal(b.grad.numpy(), [2.0, 2.0])


@pytest.mark.parametrize(
    "layout",
    [
        lambda d: (d,),
        lambda d: d,
        lambda d: tuple(d),
        lambda d: (tuple(d),),
        lambda d: {"xs": d},
    ],
)
def test_each_layout_of_the_only_argument(layout: Any) -> None:
    """S127: the gradients of the only argument, a list, come as a list, a tuple, or inside one."""

    @custom_op("lists::only", mutates_args=())
    def only(xs: list[Tensor]) -> Tensor:
        return tensor(xs[0].numpy() + xs[1].numpy())

    only.register_autograd(lambda ctx, g: layout([g * 2.0, g * 3.0]))
    x, y = leaf(1.0, 1.0), leaf(1.0, 1.0)
    polyop.sum(only([x, y])).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])
    np.testing.assert_array_equal(y.grad.numpy(), [3.0, 3.0])


def test_absent_gradients() -> None:
    """S127: None for a list, or for an item, is no gradient; a list of one may come in a tuple."""
    x, y = leaf(1.0, 1.0), leaf(1.0, 1.0)
    GIVEN[:] = [lambda ctx, g: (g, None, None, None)]
    polyop.sum(mixed(x, [y], None, 1)).backward()
    assert y.grad is None
    GIVEN[:] = [lambda ctx, g: (None, (None,), None, None)]
    polyop.sum(mixed(x, [y], None, 1)).backward()
    assert y.grad is None

    @custom_op("lists::single", mutates_args=())
    def single(xs: list[Tensor]) -> Tensor:
        return tensor(xs[0].numpy() * 1.0)

    single.register_autograd(lambda ctx, g: (g * 5.0,))
    polyop.sum(single([y])).backward()
    np.testing.assert_array_equal(y.grad.numpy(), [5.0, 5.0])


@pytest.mark.parametrize(
    "given",
    [
        lambda g: (g, [g], None, None),
        lambda g: (g, g, None, None),
        lambda g: (g, [g, g, g], None, None),
        lambda g: (g, {"a": g}, None, None),
        lambda g: (g, [None, g, g], g, None),
        lambda g: (g, [g, g, None], None, None),
        lambda g: (g, [None, 1.0, g], None, None),
        lambda g: (g, [None, polyop.ones(3), g], None, None),
        lambda g: (g, [None, g, g], None, g),
    ],
)
def test_gradients_that_do_not_fit(given: Any) -> None:
    """S128: a list of another length, or an item of another shape or kind, is refused."""
    x, y, z = leaf(1.0, 1.0), leaf(1.0, 1.0), leaf(1.0, 1.0)
    GIVEN[:] = [lambda ctx, g: given(g)]
    out = polyop.sum(mixed(x, [None, y, z], None, 1))
    with pytest.raises(AutogradError, match="mixed"):
        out.backward()


def test_other_dtypes_are_cast() -> None:
    """S128: a gradient of another dtype gets that of its item."""
    x = tensor(np.ones(2, np.float32)).requires_grad_()
    y = leaf(1.0, 1.0)
    GIVEN[:] = [right]
    polyop.sum(mixed(y, [x], None, 1)).backward()
    assert x.grad.dtype == np.float32


def test_lists_to_the_second_order() -> None:
    """S130: gradients of lists are themselves differentiable, and right."""
    x, y = leaf(2.0, 3.0), leaf(5.0, 7.0)
    assert gradcheck(lambda a, b: product([a, b, a]), (x, y))
    assert gradgradcheck(lambda a, b: product([a, b, a]), (x, y))


def test_saved_items_are_held_to_their_versions() -> None:
    """S125: an item that was saved and then written raises in backward."""
    x, c = leaf(2.0, 3.0), tensor([1.0, 2.0])
    out = polyop.sum(product([x, c]))
    c.add_(1.0)
    with pytest.raises(AutogradError):
        out.backward()


def test_a_freed_graph_and_a_retained_one() -> None:
    """S120: a second backward needs the graph to be retained, with lists too."""
    x = leaf(2.0, 3.0)
    out = polyop.sum(product([x]))
    out.backward(retain_graph=True)
    out.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])
    with pytest.raises(AutogradError):
        out.backward()

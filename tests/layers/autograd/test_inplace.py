"""Writes to tensors with a history, and views of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.errors import AutogradError, MutationError
from polyop.layers.autograd import grad, no_grad
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

mul, total = OPS["multiply"], OPS["sum"]


def leaf(data: Any, dtype: Any = float) -> Tensor:
    """Make a leaf."""
    return of_array(np.array(data, dtype)).requires_grad_()


def test_a_write_moves_history() -> None:
    """S135: the gradient of a written tensor goes through the write, and reads old values."""
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = mul(x, 2.0)
    assert OPS["multiply_"](y, w) is y
    total(mul(y, y)).backward()
    assert x.grad.tolist() == [72, 256]
    assert w.grad.tolist() == [24, 128]


def test_a_constant_that_is_written_gets_a_history() -> None:
    """S135: writing something with a history makes a tensor require grad."""
    x, y = leaf([1.0, 2.0]), of_array(np.zeros(2))
    OPS["add_"](y, x)
    assert y.requires_grad
    total(mul(y, y)).backward()
    assert x.grad.tolist() == [2, 4]


def test_an_overwritten_history_ends() -> None:
    """S135: what was overwritten gets no gradient."""
    x, w = leaf([1.0, 2.0]), leaf([5.0, 6.0])
    y = mul(x, 2.0)
    OPS["copy_"](y, w)
    total(y).backward()
    assert w.grad.tolist() == [1, 1]
    assert x.grad is None or x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("view", [False, True])
def test_leaves_cannot_be_written(view: bool) -> None:
    """S135: a leaf that requires grad, or a view of one, is not written; nothing changes."""
    x = leaf([1.0, 2.0])
    target = OPS["select"](x, 0, 0) if view else x
    with pytest.raises(MutationError, match="view of a leaf" if view else "a leaf"):
        OPS["add_"](target, of_array(np.array(1.0)))
    assert (x.tolist(), x._version) == ([1, 2], 0)
    with no_grad():
        OPS["add_"](target, of_array(np.array(1.0)))
    assert x._version == 1


@pytest.mark.parametrize("is_leaf", [False, True])
def test_a_write_that_the_base_would_not_see(is_leaf: bool) -> None:
    """S135: a view made under no_grad is not written with grad mode on; nothing changes."""
    x = leaf([1.0, 2.0])
    base = x if is_leaf else mul(x, 1.0)
    with no_grad():
        view = OPS["select"](base, 0, 0)
        part = OPS["select"](OPS["detach"](base), 0, 0)
    with pytest.raises(MutationError, match="view without history"):
        OPS["add_"](view, of_array(np.array(1.0)))
    assert (base.tolist(), base._version) == ([1, 2], 0)
    OPS["add_"](part, of_array(np.array(1.0)))  # a detached alias is a constant
    with no_grad():
        OPS["add_"](view, of_array(np.array(1.0)))
    assert (base.tolist(), base._version) == ([3, 2], 2)


def test_a_write_through_a_view() -> None:
    """S136: the base's gradient sees a write through a view, and other views see it too."""
    x, w = leaf([1.0, 2.0, 3.0]), leaf(10.0)
    y = mul(x, 2.0)
    other = OPS["slice"](y, 0, 0, 2, 1)
    view = OPS["select"](y, 0, 1)
    OPS["multiply_"](view, w)
    assert y.tolist() == [2, 40, 6]
    total(mul(other, other)).backward(retain_graph=True)
    assert x.grad.tolist() == [8, 1600, 0]
    assert w.grad.item() == 320
    gx, gw, gv = grad(total(mul(y, mul(view, 1.0))), [x, w, view])
    assert (gx.tolist(), gv.item()) == ([80, 1760, 80], 48)
    assert gw.item() == 2 * 40 * 4 + 4 * 8


def test_a_view_of_a_written_base() -> None:
    """S136: a view taken before its base is written has the base's new history."""
    x = leaf([1.0, 2.0])
    y = mul(x, 1.0)
    view = OPS["select"](y, 0, 0)
    OPS["multiply_"](y, of_array(np.array([3.0, 3.0])))
    view.backward()
    assert x.grad.tolist() == [3, 0]


def test_a_constant_base() -> None:
    """S136: filling a constant by its rows gives gradients to what was put in."""
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    buffer = of_array(np.zeros((2, 2)))
    early = OPS["select"](buffer, 0, 1)
    for i, row in enumerate((a, b)):
        OPS["copy_"](OPS["select"](buffer, 0, i), mul(row, row))
    assert early.requires_grad
    total(mul(buffer, 1.0)).backward(retain_graph=True)
    total(early).backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([2, 4], [12, 16])


def test_a_detached_alias_has_no_history() -> None:
    """S136: writing through a detached alias is seen by the check, not by the history."""
    x = leaf([1.0, 2.0])
    y = mul(x, 2.0)
    out = total(mul(y, y))
    OPS["add_"](y.detach(), of_array(np.array(1.0)))
    with pytest.raises(AutogradError, match="version 1"):
        out.backward()


def test_second_gradients_through_writes() -> None:
    """S133: gradients through a write to a view are differentiated again."""
    x = leaf([1.0, 2.0])
    y = mul(x, x)
    OPS["multiply_"](OPS["select"](y, 0, 1), OPS["select"](x, 0, 0))
    (g,) = grad(total(mul(y, y)), [x], create_graph=True)
    (second,) = grad(total(g), [x])
    # f = x0**4 + (x1**2 * x0)**2
    assert g.tolist() == [4 + 2 * 16, 4 * 8]
    assert second.tolist() == [12 + 32 + 64, 64 + 48]


def test_setitem() -> None:
    """S135: `x[i] = v` is a write through a view."""
    a = leaf([1.0, 2.0])
    y = mul(of_array(np.ones((2, 2))), 2.0)
    y[0] = mul(a, a)
    y[1, 0] = a[1]
    y.sum().backward()
    assert a.grad.tolist() == [2, 5]


STEPS = ["mul", "add", "copy", "sin"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 4), st.booleans()), max_size=6))
@settings(max_examples=40, deadline=None)
def test_random_writes_equal_pytorchs(steps: list[tuple[str, int, bool]]) -> None:
    """S135, S136: random writes, to a base and through views, give PyTorch's gradients."""
    data = np.array([[0.3, -0.2], [0.5, 0.1]])
    x, tx = leaf(data), torch.tensor(data, requires_grad=True)
    y, ty = mul(x, 1.0), tx * 1.0
    ours = [y, OPS["select"](y, 0, 0), OPS["transpose"](y, 0, 1)]
    theirs = [ty, ty.select(0, 0), ty.transpose(0, 1)]
    ours += [OPS["select"](ours[2], 0, 1), OPS["reshape"](y, [4])]
    theirs += [theirs[2].select(0, 1), ty.view(4)]
    for name, i, use_x in steps:
        a = OPS["sin"](OPS["sum"](x)) if use_x else of_array(np.array(0.7))
        b = torch.sin(tx.sum()) if use_x else torch.tensor(0.7, dtype=torch.float64)
        if name == "sin":
            OPS["sin_"](ours[i])
            theirs[i].sin_()
        else:
            ours_name = {"mul": "multiply_", "add": "add_", "copy": "copy_"}[name]
            OPS[ours_name](ours[i], a)
            getattr(theirs[i], f"{name}_")(b)
    for t, e in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(t.numpy(force=True), e.detach().numpy(), rtol=1e-12)
        try:
            (w,) = torch.autograd.grad(
                (e * e).sum(), [tx], retain_graph=True, materialize_grads=True
            )
        except RuntimeError:
            return  # what PyTorch saved was written; we keep copies, and differences check those
        (g,) = grad(total(mul(t, t)), [x], retain_graph=True, materialize_grads=True)
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "exp", "tanh", "sqrt"])
def test_second_gradients_of_writes_to_parts_that_read_their_result(name: str) -> None:
    """S133, S136: a saved result of a write to a view has the history of the part."""
    data = np.array([[0.3, 0.2, 0.9], [0.5, 0.1, 0.4]])
    x, tx = leaf(data), torch.tensor(data, requires_grad=True)
    y, ty = mul(x, x), tx * tx
    OPS[f"{name}_"](y[1:, 1:])
    getattr(ty[1:, 1:], f"{name}_")()
    for part, their in ((y, ty), (y[1:], ty[1:])):
        (g,) = grad(total(mul(part, part)), [x], create_graph=True)
        (tg,) = torch.autograd.grad((their * their).sum(), tx, create_graph=True)
        (g2,) = grad(total(mul(g, g)), [x], create_graph=True)
        (tg2,) = torch.autograd.grad((tg * tg).sum(), tx, create_graph=True)
        (g3,) = grad(total(mul(g2, x)), [x], retain_graph=True)
        (tg3,) = torch.autograd.grad((tg2 * tx).sum(), tx, retain_graph=True)
        np.testing.assert_allclose(g2.numpy(force=True), tg2.detach().numpy(), rtol=1e-9)
        np.testing.assert_allclose(g3.numpy(force=True), tg3.numpy(), rtol=1e-9)


def test_the_base_of_a_view_of_a_view() -> None:
    """S136: `_base` is the tensor that owns the memory, whatever its data are."""
    for data in ([[0.0, 0.0]], [[1.0, 2.0]], [[0.0]]):
        base = of_array(np.array(data))
        assert base[0]._base is base and base[0][:1]._base is base and base._base is None
        scalar = of_array(np.array(0.0))
        assert scalar[None][0]._base is scalar


def _addcmul_of_itself(y: Any) -> None:
    y.addcmul_(y, y)


def _by_a_view_of_itself(y: Any) -> None:
    y.mul_(y[...])


def _by_its_part(y: Any) -> None:
    y[1:].mul_(y[0])


def _part_of_a_part(y: Any) -> None:
    part = y[1:]
    part.addcmul_(part, y[0])


def _by_a_detached_alias(y: Any) -> None:
    y[1:].mul_(y[1:].detach())


@pytest.mark.parametrize(
    "write",
    [
        _addcmul_of_itself, _by_a_view_of_itself, _by_its_part, _part_of_a_part,
        _by_a_detached_alias,
    ],
)  # fmt: skip
def test_writes_that_read_the_memory_which_they_write(write: Any) -> None:
    """S135: gradients read what an alias of the written memory was before the write."""
    data = np.array([0.5, -1.0, 2.0])
    x = leaf(data)
    y = mul(x, 1.0)
    before = y.detach().clone()
    write(y)
    expected = {
        _addcmul_of_itself: [2.0, -1.0, 5.0],
        _by_a_view_of_itself: [1.0, -2.0, 4.0],
        _by_its_part: [2.0, 0.5, 0.5],
        _part_of_a_part: [2.0, 1.5, 1.5],
        _by_a_detached_alias: [1.0, -1.0, 2.0],
    }[write]
    (g,) = grad(total(y), [x])
    np.testing.assert_allclose(g.numpy(), expected)
    np.testing.assert_allclose(before.numpy(), data)

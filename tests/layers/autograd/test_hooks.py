"""Hooks on tensors and on nodes, and hooks for what is saved, against PyTorch (S138)."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import AutogradError, UsageTypeError

Step = tuple[str, int, int]


def leaf(*data: float) -> Tensor:
    """Make a leaf."""
    return polyop.tensor(list(data), dtype=polyop.float64, requires_grad=True)


def program(rng: random.Random) -> list[Step]:
    """Draw a program: each step computes from two earlier values."""
    ops = ["mul", "add", "sin", "mul", "chunk"]
    return [(rng.choice(ops), rng.randrange(2 + i), rng.randrange(2 + i)) for i in range(6)]


def calls(lib: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """Give the operators of a library."""
    return {
        "mul": lambda a, b: a * b,
        "add": lambda a, b: a + b,
        "sin": lambda a, b: lib.sin(a),
        "chunk": lambda a, b: a + b * 0.5,
    }


def logged(lib: Any, steps: list[Step], leaves: list[Any], rng: random.Random) -> list[Any]:
    """Run a program with hooks at random, and give what they saw and the gradients."""
    log: list[Any] = []

    def hook(name: str, factor: float) -> Callable[[Any], Any]:
        def seen(g: Any) -> Any:
            log.append((name, np.round(g.detach().numpy(), 9).tolist()))
            return g * factor if factor else None

        return seen

    values = list(leaves)
    for op, i, j in steps:
        values.append(calls(lib)[op](values[i], values[j]))
    for i, value in enumerate(values):
        for k in range(rng.randrange(3)):
            handle = value.register_hook(hook(f"{i}.{k}", rng.choice([0, 2.0, -1.0])))
            if rng.random() < 0.2:
                handle.remove()
        if i >= 2 and rng.random() < 0.4:
            value.retain_grad()
    for i, value in enumerate(leaves):
        value.register_post_accumulate_grad_hook(
            lambda t, i=i: log.append((f"after {i}", np.round(t.grad.numpy(), 9).tolist()))
        )
    sum(values[2:]).sum().backward()
    kept = [None if v.grad is None else np.round(v.grad.numpy(), 9).tolist() for v in values]
    return [sorted(log, key=lambda entry: entry[0]), kept]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(25))
def test_hooks_are_those_of_pytorch(seed: int) -> None:
    """S138: hooks see and replace the same gradients as PyTorch's, and leave the same `.grad`."""
    steps = program(random.Random(seed))
    data = np.random.default_rng(seed).normal(size=(2, 3))
    ours = [polyop.from_numpy(d.copy()).requires_grad_() for d in data]
    theirs = [torch.from_numpy(d.copy()).requires_grad_() for d in data]
    got = logged(polyop, steps, ours, random.Random(seed))
    wanted = logged(torch, steps, theirs, random.Random(seed))
    assert got[0] == wanted[0]
    assert got[1] == wanted[1]


@pytest.mark.parametrize("lib", [polyop, torch])
def test_hooks_of_what_is_asked_for(lib: Any) -> None:
    """S138: `grad` runs hooks of inner tensors and leaves once, and gives their result."""
    seen: list[str] = []
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3.0
    x.register_hook(lambda g: seen.append("x") or g * 100)
    y.register_hook(lambda g: seen.append("y") or g * 10)
    z = (y * y).sum()
    (gy,) = lib.autograd.grad(z, [y], retain_graph=True)
    (gx,) = lib.autograd.grad(z, [x], retain_graph=True)
    assert seen == ["y", "y", "x"]
    assert gy.tolist() == [60.0, 120.0]
    assert gx.tolist() == [18000.0, 36000.0]
    both = lib.autograd.grad(z, [x, y])
    assert seen[3:] == ["y", "x"]
    if lib is polyop:  # PyTorch gives the gradient of before the hook here, and of behind it above
        assert [g.tolist() for g in both] == [gx.tolist(), gy.tolist()]


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_run_in_order_and_each_time(create_graph: bool) -> None:
    """S138: hooks run as they were registered; a kept graph runs them again."""
    seen: list[int] = []
    x = leaf(1.0, 2.0)
    y = x * 2.0
    for i in range(3):
        y.register_hook(lambda g, i=i: seen.append(i))
    for _ in range(2):
        autograd.grad(y.sum(), [x, y], retain_graph=True, create_graph=create_graph)
    assert seen == [0, 1, 2, 0, 1, 2]


def test_a_hook_may_be_differentiated() -> None:
    """S138: with create_graph what a hook computes has a gradient of its own."""
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    (g,) = autograd.grad(y.sum(), [x], create_graph=True)
    assert g.tolist() == [8.0]
    assert autograd.grad(g.sum(), [x])[0].tolist() == [8.0]


def test_what_a_hook_may_not_do() -> None:
    """S138: another shape, no function, no gradient, no leaf: errors that say so."""
    x = leaf(1.0, 2.0)
    y = x * 2.0
    y.register_hook(lambda g: g.sum())
    with pytest.raises(AutogradError, match="no gradient of this tensor") as caught:
        y.sum().backward()
    assert "(2,)" in caught.value.declared
    with pytest.raises(UsageTypeError):
        x.register_hook(1)  # type: ignore[arg-type]
    with pytest.raises(AutogradError, match="does not require grad"):
        x.detach().register_hook(print)
    with pytest.raises(AutogradError, match="for leaves"):
        y.register_post_accumulate_grad_hook(print)
    with pytest.raises(UsageTypeError):
        x.register_post_accumulate_grad_hook(None)


def test_after_hooks_take_steps() -> None:
    """S138: a hook after accumulation may step and drop the gradient; `grad` does not run it."""
    x = leaf(1.0, 2.0)

    def step(t: Tensor) -> None:
        with autograd.no_grad():
            t.add_(t.grad * -0.1)
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    (x * x).sum().backward()
    assert np.allclose(x.tolist(), [0.8, 1.6])
    assert x.grad is None
    autograd.grad((x * x).sum(), x)
    assert np.allclose(x.tolist(), [0.8, 1.6])
    handle.remove()
    (x * x).sum().backward()
    assert x.grad is not None


def test_kept_gradients_follow_a_write() -> None:
    """S138: after a write `retain_grad` keeps the gradient of the new value, as in PyTorch."""
    kept = []
    for lib in (polyop, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        y = x * 2.0
        y.retain_grad()
        y.retain_grad()
        y.mul_(3.0)
        (y * y).sum().backward()
        kept.append((y.grad.tolist(), x.grad.tolist()))
    assert kept[0] == kept[1]


def test_hooks_make_no_cycle() -> None:
    """A leaf with hooks is freed with its last reference."""
    gc.disable()
    try:
        x = leaf(1.0)
        x.register_post_accumulate_grad_hook(lambda t: None)
        x.register_hook(lambda g: None)
        there = weakref.ref(x)
        del x
        assert there() is None
    finally:
        gc.enable()


# -- nodes --------------------------------------------------------------------


@pytest.mark.parametrize("lib", [polyop, torch])
def test_hooks_of_nodes(lib: Any) -> None:
    """S138: a node's prehook sees and replaces what comes in, its hook what goes out."""
    seen: list[Any] = []
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    y = lib.sin(x)
    node = y.grad_fn
    node.register_prehook(lambda gs: seen.append(len(gs)) or (gs[0] * 2.0,))
    handle = node.register_hook(lambda ins, outs: seen.append((len(ins), outs[0].tolist())))
    node.register_hook(lambda ins, outs: (ins[0] * 10.0,))
    y.register_hook(lambda g: seen.append("tensor"))
    y.sum().backward(retain_graph=True)
    assert seen == ["tensor", 1, (1, [2.0, 2.0])]
    assert np.allclose(x.grad.tolist(), 20 * np.cos([1.0, 2.0]))
    handle.remove()
    y.sum().backward()
    assert seen[3:] == ["tensor", 1]


@polyop.library.custom_op("hooktest::halves", mutates_args=())
def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give both halves of a row."""
    return tuple(polyop.from_numpy(part.copy()) for part in np.split(x.numpy(), 2))


def no_zeros(ctx: Any, inputs: Any, output: Any) -> None:
    """Let absent gradients be None."""
    ctx.set_materialize_grads(False)


halves.register_autograd(
    lambda ctx, a, b: polyop.concat([polyop.zeros_like(b) if a is None else a, b]),
    setup_context=no_zeros,
)


def test_nodes_of_several_results() -> None:
    """S138: the node of an operator with several results gets a gradient for each."""
    x = leaf(1.0, 2.0, 3.0, 4.0)
    a, b = halves(x)
    assert a.grad_fn is b.grad_fn
    seen: list[Any] = []
    a.grad_fn.register_prehook(lambda gs: seen.append([g if g is None else g.tolist() for g in gs]))
    (b * 3.0).sum().backward()
    assert seen == [[None, [3.0, 3.0]]]
    assert x.grad.tolist() == [0.0, 0.0, 3.0, 3.0]


def test_walking_the_graph() -> None:
    """S138: `name` and `next_functions` lead from a result to the leaves."""
    x = leaf(1.0)
    y = polyop.sin(x * 2.0)
    assert y.grad_fn.name() == "core::sin"
    ((inner, _),) = y.grad_fn.next_functions
    assert inner.name().startswith("core::mul")
    assert [n.seq for n, _ in inner.next_functions] == [0]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("wrong", [lambda *_: (1.0,), lambda *_: (), lambda *_: polyop.ones(3)])
def test_wrong_hooks_of_nodes(wrong: Any, create_graph: bool) -> None:
    """S138: what does not fit is refused by name."""
    x = leaf(1.0, 2.0)
    y = polyop.sin(x)
    y.grad_fn.register_hook(wrong)
    with pytest.raises(AutogradError, match="hook of a node"):
        y.sum().backward(create_graph=create_graph)


# -- what is saved ------------------------------------------------------------


@polyop.library.custom_op("hooktest::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    """Compute the third power."""
    return polyop.from_numpy(x.numpy() ** 3)


cube.register_autograd(
    lambda ctx, g: g * ctx.saved_tensors[0] * ctx.saved_tensors[0] * 3.0,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


class Square(autograd.Function):
    """The second power, which saves its result too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute it."""
        out = x * x
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Give the gradient."""
        return g * ctx.saved_tensors[0] * 2.0


def everything(x: Tensor) -> Tensor:
    """Save inputs, results, lists and what authors keep."""
    y = polyop.exp(x) * cube(x) + Square.apply(x) + polyop.prod(x)
    a, b = polyop.split(polyop.concat([y, x * x]), 2)
    z = a * b
    z.mul_(x)
    return (z * polyop.tanh(z)).sum()


def test_saved_tensors_go_through_the_hooks() -> None:
    """S138: gradients of both orders are the same, however what was saved is kept."""
    packed: list[int] = []
    unpacked: list[int] = []

    def pack(t: Tensor) -> Any:
        assert not t.requires_grad
        packed.append(t.size)
        return t.numpy().copy()

    def unpack(kept: Any) -> Tensor:
        unpacked.append(kept.size)
        return polyop.from_numpy(kept)

    x, same = leaf(0.3, 0.4), leaf(0.3, 0.4)
    with autograd.saved_tensors_hooks(pack, unpack):
        y = everything(x)
    assert len(packed) > 8
    assert not unpacked
    wanted = everything(same)
    (g,) = autograd.grad(y, x, create_graph=True)
    (h,) = autograd.grad(wanted, same, create_graph=True)
    assert np.allclose(g.tolist(), h.tolist())
    assert len(unpacked) >= len(packed)
    (g,) = autograd.grad(g.sum(), x)
    (h,) = autograd.grad(h.sum(), same)
    assert np.allclose(g.tolist(), h.tolist())


def test_the_hooks_alone_keep_what_is_saved() -> None:
    """S138: a graph under hooks holds no data of its own: they may move it elsewhere."""
    store: dict[int, Any] = {}

    def pack(t: Tensor) -> int:
        store[len(store)] = t.numpy().copy()
        return len(store) - 1

    x = leaf(1.0, 2.0)
    with autograd.saved_tensors_hooks(pack, lambda key: polyop.from_numpy(store[key])):
        inner = polyop.sin(x)
        held = weakref.ref(inner)
        y = (inner * inner).sum()
        del inner
    assert held() is None
    y.backward()
    assert np.allclose(x.grad.tolist(), np.sin([2.0, 4.0]))


def test_hooks_that_give_something_else() -> None:
    """S138: another shape or no tensor in backward is refused; hooks are functions."""
    x = leaf(1.0, 2.0)
    for wrong in (lambda kept: polyop.ones(3), lambda kept: 1.0):
        with autograd.saved_tensors_hooks(lambda t: t, wrong):
            y = (x * x).sum()
        with pytest.raises(AutogradError, match="something else than what was saved"):
            y.backward()
    with pytest.raises(UsageTypeError, match="pack"):
        autograd.saved_tensors_hooks(1, lambda t: t)  # type: ignore[arg-type]


def test_a_write_to_what_the_hooks_keep_is_seen() -> None:
    """S125: a tensor that the hooks keep as it is may not be written either."""
    x = leaf(1.0, 2.0)
    y = x * 2.0
    with autograd.saved_tensors_hooks(lambda t: t, lambda t: t):
        z = (y * y).sum()
    with autograd.no_grad():
        y.add_(1.0)
    with pytest.raises(AutogradError, match="written"):
        z.backward()


def test_hooks_nest_and_stay_in_their_thread() -> None:
    """S98: the innermost block acts, another thread has none, and transforms save as ever."""
    seen: list[str] = []
    x = leaf(1.0)

    def hooks(name: str) -> Any:
        return autograd.saved_tensors_hooks(lambda t: seen.append(name) or t, lambda t: t)

    with hooks("outer"):
        with hooks("inner"):
            polyop.sin(x)
        thread = threading.Thread(target=lambda: polyop.sin(x))
        thread.start()
        thread.join()
        func.grad(lambda x: polyop.sin(x).sum())(x.detach())
        polyop.sin(x)
    polyop.sin(x)
    assert seen == ["inner", "outer"]


def test_many_threads_go_back_through_one_graph() -> None:
    """S98: runs at once on a graph under hooks give the same gradient."""
    x = leaf(1.0, 2.0)
    with autograd.saved_tensors_hooks(lambda t: t.numpy().copy(), polyop.from_numpy):
        y = everything(x)
    found: list[Any] = []

    def back() -> None:
        found.append(autograd.grad(y, x, retain_graph=True)[0].tolist())

    threads = [threading.Thread(target=back) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(g == found[0] for g in found)


# -- the options of grad ------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
def test_batched_gradients(create_graph: bool) -> None:
    """S138: with is_grads_batched each sample has the gradient that it has alone."""
    x = leaf(0.5, 1.5, 2.0)
    unused = leaf(1.0)
    y = cube(polyop.sin(x))
    eye = polyop.eye(3, dtype=polyop.float64)
    got, none = autograd.grad(
        y, [x, unused], eye, retain_graph=True, create_graph=create_graph,
        allow_unused=True, is_grads_batched=True,
    )  # fmt: skip
    wanted = np.stack([autograd.grad(y, x, e, retain_graph=True)[0].numpy() for e in eye])
    np.testing.assert_allclose(got.detach().numpy(), wanted)
    assert none is None
    (zeros,) = autograd.grad(y, unused, eye, materialize_grads=True, is_grads_batched=True)
    assert zeros.tolist() == [[0.0]] * 3


def test_batched_gradients_need_a_batch() -> None:
    """S138: without an axis of samples the argument is named."""
    x = leaf(1.0)
    for given in (None, polyop.tensor(1.0)):
        with pytest.raises(AutogradError, match="axis of samples"):
            autograd.grad(x * 2.0, x, given, is_grads_batched=True)


def test_inputs_that_are_not_reached() -> None:
    """S138: an unused input is an error, None, or zeros; a wrong gradient tells both shapes."""
    x, unused = leaf(1.0, 2.0), leaf(1.0)
    with pytest.raises(AutogradError, match="input 1 is not reached"):
        autograd.grad((x * x).sum(), [x, unused])
    assert autograd.grad((x * x).sum(), [unused], allow_unused=True) == (None,)
    assert autograd.grad(x.sum(), [unused], materialize_grads=True)[0].tolist() == [0.0]
    with pytest.raises(AutogradError, match="wrong shape") as caught:
        autograd.grad(x * x, x, polyop.ones(3))
    assert ("(2,)" in caught.value.declared, "(3,)" in caught.value.seen) == (True, True)


def test_inference_tensors_are_not_saved() -> None:
    """S140: a tensor of inference mode that a custom operator saves is refused by name."""
    with autograd.inference_mode():
        made = polyop.ones(2, dtype=polyop.float64)
    with pytest.raises(AutogradError, match="inference_mode"):
        leaf(1.0, 2.0) * made

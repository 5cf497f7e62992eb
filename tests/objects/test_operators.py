"""Operators with an argument for opaque references: who acts when a fake is among them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.objects.things import Log, Queue, note, pop, push

import polyop
from polyop.dispatch.objects import PASSED_OVER, ObjectOpOverload, passes_over
from polyop.errors import MissingGradientError, MissingKernelError, PerformanceWarning
from polyop.extend import DispatchKey, OpOverload
from polyop.func import functionalize, grad, vmap
from polyop.layers.fake import FakeTensorMode
from polyop.library import Library, has_effects
from polyop.objects import fake_of

LOG = f"{Log.__module__}.Log"


def library(name: str, *declared: str) -> Library:
    lib = Library(name, "FRAGMENT")
    for text in declared:
        lib.define(text)
    return lib


def test_the_class_of_an_operator_is_chosen_by_its_schema() -> None:
    """S187: an argument for references makes an `ObjectOpOverload`; lists of them do too."""
    lib = library(
        "t_class",
        f"one({LOG} log) -> ()",
        f"maybe({LOG}? log, Tensor x) -> ()",
        f"many({LOG}[] logs) -> ()",
        "none(Tensor x) -> ()",
    )
    ops = polyop.ops.t_class
    for name in ("one", "maybe", "many"):
        assert isinstance(getattr(ops, name).default, ObjectOpOverload)
    assert type(ops.none.default) is OpOverload
    assert (ops.maybe.default.objects, ops.none.default.objects) == ((0,), ())
    del lib


def test_a_fake_object_passes_over_the_layers_that_do_not_know_it() -> None:
    """S187: with a fake anywhere in the arguments autograd falls through; with real ones not."""
    lib = library("t_pass", f"act({LOG}[] logs, Tensor x) -> Tensor")
    lib.impl("act", lambda logs, x: x * 2, "CPU")
    act = polyop.ops.t_pass.act
    x = polyop.ones(2).requires_grad_()
    assert act([Log()], x).requires_grad
    made = act([Log(), fake_of(FakeTensorMode(), Log())], x)
    assert (made.tolist(), made.requires_grad) == ([2, 2], False)


def test_a_fallback_is_no_kernel_of_its_own() -> None:
    """S187: a fallback for all operators at such a key does not see fakes; a kernel does."""
    lib = library("t_fallback", f"act({LOG} log, Tensor x) -> Tensor")
    lib.impl("act", lambda log, x: polyop.from_numpy(x.numpy() * 2), "CPU")
    seen: list[str] = []
    x, fake = polyop.ones(2), fake_of(FakeTensorMode(), Log())

    def fallback(op: Any, log: Any, x: Any) -> Any:
        seen.append(op.name())
        return x

    every = Library("_", "IMPL")
    every.fallback(fallback, "AutogradCPU")
    try:
        assert polyop.ops.t_fallback.act(fake, x).numpy().tolist() == [2, 2]
        assert seen == []
        assert polyop.ops.t_fallback.act(Log(), x) is x
        assert seen == ["t_fallback::act"]
    finally:
        every._destroy()


@pytest.mark.parametrize("key", sorted(PASSED_OVER), ids=lambda k: k.name)
def test_a_kernel_of_its_own_is_not_passed_over(key: DispatchKey) -> None:
    """S187: an operator falls through each of these keys unless it has a kernel there."""
    name = f"t_own_{key.name.lower()}"
    lib = library(name, f"act({LOG} log, Tensor x) -> Tensor")
    lib.impl("act", lambda log, x: x * 2, "CPU")
    packet = getattr(polyop.ops, name).act
    fake, x = fake_of(FakeTensorMode(), Log()), polyop.ones(2)
    assert passes_over(packet.default, key)
    assert packet(fake, x).tolist() == [2, 2]
    lib.impl("act", lambda log, x: x * 3, key.name)
    assert not passes_over(packet.default, key)
    in_call = {DispatchKey.AutogradCPU, DispatchKey.ADInplaceOrView, DispatchKey.BackendSelect}
    assert packet(fake, x).tolist() == ([3, 3] if key in in_call else [2, 2])


def test_a_gradient_of_its_own_is_not_passed_over() -> None:
    """S187: an operator with a registered gradient keeps it in traces, and one without says so."""
    mode = FakeTensorMode()
    x = mode.from_tensor(polyop.ones(2).requires_grad_())
    assert note(fake_of(mode, Log()), x, "a").requires_grad

    def peek(log: Any, x: polyop.Tensor) -> polyop.Tensor:
        return x * 1

    peek.__annotations__["log"] = Log
    op = polyop.custom_op("t_objects::peek", peek, mutates_args=())
    op.register_fake(lambda log, x: x.new_empty(x.shape))
    with pytest.raises(MissingGradientError):
        op(fake_of(mode, Log()), x).sum().backward()


def test_no_kernel() -> None:
    """S187: a call with a fake object that no kernel serves → MissingKernelError."""
    lib = library("t_missing", f"act({LOG} log, Tensor x) -> Tensor")
    fake = fake_of(FakeTensorMode(), Log())
    with pytest.raises(MissingKernelError, match="t_missing::act has no kernel for cpu"):
        polyop.ops.t_missing.act(fake, polyop.ones(2))
    del lib


def test_a_call_with_a_fake_counts_as_effectful() -> None:
    """S187: unless something else is registered, such a call has an effect."""
    lib = library("t_counts", f"act({LOG} log, Tensor x) -> Tensor")
    assert has_effects("t_counts::act")
    assert polyop.ops.t_counts.act.default.is_impure
    polyop.library.register_effect("t_counts::act", None, lib=lib)
    assert not has_effects("t_counts::act")
    assert not polyop.ops.t_counts.act.default.is_impure


def test_a_fake_in_the_argument_of_another_class_is_refused() -> None:
    """S187: the fake of a Queue is no Log."""
    with pytest.raises(polyop.errors.ArgumentError):
        note(fake_of(FakeTensorMode(), Queue()), polyop.ones(2), "a")


def test_gradients_flow_around_objects() -> None:
    """S187: an operator with an object has a gradient as any other; its effects come in order."""
    for wrap in (lambda f: f, functionalize):
        log = Log()

        def f(x: Any, log: Log = log) -> Any:
            y = note(log, x * 2, "first")
            return note(log, y * y, "second").sum()

        assert grad(wrap(f))(polyop.ones(2)).tolist() == [8, 8]
        assert log.texts == ["first", "second", "back second", "back first"]
        x = polyop.ones(2).requires_grad_()
        log.lines.clear()
        wrap(f)(x).backward()
        assert x.grad.tolist() == [8, 8]
        assert log.texts == ["first", "second", "back second", "back first"]


def test_vmap_runs_samples_in_order() -> None:
    """S187: without a batching rule an operator runs sample by sample, in their order."""
    log, queue = Log(), Queue()
    xs = polyop.from_numpy(polyop.arange(6).reshape(3, 2).numpy().astype("float32"))
    with pytest.warns(PerformanceWarning, match="t_objects::note"):
        out = vmap(lambda x: note(log, x, "a"))(xs)
    assert out.tolist() == xs.tolist()
    assert log.lines == [("a", 1.0), ("a", 5.0), ("a", 9.0)]
    with pytest.warns(PerformanceWarning, match="t_objects::push"):
        vmap(lambda x: push(queue, x))(xs)
    assert [pop(queue).tolist() for _ in range(3)] == xs.tolist()


def test_each_thread_has_its_own_objects() -> None:
    """S187: calls of one operator on objects of many threads do not meet."""
    logs = [Log() for _ in range(8)]

    def work(i: int) -> None:
        mode = FakeTensorMode()
        for n in range(20):
            note(logs[i], polyop.full((2,), float(i)), f"{n}")
            note(fake_of(mode, logs[i]), mode.from_tensor(polyop.ones(2)), "never")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, log in enumerate(logs):
        assert log.lines == [(f"{n}", 2.0 * i) for n in range(20)]


def test_the_python_key_is_looked_up_each_time() -> None:
    """S111, S187: an operator with objects keeps no mode's decision at the key Python."""
    op = note._opoverload
    assert callable(op._get_dispatch(DispatchKey.Python))
    assert not isinstance(op._get_dispatch(DispatchKey.Python), DispatchKey)

"""Modes, subclasses and kernels of transforms where they meet each other, and generators."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.autograd import no_grad
from polyop.dispatch.class_slots import slot_of
from polyop.dispatch.context import word
from polyop.dispatch.guards import below_autograd, exclude_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.modes import DispatchMode, dispatch_mode_stack
from polyop.dispatch.namespaces import ops
from polyop.dispatch.rules import register_dispatch
from polyop.errors import AutogradError, ModeError, OperatorGoneError
from polyop.layers.trace.make_fx import make_fx
from polyop.tensor.subclass import make_subclass, make_wrapper_subclass
from polyop.tensor.tensor import Tensor, of_array


def tensor(*values: float, grad: bool = False) -> Tensor:
    made = of_array(np.array(values))
    return made.requires_grad_() if grad else made


class Log(DispatchMode):
    """Writes down what it sees, and goes on."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.log.append(op._opname)
        return op(*args, **(kwargs or {}))


class Answers(DispatchMode):
    """Answers calls of `sin` by a function of its arguments."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.answer(*args) if op._opname == "sin" else op(*args, **(kwargs or {}))


class Wrap(Tensor):
    """Holds a tensor."""

    inner: Tensor

    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> Wrap:
        made = make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, requires_grad=requires_grad
        )
        made.inner = inner
        return made

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        peeled = [a.inner if isinstance(a, Wrap) else a for a in args]
        return cls(op(*peeled, **(kwargs or {})))


# -- answers with a history -------------------------------------------------------------------


def test_an_answer_that_is_an_argument() -> None:
    """S161: a mode that answers with an argument leaves that argument's history alone."""
    x = tensor(1.0, 2.0, grad=True)
    with Answers(lambda a: a):
        y = polyop.sin(x)
    assert y is not x and x.grad_fn is None and y.grad_fn is not None
    y.sum().backward()
    assert np.allclose(x.grad.numpy(), np.cos([1.0, 2.0]))


def test_an_answer_given_twice() -> None:
    """S161: a mode that answers two calls with one tensor mixes up no gradients."""
    kept: list[Tensor] = []

    def remembered(a: Tensor) -> Tensor:
        kept.append(kept[0] if kept else tensor(5.0))
        return kept[0]

    a, b = tensor(1.0, grad=True), tensor(2.0, grad=True)
    with Answers(remembered):
        first = polyop.sin(a)
        second = polyop.sin(b)
    (first * 3).sum().backward()
    assert np.allclose(a.grad.numpy(), 3 * np.cos(1.0)) and b.grad is None
    second.sum().backward()
    assert np.allclose(b.grad.numpy(), np.cos(2.0))


def test_a_plain_answer_of_a_subclass() -> None:
    """S163: a subclass may answer with a plain tensor; gradients come back to the wrapper."""

    class Unwraps(Wrap):
        @classmethod
        def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return op(*[a.inner if isinstance(a, Wrap) else a for a in args])

    x = Unwraps(tensor(1.0, 2.0), requires_grad=True)
    y = x * 3
    assert type(y) is Tensor
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3]


def test_transforms_around_subclasses() -> None:
    """S134, S163: gradients of subclasses inside vmap, and second ones, are subclasses."""
    v = np.array([1.0, 2.0])
    x = Wrap(of_array(v), requires_grad=True)
    polyop.vmap(lambda a: polyop.sin(a) * a)(x).sum().backward()
    assert isinstance(x.grad, Wrap)
    assert np.allclose(x.grad.inner.numpy(), np.cos(v) * v + np.sin(v))
    cube = polyop.func.grad(lambda a: (a * a * a).sum())
    second = polyop.func.grad(lambda a: cube(a).sum())(Wrap(of_array(v)))
    assert isinstance(second, Wrap) and np.allclose(second.inner.numpy(), 6 * v)


@pytest.mark.parametrize("inside", ["vmap", "grad", "make_fx", "compile"])
def test_transforms_inside_a_mode(inside: str) -> None:
    """S161: a handler may run transforms and traces; gradients around it are the operator's own."""
    run: Any = {
        "vmap": lambda a: polyop.vmap(polyop.ops.core.sin.default)(a),
        "grad": lambda a: polyop.func.grad(lambda b: polyop.cos(b).sum())(a) * -1,
        "make_fx": lambda a: make_fx(lambda b: polyop.ops.core.sin.default(b))(a)(a),
        "compile": lambda a: polyop.compile(lambda b: polyop.ops.core.sin.default(b))(a),
    }[inside]
    x = tensor(1.0, 2.0, grad=True)
    with Answers(run):
        y = polyop.sin(x)
    assert np.allclose(y.detach().numpy(), np.sin([1.0, 2.0]))
    y.sum().backward()
    assert np.allclose(x.grad.numpy(), np.cos([1.0, 2.0])) and word() == 0


# -- rules by class ---------------------------------------------------------------------------


def test_rules_of_classes_that_share_a_name() -> None:
    """S54: a rule is its class's own, whatever another class is called."""

    def make() -> type[Wrap]:
        class Sub(Wrap):
            pass

        return Sub

    first, second = make(), make()
    with scoped_library("hostile_rules", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        f = ops.hostile_rules.f.default
        register_dispatch(f, first, lambda *_: tensor(1.0), lib=lib)
        register_dispatch(f, second, lambda *_: tensor(2.0), lib=lib)
        assert f(first(tensor(0.0))).item() == 1 and f(second(tensor(0.0))).item() == 2
        third = make()
        assert slot_of(third) is None and isinstance(f.decompose(tensor(0.0)), type(NotImplemented))


def test_a_rule_keeps_no_class() -> None:
    """S54, S107: a class that nobody holds goes, and its rule serves no class made later."""

    def make() -> type[Wrap]:
        class Short(Wrap):
            pass

        return Short

    cls = make()
    with scoped_library("hostile_weak", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", lambda x: x * 1, "CPU")
        f = ops.hostile_weak.f.default
        register_dispatch(f, cls, lambda *_: tensor(1.0), lib=lib)
        assert f(cls(tensor(0.0))).item() == 1
        gone = weakref.ref(cls)
        del cls
        gc.collect()
        assert gone() is None
        again = f(make()(tensor(7.0)))
        assert isinstance(again, Wrap) and again.inner.item() == 7


# -- kernels at keys of transforms ------------------------------------------------------------


@pytest.fixture(name="lib")
def _lib() -> Iterator[Library]:
    lib = Library("hostile_levels", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: of_array(np.asarray(x.numpy() * 2)), "CPU")
    lib.define("make() -> Tensor")
    lib.impl("make", lambda: tensor(1.0), "CompositeExplicitAutograd")
    yield lib
    lib.destroy()


def test_a_vmap_mode_kernel_without_batches(lib: Library) -> None:
    """S100: a kernel at FuncTorchVmapMode acts on every call inside vmap, batched or not, with or
    without tensors, and on none outside or inside another transform."""
    f, make = ops.hostile_levels.f, ops.hostile_levels.make
    lib.impl("f", lambda x: x * 100, "FuncTorchVmapMode")
    lib.impl("make", lambda: tensor(100.0), "FuncTorchVmapMode")
    xs, y = tensor(0.0, 0.0), tensor(1.0)
    assert polyop.vmap(lambda x: x + f(y)[0])(xs).tolist() == [100, 100]
    assert polyop.vmap(lambda x: f(x + 1))(xs).tolist() == [100, 100]
    assert polyop.vmap(lambda x: x + make()[0])(xs).tolist() == [100, 100]
    assert f(y).tolist() == [2] and make().tolist() == [1]
    grad = polyop.func.grad(lambda x: (x * f(y)[0]).sum())
    assert grad(xs).tolist() == [2, 2]  # no vmap runs
    assert polyop.vmap(grad)(xs).tolist() == [100, 100]  # the gradient lets the call pass
    with exclude_keys([DispatchKey.FuncTorchVmapMode]):
        assert polyop.vmap(lambda x: x + f(y)[0])(xs).tolist() == [2, 2]


def test_a_kernel_below_autograd_under_grad(lib: Library) -> None:
    """S99, S100: what an autograd kernel calls below autograd is a constant for its level alone,
    and is no endless recursion."""
    f, calls = ops.hostile_levels.f, list[int]()

    def going_on(x: Any) -> Any:
        calls.append(1)
        with below_autograd():
            below = f(x)
        return below * x

    lib.impl("f", going_on, "Autograd")
    x = tensor(3.0)
    # Below the level the operator is called anew, on a plain tensor: f(x) = 2 x * x, at each level.
    assert polyop.func.grad(lambda a: f(a).sum())(x).item() == f(x).item() == 18
    assert len(calls) == 3


def test_a_gradient_inside_a_kernel(lib: Library) -> None:
    """S99, S134: a kernel, which runs below autograd, may compute gradients of its own."""
    lib.define("slope(Tensor x) -> Tensor")
    inner = polyop.func.grad(lambda a: (a * a * a).sum())
    lib.impl("slope", lambda x: inner(x), "CPU")
    polyop.library.register_autograd("hostile_levels::slope", lambda ctx, g: g)
    for x in (tensor(2.0), tensor(2.0, grad=True)):
        assert ops.hostile_levels.slope(x).tolist() == [12]
    assert polyop.func.grad(lambda a: ops.hostile_levels.slope(a).sum())(tensor(2.0)).tolist() == [
        1
    ]


@pytest.mark.parametrize("way", ["plain", "grad mode", "func.grad"])
def test_a_kernel_that_destroys_its_library(lib: Library, way: str) -> None:
    """S4: a call under way ends with the rules that it began with, its gradient too."""

    def kernel(x: Tensor) -> Tensor:
        lib.destroy()
        return of_array(x.numpy() * 5)

    lib.impl("f", kernel, "CPU")
    polyop.library.register_autograd("hostile_levels::f", lambda ctx, g: g * 5, lib=lib)
    f = ops.hostile_levels.f.default
    if way == "plain":
        assert f(tensor(1.0)).tolist() == [5]
    elif way == "grad mode":
        x = tensor(1.0, grad=True)
        f(x).sum().backward()
        assert x.grad.tolist() == [5]
    else:
        assert polyop.func.grad(lambda a: f(a).sum())(tensor(1.0)).tolist() == [5]
    with pytest.raises(OperatorGoneError):
        f(tensor(1.0))


# -- generators, tasks, threads ---------------------------------------------------------------


def test_a_generator_that_holds_a_mode() -> None:
    """S98: a mode that a generator holds may end inside of later blocks, which go on."""

    def holds(block: Any) -> Iterator[int]:
        with block:
            yield 1

    for block in (Log(), no_grad()):
        running = holds(block)
        next(running)
        with no_grad():
            assert list(running) == []
            assert dispatch_mode_stack() == () and not word().grad
        assert word() == 0


def test_a_generator_that_is_finished_elsewhere() -> None:
    """S98: a block is not left in a thread that did not enter it; the error says so, and the
    thread that entered it goes on inside of it."""

    def holds() -> Iterator[int]:
        with no_grad():
            yield 1

    def run() -> None:
        running = holds()
        next(running)
        inside = word()
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(running.close)
            with pytest.raises(ModeError, match="left where it was not entered"):
                closing.result()
        assert word() is inside and not inside.grad
        with no_grad():
            pass
        assert word() is inside

    contextvars.copy_context().run(run)
    assert word() == 0


def test_tasks_switch_inside_modes() -> None:
    """S98: tasks that wait inside a mode each keep their own stack."""

    async def task() -> list[str]:
        with Log() as mode:
            for _ in range(4):
                polyop.sin(tensor(1.0))
                await asyncio.sleep(0)
        return mode.log

    async def run() -> list[list[str]]:
        return await asyncio.gather(*[task() for _ in range(3)])

    assert asyncio.run(run()) == [["sin"] * 4] * 3


# -- copies -----------------------------------------------------------------------------------


def test_a_shallow_copy_is_another_handle() -> None:
    """S135: a shallow copy shares memory and its count of writes, and keeps the history."""
    w = tensor(1.0, 2.0, grad=True)
    y = w * 1
    out = polyop.sin(y).sum()
    copy.copy(y.detach()).mul_(9)
    with pytest.raises(AutogradError, match="was written after it was saved"):
        out.backward()
    (copy.copy(w * 2) * 3).sum().backward()
    assert w.grad.tolist() == [6, 6]


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies_inside_transforms(make: Callable[[Any], Any]) -> None:
    """S134: a copy inside a transform is right, or an error; it never cuts a gradient silently."""
    x = tensor(1.0, 2.0)
    assert polyop.vmap(lambda a: make(a) * 2)(x).tolist() == [2, 4]
    assert make_fx(lambda a: make(a) * 2)(x)(tensor(3.0, 4.0)).tolist() == [6, 8]
    assert polyop.func.grad(lambda a: (make(a) * 2).sum())(x).tolist() == [2, 2]


def test_a_deep_copy_of_a_computed_tensor() -> None:
    """S134: it would cut the gradient off, and is refused."""
    with pytest.raises(AutogradError, match="would lose its gradient"):
        copy.deepcopy(tensor(1.0, grad=True) * 2)


class Named(Tensor):
    """A subclass without a handler."""

    tag: list[str]


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_copies_keep_the_class(make: Callable[[Any], Any]) -> None:
    """S163: copies and pickles of a subclass's tensor are of its class, with its attributes."""
    t = make_subclass(Named, tensor(1.0), requires_grad=True)
    t.tag = ["a"]
    made = make(t)
    assert type(made) is Named and made.tag == ["a"] and made.requires_grad
    assert (made.tag is t.tag) == (made.payload is t.payload) == (make is copy.copy)

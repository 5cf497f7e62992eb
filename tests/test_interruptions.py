"""Ctrl-C at the worst moment: nothing stays half done, and the next call is as the first.

CPython looks at signals on entering a Python function and right after a C
function returns. A profiler sees the same points, and raises there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.autograd import Function
from polyop.dispatch.context import PLAIN, set_word, word
from polyop.export import export
from polyop.extend import DispatchMode
from polyop.graph import make_fx
from polyop.hop import checkpoint

At = Callable[[Any, str, Any], bool]


def interrupted(fn: Callable[[], Any], at: At, skip: int = 0) -> bool:
    """Call a function, raise KeyboardInterrupt at a point, and tell whether it was reached."""
    left = skip

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal left
        if at(frame, event, arg):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        fn()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def entering(file: str, name: str) -> At:
    """Give the point before the first line of a function."""
    return lambda frame, event, _: (
        event == "call" and frame.f_code.co_name == name and frame.f_code.co_filename.endswith(file)
    )


def after(name: str, file: str = "") -> At:
    """Give the points right after a C function returns, in a file of polyop or in all."""
    return lambda frame, event, arg: (
        event == "c_return"
        and getattr(arg, "__name__", "") == name
        and file in frame.f_code.co_filename
        and "polyop" in frame.f_code.co_filename
    )


class Twice(Function):
    """Doubles."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """Double."""
        return x * 2

    @staticmethod
    def backward(_: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        """Double the gradient."""
        return g * 2


class Passing(DispatchMode):
    """Passes calls on."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call it."""
        return op(*args, **(kwargs or {}))


def square(x: Tensor) -> Tensor:
    """Give the sum of squares."""
    return (x * x).sum()


def turned_off(x: Tensor) -> Tensor:
    """Compute in blocks."""
    with polyop.no_grad(), polyop.enable_grad(), Passing():
        return x * 2


@polyop.no_grad()
def steps(x: Tensor) -> Any:
    """Yield in a block, under a decorator."""
    with polyop.enable_grad():
        yield x * 2


@polyop.custom_op("interrupted::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """Double."""
    return polyop.from_numpy(x.numpy() * 2)


twice.register_autograd(lambda _, g: g * 2)
twice.register_vmap(lambda _, dims, x: (twice(x), dims[0]))

RUNS: dict[str, Callable[[Tensor], Any]] = {
    "Function": lambda x: Twice.apply(x.requires_grad_()).sum().backward(),
    "custom_op": lambda x: twice(x.requires_grad_()).sum().backward(),
    "compile": lambda x: polyop.compile(lambda v: v * 2)(x),
    "export": lambda x: export(lambda v: v * 2, (x,)),
    "make_fx": lambda x: make_fx(square, tracing_mode="fake")(x),
    "make_fx before dispatch": lambda x: make_fx(square, pre_dispatch=True)(x),
    "vmap": lambda x: polyop.vmap(square)(x.reshape((1, 2))),
    "vmap of two": lambda x: polyop.vmap(lambda a, b: a * b)(x, x),
    "vmap of an operator": lambda x: polyop.vmap(twice)(x),
    "grad": lambda x: polyop.func.grad(square)(x),
    "jvp": lambda x: polyop.func.jvp(square, (x,), (x,)),
    "hessian": lambda x: polyop.func.hessian(square)(x),
    "functionalize": lambda x: polyop.func.functionalize(square)(x),
    "checkpoint": lambda x: checkpoint(square, x.requires_grad_()).backward(),
    "cond": lambda x: polyop.func.grad(lambda v: polyop.cond(v.sum() > 0, square, square, (v,)))(x),
    "blocks": turned_off,
    "generator": lambda x: list(steps(x)),
}


# The generator that was not driven on closes its own block when it is collected, out of place.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", RUNS)
def test_a_context_is_as_before(run: str) -> None:
    """S98: an interrupt right after any word was entered leaves none behind."""
    fn = RUNS[run]
    fn(polyop.ones(2))
    for turn in range(200):
        try:
            reached = interrupted(lambda: fn(polyop.ones(2)), after("set"), turn)
            now = word()
            assert int(now) == int(PLAIN), f"at {turn}"
            assert now.grad and not now.levels and now.tracer is None and now.fake is None
        finally:
            set_word(PLAIN)
        if not reached:
            break
        with polyop.enable_grad():  # blocks close in order
            assert square(polyop.ones(2, requires_grad=True)).requires_grad
        assert word() == PLAIN
    assert turn > 0
    fn(polyop.ones(2))


def test_the_registry_lock_is_free() -> None:
    """S98: however a first call ends, other threads can register."""
    fn = polyop.vmap(lambda x: polyop.ops.interrupted.twice(x) + 1)
    reached = 0
    for point in (entering("dispatch/lock.py", n) for n in ("__enter__", "__exit__", "_settle")):
        for turn in range(20):
            with polyop.scoped_library("interrupted", "IMPL") as lib:  # forgets what was decided
                lib.impl("twice", lambda x: x.clone(), "CPU")
                reached += interrupted(lambda: fn(polyop.ones((3, 2))), point, turn)
    assert reached > 0
    other = threading.Thread(target=scoped, args=("interrupted_other",), daemon=True)
    other.start()
    other.join(10)
    assert not other.is_alive()


def scoped(ns: str) -> Tensor:
    """Define an operator, use it, and take it back."""
    with polyop.scoped_library(ns, "DEF") as lib:
        lib.define("a(Tensor x) -> Tensor")
        lib.impl("a", lambda x: x * 2, "CompositeImplicitAutograd")
        found: Tensor = getattr(polyop.ops, ns).a(polyop.ones(2))
        return found


@pytest.mark.parametrize("name", ["append", "setdefault", "pop", "partition", "get", "items"])
def test_an_interrupted_registration_leaves_nothing(name: str) -> None:
    """S4, S58: the same registration works again, and its operator is found anew."""
    for turn in range(100):
        if not interrupted(lambda: scoped("interrupted_again"), after(name, "dispatch/reg"), turn):
            break
        assert scoped("interrupted_again").tolist() == [2.0, 2.0]
    assert scoped("interrupted_again").tolist() == [2.0, 2.0]


def test_a_half_made_packet_is_no_key_error() -> None:
    """S4: an interrupt while the packet is made is raised as it is."""
    point = after("partition", "dispatch/operator.py")
    assert interrupted(lambda: scoped("interrupted_packet"), point)
    assert scoped("interrupted_packet").tolist() == [2.0, 2.0]


@pytest.mark.parametrize("run", ["compile", "export", "make_fx"])
@pytest.mark.parametrize("name", ["get_ident", "get", "set"])
def test_gradients_are_asked_of_no_dead_capture(run: str, name: str) -> None:
    """S98: `.grad` is read and set as ever after an interrupted capture."""
    for turn in range(50):
        if not interrupted(lambda: RUNS[run](polyop.ones(2)), after(name, "tensor/asked"), turn):
            break
        x = polyop.ones(2, requires_grad=True)
        square(x).backward()
        assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]
        x.grad = None

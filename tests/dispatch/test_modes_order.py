"""Who is asked about a call, in which order, and by which rule: user modes, infra modes, rules."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyop
from polyop.dispatch.bits import BELOW
from polyop.dispatch.context import word
from polyop.dispatch.guards import excluded_keys
from polyop.dispatch.infra_modes import ModeKey, infra_mode
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import below, full_keyset
from polyop.dispatch.library import scoped_library
from polyop.dispatch.modes import DispatchMode, dispatch_mode_stack
from polyop.dispatch.namespaces import ops
from polyop.dispatch.rules import register_dispatch
from polyop.dispatch.shortened import is_default, shortened
from polyop.errors import ModeError, UnhandledDispatchError
from polyop.fake import FakeTensorMode
from polyop.layers.trace.make_fx import make_fx
from polyop.tensor.tensor import Tensor, of_array

ONE = of_array(np.ones(2, "float32"))


class Named(DispatchMode):
    """Notes its name, and goes on or declines."""

    def __init__(self, name: str, log: list[str], answer: Any = None) -> None:
        self.name, self.log, self.answer = name, log, answer

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.log.append(self.name)
        return op(*args, **(kwargs or {})) if self.answer is None else self.answer


class Inner(Named):
    """Another class of user modes."""


class Functional(Named):
    mode_key = ModeKey.FUNCTIONAL


class Proxy(Named):
    mode_key = ModeKey.PROXY


class Fake(Named):
    mode_key = ModeKey.FAKE


# -- order ----------------------------------------------------------------------------


def test_infra_modes_come_after_user_modes_in_slot_order() -> None:
    """S162: user modes from the innermost outward, then FUNCTIONAL, PROXY, FAKE."""
    log: list[str] = []
    with Fake("fake", log), Named("outer", log), Proxy("proxy", log):
        with Functional("functional", log), Named("inner", log):
            polyop.sin(ONE)
    assert log == ["inner", "outer", "functional", "proxy", "fake"]


def test_a_second_infra_mode_takes_the_place_until_it_is_left() -> None:
    """S162: a slot has one mode; the first is back when the second is left."""
    log: list[str] = []
    with Proxy("first", log) as first:
        with Proxy("second", log) as second:
            assert infra_mode(ModeKey.PROXY) is second
            polyop.sin(ONE)
        assert infra_mode(ModeKey.PROXY) is first
        polyop.sin(ONE)
    assert log == ["second", "first"] and infra_mode(ModeKey.PROXY) is None


def test_polyops_own_modes_stand_in_the_slots() -> None:
    """S162: the running fake mode and tracer are the infra modes of their slots."""
    seen: list[Any] = []

    def f(x: Tensor) -> Tensor:
        seen.append((infra_mode(ModeKey.PROXY), infra_mode(ModeKey.FAKE)))
        return x

    make_fx(f, "fake")(ONE)
    assert type(seen[0][0]).__name__ == "Tracer" and isinstance(seen[0][1], FakeTensorMode)
    with FakeTensorMode() as mode:
        assert infra_mode(ModeKey.FAKE) is mode
        with Fake("x", []) as other:
            assert infra_mode(ModeKey.FAKE) is other
        assert infra_mode(ModeKey.FAKE) is mode


def test_infra_or_not() -> None:
    """S162: a mode with a slot is an infra mode, and is not on the stack of user modes."""
    assert Proxy.is_infra_mode() and not Named.is_infra_mode()
    assert DispatchMode.supports_higher_order_operators is False
    with Proxy("p", []):
        assert dispatch_mode_stack() == ()


def test_an_infra_mode_needs_a_slot() -> None:
    """S162: an infra mode without a slot is refused before it is entered."""

    class Slotless(DispatchMode):
        @classmethod
        def is_infra_mode(cls) -> bool:
            return True

    with pytest.raises(ModeError, match="without a slot"), Slotless():
        pass
    assert word().chain == ()


def test_infra_modes_are_left_in_order() -> None:
    """S1, S162: it is an error to leave an infra mode that is not the last, and changes nothing."""
    first, second = Proxy("a", []), Fake("b", [])
    first.__enter__()
    second.__enter__()
    with pytest.raises(ModeError, match="not the innermost"):
        first.__exit__(None, None, None)
    assert {mode for mode, _ in word().chain} == {first, second}
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert word().chain == ()


@given(st.lists(st.sampled_from(["go", "decline"]), min_size=1, max_size=6))
def test_declining_goes_outward(answers: list[str]) -> None:
    """S113: each mode is asked once, from the innermost, until one goes on; what it calls meets the
    modes around it; if all that are asked decline, that is an error which names each."""
    log: list[str] = []
    modes = [
        Named(f"m{i}", log, NotImplemented if a == "decline" else None)
        for i, a in enumerate(answers)
    ]

    def run(rest: list[Named]) -> Any:
        if not rest:
            return polyop.sin(ONE)
        with rest[0]:
            return run(rest[1:])

    order = [f"m{i}" for i in reversed(range(len(answers)))]
    if answers[0] == "decline":  # the outermost one: nobody is left that goes on
        with pytest.raises(UnhandledDispatchError, match="Named"):
            run(modes)
    else:
        assert np.allclose(run(modes).numpy(), np.sin(1))
    assert log == order


def test_a_declined_call_goes_on_to_a_fake_mode() -> None:
    """S113: infra modes come after user modes, so a fake call that these decline is answered."""
    fake = FakeTensorMode()
    x = fake.from_tensor(ONE)
    log: list[str] = []
    with fake, Named("m", log, NotImplemented):
        assert polyop.sin(x).is_fake
    assert log == ["m"]


# -- what a handler runs under ----------------------------------------------------------


def test_every_key_above_python_is_excluded() -> None:
    """S99: while a handler runs, every key above Python is excluded, and its mode off the stack."""
    seen: list[Any] = []

    class Look(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((excluded_keys(), dispatch_mode_stack()))
            return op(*args, **(kwargs or {}))

    with Look():
        polyop.sin(ONE)
    keys, stack = seen[0]
    above = full_keyset - below(DispatchKey.Python) - type(keys)([DispatchKey.Python])
    assert all(keys.has(key) for key in above) and stack == ()
    assert not keys.has(DispatchKey.Python) and not keys.has(DispatchKey.CPU)
    assert not excluded_keys().has(DispatchKey.AutogradCPU) and not word() & BELOW


def test_gradients_are_recorded_once() -> None:
    """S99: a call that a mode makes again is not recorded a second time."""
    x = of_array(np.full(2, 3.0))
    x.requires_grad_()
    inside: list[bool] = []

    class Again(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = op(*args, **(kwargs or {}))
            inside.append(result.requires_grad)
            return result

    with Again():
        y = polyop.sum(x * x)
    y.backward()
    assert inside == [False, False] and y.requires_grad
    assert np.allclose(x.grad.numpy(), 6.0)


@pytest.mark.parametrize(
    "transform",
    [polyop.func.grad, lambda f: polyop.vmap(f), polyop.func.functionalize],
    ids=["grad", "vmap", "functionalize"],
)
def test_transforms_work_in_a_handler(transform: Callable[[Any], Any]) -> None:
    """S99: a transform that a handler starts does what it does outside."""

    class Starts(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return transform(lambda x: polyop.exp(x) * x)(*args)

    x = of_array(np.asarray(0.5)) if transform is polyop.func.grad else ONE
    expected = transform(lambda x: polyop.exp(x) * x)(x).numpy()
    with Starts():
        assert np.array_equal(polyop.sin(x).numpy(), expected)


def test_random_draws_in_a_handlers_vmap() -> None:
    """S99, S160: a vmap inside a handler draws per sample, though no argument is batched."""

    class Draws(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return polyop.vmap(lambda x: polyop.rand([]) + x * 0, randomness="different")(*args)

    with Draws():
        drawn = polyop.sin(of_array(np.zeros(8))).numpy()
    assert len(set(drawn.tolist())) == 8


def test_a_stack_per_thread_and_task() -> None:
    """S98, S161: threads start without modes; tasks have their creator's, and change their own."""
    log: list[str] = []
    seen: list[int] = []
    outer, inner = Named("outer", log), Named("inner", log)

    async def task(enter: bool) -> None:
        if enter:
            with inner:
                await asyncio.sleep(0)
                seen.append(len(dispatch_mode_stack()))
        else:
            await asyncio.sleep(0)
            seen.append(len(dispatch_mode_stack()))

    async def run() -> None:
        await asyncio.gather(*(task(i % 2 == 0) for i in range(6)))

    with outer:
        asyncio.run(run())
        thread = threading.Thread(target=lambda: seen.append(-len(dispatch_mode_stack())))
        thread.start()
        thread.join()
    assert sorted(seen) == [0, 1, 1, 1, 2, 2, 2]


# -- rules of operators -----------------------------------------------------------------


@pytest.fixture(name="op")
def _op() -> Any:
    with scoped_library("mode_rules", "DEF") as lib:
        lib.define("f(Tensor x, int n=2, *, float m=1.5) -> Tensor")
        lib.impl("f", lambda x, n, m: of_array(x.numpy() * n * m), "CPU")
        yield ops.mode_rules.f.default


def test_register_dispatch_goes_before_the_mode(op: Any) -> None:
    """S54, S113: an operator's `register_dispatch` rule for a mode answers instead of it."""
    log: list[str] = []
    seen: list[Any] = []

    def rule(mode: Any, op: Any, types: Any, args: Any, kwargs: Any) -> Any:
        seen.append((mode, op, types, args[1:], kwargs, dispatch_mode_stack()))
        return op(*args, **kwargs)

    register_dispatch(op, Named, rule)
    with Named("m", log) as mode:
        assert op(ONE, 4, m=1.0).numpy()[0] == 4
    assert log == [] and seen == [(mode, op, (), (4,), {"m": 1.0}, ())]


def test_py_impl_goes_before_register_dispatch(op: Any) -> None:
    """S109, S113: the `python_key_table` rule goes before the `register_dispatch` rule."""
    answer, seen = of_array(np.ones(1)), list[Any]()

    def own(mode: Any, x: Any, *rest: Any, **named: Any) -> Any:
        seen.append((mode.name, rest, named))
        return x

    register_dispatch(op, Named, lambda *_: answer)
    with Named("m", []):
        assert op(ONE) is answer
    op.py_impl(Named)(own)
    with Named("m", []):
        assert op(ONE, 2, m=3.0) is not answer
        op(ONE, 2)
    assert seen == [("m", (), {"m": 3.0}), ("m", (), {})]


def test_a_rule_may_decline(op: Any) -> None:
    """S113: `NotImplemented` from a rule sends the call to the next mode, not to `__dispatch__`."""
    log: list[str] = []
    register_dispatch(op, Inner, lambda *_: NotImplemented)
    with Named("outer", log), Inner("inner", log):
        op(ONE)
    assert log == ["outer"]
    with Inner("inner", log), pytest.raises(UnhandledDispatchError, match="Inner"):
        op(ONE)


def test_a_rule_for_the_fake_mode(op: Any) -> None:
    """S113, S120: a rule for FakeTensorMode answers fake calls, with the fake's own mode."""
    mode = FakeTensorMode()
    x = mode.from_tensor(ONE)
    seen: list[Any] = []

    def rule(found: Any, x: Any, *rest: Any, **named: Any) -> Any:
        seen.append((found, x.is_fake))
        return x

    op.py_impl(FakeTensorMode)(rule)
    assert op(x) is x
    with mode:
        assert op(x) is x
    assert seen == [(mode, True)] * 2
    assert op(ONE).numpy()[0] == 3


# -- the shortened form -------------------------------------------------------------------


@given(
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.sampled_from([True, False]),
    st.lists(st.integers(0, 2), max_size=2),
    st.none() | st.text(max_size=1),
)
def test_the_shortened_form_means_the_same(
    n: int, r: float, flag: bool, sizes: list[int], text: str | None
) -> None:
    """S65: what is left out is trailing, and equals its default bit for bit."""
    with scoped_library("mode_short", "FRAGMENT") as lib:
        before = "Tensor x, int n=1, float r=0.0, bool b=False"
        lib.define(f"g({before}, *, int[] s=[1, 2], str? t=None) -> Tensor")
        op = ops.mode_short.g.default
        values = (ONE, n, r, flag, sizes, text)
        args, kwargs = shortened(op, values)
        filled = [*args, *[a.default_value for a in op._schema.positional[len(args) :]]]
        assert repr(filled[1:]) == repr(list(values[1:4]))
        named = {"s": [1, 2], "t": None} | kwargs
        assert (list(named["s"]), named["t"]) == (sizes, text)
        assert not args[1:] or not is_default(args[-1], (None, 1, 0.0, False)[len(args) - 1])


def test_a_negative_zero_is_not_left_out() -> None:
    """S65: -0.0 equals 0.0 and is another number, so it is not left out."""
    assert is_default(0.0, 0.0) and not is_default(-0.0, 0.0)
    assert not is_default(True, 1) and not is_default(1, 1.0) and is_default([1, 2], [1, 2])

"""The pre-dispatch stack: its places, its errors, and what meets a call first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyop
from polyop.dispatch.context import run_under, set_word, word
from polyop.dispatch.guards import exclude_keys, include_keys, included_keys
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import scoped_library
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.namespaces import ops
from polyop.dispatch.pre_dispatch import (
    current_mode_pre_dispatch,
    get_mode_pre_dispatch,
    len_mode_stack_pre_dispatch,
    pop_mode_pre_dispatch,
    set_mode_pre_dispatch,
    unset_mode_pre_dispatch,
)
from polyop.dispatch.rules import register_dispatch
from polyop.errors import DataDependentOutputError, ModeError, UnhandledDispatchError
from polyop.layers.schema_check import SchemaCheckMode
from polyop.layers.trace.make_fx import make_fx
from polyop.layers.trace.proxy import set_grad_mode
from polyop.tensor.subclass import make_wrapper_subclass
from polyop.tensor.tensor import Tensor, of_array


class Proxy(DispatchMode):
    mode_key = ModeKey.PROXY

    def __init__(self, log: list[Any] | None = None, answer: Any = None) -> None:
        self.log: list[Any] = [] if log is None else log
        self.answer = answer

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.log.append((type(self).__name__, op.name(), len_mode_stack_pre_dispatch()))
        return op(*args, **(kwargs or {})) if self.answer is None else self.answer


class Functional(Proxy):
    mode_key = ModeKey.FUNCTIONAL


class Fake(Proxy):
    mode_key = ModeKey.FAKE


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before = word()
    yield
    set_word(before)


def one() -> Tensor:
    return of_array(np.ones(2, "float32"))


# -- the stack ------------------------------------------------------------------------------


def test_the_current_mode_and_the_order_of_popping() -> None:
    """S114: FUNCTIONAL is current and popped before PROXY, however they were set."""
    for first, second in ((Proxy(), Functional()), (Functional(), Proxy())):
        set_mode_pre_dispatch(first)
        set_mode_pre_dispatch(second)
        assert len_mode_stack_pre_dispatch() == 2
        assert isinstance(current_mode_pre_dispatch(), Functional)
        assert type(get_mode_pre_dispatch(ModeKey.PROXY)) is Proxy
        assert isinstance(get_mode_pre_dispatch(ModeKey.FUNCTIONAL), Functional)
        popped = [pop_mode_pre_dispatch(), pop_mode_pre_dispatch()]
        assert [type(m).__name__ for m in popped] == ["Functional", "Proxy"]
        assert current_mode_pre_dispatch() is None and len_mode_stack_pre_dispatch() == 0


def test_the_key_is_included_exactly_while_a_mode_is_set() -> None:
    """S95, S114: PreDispatch is included exactly while the stack is not empty."""
    assert not included_keys().has(DispatchKey.PreDispatch)
    set_mode_pre_dispatch(Proxy())
    set_mode_pre_dispatch(Functional())
    pop_mode_pre_dispatch()
    assert included_keys().has(DispatchKey.PreDispatch)
    unset_mode_pre_dispatch(ModeKey.PROXY)
    assert not included_keys().has(DispatchKey.PreDispatch)


@pytest.mark.parametrize("mode", [Proxy, Functional, SchemaCheckMode])
def test_an_occupied_place(mode: Any) -> None:
    """S115: a place that is taken is refused, naming its holder; nothing changes."""
    first = mode()
    set_mode_pre_dispatch(first)
    with pytest.raises(ModeError, match=mode.__name__):
        set_mode_pre_dispatch(mode())
    assert current_mode_pre_dispatch() is first


@pytest.mark.parametrize("other", [Proxy, Functional])
def test_schema_check_is_alone(other: Any) -> None:
    """S114, S115: SchemaCheckMode and the others exclude each other, both ways."""
    for first, second in ((other, SchemaCheckMode), (SchemaCheckMode, other)):
        set_mode_pre_dispatch(first())
        with pytest.raises(ModeError, match=f"alone(.|\n)*{first.__name__} is set already"):
            set_mode_pre_dispatch(second())
        assert type(pop_mode_pre_dispatch()) is first


def test_misuse() -> None:
    """S115: an empty stack, another kind of mode, another key, `schema_check` beside a key."""
    with pytest.raises(ModeError, match="empty"):
        pop_mode_pre_dispatch()
    for other in (Fake(), DispatchMode(), object(), Proxy):
        with pytest.raises(ModeError, match="no place on the pre-dispatch stack"):
            set_mode_pre_dispatch(other)
    for key in (ModeKey.FAKE, None, 1, "PROXY"):
        with pytest.raises(ModeError, match="no such key"):
            get_mode_pre_dispatch(key)
    for key in (ModeKey.FAKE, 1, "PROXY"):
        with pytest.raises(ModeError, match="no such key"):
            unset_mode_pre_dispatch(key)
    with pytest.raises(ModeError, match="mode_key=None with schema_check=True"):
        unset_mode_pre_dispatch(ModeKey.PROXY, schema_check=True)
    assert len_mode_stack_pre_dispatch() == 0


def test_unset_gives_what_was_there() -> None:
    """S115: `unset_` gives the mode that it takes off, or None."""
    proxy, check = Proxy(), SchemaCheckMode()
    assert unset_mode_pre_dispatch(ModeKey.PROXY) is None
    set_mode_pre_dispatch(proxy)
    assert unset_mode_pre_dispatch(ModeKey.FUNCTIONAL) is None
    assert unset_mode_pre_dispatch(ModeKey.PROXY) is proxy
    set_mode_pre_dispatch(check)
    assert unset_mode_pre_dispatch(None, schema_check=True) is check
    set_mode_pre_dispatch(check)
    assert unset_mode_pre_dispatch(None) is check  # as PyTorch's
    assert unset_mode_pre_dispatch(None) is None


@given(st.lists(st.sampled_from(["P", "F", "C", "p", "f", "c", "pop"]), max_size=12))
def test_any_program_of_sets_and_pops(program: list[str]) -> None:
    """S114, S115: after any sets and pops the stack is what a model of three places says."""
    model: dict[str, Any] = {}
    kinds = {"P": Proxy, "F": Functional, "C": SchemaCheckMode}
    keys: dict[str, Any] = {"p": ModeKey.PROXY, "f": ModeKey.FUNCTIONAL, "c": None}

    def run() -> None:
        for step in program:
            if step in kinds:
                taken = step in model or ("C" in model) or (step == "C" and bool(model))
                mode = kinds[step]()
                if taken:
                    with pytest.raises(ModeError):
                        set_mode_pre_dispatch(mode)
                else:
                    set_mode_pre_dispatch(mode)
                    model[step] = mode
            elif step == "pop":
                top = next((k for k in "CFP" if k in model), None)
                if top is None:
                    with pytest.raises(ModeError):
                        pop_mode_pre_dispatch()
                else:
                    assert pop_mode_pre_dispatch() is model.pop(top)
            else:
                found = unset_mode_pre_dispatch(keys[step], schema_check=step == "c")
                assert found is model.pop(step.upper(), None)
            assert len_mode_stack_pre_dispatch() == len(model)
            assert current_mode_pre_dispatch() is next(
                (model[k] for k in "CFP" if k in model), None
            )

    run_under(word(), run)


def test_each_thread_has_its_own_stack() -> None:
    """S98: a new thread starts with an empty pre-dispatch stack; an error leaves it as it was."""
    set_mode_pre_dispatch(Proxy())
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(len_mode_stack_pre_dispatch()))
    thread.start()
    thread.join()
    with pytest.raises(ZeroDivisionError):
        run_under(word(), lambda: (pop_mode_pre_dispatch(), 1 / 0))
    assert seen == [0] and len_mode_stack_pre_dispatch() == 1


# -- calls ----------------------------------------------------------------------------------


def test_modes_meet_a_call_in_turn_each_popped() -> None:
    """S116: the current mode handles a call with itself popped; what it calls meets the next."""
    log: list[Any] = []
    set_mode_pre_dispatch(Proxy(log))
    set_mode_pre_dispatch(Functional(log))
    polyop.sin(one())
    assert log == [("Functional", "core::sin", 1), ("Proxy", "core::sin", 0)]


def test_they_come_before_autograd() -> None:
    """S116: a pre-dispatch mode is above autograd, so what it calls is recorded."""
    seen: list[bool] = []

    class Look(Proxy):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = op(*args, **(kwargs or {}))
            seen.append(result.requires_grad)
            return result

    x = one().requires_grad_()
    set_mode_pre_dispatch(Look())
    polyop.sin(x)
    assert seen == [True]


def test_not_while_python_is_excluded() -> None:
    """S116: while Python is excluded no pre-dispatch mode is asked."""
    log: list[Any] = []
    set_mode_pre_dispatch(Proxy(log))
    with exclude_keys([DispatchKey.Python]):
        assert np.allclose(polyop.sin(one()).numpy(), np.sin(1))
    assert log == []


def test_declining() -> None:
    """S113, S116: a mode that declines hands the call to the next; all declining is an error."""
    log: list[Any] = []
    set_mode_pre_dispatch(Proxy(log))
    set_mode_pre_dispatch(Functional(log, NotImplemented))
    assert np.allclose(polyop.sin(one()).numpy(), np.sin(1))
    assert [entry[0] for entry in log] == ["Functional", "Proxy"]
    unset_mode_pre_dispatch(ModeKey.PROXY)
    with pytest.raises(UnhandledDispatchError, match="Functional"):
        polyop.sin(one())


def test_rules_go_before_dispatch() -> None:
    """S54, S113, S116: an operator's own rule for the mode's class goes before `__dispatch__`."""
    with scoped_library("pre_rules", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", lambda x: x.clone(), "CPU")
        answer = one()
        register_dispatch(ops.pre_rules.f.default, Proxy, lambda *_: answer)
        set_mode_pre_dispatch(Proxy())
        assert ops.pre_rules.f(one()) is answer


def test_the_operators_own_kernel() -> None:
    """S116: without a mode the operator's PreDispatch kernel acts, if the key is there; with one,
    the mode is asked first, and the kernel does not act on what it calls."""
    with scoped_library("pre_kernel", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", lambda x: of_array(x.numpy() + 1), "CPU")
        lib.impl("f", lambda x: of_array(x.numpy() + 100), "PreDispatch")
        f = ops.pre_kernel.f
        assert f(one()).numpy()[0] == 2
        with include_keys([DispatchKey.PreDispatch]):
            assert f(one()).numpy()[0] == 101
        log: list[Any] = []
        set_mode_pre_dispatch(Proxy(log))
        assert f(one()).numpy()[0] == 2
        assert len(log) == 1
        with exclude_keys([DispatchKey.Python]):
            assert f(one()).numpy()[0] == 101


def test_the_key_alone_changes_nothing() -> None:
    """S116: with the key and neither a mode nor a kernel, a call goes on below it."""
    with include_keys([DispatchKey.PreDispatch]):
        assert np.allclose(polyop.sin(one()).numpy(), np.sin(1))


def test_transforms_go_first() -> None:
    """S116: what belongs to a transform goes to it; the calls that it makes meet the mode."""
    log: list[Any] = []
    set_mode_pre_dispatch(Proxy(log))
    result = polyop.vmap(polyop.sin)(one())
    assert np.allclose(result.numpy(), np.sin(1))
    assert [entry[1] for entry in log] == ["core::sin"]


# -- make_fx --------------------------------------------------------------------------------


@pytest.fixture(name="composite")
def _composite() -> Iterator[Any]:
    with scoped_library("pre_fx", "DEF") as lib:
        lib.define("twice_sin(Tensor x, int n=2) -> Tensor")
        lib.impl("twice_sin", lambda x, n: polyop.sin(x) * n, "CompositeImplicitAutograd")
        yield ops.pre_fx.twice_sin


def targets(module: Any) -> list[str]:
    return [
        n.target.name() if hasattr(n.target, "name") else n.target.__name__
        for n in module.graph.nodes
        if n.op == "call_function"
    ]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_composites_stay_whole(composite: Any, mode: str) -> None:
    """S209: a CompositeImplicitAutograd operator decomposes, but stays whole under pre_dispatch."""
    x = one()
    whole = make_fx(lambda x: composite(x) + 1, mode, pre_dispatch=True)(x)
    parts = make_fx(lambda x: composite(x) + 1, mode)(x)
    assert targets(whole) == ["pre_fx::twice_sin", "core::add.Scalar"]
    assert targets(parts) == ["core::sin", "core::multiply.Scalar", "core::add.Scalar"]
    whole.graph.lint()
    y = of_array(np.linspace(0, 1, 2, dtype="float32"))
    assert np.array_equal(whole(y).numpy(), parts(y).numpy())


def test_grad_mode_is_part_of_the_program(composite: Any) -> None:
    """S209: a program traced before dispatch has the gradients of the function: grad mode is a
    node, and the mode after it is the one before it."""

    def f(x: Tensor) -> Tensor:
        y = composite(x)
        with polyop.no_grad():
            z = y * y
        return polyop.sum(y * z)

    x = one().requires_grad_()
    module = make_fx(f, pre_dispatch=True)(x)
    assert targets(module).count("set_grad_mode") == 2
    given = [of_array(np.asarray([0.3, 0.7], "float32")).requires_grad_() for _ in range(2)]
    f(given[0]).backward()
    module(given[1]).backward()
    assert np.array_equal(given[0].grad.numpy(), given[1].grad.numpy())
    assert word().grad


def test_a_program_ends_in_the_mode_in_which_it_began() -> None:
    """S209: a function that leaves grad mode off ends in a node that puts it back."""

    def f(x: Tensor) -> Tensor:
        with polyop.no_grad():
            return polyop.sin(x)

    module = make_fx(f, pre_dispatch=True)(one().requires_grad_())
    assert targets(module) == ["set_grad_mode", "core::sin", "set_grad_mode"]
    assert not module(one().requires_grad_()).requires_grad and word().grad
    assert set_grad_mode.is_impure  # type: ignore[attr-defined]


def test_an_exception_in_a_program_leaves_grad_mode_as_it_was() -> None:
    """S98, S209: a program that fails in a part without grad mode leaves the context as it was."""
    fails: list[int] = []

    def kernel(x: Tensor) -> Tensor:
        if fails:
            raise ZeroDivisionError
        return x.clone()

    def f(x: Tensor) -> Tensor:
        with polyop.no_grad():
            return ops.pre_fails.f(x)

    with scoped_library("pre_fails", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        lib.impl("f", kernel, "CPU")
        module = make_fx(f, pre_dispatch=True)(one())
        before = word()
        assert np.array_equal(module(one()).numpy(), [1, 1]) and word() is before
        fails.append(1)
        with pytest.raises(ZeroDivisionError):
            module(one())
        assert word() is before


def test_writes_and_gradients_are_recorded(composite: Any) -> None:
    """S209: writes keep their place, and a backward inside is a part of the program."""

    def f(x: Tensor) -> Any:
        y = composite(x)
        y.add_(1)
        return y, polyop.autograd.grad(polyop.sum(y * y), [x])[0]

    x = of_array(np.asarray([0.1, 0.2])).requires_grad_()
    module = make_fx(f, pre_dispatch=True)(x)
    other = of_array(np.asarray([0.5, -0.6]))
    for ours, eager in zip(
        module(other.clone().requires_grad_()), f(other.clone().requires_grad_()), strict=True
    ):
        assert np.allclose(ours.detach().numpy(), eager.detach().numpy())


def test_a_decomposition_table(composite: Any) -> None:
    """S209: a function of the table is traced instead of its operator, before dispatch too."""
    table = {polyop.ops.core.sin.default: lambda x: polyop.cos(x) * 3}
    module = make_fx(polyop.sin, pre_dispatch=True, decomposition_table=table)(one())
    assert targets(module) == ["core::cos", "core::multiply.Scalar"]


def test_a_look_at_data_is_refused() -> None:
    """S209: a branch on traced data has no program, so it raises instead of keeping one side."""

    def f(x: Tensor) -> Tensor:
        return x if polyop.sum(x) > 0 else -x

    with pytest.raises(DataDependentOutputError, match="bool"):
        make_fx(f, pre_dispatch=True)(one())


def test_a_subclass_is_asked_in_a_trace_before_dispatch() -> None:
    """S114, S165: a subclass answers below autograd; one that declines is named, as in eager."""

    class Outer(Tensor):
        @classmethod
        def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    t = make_wrapper_subclass(Outer, (2,), dtype="float32", device="cpu")
    with pytest.raises(UnhandledDispatchError, match="Outer"):
        make_fx(lambda x: x + polyop.sin(t), pre_dispatch=True)(one())

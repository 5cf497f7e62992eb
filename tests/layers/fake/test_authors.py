"""Fake rules of authors: what they see, what they may return, and when they run again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.devices import META
from polyop.dispatch.context import word
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.library import Library
from polyop.dispatch.registry import disown, find_operator, places_of
from polyop.dispatch.rules import register_fake
from polyop.errors import (
    DataDependentOutputError,
    DynamicOutputShapeError,
    FakeError,
    GuardOnDataDependentError,
    MissingFakeError,
    ReturnError,
    UsageError,
)
from polyop.layers.fake import FakeTensorMode, get_ctx
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.views import reshape
from polyop.symbolic import ShapeEnv, check
from polyop.tensor.meta import META_SPACE, meta_of
from polyop.tensor.storage import version_of
from polyop.tensor.tensor import Tensor, of_array, of_meta


def real(*shape: int, dtype: str = "float32") -> Tensor:
    return of_array(np.ones(shape, dtype))


def fake(*shape: int, env: ShapeEnv | None = None, dtype: str = "float32") -> Tensor:
    return FakeTensorMode(shape_env=env, static_shapes=True).from_tensor(real(*shape, dtype=dtype))


def like(x: Tensor, *shape: Any, dtype: str = "float32") -> Tensor:
    return of_meta(x.payload.space.meta(shape, np.dtype(dtype), None, x.device))


@pytest.fixture
def op() -> Iterator[CustomOpDef]:
    """An operator that looks into its data, without rules."""

    @custom_op("testfake::op", mutates_args=(), replace=True)
    def op(x: Tensor, n: int = 1, s: float = 1.0) -> Tensor:
        return of_array(x.numpy() * n * s)

    yield op
    disown(places_of("testfake::op"))


# -- the rule ------------------------------------------------------------------


def test_the_rule_makes_the_result(op: CustomOpDef) -> None:
    """S141: the fake rule's answer is the fake call's, on fakes and on the device meta."""
    op.register_fake(lambda x, n, s: like(x, *x.shape, n))
    assert op(fake(2), 7).shape == (2, 7)
    on_meta = op(of_meta(meta_of(real(2), META_SPACE, META)), 7)
    assert (on_meta.shape, str(on_meta.device)) == ((2, 7), "meta")


def test_the_rule_runs_alone(op: CustomOpDef) -> None:
    """S141: a rule sees new tensors without gradients, its own mode, and nobody who watches."""
    seen: list[Any] = []

    def rule(x: Tensor, n: int, s: float) -> Tensor:
        seen.append((x, word().fake, word().grad, word().tracer))
        return sin(x)

    op.register_fake(rule)
    x = fake(2)
    op(x)
    ((given, mode, grad, tracer),) = seen
    assert given is not x and not given.requires_grad
    assert mode is x.payload.space.mode and not grad and tracer is None


def test_defaults_are_filled_in(op: CustomOpDef) -> None:
    """S65: a rule sees all arguments."""
    seen: list[Any] = []
    op.register_fake(lambda *args: seen.append(args[1:]) or args[0])
    op(fake(2))
    assert seen == [(1, 1.0)]


def test_a_new_rule_acts_at_once(op: CustomOpDef) -> None:
    """S149: a new fake clears what was remembered."""
    x = fake(2)
    op.register_fake(lambda x, n, s: like(x, 5))
    assert op(x).shape == (5,)
    op.register_fake(lambda x, n, s: like(x, 6))
    assert op(x).shape == (6,)


# -- the memo ------------------------------------------------------------------


def test_a_rule_runs_once_per_key(op: CustomOpDef) -> None:
    """S149: metadata, and class and value of other arguments, are the key."""
    calls: list[Any] = []
    op.register_fake(lambda x, n, s: calls.append((n, s)) or x)
    x = fake(2, 3)
    y = x.payload.space.mode.from_tensor(real(2, 3))
    for _ in range(2):
        op(x, 1)
        op(y, 1)
        op(x, 2)
        op(x, 1, 0.0)
        op(x, 1, -0.0)
        op(x, 1, 1)
    assert len(calls) == 4


def test_containers_are_keys_by_value() -> None:
    """S149: lists, and numbers of several classes in them, are told apart by value and class."""

    @custom_op("testfake::lists", mutates_args=(), schema="(Tensor x, Scalar[] n) -> Tensor")
    def lists(x, n):
        return of_array(x.numpy())

    calls: list[Any] = []
    lists.register_fake(lambda x, n: calls.append(list(n)) or x)
    x = fake(2)
    for _ in range(2):
        for n in ([1, 2], [1.0, 2], [True, 2], [2, 1], []):
            lists(x, n)
    assert len(calls) == 5


def test_dynamic_sizes_are_not_remembered(op: CustomOpDef) -> None:
    """S149: a rule that makes a symbol runs each time, for a new symbol."""
    op.register_fake(lambda x, n, s: like(x, get_ctx().new_dynamic_size()))
    x = fake(2, env=ShapeEnv())
    assert [str(op(x).shape[0]) for _ in range(3)] == ["u0", "u1", "u2"]


def test_writes_are_not_remembered() -> None:
    """S149: the rule of an operator that writes runs each time, and writes are counted."""

    @custom_op("testfake::writes", mutates_args=("x",))
    def writes(x: Tensor) -> Tensor:
        return of_array(x.numpy().copy())

    calls: list[Any] = []
    writes.register_fake(lambda x: calls.append(1) or sin(x))
    x = fake(2)
    writes(x)
    writes(x)
    assert (len(calls), version_of(x)) == (2, 2)


# -- dynamic sizes -------------------------------------------------------------


def test_no_context_outside_a_rule() -> None:
    """S143: `get_ctx` outside a rule is an error."""
    with pytest.raises(FakeError, match="outside a fake rule"):
        get_ctx()


def test_bounds_of_dynamic_sizes(op: CustomOpDef) -> None:
    """S143: bounds that hold no size, or are no plain ints, are refused."""
    for bounds in ({"min": -1}, {"min": 3, "max": 2}, {"max": 2.5}, {"min": True}):
        op.register_fake(lambda x, n, s, b=bounds: like(x, get_ctx().new_dynamic_size(**b)))
        with pytest.raises(UsageError):
            op(fake(2, env=ShapeEnv()))
    env = ShapeEnv()
    op.register_fake(lambda x, n, s: like(x, get_ctx().new_dynamic_size(min=2, max=9)))
    assert env.range_of(op(fake(2, env=env)).shape[0]) == (2, 9)


def test_dynamic_sizes_need_an_environment(op: CustomOpDef) -> None:
    """S144: without a ShapeEnv, and on the device meta, a dynamic size is an error."""
    op.register_fake(lambda x, n, s: like(x, get_ctx().new_dynamic_size()))
    with pytest.raises(DynamicOutputShapeError, match=r"testfake::op(.|\n)*ShapeEnv"):
        op(fake(2))
    with pytest.raises(FakeError, match="use a FakeTensorMode"):
        op(of_meta(meta_of(real(2), META_SPACE, META)))


def test_contexts_are_a_threads_own(op: CustomOpDef) -> None:
    """S143 [better]: a rule that waits in one thread does not give its context to another."""
    inside, done = threading.Event(), threading.Event()

    def rule(x: Tensor, n: int, s: float) -> Tensor:
        inside.set()
        done.wait(5)
        assert get_ctx().op.name() == "testfake::op"
        return x

    op.register_fake(rule)
    thread = threading.Thread(target=lambda: op(fake(2)))
    thread.start()
    inside.wait(5)
    with pytest.raises(FakeError):
        get_ctx()
    done.set()
    thread.join()


def test_a_branch_on_a_dynamic_size(op: CustomOpDef) -> None:
    """S152: a branch on an unbacked size names its origin; a check answers it."""
    op.register_fake(lambda x, n, s: like(x, get_ctx().new_dynamic_size()))
    size = op(fake(2, env=ShapeEnv())).shape[0]
    with pytest.raises(GuardOnDataDependentError, match="testfake::op"):
        bool(size > 3)
    check(size > 3)
    assert size > 3


# -- what is refused -----------------------------------------------------------


def test_data_in_a_rule(op: CustomOpDef) -> None:
    """S142: a rule that reads data names its operator and the place of the rule."""
    for look in (Tensor.numpy, Tensor.item, Tensor.__bool__, Tensor.tolist):
        op.register_fake(lambda x, n, s, f=look: f(x))
        with pytest.raises(DataDependentOutputError, match=r"testfake::op(.|\n)*test_authors.py"):
            op(fake(2))


def test_results_with_data(op: CustomOpDef) -> None:
    """S142: a result with data, not made under the mode, is refused; so is another mode's."""
    outside = real(2)
    op.register_fake(lambda x, n, s: outside)
    with pytest.raises(FakeError, match=r"with data(.|\n)*new_empty"):
        op(fake(2))
    other = fake(2)
    op.register_fake(lambda x, n, s: other)
    with pytest.raises(FakeError, match="another mode"):
        op(fake(2))


def test_results_of_the_wrong_type(op: CustomOpDef) -> None:
    """S48: a rule's results are checked against the schema."""
    for wrong in (None, 3, "x"):
        op.register_fake(lambda x, n, s, w=wrong: w)
        with pytest.raises(ReturnError, match="fake rule of testfake::op"):
            op(fake(2))
    op.register_fake(lambda x, n, s: (x, x))
    with pytest.raises(ReturnError):
        op(fake(2))


def test_real_tensors_in_a_fake_call(op: CustomOpDef) -> None:
    """S148: a real tensor beside fakes is refused by name, in lists too."""

    @custom_op("testfake::many", mutates_args=())
    def many(x: Tensor, ys: list[Tensor]) -> Tensor:
        return of_array(x.numpy())

    many.register_fake(lambda x, ys: x)
    x = fake(2)
    many(x, [x, x])
    with pytest.raises(FakeError, match=r"argument: ys \(position 1\)"):
        many(x, [x, real(2)])
    with pytest.raises(FakeError, match=r"argument: x \(position 0\)"):
        many(real(2), [x])


# -- operators that need no rule -------------------------------------------------


def test_a_missing_rule_is_named(op: CustomOpDef) -> None:
    """S145: no fake is an error with the line to write, on fakes, in a mode and on meta."""
    line = r"register_fake\('testfake::op', rule\)"
    with pytest.raises(MissingFakeError, match=line):
        op(fake(2))
    with pytest.raises(MissingFakeError, match=line):
        op(of_meta(meta_of(real(2), META_SPACE, META)))
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(MissingFakeError, match=line):
        op(real(2))
    op.register_fake(lambda x, n, s: x)
    assert op(fake(2)).shape == (2,)


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library that goes with the test."""
    made = Library("testfakelib", "FRAGMENT")
    yield made
    made._destroy()


def test_a_missing_rule_of_a_library(lib: Library) -> None:
    """S145: the same for a kernel of one device that a library registered."""
    lib.define("cpu_only(Tensor x) -> Tensor")
    lib.impl("cpu_only", lambda x: of_array(x.numpy()), "CPU")
    with pytest.raises(MissingFakeError, match="register_fake"):
        find_operator("testfakelib::cpu_only").entry(fake(2))


def test_decompositions_and_hand_made_kernels_run_on_fakes(lib: Library) -> None:
    """S146: a decomposition, and a kernel put by hand at CompositeExplicitAutograd, run."""
    lib.define("parts(Tensor x, *, int n=2) -> Tensor")
    lib.impl("parts", lambda x, *, n=2: multiply(sin(x), n), "CompositeImplicitAutograd")
    lib.define("hand(Tensor x) -> Tensor")
    lib.impl("hand", lambda x: reshape(sin(x), [-1]), "CompositeExplicitAutograd")
    assert find_operator("testfakelib::parts").entry(fake(2, 3)).shape == (2, 3)
    assert find_operator("testfakelib::hand").entry(fake(2, 3)).shape == (6,)


def test_a_kernel_at_meta_is_a_rule(lib: Library) -> None:
    """S141: the operator's kernel at Meta serves fakes."""
    lib.define("meta(Tensor x) -> Tensor")
    lib.impl("meta", lambda x: of_array(x.numpy()), "CPU")
    lib.impl("meta", lambda x: reshape(x, [-1]), "Meta")
    assert find_operator("testfakelib::meta").entry(fake(2, 3)).shape == (6,)


def test_nothing_returned_needs_no_rule() -> None:
    """S146: an operator without results needs no rule; its writes are counted."""

    @custom_op("testfake::nothing", mutates_args=("x",))
    def nothing(x: Tensor) -> None:
        x.numpy()[...] = 0

    x = fake(2)
    assert nothing(x) is None  # type: ignore[func-returns-value]
    assert version_of(x) == 1


def test_written_arguments_need_no_rule(lib: Library) -> None:
    """S146: an operator that returns only what it wrote gives these arguments back."""
    lib.define("both(Tensor(a!) x, Tensor(b!) y) -> (Tensor(a!), Tensor(b!))")
    lib.impl("both", lambda x, y: (x, y), "CPU")
    x = fake(2)
    y = add(x, x)
    a, b = find_operator("testfakelib::both").entry(x, y)
    assert a is x and b is y and version_of(x) == 1


# -- results of every kind --------------------------------------------------------


def test_several_results_lists_and_values(lib: Library) -> None:
    """S47: several results, lists, optional tensors and plain values come as declared."""
    lib.define("all(Tensor x) -> (Tensor, Tensor[], int, float)")
    register_fake("testfakelib::all", lambda x: (sin(x), [x, reshape(x, [-1])], 3, 2))
    for _ in range(2):
        a, b, n, s = find_operator("testfakelib::all").entry(fake(2, 3))
        assert (a.shape, [t.shape for t in b], n, s) == ((2, 3), [(2, 3), (6,)], 3, 2.0)


def test_a_declared_view_shares(lib: Library) -> None:
    """S135: a result declared as a view shares the version of its base."""
    lib.define("view(Tensor(a) x) -> Tensor(a)")
    register_fake("testfakelib::view", lambda x: reshape(x, [-1]))
    x = fake(2, 3)
    for _ in range(2):
        v = find_operator("testfakelib::view").entry(x)
        assert v._base is x and v.version is x.version


def test_an_undeclared_alias_is_a_new_tensor(op: CustomOpDef) -> None:
    """S47: a rule that returns its argument describes a new tensor, not that one."""
    op.register_fake(lambda x, n, s: x)
    x = fake(2)
    assert op(x) is not x and op(x)._base is None


def test_rules_raise_as_they_are_written(op: CustomOpDef) -> None:
    """S1: what a rule raises comes through, as no consequence of anything else."""

    def rule(x: Tensor, n: int, s: float) -> Tensor:
        raise ZeroDivisionError("mine")

    op.register_fake(rule)
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        op(fake(2))
    assert caught.value.__context__ is None
    assert word().rule is None

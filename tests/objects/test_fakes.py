"""Fake classes and fake objects: a trace asks them, and the real object stays as it is."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from typing import Any

import pytest
from tests.objects.things import FakeQueue, Log, Queue, Stream, draw, make_queue, note, pop, push

import polyop
from polyop.errors import (
    AutogradError,
    ObjectError,
    PolyopWarning,
    UsageError,
    UsageTypeError,
    VmapError,
)
from polyop.func import vmap
from polyop.graph import make_fx
from polyop.layers.fake import FakeTensorMode
from polyop.library import register_fake_class, register_opaque_type
from polyop.objects import FakeObject, call_object, fake_of


def queue_of(*values: float) -> Queue:
    return Queue([polyop.full((2,), v) for v in values])


def contents(queue: Queue) -> list[list[float]]:
    return [x.tolist() for x in queue.items]


def test_a_fake_has_the_state_as_fakes() -> None:
    """S185: the flat form of the real object, with fake tensors in it, makes the fake one."""
    mode = FakeTensorMode()
    fake = fake_of(mode, queue_of(1, 2))
    assert type(fake) is FakeObject
    assert type(fake.wrapped_obj) is FakeQueue
    assert [repr(x) for x in fake.wrapped_obj.items] == [
        repr(mode.from_tensor(polyop.full((2,), v))) for v in (1, 2)
    ]
    assert fake_of(mode, fake) is fake


def test_what_a_fake_object_has() -> None:
    """S186: `wrapped_obj`, `real_obj` (a copy), `class_name`; it passes for its class."""
    queue = queue_of(1)
    fake = fake_of(FakeTensorMode(), queue)
    assert fake.class_name == f"{Queue.__module__}.Queue"
    assert fake.real_obj is not queue
    assert contents(fake.real_obj) == contents(queue)
    queue.items.clear()
    assert len(fake.real_obj.items) == 1
    assert isinstance(fake, Queue)
    assert not isinstance(fake, Log)
    assert "FakeObject" in repr(fake)


def test_methods_become_calls() -> None:
    """S186: a method of a fake object is a `call_object` node; the real object is untouched."""
    queue = queue_of(5)

    def f(queue: Any, x: Any) -> Any:
        queue.push(x * 2)
        queue.push(x * 3)
        return queue.pop() + queue.pop(), len(queue), bool(queue)

    x = polyop.ones(2)
    module = make_fx(f, "fake")(queue, x)
    assert contents(queue) == [[5, 5]]
    assert str(module.graph).count("call_object(queue, 'push'") == 2
    assert str(module.graph).count("call_object(queue, 'pop')") == 2
    result, size, some = module(queue, x)
    assert (result.tolist(), size, some) == ([7, 7], 1, True)
    assert contents(queue) == [[3, 3]]


def test_a_method_that_gives_an_object() -> None:
    """S186: an object that a method gives is followed; `self` is the object itself."""

    def f(queue: Any, x: Any) -> Any:
        other = queue.clone()
        queue.same().push(x)
        other.push(x * 2)
        other.pop()
        return other.pop(), queue.size()

    queue, x = queue_of(4), polyop.ones(2)
    module = make_fx(f, "fake")(queue, x)
    module.graph.lint()
    assert module(queue, x)[0].tolist() == [2, 2]
    assert contents(queue) == [[4, 4], [1, 1]]


@pytest.mark.parametrize("write", [False, True])
def test_an_attribute_that_is_lacking(write: bool) -> None:
    """S186: reading or setting what the fake class lacks says which name, and the way out."""
    fake = fake_of(FakeTensorMode(), queue_of())
    with pytest.raises(ObjectError, match="'front'") as caught:
        if write:
            fake.front = 1
        else:
            _ = fake.front
    assert "define front in the fake class" in caught.value.fix
    assert not hasattr(fake, "front")
    assert not hasattr(fake.wrapped_obj, "front")


def test_setting_an_attribute_in_a_trace() -> None:
    """S186: the program would not set it, so a trace refuses; a fake rule may."""
    fake = fake_of(FakeTensorMode(), queue_of())
    fake.items = [1]
    assert fake.wrapped_obj.items == [1]

    def f(queue: Any, x: Any) -> Any:
        queue.items = []
        return x

    with pytest.raises(ObjectError, match="'items' of a .* is set in a traced function"):
        make_fx(f, "fake")(queue_of(), polyop.ones(2))


def test_no_fake_class() -> None:
    """S185: a method is called in a trace and there is no fake class: the error says so."""
    with pytest.raises(ObjectError, match="has no fake class") as caught:
        make_fx(lambda log, x: (log.lines, x), "fake")(Log(), polyop.ones(2))
    assert "register_fake_class" in caught.value.fix


def test_comparisons_are_not_baked_in() -> None:
    """S186: truth, length, items and equality come from the fake class, or are refused."""

    class Bag:
        def __len__(self) -> int:
            return 0

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = object.__hash__

    register_opaque_type(Bag, typ="reference")
    fake = fake_of(FakeTensorMode(), Bag())
    assert fake == fake
    for ask in (bool, len, iter, lambda b: b == Bag(), lambda b: b[0], lambda b: 1 in b):
        with pytest.raises(ObjectError, match="no fake class"):
            ask(fake)
    assert bool(fake_of(FakeTensorMode(), Log()))


class Odd:
    def __init__(self, flat: Any) -> None:
        self.flat = flat

    def __obj_flatten__(self) -> Any:
        return self.flat


register_opaque_type(Odd, typ="reference")


@register_fake_class(Odd)
class FakeOdd:
    @classmethod
    def __obj_unflatten__(cls, flat: Any) -> Any:
        return cls()


@pytest.mark.parametrize(
    "flat", [[("a", 1)], (("a",),), ((1, 2),), ("ab",), None, (["a", 1],)], ids=repr
)
def test_bad_flat_forms(flat: Any) -> None:
    """S185: a flat form that is no tuple of (name, value) pairs names the method and its place."""

    with pytest.raises(ObjectError, match="gives no flat form") as caught:
        fake_of(FakeTensorMode(), Odd(flat))
    assert "test_fakes.py" in caught.value.source


def test_no_flat_form() -> None:
    """S185: a fake class for a class without `__obj_flatten__` says what to define."""

    class Shut:
        pass

    register_opaque_type(Shut, typ="reference")

    @register_fake_class(Shut)
    class FakeShut:
        @classmethod
        def __obj_unflatten__(cls, flat: Any) -> Any:
            return cls()

    with pytest.raises(ObjectError, match="no __obj_flatten__"):
        fake_of(FakeTensorMode(), Shut())


def test_refused_fake_classes() -> None:
    """S185: a fake class needs the classmethod `__obj_unflatten__`, and a name `ns::Cls`."""

    class NoMethod:
        pass

    class NotAClassmethod:
        def __obj_unflatten__(self, flat: Any) -> Any:
            return self

    for cls in (NoMethod, NotAClassmethod, 3):
        with pytest.raises(UsageTypeError):
            register_fake_class("t_fakes::Cls", cls)
    with pytest.raises(UsageError, match="no operator name"):
        register_fake_class("Cls", FakeQueue)
    with pytest.raises(UsageError, match="no opaque class"):
        register_fake_class(NoMethod, FakeQueue)


def test_a_fake_class_by_name() -> None:
    """S185: `ns::Cls` names a class by the end of its module; registering anew warns."""

    class Named:
        def __obj_flatten__(self) -> Any:
            return ()

    register_opaque_type(Named, typ="reference")

    class First:
        @classmethod
        def __obj_unflatten__(cls, flat: Any) -> Any:
            return cls()

    class Second(First):
        pass

    name = "test_a_fake_class_by_name::Named"
    assert register_fake_class(name)(First) is First
    assert type(fake_of(FakeTensorMode(), Named()).wrapped_obj) is First
    with pytest.warns(PolyopWarning, match=r"had a fake class already .*test_fakes\.py"):
        register_fake_class(name, Second)
    assert type(fake_of(FakeTensorMode(), Named()).wrapped_obj) is Second
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_fake_class(name, Second)


def test_tracing_mode_real() -> None:
    """S186: an object whose `tracing_mode()` is "real" is itself in a trace; other words raise."""

    class Real:
        mode = "real"

        def tracing_mode(self) -> str:
            return self.mode

        def factor(self) -> int:
            return 3

    register_opaque_type(Real, typ="reference")
    real = Real()
    assert fake_of(FakeTensorMode(), real) is real
    module = make_fx(lambda r, x: x * r.factor(), "fake")(real, polyop.ones(2))
    assert module(real, polyop.ones(2)).tolist() == [3, 3]
    real.mode = "fake"
    assert type(fake_of(FakeTensorMode(), real)) is FakeObject
    real.mode = "other"
    with pytest.raises(ObjectError, match="tracing_mode.* gives 'other'"):
        fake_of(FakeTensorMode(), real)


def test_an_object_that_cannot_be_copied() -> None:
    """S186: where a copy cannot be made, a warning says that `real_obj` is the object itself."""

    class Held:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    register_opaque_type(Held, typ="reference")
    held = Held()
    with pytest.warns(PolyopWarning, match="cannot be copied"):
        fake = fake_of(FakeTensorMode(), held)
    assert fake.real_obj is held


def test_a_fake_is_copied_and_never_saved() -> None:
    """S186: a deep copy has a state of its own; a pickle is refused."""
    fake = fake_of(FakeTensorMode(), queue_of(1))
    other = copy.deepcopy(fake)
    other.pop()
    assert (fake.size(), other.size()) == (1, 0)
    with pytest.raises(ObjectError, match="part of a trace"):
        pickle.dumps(fake)


def test_fake_mode_leaves_the_object_alone() -> None:
    """S186: operators in a fake mode act on the fake of an object, one per mode."""
    mode = FakeTensorMode()
    queue, log, x = queue_of(1), Log(), mode.from_tensor(polyop.ones(3))
    with mode:
        push(queue, x)
        assert tuple(note(log, x, "a").shape) == (3,)
        assert tuple(pop(queue).shape) == (2,)
        assert tuple(pop(queue).shape) == (3,)
    assert contents(queue) == [[1, 1]]
    assert log.lines == []
    other = FakeTensorMode()
    assert fake_of(other, queue).size() == 1
    assert fake_of(mode, queue).size() == 0


def test_meta_tensors_leave_the_object_alone() -> None:
    """S186: on the device meta, a rule gets a fake of the object as it is now."""
    queue = queue_of(1)
    push(queue, polyop.empty(4, device="meta"))
    assert contents(queue) == [[1, 1]]


def test_an_operator_that_makes_an_object() -> None:
    """S183: an object that an operator gives is followed; two calls give two objects."""

    def f(x: Any) -> Any:
        first, second = make_queue(x), make_queue(x)
        push(first, x * 5)
        pop(first)
        return pop(first) - pop(second), first

    x = polyop.ones(2)
    module = make_fx(f, "fake")(x)
    polyop.graph.eliminate_common_subexpressions(module.graph)
    module.recompile()
    result, queue = module(x)
    assert result.tolist() == [4, 4]
    assert type(queue) is Queue
    assert make_queue._opoverload.is_impure


def test_objects_from_outside_are_constants() -> None:
    """S183: an object that a traced function closes over is an attribute of the program."""
    log = Log()
    module = make_fx(lambda x: note(log, x, "a"), "fake")(polyop.ones(2))
    assert log.lines == []
    module(polyop.ones(2))
    module(polyop.ones(2))
    assert log.texts == ["a", "a"]


def test_reconstruct_fn() -> None:
    """S183: `reconstruct_fn` finds the node of an object that is no input, from one that is."""

    class Part:
        def __init__(self, whole: Any) -> None:
            self.whole = whole

    class Whole:
        def __init__(self) -> None:
            self.part = Part(self)

    def part_of(whole: Any) -> Any:
        return whole.part

    def rebuild(part: Any, node_of: Any, tracer: Any) -> Any:
        node = node_of(part.whole)
        return None if node is None else tracer.graph.call_function(part_of, (node,))

    register_opaque_type(Whole, typ="reference")
    register_opaque_type(Part, typ="reference", reconstruct_fn=rebuild)
    seen: list[Any] = []

    def use(part: Any, x: polyop.Tensor) -> polyop.Tensor:
        seen.append(part)
        return x + 1

    use.__annotations__ = {"part": Part, "x": polyop.Tensor, "return": polyop.Tensor}
    op = polyop.custom_op("t_fakes::use", use, mutates_args=())
    op.register_fake(lambda part, x: x.new_empty(x.shape))
    first, second, x = Whole(), Whole(), polyop.ones(2)
    module = make_fx(lambda w, x: op(first.part, x), "fake")(first, x)
    module(second, x)
    assert seen == [second.part]
    alone = make_fx(lambda x: op(first.part, x), "fake")(x)
    alone(x)
    assert seen[-1] is first.part


def test_call_object_by_hand() -> None:
    """S186: `call_object` calls a method of a real object too; what is no object is refused."""
    queue = queue_of(1, 2)
    assert call_object(queue, "pop").tolist() == [1, 1]
    assert polyop.ops.higher_order.call_object is call_object
    with pytest.raises(ObjectError, match="registered reference class"):
        call_object([], "pop")
    with pytest.raises(ObjectError, match="has no method 'front'"):
        call_object(queue, "front")
    with pytest.raises(ObjectError, match="the fake of a Queue has no method 'front'"):
        call_object(fake_of(FakeTensorMode(), queue), "front")


def test_calls_without_gradient_or_batch_rule_say_so() -> None:
    """S186: in a trace, a method has neither gradient nor batching rule: named errors."""
    x = polyop.ones(2).requires_grad_()

    def f(queue: Any, x: Any) -> Any:
        queue.push(x)
        return queue.pop()

    with pytest.raises(AutogradError, match="call_object gets a tensor that requires grad"):
        make_fx(f, "fake")(queue_of(), x)
    with pytest.raises(AutogradError, match=r"in func\.grad"):
        make_fx(polyop.func.grad(lambda x, q: f(q, x).sum()), "fake")(polyop.ones(2), queue_of())
    with pytest.raises(VmapError, match="batched tensor in a trace"):
        make_fx(vmap(f, in_dims=(None, 0)), "fake")(queue_of(), polyop.ones(2, 2))
    size = make_fx(vmap(lambda q, x: x * q.size(), in_dims=(None, 0)), "fake")
    assert size(queue_of(1, 2), polyop.ones(2, 2)).graph.placeholders


def test_a_stream_draws_the_same_in_a_program() -> None:
    """S186: a program on an equal stream gives the numbers of the eager calls, in order."""

    def f(stream: Any, x: Any) -> Any:
        a, b = draw(stream, x)
        c, _ = draw(stream, x)
        return a, b, c

    x = polyop.ones(3)
    expected = [t.tolist() for t in f(Stream(7), x)]
    module = make_fx(f, "symbolic")(Stream(0), x)
    assert [t.tolist() for t in module(Stream(7), x)] == expected

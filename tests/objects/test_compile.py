"""Compiled functions with objects: they do what the eager function does, call after call."""

from __future__ import annotations

from typing import Any

import pytest
from tests.objects.things import Log, Queue, Stream, draw, make_queue, note, pop, push, say

import polyop
from polyop.errors import CaptureError
from polyop.library import register_opaque_type
from polyop.objects import call_object, with_effects


def both(fn: Any, make: Any, *inputs: Any, calls: int = 3) -> Any:
    """Call a function eagerly and compiled on an object of its own each; give both and programs."""
    compiled = polyop.compile(fn, fullgraph=True)
    eager, other = make(), make()
    for _ in range(calls):
        expected = [t.tolist() for t in polyop.tree.leaves(fn(eager, *inputs))]
        assert [t.tolist() for t in polyop.tree.leaves(compiled(other, *inputs))] == expected
    return eager, other, compiled


def test_effects_come_once_per_call_in_order() -> None:
    """S183, S188: a reference is an input of the program, and each run acts on it in order."""

    def f(log: Any, x: Any) -> Any:
        y = note(log, x * 2, "a")
        note(log, x, "unread")
        note(log, x, "unread")
        return note(log, y, "b")

    eager, other, compiled = both(f, Log, polyop.ones(2))
    assert other.lines == eager.lines
    assert other.texts == ["a", "unread", "unread", "b"] * 3
    assert len(compiled.programs) == 1
    third = Log()
    compiled(third, polyop.ones(2))  # another object runs the same program
    assert third.texts == ["a", "unread", "unread", "b"]
    assert len(compiled.programs) == 1


def test_methods_and_operators_together() -> None:
    """S186: methods of the fake class and operators keep their order in the program."""

    def f(queue: Any, x: Any) -> Any:
        push(queue, x)
        queue.push(x * 2)
        return pop(queue) * 10, queue.pop()

    eager, other, compiled = both(f, Queue, polyop.ones(2))
    assert len(eager.items) == len(other.items) == 0
    assert len(compiled.programs) == 1


def test_a_state_that_was_read_is_guarded() -> None:
    """S183: code that branches on a state gets another program when the state has changed."""

    def f(queue: Any, x: Any) -> Any:
        push(queue, x)
        return pop(queue) * 100 if queue.size() > 2 else x * queue.size()

    eager, other, _ = both(f, Queue, polyop.ones(2), calls=5)
    assert [t.tolist() for t in other.items] == [t.tolist() for t in eager.items]


def test_guard_fn() -> None:
    """S183: `guard_fn` says what of an object programs rely on, and nothing else counts."""

    class Knob:
        def __init__(self, turns: int, colour: str) -> None:
            self.turns, self.colour = turns, colour

    members = {"turns": polyop.library.MemberType.USE_REAL}
    register_opaque_type(Knob, typ="reference", guard_fn=lambda k: [k.turns], members=members)
    compiled = polyop.compile(lambda k, x: x * k.turns, fullgraph=True)
    x = polyop.ones(2)
    for turns, colour, count in ((2, "red", 1), (2, "blue", 1), (3, "red", 2), (2, "red", 2)):
        assert compiled(Knob(turns, colour), x).tolist() == [turns, turns]
        assert len(compiled.programs) == count


def test_an_object_that_is_closed_over() -> None:
    """S183: an object from outside is read from where it is; its state is guarded too."""
    queue, log, x = Queue(), Log(), polyop.ones(2)

    @polyop.compile(fullgraph=True)
    def f(x: Any) -> Any:
        note(log, x, "a")
        return x * queue.size()

    for size in range(3):
        assert f(x).tolist() == [size, size]
        queue.push(x)
    assert log.texts == ["a"] * 3
    log = Log()
    f(x)
    assert log.texts == ["a"]


def test_random_streams() -> None:
    """S188: draws of a stream are neither merged nor moved."""

    def f(stream: Any, x: Any) -> Any:
        return [draw(stream, x), draw(stream, x), draw(stream, x)[1]]

    both(f, lambda: Stream(11), polyop.ones(4))


def test_gradients_with_objects_in_backward() -> None:
    """S190: a backward that uses the object does so in its own order, when it runs."""

    def f(log: Any, x: Any, y: Any) -> Any:
        a = note(log, x * y, "a")
        return (note(log, a * x, "b") + y).sum()

    logs = Log(), Log()
    grads = []
    for log, fn in zip(logs, (f, polyop.compile(f, fullgraph=True)), strict=True):
        for _ in range(2):
            x, y = polyop.ones(3).requires_grad_(), polyop.full((3,), 2.0).requires_grad_()
            fn(log, x, y).backward()
            grads.append([x.grad.tolist(), y.grad.tolist()])
    assert grads[:2] == grads[2:]
    assert logs[0].lines == logs[1].lines
    assert logs[0].texts == ["a", "b", "back b", "back a"] * 2


def test_the_same_object_twice() -> None:
    """S183: one object given twice is one object in the program, and two are another program."""

    def f(first: Any, second: Any, x: Any) -> Any:
        push(first, x)
        push(second, x * 2)
        return pop(first), second.size()

    compiled = polyop.compile(f, fullgraph=True)
    x = polyop.ones(2)
    one = Queue()
    assert compiled(one, one, x)[1] == f(one := Queue(), one, x)[1] == 1
    assert compiled(Queue(), Queue(), x)[1] == 1
    assert compiled(Queue([x]), Queue([x, x]), x)[1] == 3


def test_objects_as_results() -> None:
    """S183: an object may be a result: the caller's own, or one that an operator made."""
    compiled = polyop.compile(lambda q, x: (q, make_queue(x), push(q, x)), fullgraph=True)
    queue, x = Queue(), polyop.ones(2)
    same, made, _ = compiled(queue, x)
    assert same is queue
    assert type(made) is Queue
    assert compiled(queue, x)[1] is not made
    assert len(queue.items) == 2


def test_what_cannot_be_traced_runs_as_it_is() -> None:
    """S186: code that looks into an object without fake class is cut, and acts in order."""

    def f(log: Any, x: Any) -> Any:
        y = note(log, x * 2, "a")
        log.lines.append(("by hand", float(len(log.lines))))
        say(x, "said")
        return note(log, y + 1, "b")

    eager, other = Log(), Log()
    compiled = polyop.compile(f)
    for _ in range(3):
        assert f(eager, polyop.ones(2)).tolist() == compiled(other, polyop.ones(2)).tolist()
    assert eager.lines == other.lines
    with pytest.raises(CaptureError, match="cannot be captured as one graph: attribute 'lines'"):
        polyop.compile(f, fullgraph=True)(Log(), polyop.ones(2))


def test_the_state_of_an_outer_object_is_put_back() -> None:
    """S183: a capture whose code changes an object from outside leaves it as it was, and fails."""
    queue, x = Queue(), polyop.ones(2)

    def f(x: Any) -> Any:
        queue.push(x * 2)
        return x + queue.size()

    with pytest.raises(CaptureError, match="changes 'attributes' outside"):
        polyop.compile(f, fullgraph=True)(x)
    assert queue.items == []
    compiled = polyop.compile(f)
    assert [compiled(x).tolist() for _ in range(3)] == [[2, 2], [3, 3], [4, 4]]
    assert [t.tolist() for t in queue.items] == [[2, 2]] * 3


def test_call_object_of_an_outer_object() -> None:
    """S186: in a capture it acts on the fake of the object, and in the program on the object."""
    queue, x = Queue(), polyop.ones(2)

    @polyop.compile(fullgraph=True)
    def f(x: Any) -> Any:
        call_object(queue, "push", x * 2)
        call_object(queue, "push", x * 3)
        return call_object(queue, "pop")

    assert f(x).tolist() == [2, 2]
    assert [t.tolist() for t in queue.items] == [[3, 3]]


def test_functions_that_look_at_data_keep_the_order() -> None:
    """S188, S189: a function that is cut acts on objects in the order in which it is written."""

    def f(queue: Any, log: Any, x: Any) -> Any:
        call_object(queue, "push", x * 2)
        _, noted = with_effects(polyop.zeros(0), note._opoverload, log, x, "a")
        if float(x.sum()) > 0:
            push(queue, x * 3)
            say(x, "more")
        return call_object(queue, "pop") + noted, queue.pop()

    eager, cut = (Queue(), Log()), (Queue(), Log())
    compiled = polyop.compile(f)
    for _ in range(3):
        expected = [t.tolist() for t in f(*eager, polyop.ones(2))]
        assert [t.tolist() for t in compiled(*cut, polyop.ones(2))] == expected
    assert eager[1].lines == cut[1].lines

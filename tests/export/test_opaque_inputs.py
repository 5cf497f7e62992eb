"""Objects with a state in exported programs: each run acts on what it is given (S183 to S188)."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any

import pytest
from tests.export.object_things import Notes, Shelf, Unread, put, take, tell, weigh

import polyop
from polyop import Tensor, errors
from polyop.export import Dim, export, register_backend, to_backend
from polyop.graph.node import label
from polyop.library import MemberType, register_opaque_type
from polyop.objects import call_object

X = polyop.tensor([1.0, 2.0])


def kinds(program: Any) -> list[tuple[str, str]]:
    return [(spec.path, spec.kind) for spec in program.signature.inputs]


def called(program: Any) -> list[str]:
    return [label(n.target) for n in program.graph.nodes if n.op == "call_function"]


def test_an_object_is_an_input_of_a_kind_of_its_own() -> None:
    """S183, S213: a reference is a placeholder, the signature names its class, nothing is kept."""
    notes = Notes()
    program = export(lambda notes, x: tell(notes, x * 2, "a"), (notes, X))
    assert kinds(program) == [("notes", "object"), ("x", "tensor")]
    assert program.signature.inputs[0].value == "tests.export.object_things.Notes"
    assert [n.name for n in program.graph.placeholders] == ["notes", "x"]
    assert program.state == {} and notes.lines == []
    assert "input notes: object tests.export.object_things.Notes" in str(program)
    program.graph.lint(program.graph_module)
    gone = weakref.ref(notes)
    del notes
    assert gone() is None


def test_each_run_acts_on_the_object_that_it_is_given() -> None:
    """S183: no state is baked in: another object of the class is used, in the order of effects."""

    def f(notes: Any, x: Any) -> Any:
        y = tell(notes, x, "a")
        tell(notes, x, "unread")
        tell(notes, x, "unread")
        return tell(notes, y, "b")

    program = export(f, (Notes(), X))
    for _ in range(2):
        for scale in (1.0, 3.0):
            eager, other = Notes(["old"], scale), Notes(["old"], scale)
            assert program.module()(other, X).tolist() == f(eager, X).tolist()
            assert other.lines == eager.lines == ["old", "a", "unread", "unread", "b"]


def test_objects_inside_containers_and_by_name() -> None:
    """S183, S213: an object may be any leaf of the arguments, and the same one a result."""

    def f(parts: Any, *, extra: Any) -> Any:
        put(parts["shelf"], "x", extra["x"] + 1)
        return parts["shelf"], take(parts["shelf"], "x"), [extra["notes"]]

    make = lambda: ({"shelf": Shelf(), "n": 3}, Notes())  # noqa: E731
    parts, notes = make()
    program = export(f, (parts,), {"extra": {"x": X, "notes": notes}})
    assert ("parts['shelf']", "object") in kinds(program)
    parts, notes = make()
    shelf, taken, (back,) = program.module()(parts, extra={"x": X, "notes": notes})
    assert shelf is parts["shelf"] and back is notes and taken.tolist() == [2, 3]


def test_another_class_is_refused() -> None:
    """S183: a call with another class names both, and changes nothing."""
    program = export(lambda notes, x: tell(notes, x, "a"), (Notes(), X)).module()
    for wrong in (Shelf(), 3, X, Notes):
        with pytest.raises(errors.CaptureError, match="notes must be an object of .*Notes") as got:
            program(wrong, X)
        assert got.value.declared == "tests.export.object_things.Notes"
        assert type(wrong).__name__ in got.value.seen
    heir = Unread()
    program(heir, X)
    assert heir.lines == ["a"]
    with pytest.raises(errors.CaptureError, match="x must be a tensor"):
        program(quiet := Notes(), 3)
    assert quiet.lines == []


def test_methods_are_calls_of_the_program() -> None:
    """S186: methods of the fake class, `call_object` and operators keep their order."""

    def f(shelf: Any, x: Any) -> Any:
        shelf.put("a", x * 2)
        put(shelf, "b", shelf.take("a") + 1)
        call_object(shelf, "put", "a", x * 5)
        return take(shelf, "b"), shelf.take("a")

    program = export(f, (Shelf(), X))
    assert called(program).count("higher_order.call_object") == 4
    eager, other = Shelf({"old": X}), Shelf({"old": X})
    expected = [t.tolist() for t in f(eager, X)]
    assert [t.tolist() for t in program.module()(other, X)] == expected
    assert {k: v.tolist() for k, v in other.items.items()} == {
        k: v.tolist() for k, v in eager.items.items()
    }
    assert f"{program.graph_module(Shelf(), X)}"


def test_a_type_without_fake_class() -> None:
    """S185: operators take its objects; what only a fake class can answer is an ObjectError."""
    assert export(lambda n, x: tell(n, x, "a"), (Notes(), X))
    with pytest.raises(errors.ObjectError, match="'lines' of a .*Notes is used in a trace, and"):
        export(lambda n, x: x * len(n.lines), (Notes(), X))
    with pytest.raises(errors.ObjectError, match="has no attribute 'owner'"):
        export(lambda s, x: x if s.owner else -x, (Shelf(), X))


# -- what a program relies on -------------------------------------------------


def test_an_answer_that_code_went_on_with_is_asked_again() -> None:
    """S183, S213: a number out of an object is a fact; with another one the program stops."""
    f = lambda s, x: x * s.how_many() if s.how_many() > 1 else x - 1  # noqa: E731
    program = export(f, (Shelf(count=2), X))
    assert "how_many() is 2" in program.assertions
    assert program.module()(Shelf(count=2), X).tolist() == [2, 4]
    for count in (0, 3):
        with pytest.raises(errors.CaptureError, match=r"another state: how_many\(\)") as got:
            program.module()(Shelf(count=count), X)
        assert (got.value.declared, got.value.seen) == ("2", str(count))


def test_an_attribute_that_was_read_is_a_fact() -> None:
    """S184, S213: members read on the real object, and attributes of fakes, are checked."""
    program = export(lambda n, s, x: x * n.scale + s.count, (Notes(scale=2.0), Shelf(), X))
    assert program.module()(Notes(["other"], 2.0), Shelf({"y": X}), X).tolist() == [2, 4]
    with pytest.raises(errors.CaptureError, match="another state: scale of a .*Notes"):
        program.module()(Notes(scale=3.0), Shelf(), X)
    with pytest.raises(errors.CaptureError, match="another state: count of a .*Shelf"):
        program.module()(Notes(scale=2.0), Shelf(count=1), X)
    later = export(lambda s, x: (s.put("a", x), x * s.count)[1], (Shelf(), X))
    assert later.module()(Shelf(), X).tolist() == [1, 2]
    with pytest.raises(errors.CaptureError, match="another state: count"):
        later.module()(Shelf(count=1), X)


def test_tensors_out_of_objects_are_what_the_graph_knows() -> None:
    """S187, S213: a tensor of another size or dtype out of an object stops the program."""

    def f(s: Any, x: Any) -> Any:
        y = take(s, "y")
        return x.sum() + y / y.shape[0]

    program = export(f, (Shelf({"y": X}), polyop.ones(3)), dynamic_shapes=(None, {0: Dim("n")}))
    y = polyop.tensor([5.0, 7.0])
    assert program.module()(Shelf({"y": y}), polyop.ones(4)).tolist() == [6.5, 7.5]
    for other in (polyop.ones(3), polyop.ones(2, dtype=polyop.int64)):
        with pytest.raises(errors.CaptureError, match="another state: t_export_objects.take"):
            program.module()(Shelf({"y": other}), polyop.ones(4))


def test_sizes_that_change_come_back_out_of_objects() -> None:
    """S213: what is put in with a dynamic size is taken out with it."""

    def f(s: Any, x: Any) -> Any:
        s.put("x", x[1:])
        return s.take("x") / x.shape[0]

    program = export(f, (Shelf(), polyop.ones(3)), dynamic_shapes=(None, {0: Dim("n")}))
    for n in (2, 5):
        assert (
            program.module()(Shelf(), polyop.ones(n)).tolist()
            == f(Shelf(), polyop.ones(n)).tolist()
        )


def test_facts_inside_branches() -> None:
    """S180, S213: what a branch asks of an object is asked again when the branch runs."""

    def f(s: Any, x: Any) -> Any:
        return polyop.cond(x.sum() > 0, lambda x: x * s.how_many() + s.count, lambda x: x * 9, (x,))

    program = export(f, (Shelf(count=2), X))
    assert program.module()(Shelf(count=2), X).tolist() == [4, 6]
    with pytest.raises(errors.CaptureError, match="another state"):
        program.module()(Shelf(count=4), X)
    assert program.module()(Shelf(count=4), -X).tolist() == [-9, -18]


def test_tensors_that_no_call_gave_are_refused() -> None:
    """S186, S213: a tensor read out of the state would be a constant of nobody's."""
    with pytest.raises(errors.CaptureError, match="out of the state of an object"):
        export(lambda s, x: s.items["y"] + x, (Shelf({"y": X}), X))


def test_objects_inside_objects_are_read_by_each_run() -> None:
    """S183, S184: an object out of an attribute is that of the run's object, and acts in order."""

    def f(shelf: Any, x: Any) -> Any:
        shelf.other.put("x", x)
        y = tell(shelf.other.other, x, "inner")
        return shelf.other.take("x") + y

    def make(scale: float = 1.0) -> Shelf:
        return Shelf(other=Shelf(other=Notes(scale=scale)))

    program = export(f, (make(), X))
    for one in (program, program.run_decompositions({})):
        eager, other = make(3.0), make(3.0)
        assert one.module()(other, X).tolist() == f(eager, X).tolist() == [4, 8]
        assert other.other.items["x"].tolist() == [1, 2]
        assert other.other.other.lines == ["inner"]
        with pytest.raises(errors.CaptureError, match="another state: other of a .*Shelf"):
            one.module()(Shelf(other=3), X)
    assert program.state == {}


# -- objects from outside -----------------------------------------------------


class Model:
    def __init__(self) -> None:
        self.shelf = Shelf({"w": X * 10})
        self.notes = [Notes(scale=2.0)]

    def __call__(self, x: Any) -> Any:
        return self.act(x)

    def act(self, x: Any) -> Any:
        self.shelf.put("x", x + 1)
        y = tell(self.notes[0], x, "called")
        return self.shelf.take("x") * y + self.shelf.take("w")


def test_objects_of_a_model_are_constants_under_their_names() -> None:
    """S183, S213: a captured object is a constant; the export does not act on it, a run does."""
    for f in ((model := Model()), (other := Model()).act, partial((third := Model()).act)):
        owner = {id(model): model}.get(id(f)) or (other if f == other.act else third)
        program = export(f, (X,))
        assert program.signature.constants == ("shelf", "notes._0")
        assert program.state["shelf"] is owner.shelf and "x" not in owner.shelf.items
        assert type(owner.shelf) is Shelf and owner.notes[0].lines == []
        assert program.module()(X).tolist() == Model()(X).tolist()
        assert owner.shelf.items["x"].tolist() == [2, 3]
        assert owner.notes[0].lines == ["called"]


OUTSIDE = Shelf()


def helper(x: Any) -> Any:
    OUTSIDE.put("x", x * 3)
    return OUTSIDE.take("x")


def test_objects_of_globals_closures_and_helpers() -> None:
    """S183: wherever the function finds an object, the program has its calls, in order."""
    inside = Shelf()

    def f(x: Any, notes: Any) -> Any:
        inside.put("y", helper(x))
        return tell(notes, inside.take("y"), "bound")

    bound = Notes(scale=2.0)
    program = export(partial(f, notes=bound), (X,))
    assert OUTSIDE.items == inside.items == {} and bound.lines == []
    assert called(program).count("higher_order.call_object") == 4
    assert program.module()(X).tolist() == [6, 12]
    assert inside.items["y"].tolist() == OUTSIDE.items["x"].tolist() == [3, 6]
    assert bound.lines == ["bound"]
    OUTSIDE.items.clear()


def test_a_failed_export_gives_every_object_back() -> None:
    """S186: after an export that fails, names hold their objects, unchanged."""
    model = Model()
    shelf = model.shelf

    def f(x: Any) -> Any:
        model.shelf.put("x", x)
        raise KeyError("no")

    with pytest.raises(KeyError):
        export(f, (X,))
    assert model.shelf is shelf and list(shelf.items) == ["w"]


def test_an_object_from_outside_and_as_an_argument() -> None:
    """S183: the argument is an input, the other a constant, though they were one at export."""
    shelf = Shelf()

    def f(given: Any, x: Any) -> Any:
        given.put("x", x)
        put(shelf, "own", x * 2)
        return given.take("x")

    program = export(f, (shelf, X))
    program.module()(other := Shelf(), X)
    assert list(other.items) == ["x"] and list(shelf.items) == ["own"]


def test_one_object_as_two_inputs() -> None:
    """S183: objects are told apart by their inputs; one that cannot be is refused."""

    def f(a: Any, b: Any, x: Any) -> Any:
        a.put("x", x)
        b.put("x", x * 2)
        return a.take("x")

    program = export(f, (one := Shelf(), one, X)).module()
    assert program(Shelf(), Shelf(), X).tolist() == [1, 2]
    assert program(two := Shelf(), two, X).tolist() == [2, 4]

    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    register_opaque_type(Locked, typ="reference")
    with (
        pytest.warns(errors.PolyopWarning, match="cannot be copied"),
        pytest.raises(errors.CaptureError, match="two inputs are one object: a and b"),
    ):
        export(lambda a, b, x: x * 2, (locked := Locked(), locked, X))


def test_threads_export_and_run_the_same_objects() -> None:
    """S183: exports at the same time do not meet each other's fakes."""
    model = Model()
    programs: list[Any] = []

    def work() -> None:
        for _ in range(3):
            programs.append(export(model, (X,)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(p) for p in programs}) == 1 and len(programs) == 12
    assert all(p.state["shelf"] is model.shelf for p in programs)
    assert type(model.shelf) is Shelf and list(model.shelf.items) == ["w"]


# -- other kinds, transforms and backends -------------------------------------


def test_an_object_that_wants_to_be_itself() -> None:
    """S186: with `tracing_mode() == "real"` the trace has the object, and a run takes another."""

    class Open:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def tracing_mode(self) -> str:
            return "real"

        def times(self, x: Tensor) -> Tensor:
            return x * self.factor

    register_opaque_type(Open, typ="reference")
    program = export(lambda o, x: call_object(o, "times", x), (Open(2.0), X))
    assert kinds(program)[0] == ("o", "object")
    assert program.module()(Open(5.0), X).tolist() == [5, 10]


def test_hoisted_values_are_inputs_too() -> None:
    """S183: with `hoist=True` one program serves all values."""

    class Factor:
        def __init__(self, n: float) -> None:
            self.n = n

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Factor) and self.n == other.n

        def __hash__(self) -> int:
            return hash(self.n)

        def __fx_repr__(self) -> Any:
            return f"Factor({self.n})", {"Factor": Factor}

    register_opaque_type(Factor, typ="value", hoist=True, members={"n": MemberType.USE_REAL})

    @polyop.custom_op("t_export_objects::times", mutates_args=())
    def times(x: Tensor, factor: Factor) -> Tensor:
        return x * factor.n

    times.register_fake(lambda x, factor: x.new_empty(x.shape))
    program = export(lambda x, factor: times(x, factor), (X, Factor(2.0)))
    assert kinds(program)[1] == ("factor", "object")
    for n in (2.0, 3.0):
        assert program.module()(X, Factor(n)).tolist() == [n, 2 * n]


def test_gradients_with_objects() -> None:
    """S188, S213: a backward that uses the object uses the one of this run."""
    f = lambda notes, x: tell(notes, x * x, "a").sum()  # noqa: E731
    for example in (X.clone(), X.clone().requires_grad_()):
        program = export(f, (Notes(), example)).module()
        eager, other = Notes(scale=3.0), Notes(scale=3.0)
        grads = []
        for fn, notes in ((f, eager), (program, other)):
            x = X.clone().requires_grad_()
            fn(notes, x).backward()
            grads.append(x.grad.tolist())
        assert grads[0] == grads[1] == [6, 12]
        assert other.lines == eager.lines == ["a", "back a"]


def test_objects_do_not_stand_in_the_way_of_gradients() -> None:
    """S213: the runs that look for gradients start with fresh fakes, and change no object."""

    def f(shelf: Any, x: Any) -> Any:
        put(shelf, "seen", x.detach())
        assert shelf.how_many() == 1
        return (x * x).sum() + take(shelf, "seen").sum()

    program = export(f, (Shelf(), X)).module()
    x = X.clone().requires_grad_()
    program(Shelf(), x).backward()
    assert x.grad.tolist() == [2, 4]


def test_a_program_in_another_trace() -> None:
    """S213: a program is exported, traced and compiled as the function that it is."""

    def f(shelf: Any, x: Any) -> Any:
        shelf.put("x", x * 2)
        return take(shelf, "x") + 1

    inner = export(f, (Shelf(), X))
    outer = export(lambda s, x: inner.module()(s, x) * 2, (Shelf(), X))
    assert outer.module()(shelf := Shelf(), X).tolist() == [6, 10]
    assert shelf.items["x"].tolist() == [2, 4]
    compiled = polyop.compile(inner.module(), fullgraph=True)
    assert compiled(shelf := Shelf(), X).tolist() == [3, 5]
    assert list(shelf.items) == ["x"]


def test_decompositions_keep_objects() -> None:
    """S213: a program with decompositions has the same inputs, facts and effects."""
    table = {"core::multiply.Scalar": lambda x, n: x / (1 / n)}
    f = lambda s, n, x: (put(s, "x", x * 2), tell(n, take(s, "x") * s.count, "a"))[1]  # noqa: E731
    program = export(f, (Shelf(), Notes(), X))
    again = program.run_decompositions(table)
    assert "core.multiply.Scalar" not in called(again) and kinds(again) == kinds(program)
    assert again.assertions == program.assertions
    for one in (program, again, again.run_decompositions({})):
        assert one.module()(Shelf(), notes := Notes(scale=4.0), X).tolist() == [8, 16]
        assert notes.lines == ["a"]
        with pytest.raises(errors.CaptureError, match="count"):
            one.module()(Shelf(count=1), Notes(), X)


class Greedy:
    """Takes all that it may, and runs the part's program."""

    backend_id = "t_export_objects_greedy"

    def takes(self, node: Any) -> bool:
        return True

    def lower(self, program: Any, specs: Any) -> bytes:
        return b"?"

    def executor(self, lowered: Any) -> Any:
        return lowered.original


register_backend(Greedy())


def test_effects_stay_outside_delegates() -> None:
    """S188, S216: calls of objects stay in the program, unless they have no effect."""

    def f(notes: Any, x: Any) -> Any:
        return tell(notes, weigh(notes, x.sin()).exp(), "a").cos()

    program = to_backend(export(f, (Notes(), X)), "t_export_objects_greedy")
    assert "t_export_objects.tell" in called(program)
    assert "t_export_objects.weigh" not in called(program)
    parts = [m for m in program.state.values() if hasattr(m, "original_module")]
    assert ["object" in dict(kinds(p.original_module)).values() for p in parts].count(True) == 1
    for scale in (1.0, 2.0):
        eager, other = Notes(scale=scale), Notes(scale=scale)
        assert program.module()(other, X).tolist() == f(eager, X).tolist()
        assert other.lines == ["a"]


def test_constants_stay_one_object_beside_delegates() -> None:
    """S216: a captured object that a part reads is the object that the program acts on."""
    model = Model()

    def f(x: Any) -> Any:
        y = weigh(model.notes[0], x)
        tell(model.notes[0], x, "a")
        return y.sin()

    program = to_backend(export(f, (X,)), "t_export_objects_greedy")
    program.module()(X)
    assert model.notes[0].lines == ["a"]
    model.notes[0].scale = 5.0
    assert program.module()(X).tolist() == (X * 5).sin().tolist()

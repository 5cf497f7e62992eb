"""Saved programs with objects: inputs by class, constants by class and flat form (S214, S215)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.export.object_things import (
    Bare,
    Notes,
    Once,
    Shelf,
    Unread,
    put,
    take,
    tell,
    tell_bare,
    tell_once,
    weigh,
)
from tests.export.test_file import HOSTILE, edited, paths_in
from tests.export.test_opaque_inputs import kinds

import polyop
from polyop import errors
from polyop.export import Dim, export, load, save, to_backend

HERE = Path(__file__).parents[2]
X = polyop.tensor([1.0, 2.0])
SHELF = Shelf({"w": X * 10}, other=Notes(["inner"]))
NOTES = Notes(["old"], 2.0)
THINGS = "tests.export.object_things"


def acts(given: Any, x: Any) -> Any:
    put(given, "x", x + 1)
    y = tell(NOTES, take(given, "x"), "said")
    return y * given.count + take(SHELF, "w")


def saved(f: Any, args: Any, path: Path) -> Any:
    program = export(f, args)
    save(program, path)
    return program


def in_another_process(code: str) -> Any:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)


def test_a_loaded_program_acts_on_what_it_is_given(tmp_path: Path) -> None:
    """S215: input objects are saved by class; the loaded program checks it, and runs on others."""
    path = tmp_path / "p"
    made = saved(acts, (Shelf(), X), path)
    found = load(path)
    assert str(found) == str(made) and kinds(found) == kinds(made)
    for program in (made.module(), found.module()):
        assert program(given := Shelf(), X).tolist() == [14, 26]
        assert given.items["x"].tolist() == [2, 3]
        with pytest.raises(errors.CaptureError, match=r"given must be an object of .*\.Shelf"):
            program(Notes(), X)
        with pytest.raises(errors.CaptureError, match="another state: count"):
            program(Shelf(count=1), X)
    found.graph.lint(found.graph_module)
    assert NOTES.lines[:2] == ["old", "said"]
    NOTES.lines[1:] = []


def test_constants_are_made_of_their_flat_form(tmp_path: Path) -> None:
    """S215: a captured object is saved as data, objects and tensors in it too, and made again."""
    path = tmp_path / "p"
    made = saved(acts, (Shelf(), X), path)
    state = load(path).state
    assert list(state) == list(made.state) == ["NOTES", "SHELF"]
    notes, shelf = state["NOTES"], state["SHELF"]
    assert type(notes) is Notes and notes is not NOTES
    assert (notes.lines, notes.scale) == (["old"], 2.0)
    assert shelf.items["w"].tolist() == [10, 20] and shelf.other.lines == ["inner"]
    content = zipfile.ZipFile(path).read("program.json").decode()
    assert '"object": "tests.export.object_things.Shelf"' in content
    found = load(path)
    found.module()(Shelf(), X)
    assert found.state["NOTES"].lines == ["old", "said"] and NOTES.lines == ["old"]


def test_saving_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """S214: what is read and written again is the same, bit for bit."""
    first, second = tmp_path / "a", tmp_path / "b"
    saved(acts, (Shelf(), X), first)
    save(load(first), second)
    with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
        assert {n: a.read(n) for n in a.namelist()} == {n: b.read(n) for n in b.namelist()}


def test_another_process_loads_and_runs(tmp_path: Path) -> None:
    """S215: the classes and operators are all that a reader needs; the module is named if not."""
    path = tmp_path / "p"
    saved(acts, (Shelf(), X), path)
    run = (
        f"found = polyop.export.load({str(path)!r})\n"
        "given = t.Shelf()\n"
        "print(found.module()(given, polyop.tensor([1.0, 2.0])).tolist())\n"
        "print(given.items['x'].tolist(), found.state['NOTES'].lines)\n"
    )
    ran = in_another_process(f"import polyop, {THINGS} as t\n{run}")
    assert ran.stdout.split("\n")[:2] == ["[14.0, 26.0]", "[2.0, 3.0] ['old', 'said']"], ran.stderr
    ran = in_another_process(f"import polyop\n{run}")
    assert "ProgramFileError" in ran.stderr and f"import {THINGS} first" in ran.stderr


def test_a_class_that_is_not_registered_is_named(tmp_path: Path) -> None:
    """S215: without an operator to say so, the missing class is named with its module."""
    path = tmp_path / "p"
    held = Shelf()
    code = f"import polyop; polyop.export.load({str(path)!r})"
    for f, args in (
        (lambda shelf, x: (shelf, x + 1), (Shelf(), X)),
        (lambda x: (x + 1, held), (X,)),
    ):
        saved(f, args, path)
        ran = in_another_process(code)
        assert f"needs the opaque class {THINGS}.Shelf, which is not registered" in ran.stderr
        assert f"import {THINGS} first" in ran.stderr and str(path) in ran.stderr


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x, held=Bare(): tell_bare(held, x), "Bare has no __obj_flatten__"),
        (lambda x, held=Once(): tell_once(held, x), "Once has no __obj_unflatten__"),
        (lambda x, held=Unread(): tell(held, x, ""), "no file can hold: Unread"),
        (lambda x, held=Shelf(other=Bare()): take(held, "w"), "Bare has no __obj_flatten__"),
        (lambda x, held=Shelf(other={1, 2}): take(held, "w"), "no file can hold: set"),
        (lambda x, held=Notes(["a", b"b", print]): tell(held, x, ""), "no file can hold: builtin"),
    ],
)
def test_what_no_file_can_hold_is_refused_before_one_is_written(
    tmp_path: Path, f: Any, match: str
) -> None:
    """S215: an object without a form, deep down too, is named, and a file from before stays."""
    path = tmp_path / "p"
    path.write_text("before")
    (held,) = f.__defaults__
    if isinstance(held, Shelf):
        held.items["w"] = X
        program = export(lambda x: (held, x + 1), (X,))
    else:
        program = export(lambda x: f(x, held), (X,))
    with pytest.raises(errors.ProgramFileError, match=match):
        save(program, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_input_without_a_form_is_saved_by_its_class(tmp_path: Path) -> None:
    """S215: nothing of an input object is in the file but its class."""
    path = tmp_path / "p"
    saved(lambda shelf, x: tell(shelf.other, x, "a"), (SHELF, X), path)
    assert load(path).module()(Shelf(other=Notes(scale=3.0)), X).tolist() == [3, 6]
    saved(lambda bare, x: tell_bare(bare, x), (Bare(), X), path)
    assert load(path).module()(Bare(), X).tolist() == [2, 4]


def test_objects_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    """S215: a flat form without end is an error, and no recursion."""
    shelf = Shelf()
    shelf.other = Shelf(other=shelf)
    program = export(lambda x: (x + 1, tell(NOTES, x, ""), take(SHELF, "w")), (X,))
    program.graph_module.SHELF = shelf
    with pytest.raises(errors.ProgramFileError, match="holds the object itself"):
        save(program, tmp_path / "p")


def test_one_object_in_many_places_is_one_after_loading(tmp_path: Path) -> None:
    """S215: an object that several attributes or parts hold is one again."""
    path = tmp_path / "p"
    inner = Notes(["inner"])
    one, two = Shelf(other=inner), Shelf(other=inner)

    def f(x: Any) -> Any:
        put(one, "x", weigh(inner, x))
        put(two, "x", tell(inner, x.sin(), "a"))
        return x.cos()

    save(to_backend(export(f, (X,)), "t_export_objects_greedy"), path)
    found = load(path)
    state = {type(v).__name__: v for v in found.state.values()}
    shelves = [v for v in found.state.values() if isinstance(v, Shelf)]
    assert len(shelves) == 2 and shelves[0] is not shelves[1]
    assert shelves[0].other is shelves[1].other is state["Notes"]
    parts = [m.original_module.state for m in found.state.values() if hasattr(m, "payload")]
    assert any(v is state["Notes"] for part in parts for v in part.values())
    found.module()(X)
    assert state["Notes"].lines == ["inner", "a"] and inner.lines == ["inner"]


def test_tensors_that_forms_make_are_each_saved(tmp_path: Path) -> None:
    """S215: a tensor that a flat form makes anew is not taken for another one before it."""

    class Wave:
        def __init__(self, n: float) -> None:
            self.n = n

        def __obj_flatten__(self) -> Any:
            return (("data", polyop.full((3,), self.n)),)

        @classmethod
        def __obj_unflatten__(cls, flat: Any) -> Any:
            return cls(float(dict(flat)["data"][0]))

    polyop.library.register_opaque_type(Wave, typ="reference")
    waves = [Wave(float(n)) for n in range(20)]
    path = tmp_path / "p"
    saved(lambda x: (x + 1, waves), (X,), path)
    _, found = load(path).module()(X)
    assert [wave.n for wave in found] == [float(n) for n in range(20)]


def test_dynamic_sizes_and_facts_survive_the_file(tmp_path: Path) -> None:
    """S214: sizes of what comes out of objects are checked after loading too."""

    def f(shelf: Any, x: Any) -> Any:
        shelf.put("x", x[1:])
        return shelf.take("x") / x.shape[0] + shelf.take("w").sum()

    path = tmp_path / "p"
    args = (Shelf({"w": X}), polyop.ones(3))
    made = export(f, args, dynamic_shapes=(None, {0: Dim("n")}))
    save(made, path)
    found = load(path)
    assert found.assertions == made.assertions
    for n in (2, 5):
        given = (Shelf({"w": X}), polyop.ones(n))
        assert found.module()(*given).tolist() == f(*given).tolist()
    with pytest.raises(errors.CaptureError, match=r"another state: take\(\)"):
        found.module()(Shelf({"w": polyop.ones(3)}), polyop.ones(3))


def test_a_loaded_program_is_not_traced_without_its_objects(tmp_path: Path) -> None:
    """S213: new decompositions of a loaded program want the state, which no file keeps."""
    path = tmp_path / "p"
    saved(acts, (Shelf(), X), path)
    with pytest.raises(errors.CaptureError, match="keeps of given only the class"):
        load(path).run_decompositions({})
    again = export(load(path).module(), (Shelf(), X))
    assert again.module()(Shelf(), X).tolist() == [14, 26]
    lowered = to_backend(load(path), "t_export_objects_greedy")
    assert lowered.module()(Shelf(), X).tolist() == [14, 26]


# -- files that do not fit ----------------------------------------------------

MODE = "tests.export.things.Mode"
FORM = '"object": "' + THINGS + "."


@pytest.mark.parametrize(
    ("replace", "match"),
    [
        ((f"{FORM}Shelf", f"{FORM}Notes"), "takes no object of the form"),
        ((f"{FORM}Notes", f"{FORM}Shelf"), "takes no object of the form"),
        ((f"{FORM}Shelf", f"{FORM}Missing"), "Missing, which is not registered"),
        ((f"{FORM}Shelf", '"object": "os.system'), "os.system, which is not registered"),
        ((f"{FORM}Shelf", '"object": "subprocess.Popen'), "Popen, which is not registered"),
        ((f"{FORM}Shelf", f'"object": "{MODE}'), "Mode, which is not registered"),
        ((f"{FORM}Shelf", '"object": "this.Anything'), "this.Anything, which is not registered"),
        ((f"{FORM}Shelf", f"{FORM}Once"), "Once, which has no __obj_unflatten__"),
        (('"count"', '"amount"'), "takes no object of the form that the file has"),
        (('"reference": 0', '"reference": 99'), "no object of that number"),
        (('"reference": 0', '"reference": -1'), "no object of that number"),
        (("function::assert_state", "function::assert_nothing"), "damaged"),
    ],
)
def test_edited_files_are_refused_by_name(
    tmp_path: Path, replace: tuple[str, str], match: str
) -> None:
    """S214, S215: other classes, numbers and forms in a file are errors that name them."""
    path = tmp_path / "p"
    saved(acts, (Shelf(), X), path)
    edited(path, lambda c: None, replace=replace)
    with pytest.raises(errors.ProgramFileError, match=match) as got:
        load(path)
    assert "this" not in sys.modules
    assert str(path) in str(got.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["program"]["inputs"][0].__setitem__(2, f"{THINGS}.Notes"),
        lambda c: c["program"]["inputs"][0].__setitem__(2, None),
        lambda c: c["program"]["inputs"][0].__setitem__(2, ["x"]),
        lambda c: c["program"]["inputs"][0].__setitem__(1, "tensor"),
        lambda c: c["program"]["inputs"][0].__setitem__(1, "size"),
        lambda c: c["program"]["inputs"][0].__setitem__(1, "thing"),
        lambda c: c["program"]["inputs"][1].__setitem__(1, "object"),
        lambda c: c["objects"].clear(),
        lambda c: c["objects"].reverse(),
        lambda c: c["objects"][0].pop("flat"),
        lambda c: c["objects"][0].update(flat=7),
        lambda c: c["objects"][0].update(object=["x"]),
        lambda c: c.update(objects=3),
        lambda c: c.update(objects=[None]),
    ],
)
def test_edited_inputs_and_objects_are_refused(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    """S214: what does not fit together in a file is refused when it is read."""
    path = tmp_path / "p"
    saved(acts, (Shelf(), X), path)
    edited(path, change)
    with pytest.raises(errors.ProgramFileError) as got:
        load(path)
    assert str(path) in str(got.value)


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_hostile_forms_are_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    """S214, S215: whatever stands for objects in a file gives a program or ProgramFileError."""
    path = tmp_path / "p"
    saved(acts, (Shelf(), X), path)
    value = data.draw(st.sampled_from([*HOSTILE, {"reference": 1}, {"object": "x", "flat": []}]))

    def change(content: Any) -> None:
        places = [("objects", *way) for way in paths_in(content["objects"])]
        places += [("program", "inputs", *way) for way in paths_in(content["program"]["inputs"])]
        *way, last = data.draw(st.sampled_from(places))
        for step in way:
            content = content[step]
        content[last] = value

    edited(path, change)
    try:
        load(path)
    except errors.ProgramFileError as error:
        assert str(path) in str(error)


def test_the_file_is_in_the_text_of_the_error(tmp_path: Path) -> None:
    """S214: an error of loading says which file it was, whatever is wrong with it."""
    path = tmp_path / "somewhere.polyop"
    with polyop.scoped_library("t_export_place", "DEF") as lib:
        lib.define("twice(Tensor x) -> Tensor")
        lib.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        polyop.library.register_fake("t_export_place::twice", polyop.empty_like, lib=lib)
        saved(lambda x: polyop.ops.t_export_place.twice(x), (X,), path)
    with pytest.raises(errors.ProgramFileError, match="which is not defined") as got:
        load(path)
    assert f"where:    {path}" in str(got.value) and got.value.source == str(path)
    with polyop.scoped_library("t_export_place", "DEF") as lib:
        lib.define("twice(Tensor x, int n=2) -> Tensor")
        with pytest.raises(errors.ProgramFileError, match="another schema") as got:
            load(path)
        assert f"the file {path}" in str(got.value) and __file__ in str(got.value)
    path.write_bytes(b"no program")
    with pytest.raises(errors.ProgramFileError) as got:
        load(path)
    assert f"where:    {path}" in str(got.value)

"""Saved programs are data: equal when read, refused when damaged; nothing of them runs (S214)."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.export.things import (
    Formless,
    Mode,
    Pair,
    Scale,
    Weights,
    dense,
    formless,
    parted,
    press,
    scaled,
)

import polyop
from polyop import Tensor, errors
from polyop.export import Dim, export, load, save, to_backend

HERE = Path(__file__).parents[2]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32"))


WEIGHT = rand(4, 3, seed=3).requires_grad_()
TABLE = polyop.tensor([1.5, 2.5], dtype=polyop.bfloat16)
ODD = [0.1, float("inf"), float("-inf"), -0.0, float("nan")]


def wanted(x: Tensor) -> Any:
    rows = polyop.argwhere(x[:, 0] > 0)
    polyop.check(rows.shape[0] < 100)
    return {
        "z": [x @ WEIGHT, TABLE * 2],
        "a": Pair(x[1:, ::2], x.clip(None, float("inf"))),
        "n": (x.shape[0] * 3 + 1, rows, None, True, "text", *ODD),
        "c": polyop.zeros((2, x.shape[0]), dtype=polyop.int16),
        "w": polyop.where(x > 0, 1 + 2j, x),
    }


def program() -> Any:
    return export(wanted, (rand(5, 4),), dynamic_shapes=({0: Dim("n", max=50)},))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        x, y = a.detach().numpy(), b.detach().numpy()
        return x.dtype == y.dtype and np.array_equal(x, y) and a.requires_grad == b.requires_grad
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and repr(a) == repr(b)


def test_a_loaded_program_is_the_saved_one(tmp_path: Path) -> None:
    """S214: text, results, ranges, parameters and gradients of a program survive the file."""
    path = tmp_path / "p.polyop"
    made = program()
    save(made, path)
    found = load(path)
    assert str(found) == str(made)
    for n in (2, 7):
        assert same(found.module()(rand(n, 4)), wanted(rand(n, 4)))
    assert found.ranges == made.ranges and found.assertions == made.assertions
    with pytest.raises(errors.CaptureError, match="2 <= n <= 50"):
        found.module()(rand(51, 4))
    (loss := found.module()(rand(3, 4))["z"][0].sum()).backward()
    assert loss.requires_grad and found.module().parameters()[0].grad is not None


def test_saving_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """S214: a file is stable: what is read and written again is the same, bit for bit."""
    first, second = tmp_path / "a", tmp_path / "b"
    save(program(), first)
    save(load(first), second)
    with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
        assert {n: a.read(n) for n in a.namelist()} == {n: b.read(n) for n in b.namelist()}


def test_constraints_survive_the_file(tmp_path: Path) -> None:
    """S214: what an AUTO size relies on is checked after loading too."""
    f = lambda x: x.reshape(2, -1) if x.shape[0] % 2 == 0 else x  # noqa: E731
    path = tmp_path / "p"
    save(export(f, (rand(6),), dynamic_shapes=({0: Dim.AUTO},)), path)
    assert load(path).module()(rand(8)).shape == (2, 4)
    with pytest.raises(errors.CaptureError, match="does not hold"):
        load(path).module()(rand(7))


def test_enums_and_objects_have_their_own_form(tmp_path: Path) -> None:
    """S215: an Enum is saved by member name, an object by class name and flat form."""
    path = tmp_path / "p"
    f = lambda x: scaled(press(x, Mode.HARD), Scale(2.5))  # noqa: E731
    save(export(f, (rand(3),)), path)
    text = zipfile.ZipFile(path).read("program.json").decode()
    assert '"HARD"' in text and '"factor"' in text
    assert same(load(path).module()(rand(3)), f(rand(3)))
    edited(path, lambda c: None, replace=('"HARD"', '"HARDEST"'))
    with pytest.raises(errors.ProgramFileError, match=r"no member 'HARDEST'; did you mean 'HARD'"):
        load(path)


@pytest.mark.parametrize("bias", [True, False])
def test_a_record_of_computed_tensors(bias: bool, tmp_path: Path) -> None:
    """S214: it is made anew at each run, of a class that is imported already."""

    def run(x: Tensor) -> Tensor:
        return dense(x, Weights(x.mT * 2.0, x[:, 0] if bias else None, 0.5))

    path = tmp_path / "p"
    save(export(run, (rand(3, 3),)), path)
    x = rand(3, 3, seed=1)
    np.testing.assert_allclose(load(path).module()(x).numpy(), run(x).numpy(), rtol=1e-6)
    edited(path, lambda c: None, replace=("things:Weights", "things:press"))
    with pytest.raises(errors.ProgramFileError, match="record of the class press, which is not"):
        load(path)


def test_a_record_that_an_operator_gives(tmp_path: Path) -> None:
    """S8, S214: its fields are read by name; a file reads nothing else of it."""

    def run(x: Tensor) -> Any:
        first, second = parted(x, 2.0), parted(x + 1, 3.0)
        return first.matrix * second.matrix, first.bias, dense(x, second)

    path, x = tmp_path / "p", rand(3, 3, seed=1)
    made = export(run, (rand(3, 3),))
    save(made, path)
    assert str(load(path)) == str(made)
    assert same(load(path).module()(x), run(x))
    save(load(path), path)
    for name in ("__class__", "__init__", "other"):
        edited(path, lambda c: None, replace=('"matrix"', f'"{name}"'))
        with pytest.raises(errors.UsageTypeError, match=f"Weights has no field '{name}'"):
            load(path).module()(x)
        edited(path, lambda c: None, replace=(f'"{name}"', '"matrix"'))


def test_an_object_without_a_form_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    """S215: nothing is written of a program that no file can hold, and what was there stays."""
    path = tmp_path / "p"
    path.write_text("before")
    made = export(lambda x: formless(x, Formless(2.0)) + 1, (rand(3),))
    with pytest.raises(errors.ProgramFileError, match="no file can hold"):
        save(made, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


# -- files that do not fit ----------------------------------------------------


def edited(
    path: Path, change: Callable[[Any], Any], replace: tuple[str, str] | None = None
) -> None:
    """Write a program's file again with its JSON changed."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    text = parts["program.json"].decode()
    if replace is not None:
        assert replace[0] in text
        text = text.replace(*replace)
    content = json.loads(text)
    change(content)
    parts["program.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    """S214: a file of another format version says which, and which one is known."""
    path = tmp_path / "p"
    save(export(lambda x: x + 1, (rand(3),)), path)
    edited(path, lambda c: c.update(version=99))
    with pytest.raises(errors.ProgramFileError) as caught:
        load(path)
    assert "99" in caught.value.seen and str(path) == caught.value.source


def test_a_missing_operator_names_the_module_to_import(tmp_path: Path) -> None:
    """S214: an operator that is not defined is named, with the module that defined it."""
    path = tmp_path / "p"
    save(export(lambda x: press(x, Mode.SOFT), (rand(3),)), path)
    code = f"import polyop; polyop.export.load({str(path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert "ProgramFileError" in ran.stderr and "test_file::press" in ran.stderr
    assert "import tests.export.things first" in ran.stderr
    code = f"import polyop, tests.export.things; print(polyop.export.load({str(path)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert "test_file.press" in ran.stdout, ran.stderr


def test_another_schema_or_version_is_refused(tmp_path: Path) -> None:
    """S214: a program meets the operator that it was made with, or none."""
    path = tmp_path / "p"
    with polyop.scoped_library("test_schema", "DEF") as lib:
        lib.define("twice(Tensor x) -> Tensor")
        polyop.library.impl(
            "test_schema::twice", "CompositeExplicitAutograd", lambda x: x * 2, lib=lib
        )
        polyop.library.register_fake("test_schema::twice", polyop.empty_like, lib=lib)
        save(export(lambda x: polyop.ops.test_schema.twice(x), (rand(3),)), path)
        assert load(path)
    with pytest.raises(errors.ProgramFileError, match="test_schema::twice, which is not defined"):
        load(path)
    with polyop.scoped_library("test_schema", "DEF") as lib:
        lib.define("twice(Tensor x, int n=2) -> Tensor")
        with pytest.raises(errors.ProgramFileError) as caught:
            load(path)
        assert "int n=2" in caught.value.seen and "int n" not in caught.value.declared
    with polyop.scoped_library("test_schema", "DEF") as lib:
        lib.define("twice@2(Tensor x) -> Tensor")
        with pytest.raises(errors.ProgramFileError, match="there is test_schema::twice@2"):
            load(path)


FILE: list[bytes] = []


def whole_file(tmp: Path) -> bytes:
    if not FILE:
        save(program(), tmp / "whole")
        FILE.append((tmp / "whole").read_bytes())
    return FILE[0]


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_refused_and_nothing_else_happens(
    tmp_path: Path, data: st.DataObject
) -> None:
    """S214: bytes changed or cut off give ProgramFileError, or a program that is the same."""
    good = whole_file(tmp_path)
    at = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut"]))
    bad = good[:at] if kind == "cut" else good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]
    path = tmp_path / "bad"
    path.write_bytes(bad)
    try:
        found = load(path)
    except errors.ProgramFileError as error:
        assert error.fix
    else:  # a byte that no reader looks at, such as a date
        assert str(found) == str(program())


def test_no_bit_of_the_zip_raises_another_error(tmp_path: Path) -> None:
    """S214: what a flipped bit says of the archive itself, such as that it is encrypted."""
    save(export(lambda x: x + 1, (rand(3),)), tmp_path / "whole")
    good, path = (tmp_path / "whole").read_bytes(), tmp_path / "bad"
    ends = [*range(40), *range(good.rindex(b"PK\x01\x02"), len(good))]
    for at in ends:
        for bit in range(8):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
            try:
                load(path)
            except errors.ProgramFileError as error:
                assert error.fix


def paths_in(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in items:
        found.append((*at, key))
        if isinstance(value, (dict, list)):
            found += paths_in(value, (*at, key))
    return found


HOSTILE: list[Any] = [None, -1, 10**30, "x", [], {}, {"node": 10**9}, ["pow", 2, 3], [[[[]]]], True]


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_hostile_json_is_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    """S214: whatever stands in the JSON, reading it gives a program or ProgramFileError."""
    path = tmp_path / "bad"
    path.write_bytes(whole_file(tmp_path))
    value = data.draw(st.sampled_from(HOSTILE))

    def change(content: Any) -> None:
        *way, last = data.draw(st.sampled_from(paths_in(content)))
        for step in way:
            content = content[step]
        content[last] = value

    edited(path, change)
    try:
        load(path)
    except errors.ProgramFileError as error:
        assert error.problem


def test_names_in_a_file_reach_nothing_but_tables(tmp_path: Path) -> None:
    """S214: a file names operators and records; no import and no Python function is reached."""
    path = tmp_path / "p"
    save(export(lambda x: Pair(x + 1, x), (rand(3),)), path)
    clean = path.read_bytes()
    for change in (
        ("core::add.Scalar", "function::system"),
        ("core::add.Scalar", "os::system"),
        ("tests.export.things:Pair", "os:system"),
        ("tests.export.things:Pair", "subprocess:Popen"),
        ("tests.export.things:Pair", "this:anything"),
        ('"call_function"', '"call_method"'),
        ('"call_function"', '"call_module"'),
    ):
        path.write_bytes(clean)
        edited(path, lambda c: None, replace=change)
        with pytest.raises(errors.ProgramFileError):
            load(path)
    assert "this" not in sys.modules


def test_lowered_programs_are_saved_with_their_parts(tmp_path: Path) -> None:
    """S214: a lowered program runs from its file, parts and all; a gradient is there too."""
    path = tmp_path / "p"
    x = rand(3, 4).requires_grad_()
    f = lambda x: (x @ WEIGHT).exp().sum(axis=1)  # noqa: E731
    made = to_backend(export(f, (x,), dynamic_shapes=({0: Dim("n")},)), "onnx")
    save(made, path)
    found = load(path)
    assert str(found) == str(made)
    assert polyop.allclose(found.module()(x), f(x), rtol=1e-5)
    wanted_grad = polyop.autograd.grad([f(x).sum()], [x])[0]
    assert polyop.allclose(
        polyop.autograd.grad([found.module()(x).sum()], [x])[0], wanted_grad, rtol=1e-4
    )


def test_only_programs_are_saved_and_only_files_are_loaded(tmp_path: Path) -> None:
    """S214: save takes a Program; a path without a file stays Python's own error."""
    with pytest.raises(errors.ProgramFileError, match="takes a Program"):
        save(lambda x: x, tmp_path / "p")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    graph = export(lambda x: x + 1, (rand(3),))
    node = next(n for n in graph.graph.nodes if n.op == "call_function")
    node.target = print
    with pytest.raises(errors.ProgramFileError, match="no operator"):
        save(graph, tmp_path / "p")

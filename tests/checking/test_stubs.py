"""Stubs say to type checkers what schemas say, and the modules beside them run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyop
from polyop.checking.stubs import stub
from polyop.cli import main
from polyop.errors import UsageError
from polyop.library import Library, scoped_library

ROOT = Path(__file__).parent.parent.parent
OPERATORS = '''
from collections.abc import Sequence
from typing import Literal

import polyop
from polyop import Tensor


@polyop.custom_op("stubbed::crop", mutates_args=())
def crop(pic: Tensor, box: Sequence[int], mode: Literal["a", "b"] = "a") -> Tensor:
    """Cut a box out; it says "all"."""
    return pic.clone()


@polyop.custom_op("stubbed::many", mutates_args={"out"})
def many(
    xs: Sequence[Tensor], w: Tensor | None, out: Tensor, *, k: float = 2.0,
    dtype: polyop.dtype | None = None,
) -> tuple[Tensor, list[Tensor]]:
    return xs[0].clone(), [xs[0].clone()]


lib = polyop.library.Library("stubbed", "FRAGMENT")
lib.define("add.Scalar(Tensor x, Scalar y) -> Tensor")
lib.define("add.Tensor(Tensor x, Tensor y) -> Tensor")
lib.define("make(int n, Device device) -> Tensor")
'''
RIGHT = """
from typing import Any

import numpy as np
import polyop
from typed.stubbed import add, crop, make, many

x: polyop.Tensor = polyop.ones(2)
a: polyop.Tensor = crop(x, [1, 2])
b: polyop.Tensor = crop(x, box=(1, 2), mode="b")
c: tuple[polyop.Tensor, list[polyop.Tensor]] = many([x], None, x, k=1, dtype="float32")
d: polyop.Tensor = add(x, 2)
e: polyop.Tensor = add(x, x)
f: polyop.Tensor = make(3, "cpu")
g: Any = crop(np.ones(2), [1])
h: str = crop.default.name()
i: str = crop.__name__
"""
WRONG = {
    "crop(3, [1, 2])": "call-overload",
    'crop(x, "ab")': "call-overload",
    "crop(x)": "call-overload",
    'crop(x, [1], mode="c")': "call-overload",
    "many([x], None, x, 1.0)": "call-overload",
    "add(x, None)": "call-overload",
    "make(x, 'cpu')": "arg-type",
    "crop(x, [1], size=2)": "call-overload",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stubs")
    (made / "stub_operators.py").write_text(OPERATORS)
    (made / "typed").mkdir()
    (made / "typed" / "__init__.py").write_text("")
    command = [sys.executable, "-m", "polyop.cli", "stubs", "stub_operators", "--output", "typed"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["typed/stubbed.pyi", "typed/stubbed.py"]
    return made


def test_type_checkers_take_the_stubs(folder: Path) -> None:
    """S58: mypy --strict takes stub and module, right calls have their types, wrong ones fail."""
    lines = [f"{call}  # wrong {i}" for i, call in enumerate(WRONG)]
    head = RIGHT.strip().splitlines()
    (folder / "program.py").write_text("\n".join([*head, *lines]) + "\n")
    files = [folder / "program.py", folder / "typed" / "stubbed.pyi"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *files],
        cwd=ROOT,  # its cache holds for the paths that are seen from here
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.partition("program.py")[2] for line in done.stdout.splitlines()]
    found = [line for line in found if ": error:" in line]
    assert "stubbed.pyi" not in done.stdout, done.stdout
    said = {int(line.split(":")[1]): line for line in found}
    assert list(said) == [len(head) + 1 + i for i in range(len(WRONG))], done.stdout + done.stderr
    for line, kind in zip(said.values(), WRONG.values(), strict=True):
        assert line.endswith((f"[{kind}]", "[arg-type]")), line


def test_the_module_gives_the_operators(folder: Path) -> None:
    """S58: the module beside a stub imports what defines the operators, and hands them on."""
    program = (
        "from typed.stubbed import crop\nimport polyop, typed.stubbed\n"
        "assert crop is polyop.ops.stubbed.crop\n"
        "print(crop(polyop.ones(1), [1]).tolist(), hasattr(typed.stubbed, 'nothing'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[1.0] False", done.stderr


def test_docstrings_come_along(folder: Path) -> None:
    """S45: an editor shows the first line of the operator's docstring."""
    assert (
        '    """Cut a box out; it says "all"."""' in (folder / "typed" / "stubbed.pyi").read_text()
    )


def test_files_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S4: a file that is there and was not written by the command is not overwritten."""
    path = tmp_path / "stub_twice.py"
    path.write_text(OPERATORS.replace("stubbed", "stub_twice").replace("lib.define", "str"))
    out = ["--output", str(tmp_path)]
    assert main(["stubs", str(path), *out]) == 2  # the namespace's module would be this file
    assert "was not written by polyop stubs" in capsys.readouterr().err
    assert not (tmp_path / "stub_twice.pyi").exists()
    out = ["--output", str(tmp_path / "new" / "folder")]
    for _ in range(2):
        assert main(["stubs", str(path), *out]) == 0
    assert (tmp_path / "new" / "folder" / "stub_twice.pyi").exists()


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("stub_names", "FRAGMENT") as made:
        yield made


def test_names_and_types_that_python_has_another_word_for(lib: Library) -> None:
    """S58: keywords as arguments, dicts, unions and twins are written as Python can say them."""
    lib.define("f(Tensor from, Dict(str, Tensor) d, Tensor?[] xs, int[2] size) -> (Tensor, int)")
    lib.define("w_(Tensor(a!) x) -> ()")
    assert polyop.ops.stub_names.w_.default.functional is not None
    text = stub("stub_names")
    assert "from_: polyop.Tensor, d: Mapping[str, polyop.Tensor]" in text
    assert "xs: Sequence[polyop.Tensor | None], size: Sequence[int] | int" in text
    assert "-> tuple[polyop.Tensor, int]: ..." in text and "functional" not in text
    lib.define("class(Tensor x) -> Tensor")
    with pytest.raises(UsageError, match="stub_names::class is no name of Python"):
        stub("stub_names")

"""What the command says of files that cannot be loaded, and of operators that end the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyop.cli import main

OPERATOR = """
import sys
import numpy as np
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

class Speechless(Exception):
    def __str__(self):
        raise TypeError

@custom_op("{name}", mutates_args=())
def op(x: Tensor) -> Tensor:
    {body}
    return of_array(x.numpy() * 2)

op.register_fake(lambda x: x.new_empty(x.shape))
op.samples([(np.ones(3),)])
"""


def write(folder: Path, name: str, *, body: str = "pass", more: str = "") -> str:
    path = folder / f"{name}.py"
    path.write_text(OPERATOR.format(name=f"loading::{name}", body=body) + more)
    return str(path)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("exits", "sys.exit(0)", "exits.py ends the program while it is loaded"),
        ("raises", "raise ValueError('boom')", "ValueError: boom"),
        ("misses", "import not_there_at_all", "No module named 'not_there_at_all'"),
        ("misspelt", "def f(:", "SyntaxError"),
    ],
)
@pytest.mark.parametrize("command", [["check"], ["list", "--load"]])
def test_a_file_that_does_not_load_is_a_misuse(
    command: list[str], name: str, more: str, said: str,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """S207: nothing was checked, so the status is 2; what happened and where is said."""
    file = write(tmp_path, f"{name}_{command[0]}".removesuffix("_check"), more=more)
    said = said.replace("exits.py", Path(file).name)
    assert main([*command, file]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert f"{Path(file).name}:{len(Path(file).read_text().splitlines())}" in told


def test_a_module_that_is_there_is_not_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S207: what a module fails to import is named, not the module."""
    write(tmp_path, "lacking_module", more="import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "lacking_module"]) == 2
    told = capsys.readouterr().err
    assert "lacking_module cannot be loaded" in told
    assert "there is no module" not in told


def test_no_python_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S207: a file of another kind is refused by name."""
    (tmp_path / "notes.md").write_text("words")
    assert main(["check", str(tmp_path / "notes.md")]) == 2
    assert "notes.md is no Python file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("leaves", "sys.exit(0)", "raised SystemExit: 0"),
        (
            "speechless",
            "raise Speechless",
            "raised Speechless: (its text cannot be made: TypeError)",
        ),
    ],
)
def test_a_kernel_that_raises_anything_is_broken(
    name: str, body: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S207: a kernel that ends the program, or raises what has no text, breaks a law."""
    assert main(["check", write(tmp_path, name, body=body)]) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_report_that_cannot_be_written(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S207: a place that cannot be written is a misuse, told by name."""
    place = str(tmp_path / "nowhere" / "report")
    file = write(tmp_path, f"written_{option.strip('-')}")
    assert main(["check", file, option, place]) == 2
    assert f"the report cannot be written to {place}" in capsys.readouterr().err

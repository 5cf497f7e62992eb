"""The matrix of what operators can do on which library: true, with reasons, and wrong is said."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.checking.capabilities import CAPABILITIES, Matrix, capabilities, matrix_of
from polyop.checking.find import find
from polyop.cli import main
from polyop.errors import UsageError
from polyop.library import Library, scoped_library

BROKEN = Path(__file__).parent.parent / "broken_operators"
RIGHT = str(BROKEN / "right.py")
ALL = "numpy,torch,jax,dask"
#: What says nothing of an operator that is a function of its arguments.
ABSENT = {"mutation", "data-dependent sizes"}


@pytest.fixture(scope="module")
def right() -> Matrix:
    return matrix_of(find(RIGHT), ALL.split(","))


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("capable", "FRAGMENT") as made:
        yield made


def define(lib: Library, name: str = "double") -> Any:
    """Define an operator that doubles, with all its rules."""
    lib.define(f"{name}(Tensor x) -> Tensor")
    op = getattr(polyop.ops.capable, name).default

    def kernel(x: Any) -> Any:
        return polyop.from_numpy(np.asarray(x.numpy() * 2))

    polyop.library.register_kernel(op, None, kernel, lib=lib)
    polyop.library.register_fake(op, lambda x: polyop.empty_like(x), lib=lib)
    polyop.library.register_autograd(op, lambda ctx, g: op(g), lib=lib)
    x = polyop.tensor([[0.5, 1.5], [2.0, 4.0]], dtype=polyop.float64, requires_grad=True)
    polyop.library.register_samples(op, lambda: [[x]], lib=lib)
    return op


def kinds(matrix: Matrix, op: Any, library: str) -> dict[str, str]:
    return {c: matrix.cell(op, library, c).kind for c in CAPABILITIES}


def test_right_operators_do_all_that_they_can(right: Matrix) -> None:
    """S207: every cell of a right operator works on every library, or says nothing of it."""
    assert right.ok, right.faults()
    for library in ("numpy", "torch", "jax"):
        found = kinds(right, "right::scaled", library)
        wanted = {c: "not applicable" if c in ABSENT else "works" for c in CAPABILITIES}
        assert found == wanted, right
    assert kinds(right, "right::scaled", "dask")["compile"] == "not applicable"


def test_writes_are_tried_where_arrays_are_written_and_where_they_never_are(right: Matrix) -> None:
    """S174: an operator that writes does so on NumPy and PyTorch; its twin does on JAX and Dask."""
    for library in ALL.split(","):
        assert right.cell("right::halve_", library, "mutation").kind == "works"
        twin = "functional twin" in right.cell("right::halve_", library, "eager").reason
        assert twin == (library in {"jax", "dask"})
    assert (
        right.cell("right::halve_", "torch", "grad").reason == "the operator writes its arguments"
    )


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("gradient_off_by_factor", "grad"),
        ("fake_wrong_shape", "compile"),
        ("aliases_input", "eager"),
    ],
)
def test_wrong_results_are_found(name: str, capability: str) -> None:
    """S207: what is wrong is called wrong, on PyTorch by PyTorch's own checks, never refused."""
    found = find(str(BROKEN / f"{name}.py"))
    matrix = matrix_of(found, ["numpy", "torch"])
    for library in ("numpy", "torch"):
        cell = matrix.cell(found[0].op, library, capability)
        assert cell.kind == "wrong" and cell.reason and not matrix.ok, matrix


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_library_whose_results_differ_is_wrong(library: str, lib: Library) -> None:
    """S50: results must be NumPy's on each library; a kernel of one that differs is found."""
    op = define(lib)
    polyop.library.register_kernel(op, None, lambda x: x * 2.5, lib=lib, library=library)
    matrix = capabilities(op, on=["numpy", library])
    assert "wrong" not in kinds(matrix, op, "numpy").values()
    cell = matrix.cell(op, library, "eager")
    assert cell.kind == "wrong" and cell.reason.startswith("the result is not NumPy's: 1.25")


def test_a_gradient_that_differs_is_wrong(lib: Library) -> None:
    """S124: a transform of a framework whose derivative is not ours is found."""
    op = define(lib)
    polyop.library.register_jvp(op, lambda ctx, t: t * 3, lib=lib)
    matrix = capabilities(op, on="numpy,torch,jax")
    for library in ("numpy", "torch", "jax"):
        assert matrix.cell(op, library, "forward mode").kind == "wrong", matrix
        assert matrix.cell(op, library, "grad").kind in {"works", "wrong"}


def test_a_refusal_says_why(lib: Library) -> None:
    """S2: what cannot be is refused by an error of ours, whose text is the reason."""
    op = define(lib)
    polyop.library.register_autograd(op, lambda ctx, g: polyop.from_numpy(g.numpy() * 2), lib=lib)
    cell = capabilities(op, on="torch").cell(op, "torch", "second order")
    assert cell.kind == "refused" and "requires grad" in cell.reason


def test_frameworks_errors_are_faults(lib: Library) -> None:
    """S207: an error that is nobody's answer is no refusal."""
    op = define(lib)
    polyop.library.register_kernel(op, None, lambda x: x.nothing_like_it, lib=lib, library="torch")
    matrix = capabilities(op, on="torch")
    assert matrix.cell(op, "torch", "eager").kind == "fails"
    assert "nothing_like_it" in matrix.cell(op, "torch", "eager").reason
    assert not matrix.ok and any("nothing_like_it" in line for line in matrix.faults())


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, lib: Library) -> None:
    """S207: a library that is not there is said to be so, and is no fault."""
    op = define(lib)
    module = importlib.import_module("polyop.checking.capabilities.matrix")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "dask" else object())
    matrix = capabilities(op, on=["dask"])
    assert set(kinds(matrix, op, "dask").values()) == {"not installed"} and matrix.ok
    monkeypatch.setitem(module.TRIERS, "dask", ("polyop.checking.no_such_module:X", False))
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert set(kinds(capabilities(op, on=["dask"]), op, "dask").values()) == {"not installed"}


def test_every_form_of_an_operator_is_asked(lib: Library) -> None:
    """S207: a name, an overload and all overloads of a name give the same matrix."""
    op = define(lib)
    wanted = op.capabilities("numpy").cells
    assert polyop.ops.capable.double.capabilities(["numpy"]).cells == wanted
    assert polyop.library.capabilities("capable::double", on="numpy").cells == wanted


def test_wrong_use(lib: Library) -> None:
    """S207: an unknown library, a cell that is not there, an operator without samples."""
    op = define(lib)
    with pytest.raises(UsageError, match="did you mean 'torch'"):
        op.capabilities("numpy,troch")
    matrix = op.capabilities("numpy")
    with pytest.raises(UsageError, match="did you mean 'compile'"):
        matrix.cell(op, "numpy", "compiled")
    with pytest.raises(UsageError, match="there is no 'jax'"):
        matrix.cell(op, "jax", "eager")
    with pytest.raises(UsageError, match="is not in this matrix"):
        matrix.cell("core::add.Tensor", "numpy", "eager")
    lib.define("bare(Tensor x) -> Tensor")
    with pytest.raises(UsageError, match="has no samples"):
        polyop.ops.capable.bare.capabilities()


# -- the command ------------------------------------------------------------------------------


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: `--on` prints a row for each operator and library, and the reasons below."""
    assert main(["check", RIGHT, "--on", "numpy,dask"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["operator", "on", "eager", "grad"]
    assert sum(line.startswith("right::scaled") for line in lines) == 2
    assert any(line.startswith("[1] ") for line in lines)


def test_the_command_fails_with_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: a wrong cell makes the status 1, and is said apart from the table."""
    assert main(["check", str(BROKEN / "aliases_input.py"), "--on", "numpy", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert not out and "broken::aliases_input on numpy, eager: wrong: " in err
    assert main(["check", RIGHT, "--on", "numpi"]) == 2
    assert "did you mean 'numpy'" in capsys.readouterr().err


def test_an_operator_without_samples_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S207: what could not be tried is said, with status 1."""
    path = tmp_path / "without.py"
    path.write_text(
        "import polyop\n"
        "@polyop.custom_op('capable_without::f', mutates_args=())\n"
        "def f(x: polyop.Tensor) -> polyop.Tensor:\n    return x.clone()\n"
    )
    assert main(["check", str(path), "--on", "numpy"]) == 1
    assert "capable_without::f: no samples" in capsys.readouterr().err


def test_markdown_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S207: the table is written as Markdown, with numbered reasons, and as data."""
    page, file = tmp_path / "page.md", tmp_path / "matrix.json"
    options = ["--on", "numpy", "--markdown", str(page), "--json", str(file), "--quiet"]
    assert main(["check", RIGHT, *options]) == 0
    text = page.read_text()
    assert f"`polyop check {RIGHT} --on numpy`" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {len(CAPABILITIES) + 3}
    assert "\n1. there is no vmap rule, so vmap is a loop" in text
    data = json.loads(file.read_text())
    cell = data["operators"]["right::scaled"]["numpy"]["grad"]
    assert data["ok"] and cell == {"kind": "works", "reason": ""}
    capsys.readouterr()
    assert main(["check", RIGHT, "--on", "numpy", "--markdown", "-"]) == 0
    assert capsys.readouterr().out in text


LETTERS = {"numpy": "N", "torch": "T", "jax": "J", "dask": "D"}


def rows_of(text: str, columns: int) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [row for row in found if len(row) == columns and row[0][:1] in {"", "`"}]


def test_the_table_of_the_readme_is_that_of_the_page() -> None:
    """S66: the short table says, in letters, what the whole one found."""
    root = Path(__file__).parents[2]
    whole: dict[str, dict[str, list[str]]] = {}
    name = ""
    for row in rows_of((root / "docs/capabilities.md").read_text(), 2 + len(CAPABILITIES)):
        name = row[0].strip("`").partition("::")[2] or name
        whole.setdefault(name, {})[row[1]] = row[2:]
    short = rows_of((root / "README.md").read_text(), 1 + len(CAPABILITIES))
    assert {row[0].strip("`") for row in short} == whole.keys() and len(whole) >= 12
    for row in short:
        for i, cell in enumerate(row[1:]):
            words = {lib: found[i] for lib, found in whole[row[0].strip("`")].items()}
            letters = [
                LETTERS[lib] if word.startswith("yes") else LETTERS[lib].lower()
                for lib, word in words.items()
                if word.startswith(("yes", "refused"))
            ]
            assert cell == ("".join(letters) or "-"), (row[0], i)
            assert not any(word.startswith(("wrong", "fails")) for word in words.values())

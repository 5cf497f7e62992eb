"""`polyop check examples` finds the operators in the folders of the examples too."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyop.checking.find import find
from polyop.checking.run import check_operator

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = {
    "sparse_matvec": {"sparse_matvec", "sparse_rmatvec", "sparse_outer"},
    "nms": {"nms"},
}


def test_operators_in_folders_are_found(tmp_path: Path) -> None:
    """S207: files with operators count one folder deep; scripts there are not run."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "operators.py").write_text(
        "import polyop\n"
        "@polyop.custom_op('found_here::f', mutates_args=())\n"
        "def f(x: polyop.Tensor) -> polyop.Tensor:\n"
        "    return x.clone()\n"
    )
    (tmp_path / "one" / "script.py").write_text("raise SystemExit('was run')\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "part.py").write_text("raise SystemExit('custom_op(')\n")
    assert [one.op.name() for one in find(str(tmp_path))] == ["found_here::f"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_laws_hold(folder: str) -> None:
    """S207: each operator of an example has samples, and breaks no law."""
    found = find(str(EXAMPLES / folder))
    assert {one.op._opname for one in found} >= FOLDERS[folder]
    for one in found:
        assert one.samples, one.problem
        report = check_operator(one.op, one.samples)
        assert report.ok, report.broken

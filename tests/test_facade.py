"""The list of public names: `polyop.__all__` says them all, to star imports and type checkers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import polyop

ROOT = Path(__file__).parent.parent
#: Modules that Python puts into their package when something imports them; nobody is sent there.
INSIDE = {
    "assembly",
    "bridges",
    "checking",
    "cli",
    "dispatch",
    "extend",
    "layers",
    "objects",
    "payloads",
}
PROGRAM = """
import polyop
from polyop import func, vmap

x: polyop.Tensor = polyop.ones((2, 3), dtype=polyop.float64, device=polyop.device("cpu"))
y = polyop.softmax(polyop.linalg.pinv(x) @ x, axis=0) + polyop.fft.rfft(x).shape[0]
z = func.grad(lambda t: t.sum())(x) if polyop.finfo(x.dtype).eps < 1 else vmap(polyop.sin)(x)
with polyop.no_grad():
    print(polyop.ops.core.add(y, z), polyop.Library, polyop.errors.ArgumentError)
"""


def test_all_public_names_are_listed() -> None:
    """The list holds every public name, and each of its names is there."""
    listed = set(polyop.__all__)
    assert len(listed) == len(polyop.__all__)
    assert all(hasattr(polyop, name) for name in listed)
    floor = {path.stem for path in (ROOT / "src" / "polyop").glob("*.py")}
    extra = {
        name
        for name in dir(polyop)
        if not name.startswith("_")
        and name not in listed
        and not (isinstance(getattr(polyop, name), ModuleType) and name in floor | INSIDE)
    }
    assert not extra


def test_strict_checkers_see_the_names(tmp_path: Path) -> None:
    """A user's program under `mypy --strict` finds the public names, lazy ones too."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=ROOT,  # where `make check` keeps its cache
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    hidden = tmp_path / "hidden.py"
    hidden.write_text("import polyop\n\npolyop.no_such_name\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(hidden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no_such_name" in done.stdout


def test_star_imports_bring_everything() -> None:
    """`from polyop import *` brings the listed names, those that are read late too."""
    code = "from polyop import *; vmap(sin)(ones(2)); linalg.inv(eye(2)); assert float32.name"
    subprocess.run([sys.executable, "-c", code], check=True)

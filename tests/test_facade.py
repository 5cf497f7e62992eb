"""The list of public names: `polyop.__all__` says them all, to star imports and type checkers."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import polyop

ROOT = Path(__file__).parent.parent
#: Modules that Python puts into their package when something imports them; nobody is sent there.
INSIDE = {
    "assembly",
    "bridges",
    "checking",
    "cli",
    "dispatch",
    "layers",
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
        for name in vars(polyop)
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


def test_documented_modules_are_attributes() -> None:
    """S1: what errors and docs call `polyop.<module>.<name>` is there after `import polyop`."""
    code = "import polyop; polyop.extend.index_of; polyop.extend.payload_route; {}"
    subprocess.run(
        [sys.executable, "-c", code.format("assert 'extend' in dir(polyop)")], check=True
    )
    texts = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "src").rglob("*.py")]
    found = re.compile(r"(?:fix=.*|`)(polyop\.(?:extend|objects|hop|graph|library)\.[a-z_]\w*)")
    names = {name for path in texts for name in found.findall(path.read_text())}
    names.add("polyop.objects.add_tokens")
    assert len(names) > 20
    subprocess.run([sys.executable, "-c", "import polyop\n" + "\n".join(sorted(names))], check=True)


@pytest.mark.parametrize("name", ["linalg", "fft", "func", "extend", "export", "objects"])
def test_dir_lists_what_the_list_lists(name: str) -> None:
    """`dir` of a public list gives its names, and none that it is made with."""
    module = getattr(polyop, name)
    public = {found for found in dir(module) if not found.startswith("__")}
    assert public == {found for found in module.__all__ if not found.startswith("__")}


def test_schema_functions_are_for_builders() -> None:
    """S28, S189: `polyop.extend` has them."""
    text = "e(Tensor x, *, Device? device=None, Tensor(a!) out) -> Tensor(a!)"
    schema = polyop.extend.parse_schema(text)
    assert polyop.extend.has_tensor_arg(schema) and polyop.extend.has_kwarg_only_tensors(schema)
    assert polyop.extend.get_device_arg_index(schema) == 1
    assert polyop.extend.mutated_args_kwargs(schema) == ([], ["out"])
    assert not polyop.extend.is_functional_schema(schema)
    assert polyop.extend.with_effects is polyop.objects.with_effects


def test_every_error_is_in_the_table() -> None:
    """S2: the table of the specification names every class, each with what else it is."""
    text = (ROOT / "docs" / "specification.md").read_text()
    rows = re.findall(r"^\| (`\w+(?:Error|Warning)`.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    classes = {
        name
        for name, found in vars(polyop.errors).items()
        if isinstance(found, type) and issubclass(found, (Exception, Warning))
    }
    named = {word for row in rows for cell in row for word in re.findall(r"`(\w+)`", cell)}
    assert classes - named == {"PolyopError"}
    for heads, bases, _ in rows:
        for head, base in zip(heads.split("; "), bases.split("; "), strict=False):
            for name in re.findall(r"`(\w+)`", head):
                for other in re.findall(r"`(\w+)`", base):
                    expected = getattr(polyop.errors, other, None) or getattr(builtins, other)
                    assert issubclass(getattr(polyop.errors, name), expected), (name, other)

"""The house keeps its floors: imports go down, at the top of the file, in no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parent.parent / "src" / "polyop"
FLOORS = {
    0: [
        "errors",
        "source",
        "tree",
        "devices",
        "numbers",
        "small_floats",
        "warn",
        "forks",
        "late_names",
        "lazy",
        "records",
    ],
    1: ["schema", "symbolic"],
    2: ["dispatch"],
    3: ["tensor"],
    4: ["graph", "ops"],
    5: ["layers", "payloads"],
    6: ["hop", "objects"],
    7: ["compile", "export"],
    8: ["bridges"],
    9: ["checking"],
    10: ["cli"],
}
#: On one floor, what stands on what: `call_object` is a higher-order operator; the layer of other
#: libraries' arrays runs their kernels.
BESIDE = {("objects", "hop"), ("layers", "payloads")}
FLOOR = {part: floor for floor, parts in FLOORS.items() for part in parts}
#: Lists of names without logic, for users and builders; and the one file that assembles.
FACADES = {
    *("__init__", "extend", "library", "autograd", "func", "fake", "fft", "linalg", "bridge"),
    *("assembly", "__main__"),
}
FILES = [
    p
    for p in sorted(ROOT.rglob("*.py"))
    if p.relative_to(ROOT).parts[0].removesuffix(".py") not in FACADES
]


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    parts = ["polyop", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    """Whether a node is `if TYPE_CHECKING:` with imports alone, of names that come when used.

    What brings them may stand in its `else`, as one assignment.
    """
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test).lstrip("_").removeprefix("typing.") == "TYPE_CHECKING"
        and [*map(type, node.orelse)] in ([], [ast.Assign])
        and all(isinstance(n, ast.ImportFrom) for n in node.body)
    )


def own_imports(path: Path) -> list[tuple[ast.AST, str, bool]]:
    """Give each import of the package's own: node, module, whether it is at the left margin."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    top |= {id(n) for block in filter(for_type_checkers, tree.body) for n in block.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "polyop":
            assert node.level == 0
            if node.module == "polyop":
                found += [(node, f"polyop.{a.name}", id(node) in top) for a in node.names]
            else:
                found.append((node, node.module or "", id(node) in top))
        elif isinstance(node, ast.Import):
            found += [
                (node, a.name, id(node) in top)
                for a in node.names
                if a.name.split(".")[0] == "polyop"
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    """An import stands at the left margin, and reaches a lower floor or its own part."""
    here = part_of(path)
    assert here in FLOOR, f"{path} stands on no floor"
    for node, module, at_top in own_imports(path):
        there = module.split(".")[1] if "." in module else ""
        where = f"{path}:{node.lineno} imports {module}"
        assert at_top, f"{where} inside a function or block"
        assert there in FLOOR, f"{where}, a facade"
        ground = FLOOR[there] == FLOOR[here] == 0  # small files, one idea each, one part together
        below = FLOOR[there] < FLOOR[here]
        beside = (here, there) in BESIDE
        assert there == here or ground or below or beside, f"{where}, which is not below"


def test_no_import_circle() -> None:
    """Files can be put in an order in which each imports only earlier ones."""
    modules = {module_of(p): p for p in FILES}
    edges: dict[str, set[str]] = {}
    for name, path in modules.items():
        imported = {m for _, m, _ in own_imports(path)}
        # A package's own __init__ is a list of its files; importing it is importing them.
        edges[name] = {m for m in imported if m in modules and m != name}
    list(TopologicalSorter(edges).static_order())


def test_importing_polyop_imports_no_framework() -> None:
    """A fresh process that imports polyop has loaded no array library but NumPy."""
    code = (
        "import sys, polyop; "
        "print([m for m in ('torch', 'jax', 'dask', 'onnx', 'rich', 'hypothesis', 'scipy', "
        "'array_api_compat.numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_facades_bring_names_when_used() -> None:
    """Importing polyop imports neither what checks nor what compiles; their names are there."""
    code = (
        "import sys, polyop; "
        "early = [m for m in ('polyop.checking', 'polyop.compile.compiled', 'numpy.random') "
        "if m in sys.modules]; "
        "assert not early, early; "
        "assert {'compile', 'opcheck'} <= set(dir(polyop)) and 'opcheck' in dir(polyop.library); "
        "import polyop.compile.compiled; "
        "module = sys.modules['polyop.compile.compiled']; "
        "assert polyop.compile is module.compile; "
        "from polyop import compile, opcheck; from polyop.compile import compile as same; "
        "assert compile is same is module.compile and polyop.library.opcheck is opcheck; "
        "assert not hasattr(polyop, 'no_such_name')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_facades_hold_no_logic() -> None:
    """The public lists define neither functions nor classes."""
    for name in sorted(FACADES - {"assembly", "__main__"}):
        path = ROOT / f"{name}.py"
        if path.exists():
            tree = ast.parse(path.read_text())
            kinds = {type(n) for n in ast.walk(tree) if not for_type_checkers(n)}
            assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.For, ast.If}, name

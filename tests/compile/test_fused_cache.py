"""Compiled loops lie in a private folder; whatever happens to it, results are right (S211)."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import errors

LIBRARY = importlib.import_module("polyop.compile.fused.library")
needs_compiler = pytest.mark.skipif(LIBRARY.compiler() is None, reason="there is no C compiler")

PROGRAM = """
import numpy as np, polyop
x = polyop.from_numpy(np.arange(9, dtype="f4"))
f = polyop.compile(lambda x: (x * 2 + 1) / (x + 3), backend="c", fullgraph=True)
assert np.array_equal(f(x).numpy(), ((x * 2 + 1) / (x + 3)).numpy())
print("right")
"""


def start(folder: Any, **more: str) -> subprocess.Popen[str]:
    settings = {**os.environ, "POLYOP_CACHE_DIR": str(folder), **more}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    return out.strip() or err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty folder for libraries, in a process that has loaded none."""
    made = tmp_path / "made"
    monkeypatch.setenv("POLYOP_CACHE_DIR", str(made))
    monkeypatch.setattr(LIBRARY, "_loaded", {})
    return made


def call(number: float) -> None:
    x = polyop.from_numpy(np.arange(9, dtype="f4"))
    compiled = polyop.compile(lambda x: (x * number + 1) / 7, backend="c", fullgraph=True)
    assert np.array_equal(compiled(x).numpy(), ((x * number + 1) / 7).numpy())


@needs_compiler
def test_a_library_is_made_once(folder: Path, monkeypatch: Any) -> None:
    """S211: a program that was compiled is found on disk, by another process too."""
    assert result(start(folder)) == "right"
    (library,) = folder.glob("*.so")
    when = library.stat().st_mtime_ns
    assert result(start(folder)) == "right"
    assert [f.name for f in folder.iterdir()] == [library.name]
    assert library.stat().st_mtime_ns == when
    assert folder.stat().st_mode & 0o777 == 0o700


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "text"])
def test_a_damaged_library_is_made_anew(folder: Path, damage: str) -> None:
    """S211: a file that is not what was written is never loaded."""
    call(2.0)
    (library,) = folder.glob("*.so")
    content = library.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    wrong = {"empty": b"", "cut": content[:-100], "changed": changed, "text": b"no library" * 99}
    library.unlink()  # this process has it in use
    library.write_bytes(wrong[damage])
    LIBRARY._loaded.clear()
    call(2.0)
    assert library.read_bytes()[:-32] != wrong[damage][:-32]
    assert LIBRARY._is_whole(library)


@needs_compiler
def test_processes_race(folder: Path) -> None:
    """S211: processes that compile the same at the same time leave one whole file."""
    processes = [start(folder) for _ in range(3)]
    assert [result(p) for p in processes] == ["right"] * 3
    (library,) = folder.iterdir()
    assert LIBRARY._is_whole(library)


@needs_compiler
@pytest.mark.parametrize("where", ["/proc/self", "/dev/null/none"])
def test_a_folder_that_cannot_be_written(where: str, monkeypatch: Any) -> None:
    """S211: without a folder on disk, the library is made in one for this process alone."""
    if not Path(where).parent.exists():
        pytest.skip("no such folder on this system")
    monkeypatch.setenv("POLYOP_CACHE_DIR", where)
    monkeypatch.setattr(LIBRARY, "_loaded", {})
    call(3.0)


@needs_compiler
def test_a_folder_that_others_can_write(folder: Path) -> None:
    """S211: a library is code, so a folder into which others can put some is not used."""
    folder.mkdir()
    folder.chmod(0o777)
    call(4.0)
    assert not list(folder.iterdir())


@needs_compiler
def test_what_a_library_is_known_by(folder: Path, monkeypatch: Any) -> None:
    """S211: another processor or compiler finds no library that was made for this one."""
    call(5.0)
    monkeypatch.setattr(LIBRARY, "_processor", lambda: "another")
    LIBRARY._loaded.clear()
    call(5.0)
    assert len(list(folder.glob("*.so"))) == 2


def test_no_compiler(folder: Path, monkeypatch: Any) -> None:
    """S211: without a compiler `"c"` raises, naming what to install; `"auto"` says it once and
    runs the graph."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(errors.UsageError) as caught:
        call(6.0)
    assert caught.value.fix == "install gcc or clang, or compile without backend"
    monkeypatch.setattr(importlib.import_module("polyop.warn"), "_given", set())
    x = polyop.ones(3)
    compiled = polyop.compile(lambda x: x * 2 + 1, backend="auto", fullgraph=True)
    with pytest.warns(errors.PolyopWarning, match="install gcc or clang"):
        assert compiled(x)[0].item() == 3
    assert polyop.compile(lambda x: x * 2 + 2, backend="auto")(x)[0].item() == 4


def test_a_compiler_that_fails(folder: Path, monkeypatch: Any) -> None:
    """S211: what the compiler says is in the error; `"auto"` warns, and runs the graph."""
    monkeypatch.setenv("CC", f"{sys.executable} -c 'import sys; sys.exit(\"out of order\")'")
    with pytest.raises(errors.PolyopError, match="out of order"):
        call(7.0)
    monkeypatch.setattr(importlib.import_module("polyop.warn"), "_given", set())
    x = polyop.ones(3)
    with pytest.warns(errors.PolyopWarning, match="refuses"):
        found = polyop.compile(lambda x: x * 2 + 1, backend="auto", fullgraph=True)(x)
    assert found[0].item() == 3
    assert not list(folder.iterdir())


@needs_compiler
def test_without_vector_functions(folder: Path, monkeypatch: Any) -> None:
    """S211: where the C library has no functions on vectors, loops call the plain ones."""
    monkeypatch.setattr(LIBRARY, "WAYS", LIBRARY.WAYS[-2:])
    x = polyop.from_numpy(np.linspace(-3, 3, 99, dtype="f4"))
    compiled = polyop.compile(lambda x: x.tanh() * x.exp(), backend="c", fullgraph=True)
    assert np.allclose(compiled(x).numpy(), (x.tanh() * x.exp()).numpy(), rtol=1e-5)

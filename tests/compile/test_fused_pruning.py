"""The folder of compiled loops stays small, and nothing in it goes that is not ours (S211)."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop

LIBRARY = importlib.import_module("polyop.compile.fused.library")
PRUNING = importlib.import_module("polyop.compile.fused.pruning")
needs_compiler = pytest.mark.skipif(LIBRARY.compiler() is None, reason="there is no C compiler")

NOW = time.time()


def library(folder: Path, number: int, *, age: float, size: int = 10, read: float = 1e9) -> Path:
    """Make a file that is named as a library, written and read so many seconds ago."""
    path = folder / f"{sha256(str(number).encode()).hexdigest()}.so"
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - min(age, read), NOW - age))
    return path


def bound(monkeypatch: Any, *, files: int = 10**9, size: int = 10**12) -> None:
    monkeypatch.setattr(PRUNING, "MOST_FILES", files)
    monkeypatch.setattr(PRUNING, "MOST_BYTES", size)


def test_the_ones_used_longest_ago_go(tmp_path: Path, monkeypatch: Any) -> None:
    """S211: by number, and by size, the least recently written or read first."""
    made = [library(tmp_path, i, age=100.0 * (i + 1)) for i in range(6)]
    read = library(tmp_path, 6, age=9000, read=1)
    bound(monkeypatch, files=4)
    PRUNING.prune(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*made[:3], read])
    bound(monkeypatch, size=25)
    PRUNING.prune(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([made[0], read])
    bound(monkeypatch, size=0)
    PRUNING.prune(tmp_path)
    assert not list(tmp_path.iterdir())


def test_within_the_bounds_all_stays(tmp_path: Path) -> None:
    """S211: what the folder may hold, it keeps, however old."""
    made = [library(tmp_path, i, age=1e8) for i in range(20)]
    PRUNING.prune(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(made)
    assert (PRUNING.MOST_BYTES, PRUNING.MOST_FILES) == (256 << 20, 2000)


def test_what_is_not_ours_stays(tmp_path: Path, monkeypatch: Any) -> None:
    """S211: other names, folders, links, and what they point to; they do not count either."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = library(elsewhere, 0, age=1e6)
    folder = tmp_path / "folder"
    folder.mkdir()
    name = "a" * 64
    for foreign in ("notes.txt", f"{name}.so.bak", f"lib{name}.so", f"{name[1:]}.so", "making-x",
                    f"{name.upper()}.so"):  # fmt: skip
        (folder / foreign).write_text("mine")
        os.utime(folder / foreign, (0, 0))
    (folder / f"{'b' * 64}.so").mkdir()
    (folder / f"{'c' * 64}.so").symlink_to(target)
    (folder / "making-link").symlink_to(elsewhere)
    (folder / "making-bread").mkdir()
    (folder / "making-bread" / "recipe.txt").write_text("mine")
    os.utime(folder / "making-bread", (0, 0))
    before = sorted(folder.rglob("*"))
    kept = library(folder, 1, age=10)
    bound(monkeypatch, files=1)
    PRUNING.prune(folder)
    assert sorted(folder.rglob("*")) == sorted([*before, kept])
    bound(monkeypatch, files=0)
    PRUNING.prune(folder)
    assert sorted(folder.rglob("*")) == before
    assert target.exists() and (folder / "making-bread" / "recipe.txt").exists()


def test_folders_of_processes_that_died_go(tmp_path: Path) -> None:
    """S211: an hour after a compiler began, nobody waits for it; one of now is left alone."""
    for name, age in (("making-old", 3700), ("making-empty", 9999), ("making-now", 30)):
        (tmp_path / name).mkdir()
        if name != "making-empty":
            (tmp_path / name / "loops.c").write_text("int x;")
            (tmp_path / name / "loops.so").write_bytes(b"")
        os.utime(tmp_path / name, (NOW - age, NOW - age))
    PRUNING.prune(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["making-now"]
    assert len(list((tmp_path / "making-now").iterdir())) == 2


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError, OSError])
def test_what_cannot_be_looked_at_or_removed_is_passed_over(
    tmp_path: Path, monkeypatch: Any, error: type[OSError]
) -> None:
    """S211: a folder that is read-only, and files that vanish in between, raise nothing."""
    made = [library(tmp_path, i, age=100.0 * (i + 1)) for i in range(5)]
    bound(monkeypatch, files=3)
    removed: list[str] = []
    first = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == made[4]:
            if error is FileNotFoundError and missing_ok:
                return
            raise error(str(path))
        removed.append(path.name)
        first(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    PRUNING.prune(tmp_path)
    # One that another process removed counts; one that stays makes room by the next two.
    gone = [made[3]] if error is FileNotFoundError else [made[3], made[2]]
    assert removed == [p.name for p in gone]
    monkeypatch.setattr(PRUNING, "os", Refusing(error))
    PRUNING.prune(tmp_path)
    PRUNING.note_use(made[0])


class Refusing:
    """An `os` where nothing can be looked at or changed."""

    def __init__(self, error: type[OSError]) -> None:
        self.error = error

    def scandir(self, path: Any) -> Any:
        raise self.error(str(path))

    def utime(self, path: Any, **_: Any) -> Any:
        raise self.error(str(path))


def test_entries_that_vanish_while_they_are_listed(tmp_path: Path, monkeypatch: Any) -> None:
    """S211: what is gone when its age is asked for is passed over, and the others are not."""
    made = [library(tmp_path, i, age=100.0 * (i + 1)) for i in range(4)]
    first = os.scandir

    class Scan:
        def __init__(self, path: Any) -> None:
            self.entries = list(first(path))
            made[0].unlink()
            made[3].unlink()

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(PRUNING.os, "scandir", Scan)
    bound(monkeypatch, files=1)
    PRUNING.prune(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [made[1]]


def test_several_processes_prune_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    """S211: who prunes beside others raises nothing, and what was used last stays."""
    made = [library(tmp_path, i, age=10.0 * (i + 1)) for i in range(300)]
    bound(monkeypatch, files=20)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(PRUNING.prune, [tmp_path] * 16))
    left = set(tmp_path.iterdir())
    assert left <= set(made[:20]) and made[0] in left


def test_a_use_is_noted_beside_the_time_of_making(tmp_path: Path) -> None:
    """S211: to load a library changes when it was read, never when it was written."""
    path = library(tmp_path, 0, age=5000)
    written = path.stat().st_mtime_ns
    PRUNING.note_use(path)
    assert path.stat().st_mtime_ns == written and path.stat().st_atime > NOW - 60
    PRUNING.note_use(tmp_path / "none")


# -- with the compiler ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty folder for libraries, in a process that has loaded none and pruned nothing."""
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("POLYOP_CACHE_DIR", str(made))
    monkeypatch.setattr(LIBRARY, "_loaded", {})
    PRUNING.prune_once.cache_clear()
    return made


def call(number: float) -> Callable[[], None]:
    x = polyop.from_numpy(np.arange(9, dtype="f4"))
    compiled = polyop.compile(lambda x: (x * number + 1) / 7, backend="c", fullgraph=True)

    def run() -> None:
        assert np.array_equal(compiled(x).numpy(), ((x * number + 1) / 7).numpy())

    run()
    return run


@needs_compiler
def test_a_process_prunes_when_it_first_compiles(folder: Path, monkeypatch: Any) -> None:
    """S211: once, after its first new library; never for one that lies there already."""
    seen: list[Path] = []
    first = PRUNING.prune

    def prune(folder: Path) -> None:
        seen.append(folder)
        first(folder)

    monkeypatch.setattr(LIBRARY, "prune_once", PRUNING.cache(prune))
    bound(monkeypatch, files=2)
    old = [library(folder, i, age=1e4 + i) for i in range(3)]
    call(1.5)
    assert seen == [folder] and not old[2].exists() and old[0].exists()
    assert len(list(folder.iterdir())) == 2
    call(2.5)
    assert seen == [folder] and len(list(folder.iterdir())) == 3
    LIBRARY._loaded.clear()
    monkeypatch.setattr(LIBRARY, "prune_once", seen.append)
    call(2.5)
    assert seen == [folder]


@needs_compiler
def test_a_library_that_is_loaded_again_is_one_that_is_used(folder: Path, monkeypatch: Any) -> None:
    """S211: of two libraries that were made long ago, the one that was loaded since stays."""
    call(3.25)
    (first,) = folder.iterdir()
    call(4.25)
    (second,) = set(folder.iterdir()) - {first}
    for path in (first, second):
        os.utime(path, (NOW - 1e6, NOW - 1e6))
    LIBRARY._loaded.clear()
    call(3.25)
    bound(monkeypatch, files=1)
    PRUNING.prune(folder)
    assert list(folder.iterdir()) == [first]


@needs_compiler
def test_a_library_in_use_may_go(folder: Path, monkeypatch: Any) -> None:
    """S211: loops that are loaded run on when their file is removed; a new process makes it."""
    run = call(5.25)
    bound(monkeypatch, files=0)
    PRUNING.prune(folder)
    assert not list(folder.iterdir())
    run()
    LIBRARY._loaded.clear()
    call(5.25)
    assert len(list(folder.glob("*.so"))) <= 1


@needs_compiler
def test_a_library_that_goes_before_it_is_loaded(folder: Path, monkeypatch: Any) -> None:
    """S211: between the look at a file and its loading another process may remove it."""
    call(6.25)
    (path,) = folder.iterdir()
    other = folder.parent / "other"  # the loader finds by its name what it has
    shutil.copytree(folder, other)
    monkeypatch.setenv("POLYOP_CACHE_DIR", str(other))
    LIBRARY._loaded.clear()
    monkeypatch.setattr(LIBRARY, "note_use", Path.unlink)
    call(6.25)
    assert [p.name for p in other.iterdir()] == [path.name]
    assert LIBRARY._is_whole(other / path.name)


@needs_compiler
def test_a_bound_of_nothing_is_kept_at_every_turn(folder: Path, monkeypatch: Any) -> None:
    """S211: even where the folder may hold nothing, what was just made is loaded first."""
    bound(monkeypatch, files=0)
    call(7.25)()
    assert not list(folder.iterdir())

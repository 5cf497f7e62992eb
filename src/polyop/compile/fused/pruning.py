"""The folder of libraries stays small: what nobody has loaded for longest goes.

A library that another process has loaded may go as well: the system keeps what is mapped until the
last process is done with it. Who looked at a file just before it went, makes it anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

#: The most that the folder holds after it was looked through.
MOST_BYTES = 256 << 20
MOST_FILES = 2000
#: Seconds after which nobody compiles in a folder any more.
STALE = 3600.0
_LIBRARY = re.compile(r"[0-9a-f]{64}\.so")
#: How the folders begin in which libraries are made, and what lies in them.
MAKING = "making-"
SOURCE, MADE = "loops.c", "loops.so"


class Kept(NamedTuple):
    """A library in the folder; the one that was used longest ago is the least."""

    used: int
    name: str
    size: int


def note_use(path: Path) -> None:
    """Note on disk that a library was loaded now."""
    with suppress(OSError):  # others' folders are not ours to change
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def prune(folder: Path) -> None:
    """Remove the libraries that were used longest ago, down to the bounds, and stale folders.

    Files that are not named as libraries are left alone, and so is what cannot be removed.
    """
    with suppress(OSError):
        found = sorted(_libraries(folder))
        count, size = len(found), sum(one.size for one in found)
        for one in found:
            if count <= MOST_FILES and size <= MOST_BYTES:
                break
            with suppress(OSError):  # another process may be about the same
                (folder / one.name).unlink(missing_ok=True)
                count, size = count - 1, size - one.size


#: At most once in a process for each folder.
prune_once = cache(prune)


def _libraries(folder: Path) -> Iterator[Kept]:
    """Give the libraries; remove the folders of processes that died while they compiled."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # what vanishes meanwhile
                stat = entry.stat(follow_symlinks=False)
                if _LIBRARY.fullmatch(entry.name) and S_ISREG(stat.st_mode):
                    yield Kept(max(stat.st_atime_ns, stat.st_mtime_ns), entry.name, stat.st_size)
                stale = time.time() - stat.st_mtime > STALE
                if stale and entry.name.startswith(MAKING) and S_ISDIR(stat.st_mode):
                    _remove_stale(Path(entry.path))


def _remove_stale(made: Path) -> None:
    for name in (SOURCE, MADE):
        (made / name).unlink(missing_ok=True)
    made.rmdir()  # where anything else lies in it, it is not ours

"""Libraries: source that was compiled once lies in a private folder, and is loaded from there.

A file is found by what it was made of: source, flags, compiler and processor. It
is written under another name and renamed, so that nobody sees half of one, and
ends in a digest of itself, so that a damaged one is made anew and never loaded. When
a process makes its first one, it removes those that nobody used for longest (`pruning.py`).

NOTE [Flags]
Never `-ffast-math`: it links code into the library that flushes denormal numbers
in the whole process, from the moment it is loaded. `-fno-trapping-math` lets
comparisons be vectorized; flags that are raised too much cost time, no results.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import RLock

from polyop.compile.fused.pruning import MADE, MAKING, SOURCE, note_use, prune_once
from polyop.errors import PolyopError, UsageError

COMMON = [
    "-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fwrapv",
]  # fmt: skip
SHARED = ["-shared", "-fPIC", "-w"]
NATIVE = ("-march=native", "-fopenmp-simd")
#: What is tried in turn, with whether the C library's functions on vectors are used.
WAYS: tuple[tuple[bool, tuple[str, ...], tuple[str, ...]], ...] = (
    (True, (*NATIVE, "-mprefer-vector-width=512"), ("-Wl,-z,defs", "-lmvec", "-lm")),
    (True, NATIVE, ("-Wl,-z,defs", "-lmvec", "-lm")),
    (False, NATIVE, ("-lm",)),
    (False, (), ("-lm",)),
)
FORMAT = b"polyop-1"
DIGEST = sha256().digest_size
#: The libraries of this process, by key; none is ever closed.
_loaded: dict[str, ctypes.PyDLL] = {}
_lock = RLock()
if hasattr(os, "register_at_fork"):  # the thread that has the lock may not be in the child
    os.register_at_fork(after_in_child=lambda: globals().update(_lock=RLock()))


def compiler() -> list[str] | None:
    """Give the command of the C compiler: `$CC`, or the first of cc, gcc, clang; None without."""
    words = shlex.split(os.environ.get("CC", ""))
    for name in [words[0]] if words else ["cc", "gcc", "clang"]:
        found = shutil.which(name)
        if found is not None:
            return [found, *words[1:]]
    return None


def no_compiler() -> UsageError:
    """Make the error for a machine without a C compiler."""
    return UsageError(
        'compile(backend="c") makes loops of C, and there is no C compiler',
        declared="cc, gcc or clang on the PATH, or $CC",
        fix="install gcc or clang, or compile without backend",
    )


def load_library(write: Callable[[bool], str]) -> ctypes.PyDLL:
    """Load the library of a source, and compile it if nobody did before.

    Args:
        write: gives the source, with or without functions on vectors.

    Raises:
        UsageError: there is no compiler.
        PolyopError: the compiler fails; the text has what it says.
    """
    command = compiler()
    if command is None:
        raise no_compiler()
    sources = {vectors: write(vectors) for vectors in (True, False)}
    key = _key(command, sources)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(command, sources, key)
        return _loaded[key]


def _load(command: Sequence[str], sources: dict[bool, str], key: str) -> ctypes.PyDLL:
    folder = cache_folder() or _own_folder()
    path = folder / f"{key}.so"
    if _is_whole(path):
        note_use(path)
        with suppress(OSError):  # another process may just have removed it
            return ctypes.PyDLL(str(path))
    try:
        _compile(command, sources, path)
        found = ctypes.PyDLL(str(path))
    except OSError:  # the folder cannot be written, or is full
        path = _own_folder() / f"{key}.so"
        _compile(command, sources, path)
        return ctypes.PyDLL(str(path))
    prune_once(folder)
    return found


def _key(command: Sequence[str], sources: dict[bool, str]) -> str:
    stat = os.stat(command[0])
    made_of = (
        FORMAT, *command, os.path.realpath(command[0]), stat.st_size, stat.st_mtime_ns,
        _processor(), platform.libc_ver(), COMMON, SHARED, WAYS, sources,
    )  # fmt: skip
    return sha256(repr(made_of).encode()).hexdigest()


@cache
def _processor() -> str:
    """Describe the processor, as far as `-march=native` looks at it."""
    words = ("model", "cpu family", "stepping", "flags", "Features", "CPU part", "CPU impl", "isa")
    facts = [line for line in _facts() if line.startswith(words)]
    return repr((platform.machine(), platform.processor(), facts))


def is_of_intel() -> bool:
    """Tell whether the processor is one of Intel's."""
    return any(x.startswith("vendor_id") and x.endswith("GenuineIntel") for x in _facts())


@cache
def _facts() -> Sequence[str]:
    """Give what the system says of the first processor; nothing where it does not."""
    try:
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return ()


# -- the folder -------------------------------------------------------------------


def cache_folder() -> Path | None:
    """Give the folder of libraries; None if there is none that only this user can write."""
    given = os.environ.get("POLYOP_CACHE_DIR")
    own = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(given) if given else Path(own) / "polyop"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = folder.stat()
    except OSError:
        return None
    # A library is code: who can write here could run what he likes.
    private = not stat.st_mode & 0o022 and stat.st_uid == getattr(os, "getuid", lambda: 0)()
    return folder if private else None


@cache
def _own_folder() -> Path:
    """Make a folder for this process alone; it goes with it."""
    _KEEP.append(tempfile.TemporaryDirectory(prefix="polyop-", ignore_cleanup_errors=True))
    return Path(_KEEP[-1].name)


_KEEP: list[tempfile.TemporaryDirectory[str]] = []


def _is_whole(path: Path) -> bool:
    """Tell whether a file ends in its own digest."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return sha256(content[:-DIGEST]).digest() == content[-DIGEST:] and len(content) > DIGEST


# -- the compiler -----------------------------------------------------------------


def _compile(command: Sequence[str], sources: dict[bool, str], path: Path) -> None:
    """Compile in the first way that works, and put the library at its place."""
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=path.parent) as made:
        said = ""
        for vectors, flags, libraries in WAYS:
            source, library = Path(made) / SOURCE, Path(made) / MADE
            source.write_text(sources[vectors])
            words = [*command, *COMMON, *flags, *SHARED, str(source), "-o", str(library)]
            ran = subprocess.run([*words, *libraries], capture_output=True, text=True, check=False)  # noqa: S603 - our own text
            if ran.returncode == 0:
                content = library.read_bytes()
                library.write_bytes(content + sha256(content).digest())
                os.replace(library, path)
                return
            said = ran.stderr or ran.stdout
    raise PolyopError(
        "the C compiler refuses the loops of a graph",
        declared=" ".join(command),
        seen=said.strip()[-600:],
        fix="set $CC to gcc or clang, or compile without backend",
    )

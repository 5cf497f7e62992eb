"""`load_library`: kernels from a shared library that was written against `polyop.h` (S67).

Everything a library brings is read and checked before anything is registered,
and a library that is refused is closed again, so that it can be built anew and
loaded in the same process. Symbols become global only at the end: those of a
refused library would stay in the way of others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ctypes import CDLL, RTLD_GLOBAL, RTLD_LOCAL
from typing import Any, NamedTuple

from polyop.dispatch.c_kernel import CFake, CKernel
from polyop.dispatch.c_library import SYMBOL, Line, base_of, get_include, read_list
from polyop.dispatch.library import Library
from polyop.dispatch.lock import LOCK
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import DEFINITIONS, put
from polyop.dispatch.registry import define as define_schema
from polyop.dispatch.table import Kernel
from polyop.errors import (
    DuplicateRegistrationError,
    RegistrationError,
    UsageTypeError,
)
from polyop.lazy import load
from polyop.source import Source


class Loaded(NamedTuple):
    """A library that was loaded: its file as it was, where it lies, and what owns its operators."""

    file: tuple[int, ...]
    base: int
    owners: tuple[Library, ...]


_loaded: dict[str, Loaded] = {}


def load_library(path: Any) -> str:
    """Load a shared library, register what it brings, and give its whole path.

    A library without `polyop_library` is loaded for its global symbols alone.
    Loading one again does nothing.

    Raises:
        OSError: it cannot be loaded; the text has the path.
        RegistrationError: it was built for another `polyop.h`, its file has
            changed since it was loaded, or an operator was refused; nothing is
            registered then.
    """
    full = _whole_path(path)
    with LOCK:
        known = _loaded.get(full) or _same_file(full)
        if known is None:
            _loaded[full] = _load(full)
        else:
            _check_unchanged(full, known)
            _loaded[full] = known
    return full


def _whole_path(path: Any) -> str:
    try:
        return os.path.realpath(os.fsdecode(path))
    except TypeError:
        raise UsageTypeError(
            "a library is given by its path", seen=f"{path!r:.80}", fix='write "lib.so"'
        ) from None


def _load(full: str) -> Loaded:
    file = _file(full)
    handle = _open(full, RTLD_LOCAL)
    if not hasattr(handle, SYMBOL):
        _open(full, RTLD_GLOBAL)
        return Loaded(file, 0, ())
    owners: list[Library] = []
    try:
        lines = list(read_list(full, handle, {known.base for known in _loaded.values()}))
        _check_names(lines)
    except Exception:
        _close(handle)
        raise
    try:
        _register(lines, owners)
    except Exception:
        # It stays open: another thread may be running one of its kernels.
        for owner in owners:
            owner.destroy()
        raise
    _open(full, RTLD_GLOBAL)
    return Loaded(file, base_of(handle), tuple(owners))


# -- files --------------------------------------------------------------------


def _open(full: str, mode: int) -> CDLL:
    # The flag goes with the call; nothing of the process has to be put back.
    try:
        return CDLL(full, mode=mode)
    except OSError as error:
        raise OSError(f"cannot load the library {full}: {error}") from error


def _close(handle: CDLL) -> None:
    own = load("_ctypes")
    close = getattr(own, "dlclose", None) or getattr(own, "FreeLibrary", None)
    if close is not None:
        close(handle._handle)


def _file(full: str) -> tuple[int, ...]:
    try:
        seen = os.stat(full)
    except OSError as error:
        raise OSError(f"cannot load the library {full}: {error}") from error
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _same_file(full: str) -> Loaded | None:
    """Give what was loaded from the same file under another path; the system opens it once."""
    place = _file(full)[:2]
    return next((known for known in _loaded.values() if known.file[:2] == place), None)


def _check_unchanged(full: str, known: Loaded) -> None:
    if os.path.exists(full) and _file(full) != known.file:
        raise RegistrationError(
            f"the library {full} has changed since it was loaded",
            seen="another file under this path",
            fix="load it in a new process, or build it under another name",
        )


# -- registering --------------------------------------------------------------


def _check_names(lines: Sequence[Line]) -> None:
    """Refuse names that are taken, by others or twice in the library."""
    taken: dict[str, Source] = {n: d.op.source for n, d in DEFINITIONS.items()}
    for line in lines:
        name = line.schema.qualified_name
        if line.is_new and name in taken:
            raise DuplicateRegistrationError(
                f"{name} is defined already",
                op=line.schema,
                source=f"{taken[name]}; again at {line.plan.source}",
                fix=f'for another kernel of it write .schema = "{name}"',
            )
        if line.is_new:
            taken[name] = line.plan.source


def _register(lines: Sequence[Line], owners: list[Library]) -> None:
    by_space: dict[str, Library] = {}
    for line in lines:
        space = line.schema.qualified_name.partition("::")[0]
        if space not in by_space:
            by_space[space] = Library(space, "FRAGMENT")
            owners.append(by_space[space])
        _register_line(line, by_space[space]._owner)


def _register_line(line: Line, owner: object) -> None:
    name, plan = line.schema.qualified_name, line.plan
    if line.is_new:
        PARTS.defined(define_schema(line.schema, (), plan.source, owner))
    if line.is_new and plan.has_fake:
        put(name, "fake", Kernel(CFake(plan), plan.source, owner))
    put(name, line.key, Kernel(CKernel(plan), plan.source, owner, payload=True))


__all__ = ["get_include", "load_library"]

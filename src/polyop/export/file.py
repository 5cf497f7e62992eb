"""`save` and `load`: programs as files of data (S214).

A file is a zip: `program.json`, and raw little-endian bytes beside it. Nothing
is pickled, nothing is imported, and nothing of the file is run. A program calls
operators by name; they must be defined before, with the schema of then. Opaque
objects are made again by the classes of that name which are registered where
the file is read, with `__obj_unflatten__`, out of the data that `__obj_flatten__` gave.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from polyop.errors import PolyopError, ProgramFileError, first_line
from polyop.export.decode import Decoder, operators_of
from polyop.export.encode import Encoder
from polyop.export.program import Program

FORMAT = "polyop.program"
VERSION = 1
#: What a damaged or foreign file makes readers raise.
DAMAGE = (
    AttributeError, EOFError, KeyError, IndexError, OSError, OverflowError, RuntimeError,
    TypeError, UnicodeError, ValueError, ZeroDivisionError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a program to a file.

    Raises:
        ProgramFileError: the program holds what no file can hold, such as an opaque object
            without `__obj_flatten__` and `__obj_unflatten__`; nothing is written.
    """
    if not isinstance(program, Program):
        raise ProgramFileError("save takes a Program", seen=type(program).__name__,
                               fix="make one: polyop.export.export(f, args)")  # fmt: skip
    encoder = Encoder()
    try:
        body = encoder.program(program)
    except RecursionError:
        raise ProgramFileError("a constant of the program is nested too deeply") from None
    content = {
        "format": FORMAT, "version": VERSION, "operators": encoder.operators,
        "objects": encoder.objects, "program": body,
    }  # fmt: skip
    text = json.dumps(content, allow_nan=False, indent=1)
    # Beside the file first: a reader never meets half of it.
    target = Path(path)
    partial = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as file:
            file.writestr("program.json", text, zipfile.ZIP_DEFLATED)
            for number, data in enumerate(encoder.arrays):
                file.writestr(f"data/{number}", data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Program:
    """Read a program from a file.

    Raises:
        ProgramFileError: the file is damaged or of another version, or an operator is missing or
            has another schema; with the module to import.
        FileNotFoundError: there is no file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(file)
    except ProgramFileError as error:
        _name_file(error, path)
        raise
    except (*DAMAGE, PolyopError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it cannot be opened
        raise ProgramFileError(
            "the file is no program, or is damaged",
            seen=f"{type(error).__name__}: {first_line(error)}",
            source=path,
            fix="write it again: polyop.export.save(program, path)",
        ) from error


def _name_file(error: ProgramFileError, path: str | os.PathLike[str]) -> None:
    """Say in the text which file it was."""
    place = os.fspath(path)
    error.source = f"{error.source}; the file {place}" if error.source else f"{place}"
    error.args = (error._text(),)


def _read(file: zipfile.ZipFile) -> Program:
    content: dict[str, Any] = json.loads(file.read("program.json"))
    if content["format"] != FORMAT or content["version"] != VERSION:
        raise ProgramFileError(
            "the file has a format that is not known here",
            declared=f"{FORMAT} {VERSION}",
            seen=f"{content['format']} {content['version']}",
            fix="read it with the version of polyop that wrote it",
        )
    operators = operators_of(content["operators"])

    def arrays(number: int) -> bytes:
        return file.read(f"data/{number}")

    return Decoder(arrays, operators, content.get("objects", ())).program(content["program"])

"""Finding the operators of a file or module, and their samples."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from polyop.checking.derived import derived_samples
from polyop.checking.law import author_line
from polyop.checking.sample import Sample, sample_of
from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.registry import DEFINITIONS, as_operator
from polyop.dispatch.rules import check_samples
from polyop.errors import PolyopError, UsageError, first_line, text_of


@dataclass(frozen=True)
class Found:
    """An operator, its samples, and what is wrong with them, if anything."""

    op: OpOverload
    samples: tuple[Sample, ...]
    problem: str = ""


def find(target: str) -> list[Found]:
    """Load a file, folder or module, and give each operator that it defines.

    Args:
        target: the path of a Python file, of a folder of such files (those
            with operators in its own folders count), or the name of a module.

    Raises:
        UsageError: there is no such file or module, or it defines no operator.
    """
    found: dict[int, Found] = {}
    for one in _files(target) or [Path(target)]:
        known = set(DEFINITIONS)
        module = load(str(one) if one != Path(target) else target)
        for op in operators_of(module, known):
            found.setdefault(id(op), _with_samples(op, module))
    if not found:
        raise UsageError(
            f"{target} defines no operator",
            fix="name the file or module that calls polyop.custom_op or polyop.library",
        )
    return list(found.values())


def _files(target: str) -> list[Path]:
    """Give the files of a folder that is no package, and those of its folders with operators."""
    folder = Path(target)
    if not folder.is_dir() or (folder / "__init__.py").exists():
        return []
    return sorted([*folder.glob("*.py"), *filter(_defines, folder.glob("*/*.py"))])


def _defines(file: Path) -> bool:
    """Tell whether a file seems to define operators; a folder may hold scripts and packages too."""
    if (file.parent / "__init__.py").exists():
        return False
    text = file.read_text(errors="replace")
    return "custom_op(" in text or "Library(" in text


def load(target: str) -> ModuleType:
    """Run a file, or import a module.

    Raises:
        UsageError: there is no such file or module, or it fails while it is loaded.
    """
    try:
        return _load(target)
    except PolyopError:
        raise
    except (Exception, SystemExit) as error:  # the author's file may raise anything
        raise _not_loaded(target, error) from error


def _not_loaded(target: str, error: BaseException) -> UsageError:
    ended = isinstance(error, SystemExit)
    line = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else ""
    return UsageError(
        f"{target} ends the program while it is loaded" if ended else f"{target} cannot be loaded",
        seen=f"{type(error).__name__}: {first_line(error)}",
        source=line or author_line(error) or target,
        fix='put what a script does under `if __name__ == "__main__":`'
        if ended
        else "make it run by itself first",
    )


def _load(target: str) -> ModuleType:
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        return _load_file(path)
    if path.is_dir():
        target = str(path).strip("./").replace("/", ".")
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if not f"{target}.".startswith(f"{error.name}."):  # it is there, and what it imports is not
            raise
        raise UsageError(
            f"there is no module {target!r}",
            seen=str(error),
            fix="give the path of a file, or the dotted name of a module that can be imported",
        ) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", seen=str(path.absolute()))
    path = path.resolve()
    name = f"polyop_checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file", seen=path.suffix or "no suffix")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations and pickles of its classes are looked up there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


# -- operators ----------------------------------------------------------------


def operators_of(module: ModuleType, known: Iterable[str] = ()) -> list[OpOverload]:
    """Give the operators that a module's files define, or that it holds.

    Args:
        module: where they come from.
        known: the names that were defined before the module was loaded.
    """
    before = set(known)
    held = {id(op) for op in _held(module)}
    return [
        d.op
        for name, d in DEFINITIONS.items()
        if not d.op.is_builtin
        and not is_twin(d.op)
        and (name not in before or id(d.op) in held or _within(d.op.source.file, module))
    ]


def is_twin(op: OpOverload) -> bool:
    """Tell whether an operator is the functional twin that was made of another (S174)."""
    if not op._overloadname.endswith("functional") or op.packet is None:
        return False
    return any(other._schema.is_mutable for other in op.packet.op_overloads())


def _held(module: ModuleType) -> list[OpOverload]:
    return [v._opoverload for v in vars(module).values() if isinstance(v, CustomOpDef)]


def _within(file: str, module: ModuleType) -> bool:
    own = module.__file__
    if own is None:
        return False
    here = Path(own).resolve()
    there = Path(file).resolve()
    return there == here or (here.name == "__init__.py" and here.parent in there.parents)


# -- samples ------------------------------------------------------------------


def _with_samples(op: OpOverload, module: ModuleType) -> Found:
    try:
        given = samples_of(op, module)
        derived = () if given else derived_samples(op)
        if derived:
            return Found(op, derived)
        if not given:
            text = f"no samples; add @{op._opname}.samples, or a list {label(op)}_samples"
            return Found(op, (), f"{text} beside the operator")
        return Found(op, tuple([sample_of(op, *split(one)) for one in given]))
    except PolyopError as error:
        return Found(op, (), str(error))
    except (Exception, SystemExit) as error:  # the author's function may raise anything
        return Found(op, (), f"the samples raised {type(error).__name__}: {text_of(error)}")


def label(op: OpOverload) -> str:
    """Give an operator's name as the beginning of a variable's."""
    overload = op._schema.overload_name
    return f"{op._opname}_{overload}" if overload else op._opname


def samples_of(op: OpOverload, module: ModuleType) -> list[Any]:
    """Give an operator's samples: its rule, or a list in the module that defines it."""
    for given in (op.rule("samples"), *_beside(op, module)):
        if given is not None:
            return sample_list(op, given)
    return []


def sample_list(op: OpOverload, given: Any) -> list[Any]:
    """Give the samples of a list, or of a function that gives one.

    Raises:
        UsageTypeError: they are no list.
    """
    found = given() if callable(given) else given
    check_samples(op, found, op.rule_source("samples"))
    return list(found)


def _beside(op: OpOverload, module: ModuleType) -> list[Any]:
    homes = [module, *(m for m in list(sys.modules.values()) if _is_home(m, op))]
    found: list[Any] = []
    for home in homes:
        table = getattr(home, "SAMPLES", None)
        if isinstance(table, Mapping):
            found += [given for key, given in table.items() if _names(key, op)]
        names = [label(op), *(n for n, value in vars(home).items() if _is(value, op))]
        found += [getattr(home, f"{name}_samples", None) for name in names]
    return found


def _is(value: Any, op: OpOverload) -> bool:
    inner = value._opoverload if isinstance(value, CustomOpDef) else value
    return inner is op


def _is_home(module: Any, op: OpOverload) -> bool:
    return getattr(module, "__file__", None) == op.source.file


def _names(key: Any, op: OpOverload) -> bool:
    if isinstance(key, str):
        return key in {op.name(), op.name().partition("::")[2]}
    return _is(key, op) or (isinstance(key, OpOverloadPacket) and as_operator(key) is op)


def split(given: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Split one sample into positional arguments and arguments by name."""
    if isinstance(given, Mapping):
        return (), given
    if not isinstance(given, (tuple, list)):
        return (given,), {}
    if len(given) == 2 and isinstance(given[0], (tuple, list)) and isinstance(given[1], dict):
        return given[0], given[1]
    return given, {}

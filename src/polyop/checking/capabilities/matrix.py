"""The matrix: operators and libraries down, capabilities across."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from polyop.checking.capabilities.cells import CAPABILITIES, Cell, Kind, cell_of
from polyop.checking.capabilities.subject import Subject
from polyop.checking.find import Found
from polyop.checking.law import DoesNotApply
from polyop.checking.run import own_samples
from polyop.checking.sample import Sample
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator
from polyop.errors import UsageError, nearest
from polyop.lazy import load
from polyop.schema.tags import Tag


class Trier(Protocol):
    """What tries the capabilities on one library: a method for each that it knows."""

    def __init__(self, subjects: Sequence[Subject]) -> None: ...

    def trial(self, capability: str) -> Callable[[], str | None]:
        """Give what tries a capability."""


#: Where each library's trials are, and whether its arrays are ever written.
TRIERS = {
    "numpy": ("polyop.checking.capabilities.on_numpy:OnNumpy", True),
    "torch": ("polyop.checking.capabilities.on_torch:OnTorch", True),
    "jax": ("polyop.checking.capabilities.on_jax:OnJax", False),
    "dask": ("polyop.checking.capabilities.on_dask:OnDask", False),
}
#: So many samples of an operator are tried.
SAMPLES = 3
MARKS: dict[Kind, str] = {
    "works": "yes",
    "refused": "refused",
    "wrong": "WRONG",
    "fails": "FAILS",
    "not applicable": "-",
    "not installed": "not installed",
}


@dataclass(frozen=True)
class Matrix:
    """What operators can do on libraries.

    Attributes:
        cells: by operator, library and capability.
        problems: by operator: why it could not be tried.
    """

    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all operators were tried, and no cell is a fault."""
        return not self.problems and all(cell.ok for cell in self.cells.values())

    def cell(self, op: Any, library: str, capability: str) -> Cell:
        """Give one cell.

        Raises:
            UsageError: there is none.
        """
        name = op if isinstance(op, str) else as_operator(op).name()
        for word, known in ((library, self.libraries), (capability, CAPABILITIES)):
            if word not in known:
                raise UsageError(f"there is no {word!r}{nearest(word, known)}", op=name)
        if (name, library, capability) not in self.cells:
            raise UsageError(f"{name} is not in this matrix", seen=", ".join(self.operators))
        return self.cells[name, library, capability]

    @property
    def operators(self) -> list[str]:
        """The names of the operators that were tried."""
        return list(dict.fromkeys(name for name, _, _ in self.cells))

    @property
    def libraries(self) -> list[str]:
        """The names of the libraries."""
        return list(dict.fromkeys(library for _, library, _ in self.cells))

    def rows(self) -> Iterator[tuple[str, str, list[Cell]]]:
        """Give each row: the operator, the library, and a cell for each capability."""
        for op in self.operators:
            for library in self.libraries:
                yield op, library, [self.cells[op, library, c] for c in CAPABILITIES]

    def faults(self) -> list[str]:
        """Say what is wrong, a line for each cell."""
        found = [
            f"{op} on {library}, {capability}: {cell.kind}: {cell.reason}"
            for (op, library, capability), cell in self.cells.items()
            if not cell.ok
        ]
        return found + [f"{op}: {why}" for op, why in self.problems.items()]

    def data(self) -> dict[str, Any]:
        """Give the matrix as data."""
        return {
            "ok": self.ok,
            "operators": {
                op: {
                    library: {
                        c: {"kind": self.cells[op, library, c].kind,
                            "reason": self.cells[op, library, c].reason}
                        for c in CAPABILITIES
                    }
                    for library in self.libraries
                }
                for op in self.operators
            },
            "problems": dict(self.problems),
        }  # fmt: skip

    def markdown(self) -> str:
        """Write the matrix as a table, with the reasons of refusals below it."""
        notes: dict[str, int] = {}
        head = ["operator", "on", *CAPABILITIES]
        lines = [head, ["---"] * len(head)]
        last = ""
        for op, library, cells in self.rows():
            marks = [_mark(cell, notes) for cell in cells]
            lines.append([f"`{op}`" if op != last else "", library, *marks])
            last = op
        table = [f"| {' | '.join(line)} |" for line in lines]
        below = [f"{n}. {_escaped(text)}" for text, n in notes.items()]
        problems = [f"- `{op}`: {_escaped(why)}" for op, why in self.problems.items()]
        return "\n".join([*table, "", *below, *problems]).rstrip() + "\n"

    def __str__(self) -> str:
        notes: dict[str, int] = {}
        lines = [["operator", "on", *CAPABILITIES]]
        for op, library, cells in self.rows():
            lines.append([op, library, *[_mark(cell, notes) for cell in cells]])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        below = [f"[{n}] {text}" for text, n in notes.items()]
        return "\n".join([*rows, "", *below, *(f"{o}: {w}" for o, w in self.problems.items())])

    __repr__ = __str__


def _mark(cell: Cell, notes: dict[str, int]) -> str:
    mark = MARKS[cell.kind]
    if not cell.reason or cell.kind in {"not applicable", "not installed"}:
        return mark
    return f"{mark} [{notes.setdefault(cell.reason, len(notes) + 1)}]"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


# -- filling it ---------------------------------------------------------------------------------


def capabilities(op: Any, on: str | Iterable[str] | None = None) -> Matrix:
    """Find out what an operator can do on which library, with its own samples.

    Args:
        op: the operator, in any form.
        on: the names of libraries, `"numpy"`, `"torch"`, `"jax"`, `"dask"`; all without it. A
            library is imported for this.

    Returns:
        A `Matrix`: its text is a table, `cell(op, library, capability)` is one result.

    Raises:
        UsageError: an unknown library, or an operator without samples.
    """
    found = as_operator(op)
    return matrix_of([Found(found, tuple(own_samples(found)))], chosen_libraries(on))


def chosen_libraries(on: str | Iterable[str] | None) -> list[str]:
    """Give the names of libraries; all without names.

    Raises:
        UsageError: an unknown library.
    """
    if on is None:
        return list(TRIERS)
    names = [n.strip() for n in on.split(",")] if isinstance(on, str) else list(on)
    for name in names:
        if name not in TRIERS:
            raise UsageError(
                f"there is no library {name!r}{nearest(name, TRIERS)}",
                declared=", ".join(TRIERS),
                seen=name,
            )
    return list(dict.fromkeys(names))


def matrix_of(
    found: Sequence[Found], libraries: Sequence[str], tell: Callable[[str], object] = str
) -> Matrix:
    """Try operators on libraries.

    Args:
        found: operators and their samples.
        libraries: names of libraries.
        tell: is told what is tried now.
    """
    matrix = Matrix()
    for one in found:
        name = one.op.name()
        if one.problem:
            matrix.problems[name] = one.problem
            continue
        for library in libraries:
            tell(f"{name} on {library}")
            for capability, cell in _row(one.op, one.samples, library).items():
                matrix.cells[name, library, capability] = cell
    return matrix


def _row(op: OpOverload, samples: Sequence[Sample], library: str) -> dict[str, Cell]:
    place, writes = TRIERS[library]
    if not _is_installed(library):
        return dict.fromkeys(CAPABILITIES, Cell("not installed", f"{library} is not installed"))
    try:
        trier: Any = load(place)
    except ImportError as error:
        return dict.fromkeys(CAPABILITIES, Cell("not installed", str(error)))
    twin = op._schema.is_mutable and not writes
    chosen = sorted(samples, key=_asks_less)[:SAMPLES]
    tries: Trier = trier([Subject(op, sample, twin) for sample in chosen])
    return {name: cell_of(_guarded(op, name, tries.trial(name))) for name in CAPABILITIES}


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):  # somebody keeps it away, or has put None in its place
        return False


def _asks_less(sample: Sample) -> bool:
    """Put samples that ask for gradients first."""
    return not any(t.requires_grad for t in sample.tensors())


def _guarded(
    op: OpOverload, capability: str, trial: Callable[[], str | None]
) -> Callable[[], str | None]:
    """Leave out what says nothing of an operator."""

    def guarded() -> str | None:
        if capability == "mutation" and not op._schema.is_mutable:
            raise DoesNotApply("the operator writes nothing")
        if capability == "data-dependent sizes" and Tag.dynamic_output_shape not in op.tags:
            raise DoesNotApply("the sizes of the results do not depend on data")
        return trial()

    return guarded

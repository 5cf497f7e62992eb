"""The command `polyop`: check operators, show one, list all."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from polyop.checking.capabilities import Matrix, matrix_of
from polyop.checking.capabilities.matrix import chosen_libraries
from polyop.checking.find import Found, find, load
from polyop.checking.law import LAWS, Law
from polyop.checking.page import page_of
from polyop.checking.report import data_of, print_report
from polyop.checking.run import OperatorReport, check_operator, chosen_laws
from polyop.checking.stubs import write_stubs
from polyop.dispatch.dumps import dump, dump_table
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, find_operator, find_packet, split_name
from polyop.errors import OperatorNotFoundError, PolyopError, UsageError

OK, BROKEN, MISUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status.

    0 is all well, 1 a broken law or an operator that could not be checked,
    2 a wrong use of the command.
    """
    options = parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except PolyopError as error:
        print(error, file=sys.stderr)
        return MISUSED
    except BrokenPipeError:
        # Who read the output has seen enough; what is left must not raise at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
        return OK
    return status


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="polyop", description="Operators, checked and shown.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_check(
        commands.add_parser("check", help="try the laws on the operators of files or modules")
    )
    _add_show(commands.add_parser("show", help="show an operator: schema, rules, dispatch table"))
    _add_list(commands.add_parser("list", help="list operators"))
    _add_stubs(
        commands.add_parser("stubs", help="write typed stubs of the operators of files or modules")
    )
    return top


# -- check --------------------------------------------------------------------


def _add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("targets", nargs="+", metavar="FILE_OR_MODULE")
    command.add_argument(
        "--law", action="append", metavar="NAME", help="only this law; may be given again"
    )
    command.add_argument("--html", metavar="PAGE", help="write the report as a page")
    command.add_argument("--json", metavar="FILE", help="write the report as data; - is stdout")
    command.add_argument("--quiet", action="store_true", help="print failures only")
    command.add_argument(
        "--on",
        metavar="LIBRARIES",
        help="show instead what each operator can do on these: numpy,torch,jax,dask",
    )
    command.add_argument("--markdown", metavar="FILE", help="with --on: write the table; - prints")
    command.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    """Try the laws, print and write the report."""
    if options.on is not None:
        return check_on(options)
    laws = chosen_laws(law_names(options.law))
    found = [one for target in options.targets for one in find(target)]
    reports = list(reports_of(found, laws, quiet=options.quiet))
    if options.json == "-":
        print(json.dumps(data_of(reports), indent=2))
    else:
        print_report(reports, Console(), quiet=options.quiet)
    if options.json and options.json != "-":
        write(options.json, json.dumps(data_of(reports), indent=2) + "\n")
    if options.html:
        write(options.html, page_of(reports))
    return OK if all(report.ok for report in reports) else BROKEN


def write(file: str, text: str) -> None:
    """Write a report to a file.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {file}",
            seen=str(error),
            fix="name a file in a folder that is there and may be written",
        ) from error


def check_on(options: argparse.Namespace) -> int:
    """Find out what operators can do on array libraries, and print or write the matrix."""
    libraries = chosen_libraries(options.on)
    found = [one for target in options.targets for one in find(target)]
    with _progress(quiet=options.quiet) as bar:
        task = bar.add_task("checking", total=len(found) * len(libraries))

        def tell(what: str) -> None:
            bar.update(task, description=f"checking {what}", advance=1)

        matrix = matrix_of(found, libraries, tell)
    if options.markdown and options.markdown != "-":
        write(options.markdown, page(matrix, options.targets, libraries))
    if options.json and options.json != "-":
        write(options.json, json.dumps(matrix.data(), indent=2) + "\n")
    if options.markdown == "-":
        print(matrix.markdown(), end="")
    elif options.json == "-":
        print(json.dumps(matrix.data(), indent=2))
    elif not options.quiet:
        print(matrix)
    print("\n".join(matrix.faults()), file=sys.stderr, end="\n" if matrix.faults() else "")
    return OK if matrix.ok else BROKEN


def page(matrix: Matrix, targets: Sequence[str], libraries: Sequence[str]) -> str:
    """Write a page that holds a matrix, and says how it was made."""
    command = f"polyop check {' '.join(targets)} --on {','.join(libraries)}"
    return f"{PAGE.format(command=command)}\n{matrix.markdown()}"


PAGE = """# What each operator can do on which library

Made by `{command}`, which runs each operator on its own samples and compares every result with
NumPy's. *yes*: done, with the same results. *refused*: an error of polyop says why it cannot be.
*-*: it says nothing of this operator.
"""


def _progress(*, quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=quiet or not console.is_terminal)


def law_names(given: Sequence[str] | None) -> list[str] | None:
    """Read the names of laws; `test_` may be left out."""
    if given is None:
        return None
    return [
        name if name in LAWS or f"test_{name}" not in LAWS else f"test_{name}" for name in given
    ]


def reports_of(
    found: Sequence[Found], laws: Sequence[Law], *, quiet: bool
) -> Iterator[OperatorReport]:
    """Check one operator after another, and show how far it is."""
    with _progress(quiet=quiet) as bar:
        task = bar.add_task("checking", total=len(found))
        for one in found:
            bar.update(task, description=f"checking {one.op.name()}")
            yield check_operator(one.op, one.samples, laws, problem=one.problem)
            bar.advance(task)


# -- show and list ------------------------------------------------------------


def _add_show(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="ns::name, or ns::name.overload")
    command.add_argument("--load", action="append", default=[], metavar="FILE_OR_MODULE")
    command.set_defaults(run=show)


def show(options: argparse.Namespace) -> int:
    """Print all overloads of a name with their rules and tables."""
    for target in options.load:
        load(target)
    try:
        chosen = chosen_operators(options.name)
    except OperatorNotFoundError as error:
        raise OperatorNotFoundError(
            error.problem, fix="give the file or module that defines it: --load FILE_OR_MODULE"
        ) from None
    for op in chosen:
        print("\n".join(description(op)))
    return OK


def chosen_operators(text: str) -> list[OpOverload]:
    """Find all overloads of a name, or the one that is named, perhaps in one version."""
    name, overload, version = split_name(text)
    if "." in text or version:
        return [find_operator(name, overload, version)]
    return find_packet(name).op_overloads()


def description(op: OpOverload) -> list[str]:
    """Describe an operator, line by line."""
    rules = [f"  {line}" for line in dump(op.name(), op.places).splitlines()[1:]]
    tags = ", ".join(tag.name for tag in op.tags) or "none"
    table = dump_table(op.name(), op.kernels()).splitlines()[1:]
    return [
        str(op._schema),
        f"  defined: {op.source}",
        f"  tags: {tags}",
        "rules:",
        *rules,
        "dispatch table:",
        *(f"  {line}" for line in table),
    ]


def _add_list(command: argparse.ArgumentParser) -> None:
    command.add_argument("namespace", nargs="?", help="only this namespace")
    command.add_argument("--load", action="append", default=[], metavar="FILE_OR_MODULE")
    command.set_defaults(run=list_operators)


def list_operators(options: argparse.Namespace) -> int:
    """Print the schemas of all operators, or of one namespace."""
    for target in options.load:
        load(target)
    for definition in sorted(DEFINITIONS.values(), key=lambda d: d.op.name()):
        if options.namespace in {None, definition.op.namespace}:
            print(definition.op._schema)
    return OK


def _add_stubs(command: argparse.ArgumentParser) -> None:
    command.add_argument("targets", nargs="+", metavar="FILE_OR_MODULE")
    command.add_argument(
        "--output",
        default=".",
        metavar="FOLDER",
        help="where NAMESPACE.pyi and NAMESPACE.py go; the current folder by default",
    )
    command.set_defaults(run=stubs)


def stubs(options: argparse.Namespace) -> int:
    """Write stubs, and the modules that they are of, for the namespaces of some operators."""
    found = [one.op for target in options.targets for one in find(target)]
    for path in write_stubs(found, Path(options.output), options.targets):
        print(path)
    return OK


if __name__ == "__main__":
    sys.exit(main())

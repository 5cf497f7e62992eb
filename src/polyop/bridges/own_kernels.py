"""An author's kernel for the arrays of one library runs on these arrays themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.body import Form, result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.library_kernels import library_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Kernel
from polyop.errors import AliasError, ReturnError
from polyop.layers.payloads.facts import library_in, tensors
from polyop.payloads.exchange import from_numpy
from polyop.payloads.held import Held, of_held
from polyop.payloads.libraries import library_of
from polyop.payloads.library import Library
from polyop.tensor.storage import bump
from polyop.tensor.tensor import Tensor


def own_kernel(op: OpOverload, args: Sequence[Any]) -> Kernel | None:
    """Give the kernel that an operator has for the arrays in a call; None if it has none."""
    library, like = library_in(op, args)
    return library_kernel(op, library.name, library.device(like).type)


def run_own(op: OpOverload, kernel: Kernel, args: Sequence[Any]) -> Any:
    """Run a library's kernel on the arrays in a call; its results are tensors over arrays.

    Raises:
        ReturnError: a result is no array of the library, or there are more or fewer.
        AliasError: a result shares memory with an argument.
    """
    library, like = library_in(op, args)

    def bare(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        return t.payload.array if t.payload.__class__ is Held else from_numpy(
            library, t.payload, like
        )  # fmt: skip

    given = [tree.map_leaves(bare, value) for value in args]
    out = run_under(word().in_kernel, call_own, op, kernel, given)
    for argument, value in zip(op._schema.arguments, args, strict=True):
        for t in tensors(value) if argument.is_write else ():
            bump(t)
    rows = checked(op, kernel, library, given, out)
    made = [
        args[i] if kind == "argument" else tree.map_leaves(_over(library), one)
        for (kind, i), one in zip(result_forms(op._schema), rows, strict=True)
    ]
    return made[0] if len(made) == 1 else tuple(made) if made else None


def call_own(op: OpOverload, kernel: Kernel, given: Sequence[Any]) -> Any:
    """Call a kernel with arguments in the order of the schema."""
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    assert kernel.fn is not None
    return kernel.fn(*given[:n], **dict(zip(names, given[n:], strict=True)))


def _over(library: Library) -> Any:
    return lambda x: of_held(Held(x, library)) if library_of(x) is library else x


def checked(
    op: OpOverload, kernel: Kernel, library: Library, given: Sequence[Any], out: Any
) -> list[Any]:
    """Give the results of a kernel, each for itself.

    Raises:
        ReturnError: one is no array of the library, or there are more or fewer than declared.
        AliasError: one shares memory with an argument.
    """
    forms: Sequence[Form] = result_forms(op._schema)
    rows = [out] if len(forms) == 1 else list(out) if isinstance(out, tuple | list) else []
    if len(rows) != len(forms):
        _refuse(op, kernel, f"{len(forms)} results", type(out).__name__)
    inputs = [x for x in tree.leaves(list(given)) if library_of(x) is library]
    for (kind, _), row in zip(forms, rows, strict=True):
        if kind not in {"new", "list"}:
            continue
        many = kind == "list" and isinstance(row, tuple | list)
        for x in row if many else [row]:
            if library_of(x) is not library:
                _refuse(op, kernel, f"an array of {library.name}", type(x).__name__)
            if library.writes and any(library.shares(x, y) for y in inputs):
                raise AliasError(
                    f"the kernel of {op.name()} for {library.name} returned memory of an argument",
                    op=op._schema,
                    source=kernel.source,
                    fix="return a copy",
                )
    return rows


def _refuse(op: OpOverload, kernel: Kernel, declared: str, seen: str) -> NoReturn:
    extra = " (NumPy's: a kernel of a library returns what it got)" if seen == "ndarray" else ""
    raise ReturnError(
        f"the kernel of {op.name()} for one library's arrays gave something else",
        op=op._schema,
        declared=declared,
        seen=seen + extra,
        source=kernel.source,
        fix="return arrays of the library that the kernel is registered for",
    )


__all__ = ["call_own", "checked", "own_kernel", "run_own"]

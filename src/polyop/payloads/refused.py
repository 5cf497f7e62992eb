"""Arrays that no tensor can be over are refused where they are arguments: by their names."""

from __future__ import annotations

from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError
from polyop.payloads.library import Array, Library


def check_argument(op: OpOverload, name: str, library: Library, array: Array) -> None:
    """Refuse an array that is sparse, quantized, or of a dtype that NumPy has not.

    Args:
        op: the operator that is called.
        name: of the argument.
        library: whose array it is.
        array: the argument, or what is in its list.

    Raises:
        ArgumentError: it names operator and argument, and says what to give.
    """
    try:
        library.check(array)
        library.dtype(array)
    except ArgumentError as error:
        raise ArgumentError(
            f"{op.name()} cannot take its argument {name!r}: {error.problem}",
            op=op._schema,
            argument=name,
            declared=error.declared,
            seen=error.seen,
            source=op.source,
            fix=error.fix,
        ) from None

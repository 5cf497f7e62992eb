"""What is said of a function that cannot be captured: why, at which line, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from typing import Any, NoReturn

from polyop.compile.recording import DataLook, SideEffect
from polyop.errors import (
    CaptureError,
    FakeError,
    MissingRuleError,
    ObjectError,
    PolyopError,
    SubgraphError,
    first_line,
)
from polyop.source import PACKAGE, Source, source_of
from polyop.symbolic import ShapeEnv

#: Errors of captures, which an eager call need not raise.
OF_CAPTURES = (CaptureError, FakeError, MissingRuleError, ObjectError, SubgraphError)
#: The way out of all refusals.
_IN_PARTS = "compile without fullgraph=True"


def refuse_unknown_sizes(error: BaseException, env: ShapeEnv) -> None:
    """Tell an error of the function, which an eager call raises too, from one about its sizes.

    Args:
        error: what it raised in a capture.
        env: the sizes there.

    Raises:
        CaptureError: some size depends on data, for which Python fails in places.
    """
    if not env.origins or isinstance(error, OF_CAPTURES) or not isinstance(error, Exception):
        return
    raise CaptureError(
        f"with a size that is known only at run time it raises {told(error)}",
        op=getattr(error, "op", ""),
        source=raised_at(error) or "",
        fix=f"make an operator of what needs the size (polyop.custom_op), or {_IN_PARTS}",
    ) from error


def explained(fn: Any, error: BaseException) -> CaptureError:
    """Make the error of `fullgraph=True` for what ended a capture."""
    problem = f"{_name_of(fn)} cannot be captured as one graph: "
    if isinstance(error, DataLook):
        return CaptureError(
            f"{problem}{error.what}() looks at data",
            source=error.place,
            fix="make an operator of what looks at data (polyop.custom_op, with a fake rule), "
            f"or {_IN_PARTS}",
        )
    assert isinstance(error, PolyopError)
    return CaptureError(
        problem + error.problem,
        op=error.op,
        source=raised_at(error) or error.source or written_at(fn),
        fix=error.fix or _IN_PARTS,
    )


def refuse_gradient(error: Exception) -> NoReturn:
    """Refuse a function whose gradient raises; an eager call takes no gradient.

    Raises:
        CaptureError: always.
    """
    problem = error.problem if isinstance(error, PolyopError) else told(error)
    raise CaptureError(
        f"its gradient cannot be captured: {problem}",
        source=raised_at(error) or getattr(error, "source", ""),
        fix=getattr(error, "fix", ""),
    ) from error


def not_seen(what: str) -> SideEffect:
    """Make the error for what a function reads and nobody can look at."""
    return SideEffect(
        f"the function reads {what}, whose state cannot be looked at",
        fix="pass what it needs as an argument",
    )


def run_for(error: Exception, fn: Callable[..., Any], args: Any, kwargs: Any) -> NoReturn:
    """Call the function for the exception that it raised in the capture too.

    Raises:
        CaptureError: the call raised none, so that was about what stands for tensors there.
    """
    fn(*args, **kwargs)
    raise CaptureError(
        f"{_name_of(fn)} cannot be captured as one graph: in a capture it raises {told(error)}, "
        "and not in an eager call, as this one was",
        source=raised_at(error) or written_at(fn),
        fix=f"ask of tensors what their methods tell, and not their payload, or {_IN_PARTS}",
    ) from error


def raised_at(error: BaseException) -> Source | None:
    """Give the innermost line of the user's code on the way to where an error was raised."""
    found = None
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith((PACKAGE, "<polyop ")):
            found = Source(file, line)
    return found


def written_at(fn: Any) -> Source:
    """Give the place where the user's function is written, which those of ours close over."""
    code = getattr(fn, "__code__", None)
    while code is not None and code.co_filename.startswith(PACKAGE) and "fn" in code.co_freevars:
        fn = fn.__closure__[code.co_freevars.index("fn")].cell_contents
        code = getattr(fn, "__code__", None)
    return source_of(fn)


def _name_of(fn: Any) -> str:
    return getattr(fn, "__name__", "the function")


def told(error: Exception) -> str:
    """Give the class and the first line of an error."""
    kind, text = type(error).__name__, first_line(error)
    return f"{kind} ({text})" if text else kind

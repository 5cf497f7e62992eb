"""Every exception and warning of polyop, as one tree.

An error is an interface: it says what is wrong, in which operator and
argument, what was declared, what was seen, where the rule concerned was
registered, and what to do. Each part is also an attribute, so that reports
and tests need not read the text. Each class is a built-in class too, so that
handlers written for other libraries keep working (SPEC S1, S2).
"""

from __future__ import annotations

from collections.abc import Iterable

from polyop.lazy import load


class PolyopError(Exception):
    """Base of every error that a user's mistake causes.

    Args:
        problem: one sentence, what is wrong.
        op: the operator, with its overload.
        argument: the argument's name, with its position where it has one.
        declared: what was declared.
        seen: what was seen: type, value or shape.
        source: file and line of the registration concerned.
        fix: one sentence, what to do.
    """

    def __init__(
        self,
        problem: str,
        *,
        op: object = "",
        argument: object = "",
        declared: object = "",
        seen: object = "",
        source: object = "",
        fix: str = "",
    ) -> None:
        self.problem = problem
        self.op = str(op)
        self.argument = str(argument)
        self.declared = str(declared)
        self.seen = str(seen)
        self.source = str(source)
        self.fix = fix
        super().__init__(self._text())

    def _text(self) -> str:
        parts = {
            "operator": self.op,
            "argument": self.argument,
            "declared": self.declared,
            "seen": self.seen,
            "where": self.source,
            "fix": self.fix,
        }
        lines = [f"  {name + ':':<10}{text}" for name, text in parts.items() if text]
        return "\n".join([self.problem, *lines])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(
    cls: type[PolyopError], args: tuple[object, ...], state: dict[str, object]
) -> PolyopError:
    """Make an error again in another process, without its constructor."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def nearest(name: object, known: Iterable[object]) -> str:
    """Give `; did you mean 'x'?`, or nothing if no known name is near (S3)."""
    near = load("difflib:get_close_matches")(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def an(word: object) -> str:
    """Give a word behind its article."""
    return f"{'an' if str(word)[:1].lower() in {*'aeiou'} else 'a'} {word}"


# -- declarations -------------------------------------------------------------


class SchemaSyntaxError(PolyopError, RuntimeError, ValueError):
    """Schema text that is not in the language of schemas."""


class InferenceError(PolyopError, ValueError):
    """Annotations, `mutates_args` or tags that give no schema."""


class UsageError(PolyopError, ValueError, RuntimeError):
    """An option, name or value that is not valid here."""


class UsageTypeError(UsageError, TypeError):
    """An object of the wrong type."""


class RegistrationError(PolyopError, RuntimeError):
    """A registration that was refused; nothing has changed."""


class DuplicateRegistrationError(RegistrationError, AssertionError):
    """Something is registered there already."""


class LibraryGoneError(RegistrationError, AssertionError):
    """A library that was destroyed."""


# -- lookups ------------------------------------------------------------------


class OperatorNotFoundError(PolyopError, AttributeError, RuntimeError):
    """No operator, overload or namespace of that name."""


class OperatorGoneError(PolyopError, RuntimeError):
    """A handle of an operator that was removed."""


# -- calls --------------------------------------------------------------------


class ArgumentError(PolyopError, RuntimeError, TypeError, ValueError):
    """An argument that does not fit the schema."""


class OutOfRangeError(ArgumentError, IndexError):
    """An axis or an index that is not there."""


class IntegerRangeError(ArgumentError, OverflowError):
    """An integer that is greater or less than all of its kind."""


class ReturnError(PolyopError, RuntimeError, TypeError):
    """A kernel's results do not fit the schema."""


class AliasError(ReturnError):
    """A result shares storage that the schema does not declare as shared."""


class MutationError(PolyopError, RuntimeError):
    """A write that is not declared, or not allowed."""


class KernelError(PolyopError, RuntimeError):
    """A kernel of a library in C reports an error."""


class UnhandledDispatchError(PolyopError, TypeError):
    """Every handler returned `NotImplemented`."""


class ModeError(PolyopError, RuntimeError, AssertionError):
    """A mode stack used in a wrong way."""


class AmbiguousKernelError(PolyopError, RuntimeError):
    """Two kernels claim one entry of the dispatch table."""


class MissingRuleError(PolyopError, NotImplementedError):
    """A layer met an operator that has no rule for it."""


class MissingKernelError(MissingRuleError):
    """No kernel for the key of this call."""


class MissingFakeError(MissingRuleError):
    """No fake rule."""


class MissingGradientError(MissingRuleError):
    """No backward rule."""


class MissingSchemaError(MissingRuleError):
    """A higher-order operator without a schema of its own."""


# -- layers -------------------------------------------------------------------


class AutogradError(PolyopError, RuntimeError):
    """A gradient that cannot be computed."""


class GradcheckError(AutogradError):
    """A gradient that differs from finite differences."""


class FakeError(PolyopError, RuntimeError):
    """Fake tensors used in a wrong way."""


class DynamicOutputShapeError(FakeError):
    """A size that depends on data, where none is allowed."""


class DataDependentOutputError(FakeError):
    """A look at data that does not exist."""


class GuardOnDataDependentError(FakeError):
    """A branch on a size that depends on data."""


class MetadataMismatchError(FakeError):
    """A fake result differs from the real one."""


class VmapError(PolyopError, RuntimeError, ValueError):
    """A batch that does not fit."""


class SubgraphError(PolyopError, RuntimeError, ValueError):
    """A branch or body of a higher-order operator that is not valid."""


class DelegateError(PolyopError, RuntimeError, ValueError):
    """A delegate used in a wrong way."""


class ProgramFileError(PolyopError, RuntimeError, ValueError):
    """A saved program that cannot be written or read."""


class ObjectError(PolyopError, RuntimeError, AttributeError):
    """An opaque or fake object used in a wrong way."""


class CaptureError(PolyopError, RuntimeError):
    """A function that cannot be captured as a graph."""


class GraphError(PolyopError, RuntimeError, ValueError):
    """A graph that is not well formed."""


class OpCheckError(PolyopError, AssertionError):
    """A law that an operator breaks."""


# -- warnings -----------------------------------------------------------------


class PolyopWarning(UserWarning):
    """Base of polyop's warnings."""


class PerformanceWarning(PolyopWarning):
    """A slow way was taken, and a faster one can be had; told once per operator and cause."""


class GradientWarning(PolyopWarning):
    """A gradient ends where the program may not mean it to."""


def text_of(error: BaseException) -> str:
    """Give what an error says, or that it fails to say it."""
    try:
        return str(error)
    except Exception as again:  # an author's class may do anything
        return f"(its text cannot be made: {type(again).__name__})"


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says; nothing if it says nothing."""
    return text_of(error).strip().partition("\n")[0]

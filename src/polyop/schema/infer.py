"""The schema of a Python function, from its signature (SPEC S16 to S26)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache, partial
from types import FunctionType
from typing import Any, TypeAlias

from polyop.errors import InferenceError, SchemaSyntaxError, UsageTypeError, nearest
from polyop.schema.annotations import Unsupported, annotation_type, returnable, show
from polyop.schema.hints import Scope, UnknownNameError
from polyop.schema.literals import Fault
from polyop.schema.model import MISSING, AliasInfo, Argument, FunctionSchema, alias
from polyop.schema.parse import read_name
from polyop.schema.tags import Tags, as_tags, with_tag_aliases
from polyop.schema.types import TupleType, Type, holds_tensor
from polyop.schema.values import Mismatch, fit_default

MutatesArgs: TypeAlias = str | Iterable[str]
UNKNOWN = "unknown"

_Parameter = inspect.Parameter
_EMPTY = _Parameter.empty
_REFUSED = {
    _Parameter.POSITIONAL_ONLY: ("is positional-only", "remove the '/'"),
    _Parameter.VAR_POSITIONAL: ("takes any number of values", "write a list: xs: list[Tensor]"),
    _Parameter.VAR_KEYWORD: ("takes any keywords", "write the arguments out, or a dict"),
}


def infer_schema(
    fn: Callable[..., Any],
    /,
    *,
    mutates_args: MutatesArgs,
    op_name: str | None = None,
    tags: Tags = (),
) -> str:
    """Give the schema text of a function, from its annotations.

    Args:
        fn: a callable with annotations.
        mutates_args: the names of the arguments that it writes, or `"unknown"`.
        op_name: the name to put in front of the text.
        tags: the operator's tags; two of them say what the returns share.

    Raises:
        InferenceError: if annotations, `mutates_args` or tags give no schema.

    Example:
        >>> def scale(x: float, by: int = 2) -> float: ...
        >>> infer_schema(scale, mutates_args=())
        '(float x, SymInt by=2) -> float'
    """
    if op_name is not None and not isinstance(op_name, str):
        raise UsageTypeError("an operator's name is text", seen=f"{op_name!r:.80}")
    schema = infer(fn, mutates_args=mutates_args, name=op_name or "op", tags=tags)
    return str(schema) if op_name else str(schema).removeprefix("op")


def infer(
    fn: Callable[..., Any],
    *,
    mutates_args: MutatesArgs,
    name: str = "ns::op",
    tags: Tags = (),
    parsed: tuple[str, str, int] | None = None,
) -> FunctionSchema:
    """Give the schema of a function, from its annotations.

    Args:
        fn: a callable with annotations.
        mutates_args: the names of the arguments that it writes, or `"unknown"`.
        name: `[ns::]name[.overload][@version]`.
        parsed: the same as name, overload and version, if the caller has read it already.
        tags: the operator's tags; two of them say what the returns share.

    Raises:
        InferenceError: if annotations, `mutates_args` or tags give no schema.
    """
    reading = _Reading(fn, name)
    arguments = reading.arguments()
    written = reading.written(arguments, mutates_args)
    if written:
        arguments = tuple(
            _with_alias(a, alias(f"a{i}", write=True)) if a.name in written else a
            for i, a in enumerate(arguments)
        )
    op, overload, version = parsed or _name(name)
    schema = FunctionSchema(op, overload, version, arguments, reading.returns())
    return with_tag_aliases(schema, as_tags(tags)) if tags else schema


def _with_alias(a: Argument, info: AliasInfo) -> Argument:
    return Argument(a.name, a.type, info, a.default_value, a.kwarg_only)


@lru_cache(maxsize=1024)
def _name(text: str) -> tuple[str, str, int]:
    try:
        name, overload, version, end = read_name(text)
        if end < len(text):
            raise Fault("expected the end of the name", end)
    except Fault as fault:
        fix = "write 'ns::name', 'ns::name.overload' or 'ns::name@2'"
        raise SchemaSyntaxError(f"{text!r} is no name: {fault.problem}", fix=fix) from None
    return name, overload, version


class _Reading:
    """One function while it is read: its signature and its names."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name
        self.scope = Scope(fn)

    @cached_property
    def signature(self) -> inspect.Signature:
        """What `inspect` says of the function."""
        try:
            return inspect.signature(self.fn)
        except TypeError:
            raise UsageTypeError("not a callable", op=self.name, seen=repr(self.fn)) from None
        except ValueError:
            problem = "this callable has no signature to read"
            raise InferenceError(problem, op=self.name, fix="give `schema=`") from None

    def parameters(self) -> Iterator[tuple[str, Any, Any, Any]]:
        """Give name, kind, annotation and default of each parameter."""
        fn = self.fn
        if type(fn) is not FunctionType or fn.__code__.co_flags & _VARIADIC or _odd(fn):
            for p in self.signature.parameters.values():
                yield p.name, p.kind, p.annotation, p.default
            return
        # A plain function says it all itself, at a tenth of what `inspect` takes.
        code, hints, defaults = fn.__code__, fn.__annotations__, fn.__defaults__ or ()
        first = code.co_argcount - len(defaults)
        for i, name in enumerate(code.co_varnames[: code.co_argcount]):
            default = defaults[i - first] if i >= first else _EMPTY
            yield name, _Parameter.POSITIONAL_OR_KEYWORD, hints.get(name, _EMPTY), default
        keyword_defaults = fn.__kwdefaults__ or {}
        more = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        for name in more:
            default = keyword_defaults.get(name, _EMPTY)
            yield name, _Parameter.KEYWORD_ONLY, hints.get(name, _EMPTY), default

    def error(self, problem: str, fix: str = "", argument: str = "") -> InferenceError:
        """Make an error that shows the signature."""
        shown = getattr(self.fn, "__name__", type(self.fn).__name__) + str(self.signature)
        return InferenceError(problem, op=self.name, argument=argument, declared=shown, fix=fix)

    def arguments(self) -> tuple[Argument, ...]:
        """Give an argument for each parameter that a call may still give."""
        bound = _bound_names(self.fn)
        return tuple([self.argument(*p) for p in self.parameters() if p[0] not in bound])

    def argument(self, name: str, kind: Any, annotation: Any, default: Any) -> Argument:
        """Read one parameter."""
        if kind is not _Parameter.POSITIONAL_OR_KEYWORD and kind in _REFUSED:
            problem, fix = _REFUSED[kind]
            raise self.error(f"parameter {name!r} {problem}", fix, name)
        if annotation is _EMPTY:
            raise self.error(f"parameter {name!r} has no annotation", f"write {name}: Tensor", name)
        schema_type = self.type(annotation, "", name)
        if default is not _EMPTY:
            default = self.default(name, schema_type, default)
        else:
            default = MISSING
        return Argument(name, schema_type, None, default, kind is _Parameter.KEYWORD_ONLY)

    def type(self, annotation: Any, what: str, argument: str = "") -> Type:
        """Give the type of an annotation; `what` says whose, if not a parameter's."""
        try:
            return annotation_type(annotation, self.scope)
        except Unsupported as wrong:
            shown, what = show(wrong.annotation), what or f"parameter {argument!r}"
            problem = f"{what} is annotated {show(annotation)}, and {shown} is no schema type"
            raise self.error(problem, wrong.fix, argument) from None
        except UnknownNameError as wrong:
            what = what or f"parameter {argument!r}"
            problem = f"{what}: {wrong} (looked in {', '.join(wrong.scopes)})"
            fix = "import or define the name before the operator"
            raise self.error(problem, fix, argument) from None

    def default(self, name: str, schema_type: Type, value: Any) -> Any:
        """Check a default."""
        try:
            return fit_default(schema_type, value)
        except Mismatch as wrong:
            reason = wrong.reason and f" ({wrong.reason})"
            problem = f"the default {value!r} of {name!r} is no value of {schema_type}{reason}"
            fix = "annotate it Optional" if value is None else f"give a value of {schema_type}"
            raise self.error(problem, fix, name) from None

    def written(self, arguments: tuple[Argument, ...], mutates_args: MutatesArgs) -> frozenset[str]:
        """Give the names of the written arguments (SPEC S24)."""
        if mutates_args == UNKNOWN:
            return frozenset(a.name for a in arguments if holds_tensor(a.type))
        if isinstance(mutates_args, str):
            fix = f"write mutates_args={{{mutates_args!r}}}, or 'unknown'"
            raise self.error("mutates_args is a set of names, not a string", fix)
        try:
            names = frozenset(mutates_args)
        except TypeError:
            problem = "mutates_args is a set of names"
            raise self.error(f"{problem}, not {mutates_args!r:.80}", "write () for none") from None
        if names:
            known = {a.name: a for a in arguments}
            for name in sorted(names, key=str):
                self.check_written(name, known)
        return names

    def check_written(self, name: str, known: dict[str, Argument]) -> None:
        """Refuse a written argument that is not there, or holds no Tensors."""
        if name not in known:
            problem = f"mutates_args names {name!r}, which is no argument{nearest(name, known)}"
            raise self.error(problem, f"the arguments are {', '.join(known)}", str(name))
        if not holds_tensor(known[name].type):
            problem = f"mutates_args names {name!r}, which holds no Tensors"
            raise self.error(problem, "name arguments with Tensors only", name)

    def returns(self) -> tuple[Argument, ...]:
        """Read the return annotation (SPEC S19)."""
        if type(self.fn) is FunctionType and not _odd(self.fn):
            annotation = self.fn.__annotations__.get("return", _EMPTY)
        else:
            annotation = self.signature.return_annotation
        if isinstance(annotation, str) and annotation.strip() == "None":
            annotation = None
        if annotation is None or annotation is type(None):
            return ()
        if annotation is _EMPTY:
            raise self.error(
                "the function has no return annotation", "write '-> Tensor' or '-> None'"
            )
        found = self.type(annotation, "the return")
        if not returnable(found):
            fix = "return Tensor, list[Tensor], int, float, bool, str, or a tuple of these"
            raise self.error(f"the return is annotated {show(annotation)}: no type of results", fix)
        # A tuple of several is several returns; a tuple of one stays a tuple.
        if isinstance(found, TupleType) and len(found.items) > 1:
            return tuple(map(_result, found.items))
        return (_result(found),)


def _odd(fn: FunctionType) -> bool:
    """Tell whether a function's signature is said elsewhere than in its code."""
    own = fn.__dict__
    positional_only = fn.__code__.co_posonlyargcount
    return bool(positional_only or (own and ("__wrapped__" in own or "__signature__" in own)))


_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _result(schema_type: Type) -> Argument:
    return Argument("", schema_type)


def _bound_names(fn: Any) -> frozenset[str]:
    """Give the names that a partial has bound by keyword; its signature keeps them."""
    return frozenset(fn.keywords) if isinstance(fn, partial) else frozenset()


def open_signature(fn: Callable[..., Any]) -> inspect.Signature:
    """Give the parameters that a call may still give: those that no partial has bound (S22)."""
    said, bound = inspect.signature(fn), _bound_names(fn)
    return said.replace(parameters=[p for p in said.parameters.values() if p.name not in bound])


def check_written(schema: FunctionSchema, mutates_args: MutatesArgs) -> None:
    """Check a given schema against `mutates_args` (SPEC S26).

    Raises:
        InferenceError: if they name different arguments.
    """
    if mutates_args == UNKNOWN:
        said = {a.name for a in schema.arguments if holds_tensor(a.type)}
    else:
        said = _names_of(schema, mutates_args)
    wrote = {a.name for a in schema.written}
    if said != wrote:
        raise InferenceError(
            "the schema and mutates_args disagree on what is written",
            op=schema.qualified_name,
            declared=f"schema: {_listed(wrote)}; mutates_args: {_listed(said)}",
            fix="mark written arguments as Tensor(a!), and name them all",
        )


def _names_of(schema: FunctionSchema, mutates_args: MutatesArgs) -> set[str]:
    try:
        return {mutates_args} if isinstance(mutates_args, str) else set(mutates_args)
    except TypeError:
        raise InferenceError(
            f"mutates_args is a set of names, not {mutates_args!r:.80}",
            op=schema.qualified_name,
            declared=schema,
            fix="write () for none",
        ) from None


def _listed(names: set[str]) -> str:
    return "{" + ", ".join(sorted(names)) + "}"

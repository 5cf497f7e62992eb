"""What an author's kernel gives back is checked against its schema (S47, S48).

The number and the types of results are the schema's; numbers are converted as
arguments are. A result that shares storage with an argument or with another
result must be declared so: undeclared sharing gives silent wrong answers under
every transform that copies, which is why it is an error in every eager call.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.bits import BATCHED, GRAD, LIFTED
from polyop.dispatch.body import Form, Number, carried_by, carriers, result_forms
from polyop.dispatch.class_slots import slot_of
from polyop.dispatch.context import word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.errors import AliasError, PolyopWarning, ReturnError
from polyop.schema.values import Mismatch, convert
from polyop.source import source_of
from polyop.warn import warn_once


def results(op: OpOverload, given: Any, args: Sequence[Any]) -> Any:
    """Check and convert what a kernel gave back.

    Raises:
        ReturnError: the number or a type is not the schema's.
        AliasError: a result shares storage undeclared.
    """
    schema = op._schema
    forms = result_forms(schema)
    values = unpack(op, given)
    done = [
        _result(op, i, value, form, args)
        for i, (value, form) in enumerate(zip(values, forms, strict=True))
    ]
    done = _unshared(op, done, forms, args)
    if not schema.returns:
        return None
    return done[0] if len(done) == 1 else tuple(done)


def step_results(op: OpOverload, given: Any, args: Sequence[Any]) -> Any:
    """Check and convert what a kernel above the backends gave back.

    Its results may have a history, and be wrapped by transforms; both stay as they are.

    Raises:
        ReturnError: the number or a type is not the schema's.
        AliasError: a result of an author's operator shares storage undeclared.
    """
    forms = result_forms(op._schema)
    if _is_fresh(forms, given, args):
        return given
    values = unpack(op, given)
    done = [
        _typed(op, i, value, form, args)
        for i, (value, form) in enumerate(zip(values, forms, strict=True))
    ]
    if not op.is_builtin:
        done = _unshared(op, done, forms, args)
    if not forms:
        return None
    return done[0] if len(done) == 1 else tuple(done)


def answer_of(op: OpOverload, given: Any, args: Sequence[Any], who: Any = None) -> Any:
    """Check and convert the number and the types of what answers for any operator (S48).

    That is a mode or a subclass, `who`, or a fallback; what its results share is its own affair.

    Raises:
        ReturnError: the number or a type is not the schema's.
    """
    what = "answer to" if who is None else who
    values = unpack(op, given, what)
    if len(values) == 1 and given.__class__ is PARTS.Tensor and _gives_tensor(op):
        return given
    done = [_converted(op, i, value, what) for i, value in enumerate(values)]
    if not done:
        return None
    return done[0] if len(done) == 1 else tuple(done)


def _gives_tensor(op: OpOverload) -> bool:
    return str(op._schema.returns[0].type) == "Tensor"


def _is_fresh(forms: Sequence[Form], given: Any, args: Sequence[Any]) -> bool:
    """Tell by a few looks whether the result is one tensor that owns its memory."""
    if forms != (("new", -1),) or given.__class__ is not PARTS.Tensor:
        return False
    payload = given.payload
    if payload.__class__ is not PARTS.ndarray or payload.base is not None:
        return False
    return all(
        t.payload is not payload and getattr(t.payload, "base", None) is None
        for t in tensors_in(tuple(args))
    )


def unpack(op: OpOverload, given: Any, what: Any = "kernel of") -> list[Any]:
    """Give the results as a list, one per return of the schema."""
    n = len(op._schema.returns)
    if n == 0:
        if given is not None:
            _refuse(op, "must return nothing", "() (None)", given, what)
        return []
    if n == 1:
        return [given]
    if not isinstance(given, (tuple, list)) or len(given) != n:
        _refuse(op, f"must return {n} results", _declared(op), given, what)
    return list(given)


def _declared(op: OpOverload) -> str:
    return str(op._schema).partition(" -> ")[2]


def describe(value: Any) -> str:
    """Say what a value is, in an error."""
    if isinstance(value, (tuple, list)):
        inner = ", ".join(type(v).__name__ for v in value)
        return f"{type(value).__name__} of {len(value)} ({inner})"
    if isinstance(value, PARTS.Tensor):
        return f"Tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    name = type(value).__name__
    if name == "Tensor":  # another library's
        name = f"{type(value).__module__.partition('.')[0]}.{name}"
    return f"{name} {value!r:.80}"


def kernel_source(op: OpOverload) -> Any:
    """Give the place of the kernel that most likely ran."""
    for key in (DispatchKey.CPU, DispatchKey.CompositeExplicitAutograd):
        if op.places.top(key) is not None:
            return op.rule_source(key)
    return op.source


def _refuse(
    op: OpOverload, problem: str, declared: object, seen: Any, what: Any = "kernel of"
) -> NoReturn:
    """Refuse a result; `what` is a word for who gave it, or the mode or class itself."""
    subject, source, fix = f"the {what} {op.name()}", kernel_source(op), _fix(seen)
    if not isinstance(what, str):
        kind = what if isinstance(what, type) else type(what)
        noun = "class" if kind is what else "mode"
        subject = f"the {noun} {kind.__name__}, which answers {op.name()},"
        source = source_of(_answering(op, kind))
        if not PARTS.is_array(seen):
            fix = "return what the schema declares, or NotImplemented to send the call on"
    raise ReturnError(
        f"{subject} {problem}",
        op=op._schema,
        declared=declared,
        seen=describe(seen),
        source=source,
        fix=fix,
    )


def _answering(op: OpOverload, kind: Any) -> Any:
    """Give the function by which a mode or a class answers an operator."""
    slot = slot_of(kind)
    return op.rule_for(kind) or (slot and op.rule(slot)) or kind.__dispatch__


def _fix(seen: Any) -> str:
    if PARTS.is_array(seen):
        array = "result" if isinstance(seen, np.ndarray) else "numpy.asarray(result)"
        return f"wrap the array: polyop.from_numpy({array})"
    return "return what the schema declares, or change the annotation of the result"


def _typed(op: OpOverload, i: int, value: Any, form: Form, args: Sequence[Any]) -> Any:
    """Check what a result is, and convert it."""
    if not op._schema.returns[i].is_write:
        return _converted(op, i, value)
    places = carried_by(op._schema, i, form)
    for place in places:
        if _is_itself(value, args[place]):
            return args[place]
    names = " or ".join(repr(op._schema.arguments[place].name) for place in places)
    _refuse(op, f"must return its argument {names} itself", _declared(op), value)


def _is_itself(value: Any, argument: Any) -> bool:
    """Tell whether a result is an argument, or a list of the tensors in one."""
    if value is argument:
        return True
    listed = {value.__class__, argument.__class__} <= {list, tuple}
    return listed and len(value) == len(argument) and all(map(operator.is_, value, argument))


def _converted(op: OpOverload, i: int, value: Any, what: Any = "kernel of") -> Any:
    wanted = op._schema.returns[i].type
    try:
        return converted(wanted, value)
    except Mismatch:
        pass
    _refuse(op, f"returned a wrong type as result {i}", wanted, value, what)


def converted(wanted: Any, value: Any) -> Any:
    """Give a result as its declared type.

    Raises:
        Mismatch: it is of another one.
    """
    if _is_wrong(str(wanted), value):
        raise Mismatch(wanted, value)
    return convert(wanted, value)


def _result(op: OpOverload, i: int, value: Any, form: Form, args: Sequence[Any]) -> Any:
    kind, position = form
    done = _typed(op, i, value, form, args)
    if op._schema.returns[i].is_write:
        return done
    if any(tensor.keys & GRAD for tensor in tensors_in(done)):
        # A kernel runs below autograd: what it gives has no history.
        done = tree.map_leaves(_without_grad, done)
    if kind == "either":
        return tree.map_leaves(lambda one: _either(op, one, carriers(op._schema, i), args), done)
    if kind not in {"view", "views"}:
        return done
    which = (Number(i),) if len(op._schema.returns) > 1 else ()
    if kind == "view":
        return _view(op, done, position, args, *which)
    return [_view(op, one, position, args, *which, n) for n, one in enumerate(done)]


def _is_wrong(wanted: str, value: Any) -> bool:
    """Tell whether a value is of a type that arguments may have and results may not."""
    flag = isinstance(value, bool) and wanted in {"int", "SymInt", "float", "complex"}
    return flag or (isinstance(value, PARTS.Tensor) and "Tensor" not in wanted)


def _without_grad(value: Any) -> Any:
    """Give another handle of a tensor that autograd does not follow; the tensor keeps its own."""
    if not isinstance(value, PARTS.Tensor) or not value.keys & GRAD:
        return value
    return _handle(value, PARTS.share(value))


def _handle(tensor: Any, version: Any) -> Any:
    made = PARTS.Tensor()
    made.payload, made.keys, made.version = tensor.payload, tensor.keys & ~GRAD, version
    return made


def _view(op: OpOverload, value: Any, position: int, args: Sequence[Any], *more: int) -> Any:
    """Tie a declared view to what it is a view of, so that both count each other's writes."""
    base = args[position]
    if value.__class__ is not PARTS.Tensor or base.__class__ is not PARTS.Tensor:
        return value
    if not PARTS.shares_memory(value, base):
        return value
    made = _handle(value, PARTS.share(base))
    made.view_of = (base, op, (*args[:position], *args[position + 1 :], *more))
    return made


def _either(op: OpOverload, value: Any, places: Sequence[int], args: Sequence[Any]) -> Any:
    """Tie a view of one of several arguments to the first whose memory it has."""
    for place in places:
        done = _view(op, value, place, args)
        if done is not value:
            return done
    return value


def tensors_in(value: Any) -> Iterator[Any]:
    """Give the tensors in a value."""
    if value.__class__ is PARTS.Tensor:
        yield value
    elif value.__class__ in {list, tuple}:
        for item in value:
            yield from tensors_in(item)
    elif value is not None and value.__class__ not in {int, float, bool, str}:
        for leaf in tree.leaves(value):
            if isinstance(leaf, PARTS.Tensor):
                yield leaf


def _unshared(
    op: OpOverload, done: list[Any], forms: Sequence[Form], args: Sequence[Any]
) -> list[Any]:
    """Give results that share nothing undeclared; what becomes of others the context says."""
    policy = word().aliasing
    if policy == "ignore":
        return done
    try:
        _check_aliases(op, done, forms, args)
    except AliasError as error:
        if policy == "refuse":
            raise
        problem = f"{error.problem}; compiled code gives a copy\n  where:    {error.source}"
        warn_once(
            PolyopWarning, f"{problem}\n  fix:      {error.fix}", key=(op.name(), error.source)
        )
        fresh = {"new", "list", "value"}
        done = [
            tree.map_leaves(_copied, value) if kind in fresh else value
            for value, (kind, _) in zip(done, forms, strict=True)
        ]
        _check_aliases(op, done, forms, args)  # a declared view of one thing, and of another
    return done


def _copied(value: Any) -> Any:
    if value.__class__ is not PARTS.Tensor:
        return value
    if value.payload.__class__ is not PARTS.ndarray or value.keys & GRAD:
        return value.clone()
    made = _handle(value, 0)
    made.payload = value.payload.copy()
    return made


def _check_aliases(
    op: OpOverload, done: Sequence[Any], forms: Sequence[Form], args: Sequence[Any]
) -> None:
    seen: list[tuple[str, Any]] = []
    for i, (value, form) in enumerate(zip(done, forms, strict=True)):
        allowed = carried_by(op._schema, i, form)
        for tensor in tensors_in(value):
            name = f"result {i}" if len(done) > 1 else "the result"
            _check_alias(op, tensor, name, allowed, args)
            for other_name, other in seen:
                if not allowed and _shared(tensor, other):
                    _aliased(op, name, other_name)
            if not allowed:
                seen.append((name, tensor))


def _check_alias(
    op: OpOverload, tensor: Any, name: str, allowed: Sequence[int], args: Sequence[Any]
) -> None:
    for j, argument in enumerate(args):
        if j in allowed:
            continue
        for other in tensors_in(argument):
            if _shared(tensor, other):
                _aliased(op, name, f"argument {op._schema.arguments[j].name!r}")


def _shared(tensor: Any, other: Any) -> bool:
    """Tell whether tensors share storage, or what transforms wrapped in them does."""
    while tensor.keys & WRAPPERS:
        tensor = tensor.payload.value
    while other.keys & WRAPPERS:
        other = other.payload.value
    shares: bool = PARTS.shares_memory(tensor, other)
    return shares


#: Payloads that are records around a tensor, of a vmap or of a gradient.
WRAPPERS = BATCHED | LIFTED


def _aliased(op: OpOverload, name: str, other: str) -> NoReturn:
    raise AliasError(
        f"{name} of {op.name()} shares storage with {other}",
        op=op._schema,
        declared="no sharing",
        seen=f"{name} and {other} are the same memory",
        source=kernel_source(op),
        fix="return a copy (.clone()), or declare the alias in the schema: "
        "(Tensor(a) x) -> Tensor(a) for a view, Tensor(a!) for a returned input",
    )

"""The slow way into an operator: everything that an entry leaves to others.

Binds arguments by name, fills in defaults, converts each to its type, answers
other libraries' arrays in kind, tries the other overloads of a name, and
raises the error that says precisely which argument does not fit (S61 to S66).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.context import word
from polyop.dispatch.objects import object_code
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import resolve
from polyop.errors import ArgumentError, IntegerRangeError, nearest
from polyop.schema.base_values import INT_MIN, OUTSIDE, UINT_MAX
from polyop.schema.model import MISSING, Argument
from polyop.schema.types import leaf_kind
from polyop.schema.values import Mismatch, convert, opened

#: What answers a call that gives a built-in operator its first argument alone.
ALONE: dict[OpOverload, Callable[[Any], Any]] = {}
#: By operator of two operands: the method by which Python asks the second one.
REFLECTED: dict[OpOverload, str] = {}


def slow(op: OpOverload, given: Sequence[Any], rest: Sequence[Any], named: dict[str, Any]) -> Any:
    """Bind and convert precisely, then call."""
    classes = tuple([value.__class__ for value in given])
    known = op.notes.get(classes)  # numbers beside tensors, or arrays that go over a bridge
    if known is not None and not named and not rest:
        return known(*given)
    if not op.alive:
        op.gone()
    alone = op in ALONE and not named and given[0] is not MISSING
    if alone and all(value is MISSING for value in given[1:]):
        return ALONE[op](given[0])
    values = _bind_names(op, list(given), rest, named)
    for i, argument in enumerate(op._schema.arguments):
        if leaf_kind(argument.type) in _CONTAINERS:
            values[i] = opened(argument.type, values[i])
    if _has_arrays(op, values):
        return _call_foreign(op, values, None if named or rest else classes)
    try:
        values = _convert_all(op, values)
    except ArgumentError as error:
        other, refusal = _other_overload(op, values), error
    else:
        return dispatch(op, values)
    if other is None:
        _refuse_beyond(op, values)
        answer = _reflected(op, values)
        if answer is NotImplemented:
            raise refusal
        return answer
    if _deciding().issuperset(classes) and not named:
        op.notes[classes] = other[0].entry
    return dispatch(*other)


def _reflected(op: OpOverload, values: Sequence[Any]) -> Any:
    """Let a second operand that is unknown here answer, if its class says how."""
    name = REFLECTED.get(op)
    if name is None or not isinstance(values[0], PARTS.Tensor):
        return NotImplemented
    kind = type(values[1])
    giver = next((c for c in kind.__mro__ if name in c.__dict__), object)
    # A list's `__rmul__` repeats it, and a number that did not fit was refused for its value.
    if giver.__module__ == "builtins":
        return NotImplemented
    return getattr(kind, name)(values[1], values[0])


#: Kinds of arguments whose tensors stand in a container.
_CONTAINERS = frozenset(("tensor[]", "tensor?[]", "tree"))


def _has_arrays(op: OpOverload, values: Sequence[Any]) -> bool:
    """Tell whether other libraries' arrays stand where tensors are declared."""
    kinds = [leaf_kind(a.type) for a in op._schema.arguments]
    return any(
        PARTS.is_array(leaf)
        for kind, value in zip(kinds, values, strict=True)
        if kind != "static"
        for leaf in tree.leaves(value)
    )


def _call_foreign(op: OpOverload, values: Sequence[Any], classes: Any) -> Any:
    """Answer in kind; what is no tensor is converted here, an array of integers too."""
    bound = [
        convert_argument(op, i, v) if leaf_kind(a.type) == "static" else v
        for i, (a, v) in enumerate(zip(op._schema.arguments, values, strict=True))
    ]
    answer = PARTS.call_foreign(op, bound)
    known = op.notes.get(tuple([value.__class__ for value in bound]))
    if classes is not None and getattr(known, "converts", False):
        op.notes[classes] = known  # it takes other classes too of what is no tensor
    elif classes is not None and classes not in op.notes:
        made = PARTS.quick_call(op, classes)
        if made is not None:
            op.notes[classes] = made
    return answer


#: The classes that decide alone which overload fits, whatever the value.
_NUMBERS = {bool, int, float, complex}


def _deciding() -> set[type]:
    return _NUMBERS | {PARTS.Tensor}


def dispatch(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with all arguments bound and converted."""
    code = code_of(values) | word()
    for i in op.objects:
        code |= object_code(values[i])
    handler = op.memo.get(code) or resolve(op, code)
    return handler(*values)


def bind(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Give all arguments in schema order, converted, with defaults filled in.

    Raises:
        ArgumentError: a missing argument, one too many, an unknown name, one
            given twice, or a value that does not fit (S63).
    """
    n = len(op._schema.positional)
    given = [*args[:n], *[MISSING] * (n - len(args))]
    given += [MISSING] * len(op._schema.keyword_only)
    return _convert_all(op, _bind_names(op, given, args[n:], dict(kwargs)))


def _bind_names(
    op: OpOverload, given: list[Any], rest: Sequence[Any], named: Mapping[str, Any]
) -> list[Any]:
    arguments = op._schema.arguments
    if rest:
        _refuse(
            op,
            f"{op.name()} got too many arguments",
            declared=f"{len(op._schema.positional)} positional arguments",
            seen=f"{len(op._schema.positional) + len(rest)}",
            fix="give keyword-only arguments by name"
            if op._schema.keyword_only
            else "leave the last ones out",
        )
    places = {argument.name: i for i, argument in enumerate(arguments)}
    for name, value in named.items():
        if name not in places:
            _refuse(
                op,
                f"{op.name()} has no argument {name!r}{nearest(name, places)}",
                argument=name,
                declared=f"the arguments {', '.join(places)}" if places else "no arguments",
                seen=f"{name}={value!r:.80}",
                fix="leave it out, or give it by its declared name",
            )
        i = places[name]
        if given[i] is not MISSING:
            _refuse(
                op,
                f"{op.name()} got argument {name!r} twice",
                argument=_where(op, i),
                declared=arguments[i],
                seen=f"by position {given[i]!r:.60}, by name {value!r:.60}",
                fix="give it once",
            )
        given[i] = value
    for i, argument in enumerate(arguments):
        if given[i] is MISSING:
            given[i] = argument.default_value
        if given[i] is MISSING:
            _refuse_missing(op, i)
    return given


def _refuse_missing(op: OpOverload, i: int) -> NoReturn:
    argument = op._schema.arguments[i]
    _refuse(
        op,
        f"{op.name()} misses argument {argument.name!r}",
        argument=_where(op, i),
        declared=argument,
        fix=f"give {argument.name}=..., or let it have a default in the schema",
    )


def _convert_all(op: OpOverload, values: Sequence[Any]) -> list[Any]:
    return [convert_argument(op, i, value) for i, value in enumerate(values)]


def convert_argument(op: OpOverload, i: int, value: Any) -> Any:
    """Give what a kernel gets for one argument.

    Raises:
        ArgumentError: the value is missing or does not fit.
    """
    argument = op._schema.arguments[i]
    if value is MISSING:
        value = argument.default_value
        if value is MISSING:
            _refuse_missing(op, i)
    try:
        return convert(argument.type, value)
    except Mismatch as mismatch:
        _misfit(op, i, argument, value, mismatch)


def _misfit(op: OpOverload, i: int, argument: Argument, value: Any, mismatch: Mismatch) -> NoReturn:
    kind = IntegerRangeError if mismatch.overflows else ArgumentError
    raise kind(
        f"{op.name()} cannot take {type(value).__name__} as argument {argument.name!r}"
        + (f": {mismatch.reason}" if mismatch.reason else ""),
        op=op._schema,
        source=op.source,
        argument=_where(op, i),
        declared=argument.type,
        seen=f"{value!r:.120} ({type(value).__name__})",
        fix="make it a tensor: polyop.tensor(...)"
        if str(argument.type) == "Tensor" and isinstance(value, (list, tuple, int, float, complex))
        else f"give a value of type {str(argument.type).replace('SymInt', 'int')}"
        + _known(argument, value),
    ) from None


def _known(argument: Argument, value: Any) -> str:
    """Say how what another library traces becomes the number that an operator asks for."""
    own = isinstance(value, (PARTS.Tensor, np.ndarray))
    if own or not hasattr(value, "dtype") or "Tensor" in str(argument.type):
        return ""
    return f"; what is traced, let be static: jax.jit(fn, static_argnames={argument.name!r})"


def _refuse_beyond(op: OpOverload, values: Sequence[Any]) -> None:
    """Say of a number that no overload takes whether it is too large."""
    for i, (argument, value) in enumerate(zip(op._schema.arguments, values, strict=True)):
        if type(value) is int and not INT_MIN <= value <= UINT_MAX:
            _misfit(op, i, argument, value, Mismatch(argument.type, value, OUTSIDE))


def refuse_beyond_dtype(op: OpOverload, values: Sequence[Any]) -> None:
    """Say of a number whether it is beyond the integers of the dtype that is asked for.

    Without one, it is beyond those of a tensor, or an array, beside it; else beyond `int64`.
    """
    asked = [v for v in values if isinstance(v, np.dtype)]
    dtypes = asked or [v.dtype for v in values if isinstance(v, (PARTS.Tensor, np.ndarray))]
    integers = [d for d in dtypes if d.kind in "iu"]
    if all(d.kind == "b" for d in dtypes):
        integers = [np.dtype(np.int64)]
    for i, value in enumerate(values):
        for dtype in integers if type(value) is int else ():
            size = 8 * dtype.itemsize
            low, high = (0, 1 << size) if dtype.kind == "u" else (-1 << size - 1, 1 << size - 1)
            if not low <= value < high:
                raise IntegerRangeError(
                    f"{op.name()} cannot take {value}: it is no integer of {dtype.name}",
                    op=op._schema, source=op.source, argument=_where(op, i),
                    declared=f"an integer from {low} to {high - 1}", seen=value,
                    fix="take a wider dtype, such as polyop.int64",
                ) from None  # fmt: skip


def _where(op: OpOverload, i: int) -> str:
    argument = op._schema.arguments[i]
    return f"{argument.name} ({'keyword-only' if argument.kwarg_only else f'position {i}'})"


def _refuse(op: OpOverload, problem: str, **parts: Any) -> NoReturn:
    raise ArgumentError(problem, op=op._schema, source=op.source, **parts) from None


# -- packets ------------------------------------------------------------------


def _other_overload(op: OpOverload, values: Sequence[Any]) -> tuple[OpOverload, list[Any]] | None:
    """Find a later overload that takes these values; for polyop's own operators."""
    if op.packet is None or not op.is_builtin:
        return None
    for other in op.packet.op_overloads():
        if other is not op and len(other._schema.arguments) == len(values):
            found = _fitting(other, values)
            if found is not None:
                return other, found
    return None


def _fitting(op: OpOverload, values: Sequence[Any]) -> list[Any] | None:
    """Convert the values if they fit; no text of them is made, which may be a look at data."""
    pairs = zip(op._schema.arguments, values, strict=True)
    given = [(a.type, a.default_value if v is MISSING else v) for a, v in pairs]
    try:
        return None if any(v is MISSING for _, v in given) else [convert(t, v) for t, v in given]
    except Mismatch:
        return None


def call_packet(packet: OpOverloadPacket, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call the first overload whose schema fits (S62)."""
    refused = []
    for op in packet.op_overloads():
        try:
            values = bind(op, *tree.map_leaves(_stand_in, (args, kwargs)))
        except ArgumentError as error:
            refused.append(f"{op._schema}: {error.problem}")
        else:
            foreign = any(map(PARTS.is_array, tree.leaves((args, kwargs))))
            return op.entry(*args, **kwargs) if foreign else dispatch(op, values)
    raise ArgumentError(
        f"no overload of {packet._qualified_op_name} fits this call",
        op=packet._qualified_op_name,
        declared="\n            ".join(refused),
        seen=", ".join(type(a).__name__ for a in [*args, *kwargs.values()]),
        source="; ".join(str(op.source) for op in packet.op_overloads()),
        fix="give arguments that one of these takes",
    )


def _stand_in(value: Any) -> Any:
    """Put a tensor in the place of another library's array, to see what fits."""
    if not PARTS.is_array(value):
        return value
    tensor = PARTS.Tensor()
    tensor.payload, tensor.keys, tensor.version = value, 0, 0
    return tensor


# -- keys of arguments --------------------------------------------------------


def keys_in(value: Any) -> int:
    """OR the codes of the tensors in a tree.

    Raises:
        TypeError: there is another library's array, or a container that becomes one of ours when it
            is converted; the entry takes the slow way then.
    """
    code = 0
    for leaf in tree.leaves(value):
        if isinstance(leaf, PARTS.Tensor):
            code |= leaf.keys
        elif leaf.__class__ not in _ATOMS and _is_more(leaf):
            raise TypeError
    return code


_ATOMS = frozenset((int, float, bool, complex, str))


def _is_more(leaf: Any) -> bool:
    """Tell whether a leaf is, or may hold, another library's array or a tensor."""
    known = tree.learn_record(leaf.__class__) or PARTS.is_array(leaf)
    return known or tree.is_unopened(leaf)


def code_of(values: Sequence[Any]) -> int:
    """OR the codes of the tensors among bound arguments."""
    code = 0
    for value in values:
        for leaf in [value] if isinstance(value, PARTS.Tensor) else tree.leaves(value):
            if isinstance(leaf, PARTS.Tensor):
                code |= leaf.keys
    return code


def payloads_in(value: Any) -> Any:
    """Put the payload in the place of each tensor of a tree."""
    return tree.map_leaves(lambda x: x.payload if isinstance(x, PARTS.Tensor) else x, value)


PARTS.bind = bind
PARTS.code_of = code_of
PARTS.call_packet = call_packet

"""A call without its arrays as text: what a compiled program carries to find its kernel again.

A program names code, it carries none: the operator by its name, and the module that defines it,
which another process imports. In the process that compiled it, it means that very operator: one
that was defined anew under the name is another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from polyop.bridges.jax.frames import ARRAY, LOCK, Frame, frame_of
from polyop.devices import DTYPES, Device
from polyop.dispatch.operator import OpOverload
from polyop.errors import OperatorGoneError, OperatorNotFoundError, ProgramFileError
from polyop.export.derived import module_of, operator_by_name
from polyop.lazy import load

#: By name: the operators that programs of this process call by it, the newest last.
NAMED: dict[str, list[OpOverload | None]] = {}
_PLAIN = frozenset({bool, int, str, type(None)})


def text_of(frame: Frame, *, wide: bool) -> str:
    """Give the text of a call.

    Args:
        frame: of the call.
        wide: whether JAX has numbers of 64 bits.

    Raises:
        ProgramFileError: an argument is an object that no text can stand for.
    """
    op = frame.op
    name = op._schema.qualified_name
    values = frame.values([ARRAY] * sum(s is ARRAY for s in frame.statics))
    facts = {
        "op": name,
        "schema": str(op._schema),
        "module": module_of(name),
        "number": _number(op, name),
        "arguments": [_encoded(v) for v in values],
        "wide": wide,
    }
    return json.dumps(facts)


def read(text: str) -> tuple[Frame, bool]:
    """Give the frame that a text stands for, and whether its program has numbers of 64 bits.

    Raises:
        OperatorGoneError: its operator was removed.
        OperatorNotFoundError: it is not defined, or with another schema.
    """
    facts = json.loads(text)
    op = _operator(facts)
    if str(op._schema) != facts["schema"]:
        raise OperatorNotFoundError(
            f"the program was made with another schema of {facts['op']}",
            declared=facts["schema"],
            seen=str(op._schema),
            source=op.source,
            fix="export it again, or import the version of then",
        )
    return frame_of(op, [_decoded(v) for v in facts["arguments"]]), facts["wide"]


# -- operators ----------------------------------------------------------------------------------


def _number(op: OpOverload, name: str) -> int:
    """Give the place of an operator among those of its name."""
    with LOCK:
        known = NAMED.setdefault(name, [])
        if op not in known:
            known.append(op)
        return known.index(op)


def forget(op: OpOverload) -> None:
    """Let what was compiled with an operator find it no more."""
    known = NAMED.get(op._schema.qualified_name, [])
    if op in known:
        known[known.index(op)] = None


def _operator(facts: Any) -> OpOverload:
    name, number = facts["op"], facts["number"]
    known = NAMED.get(name, [])
    if number >= len(known):
        return _found(name, facts["module"])
    op: OpOverload | None = known[number]
    if op is None or not op.alive:
        raise OperatorGoneError(
            f"{name} was removed after this program was compiled",
            op=facts["schema"],
            fix="define it again, and compile what calls it anew: jax.clear_caches()",
        )
    return op


def _found(name: str, module: str) -> OpOverload:
    """Find an operator for a program of another process.

    Raises:
        OperatorNotFoundError: it is not here, and its module does not bring it.
    """
    found = operator_by_name(name)
    if found is None and module not in {"", "__main__"}:
        try:
            import_module(module)
        except Exception as error:  # a module may raise anything
            raise _missing(name, module, f"{type(error).__name__}: {error}") from error
        found = operator_by_name(name)
    if found is None:
        raise _missing(name, module)
    return found


def _missing(name: str, module: str, trouble: str = "") -> OperatorNotFoundError:
    where = f"its module {module!r}" if module else "the module that defines it"
    if module == "__main__":
        where = "a module that this process can import (it was defined in a script)"
    return OperatorNotFoundError(
        f"the program calls {name}, which is not defined in this process",
        seen=f"import {module}: {trouble}" if trouble else "",
        fix=f"define it in, and import, {where} before the program is called",
    )


# -- arguments ----------------------------------------------------------------------------------


def _encoded(value: Any) -> Any:
    kind = value.__class__
    if kind in _PLAIN:
        return value
    if value is ARRAY:
        return {"operand": True}
    if kind is list:
        return [_encoded(v) for v in value]
    if kind is tuple:
        return {"tuple": [_encoded(v) for v in value]}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is complex:
        return {"complex": [_encoded(value.real), _encoded(value.imag)]}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, Device):
        return {"device": str(value)}
    return {"object": _object(value)}


def _object(value: Any) -> Any:
    encoder = load("polyop.export.encode:Encoder")()
    form = encoder.value(value)
    if encoder.arrays or encoder.objects or encoder.operators:
        raise ProgramFileError(
            f"a program cannot carry the argument {value!r:.80}",
            seen=type(value).__name__,
            fix="give it as an array, or as plain numbers and texts",
        )
    return form


def _decoded(data: Any) -> Any:
    if data.__class__ is list:
        return [_decoded(v) for v in data]
    if data.__class__ is not dict:
        return data
    ((kind, held),) = data.items()
    return DECODERS[kind](held)


def _of_object(form: Any) -> Any:
    return load("polyop.export.decode:Decoder")(None, {}).value(form)


DECODERS: dict[str, Callable[[Any], Any]] = {
    "operand": lambda _: ARRAY,
    "tuple": lambda held: tuple(map(_decoded, held)),
    "float": float,
    "complex": lambda held: complex(*map(_decoded, held)),
    "dtype": DTYPES.__getitem__,
    "device": Device,
    "object": _of_object,
}

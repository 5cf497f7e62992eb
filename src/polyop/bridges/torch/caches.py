"""What PyTorch's caches on disk must know of our operators, besides their names.

A compiled program contains what the rules of its operators computed: the gradient, sizes, effects.
PyTorch keeps programs under the names of their operators, so one that was made before a rule was
edited would be taken for the rule's new text. The tag of its caches has a digest of all rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import sha256
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import torch

from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.operator import OpOverload
from polyop.objects.effects import effect_of_target

#: What the tag of the caches begins with that is ours.
_MARK = " polyop: "
#: The most functions that are looked at for an operator.
MOST = 200
#: The most bytes of an array that are looked at.
LARGE = 1 << 20
#: Stands for what nobody can tell of: no other process has the same.
_HERE = uuid4().hex
#: The operators one of whose rules has changed since PyTorch met it, and what tells them apart.
RENEWED: WeakKeyDictionary[OpOverload, str] = WeakKeyDictionary()
#: The rules that are part of programs.
RULES = ("fake", "backward", "jvp", "vmap", "effect")


def tag_caches(known: Iterable[OpOverload]) -> None:
    """Let caches tell programs of these operators from those made of other rules."""
    config: Any = torch.compiler.config
    own, _, before = str(config.cache_key_tag).partition(_MARK)
    digests = sorted(op.note("torch digest", _digest) for op in known)
    tag = sha256("".join(digests).encode()).hexdigest() if digests else ""
    if tag != before:
        config.cache_key_tag = own + (_MARK + tag if tag else "")


def renew(op: OpOverload) -> None:
    """Let no cache know an operator whose rules are others now, whatever they are made of."""
    RENEWED[op] = uuid4().hex
    op.notes.pop("torch digest", None)


def _digest(op: OpOverload) -> str:
    parts = [str(op._schema), str(effect_of_target(op)), RENEWED.get(op, "")]
    seen: set[int] = set()
    for name in RULES:
        parts += [name, *_texts(op.rule(name), seen)]
    return sha256("\0".join(parts).encode()).hexdigest()


def _texts(value: Any, seen: set[int]) -> Iterator[str]:
    """Give what a rule is made of: code, what it closes over, and what it names."""
    if value is None or isinstance(value, int | float | complex | str | bytes | torch.dtype):
        yield repr(value)
    elif id(value) in seen:
        yield "again"
    elif len(seen) >= MOST:
        yield _HERE
    else:
        seen.add(id(value))
        yield from _parts(value, seen)


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, FunctionType):
        yield from _of_code(value.__code__)
        inner: Any = (value.__defaults__, value.__kwdefaults__, *_named(value))
    elif isinstance(value, partial):
        inner = (value.func, value.args, value.keywords)
    elif isinstance(value, MethodType | staticmethod | classmethod):
        inner = (value.__func__, getattr(value, "__self__", None))
    elif isinstance(value, property):
        inner = (value.fget, value.fset)
    elif isinstance(value, tuple | list):
        inner = value
    elif isinstance(value, dict):
        inner = [part for pair in list(value.items()) for part in pair]
    elif isinstance(value, np.ndarray) and value.nbytes <= LARGE and value.dtype.kind != "O":
        yield f"{value.dtype} {value.shape} {sha256(value.tobytes()).hexdigest()}"
        return
    elif _is_of_a_module(value):
        yield f"{type(value).__name__} {_name_of(value)}"
        inner = _members(value)
    elif hasattr(value, "__dict__"):
        yield f"{type(value).__module__}.{type(value).__qualname__}"
        inner = (type(value), vars(value))
    else:
        yield _HERE
        return
    for part in inner:
        yield from _texts(part, seen)


def _is_of_a_module(value: Any) -> bool:
    """Tell whether something is found by its name again: modules, classes, operators."""
    known = isinstance(value, ModuleType | type | OpOverload | CustomOpDef | BuiltinFunctionType)
    return known or isinstance(value, np.ufunc)


def _name_of(value: Any) -> str:
    found = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    return f"{getattr(value, '__module__', '')} {found}"


def _members(value: Any) -> list[Any]:
    """Give what a user's class is made of."""
    where = str(getattr(value, "__module__", "")).partition(".")[0]
    if not isinstance(value, type) or where in {"builtins", "polyop", "torch", "numpy", "abc"}:
        return []
    pairs = vars(value).items()
    own = [v for name, v in pairs if isinstance(v, FunctionType) or not name.startswith("__")]
    return [*value.__bases__, *own]


def _named(fn: FunctionType) -> Iterator[Any]:
    """Give what a function closes over, and what a user's names in its module."""
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    if not f"{fn.__module__}.".startswith("polyop."):
        yield from (fn.__globals__.get(name) for name in fn.__code__.co_names)


def _of_code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _of_code(constant)
        else:
            # The order of a set is another one in each process.
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)

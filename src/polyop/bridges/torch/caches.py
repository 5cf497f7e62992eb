"""What PyTorch's caches on disk must know of our operators, besides their names.

A compiled program contains what the rules of its operators computed: the gradient, sizes, effects.
PyTorch keeps programs under the names of their operators, so one that was made before a rule was
edited would be taken for the rule's new text. The tag of its caches has a digest of all rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch

from polyop.dispatch.operator import OpOverload
from polyop.objects.effects import effect_of_target

#: What the tag of the caches begins with that is ours.
_MARK = " polyop: "
#: The most functions that are looked at for an operator.
MOST = 200
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


def _digest(op: OpOverload) -> str:
    parts = [str(op._schema), str(effect_of_target(op))]
    seen: set[int] = set()
    for name in RULES:
        parts += [name, *_texts(op.rule(name), seen)]
    return sha256("\0".join(parts).encode()).hexdigest()


def _texts(value: Any, seen: set[int]) -> Iterator[str]:
    """Give what a rule is made of: code, what it closes over, and functions that it names."""
    if isinstance(value, int | float | str | bytes):
        yield repr(value)
    elif isinstance(value, partial):
        yield from _texts((value.func, value.args, tuple(value.keywords.items())), seen)
    elif isinstance(value, MethodType):
        yield from _texts(value.__func__, seen)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _texts(part, seen)
    elif isinstance(value, FunctionType) and id(value) not in seen and len(seen) < MOST:
        seen.add(id(value))
        yield from _of_code(value.__code__)
        yield from _texts(value.__defaults__, seen)
        for part in _named(value):
            yield from _texts(part, seen)


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

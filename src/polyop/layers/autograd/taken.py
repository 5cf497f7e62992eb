"""Data that an author's `setup_context` takes out of tensors.

They are constants to whoever reads them. A backward may read them, and its gradient is right; what
they depend on is nowhere recorded, so a gradient of that gradient would lack a part. The context
keeps the tensors that they may depend on, and `stops.py` refuses the way to these.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import Word, run_under, set_word, word
from polyop.dispatch.results import tensors_in
from polyop.tensor.tensor import Tensor, is_differentiable

#: The tensors whose data were taken since a `setup_context` began.
_TAKEN: ContextVar[list[Tensor]] = ContextVar("taken")
#: The looks that give numbers; others give what does not change with small changes of them.
_TAKES = {"numpy", "detach().numpy", "tolist", "item", "float", "complex"}
#: What most authors name; no data is had by it.
_HARMLESS = frozenset((
    "save_for_backward", "save_for_forward", "mark_non_differentiable", "mark_dirty",
    "set_materialize_grads", "needs_input_grad", "shape", "ndim", "dtype", "device", "size",
))  # fmt: skip
_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
#: What writes something as text, by versions of Python; `%` is an operator among others.
_WRITING = ("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "BINARY_OP")
#: What names something, or writes it as text; a name alone may be anything.
_TELLING = {*dis.hasname, *dis.hasfree, *(dis.opmap[n] for n in _WRITING if n in dis.opmap)}
_TELLING -= {dis.opmap["STORE_ATTR"]}


class Taking:
    """Meets looks at data while a `setup_context` runs, and lets them happen."""

    def look(self, tensor: Tensor, what: str) -> Any:
        """Note a look, and give the data."""
        self.note(tensor, what)
        if tensor.payload.__class__ is np.ndarray:
            return tensor.payload
        return run_under(word().but(taking=None), tensor._data, what)

    def note(self, tensor: Tensor, what: str) -> None:
        """Note a look at numbers that gradients flow through."""
        if what in _TAKES and is_differentiable(tensor.dtype):
            _TAKEN.get().append(tensor)


TAKING = Taking()


def watching(setup: Callable[..., Any], author: Callable[..., Any]) -> Callable[..., Any]:
    """Give a `setup_context` that notes in the context what data it takes.

    Args:
        setup: of the context and what the call was of.
        author: the author's own, which it calls; one that cannot take data is not watched.
    """
    if not _can_take(author):
        return setup

    def watched(ctx: Any, *given: Any) -> Any:
        taken: list[Tensor] = []
        now, outer = word(), _TAKEN.set(taken)
        try:
            set_word(_taking(now))
            return setup(ctx, *given)
        finally:
            set_word(now)
            _TAKEN.reset(outer)
            if taken:
                _note(ctx, given, taken)

    return watched


def _taking(now: Word) -> Word:
    made: Word | None = now.__dict__.get("at_setup")
    if made is None:
        made = now.__dict__["at_setup"] = now.but(taking=TAKING)
    return made


def _can_take(author: Callable[..., Any]) -> bool:
    """Tell whether a function names something that may take data."""
    if author.__class__ is not FunctionType or author.__defaults__ or author.__kwdefaults__:
        return True
    code = author.__code__
    if any(isinstance(value, CodeType) for value in code.co_consts):
        return True
    steps = {(i.opname, i.argval) for i in dis.get_instructions(code) if i.opcode in _TELLING}
    if "len" not in author.__globals__:
        steps.discard(("LOAD_GLOBAL", "len"))
    return any(step not in _ATTRIBUTES or name not in _HARMLESS for step, name in steps)


def _note(ctx: Any, given: Sequence[Any], taken: Sequence[Tensor]) -> None:
    """Keep in a context the tensors that data may depend on."""
    moving: list[Tensor] = []
    still: list[Tensor] = []
    keywords = given[1].values() if len(given) == 3 else ()
    for value, need in zip((*given[0], *keywords), ctx.needs_input_grad, strict=False):
        _sort(value, need, moving, still)
    if ctx._without:
        still += [t for t in tensors_in(given[-1]) if id(t) in ctx._without]
    found = taken
    if still:
        found = [t for t in taken if not any(_is_of(t, other) for other in still)]
    if found:
        ctx._taken = tuple(moving)
        outer = _TAKEN.get(None)
        if outer is not None:
            outer += found


def _sort(value: Any, need: Any, moving: list[Tensor], still: list[Tensor]) -> None:
    """Tell the tensors that gradients may be asked for, here or further out, from the others."""
    if value.__class__ is list and need.__class__ is list:
        for one, of_one in zip(value, need, strict=True):
            _sort(one, of_one, moving, still)
        return
    some = need if need.__class__ is bool else any(tree.leaves(need))
    for t in (value,) if value.__class__ is Tensor else tensors_in(value):
        moves = (some or t.keys & (GRAD | WRAPPED)) and is_differentiable(t.dtype)
        (moving if moves else still).append(t)


def _is_of(taken: Tensor, other: Tensor) -> bool:
    """Tell whether a tensor is another one, or a part of its memory."""
    a, b = taken.payload, other.payload
    if a.__class__ is b.__class__ is np.ndarray:
        return taken is other or np.may_share_memory(a, b)
    return taken is other

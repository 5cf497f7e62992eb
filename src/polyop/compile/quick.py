"""The next call of a kind: a program is found again without taking the arguments apart.

Describing a call costs ten times a small program. So a compiled function
remembers its last call, if that had plain tensors alone, each with memory of its
own; a call that is like it in all that selects programs runs the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.compile.program import Program, run_program
from polyop.dispatch.context import run_under, word
from polyop.dispatch.own_call import CAPTURED_CHANGES
from polyop.objects.loose import Guard, Runs
from polyop.objects.reads import Code
from polyop.tensor.tensor import Tensor


class Quick(NamedTuple):
    """A call, as far as programs are selected by it, and its program.

    Attributes:
        code: the context.
        facts: of each argument its dtype, shape and keys.
        program: what ran.
        guards: what is asked of what its function reads besides the arguments, but for code.
        spec: the structure of the arguments.
        direct: whether the program's only result is the function's.
        changes: how many changes of captured operators there were.
        codes: the function itself, with its code and defaults.
        weak: the functions that it reads, held weakly, with theirs.
    """

    code: int
    facts: tuple[tuple[Any, tuple[int, ...], int], ...]
    program: Program
    guards: tuple[Guard, ...]
    spec: Any
    direct: bool
    changes: int
    codes: tuple[tuple[Any, Any, Any, Any], ...]
    weak: tuple[tuple[Any, Any, Any, Any], ...]

    def fits(self, args: tuple[Any, ...]) -> bool:
        """Tell whether the program is right for a call by position."""
        context, facts, _, guards, _, _, changes, codes, more = self
        if len(args) != len(facts) or word() != context or CAPTURED_CHANGES[0] != changes:
            return False
        for x, (dtype, shape, keys) in zip(args, facts):  # noqa: B905 - a word costs more
            if x.__class__ is not Tensor or x.keys != keys:
                return False
            p = x.payload
            if p.__class__ is not np.ndarray or p.shape != shape or p.dtype is not dtype:
                return False
            if x.version.__class__ is not int or not p.flags.c_contiguous:
                return False
        if len(args) > 1 and len(set(args)) != len(args):
            return False
        for fn, code, defaults, named in codes:
            if fn.__code__ is not code or fn.__defaults__ is not defaults:
                return False
            if fn.__kwdefaults__ is not named or fn.__dict__:
                return False
        for weak, code, defaults, named in more:
            fn = weak()
            if fn is None or fn.__code__ is not code or fn.__defaults__ is not defaults:
                return False
            if fn.__kwdefaults__ is not named or fn.__dict__:
                return False
        for guard in guards:  # noqa: SIM110 - a generator costs more than most of them
            if not guard.same():
                return False
        return True

    def run(self, fn: Any, args: tuple[Any, ...]) -> Any:
        """Run the program.

        Raises:
            Gone: a tensor that it reads is dead; nothing ran.
        """
        if self.direct:
            return run_under(word().without_grad, self.program.run, *args)[0]
        return run_program(self.program, fn, args, self.spec)


def quick_of(program: Program, args: Sequence[Any], spec: Any, changes: int) -> Quick | None:
    """Remember a call; None if it is one to be described each time."""
    if not all(map(_is_simple, args)) or len({id(x) for x in args}) != len(args):
        return None
    if program.captured.grads or program.captured.answers:
        return None
    facts = tuple([(x.payload.dtype, x.payload.shape, x.keys) for x in args])
    captured = program.captured
    direct = captured.backward is None and not captured.passed and captured.spec.is_leaf()
    reads = program.origin.reads
    codes = [x for x in reads if isinstance(x, (Code, Runs)) and not x.has_more]
    own, weak = ([(x.scope, x.code, x.defaults, x.kwdefaults) for x in codes if type(x) is kind]
                 for kind in (Code, Runs))  # fmt: skip
    return Quick(
        int(word()),
        facts,
        program,
        tuple(x for x in reads if not isinstance(x, (Code, Runs)) or x.has_more),
        spec,
        direct,
        changes,
        tuple(own),
        tuple(weak),
    )


def _is_simple(x: Any) -> bool:
    if type(x) is not Tensor or type(x.payload) is not np.ndarray or type(x.version) is not int:
        return False
    return bool(x.payload.flags.c_contiguous)

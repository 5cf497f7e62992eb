"""Loops that compute a pointwise operator's result together with its tangent.

A product with two tangents takes NumPy four passes over memory, and this loop one. Its formula
is the kernel's and the tangent's own steps, run on symbols; only steps of equal bits are taken
(NOTE [Equal bits] in `formulas.py`), so that nobody can tell from the numbers what ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.compile.fused.call import reported
from polyop.compile.fused.formula import Formula
from polyop.compile.fused.formulas import EXACT, KINDS, TYPES
from polyop.compile.fused.library import load_library
from polyop.compile.fused.source import PRELUDE, body_of, loop_of
from polyop.compile.fused.symbols import Step, Symbol, Unknown, trace
from polyop.compile.fused.ufunc import make_ufunc
from polyop.devices import DType
from polyop.dispatch.bits import NUMPY
from polyop.layers.autograd.paired import Loop, Wanted
from polyop.layers.autograd.steps import Places
from polyop.tensor.tensor import Tensor

_EXACT_WORDS = {"cast", "where"}
#: Numbers of this size are the same in each dtype, or near it, and raise no flag there.
_LEAST, _MOST, _WHOLE = 1e-30, 1e30, 1 << 24
#: Vectors of half the width wait less for memory that is not laid out by cache lines.
NARROW = """\
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=256")
#endif"""


class Pair(NamedTuple):
    """What one loop computes; `source.py` reads it as it reads the groups of a graph."""

    inputs: Sequence[str]
    members: Mapping[str, Formula]
    outputs: Sequence[str]


def make_loops(wanted: Sequence[Wanted]) -> list[Loop | None]:
    """Compile loops; None in the place of one of which a step has not NumPy's bits, or no formula.

    Raises:
        UsageError: there is no compiler.
        PolyopError: the compiler fails.
    """
    pairs = {i: pair for i, one in enumerate(wanted) if (pair := _pair(one)) is not None}
    if not pairs:
        return [None] * len(wanted)
    parts = [_source(i, pair, wanted[i].dtype) for i, pair in pairs.items()]
    text = "\n".join([NARROW, PRELUDE, *parts])
    library = load_library(lambda _: text)
    made: list[Loop | None] = [None] * len(wanted)
    for i, pair in pairs.items():
        dtype = wanted[i].dtype
        ufunc = make_ufunc(library, f"loop_{i}", [dtype] * len(pair.inputs), [dtype] * 2)
        made[i] = _call(ufunc, library.polyop_flags, wanted[i].places, dtype)
    return made


def _pair(wanted: Wanted) -> Pair | None:
    kernel, written, places, dtype = wanted
    # Numbers are inputs as well: one loop serves them all.
    given = [f"x{i}" for i in (*places.values, *places.statics)]
    moving = [f"g{i}" for i in places.moving]
    arguments = [f"x{places.place(i)}" for i in range(len(places.names))]
    value = _formula(lambda known: kernel(*[known[x] for x in arguments]), given, dtype)
    reads = [x for x in (*given, "r", *moving) if x in written.reads]
    tangent = _formula(written.applied, reads, dtype)
    if value is None or tangent is None:
        return None
    return Pair([*given, *moving], {"r": value, "d": tangent}, ["r", "d"])


def _source(number: int, pair: Pair, dtype: DType) -> str:
    """Write a loop, which goes from block to block: first the results of one, then the tangents.

    Fewer rows of memory are then on the way at a time, which is what such a loop waits for.
    """
    kind = TYPES[dtype][1]
    given = {name: f"a{i}" for i, name in enumerate(pair.inputs)}
    made = {name: f"r{i}" for i, name in enumerate(pair.outputs)}
    parts, calls = [], []
    for name, formula in pair.members.items():
        reads: dict[Any, Symbol] = formula.inputs
        parts.append(body_of(f"{number}_{name}", Pair(list(reads), {name: formula}, [name])))
        rows = [f"{(given | made)[x]} + i" for x in (*reads, name)]
        calls.append(f"body_{number}_{name}({', '.join(rows)}, m);")
    params = [f"const {kind} *{a}" for a in given.values()]
    params += [f"{kind} *{r}" for r in made.values()]
    whole = [
        f"BODY body_{number}({', '.join(params)}, intptr_t n) {{",
        "for (intptr_t i = 0; i < n; i += BLOCK) {",
        "intptr_t m = n - i < BLOCK ? n - i : BLOCK;",
        *calls,
        "} }",
    ]
    return "\n".join([*parts, *whole, loop_of(number, pair)])


def _formula(
    run: Callable[[dict[str, Symbol]], Any], reads: Sequence[str], dtype: DType
) -> Formula | None:
    steps: list[Step] = []
    try:
        symbols = {name: Symbol(dtype, steps) for name in reads}
    except Unknown:
        return None
    result = trace(run, (symbols,), {})
    if result is None or result.dtype != dtype or not all(map(_is_exact, steps)):
        return None
    inputs: dict[Any, Symbol] = {**symbols}
    return Formula(inputs, steps, result)


def _is_exact(step: Step) -> bool:
    if step.what in _EXACT_WORDS:
        return True
    return step.loop is not None and (step.what, KINDS[step.loop]) in EXACT


# -- the call -------------------------------------------------------------------


def _call(ufunc: Any, flags: Callable[[], int], places: Places, dtype: DType) -> Loop:
    """Make the function that looks at the arrays, and runs the loop on those that are alike."""
    tensors, statics, moving = places.values, places.statics, places.moving

    def loop(values: Sequence[Any], tangents: Sequence[Any]) -> tuple[Tensor, tuple[Tensor]] | None:
        arrays = [values[i].payload for i in tensors]
        slopes = [tangents[i].payload for i in moving]
        first = arrays[0]
        shape, strides = first.shape, first.strides
        for a in (*arrays, *slopes):
            if a.dtype is not dtype or a.shape != shape or a.strides != strides:
                return None
        if not first.flags.forc:
            return None
        for i in statics:
            if not _is_plain(values[i]):
                return None
            arrays.append(np.array(values[i], dtype))
        r, d = ufunc.call(*arrays, *slopes)
        raised = flags()
        if raised and reported(raised):
            return None
        return _wrapped(r), (_wrapped(d),)

    return loop


def _is_plain(number: Any) -> bool:
    """Tell whether a number is the same for NumPy in a loop and beside an array."""
    if number.__class__ is int:
        return bool(-_WHOLE < number < _WHOLE)
    return number.__class__ is float and (number == 0 or _LEAST < abs(number) < _MOST)


def _wrapped(array: Any) -> Tensor:
    t = Tensor()
    t.payload, t.keys, t.version = array, NUMPY, 0
    return t

"""Loops that compute a pointwise operator's result together with its tangent.

A product with two tangents takes NumPy four passes over memory, and this loop one. Its formula
is the kernel's and the tangent's own steps, run on symbols; only steps of equal bits are taken
(NOTE [Equal bits] in `formulas.py`), so that nobody can tell from the numbers what ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from polyop.compile.fused.call import reported
from polyop.compile.fused.choices import is_half, left_out
from polyop.compile.fused.formula import Formula
from polyop.compile.fused.formulas import EXACT, KINDS, TYPES
from polyop.compile.fused.library import is_of_intel, load_library
from polyop.compile.fused.source import PRELUDE, blocks_of, body_of
from polyop.compile.fused.symbols import Step, Symbol, Unknown, trace
from polyop.compile.fused.turns import TURN, take_turns
from polyop.compile.fused.ufunc import Ufunc, make_ufunc
from polyop.devices import DType
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.write import make_function
from polyop.layers.autograd.paired import Kernel, Loop
from polyop.layers.autograd.steps import Places, Written
from polyop.tensor.tensor import Tensor

_EXACT_WORDS = {"cast", "where"}
#: Numbers of this size are the same in each dtype, or near it, and raise no flag there.
_LEAST, _MOST, _WHOLE = 1e-30, 1e30, 1 << 24
#: On processors of Intel vectors of half the width wait less for memory that is not laid out by
#: cache lines; on those of AMD choices on half the width take half as long again.
NARROW = """\
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=256")
#endif"""
#: How much of each array a loop goes through at a time.
PART = "#define PART (intptr_t)(1024 / sizeof(T))"


class Wanted(NamedTuple):
    """What a loop is to compute.

    Attributes:
        kernel: of the operator, on bare arrays.
        written: the steps of the tangent.
        places: the arguments.
        dtype: of all arrays.
    """

    kernel: Kernel
    written: Written
    places: Places
    dtype: DType


class Pair(NamedTuple):
    """What one loop computes; `source.py` reads it as it reads the groups of a graph."""

    inputs: Sequence[str]
    members: Mapping[str, Formula]
    outputs: Sequence[str]
    numbers: Sequence[str] = ()
    #: Whether it halves what a choice may leave out: not every underflow is flagged then.
    halves: bool = False


def make_loops(wanted: Sequence[Wanted]) -> list[Loop | None]:
    """Compile loops of one dtype; None for one of which a step has not NumPy's bits, or no formula.

    Raises:
        UsageError: there is no compiler.
        PolyopError: the compiler fails.
    """
    pairs = {i: pair for i, one in enumerate(wanted) if (pair := _pair(one)) is not None}
    if not pairs:
        return [None] * len(wanted)
    parts = [_source(i, pair) for i, pair in pairs.items()]
    kind = TYPES[wanted[0].dtype][1]
    width = [NARROW] if is_of_intel() else []
    text = "\n".join([*width, PRELUDE, f"typedef {kind} T;", PART, TURN, *parts])
    library = load_library(lambda _: text)
    take_turns(library)
    made: list[Loop | None] = [None] * len(wanted)
    for i, pair in pairs.items():
        dtype = wanted[i].dtype
        ufunc = make_ufunc(
            library, f"loop_{i}", [dtype] * len(pair.inputs), [dtype] * len(pair.outputs)
        )
        made[i] = _call(ufunc, library.polyop_flags, wanted[i], pair)
    return made


def make_loop(*wanted: Any) -> Loop | None:
    """Compile one loop; the arguments are the fields of `Wanted`."""
    return make_loops([Wanted(*wanted)])[0]


def _pair(wanted: Wanted) -> Pair | None:
    """Give the formulas of result and tangent; of the tangent alone, if that has NumPy's bits."""
    kernel, written, places, dtype = wanted
    # Numbers are inputs as well: one loop serves them all.
    given = [f"x{i}" for i in (*places.values, *places.statics)]
    moving = [f"g{i}" for i in places.moving]
    arguments = [f"x{places.place(i)}" for i in range(len(places.names))]
    value = _formula(lambda known: kernel(*[known[x] for x in arguments]), given, dtype)
    reads = [x for x in (*given, "r", *moving) if x in written.reads]
    tangent = _formula(written.applied, reads, dtype)
    if tangent is None:
        return None
    left = left_out(tangent)
    if not all(map(is_half, left)) or (value is not None and left_out(value)):
        return None
    numbers = [f"x{i}" for i in places.statics]
    if value is None:
        fewer = [x for x in numbers if x in reads]
        return Pair(reads, {"d": tangent}, ["d"], fewer, bool(left))
    members = {"r": value, "d": tangent}
    return Pair([*given, *moving], members, ["r", "d"], numbers, bool(left))


def _source(number: int, pair: Pair) -> str:
    """Write a loop, which goes from block to block: first the results of one, then the tangents.

    Fewer rows of memory are then on the way at a time, which is what such a loop waits for. For
    the order of blocks see `turns.py`. A number is one row, which each block reads.
    """
    given = {name: f"a{i}" for i, name in enumerate(pair.inputs)}
    names = given | {name: f"r{i}" for i, name in enumerate(pair.outputs)}
    parts, calls = [], []
    for name, formula in pair.members.items():
        reads: dict[Any, Symbol] = formula.inputs
        parts.append(body_of(f"{number}_{name}", Pair(list(reads), {name: formula}, [name])))
        calls.append(f"body_{number}_{name}({', '.join(names[x] for x in (*reads, name))}, n);")
    params = [f"{'const ' if x in given else ''}T *{a}" for x, a in names.items()]
    places = enumerate(names)
    rows = [f"(T *)p[{k}] + i" if x not in pair.numbers else f"b{k}" for k, x in places]
    numbers = [k for k, x in enumerate(names) if x in pair.numbers]
    steps = ["0" if k in numbers else "sizeof(T)" for k in range(len(names))]
    fits = " && ".join(f"s[{k}] == {step}" for k, step in enumerate(steps))
    return "\n".join([
        *parts,
        f"BODY body_{number}({', '.join(params)}, intptr_t n) {{",
        *calls,
        "}",
        blocks_of(number, pair),
        f"static void straight_{number}(char **p, intptr_t n) {{",
        "intptr_t last = (n - 1) / PART * PART, back = turned();",
        *[f"T b{k}[PART];" for k in numbers],
        *[f"for (int i = 0; i < PART; i++) b{k}[i] = *(T *)p[{k}];" for k in numbers],
        "for (intptr_t j = 0; j <= last; j += PART) {",
        "intptr_t i = back ? last - j : j, m = n - i < PART ? n - i : PART;",
        f"body_{number}({', '.join(rows)}, m);",
        "} }",
        f"void loop_{number}(char **p, const intptr_t *d, const intptr_t *s, void *unused) {{",
        "(void)unused;",
        f"if ({fits}) straight_{number}(p, d[0]);",
        f"else blocks_{number}(p, d[0], s);",
        "NOTE_FLAGS;",
        "}",
    ])  # fmt: skip


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

TEXT = """\
def f(values, tangents):
    {reads}
    if not ({dtypes}{plain}):
        return None
    shape, strides = x.shape, x.strides
    if not ({alike} and {laid}{otherwise}){heard}:
        return None
    t, g = Tensor(), Tensor()
    t.keys = g.keys = NUMPY
    t.version = g.version = 0
    {runs}
    raised = flags()
    if raised and reported(raised):
        return {reported}
    return t, (g,)
"""
#: Arrays in Fortran order with an axis of one element: NumPy's calls give it several strides.
LAID = "(x.flags.c_contiguous or (x.flags.f_contiguous and 1 not in shape))"
BOTH = "t.payload, g.payload = ufunc({arrays})"
#: A result of NumPy's own, and only the tangent by the loop.
APART = """\
t.payload = r = kernel({arguments})
    if r.dtype is not dtype or r.shape != shape or r.strides != strides:
        return t, None
    g.payload = ufunc({arrays})"""


def _call(ufunc: Ufunc, flags: Callable[[], int], wanted: Wanted, pair: Pair) -> Loop:
    """Write the function that looks at the arrays, and runs the loop on those that fit it."""
    places, dtype = wanted.places, wanted.dtype
    first = places.values[0]
    names = {f"x{i}": f"x{i}" if i != first else "x" for i in places.values}
    names |= {f"n{i}": f"n{i}" for i in places.statics} | {"r": "r"}
    arrays = {names[f"x{i}"]: f"values[{i}].payload" for i in places.values}
    arrays |= {f"g{i}": f"tangents[{i}].payload" for i in places.moving}
    numbers = {f"n{i}": f"values[{i}]" for i in places.statics}
    read = [x.replace("x", "n") if x in pair.numbers else x for x in pair.inputs]
    given = ", ".join(f"array({x}, dtype)" if x in numbers else names.get(x, x) for x in read)
    arguments = [
        f"n{i}" if i in places.statics else names[f"x{places.place(i)}"]
        for i in range(len(places.names))
    ]
    both = len(pair.outputs) == 2
    text = TEXT.format(
        reads="\n    ".join(f"{x} = {source}" for x, source in (arrays | numbers).items()),
        dtypes=" and ".join(f"{x}.dtype is dtype" for x in arrays),
        plain="".join(f" and is_plain({n})" for n in numbers if n in read),
        alike=" and ".join(f"{x}.shape == shape and {x}.strides == strides" for x in arrays),
        laid=LAID,
        otherwise=f" or line_up({', '.join(arrays)})" if both and _is_full(wanted) else "",
        heard=" or hears_underflow()" if pair.halves else "",
        runs=(BOTH if both else APART).format(arrays=given, arguments=", ".join(arguments)),
        reported="None" if both else "t, None",
    )
    scope = {
        "ufunc": ufunc.call, "kept": ufunc.kept, "flags": flags, "dtype": dtype, "array": np.array,
        "reported": reported, "is_plain": _is_plain, "Tensor": Tensor, "NUMPY": NUMPY,
        "line_up": _line_up, "hears_underflow": _hears_underflow, "kernel": wanted.kernel,
    }  # fmt: skip
    return cast("Loop", make_function(text, scope, "loop", ()))


def _is_full(wanted: Wanted) -> bool:
    """Tell whether the tangent has the result's shape wherever several arrays are repeated."""
    reads, values = wanted.written.reads, wanted.places.values
    return len(values) > 1 and ("r" in reads or all({f"x{i}", f"g{i}"} & reads for i in values))


def _hears_underflow() -> bool:
    return np.geterr()["under"] != "ignore"


def _line_up(*arrays: Any) -> bool:
    """Tell whether arrays without gaps are repeated beside each other, as NumPy repeats them."""
    try:
        np.broadcast(*arrays)
    except ValueError:
        return False
    return all(a.flags.c_contiguous for a in arrays)


def _is_plain(number: Any) -> bool:
    """Tell whether a number is the same for NumPy in a loop and beside an array."""
    if number.__class__ is int:
        return bool(-_WHOLE < number < _WHOLE)
    return number.__class__ is float and (number == 0 or _LEAST < abs(number) < _MOST)

"""The C source of a graph's groups: for each a body over contiguous data, and a loop for NumPy.

A body has one line per step and is what the compiler vectorizes. A loop calls it
on the data itself where all of it is contiguous, and else block by block, on
copies: strided data is gathered, and what is repeated is written once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import numpy as np

from polyop.compile.fused.choices import CHOOSING, folds_loudly, unheard
from polyop.compile.fused.formula import Formula
from polyop.compile.fused.formulas import CLOSE, FORMULAS, FUNCTIONS, KINDS, TYPES
from polyop.compile.fused.symbols import Operand, Step, Symbol
from polyop.devices import DType

#: NOTE [Floating-point warnings]: the flags of each thread, until they are asked for. On x86 the
#: control register is read and written; C's own functions look at the old unit too, slowly.
PRELUDE = """\
#include <math.h>
#include <stdint.h>
#define BLOCK 256
#define BODY static __attribute__((noinline)) void
static __thread unsigned raised;
#if defined(__x86_64__)
#define NOTE_FLAGS do { \\
    __asm__ volatile("" ::: "memory"); \\
    unsigned csr = __builtin_ia32_stmxcsr(); \\
    if (csr & 0x3f) { \\
        raised |= (csr >> 2 & 1) | (csr >> 3 & 1) << 1 | (csr >> 4 & 1) << 2 | (csr & 1) << 3; \\
        __builtin_ia32_ldmxcsr(csr & ~0x3fu); \\
    } } while (0)
#else
#include <fenv.h>
#define NOTE_FLAGS do { \\
    __asm__ volatile("" ::: "memory"); \\
    int all = fetestexcept(FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID); \\
    if (all) { \\
        raised |= !!(all & FE_DIVBYZERO) | !!(all & FE_OVERFLOW) << 1 \\
            | !!(all & FE_UNDERFLOW) << 2 | !!(all & FE_INVALID) << 3; \\
        feclearexcept(FE_ALL_EXCEPT); \\
    } } while (0)
#endif
unsigned polyop_flags(void) { unsigned found = raised; raised = 0; return found; }
#define MOVERS(T) \\
static void gather_##T(T *to, const char *from, intptr_t step, intptr_t n) \\
{ for (intptr_t i = 0; i < n; i++) to[i] = *(const T *)(from + i * step); } \\
static void scatter_##T(char *to, const T *from, intptr_t step, intptr_t n) \\
{ for (intptr_t i = 0; i < n; i++) *(T *)(to + i * step) = from[i]; }
#define BITS(T, U) \\
static inline U bits_##T(T x) { U found; __builtin_memcpy(&found, &x, sizeof x); return found; }
BITS(float, uint32_t) BITS(double, uint64_t)
MOVERS(uint8_t) MOVERS(int32_t) MOVERS(int64_t) MOVERS(float) MOVERS(double)
"""
#: The flags of `raised`, from the lowest bit, by their names in `numpy.geterr`.
FLAGS = ("divide", "over", "under", "invalid")


class Group(Protocol):
    """What one loop computes."""

    @property
    def inputs(self) -> Iterable[Any]:
        """Keys of what it reads."""

    @property
    def members(self) -> Mapping[Any, Formula]:
        """By key, what it computes, in order."""

    @property
    def outputs(self) -> Sequence[Any]:
        """The keys of its results."""


def source_of(groups: Sequence[Group], *, vectors: bool) -> str:
    """Give the source of loops `loop_0`, `loop_1`, ... for groups.

    Args:
        groups: the groups.
        vectors: declare that the C library has functions on vectors.
    """
    functions = [_vector_functions(groups)] if vectors else []
    parts = [
        text
        for i, group in enumerate(groups)
        for text in (body_of(i, group, unheard(group.members, group.outputs)), loop_of(i, group))
    ]
    return "\n".join([PRELUDE, *functions, *parts])


def signature(group: Group) -> tuple[list[DType], list[DType]]:
    """Give the dtypes of what a group reads, and of its results."""
    symbols = {n: s for formula in group.members.values() for n, s in formula.inputs.items()}
    inputs = [symbols[n].dtype for n in group.inputs]
    return inputs, [group.members[n].result.dtype for n in group.outputs]


def _vector_functions(groups: Sequence[Group]) -> str:
    found: dict[str, None] = {}
    for step in (s for g in groups for f in g.members.values() for s in f.steps):
        if (step.what, "f") in CLOSE:
            assert step.loop is not None
            kind, _, suffix, _ = TYPES[step.loop]
            given = ", ".join([kind] * len(step.operands))
            found[f"{kind} {FUNCTIONS[step.what]}{suffix}({given});"] = None
    return "\n".join(f'__attribute__((simd("notinbranch"), const)) {line}' for line in found)


# -- bodies ---------------------------------------------------------------------


def body_of(number: object, group: Group, kept: Set[int] | None = None) -> str:
    """Write the function over contiguous data.

    Args:
        number: of the loop.
        group: what it computes.
        kept: symbols, by `id`, that are computed whatever is chosen (NOTE [Kept] in `choices.py`);
            None where nobody hears of what is not.
    """
    inputs, outputs = signature(group)
    params = [f"const {TYPES[d][1]} *restrict a{i}" for i, d in enumerate(inputs)]
    params += [f"{TYPES[d][1]} *restrict r{i}" for i, d in enumerate(outputs)]
    lines = _Lines(group, kept)
    disguised = [
        f'{kind} m{name} = {text}; __asm__("" : "+m"(m{name})); const {kind} {name} = m{name};'
        for (kind, text), name in lines.constants.items()
    ]
    sums = ", ".join(lines.kept.values())
    text = [
        f"BODY body_{number}({', '.join(params)}, intptr_t n) {{",
        *[f"{kind} {name} = 0;" for kind, name in lines.kept.items()],
        *disguised,
        f"#pragma omp simd{f' reduction(|:{sums})' if sums else ''}",
        "for (intptr_t i = 0; i < n; i++) {",
        *lines.lines,
        "}",
        *[f'__asm__ volatile("" :: "r"({name}));' for name in lines.kept.values()],
        "}",
    ]
    return "\n".join(text)


class _Lines:
    """The lines of a body, made member by member: a symbol of each has one variable."""

    def __init__(self, group: Group, kept: Set[int] | None) -> None:
        self.lines: list[str] = []
        self.hides = kept is not None and folds_loudly(group.members)
        self.kept: dict[str, str] = {}
        self.constants: dict[tuple[str, str], str] = {}
        self.names: dict[int, str] = {}
        of_nodes = {node: f"x{i}" for i, node in enumerate(group.inputs)}
        for (i, _), dtype in zip(enumerate(group.inputs), signature(group)[0], strict=True):
            read = f"a{i}[i] != 0" if KINDS[dtype] == "b" else f"a{i}[i]"
            self.lines.append(f"{TYPES[dtype][0]} x{i} = {read};")
        for node, formula in group.members.items():
            for given, symbol in formula.inputs.items():
                self.names[id(symbol)] = of_nodes[given]
            for step in formula.steps:
                self.lines.append(self.step(step))
                self.lines += [self._keep(step)] if id(step.result) in (kept or ()) else []
            of_nodes[node] = self.names[id(formula.result)]
        for i, node in enumerate(group.outputs):
            self.lines.append(f"r{i}[i] = {of_nodes[node]};")

    def step(self, step: Step) -> str:
        """Write one step."""
        name = self.names[id(step.result)] = f"v{len(self.names)}"
        kind = TYPES[step.result.dtype][0]
        return f"{kind} {name} = ({kind})({self._expression(step)});"

    def _keep(self, step: Step) -> str:
        """Write that a value is computed, whoever reads it."""
        kind = TYPES[step.result.dtype][0]
        word = "uint32_t" if step.result.dtype.itemsize == 4 else "uint64_t"
        name = self.kept.setdefault(word, f"kept_{kind}")
        return f"{name} |= bits_{kind}({self.names[id(step.result)]});"

    def _expression(self, step: Step) -> str:
        if step.what == "cast":
            return self._given(step.operands[0], step.result.dtype)
        if step.what == "where":
            condition, *values = step.operands
            a, b = (self._chosen(x, step.result.dtype) for x in values)
            return f"{self._given(condition, np.dtype(bool))} ? {a} : {b}"
        assert step.loop is not None
        write = self._chosen if step.what in CHOOSING else self._given
        given = [write(x, step.loop) for x in step.operands]
        kind, _, suffix, unsigned = TYPES[step.loop]
        text = FORMULAS[step.what, KINDS[step.loop]]
        zero = self._chosen(step.loop.type(0), step.loop) if "{z}" in text else ""
        return text.format(*given, t=kind, f=suffix, u=unsigned, z=zero)

    def _chosen(self, operand: Operand, dtype: DType) -> str:
        """Write an operand that may be chosen, a constant in disguise where that has to be."""
        text = self._given(operand, dtype)
        if isinstance(operand, Symbol) or not self.hides:
            return text
        return self.constants.setdefault((TYPES[dtype][0], text), f"c{len(self.constants)}")

    def _given(self, operand: Operand, dtype: DType) -> str:
        """Write an operand, converted to a dtype as C and NumPy convert."""
        if not isinstance(operand, Symbol):
            return literal(operand, dtype)
        name = self.names[id(operand)]
        if operand.dtype == dtype:
            return name
        return f"({name} != 0)" if KINDS[dtype] == "b" else f"(({TYPES[dtype][0]}){name})"


def literal(value: np.generic, dtype: DType) -> str:
    """Write a constant, with all of its bits."""
    kind, _, suffix, _ = TYPES[dtype]
    if KINDS[dtype] != "f":
        # The least number has no literal of its own.
        whole = int(value)
        return f"(({kind})({whole + 1}LL - 1))" if whole < 0 else f"(({kind}){whole}LL)"
    number = float(value)
    if math.isnan(number):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(number):
        return f"({'-' if number < 0 else ''}__builtin_inf{suffix}())"
    return f"({number.hex()}{suffix})"


# -- loops ----------------------------------------------------------------------


def loop_of(number: object, group: Group) -> str:
    """Write the function that NumPy calls, for data that lie in any way."""
    inputs, outputs = signature(group)
    kinds = [TYPES[d][1] for d in [*inputs, *outputs]]
    whole = " && ".join(f"s[{k}] == sizeof({kind})" for k, kind in enumerate(kinds))
    straight = ", ".join(f"({kind} *)p[{k}]" for k, kind in enumerate(kinds))
    return f"""\
{blocks_of(number, group)}
void loop_{number}(char **p, const intptr_t *d, const intptr_t *s, void *unused) {{
(void)unused;
if ({whole}) body_{number}({straight}, d[0]);
else blocks_{number}(p, d[0], s);
NOTE_FLAGS;
}}"""


def blocks_of(number: object, group: Group) -> str:
    """Write the function that calls a body block by block, on copies where it must."""
    inputs, outputs = signature(group)
    kinds = [TYPES[d][1] for d in [*inputs, *outputs]]
    count = len(inputs)
    buffers = "\n".join(f"{kind} b{k}[BLOCK];" for k, kind in enumerate(kinds))
    blocks = ", ".join(f"c{k}" for k in range(len(kinds)))
    reads = "\n".join(_read(k, kind) for k, kind in enumerate(kinds[:count]))
    places = "\n".join(_place(count + k, kind) for k, kind in enumerate(kinds[count:]))
    writes = "\n".join(_write(count + k, kind) for k, kind in enumerate(kinds[count:]))
    return f"""\
static __attribute__((noinline)) void blocks_{number}(char **p, intptr_t n, const intptr_t *s) {{
{buffers}
for (intptr_t i = 0; i < n; i += BLOCK) {{
intptr_t m = n - i < BLOCK ? n - i : BLOCK;
{reads}
{places}
body_{number}({blocks}, m);
{writes}
}} }}"""


def _read(k: int, kind: str) -> str:
    return f"""\
const {kind} *c{k} = b{k};
if (s[{k}] == sizeof({kind})) c{k} = (const {kind} *)p[{k}] + i;
else if (s[{k}] || !i) gather_{kind}(b{k}, p[{k}] + i * s[{k}], s[{k}], m);"""


def _place(k: int, kind: str) -> str:
    return f"{kind} *c{k} = s[{k}] == sizeof({kind}) ? ({kind} *)p[{k}] + i : b{k};"


def _write(k: int, kind: str) -> str:
    return f"if (c{k} == b{k}) scatter_{kind}(p[{k}] + i * s[{k}], b{k}, s[{k}], m);"

"""Loops for the tangent of a power, `r * (b da / a + log(a) db)`, in one pass.

Beside the steps of NumPy's own passes, in their order, a loop looks at what they would be looked at
for in passes of their own: whether a result, a base or a tangent is not for quotients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.compile.fused.formulas import TYPES
from polyop.compile.fused.library import load_library
from polyop.compile.fused.source import FLAGS, PRELUDE
from polyop.compile.fused.turns import TURN, take_turns
from polyop.compile.fused.ufunc import make_ufunc
from polyop.devices import DType
from polyop.layers.autograd.paired import Loop

#: Set by a loop for what is left to the text, above the flags of numbers.
REFUSED = 16
#: What a loop says where a quotient may have lost digits, or is none.
UNFIT = REFUSED | 1 << FLAGS.index("under")
#: What is read, the sum of quotients, and whether a base is for them; by the moving arguments.
SUMS = {
    1: ("ra", "bg", "(g[i] * b[i]) / a[i]", "1"),
    2: ("ra", "lh", "l[i] * h[i]", "a[i] > 0"),
    3: ("ra", "bglh", "(g[i] * b[i]) / a[i] + l[i] * h[i]", "a[i] > 0"),
}
LOOP = """\
static WORD part({params}, T *restrict d, intptr_t n) {{
WORD fit = -1;
for (intptr_t i = 0; i < n; i++) {{
    T t = ({total}) * r[i];
    T size = r[i] < 0 ? -r[i] : r[i], slope = t < 0 ? -t : t;
    d[i] = t;
    fit &= -(WORD)((size >= LEAST) & (size <= MOST) & (slope <= MOST) & ({fits}));
}}
return fit;
}}
void loop_power(char **p, const intptr_t *d, const intptr_t *s, void *unused) {{
(void)unused; (void)s;
intptr_t n = d[0], last = (n - 1) / PART * PART, back = turned();
WORD fit = -1;
for (intptr_t j = 0; j <= last; j += PART) {{
    intptr_t i = back ? last - j : j, m = n - i < PART ? n - i : PART;
    fit &= part({rows}, (T *)p[{count}] + i, m);
}}
NOTE_FLAGS;
if (!fit) raised |= {refused};
}}"""


def make_power(which: int, dtype: DType) -> Loop:
    """Compile the loop of a power's tangent.

    Args:
        which: the bits of the arguments that have a tangent, 1 of the base and 2 of the exponent.
        dtype: of all arrays.

    Returns:
        The loop, called with the arrays `(a, b, r)` and the tangents of `a` and `b`; it gives `r`
        and the tangent of `r` in a row, or None where it does not serve.

    Raises:
        UsageError: there is no compiler.
        PolyopError: the compiler fails.
    """
    first, second, total, fits = SUMS[which]
    names = first + second
    limits, kind = np.finfo(dtype), TYPES[dtype][1]
    lines = [
        PRELUDE, TURN, f"typedef {kind} T;", f"typedef int{8 * dtype.itemsize}_t WORD;",
        "#define PART (intptr_t)(1024 / sizeof(T))",
        f"#define LEAST (T){float(limits.tiny).hex()}",
        f"#define MOST (T){float(limits.max).hex()}",
        LOOP.format(
            params=", ".join(f"const T *restrict {x}" for x in names), total=total, fits=fits,
            rows=", ".join(f"(T *)p[{k}] + i" for k in range(len(names))), count=len(names),
            refused=REFUSED,
        ),
    ]  # fmt: skip
    library = load_library(lambda _: "\n".join(lines))
    take_turns(library)
    ufunc = make_ufunc(library, "loop_power", [dtype] * len(names), [dtype])
    return _call(names, ufunc, library.polyop_flags, dtype)


def _call(names: str, ufunc: Any, flags: Callable[[], int], dtype: DType) -> Loop:
    """Make the function that looks at the arrays, and runs the loop on those that are alike."""
    run, last = ufunc.call, names[2:]

    def loop(values: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, tuple[Any]] | None:
        (a, b, r), (g, h) = values, tangents
        given = {"b": b, "g": g, "h": h}
        arrays = [a, *[given[x] for x in last if x != "l"]]
        if not _is_whole(r) or not all(_is_whole(x) and x.shape == r.shape for x in arrays):
            return None
        if h is not None:
            given["l"] = np.log(a)
        d = run(r, a, *[given[x] for x in last])
        return None if flags() & UNFIT else (r, (d,))

    def _is_whole(array: Any) -> bool:
        return bool(array.dtype is dtype and array.flags.c_contiguous)

    loop.kept = ufunc.kept  # type: ignore[attr-defined]
    return loop

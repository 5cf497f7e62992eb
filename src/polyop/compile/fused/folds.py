"""Loops that compute a sum, a mean or an extreme together with its tangent, in one pass.

Arrays without gaps, of which neighbouring axes go, lie as `(outer, m, n)`, and `m` goes. Sums are
added in NumPy's order (NOTE [Sums]), so that they have its bits. An extreme is looked for where it
can still be: of a block whose greatest element is less than one before, nothing else is read.

NOTE [Sums]
Along the last axis NumPy adds pairwise (Higham, "The accuracy of floating point summation", 1993):
halves of whole eights down to 128 elements, and those in eight sums, which are added as a tree; to
zero in the end. Along other axes it adds row by row, to zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from polyop.compile.fused.call import reported
from polyop.compile.fused.formulas import TYPES
from polyop.compile.fused.library import load_library
from polyop.compile.fused.source import PRELUDE
from polyop.compile.fused.turns import TURN, take_turns
from polyop.compile.fused.ufunc import make_ufunc
from polyop.devices import DType
from polyop.dispatch.bits import NUMPY
from polyop.errors import PolyopError
from polyop.layers.autograd.paired import Loop
from polyop.ops.axes import normal_axes
from polyop.tensor.tensor import Tensor

#: Set by a loop for what NumPy is to compute: the bits of `numpy.geterr` are below.
REFUSED = 16
SIGNATURE = "(m,n),(m,n)->(n),(n)"

#: Many columns are gone through in stripes, from either side: the last ones of a call are in the
#: core's cache yet when the next begins there. A stripe's row has 1280 bytes at least.
STRIPE = """\
static intptr_t stripe(intptr_t m, intptr_t n) {
intptr_t least = 1280 / sizeof(T), w = 98304 / (m * (intptr_t)sizeof(T));
w = w < least ? least : w - w % least;
return w < n ? w : n;
}
#define STRIPES(m, n, back, i, w) \\
for (intptr_t width = stripe(m, n), last = (n - 1) / width, k_ = 0, i, w; k_ <= last && \\
    (i = (back ? last - k_ : k_) * width, w = n - i < width ? n - i : width, 1); k_++)"""
LOOP = """\
void loop_{name}(char **p, const intptr_t *d, const intptr_t *s, void *unused) {{
(void)unused;
int back = turned();
for (intptr_t k = 0; k < d[0]; k++) {{
    intptr_t o = back ? d[0] - 1 - k : k;
    fold_{name}((const T *)(p[0] + o * s[0]), (const T *)(p[1] + o * s[1]),
        (T *)(p[2] + o * s[2]), (T *)(p[3] + o * s[3]), d, back);
}}
NOTE_FLAGS;
}}"""
SUMS = """\
typedef T EIGHT __attribute__((vector_size(8 * sizeof(T))));
static EIGHT eight(const T *x) { EIGHT v; __builtin_memcpy(&v, x, sizeof v); return v; }
static T total(EIGHT v)
{ return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }
static void pair(const T *x, const T *g, intptr_t m, T *r, T *d, int back) {
if (m > 128) {
    T u[2], v[2];
    intptr_t half = m / 2 - m / 2 % 8;
    if (back) pair(x + half, g + half, m - half, u + 1, v + 1, back);
    pair(x, g, half, u, v, back);
    if (!back) pair(x + half, g + half, m - half, u + 1, v + 1, back);
    *r = u[0] + u[1], *d = v[0] + v[1];
    return;
}
intptr_t i = 0;
T a = -0.0, b = -0.0;
if (m >= 8) {
    EIGHT all = eight(x), slopes = eight(g);
    for (i = 8; i < m - m % 8; i += 8) all += eight(x + i), slopes += eight(g + i);
    a = total(all), b = total(slopes);
}
for (; i < m; i++) a += x[i], b += g[i];
*r = a, *d = b;
}
/* Four rows at a time, each sum in the order of rows; `w` of the `n` columns. */
static void rows(const T *restrict x, T *restrict r, intptr_t m, intptr_t n, intptr_t w) {
intptr_t i = 0;
for (intptr_t j = 0; j < w; j++) r[j] = 0;
for (; i + 4 <= m; i += 4, x += 4 * n)
    for (intptr_t j = 0; j < w; j++)
        r[j] = (((r[j] + x[j]) + x[n + j]) + x[2 * n + j]) + x[3 * n + j];
for (; i < m; i++, x += n)
    for (intptr_t j = 0; j < w; j++) r[j] += x[j];
}
static void fold_sum(
    const T *x, const T *g, T *r, T *d, const intptr_t *size, int back
) {
intptr_t m = size[1], n = size[2];
if (n == 1) {
    pair(x, g, m, r, d, back);
    *r += 0, *d += 0;
    return;
}
STRIPES(m, n, back, i, w) {
    rows(x + i, r + i, m, n, w);
    rows(g + i, d + i, m, n, w);
}
}
static void fold_mean(
    const T *x, const T *g, T *r, T *d, const intptr_t *size, int back
) {
fold_sum(x, g, r, d, size, back);
for (intptr_t j = 0; j < size[2]; j++) r[j] /= (T)size[1], d[j] /= (T)size[1];
}"""
#: {better} is `>` or `<`. What NumPy is to do: NaN, which all is; zeros, whose signs depend on its
#: order, be they greatest elements or tangents of them; and more that tie, of all elements, than it
#: adds in order. Those that tie in a row of several are added with zeros for the others.
#: NumPy divides by whole numbers, as counts are, in doubles.
EXTREMES = """\
#include <stdlib.h>
#define WIDE 32
/* Add the tangents of a row's elements that are the best: of one, or of each. */
static void take_{name}(
    const T *y, const T *g, const T *best, T *d, intptr_t *count, intptr_t step, intptr_t size
) {{
for (intptr_t from = 0; from < size; from += WIDE) {{
    intptr_t stop = size - from < WIDE ? size : from + WIDE;
    WORD any = stop < from + WIDE;
    if (!any && step) for (int k = 0; k < WIDE; k++) any |= y[from + k] == best[from + k];
    if (!any && !step) for (int k = 0; k < WIDE; k++) any |= y[from + k] == *best;
    if (any)
        for (intptr_t k = from; k < stop; k++)
            if (y[k] == best[k * step]) {{
                d[k * step] += g[k], count[k * step]++;
                if (g[k] == 0 && __builtin_signbit(g[k])) raised |= REFUSED;
            }}
}}
}}
static T tied_{name}(const T *x, const T *g, T best, intptr_t m) {{
if (m > 128) {{
    intptr_t half = m / 2 - m / 2 % 8;
    return tied_{name}(x, g, best, half) + tied_{name}(x + half, g + half, best, m - half);
}}
intptr_t i = 0;
T v[8] = {{0}}, a = 0;
for (; i + 8 <= m; i += 8)
    for (int k = 0; k < 8; k++) v[k] += x[i + k] == best ? g[i + k] : 0;
if (i) a = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
for (; i < m; i++) a += x[i] == best ? g[i] : 0;
return a;
}}
static void peak_{name}(const T *x, const T *g, T *r, T *d, intptr_t m, intptr_t outer) {{
T best = x[0], slope = 0;
WORD nan = 0;
intptr_t count = 0;
for (intptr_t from = 0; from < m; from += 1024) {{
    const T *y = x + from;
    intptr_t i = 0, size = m - from < 1024 ? m - from : 1024;
    T top = y[0];
    if (size >= WIDE) {{
        T tops[WIDE];
        WORD odd[WIDE];
        for (int k = 0; k < WIDE; k++) tops[k] = y[k], odd[k] = y[k] != y[k];
        for (i = WIDE; i + WIDE <= size; i += WIDE)
            for (int k = 0; k < WIDE; k++) {{
                tops[k] = y[i + k] {better} tops[k] ? y[i + k] : tops[k];
                odd[k] |= y[i + k] != y[i + k];
            }}
        for (int half = WIDE / 2; half; half /= 2)
            for (int k = 0; k < half; k++) {{
                tops[k] = tops[k + half] {better} tops[k] ? tops[k + half] : tops[k];
                odd[k] |= odd[k + half];
            }}
        top = tops[0], nan |= odd[0];
    }}
    for (; i < size; i++) top = y[i] {better} top ? y[i] : top, nan |= y[i] != y[i];
    if (top {better} best) best = top, slope = 0, count = 0;
    if (top == best) take_{name}(y, g + from, &best, &slope, &count, 0, size);
}}
if (nan || best == 0 || (outer == 1 && count > 7)) raised |= REFUSED;
if (outer > 1 && count > 2) slope = tied_{name}(x, g, best, m);
*r = best, *d = count == 1 ? slope : (double)slope / (double)count;
}}
static WORD best_{name}(
    const T *restrict x, T *restrict r, intptr_t m, intptr_t n, intptr_t w
) {{
WORD nan = 0;
intptr_t i = 0;
for (intptr_t j = 0; j < w; j++) r[j] = x[j];
for (; i + 4 <= m; i += 4, x += 4 * n)
    for (intptr_t j = 0; j < w; j++) {{
        T a = x[j], b = x[n + j], c = x[2 * n + j], e = x[3 * n + j], top = r[j];
        nan |= (a != a) | (b != b) | (c != c) | (e != e);
        a = a {better} b ? a : b;
        c = c {better} e ? c : e;
        a = a {better} c ? a : c;
        r[j] = a {better} top ? a : top;
    }}
for (; i < m; i++, x += n)
    for (intptr_t j = 0; j < w; j++) nan |= x[j] != x[j], r[j] = x[j] {better} r[j] ? x[j] : r[j];
return nan;
}}
static void fold_{name}(
    const T *x, const T *g, T *r, T *d, const intptr_t *size, int back
) {{
intptr_t m = size[1], n = size[2];
if (n == 1) {{ peak_{name}(x, g, r, d, m, size[0]); return; }}
intptr_t *count = calloc(n, sizeof(intptr_t));
if (!count) {{ raised |= REFUSED; return; }}
for (intptr_t j = 0; j < n; j++) d[j] = 0;
STRIPES(m, n, back, i, w) {{
    if (best_{name}(x + i, r + i, m, n, w)) {{ raised |= REFUSED; break; }}
    for (intptr_t k = 0; k < m; k++)
        take_{name}(x + k * n + i, g + k * n + i, r + i, d + i, count + i, 1, w);
}}
for (intptr_t j = 0; j < n; j++) {{
    if (r[j] == 0) raised |= REFUSED;
    if (count[j] > 1) d[j] = (double)d[j] / (double)count[j];
}}
free(count);
}}"""
BETTER = {"max": ">", "min": "<"}


def make_fold(name: str, dtype: DType) -> Loop:
    """Compile the loop of an operator for a dtype.

    Args:
        name: `"sum"`, `"mean"`, `"max"` or `"min"`.
        dtype: of the values and the tangents.

    Raises:
        UsageError: there is no compiler.
        PolyopError: the compiler fails.
    """
    library = load_library(lambda _: _source(name, dtype))
    take_turns(library)
    ufunc = make_ufunc(library, f"loop_{name}", [dtype] * 2, [dtype] * 2, SIGNATURE)
    return _call(name, ufunc, library.polyop_flags, dtype)


def _source(name: str, dtype: DType) -> str:
    body = EXTREMES.format(name=name, better=BETTER[name]) if name in BETTER else SUMS
    kinds = [f"typedef {TYPES[dtype][1]} T;", f"typedef int{8 * dtype.itemsize}_t WORD;"]
    return "\n".join(
        [PRELUDE, TURN, f"#define REFUSED {REFUSED}", *kinds, STRIPE, body, LOOP.format(name=name)]
    )


def _call(name: str, ufunc: Any, flags: Callable[[], int], dtype: DType) -> Loop:
    """Make the function that looks at the arrays, and runs the loop on those that are alike."""
    fold = ufunc.call

    def loop(values: Sequence[Any], tangents: Sequence[Any]) -> tuple[Tensor, tuple[Tensor]] | None:
        x, g, axis = values[0].payload, tangents[0].payload, values[1]
        # A sum's own dtype is looked at by `is`: NumPy's dtypes of doubles are equal to None.
        plain = all(value is None for value in values[2:-1])
        if not plain or x.dtype is not dtype or g.dtype is not dtype:
            return None
        laid = _laid(name, x.shape, axis if axis is None else tuple(axis), bool(values[-1]))
        if laid is None or not (_is_whole(x) and _is_whole(g)):
            return None
        lying, result = laid
        r, d = np.empty(result, dtype), np.empty(result, dtype)
        flat = lying[::2]
        fold(x.reshape(lying), g.reshape(lying), r.reshape(flat), d.reshape(flat))
        raised = flags()
        if raised and (raised & REFUSED or reported(raised)):
            return None
        t, slope = Tensor(), Tensor()
        t.payload, t.keys, t.version = r, NUMPY, 0
        slope.payload, slope.keys, slope.version = d, NUMPY, 0
        return t, (slope,)

    loop.kept = ufunc.kept  # type: ignore[attr-defined]
    return loop


def _is_whole(array: Any) -> bool:
    """Tell whether an array has no gaps; NumPy adds up what is not aligned in pieces."""
    return bool(array.flags.c_contiguous and array.flags.aligned)


@lru_cache(maxsize=4096)
def _laid(
    name: str, shape: tuple[int, ...], axis: tuple[int, ...] | None, keepdims: bool
) -> tuple[tuple[int, int, int], tuple[int, ...]] | None:
    """Give a shape as `(outer, m, n)`, and the result's; None for errors, and axes in between."""
    try:
        axes = normal_axes(name, axis, len(shape))
    except PolyopError:
        return None  # the kernel tells of them, as it does without loops
    gone = [a for a in sorted(axes) if shape[a] != 1]
    first, last = (gone[0], gone[-1] + 1) if gone else (0, 0)
    if not math.prod(shape) or any(shape[a] != 1 for a in range(first, last) if a not in gone):
        return None
    parts = (shape[:first], shape[first:last], shape[last:])
    kept = [n for a, n in enumerate(shape) if a not in axes]
    result = [1 if a in axes else n for a, n in enumerate(shape)] if keepdims else kept
    return tuple(map(math.prod, parts)), tuple(result)  # type: ignore[return-value]

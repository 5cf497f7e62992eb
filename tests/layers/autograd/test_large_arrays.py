"""Large arrays: random programs and reductions by loops of C are what NumPy's passes give."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import func as torch_func

import polyop
from polyop import Tensor
from polyop.compile.fused import library
from polyop.func import grad, jvp, vmap
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.paired import PATIENT, SWITCH, PairedLoops

pytestmark = [
    pytest.mark.skipif(library.compiler() is None, reason="there is no C compiler"),
    # PyTorch's own jvp brings in what it deprecates.
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
Array = np.ndarray[Any, Any]
FOLDS = ["sum", "mean", "max", "min"]


class Watch:
    """Counts calls that a loop served; without loops all calls are NumPy's."""

    def __init__(self, monkeypatch: Any) -> None:
        self.served = 0
        self.off = False
        first = PairedLoops.run

        def run(loops: PairedLoops, *given_: Any) -> Any:
            found = None if self.off else first(loops, *given_)
            self.served += found is not None
            return found

        monkeypatch.setattr(PairedLoops, "run", run)

    @contextmanager
    def without(self) -> Iterator[None]:
        """Leave all to NumPy's passes."""
        self.off = True
        try:
            yield
        finally:
            self.off = False


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(SWITCH, raising=False)
        yield Watch(patched)
    assert BUILDER.wait(60)


def said(call: Callable[[], Any], **settings_: Any) -> tuple[Any, list[str]]:
    """Give the results of a call, or nothing, and what was warned of or raised."""
    with warnings.catch_warnings(record=True) as heard, np.errstate(**settings_):
        warnings.simplefilter("always")
        try:
            return call(), sorted(str(w.message) for w in heard)
        except FloatingPointError as error:
            return (), [str(error)]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Hold two tensors to each other, signs of zeros too; one NaN is as good as another."""
    x, y = a.numpy(), b.numpy()
    if (x.dtype, x.shape, x.strides) != (y.dtype, y.shape, y.strides):
        return False
    x, y, word = np.ascontiguousarray(x), np.ascontiguousarray(y), f"u{x.itemsize}"
    return bool(np.all((x.view(word) == y.view(word)) | ((x != x) & (y != y))))


def held(watch: Watch, call: Callable[[], Any], **settings_: Any) -> Any:
    """Hold a call to NumPy's passes: the first ones, while loops come, and with them."""
    with watch.without():
        expected, words = said(call, **settings_)
    for _ in range(PATIENT + 1):
        found, heard = said(call, **settings_)
        assert BUILDER.wait(60)
        assert heard == words
        assert len(found) == len(expected)
        assert all(map(same_bits, found, expected))
    return expected


# -- reductions -------------------------------------------------------------------

SHAPES = [
    (3, 69, 160), (2, 103, 161), (3, 39, 319), (2, 52, 320), (103, 321), (69, 481), (35, 1000),
    (16400, 2), (2, 16400), (3, 5500, 2), (4100, 3, 3), (1, 40, 1, 850, 1), (240, 140),
]  # fmt: skip
NUMBERS = ["spread", "few", "tied", "zeros", "odd", "infinite", "alike", "extreme"]


def numbers(kind: str, seed: int, shape: tuple[int, ...], dtype: str) -> tuple[Array, Array]:
    """Give values and tangents in which a reduction meets what is rare."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 7, shape)
    g = rng.normal(size=shape)
    match kind:
        case "few":
            x = rng.integers(1, 40, shape)
        case "tied":
            x = rng.integers(1, int(x.size ** rng.uniform(0.2, 1.0)) + 2, shape)
        case "zeros":
            x, g = rng.integers(-3, 1, shape), rng.choice([0.0, -0.0, 1.0], shape)
        case "odd":
            x.flat[rng.integers(0, x.size)] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
        case "infinite":
            x = rng.choice([np.inf, -np.inf, 1.0], shape)
            g = rng.choice([np.inf, -np.inf, np.nan, 1.0], shape)
        case "alike":
            x, g = np.full(shape, rng.choice([-0.0, 1.0, -5.0])), np.full(shape, 1.0)
        case "extreme":
            x, g = (x * 1e300, g * 1e-310) if dtype == "f8" else (x * 1e34, g * 1e-42)
    with np.errstate(all="ignore"):
        return x.astype(dtype), g.astype(dtype)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SHAPES), st.data(), st.sampled_from(FOLDS), st.booleans(),
    st.sampled_from(NUMBERS), st.sampled_from(["f8", "f4"]), st.integers(0, 10_000),
    st.sampled_from([{}, {"all": "ignore"}, {"all": "warn"}, {"all": "raise"}]),
)  # fmt: skip
def test_reductions(
    watch: Watch, shape: Any, data: Any, name: str, keepdims: bool, kind: str, dtype: str,
    seed: int, words: Any,
) -> None:  # fmt: skip
    """S134: in stripes of any width, with ties and odd numbers anywhere: NumPy's bits and words."""
    places = st.lists(st.sampled_from(range(len(shape))), unique=True)
    axis = data.draw(st.one_of(st.none(), places, places.filter(lambda a: len(a) == 1)))
    x, g = map(polyop.from_numpy, numbers(kind, seed, shape, dtype))
    held(watch, lambda: jvp(lambda x: fold(name, x, axis, keepdims), (x,), (g,)), **words)


def fold(name: str, x: Tensor, axis: Any, keepdims: bool) -> Any:
    return getattr(polyop, name)(x, axis=axis, keepdims=keepdims)


ROWS = {(2, 22027): [-1], (240, 140): [1], (1, 240, 1, 140, 1): [4, 1, 3], (40_000,): [0]}


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("ties", [1, 2, 3, 5, 7, 8, 9, 40])
def test_ties_in_rows(watch: Watch, shape: Any, name: str, ties: int) -> None:
    """S134: tangents of elements that tie are added as NumPy adds them, however many tie."""
    rng = np.random.default_rng(ties)
    several = len(shape) == 2
    x = rng.uniform(1.0, 2.0, shape if several else (1, int(np.prod(shape))))
    for row in x:
        row[rng.permutation(row.size)[:ties]] = 3.0 if name == "max" else 0.5
    values, g = polyop.from_numpy(x.reshape(shape)), polyop.from_numpy(rng.normal(size=shape))
    served = watch.served
    held(watch, lambda: jvp(lambda x: fold(name, x, ROWS[shape], False), (values,), (g,)))
    assert (watch.served > served) == (several or ties <= 7)


def test_more_ties_than_a_float_counts(watch: Watch) -> None:
    """S134: a count of ties beyond the whole numbers of a dtype divides as NumPy's does."""
    x = polyop.from_numpy(np.ones(((1 << 24) + 1, 2), "f4"))
    for _ in range(PATIENT):
        jvp(lambda x: polyop.max(x, axis=[0]), (x[:20_000],), (x[:20_000],))
    assert BUILDER.wait(60)
    loops = watch.served
    slope = jvp(lambda x: polyop.max(x, axis=[0]), (x,), (x,))[1]
    assert watch.served == loops + 1
    np.testing.assert_array_equal(slope.numpy(), np.float32((1 << 24) / ((1 << 24) + 1)))


# -- programs ---------------------------------------------------------------------

#: A line of a program: what it does, which values it takes, and a number.
Line = tuple[str, int, int, int]
WORDS = [
    "multiply", "multiply", "add", "divide", "power", "number power", "twice", "unary", "unary",
    "reduce", "reduce", "reduce", "where", "extreme", "in place", "in a view", "set", "turned",
    "mixed", "number", "row and column",
]  # fmt: skip
WRITES = {"in place", "in a view", "set"}


class Ours:
    """What programs call, of polyop."""

    where, pow, maximum, minimum = polyop.where, polyop.pow, polyop.maximum, polyop.minimum
    unary = (polyop.exp, polyop.tanh, polyop.abs, polyop.relu, polyop.square, polyop.sigmoid)
    sqrt, log, clone, turned = polyop.sqrt, polyop.log, polyop.clone, polyop.matrix_transpose

    @staticmethod
    def reduce(name: str, x: Any, axis: Any) -> Any:
        return fold(name, x, axis, True)

    @staticmethod
    def narrow(x: Any) -> Any:
        return polyop.astype(x, polyop.float32)


class Theirs:
    """The same of PyTorch."""

    where, pow, maximum, minimum = torch.where, torch.pow, torch.maximum, torch.minimum
    unary = (torch.exp, torch.tanh, torch.abs, torch.relu, torch.square, torch.sigmoid)
    sqrt, log, clone = torch.sqrt, torch.log, torch.clone

    @staticmethod
    def turned(x: Any) -> Any:
        return x.mT

    @staticmethod
    def reduce(name: str, x: Any, axis: Any) -> Any:
        name = {"max": "amax", "min": "amin"}.get(name, name)
        return getattr(torch, name)(x, axis or (0, 1), True)

    @staticmethod
    def narrow(x: Any) -> Any:
        return x.to(torch.float32)


def run_program(lines: list[Line], xp: Any, *first: Any) -> Any:
    """Run a program; the result is that of its last line."""
    values = [*first]
    for what, i, j, k in lines:
        x, y = values[i % len(values)], values[j % len(values)]
        values.append(run_line(what, xp, x, y, k))
    return values[-1]


def run_line(what: str, xp: Any, x: Any, y: Any, k: int) -> Any:
    positive = xp.unary[2](x) * 0.5 + 0.25
    match what:
        case "multiply":
            return x * y
        case "add":
            return x + y if k % 2 else x - y * 0.5
        case "divide":
            return y / (positive + 0.5)
        case "power":
            return xp.pow(positive, xp.unary[1](y) + 1.5)
        case "number power":
            return xp.pow(positive, [2, 3, 2.5, 0.5, -1][k % 5])
        case "twice":
            return [x * x, x + x, xp.maximum(x, x)][k % 3]
        case "unary":
            by = [*xp.unary, xp.sqrt, xp.log][k % 8]
            return by(xp.unary[1](x) if k % 8 == 0 else positive if k % 8 > 5 else x)
        case "reduce":
            r = xp.reduce(FOLDS[k % 4], x, [[0], [1], None][k % 3])
            return x * r * 1e-3 if k % 2 else y - r * 1e-3
        case "where":
            return xp.where(x > y, x, y * 0.5)
        case "extreme":
            return xp.maximum(x, y) if k % 2 else xp.minimum(x, y)
        case "turned":
            return xp.turned(xp.turned(x) * 0.9) + y
        case "mixed":
            return xp.narrow(x) * 0.5 + y
        case "number":
            return [x * 2.5, 3 - x, x / 7, 1.0 / positive, x + 1, -x][k % 6]
        case "row and column":
            return x * y[k % 50] + y[:, k % 50 : k % 50 + 1]
    z = xp.clone(x)
    if what == "in place":
        z *= y
        z -= x
    elif what == "set":
        z[k % 9 : 50] = y[k % 9 : 50] * 2.0
    else:
        part = z[k % 5 : 20] if k % 2 else z[:, k % 5 : 60 : 2]
        part *= 0.75
        part += 1.0
    return z


def transformed(kind: str, f: Any, space: Any, weight: Any) -> Callable[..., Any]:
    """Give a function of two arrays and their tangents, by `jvp`, `grad` and `vmap` of a space."""
    push, pull, rows, total = space

    def second(a: Any, b: Any, t: Any, u: Any) -> Any:
        inner = push(lambda a: push(lambda b: f(a, b), (b,), (u,)), (a,), (t,))
        return [*inner[0], *inner[1]]

    def of_gradient(a: Any, b: Any, t: Any, u: Any) -> Any:
        return push(lambda a: pull(lambda a: total(f(a, b) * weight))(a), (a,), (t,))

    def of_rows(a: Any, b: Any, t: Any, u: Any) -> Any:
        return rows(lambda s: push(lambda a, b: f(a * s, b), (a, b), (t, u)))(a[0, :2])

    def around_rows(a: Any, b: Any, t: Any, u: Any) -> Any:
        return push(lambda a, b: rows(lambda s: f(a * s, b * s))(a[0, :2]), (a, b), (t, u))

    return {
        "jvp": lambda a, b, t, u: push(f, (a, b), (t, u)),
        "one": lambda a, b, t, u: push(lambda a: f(a, b), (a,), (t,)),
        "same": lambda a, b, t, u: push(lambda a: f(a, a), (a,), (t,)),
        "second": second, "of a gradient": of_gradient, "rows": of_rows, "of rows": around_rows,
    }[kind]  # fmt: skip


OURS = (jvp, grad, vmap, polyop.sum)
THEIRS = (torch_func.jvp, torch_func.grad, torch_func.vmap, torch.sum)
KINDS = ["jvp", "one", "same", "second", "of a gradient", "rows", "of rows"]
LINES = st.tuples(
    st.sampled_from(WORDS), st.integers(0, 20), st.integers(0, 20), st.integers(0, 60)
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(LINES, min_size=3, max_size=12), st.sampled_from(KINDS), st.sampled_from(["f8", "f4"]),
    st.sampled_from([(200, 170), (64, 520)]), st.integers(0, 10_000),
)  # fmt: skip
def test_programs(
    watch: Watch, lines: list[Line], kind: str, dtype: str, shape: Any, seed: int
) -> None:
    """S134: a program gives NumPy's bits before its loops come and after, and PyTorch's numbers."""
    if kind in {"rows", "of rows"}:  # where not every sample has its own, writes are refused
        lines = [("add" if what in WRITES else what, i, j, k) for what, i, j, k in lines]
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(dtype) for _ in range(5)]
    before = [a.copy() for a in arrays]
    *tensors, weight = map(polyop.from_numpy, arrays)
    ours = transformed(kind, lambda *x: run_program(lines, Ours, *x), OURS, weight)
    expected = held(watch, lambda: ours(*tensors), all="ignore")
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    *others, theirs_weight = (torch.from_numpy(a) for a in before)
    theirs = transformed(kind, lambda *x: run_program(lines, Theirs, *x), THEIRS, theirs_weight)
    for found, other in zip(expected, theirs(*others), strict=True):
        check_close(found.numpy(), other.detach().numpy(force=True), lines)


def check_close(found: Array, expected: Array, lines: list[Line]) -> None:
    """Hold doubles to PyTorch's, whose functions round differently; a few may be other choices."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype == np.float32 or any(line[0] == "mixed" for line in lines):
        return  # so much is lost on the way that other elements may be the greatest
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    off = ~np.isclose(found, expected, rtol=1e-7, atol=1e-7 * scale, equal_nan=True)
    assert off.mean() <= 1e-4, np.argwhere(off)[:3]


# -- threads and forks ------------------------------------------------------------

CROWD = """
import os, threading, warnings
import numpy as np, polyop
from polyop.func import jvp
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.paired import PairedLoops
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
rng = np.random.default_rng(0)
x, y, t, u = (polyop.from_numpy(rng.uniform(0.5, 1.5, (200, 170))) for _ in range(4))
programs = [
    lambda x, y: x * y, polyop.pow, lambda x, y: polyop.sum(x * y, axis=[0]),
    lambda x, y: polyop.max(x - y, axis=[1]), lambda x, y: polyop.min(x, axis=[0]) / y,
    lambda x, y: jvp(lambda z: polyop.tanh(z) * y, (x,), (y,))[1],
]
run = PairedLoops.run
PairedLoops.run = lambda *given: None
plain = [jvp(f, (x, y), (t, u))[1].numpy() for f in programs]
PairedLoops.run = run
wrong = []
def check(k):
    found = jvp(programs[k % 6], (x, y), (t, u))[1].numpy()
    if not np.array_equal(found, plain[k % 6]):
        wrong.append(k)
def work(first):
    for k in range(60):
        if k == 40 and first == 3:
            polyop.multiply.op.changed()
        check(first + k)
def child():
    for k in range(24):
        check(k)
    os._exit(1 if wrong or not BUILDER.wait(60) else 0)
threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for one in threads:
    one.start()
for _ in range(2):
    pid = os.fork()
    if not pid:
        child()
    assert os.waitpid(pid, 0)[1] == 0
for one in threads:
    one.join()
assert BUILDER.wait(60)
for k in range(12):
    check(k)
print(wrong)
"""


@needs_fork
def test_threads_and_forks(tmp_path: Any) -> None:
    """S134: threads that meet loops while they come, and children forked then, count alike."""
    env = {**os.environ, "POLYOP_CACHE_DIR": str(tmp_path)}
    env.pop(SWITCH, None)
    ran = subprocess.run(
        [sys.executable, "-c", CROWD], capture_output=True, text=True, check=False, env=env
    )
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr

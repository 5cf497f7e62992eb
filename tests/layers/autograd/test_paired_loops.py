"""Results and tangents by one loop of C are, to the last bit, those of NumPy's passes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, current_thread
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.compile.fused import library, pairs
from polyop.compile.fused.choices import left_out
from polyop.compile.fused.formula import Formula
from polyop.compile.fused.symbols import Symbol
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.entry import first_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.func import grad, jvp, vmap
from polyop.layers.autograd import paired
from polyop.layers.autograd.building import BUILDER, Builder
from polyop.layers.autograd.paired import LARGE, PATIENT, SWITCH
from polyop.layers.autograd.tangents import tangent_rule
from polyop.layers.autograd.text_tangents import TextTangents
from polyop.library import Library
from polyop.ops.select import LARGE as CLEARED

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C compiler")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

OPS = {d.op.name(): d.op for d in DEFINITIONS.values() if d.op.is_builtin}
ODD = [
    *(0.0, 1.0, 0.5, 2.5, 3.0, np.inf, 1e-40, 1e-45, 3e38, 1e-310, 5e-324, 1.7e308, 1e-20, 1e20),
    *(0.1, 7.0, 1 / 3, np.nan),
]
N = LARGE + 3


def hostile(dtype: Any, count: int) -> list[np.ndarray[Any, Any]]:
    """Give arrays of numbers at the edges, each beside each in some order."""
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        numbers = np.array([*ODD, *(-x for x in ODD)], dtype)
    return [rng.choice(numbers, 4 * CLEARED + 5) for _ in range(count)]


def same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    """Hold two tensors to each other; one NaN is as good as another."""
    if a is None or b is None:
        return a is b
    x, y = a.numpy(), b.numpy()
    if (x.dtype, x.shape, x.strides) != (y.dtype, y.shape, y.strides):
        return False
    if x.dtype.kind == "c":
        return bool(np.array_equal(x, y))
    word = f"u{x.itemsize}"
    return bool(np.all((x.view(word) == y.view(word)) | ((x != x) & (y != y))))


def draw(*shape: int, seed: int = 0, dtype: str = "f8") -> Tensor:
    rng = np.random.default_rng(seed)
    return polyop.from_numpy(rng.uniform(0.5, 1.5, shape or (N,)).astype(dtype))


def fresh(name: str) -> TextTangents:
    """Give the rule of an operator that was never called."""
    OPS[name].changed()
    rule = tangent_rule(OPS[name])
    assert isinstance(rule, TextTangents)
    return rule


def warmed(ran: list[str], fn: Callable[..., Any], *given: Any) -> Any:
    """Call until loops are asked for, wait for them, and call again; `ran` is of that call."""
    for _ in range(PATIENT):
        jvp(fn, *given)
    assert BUILDER.wait(60)
    ran.clear()
    return jvp(fn, *given)


@pytest.fixture
def ran(monkeypatch: Any) -> list[str]:
    """The operators whose loops ran, and gave a result."""
    seen: list[str] = []
    first = paired.PairedLoops.run

    def run(self: Any, *given: Any) -> Any:
        found = first(self, *given)
        if found is not None:
            seen.append(self.op.name())
        return found

    monkeypatch.setattr(paired.PairedLoops, "run", run)
    return seen


@pytest.fixture(autouse=True)
def settled(monkeypatch: Any) -> Iterator[None]:
    """No work of other tests, and none for them; the switch is as it is for everybody."""
    monkeypatch.delenv(SWITCH, raising=False)
    assert BUILDER.wait(60)
    yield
    assert BUILDER.wait(60)


# -- bits -----------------------------------------------------------------------


def kinds_of(op: OpOverload) -> Iterator[tuple[TextTangents, int]]:
    """Give each set of arguments that may have tangents, and all tensors as one."""
    rule = tangent_rule(op) if op.rule("formula") is not None else None
    if not isinstance(rule, TextTangents) or not rule.texts:
        return
    full = sum(1 << i for i in rule.texts)
    for which in dict.fromkeys([full, *(1 << i for i in rule.texts)]):
        yield rule, which
    if rule.pair is not None and len(rule.texts) == 2:
        yield rule, ~full


def all_loops(dtype: Any) -> list[tuple[TextTangents, int, Any]]:
    """Compile every loop that there may be, as one library."""
    found, wanted = [], []
    for op in OPS.values():
        if op._schema.is_mutable or not op._schema.arguments:
            continue
        kernel = first_kernel(op, NUMPY)
        for rule, which in kinds_of(op):
            steps, places = rule._steps(which)
            written = None if steps is None else rule._written(places)
            if written is not None and kernel is not None and written.result[0] != "g":
                found.append((rule, which))
                wanted.append(pairs.Wanted(kernel.fn, written, places, np.dtype(dtype)))
    loops = pairs.make_loops(wanted)
    return [(*kind, loop) for kind, loop in zip(found, loops, strict=True) if loop is not None]


def arguments(rule: TextTangents, which: int, dtype: Any) -> tuple[list[Any], list[Any]]:
    """Give hostile arguments of an operator, and hostile tangents."""
    count = len(rule.names)
    arrays = hostile(dtype, 2 * count)
    bits = ~which if which < 0 else which
    tensors = [polyop.from_numpy(a) for a in arrays]
    whole = ["int" in str(a.type) for a in rule.op._schema.arguments]
    values = [tensors[i] if i in rule.tensors else 1 if whole[i] else 1.5 for i in range(count)]
    tangents = [tensors[count + i] if bits >> i & 1 else None for i in range(count)]
    if which < 0:
        values, tangents = values[:1] * 2, tangents[:1] * 2
    return values, tangents


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("half", [True, False], ids=["half vectors", "whole vectors"])
def test_loops_give_numpys_bits(half: bool, dtype: str, monkeypatch: Any) -> None:
    """S134: a loop gives result and tangent as NumPy's kernels do, at the edges of numbers too."""
    monkeypatch.setattr(pairs, "is_of_intel", lambda: half)
    names = set()
    for rule, which, loop in all_loops(dtype):
        values, tangents = arguments(rule, which, dtype)
        with np.errstate(all="ignore"):
            out, slopes = loop(values, tangents)
            r, d = rule.at_once(lambda *a, op=rule.op: dispatch(op, a), values, tangents)
        name = rule.op.name()
        assert same_bits(out, r), f"{name} {which}"
        assert same_bits(slopes[0], d[0]), f"the tangent of {name} {which}"
        names.add(name)
    written = "add subtract multiply divide maximum minimum abs sqrt rsqrt square reciprocal relu"
    assert names >= {f"core::{name}" for name in written.split()}
    by_numpy = "exp log tanh atan2 hypot acos"  # whose tangents alone have NumPy's bits
    assert names >= {f"core::{name}" for name in by_numpy.split()}
    assert not names & {"core::sin", "core::pow", "core::pow.Scalar"}


LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "in C order": lambda a: a,
    "in Fortran order": np.asfortranarray,
    "read only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "with an axis of one": lambda a: np.asfortranarray(a.reshape(200, 1, 200)),
    "with gaps": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1],
    "repeated": lambda a: np.broadcast_to(a[0], a.shape),
}
BY_LOOP = {"in C order", "in Fortran order", "read only", "unaligned"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, ran: list[str]) -> None:
    """S134: arrays without gaps go through the loop, others are NumPy's, with one layout."""
    rule = fresh("core::multiply")
    x, y, t, u = (
        polyop.from_numpy(LAYOUTS[layout](draw(200, 200, seed=i).numpy())) for i in range(4)
    )
    plain = jvp(polyop.multiply, (x, y), (t, u))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warmed(ran, polyop.multiply, (draw(), draw()), (draw(), draw()))
        found = jvp(polyop.multiply, (x, y), (t, u))
    assert rule.loops.loops
    assert ran == ["core::multiply"] * (1 + (layout in BY_LOOP))
    assert all(map(same_bits, found, plain))


def odd_calls() -> Iterator[tuple[str, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Give calls that no loop is for."""
    x, t = draw(), draw(seed=1)
    narrow = draw(dtype="f4")
    yield "two dtypes", (x, narrow), (t, narrow)
    wide = polyop.from_numpy(x.numpy() * (1 + 2j))
    yield "complex numbers", (wide, wide), (wide, wide)
    yield "a complex number second", (x, wide), (t, wide)
    yield "half precision", (draw(dtype="f2"),) * 2, (draw(dtype="f2"),) * 2
    turned = draw(200, 200).T
    yield "repeated rows in another order", (turned, draw(200)), (turned, draw(200))
    big = polyop.from_numpy(x.numpy().astype(">f8"))
    yield "another byte order", (big, x), (big, t)


@pytest.mark.parametrize("case", [*odd_calls()], ids=lambda case: case[0])
def test_what_loops_are_not_for(case: Any, ran: list[str]) -> None:
    """S134: arrays that differ in dtype or shape give what they gave before there were loops."""
    _, values, tangents = case
    fresh("core::multiply")
    plain = jvp(polyop.multiply, values, tangents)
    warmed(ran, polyop.multiply, (draw(), draw()), (draw(), draw()))
    assert ran == ["core::multiply"]
    again = [jvp(polyop.multiply, values, tangents) for _ in range(PATIENT + 1)]
    assert BUILDER.wait(60)
    again.append(jvp(polyop.multiply, values, tangents))
    for found in again:
        assert all(map(same_bits, found, plain))
    assert ran == ["core::multiply"]


REPEATED = {
    "rows": ((200, 200), (200,)),
    "columns": ((200, 200), (200, 1)),
    "rows of one row": ((1, 200), (200, 200)),
    "no axes": ((N,), ()),
    "blocks": ((8, 70, 90), (8, 1, 90)),
    "of blocks": ((70, 90), (8, 1, 1)),
}


@pytest.mark.parametrize("name", ["multiply", "divide", "maximum", "atan2", "subtract", "copysign"])
@pytest.mark.parametrize("case", REPEATED)
def test_repeated_arrays(case: str, name: str, ran: list[str]) -> None:
    """S134: arrays that are repeated beside each other go through loops of two results as well."""
    fn = getattr(polyop, name)
    x, y, t, u = (
        polyop.reshape(draw(max(1, int(np.prod(shape))), seed=i), shape)
        for i, shape in enumerate(REPEATED[case] * 2)
    )
    fresh(f"core::{name}")
    plain = [jvp(fn, (x, y), (t, u)), jvp(lambda y: fn(x, y), (y,), (u,))]
    for _ in range(PATIENT):
        warmed(ran, fn, (draw(), draw()), (draw(), draw()))
        warmed(ran, lambda y: fn(draw(), y), (draw(),), (draw(),))
    ran.clear()
    found = [jvp(fn, (x, y), (t, u)), jvp(lambda y: fn(x, y), (y,), (u,))]
    for pair, expected in zip(found, plain, strict=True):
        assert all(map(same_bits, pair, expected))
    large = max(len(x.numpy().ravel()), len(y.numpy().ravel())) >= LARGE
    # The tangent along `y` alone may be as small as `y`; `atan2` and `copysign` have no loop.
    ways = {"atan2": 0, "subtract": 1, "copysign": 0}.get(name, 2)
    assert ran == [f"core::{name}"] * (large * ways)


def test_arrays_that_are_not_repeated() -> None:
    """S134: sizes that do not fit are refused as without a loop, which has more arrays."""
    x, y = draw(200, 200), draw(190)
    warmed([], polyop.multiply, (draw(), draw()), (draw(), draw()))
    with pytest.raises(ValueError, match=r"with shapes \(200,200\) \(190,\)\s*$"):
        jvp(polyop.multiply, (x, y), (x, y))


@pytest.mark.parametrize("number", [2, 0.5, -0.0, 1e300, float("nan"), 1 << 30, True, 10**400])
def test_numbers(number: Any, ran: list[str]) -> None:
    """S134: a number that its dtype cannot hold is NumPy's, with its warnings and errors."""
    rule = fresh("core::maximum.Scalar")

    def fn(x: Tensor) -> Tensor:
        return polyop.maximum(x, number)

    def outcome() -> Any:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                return jvp(fn, (x,), (t,)), [str(w.message) for w in said]
            except Exception as error:
                return (None, None), repr(error)

    x, t = draw(dtype="f4"), draw(dtype="f4", seed=1)
    plain, said = outcome()
    warmed(ran, lambda x: polyop.maximum(x, 1.0), (x,), (t,))
    assert rule.loops.loops
    found, now = outcome()
    assert now == said
    assert all(map(same_bits, found, plain))


# -- warnings ---------------------------------------------------------------------


def test_warnings_are_numpys(ran: list[str]) -> None:
    """S134: a flag that nobody ignores is NumPy's warning or error, and nothing is left behind."""
    fresh("core::divide")
    x, y, t, u = (draw(seed=i) for i in range(4))
    warmed(ran, polyop.divide, (x, y), (t, u))
    assert ran == ["core::divide"]
    zeros = y.numpy().copy()
    zeros[7] = 0.0
    given = ((x, polyop.from_numpy(zeros)), (t, u))
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in divide"):
        found = jvp(polyop.divide, *given)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError, match="divide by zero"):
        jvp(polyop.divide, *given)
    assert ran == ["core::divide"]
    with np.errstate(all="ignore"):
        quiet = jvp(polyop.divide, *given)
    assert ran == ["core::divide"] * 2
    assert all(map(same_bits, found, quiet))
    with np.errstate(all="raise"):  # flags of earlier calls are gone
        jvp(polyop.divide, (x, y), (t, u))
    assert ran == ["core::divide"] * 3


def test_warnings_of_a_tangent_alone(ran: list[str]) -> None:
    """S134: where the result is NumPy's, and only the tangent a loop's, each warns once."""
    fresh("core::log")
    x, t = draw(), draw(seed=1)
    warmed(ran, polyop.log, (x,), (t,))
    assert ran == ["core::log"]
    zeros = x.numpy().copy()
    zeros[7] = 0.0
    given = ((polyop.from_numpy(zeros),), (t,))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = jvp(polyop.log, *given)
    assert [str(w.message) for w in said] == [
        "divide by zero encountered in log", "divide by zero encountered in divide",
    ]  # fmt: skip
    fresh("core::log")
    with np.errstate(all="ignore"):
        assert all(map(same_bits, found, jvp(polyop.log, *given)))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_underflow_of_what_is_not_chosen(name: str, ran: list[str]) -> None:
    """S134: NumPy halves every tangent, and a loop those of equal elements: both are heard."""
    fn = getattr(polyop, name)
    fresh(f"core::{name}")
    x, y, t = draw(), draw(seed=1), polyop.from_numpy(np.full(N, 5e-324))
    warmed(ran, fn, (x, y), (t, t))
    assert ran == [f"core::{name}"]
    with np.errstate(under="raise"), pytest.raises(FloatingPointError, match="underflow"):
        jvp(fn, (x, y), (t, t))
    assert ran == [f"core::{name}"]


def test_which_steps_are_left_out() -> None:
    """S134: quotients, and what else may raise flags, of which only a choice reads the result."""

    def steps(run: Callable[[Any, Any], Any]) -> list[Any]:
        made: list[Any] = []
        a, b = (Symbol(np.dtype("f8"), made) for _ in "ab")
        return [s.what for s in left_out(Formula({}, made, run(a, b)))]

    assert steps(lambda a, b: np.where(a > 0, a / b, -a)) == [np.divide]
    assert not steps(lambda a, b: (a / b) + np.where(a > 0, np.abs(b), b))
    assert not steps(lambda a, b: np.where((a == 0) & (b == 0), 1.0, a * a + b * b))
    assert steps(lambda a, b: np.where(a == 0, 1.0, a * a + b * b)) == [np.add]
    assert steps(lambda a, b: np.where(a == 0, a * a, 1.0)) == [np.multiply]


# -- when -------------------------------------------------------------------------


def test_a_loop_comes_with_the_calls(ran: list[str]) -> None:
    """S134: calls on large arrays move to a loop by themselves; small ones never ask for one."""
    rule = fresh("core::multiply")
    small, x, t = draw(3), draw(), draw(seed=1)
    for _ in range(3 * PATIENT):
        jvp(lambda x: x * x, (small,), (small,))
    assert not rule.loops.seen
    plain = jvp(lambda x: x * x, (x,), (t,))
    found = warmed(ran, lambda x: x * x, (x,), (t,))
    assert ran == ["core::multiply"]
    assert all(map(same_bits, found, plain))
    assert [*rule.loops.loops] == [(~3, np.dtype("f8").num)]


def test_callers_never_compile(monkeypatch: Any) -> None:
    """S134: loops are built in a thread of their own, which is gone afterwards."""
    fresh("core::divide")
    threads = []
    first = pairs.make_loops

    def make(wanted: Any) -> Any:
        threads.append(current_thread())
        return first(wanted)

    monkeypatch.setattr(pairs, "make_loops", make)
    warmed([], polyop.divide, (draw(), draw()), (draw(), draw()))
    assert len(threads) == 1
    assert threads[0] is not current_thread()
    assert threads[0].daemon
    assert not threads[0].is_alive()


def test_threads_meet_the_loop_while_it_comes(ran: list[str]) -> None:
    """S134: threads that call while the loop becomes ready all get the same bits."""
    fresh("core::multiply")
    x, y, t, u = (draw(seed=i) for i in range(4))
    plain = jvp(polyop.multiply, (x, y), (t, u))
    start = Barrier(4)

    def work(_: int) -> bool:
        start.wait()
        held = True
        while held and (BUILDER.thread is not None or not ran):
            held = all(map(same_bits, jvp(polyop.multiply, (x, y), (t, u)), plain))
        return held

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def unbuilt(ran: list[str]) -> None:
    """Hold that NumPy goes on, in silence."""
    rule = fresh("core::multiply")
    x, t = draw(), draw(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = warmed(ran, polyop.multiply, (x, x), (t, t))
    np.testing.assert_array_equal(found[1].numpy(), 2 * x.numpy() * t.numpy())
    assert not rule.loops.loops
    assert not ran


def test_without_a_compiler(ran: list[str], monkeypatch: Any) -> None:
    """S134: where there is no compiler, NumPy goes on, and nobody is told."""
    monkeypatch.setattr(library, "compiler", lambda: None)
    unbuilt(ran)


def test_a_compiler_that_fails(ran: list[str], monkeypatch: Any, tmp_path: Any) -> None:
    """S134: where the compiler fails, NumPy goes on, and nobody is told."""
    monkeypatch.setenv("CC", "/bin/false")
    monkeypatch.setenv("POLYOP_CACHE_DIR", str(tmp_path))
    unbuilt(ran)


def test_the_switch(ran: list[str], monkeypatch: Any) -> None:
    """S134: POLYOP_NO_LOOPS=1 leaves all to NumPy."""
    monkeypatch.setenv(SWITCH, "1")
    unbuilt(ran)


# -- other levels, other rules ----------------------------------------------------


def test_levels_around_and_inside(ran: list[str]) -> None:
    """S134: transforms around a jvp, or within it, give what they give without loops."""
    x, t = draw(200, 200), draw(200, 200, seed=1)

    def f(x: Tensor) -> Tensor:
        return (x * x) * polyop.relu(x - 1.0) / (x + x)

    def all_of() -> list[Tensor]:
        return [
            *jvp(f, (x,), (t,)),
            *jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t,)),
            *vmap(lambda x, t: jvp(f, (x,), (t,)))(x, t),
            *jvp(grad(lambda x: polyop.sum(f(x))), (x,), (t,)),
            grad(lambda x: polyop.sum(jvp(f, (x,), (t,))[1]))(x),
        ]

    for name in ("multiply", "relu", "divide", "subtract.Scalar", "add"):
        fresh(f"core::{name}")
    plain = all_of()
    for _ in range(PATIENT):
        jvp(f, (x,), (t,))
    assert BUILDER.wait(60)
    found = all_of()
    assert {"core::multiply", "core::relu", "core::divide"} <= set(ran)
    assert all(map(same_bits, found, plain))


def test_a_kernel_of_an_authors_own(ran: list[str]) -> None:
    """S134: a kernel put in the place of ours acts at once, and goes with all that it decided."""
    x, t = draw(), draw(seed=1)
    fresh("core::multiply")
    plain = warmed(ran, polyop.multiply, (x, x), (t, t))
    assert ran == ["core::multiply"]

    def kernel(a: Any, b: Any) -> Any:
        return polyop.from_numpy(a.numpy() * b.numpy() + 1)

    lib = Library("core", "IMPL")
    lib.impl("multiply", kernel, "CPU")
    try:
        found = warmed(ran, polyop.multiply, (x, x), (t, t))
        np.testing.assert_array_equal(found[0].numpy(), plain[0].numpy() + 1)
        assert not ran
    finally:
        lib._destroy()
    assert all(map(same_bits, warmed(ran, polyop.multiply, (x, x), (t, t)), plain))
    assert ran == ["core::multiply"]


# -- the thread that builds -------------------------------------------------------


def test_the_builder_goes_on_after_an_error() -> None:
    """S134: a job that fails ends alone; the next one runs, and the last ends the thread."""
    builder, done, gate = Builder(), [], Event()
    builder.put(lambda: (gate.wait(10), done.append(0), 1 / 0))
    builder.put(lambda: done.append(1))
    assert not builder.wait(0.01)
    gate.set()
    assert builder.wait(10)
    assert done == [0, 1]
    builder.put(lambda: done.append(2))
    assert builder.wait(10)
    assert done == [0, 1, 2]
    builder._end()
    builder.put(lambda: done.append(3))
    assert builder.thread is None
    assert done == [0, 1, 2]


def fresh_process(code: str, **more: str) -> str:
    """Run code in a process where each warning is an error, and give what it says."""
    head = (
        "import numpy as np, polyop\n"
        "from polyop.func import jvp\n"
        f"x = polyop.from_numpy(np.linspace(1.0, 2.0, {N}))\n"
        "def some(n=3):\n"
        "    for _ in range(n): out = jvp(polyop.multiply, (x, x), (x, x))\n"
        "    return out[1].numpy()[0].item()\n"
    )
    env = {**os.environ, **more}
    ran = subprocess.run(
        # Where the end does not wait for a slow compiler, its folder goes with a warning.
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", head + code],
        capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    return ran.stdout


def test_a_program_that_ends_at_once(tmp_path: Any) -> None:
    """S134: a program that ends while a loop is built ends in silence, and leaves nothing half."""
    assert fresh_process("print(some())", POLYOP_CACHE_DIR=str(tmp_path)) == "2.0\n"
    assert [p.suffix for p in tmp_path.iterdir() if not p.name.startswith("making")] in (
        [".so"],
        [],
    )


@needs_fork
def test_a_program_that_forks(tmp_path: Any) -> None:
    """S134: a child forked while a loop is built computes, and builds loops of its own."""
    code = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('default', DeprecationWarning)\n"
        "some()\n"
        "child = os.fork()\n"
        "from polyop.layers.autograd.building import BUILDER\n"
        "some(5)\n"
        "jvp(polyop.divide, (x, x), (x, x)), jvp(polyop.divide, (x, x), (x, x))\n"
        "jvp(polyop.divide, (x, x), (x, x))\n"
        "assert BUILDER.wait(60)\n"
        "from polyop.layers.autograd.tangents import tangent_rule\n"
        "loops = tangent_rule(polyop.divide.op).loops.loops\n"
        "if not child: os._exit(0 if len(loops) == 1 else 3)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print(some(), len(loops))\n"
    )
    assert fresh_process(code, POLYOP_CACHE_DIR=str(tmp_path)) == "2.0 1\n"


def test_small_arrays_read_no_compiler() -> None:
    """S134: a program with small arrays, and one with the switch, never imports what compiles."""
    look = "import sys; print(sum(m.startswith('polyop.compile.fused') for m in sys.modules))"
    small = "jvp(polyop.multiply, (x[:3], x[:3]), (x[:3], x[:3]))\n" * 5
    assert fresh_process(small + look) == "0\n"
    assert fresh_process(f"some(9)\n{look}", POLYOP_NO_LOOPS="1") == "0\n"

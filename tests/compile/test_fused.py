"""Loops of C give what the eager calls give: bits, gradients, warnings, errors (SPEC S211)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.extend import DispatchMode

BACKEND = importlib.import_module("polyop.compile.fused.backend")
LIBRARY = importlib.import_module("polyop.compile.fused.library")
needs_compiler = pytest.mark.skipif(LIBRARY.compiler() is None, reason="there is no C compiler")
pytestmark = needs_compiler

ODD = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 3e38, 0.5, 2.5, -2.5, 1e-45]


@pytest.fixture
def runs(monkeypatch: Any) -> list[Any]:
    """What ran with loops."""
    made: list[Any] = []
    first = BACKEND.FusedRun._program

    def program(self: Any) -> Any:
        made.append(self)
        return first(self)

    monkeypatch.setattr(BACKEND.FusedRun, "_program", program)
    return made


def tensor(*values: Any, dtype: str = "f4") -> Tensor:
    return polyop.from_numpy(np.array(values, dtype))


def rand(*shape: int, seed: int = 0, dtype: str = "f4") -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def same_bits(a: Any, b: Any) -> bool:
    x, y = np.ascontiguousarray(a.detach().numpy()), np.ascontiguousarray(b.detach().numpy())
    if x.dtype != y.dtype or a.shape != b.shape or a.requires_grad != b.requires_grad:
        return False
    word = {1: "u1", 4: "u4", 8: "u8"}[x.itemsize]
    equal = x.view(word) == y.view(word)
    return bool(np.all(equal | ((x != x) & (y != y))))


def loops(fn: Callable[..., Any], **options: Any) -> Any:
    return polyop.compile(fn, backend="c", fullgraph=True, **options)


# -- bits -----------------------------------------------------------------------

UNARY = [
    "negative", "positive", "abs", "square", "sign", "relu", "floor", "ceil", "trunc", "round",
    "reciprocal", "sqrt", "rsqrt", "clone",
]  # fmt: skip
BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "copysign"]
COMPARE = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
LOGIC = ["logical_and", "logical_or", "logical_xor"]

Program = list[tuple[str, int, int, Any]]


@st.composite
def programs(draw: Any) -> Program:
    """Draw steps `(operator, operand, operand, number)`; operands count back from the newest."""
    steps = []
    for _ in range(draw(st.integers(2, 9))):
        name = draw(st.sampled_from([*UNARY, *BINARY, *BINARY, *COMPARE, *LOGIC, "where", "clip"]))
        number = draw(st.sampled_from([None, None, 0, 2, -1.5, True]))
        steps.append((name, draw(st.integers(1, 4)), draw(st.integers(1, 4)), number))
    return steps


def run(program: Program, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    values, flags = [x, y], [x > y]
    for name, i, j, number in program:
        a, b = values[-min(i, len(values))], values[-min(j, len(values))]
        if name in COMPARE or name in LOGIC:
            flags.append(getattr(polyop, name)(a, b if number is None else number))
        elif name == "where":
            values.append(polyop.where(flags[-1], a, b if number is None else number))
        elif name == "clip":
            values.append(polyop.clip(a, -1, 1.5 if number is None else None))
        elif name in BINARY:
            values.append(getattr(polyop, name)(a, b if number is None else number))
        else:
            values.append(getattr(polyop, name)(a))
    return values[-1], flags[-1], values[len(values) // 2] * 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(programs(), st.sampled_from([("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("i8", "f8")]))
def test_random_programs_equal_eager(program: Program, dtypes: tuple[str, str]) -> None:
    """S211: exact operators have eager's bits and dtypes, on NaN, infinities, -0, denormals too."""
    first = [v for v in ODD if dtypes[0] != "i8" or (abs(v) < 9 and v == int(v))]
    a, b = np.meshgrid(np.array(first, dtypes[0]), np.array(ODD, dtypes[1]))
    x, y = polyop.from_numpy(a.ravel()), polyop.from_numpy(b.ravel())
    with np.errstate(all="ignore"), warnings.catch_warnings():
        try:
            expected = run(program, x, y)
        except polyop.errors.PolyopError:
            return  # floor of a bool, say: no program
        found = loops(lambda x, y: run(program, x, y))(x, y)
    assert all(map(same_bits, found, expected)), program


@pytest.mark.parametrize("dtype", ["i4", "i8", "?"])
def test_whole_numbers_equal_eager(dtype: str, runs: list[Any]) -> None:
    """S211: integers wrap around, promote and compare as in eager, and so do bools."""
    values = np.array([0, 1, -1, 5, -7, 2**31 - 1, -(2**31), 3], "i8").astype(dtype)
    x, y = (polyop.from_numpy(np.ascontiguousarray(v.ravel())) for v in np.meshgrid(values, values))

    def f(x: Tensor, y: Tensor) -> Any:
        z = x * y + x
        signed = () if dtype == "?" else (abs(-z) - y, polyop.sign(y) * 3, polyop.relu(x - y))
        more = (z * 1.5, z / 2, z * 2, (x < y) & (z != 1), ~(x & y) | x, polyop.where(x > y, x, 7))
        return (z, polyop.maximum(x, y), *signed, *more)

    with np.errstate(all="ignore"):
        assert all(map(same_bits, loops(f)(x, y), f(x, y)))
    assert len(runs) == 1


CLOSE = {
    "exp": (-80, 80), "expm1": (-80, 80), "log": (1e-6, 1e6), "log1p": (-0.9, 1e5),
    "sin": (-1000, 1000), "cos": (-1000, 1000), "tanh": (-20, 20), "sigmoid": (-80, 80),
    "atan": (-100, 100), "cosh": (-80, 80),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_functions_are_close_to_the_truth(dtype: str, runs: list[Any]) -> None:
    """S211: functions of the C library are within four units in the last place."""
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(*where, 4001).astype(dtype) for where in CLOSE.values()]

    def f(*xs: Tensor) -> Any:
        found = [getattr(polyop, name)(x) for name, x in zip(CLOSE, xs, strict=True)]
        return [*found, abs(xs[0]) ** xs[4].sin(), xs[0] ** 2, xs[0] ** 3]

    *found, power, square, cube = loops(f)(*map(polyop.from_numpy, inputs))
    bases = np.abs(inputs[0]).astype(np.longdouble)
    assert np.allclose(power.numpy(), bases ** np.sin(inputs[4].astype(np.longdouble)), rtol=1e-6)
    assert same_bits(square, polyop.from_numpy(inputs[0] ** 2))
    assert np.allclose(cube.numpy(), inputs[0] ** 3, rtol=1e-6)
    for name, x, y in zip(CLOSE, inputs, found, strict=True):
        wide = x.astype(np.longdouble)
        function = {"atan": "arctan"}.get(name, name)
        truth = 1 / (1 + np.exp(-wide)) if name == "sigmoid" else getattr(np, function)(wide)
        unit = np.spacing(np.abs(truth.astype(dtype))).astype(np.longdouble)
        assert np.max(np.abs(y.numpy() - truth) / unit) <= 4, name
    assert runs


# -- shapes, strides, numbers -------------------------------------------------------


def chain(x: Tensor, y: Tensor) -> Tensor:
    return ((x * y + 1.0) - y).abs() * 2.0 + x


LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "plain": lambda a: a,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "strided": lambda a: np.repeat(a, 3, 1)[:, ::3],
    "reversed": lambda a: a[::-1, ::-1],
    "row": lambda a: a[:1],
    "vector": lambda a: a[0],
    "scalar": lambda a: a[0, 0, ...] * np.ones((), a.dtype),
    "repeated": lambda a: np.lib.stride_tricks.as_strided(a, a.shape, (0, a.itemsize)),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "overlapping": lambda a: np.lib.stride_tricks.sliding_window_view(a.ravel(), a.shape[1])[
        : a.shape[0]
    ],
}


@pytest.mark.parametrize("size", [(7, 5), (40, 67), (3, 1), (0, 4)])
def test_layouts(size: tuple[int, int], runs: list[Any]) -> None:
    """S211: broadcasting, strides, repeated, unaligned and overlapping data are eager's, and so
    is the order of the result's axes."""
    rng = np.random.default_rng(0)
    compiled = loops(chain)
    for first in LAYOUTS:
        for second in ("plain", "transposed", "row", "scalar", first):
            if 0 in size and {first, second} & {"vector", "scalar", "repeated", "overlapping"}:
                continue
            a, b = (rng.normal(size=size).astype("f4") for _ in range(2))
            x = polyop.from_numpy(np.asarray(LAYOUTS[first](a)))
            y = polyop.from_numpy(np.asarray(LAYOUTS[second](b)))
            found, expected = compiled(x, y), chain(x, y)
            assert same_bits(found, expected), (first, second)
            assert found.payload.strides == expected.payload.strides, (first, second)
    assert runs


def test_one_loop_serves_all_shapes(runs: list[Any]) -> None:
    """S211: with symbolic sizes, one program and one compilation are for all shapes."""
    compiled = loops(lambda x, y: chain(x, y), dynamic=True)
    for n in (4, 5, 100, 1000, 257):
        x, y = rand(n, 3, seed=n), rand(n, 3, seed=1)
        assert same_bits(compiled(x, y), chain(x, y))
    assert len(runs) == 1


def test_scalars_stay_scalars(runs: list[Any]) -> None:
    """S211: a tensor without axes gives one, with its own dtype, which a number does not change."""
    x, y = tensor(1.5).reshape(()), polyop.tensor(2.5, dtype=polyop.float64)
    found = loops(lambda x, y: (x * 2 + 1, x * y + 1, x / 3 > y * 1.0))(x, y)
    assert [(t.shape, t.dtype.name, t.item()) for t in found] == [
        ((), "float32", 4.0), ((), "float64", 4.75), ((), "bool", False),
    ]  # fmt: skip
    assert runs


def test_results_are_new_memory(runs: list[Any]) -> None:
    """S211: a result shares memory with no input, no other result and no earlier run."""
    compiled = loops(lambda x: (x.clone(), x.clone(), x * 2 + 1))
    x = rand(5)
    first, second = compiled(x), compiled(x)
    arrays = [x.numpy(), *[t.numpy() for t in (*first, *second)]]
    pairs = [(a, b) for i, a in enumerate(arrays) for b in arrays[:i]]
    assert not any(np.shares_memory(a, b) for a, b in pairs)
    assert runs


# -- what stays outside ---------------------------------------------------------------


def test_other_dtypes_are_left_to_the_graph(runs: list[Any]) -> None:
    """S211: half, small and complex numbers, and integers without sign, run by their operators."""
    for dtype in ("f2", "c8", "u1", "i2", "u8"):
        x = polyop.from_numpy(np.array([1, 2, 3], dtype))
        assert same_or_equal(loops(lambda x: x * x + x)(x), x * x + x)
    small = polyop.ones(3, dtype=polyop.bfloat16)
    assert loops(lambda x: x * x + x)(small).dtype == small.dtype
    assert not runs


def same_or_equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and bool(np.array_equal(a.numpy(), b.numpy()))


def test_writes_keep_their_place(runs: list[Any]) -> None:
    """S211: calls before a write read what was there, and calls after it what it wrote."""

    def f(x: Tensor, y: Tensor) -> Any:
        before = x * 2 + y
        view = x[1:]
        x.add_(1)
        between = x * y + view.sum()
        y.copy_(before - 3)
        return before, between, view * 2 + 1, y * y - x

    for seed in range(2):
        a, b, c, d = rand(4), rand(4, seed=1), rand(4), rand(4, seed=1)
        found, expected = loops(f)(a, b), f(c, d)
        assert all(map(same_bits, found, expected)) and same_bits(a, c) and same_bits(b, d)
    assert runs


def test_values_used_outside_a_group(runs: list[Any]) -> None:
    """S211: what other operators, or the caller, read of a group is a result of it."""

    def f(x: Tensor, y: Tensor) -> Any:
        z = x * y + 1
        e = (z - z.max()).abs()
        return z, e / (e.sum() + 1), (z @ y.T).abs() + 1 - x.sum(), e * z

    x, y = rand(6, 6), rand(6, 6, seed=1)
    assert all(map(same_bits, loops(f)(x, y), f(x, y)))
    assert runs


def test_a_wrong_fake_does_not_reach_a_loop() -> None:
    """S211: where a custom operator gives another dtype than its fake says, no loop reads it."""

    @polyop.custom_op("fusedtest::wide", mutates_args=())
    def wide(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy().astype("f8"))

    wide.register_fake(lambda x: polyop.empty_like(x))
    x = rand(5)
    found = loops(lambda x: wide(x) * 2 + 1)(x)
    assert np.array_equal(found.numpy(), x.numpy().astype("f8") * 2 + 1)


def test_a_mode_sees_every_call() -> None:
    """S211: where somebody acts on calls, the backward pass runs operator by operator."""
    seen: list[str] = []

    class Log(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    x = rand(5).requires_grad_()
    y = loops(lambda x: (x * x + 1).sin())(x).sum()
    with Log():
        y.backward()
    assert any("cos" in name for name in seen) and len(seen) > 2


def test_an_operator_that_changes(runs: list[Any]) -> None:
    """S211: a kernel that is registered over a built-in one acts from the next call on."""
    x = rand(5)
    compiled = loops(lambda x: x * 2 + 1)
    before = compiled(x)
    lib = polyop.library.Library("core", "IMPL")
    lib.impl("multiply.Scalar", lambda a, b: a + 100, "CPU")
    try:
        assert float(compiled(x)[0].item()) > 90
    finally:
        lib._destroy()
    assert same_bits(compiled(x), before)
    assert runs


# -- gradients ----------------------------------------------------------------------


def test_gradients(runs: list[Any]) -> None:
    """S211: the way back is loops too, and gives eager's gradients."""

    def f(x: Tensor, y: Tensor) -> Tensor:
        z = polyop.maximum(x * y, x) + polyop.where(x > y, x, 0) * y
        return polyop.clip(z, -2, 2) / (polyop.relu(y) + 1)

    grads = []
    for fn in (f, loops(f)):
        x, y = rand(9, 4).requires_grad_(), rand(4, seed=1).requires_grad_()
        fn(x, y).sum().backward()
        grads.append((x.grad, y.grad))
    (a, b), (c, d) = grads
    assert same_bits(a, c) and np.allclose(b.numpy(), d.numpy(), rtol=1e-6)
    assert len(runs) == 2


def test_second_gradients() -> None:
    """S211: gradients of gradients are eager's."""

    def grads(fn: Any) -> Any:
        x = rand(5).requires_grad_()
        (g,) = polyop.autograd.grad(fn(x).sum(), [x], create_graph=True)
        return polyop.autograd.grad(g.sum(), [x])[0]

    def f(x: Tensor) -> Tensor:
        return (x * x * x + x).tanh() * 2

    assert np.allclose(grads(f).numpy(), grads(loops(f)).numpy(), rtol=1e-5)


# -- warnings -----------------------------------------------------------------------


def heard(fn: Any, x: Tensor) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fn(x)
    return found, [str(w.message) for w in caught]


@pytest.mark.parametrize("n", [1, 5, 64, 1001])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: 1 / (x - x) + 1,
        lambda x: (x * 3e38) * 10 + 1,
        lambda x: polyop.log(-x * x - 1) * 2,
        lambda x: polyop.exp(x * x + 200) + 1,
        lambda x: polyop.sqrt(-1 - x * x) + polyop.log(x * 0),
        lambda x: (x < np.nan) | (polyop.maximum(x, np.nan) > 1),
    ],
    ids=["divide", "overflow", "log", "exp", "sqrt", "nan"],
)
def test_warnings_are_eagers(f: Any, n: int) -> None:
    """S211: floating-point warnings and errors are those of the eager calls, under any errstate."""
    x = polyop.from_numpy(np.linspace(1, 2, n, dtype="f4"))
    compiled = loops(f)
    found, expected = heard(compiled, x), heard(f, x)
    assert found[1] == expected[1] and same_bits(found[0], expected[0])
    if expected[1]:
        with np.errstate(all="raise"), pytest.raises(FloatingPointError):
            compiled(x)
    with np.errstate(all="ignore"):
        assert heard(compiled, x)[1] == []
    assert heard(loops(lambda x: x * 2 + 1), x)[1] == []


def test_denormals_stay_what_they_are() -> None:
    """S211: loading a loop does not flush small numbers anywhere in the process."""
    x = tensor(1e-40, -1e-42)
    assert same_bits(loops(lambda x: x * 0.5 + x)(x), x * 0.5 + x)
    assert np.float32(1e-40) * np.float32(0.5) != 0


# -- threads --------------------------------------------------------------------------


def test_threads_call_one_function(runs: list[Any]) -> None:
    """S211: threads that call one function compile it once, and hear of their own flags alone."""
    compiled = loops(lambda x: 1 / x + x * 2)
    inputs = [polyop.from_numpy(np.full(3000, i - 3, "f4")) for i in range(8)]
    barrier = Barrier(8)

    def work(i: int) -> bool:
        barrier.wait()
        for _ in range(30):
            with np.errstate(divide="raise"):
                try:
                    found = compiled(inputs[i])
                except FloatingPointError:
                    found = None
            if (found is None) != (i == 3) or (found is not None and not right(found, i - 3)):
                return False
        return True

    def right(found: Tensor, x: float) -> bool:
        return bool(np.all(found.numpy() == np.float32(1) / np.float32(x) + np.float32(x * 2)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(runs) == 1


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYOP_CACHE_DIR", str(tmp_path_factory.mktemp("cache") / "made"))
        yield

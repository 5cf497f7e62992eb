"""Calls with Dask's arrays stay recipes, are cut as signatures and authors say, and are right."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bridges.dask import operators as ops

import polyop
from polyop.errors import (
    ArgumentError,
    GuardOnDataDependentError,
    MetadataMismatchError,
    PerformanceWarning,
    PolyopError,
    RegistrationError,
    ReturnError,
    UsageError,
    UsageTypeError,
)

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def runs() -> Iterator[list[tuple[int, ...]]]:
    """Give the list of kernels' calls, empty; tasks run one after the other."""
    ops.RUNS.clear()
    with dask.config.set(scheduler="synchronous"):
        yield ops.RUNS


@pytest.fixture
def lib() -> Iterator[Any]:
    """A library that is gone after the test."""
    with polyop.scoped_library("dask_tests", "FRAGMENT") as lib:
        yield lib


def cut(x: np.ndarray[Any, Any], *chunks: Any) -> da.Array:
    return da.from_array(x, chunks=chunks)


# -- recipes ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_no_kernel_runs_before_data_is_asked_for(runs: Any) -> None:
    """S56, S66: while the graph is built no kernel runs, on no array of any size."""
    a, b = da.ones((4, 6, 3), chunks=2), da.ones((3, 2), chunks=2)
    made = [ops.product(a, b), ops.sine(a), ops.cumulate(a), ops.nonzero_in_parts(b[:, 0])]
    made.append(ops.product(ops.sine(a), b) + 1)
    assert not runs and all(isinstance(x, da.Array) for x in made)
    dask.compute(*made)
    assert runs and all(0 not in shape for shape in runs)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_loops_are_cut_and_named_axes_are_not(data: Any) -> None:
    """S56: with an index signature, blocks are those of the loops; loops broadcast over blocks."""

    def size(most: int = 4) -> int:
        return data.draw(st.integers(1, most))

    def chunked(x: np.ndarray[Any, Any]) -> da.Array:
        return da.from_array(x, chunks=tuple(min(size(3), n) for n in x.shape))

    loops = (size(), size())
    m, k, n = size(), size(), size()
    own = [tuple(data.draw(st.sampled_from([1, d])) for d in loops) for _ in range(2)]
    a, b = rng.normal(size=(*own[0], m, k)), rng.normal(size=(*own[1][size(2) - 1 :], k, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerformanceWarning)
        found = ops.product(chunked(a), chunked(b))
    assert found.numblocks[-2:] == (1, 1) and found.shape == (a @ b).shape
    np.testing.assert_allclose(found.compute(), a @ b)


def test_blocks_are_the_chunks_of_the_loops(runs: Any) -> None:
    """S56: each block of the loops is one call of the kernel, and nothing else is."""
    a = da.ones((6, 5, 3), chunks=(2, 5, 3))
    found = ops.product(a, da.ones((3, 4), chunks=-1))
    assert found.chunks == ((2, 2, 2), (5,), (4,)) and found.dtype == np.float64
    found.compute()
    assert runs == [(2, 5, 3)] * 3


def test_chunks_of_named_axes_are_put_together_and_that_is_said_once(lib: Any) -> None:
    """S4, S56: what a signature wants whole is merged, with one warning that says the way out."""
    lib.define("last(Tensor x) -> Tensor")
    lib.impl("last", lambda x: polyop.from_numpy(x.numpy().cumsum(-1)), "CPU")
    polyop.library.register_index("dask_tests::last", "(n)->(n)", lib=lib)
    x = rng.normal(size=(4, 6))
    with pytest.warns(PerformanceWarning, match=r"puts chunks along n .*register_chunks\('n'\)"):
        found = polyop.ops.dask_tests.last(cut(x, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        polyop.ops.dask_tests.last(cut(x, 2, 3))
    assert found.chunks == ((2, 2), (6,))
    np.testing.assert_allclose(found.compute(), x.cumsum(-1))


def test_pointwise_operators_go_block_by_block(runs: Any) -> None:
    """An operator with the tag pointwise is cut wherever its arrays are."""
    x = rng.normal(size=(5, 4))
    found = ops.sine(cut(x, 2, 3), 2.0)
    assert found.chunks == ((2, 2, 1), (3, 1))
    np.testing.assert_allclose(found.compute(), np.sin(2 * x))
    assert len(runs) == 6


def test_without_a_word_it_is_one_task_and_says_so_once(runs: Any, lib: Any) -> None:
    """S4: what nobody says how to cut gets whole arrays, with one warning; one chunk needs none."""
    lib.define("whole(Tensor x) -> Tensor")
    lib.impl("whole", lambda x: polyop.from_numpy(np.cumsum(x.numpy(), 0)), "CPU")
    polyop.library.register_fake("dask_tests::whole", lambda x: polyop.empty_like(x), lib=lib)
    op, x = polyop.ops.dask_tests.whole, rng.normal(size=(6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op(cut(x, -1, -1))
    with pytest.warns(PerformanceWarning, match=r"(?s)one task on whole arrays.*register_index"):
        found = op(cut(x, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op(cut(x, 3, 2))
    assert found.numblocks == (1, 1)
    np.testing.assert_allclose(found.compute(), np.cumsum(x, 0))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_several_results() -> None:
    """Several results come of one call of the kernel per block, of other shapes, computed together
    or alone."""
    x = rng.normal(size=(4, 3))
    mean, ends, squares = ops.moments(cut(x, 3, 2))
    assert (mean.shape, ends.shape, squares.shape) == ((4,), (4, 2), (4, 3, 3))
    assert squares.chunks == ((3, 1), (3,), (3,))
    for found, wanted in zip(dask.compute(mean, ends, squares), ops.moments(x), strict=True):
        np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(ends.compute(), ops.moments(x)[1])
    whole, count = ops.blend([cut(x, 2, 2), x], None, weight=2.0)
    np.testing.assert_allclose(whole.compute(), x * 4)
    assert count.dtype == np.int32 and (count.compute() == (x > 0) * 2).all()


# -- rules of authors -------------------------------------------------------------------------


def test_axes_that_the_author_lets_be_cut() -> None:
    """register_chunks: axes by name are cut as arrays are, in every result."""
    a, b = rng.normal(size=7), rng.normal(size=5)
    times, plus = ops.outer(cut(a, 3), cut(b, 2))
    assert times.chunks == plus.chunks == ((3, 3, 1), (2, 2, 1))
    np.testing.assert_allclose(times.compute(), np.outer(a, b))
    np.testing.assert_allclose(plus.compute(), np.add.outer(a, b))


def test_a_rule_of_the_author(runs: Any) -> None:
    """register_chunks: a function lays the recipe itself; `run` is one piece of the kernel."""
    x = np.array([0.0, 1, 0, 2, 3, 0, 4])
    found = ops.nonzero_in_parts(cut(x, 3))
    assert np.isnan(found.shape[0]) and found.numblocks == (3,) and not runs
    assert found.compute().tolist() == np.flatnonzero(x).tolist()
    assert sorted(runs) == [(1,), (3,), (3,)]
    assert ops.nonzero_in_parts(x).tolist() == found.compute().tolist()


def test_rules_that_cannot_be_are_refused(lib: Any) -> None:
    """register_chunks refuses axes that cannot be cut, and says which can; and what is no rule."""
    with pytest.raises(UsageError, match="axis 'k' of dasktest::product cannot be cut: not every"):
        ops.product.register_chunks("k")
    with pytest.raises(UsageError, match="no argument has it"):
        ops.product.register_chunks("z")
    with pytest.raises(RegistrationError, match="no index signature"):
        ops.sine.register_chunks("m")
    with pytest.raises(RegistrationError, match=r"(?s)writes its arguments.*functional"):
        ops.add_to.register_chunks(lambda run, x, out: x)
    with pytest.raises(UsageTypeError, match="names of axes, or one function"):
        ops.sine.register_chunks(3)
    lib.define("diagonal(Tensor x) -> Tensor")
    polyop.library.register_index("dask_tests::diagonal", "(n,n)->(n)", lib=lib)
    with pytest.raises(UsageError, match="an argument has it twice"):
        polyop.library.register_chunks("dask_tests::diagonal", "n", lib=lib)


def test_a_rule_goes_with_its_library(lib: Any) -> None:
    """S37: a library takes its chunks rule away again."""
    with polyop.scoped_library("dasktest", "FRAGMENT") as own:
        polyop.library.register_chunks(ops.product, "m", lib=own)
        a, b = da.ones((4, 3), chunks=(2, 3)), da.ones((3, 2), chunks=-1)
        assert ops.product(a, b).numblocks == (2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerformanceWarning)
        assert ops.product(a, b).numblocks == (1, 1)


def test_what_a_rule_gives_is_held_against_the_fake_rule(lib: Any) -> None:
    """A chunks rule of another shape, dtype, or kind of result is refused when it is called."""
    lib.define("kept(Tensor x) -> Tensor")
    lib.impl("kept", lambda x: x.clone(), "CPU")
    polyop.library.register_fake("dask_tests::kept", lambda x: polyop.empty_like(x), lib=lib)
    x = da.ones(4, chunks=2)
    for rule, problem in [
        (lambda run, x: run(x)[1:], r"float64\[3\]"),
        (lambda run, x: run(x).astype("float32"), "float32"),
        (lambda run, x: 3, "an array of Dask"),
        (lambda run, x: [run(x), x], "the number of results"),
    ]:
        polyop.library.register_chunks("dask_tests::kept", rule, lib=lib)
        with pytest.raises(ReturnError, match=rf"(?s)(?=.*chunks rule).*{problem}"):
            polyop.ops.dask_tests.kept(x)


# -- sizes from data --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_sizes_from_data_are_nan() -> None:
    """A size that depends on data is `nan` in the recipe, and goes on as `nan`."""
    x = rng.integers(0, 2, 20).astype(float)
    found = ops.nonzero(cut(x, 6))
    assert np.isnan(found.shape[0]) and found.dtype == np.int64
    assert found.compute().tolist() == np.flatnonzero(x).tolist()
    after = ops.sine(cut(x, 6)[cut(x, 6) > 0])
    assert after.numblocks == (4,) and np.isnan(after.shape[0])
    np.testing.assert_allclose(after.compute(), np.sin(x[x > 0]))
    summed = ops.cumulate(cut(x, 6)[cut(x, 6) > 0])
    np.testing.assert_allclose(summed.compute(), np.cumsum(x[x > 0]))


def test_a_size_that_a_rule_asks_for_is_refused_by_name() -> None:
    """Where the fake rule needs a size that nobody knows, the error says how to have it."""
    x = cut(rng.normal(size=(6, 3)), 2, 3)
    few = x[x[:, 0] > -9]
    with pytest.raises(GuardOnDataDependentError, match=r"(?s)dasktest::product.*compute_chunk_s"):
        ops.product(cut(rng.normal(size=(2, 6)), 2, 6), few)
    few.compute_chunk_sizes()
    assert ops.product(cut(np.ones((2, 6)), 2, 6), few.rechunk(-1)).shape == (2, 3)


# -- tokens -----------------------------------------------------------------------------------

TOKENS = """
import warnings; warnings.simplefilter("ignore")
import dask.array as da, numpy as np
from tests.bridges.dask import operators as ops
x = da.ones((4, 3), chunks=2)
print(*[y.name for y in (ops.sine(x, 2.0), ops.product(x, np.ones((3, 2))), ops.cumulate(x),
                         *ops.moments(x), ops.nonzero_in_parts(x[:, 0]))])
"""


def test_tokens_are_those_of_every_process() -> None:
    """The same call has the same name in every process, whatever its hash seed."""
    made = {
        subprocess.run(
            [sys.executable, "-c", TOKENS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1 and len(made.pop().split()) == 7


def test_other_calls_have_other_tokens(lib: Any) -> None:
    """Arguments, arrays and the kernel's code are in the name; `1`, `1.0` and `True` differ."""
    x, y = da.ones(4, chunks=2), da.zeros(4, chunks=2)
    assert ops.sine(x, 2.0).name == ops.sine(x, 2.0).name
    assert len({ops.sine(x, 2.0).name, ops.sine(x, 3.0).name, ops.sine(y, 2.0).name}) == 3
    lib.define("n(Tensor x, Any by) -> Tensor")
    polyop.library.register_fake("dask_tests::n", lambda x, by: polyop.empty_like(x), lib=lib)
    op = polyop.ops.dask_tests.n
    kernels = [lambda x, by: x.clone(), lambda x, by: (x + 1).clone()]
    names = []
    for kernel in kernels:
        lib.impl("n", kernel, "CPU")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PerformanceWarning)
            names += [op(x, by).name for by in (1, 1.0, True)]
    assert len(set(names)) == 6


def test_random_numbers_are_drawn_for_each_call() -> None:
    """Two calls that draw random numbers are two, as they are elsewhere."""
    x = da.ones(4, chunks=4)
    a, b = dask.compute(ops.noise(x), ops.noise(x))
    assert (a != b).all()


# -- kinds of arrays --------------------------------------------------------------------------


def test_numpy_joins() -> None:
    """NumPy's arrays go with Dask's, and what is written to them later is not seen."""
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
    kept = b.copy()
    found = ops.product(cut(a, -1, -1), b)
    b[:] = 0
    np.testing.assert_allclose(found.compute(), a @ kept)
    assert isinstance(found, da.Array)


@pytest.mark.parametrize("other", [torch.ones(3, 2), jnp.ones((3, 2))], ids=["torch", "jax"])
def test_other_libraries_do_not(other: Any) -> None:
    """Arrays of Dask beside those of PyTorch or JAX are refused by name."""
    with pytest.raises(ArgumentError, match=r"(?s)dasktest::product got arrays of two libraries"):
        ops.product(da.ones((2, 3)), other)


def test_masked_arrays_are_refused() -> None:
    """A mask would be lost, so a masked array is refused before anything runs."""
    x = da.ma.masked_equal(da.arange(4, chunks=2), 2)
    with pytest.raises(ArgumentError, match=r"(?s)masked array.*filled"):
        ops.sine(x)


def test_kernels_cannot_write_what_other_tasks_read() -> None:
    """A kernel that writes an argument which it declares as read is stopped."""
    with pytest.raises(ValueError, match="read-only"):
        ops.scribble(da.ones(4, chunks=2)).compute()


def test_results_have_memory_of_their_own() -> None:
    """What is computed shares no memory with what it was computed from, declared views too."""
    held = da.ones(4, chunks=4).persist()
    found = ops.tail(held).compute()
    found[:] = 7
    assert held.compute().tolist() == [1, 1, 1, 1]


def test_declared_views_follow_their_base() -> None:
    """S66: a declared view of a tensor over Dask is taken again after a write to its base."""
    t = polyop.from_array(da.zeros(3, chunks=3))
    view = ops.tail(t)
    t.add_(1)
    assert view.tolist() == [1, 1] and isinstance(polyop.to_array(view), da.Array)


def test_a_kernel_is_held_against_its_fake_rule() -> None:
    """A block of another size than the fake rule says is an error of its task, never a result."""
    with pytest.raises(MetadataMismatchError, match=r"(?s)shape of result 0 of dasktest::wrong"):
        ops.wrong_size(da.ones(4, chunks=2)).compute()


# -- what is computed at once -------------------------------------------------------------------


def test_what_is_no_array_is_computed() -> None:
    """A result that is no tensor has no recipe: it is computed at once."""
    assert ops.total(da.ones(4, chunks=2)) == 4.0


def test_effects_come_at_once_and_in_order(lib: Any) -> None:
    """S198: an operator with an effect is no recipe, which Dask could leave out, merge or move."""
    seen: list[float] = []

    def log(x: Any) -> Any:
        seen.append(float(x.numpy().sum()))
        return x.clone()

    lib.define("log(Tensor x) -> Tensor")
    lib.impl("log", log, "CPU")
    polyop.library.register_fake("dask_tests::log", lambda x: polyop.empty_like(x), lib=lib)
    polyop.library.register_effect("dask_tests::log", polyop.library.EffectType.ORDERED, lib=lib)
    x = da.ones(4, chunks=2)
    found = [polyop.ops.dask_tests.log(x * k) for k in (2, 1, 1)]
    assert seen == [8.0, 4.0, 4.0] and all(isinstance(f, da.Array) for f in found)


def test_without_a_fake_rule_it_is_computed_and_says_so() -> None:
    """S4, S141: without a fake rule nobody knows the shape, so it is computed, with a warning."""
    with pytest.warns(PerformanceWarning, match="no fake rule"):
        found = ops.describe(da.arange(4.0, chunks=2))
    assert isinstance(found, da.Array) and found.compute().tolist() == [1.5, 3.0]


# -- writes -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_writes_go_through_the_functional_twin() -> None:
    """S174: a bare array is not written; its twin, and a tensor over it, stay recipes."""
    x, out = da.ones(4, chunks=2), da.zeros(4, chunks=2)
    with pytest.raises(ArgumentError, match=r"(?s)never written.*dasktest::add_to.functional"):
        ops.add_to(x, out)
    assert ops.add_to.functional(x, out).compute().tolist() == [1, 1, 1, 1]
    t = polyop.from_array(out)
    view = t[:2]
    ops.add_to(polyop.from_array(x), t)
    assert isinstance(polyop.to_array(t), da.Array)
    assert t.tolist() == [1, 1, 1, 1] and view.tolist() == [1, 1] and t._version == 1
    into = np.zeros(4)
    ops.add_to(x, into)
    assert into.tolist() == [1, 1, 1, 1]


# -- tensors of ours --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_gradients_are_recipes_too(runs: Any) -> None:
    """S66, S124: gradients of any order over Dask's arrays compute nothing, and are right."""
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    t = polyop.from_array(cut(x, 2, 3)).requires_grad_()
    v = polyop.from_array(cut(w, 3, 2)).requires_grad_()
    ops.sine(ops.product(t, v), 2.0).sum().backward()
    g = polyop.func.grad(lambda z: ops.sine(z, 3.0).sum())
    h = polyop.func.grad(lambda z: g(z).sum())(polyop.from_array(cut(x, 2, 3)))
    assert not runs
    slope = 2 * np.cos(2 * (x @ w))
    np.testing.assert_allclose(t.grad.numpy(), slope @ w.T)
    np.testing.assert_allclose(v.grad.numpy(), x.T @ slope)
    np.testing.assert_allclose(h.numpy(), -9 * np.sin(3 * x))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_batches_are_loops(runs: Any) -> None:
    """S155: vmap over Dask's arrays lays one more loop, and computes nothing."""
    x, w = rng.normal(size=(5, 4, 3)), rng.normal(size=(3, 2))
    fn = polyop.vmap(lambda a: ops.product(a, polyop.from_array(cut(w, 3, 2))))
    found = fn(polyop.from_array(cut(x, 2, 4, 3)))
    assert not runs and polyop.to_array(found).numblocks[0] == 3
    np.testing.assert_allclose(found.numpy(), x @ w)


def test_a_context_of_the_caller_is_not_that_of_the_task() -> None:
    """Modes and fakes around `compute` do not reach the kernel."""
    found = ops.sine(da.ones(3, chunks=3))
    with polyop.fake.FakeTensorMode(), polyop.no_grad():
        assert found.compute().tolist() == [np.sin(1.0)] * 3


def test_threads() -> None:
    """Threads that build and compute recipes of one operator get right results."""
    x = rng.normal(size=(8, 4))

    def one(k: int) -> Any:
        return ops.sine(cut(x, 2, 2), float(k)).compute(scheduler="threads")

    with ThreadPoolExecutor(8) as pool:
        for k, found in enumerate(pool.map(one, range(16))):
            np.testing.assert_allclose(found, np.sin(k * x))


def test_an_operator_that_is_gone_says_so(lib: Any) -> None:
    """A recipe whose operator was removed raises when it is computed."""
    with polyop.scoped_library("dask_gone", "DEF") as own:
        own.define("f(Tensor x) -> Tensor", tags=["pointwise"])
        own.impl("f", lambda x: x.clone(), "CPU")
        polyop.library.register_fake("dask_gone::f", lambda x: polyop.empty_like(x), lib=own)
        found = polyop.ops.dask_gone.f(da.ones(2))
    with pytest.raises(PolyopError, match="was removed"):
        found.compute()
    assert tokenize(found)

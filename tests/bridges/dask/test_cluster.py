"""Operators in worker processes of `dask.distributed`: found by name, and errors come back."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster
from tests.bridges.dask import operators as ops

import polyop
from polyop.bridges.dask.tasks import Call
from polyop.errors import OperatorNotFoundError

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Give a client of two worker processes."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_results_of_several_processes_are_those_of_one(client: Client) -> None:
    """S66: block by block on two processes, as one task, and by an author's rule: as NumPy's."""
    x, w = rng.normal(size=(8, 5, 3)), rng.normal(size=(3, 2))
    a = da.from_array(x, chunks=(2, 2, 3))
    np.testing.assert_allclose(ops.product(a, w).compute(), x @ w)
    np.testing.assert_allclose(ops.sine(a, 2.0).compute(), np.sin(2 * x))
    np.testing.assert_allclose(ops.cumulate(a).compute(), np.cumsum(x, 0))
    flat = da.from_array((x > 0).ravel().astype(float), chunks=7)
    assert ops.nonzero_in_parts(flat).compute().tolist() == np.flatnonzero(x > 0).tolist()
    for found, wanted in zip(
        client.gather(client.compute(ops.moments(a))), ops.moments(x), strict=True
    ):
        np.testing.assert_allclose(found, wanted)
    assert ops.add_to.functional(flat, flat).compute().sum() == 2 * (x > 0).sum()


def test_kernels_run_in_other_processes(client: Client) -> None:
    """What runs, runs in the workers."""

    def where(x: Any) -> Any:
        return np.full(x.shape, os.getpid())

    found = set(da.ones(8, chunks=1).map_blocks(where, dtype=int, meta=np.empty(0, int)).compute())
    assert len(found) == 2 and os.getpid() not in found
    ops.RUNS.clear()
    ops.sine(da.ones(4, chunks=1), 9.0).compute()
    assert not ops.RUNS


def test_gradients_of_several_processes(client: Client) -> None:
    """S124: backward over Dask runs on the cluster when data is asked for."""
    x = rng.normal(size=(6, 3))
    t = polyop.from_array(da.from_array(x, chunks=(2, 3))).requires_grad_()
    ops.sine(t, 3.0).sum().backward()
    np.testing.assert_allclose(polyop.to_array(t.grad).compute(), 3 * np.cos(3 * x))


def test_an_operator_that_workers_do_not_have(client: Client) -> None:
    """S3: the client gets an error that names operator, module and cure; the cluster lives on."""
    with polyop.scoped_library("dask_here", "DEF") as lib:
        lib.define("only(Tensor x) -> Tensor", tags=["pointwise"])
        lib.impl("only", lambda x: x.clone(), "CPU")
        polyop.library.register_fake("dask_here::only", lambda x: polyop.empty_like(x), lib=lib)
        recipe = polyop.ops.dask_here.only(da.ones(4, chunks=2))
        with pytest.raises(OperatorNotFoundError) as caught:
            recipe.compute()
    told = caught.value
    assert "no operator 'dask_here::only' in this worker" in told.problem
    assert __name__ in told.declared and "client.run" in told.fix and __file__ in told.source
    assert ops.sine(da.ones(4, chunks=2), 5.0).compute().shape == (4,)


def test_an_operator_handed_to_the_cluster_as_it_is(client: Client) -> None:
    """S45: a pickle of an operator ends no connection: it is found, or its call raises."""
    x = np.ones(3)
    np.testing.assert_allclose(client.submit(ops.sine, x).result(timeout=60), np.sin(x))
    with polyop.scoped_library("dask_here", "DEF") as lib:
        lib.define("bare(Tensor x) -> Tensor")
        lib.impl("bare", lambda x: x.clone(), "CPU")
        for op in (polyop.ops.dask_here.bare, polyop.ops.dask_here.bare.default):
            with pytest.raises(OperatorNotFoundError, match="dask_here::bare"):
                client.submit(op, x).result(timeout=60)
    np.testing.assert_allclose(client.submit(ops.sine, x, 2.0).result(timeout=60), np.sin(x * 2))


def test_an_argument_that_workers_cannot_read(client: Client) -> None:
    """What a worker cannot unpickle is an error of the task, and not the end of the worker."""
    call = Call(ops.sine._opoverload, [Unreadable()], ())
    with pytest.raises(OperatorNotFoundError, match=r"(?s)dasktest::sine cannot be read.*not here"):
        client.submit(call, 1).result(timeout=60)
    assert ops.sine(da.ones(4, chunks=2), 6.0).compute().shape == (4,)


def _fail() -> Any:
    raise RuntimeError("not here")


class Unreadable:
    def __reduce__(self) -> Any:
        return _fail, ()


def test_errors_of_kernels_come_back(client: Client) -> None:
    """S1: an error of a kernel reaches the client as it is, with the note that names it."""
    with pytest.raises(ValueError, match="read-only") as caught:
        ops.scribble(da.ones(4, chunks=2)).compute()
    assert "in the kernel of dasktest::scribble(" in caught.value.__notes__[0]


def test_recipes_pickle_small_and_come_back() -> None:
    """A task holds the operator's name, not its code."""
    recipe = ops.sine(da.ones(4, chunks=2), 2.0)
    assert pickle.loads(pickle.dumps(recipe)).compute(scheduler="sync").tolist() == [np.sin(2)] * 4
    text = pickle.dumps(Call(ops.sine._opoverload, [1.0], ()))
    assert len(text) < 700 and b"dasktest::sine" in text
    again = pickle.loads(pickle.dumps(pickle.loads(text)))
    assert again.text == pickle.loads(text).text


SCRIPT = """
import warnings
import dask.array as da
import numpy as np
import polyop
from dask.distributed import Client, LocalCluster


def main():
    def define(factor):
        def scaled(x):
            return polyop.from_numpy(x.numpy() * factor)

        made = polyop.custom_op("script::scaled", scaled, mutates_args=(), tags=["pointwise"],
                                schema="(Tensor x) -> Tensor")
        made.register_fake(lambda x: polyop.empty_like(x))
        return made

    with LocalCluster(n_workers=2, threads_per_worker=4, dashboard_address=None) as cluster:
        with Client(cluster):
            x = da.ones(100, chunks=1)
            print([float(define(k)(x).compute().mean()) for k in (2.0, 3.0, 2.0)])


if __name__ == "__main__":
    main()
"""


def test_operators_of_a_script_go_by_value(tmp_path: Path) -> None:
    """S44: what is defined in `__main__` goes along, and again after it was defined anew."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.stdout.strip() == "[2.0, 3.0, 2.0]", done.stderr


def test_an_array_larger_than_memory(tmp_path: Path) -> None:
    """The example runs over an array larger than the limit of each worker, which is enforced."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/pairwise/larger_than_memory.py"),
         "--rows", "400000", "--columns", "8", "--centres", "512", "--chunk", "20000",],
        capture_output=True, text=True, timeout=180, cwd=tmp_path,
    )  # fmt: skip
    assert "the first 1000 rows are those of NumPy" in done.stdout, done.stderr
    assert "all distances at once: MemoryError" in done.stdout

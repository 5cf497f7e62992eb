"""The nearest of a few centres for points that do not fit into memory, nor do their distances.

python examples/pairwise/larger_than_memory.py

It starts two workers on this machine, and the operating system lets none of them have more memory
than the limit. With --scheduler it uses a cluster that is there: see docs/dask.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from contextlib import ExitStack

import dask
import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster
from pairwise import pairwise

GIB = 1 << 30


def limit_memory(size: int) -> None:
    """Let this process have no more memory than so many bytes: a larger array is a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def connect(stack: ExitStack, arguments: argparse.Namespace) -> Client:
    """Give a client of the cluster, whose processes are limited if it is ours."""
    if arguments.scheduler:
        return stack.enter_context(Client(arguments.scheduler))
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    cluster = stack.enter_context(
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=arguments.limit,
                     dashboard_address=None, env=threads)
    )  # fmt: skip
    client = stack.enter_context(Client(cluster))
    client.run(limit_memory, arguments.limit)
    return client


def points_in_chunks(rows: int, columns: int, chunk: int) -> da.Array:
    """Give uniform points, made where they are needed, a chunk of rows at a time."""
    drawn = da.random.default_rng(0)
    return drawn.random((rows, columns), chunks=(chunk, columns), dtype="float32")


def allocated(shape: tuple[int, ...]) -> str:
    """Try to have a whole array in one worker."""
    try:
        np.ones(shape, "float32")
    except MemoryError:
        return "MemoryError"
    return "it fits"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_400_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--centres", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=100_000)
    parser.add_argument(
        "--limit", type=int, default=640 << 20, help="bytes that each worker may have"
    )
    parser.add_argument("--scheduler", help="of a cluster, such as tcp://host:8786")
    arguments = parser.parse_args()

    points = points_in_chunks(arguments.rows, arguments.columns, arguments.chunk)
    centres = np.random.default_rng(1).random((arguments.centres, arguments.columns), "float32")
    distances = pairwise(points, centres)  # a recipe: nothing is computed
    print(f"points    {points.shape}, {points.nbytes / GIB:.2f} GiB in {points.npartitions} chunks")
    print(f"distances {distances.shape}, {distances.nbytes / GIB:.2f} GiB")
    with ExitStack() as stack:
        client = connect(stack, arguments)
        if not arguments.scheduler:
            print(f"limit     {arguments.limit / GIB:.2f} GiB for each of 2 workers")
            print("all distances at once:", client.submit(allocated, distances.shape).result())
        start = time.perf_counter()
        nearest = distances.argmin(axis=1)
        total, counts = dask.compute(
            distances.min(axis=1).sum(dtype="float64"),
            da.bincount(nearest, minlength=arguments.centres),
        )
        seconds = time.perf_counter() - start
        print(f"computed in {seconds:.1f} s")
        print(f"mean squared distance to the nearest centre {total / arguments.rows:.4f}")
        print(f"points per centre: {counts.min()} to {counts.max()}, {counts.sum()} in all")
        assert counts.sum() == arguments.rows
        some = points[:1000].compute()
        expected = np.square(some[:, None] - centres).sum(-1)
        assert np.allclose(distances[:1000].compute(), expected, rtol=1e-4)
        print("the first 1000 rows are those of NumPy")


if __name__ == "__main__":
    main()

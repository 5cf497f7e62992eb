"""The registry under load: threads and tasks define, call, switch, override and remove at once.

Every worker knows what each of its calls must give. Workers also call each other's operators,
through handles on a board: such a call gives what the operator gave while it lived, or says that
it is gone; once its owner has said so, it is gone for good. The load runs for a few seconds here,
and for as long as `POLYOP_STRESS_SECONDS` says (`make stress`: 30, and 100000 of
`POLYOP_STRESS_CYCLES`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from tests.dispatch.registry_state import snapshot

import polyop
from polyop import Tensor, ops
from polyop.dispatch import namespaces
from polyop.dispatch.context import word
from polyop.dispatch.dumps import dispatch_check_invariants
from polyop.dispatch.operator import OpOverloadPacket
from polyop.dispatch.registry import disown, places_of
from polyop.extend import DispatchMode
from polyop.library import Library, custom_op, register_kernel

SECONDS = float(os.environ.get("POLYOP_STRESS_SECONDS", "5"))
CYCLES = int(os.environ.get("POLYOP_STRESS_CYCLES", "1000"))
THREADS, TASKS = 8, 200
GONE, NOT_FOUND = polyop.errors.OperatorGoneError, polyop.errors.OperatorNotFoundError
ONE = polyop.ones(1)


def adds(n: float) -> Callable[[Any], Any]:
    def kernel(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() + n)

    return kernel


class Posted:
    """A handle that others may call, and what its owner has said of it."""

    def __init__(self, handle: Any, gives: float) -> None:
        self.handle, self.gives = handle, gives
        self.going = self.gone = False


class Board:
    """What the workers share: handles, one operator that two of them override, and the clock."""

    def __init__(self, seconds: float, shared: Any) -> None:
        self.shared = shared
        self.posted: list[Posted] = [Posted(None, 0.0)] * 64
        self.until = time.monotonic() + seconds
        self.failures: list[BaseException] = []

    def running(self) -> bool:
        return time.monotonic() < self.until and not self.failures

    def post(self, handle: Any, gives: float, choice: random.Random) -> Posted:
        posted = Posted(handle, gives)
        self.posted[choice.randrange(len(self.posted))] = posted
        return posted


class Watch(DispatchMode):
    """A mode that counts the calls it sees, and hands them on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(op.name())
        return op(*args, **(kwargs or {}))


class Worker:
    """One worker's acts; each is a round that leaves nothing behind but what `keep` holds."""

    def __init__(self, board: Board, number: int) -> None:
        self.board, self.space = board, f"stress{number}"
        self.choice = random.Random(number)
        self.kept = Library(self.space, "FRAGMENT")
        self.kept.define("kept(Tensor x) -> Tensor")
        self.kept.impl("kept", adds(number), "CPU")
        self.number = number
        self.count = 0
        for name in ("c", "s", "t"):  # those that replace themselves
            custom_op(f"{self.space}::{name}", adds(0), mutates_args=(), replace=True)

    def acts(self) -> list[Callable[[], Iterator[None]]]:
        acts = [self.library, self.custom, self.switch, self.override, self.modes, self.transforms]
        return [*acts, self.others, self.shared, self.late, self.rules]

    def round(self) -> Iterator[None]:
        """One act; it stops where a task may let others run."""
        self.count += 1
        yield from self.choice.choice(self.acts())()
        assert getattr(ops, self.space).kept(ONE).item() == 1 + self.number, "lost"
        assert int(word()) == 0, "a context was left behind"

    def name(self) -> str:
        return f"f{self.count % 50}"

    def library(self) -> Iterator[None]:
        """A library's operator works while the library lives, and is gone after."""
        name, n = self.name(), self.choice.randrange(1000)
        lib = Library(self.space, "FRAGMENT")
        lib.define(f"{name}(Tensor x) -> Tensor")
        lib.impl(name, adds(n), "CPU")
        packet = getattr(getattr(ops, self.space), name)
        handle = packet.default
        posted = self.board.post(handle, 1 + n, self.choice)
        assert handle(ONE).item() == 1 + n
        yield
        assert packet(ONE).item() == 1 + n
        posted.going = True
        lib.destroy()
        posted.gone = True
        for gone in (handle, packet, handle.entry):
            with pytest.raises(GONE):
                gone(ONE)
        yield
        with pytest.raises(GONE):
            handle(ONE)
        with pytest.raises(NOT_FOUND):
            getattr(getattr(ops, self.space), name)

    def custom(self) -> Iterator[None]:
        """A definition that replaces another makes the former's handles say so."""
        n = self.choice.randrange(1000)
        former = custom_op(f"{self.space}::c", adds(n), mutates_args=(), replace=True)
        posted = self.board.post(former, 1 + n, self.choice)
        assert former(ONE).item() == 1 + n
        yield
        posted.going = True
        newer = custom_op(f"{self.space}::c", adds(-n), mutates_args=(), replace=True)
        posted.gone = True
        assert newer(ONE).item() == 1 - n
        with pytest.raises(GONE):
            former(ONE)
        yield
        assert getattr(ops, self.space).c(ONE).item() == 1 - n

    def switch(self) -> Iterator[None]:
        """A kernel that is off does not run, and runs again when it is on."""
        op = custom_op(f"{self.space}::s", adds(1), mutates_args=(), replace=True)
        op.register_kernel("cpu", adds(2))
        assert op(ONE).item() == 3
        yield
        with op.set_kernel_enabled("cpu", False):
            assert op(ONE).item() == 2
            yield
            assert op(ONE).item() == 2
            op.register_kernel("cpu", adds(4))
            assert op(ONE).item() == 2
        assert op(ONE).item() == 5

    def override(self) -> Iterator[None]:
        """An override acts until its library goes; then the former kernel is there again."""
        lib = Library(self.space, "IMPL", "CPU")
        lib.impl("kept", adds(-500))
        kept = getattr(ops, self.space).kept
        assert kept(ONE).item() == -499
        yield
        second = Library(self.space, "IMPL", "CPU")
        second.impl("kept", adds(-700))
        assert kept(ONE).item() == -699
        lib.destroy()
        assert kept(ONE).item() == -699
        yield
        second.destroy()
        assert kept(ONE).item() == 1 + self.number

    def modes(self) -> Iterator[None]:
        """A mode sees this worker's calls, each once, and no other's."""
        kept, watch, name = getattr(ops, self.space).kept, Watch(), f"{self.space}::kept"
        with watch:
            assert kept(ONE).item() == 1 + self.number
            yield
            with Watch() as inner:
                kept(ONE)
            yield
        assert [n for n in watch.seen if "kept" in n] == [name] * 2
        assert [n for n in inner.seen if "kept" in n] == [name]

    def transforms(self) -> Iterator[None]:
        """Gradients and batches of an operator that is redefined each time."""
        n = self.choice.randrange(1, 9)
        op = custom_op(f"{self.space}::t", adds(n), mutates_args=(), replace=True)
        op.register_autograd(lambda ctx, grad: grad * n)
        op.register_vmap(lambda info, dims, x: (op(x), dims[0]))
        yield
        x = polyop.ones(3, requires_grad=True)
        op(x).sum().backward()
        assert x.grad.tolist() == [n] * 3
        yield
        with polyop.no_grad():
            assert not op(x).requires_grad
            yield
        assert polyop.vmap(op)(polyop.ones(2, 3)).tolist() == [[1 + n] * 3] * 2

    def rules(self) -> Iterator[None]:
        """A rule that replaces another acts from the next call on."""
        op = custom_op(f"{self.space}::t", adds(1), mutates_args=(), replace=True)
        for n in range(2, 5):
            op.register_autograd(lambda ctx, grad, n=n: grad * n)
            op.register_vmap(lambda info, dims, x, n=n: (x * n, dims[0]))
            yield
            x = polyop.ones(2, requires_grad=True)
            op(x).sum().backward()
            assert x.grad.tolist() == [n] * 2
            assert polyop.vmap(op)(polyop.ones(2, 3)).tolist() == [[n] * 3] * 2

    def others(self) -> Iterator[None]:
        """Another worker's operator gives what it should, or is gone if its owner let it go."""
        for _ in range(20):
            posted = self.choice.choice(self.board.posted)
            if posted.handle is None:
                continue
            gone = posted.gone
            try:
                given = posted.handle(ONE).item()
            except GONE:
                assert posted.going, "an operator is gone that nobody removed"
            else:
                assert not gone, "a removed operator answered"
                assert given == posted.gives
        yield

    def shared(self) -> Iterator[None]:
        """An operator that all override and switch gives what one of them gives, never nothing."""
        lib = Library("stress_shared", "IMPL", "CPU")
        lib.impl("all", adds(100 + self.number))
        yield
        assert 2 <= ops.stress_shared.all(ONE).item() <= 1001
        with self.board.shared.set_kernel_enabled("cpu", False):
            yield
            assert ops.stress_shared.all(ONE).item() == 1001
        lib.destroy()
        register_kernel("stress_shared::all", "cpu", adds(1))
        assert 2 <= ops.stress_shared.all(ONE).item() <= 1001

    def late(self) -> Iterator[None]:
        """A kernel may come before its operator, and an overload after the first."""
        name = f"late{self.count % 50}"
        kernels, lib = Library(self.space, "IMPL", "CPU"), Library(self.space, "FRAGMENT")
        kernels.impl(name, adds(7))
        yield
        lib.define(f"{name}(Tensor x) -> Tensor")
        packet = getattr(getattr(ops, self.space), name)
        assert packet(ONE).item() == 8
        lib.define(f"{name}.two(Tensor x, int n) -> Tensor")
        lib.impl(f"{name}.two", lambda x, n: polyop.from_numpy(x.numpy() * n), "CPU")
        yield
        assert packet(ONE, 5).item() == 5 and packet.two(ONE, 6).item() == 6
        assert packet(ONE).item() == 8
        lib.destroy()
        kernels.destroy()
        with pytest.raises(GONE):
            packet(ONE)

    def close(self) -> None:
        assert getattr(ops, self.space).kept(ONE).item() == 1 + self.number, "lost"
        self.kept.destroy()
        for name in ("c", "s", "t"):
            disown(places_of(f"{self.space}::{name}"))


def thread(worker: Worker) -> None:
    """Rounds, one after the other, until time is up."""
    while worker.board.running():
        for _ in worker.round():
            pass


async def task(worker: Worker) -> None:
    """Rounds that let other tasks run in their middle."""
    while worker.board.running():
        for _ in worker.round():
            await asyncio.sleep(0)


async def all_tasks(workers: list[Worker]) -> None:
    await asyncio.gather(*(task(worker) for worker in workers))


def guarded(board: Board, work: Callable[[], Any]) -> None:
    try:
        work()
    except BaseException as error:
        board.failures.append(error)


def load(seconds: float, shared: Any) -> int:
    """All threads, and the tasks in one more, until time is up; the first failure is raised."""
    board = Board(seconds, shared)
    workers = [Worker(board, n) for n in range(THREADS + TASKS)]
    with ThreadPoolExecutor(THREADS + 1) as pool:
        for worker in workers[:THREADS]:
            pool.submit(guarded, board, lambda w=worker: thread(w))
        pool.submit(guarded, board, lambda: asyncio.run(all_tasks(workers[THREADS:])))
    if board.failures:
        raise board.failures[0]
    for worker in workers:
        worker.close()
    return sum(worker.count for worker in workers)


def left() -> tuple[int, int]:
    """What is still allocated: blocks, and the process's pages in kB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.fixture
def shared() -> Iterator[Any]:
    """One operator for all, and threads that change places often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    op = custom_op("stress_shared::all", adds(1000), mutates_args=())
    op.register_kernel("cpu", adds(1))
    with pytest.warns(polyop.errors.PolyopWarning, match="disabled already"):  # and never again
        op.set_kernel_enabled("cpu", False)
        op.set_kernel_enabled("cpu", False)
        op.set_kernel_enabled("cpu", True)
    yield op
    assert op(ONE).item() == 2
    disown(places_of("stress_shared::all"))
    sys.setswitchinterval(before)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="pages are read from /proc")
def test_the_registry_under_load(shared: Any) -> None:
    """S52, S98, S106, S107: 8 threads and 200 tasks define, call, switch off, override and remove
    operators and enter modes: each call gives what it must, nothing registered is lost, removed
    operators are gone, and after the first half nothing more is kept."""
    load(SECONDS / 2, shared)
    names, (blocks, pages) = set(snapshot()["places"]), left()
    rounds = load(SECONDS / 2, shared)
    assert rounds > 100
    more_blocks, more_pages = left()
    assert more_blocks - blocks < 3000, f"{rounds} rounds"
    assert more_pages - pages < 20_000, f"{rounds} rounds"
    assert set(snapshot()["places"]) == names
    assert [n for n in names if n.startswith("stress")] == ["stress_shared::all"]
    dispatch_check_invariants()


def cycle_library(i: int) -> None:
    lib = Library("stress_leak", "DEF")
    lib.define(f"f{i}(Tensor x) -> Tensor")
    lib.impl(f"f{i}", adds(i), "CPU")
    assert getattr(ops.stress_leak, f"f{i}")(ONE).item() == 1 + i
    lib.destroy()


def cycle_dropped(i: int) -> None:
    Library("stress_leak", "FRAGMENT").define(f"dropped{i}(Tensor x) -> Tensor")


def cycle_custom(i: int) -> None:
    op = custom_op("stress_leak::c", adds(i), mutates_args=(), replace=True)
    op.register_kernel("cpu", adds(-i))
    op.register_fake(lambda x: x.new_empty(x.shape))
    with op.set_kernel_enabled("cpu", False):
        assert op(ONE).item() == 1 + i
    with Watch():
        assert op(ONE).item() == 1 - i


def cycle_warned(i: int) -> None:
    op = custom_op("stress_leak::w", adds(i), mutates_args=(), replace=True)
    with pytest.warns(polyop.errors.PolyopWarning, match="no kernel for cuda"):
        op.set_kernel_enabled("cuda", False)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="pages are read from /proc")
@pytest.mark.parametrize(
    "cycle", [cycle_library, cycle_dropped, cycle_custom, cycle_warned], ids=lambda c: c.__name__
)
def test_what_is_removed_is_freed(cycle: Callable[[int], None]) -> None:
    """S41, S107: operators that are defined and removed over and over leave nothing behind."""
    for i in range(CYCLES // 5):
        cycle(i)
    seen = [left()]
    for n in range(4):
        for i in range(CYCLES // 4):
            cycle((n + 1) * CYCLES + i)
        seen.append(left())
    # A leak is in each round; what else the process keeps, as a cache that fills, is not.
    grown = [more - less for (less, _), (more, _) in pairwise(seen)]
    assert min(grown) < 50 + CYCLES // 80, grown
    assert seen[-1][1] - seen[0][1] < 10_000
    for name in ("c", "w"):
        disown(places_of(f"stress_leak::{name}"))


def test_a_library_that_goes_takes_late_registrations_with_it() -> None:
    """S41, S4: what is registered beside the destruction of its library, after that library was
    seen alive, is refused, so that it cannot outlive it."""
    for register in (
        lambda lib: lib.impl("f", adds(1), "CPU"),
        lambda lib: lib.define("g(Tensor x) -> Tensor"),
        lambda lib: polyop.library.register_fake("stress_late::f", adds(1), lib=lib),
    ):
        lib, other = Library("stress_late", "FRAGMENT"), Library("stress_late", "FRAGMENT")
        other.define("f(Tensor x) -> Tensor")
        lib._check_alive = lib.destroy  # another thread's, at the worst time
        before = snapshot()
        with pytest.raises(polyop.errors.LibraryGoneError):
            register(lib)
        assert snapshot() == before
        other.destroy()
        assert not [n for n in snapshot()["places"] if n.startswith("stress_late::")]


@pytest.mark.parametrize("kept", ["packet", "overload"])
def test_removed_names_are_not_kept(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S58: a name that is looked up while another thread removes it is not kept after that."""
    lib = Library("stress_names", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.define("f.two(Tensor x) -> Tensor")
    packet = ops.stress_names.f if kept == "overload" else None
    remove = threading.Thread(target=lib.destroy)
    place, name = {
        "packet": (namespaces, "find_packet"),
        "overload": (OpOverloadPacket, "op_overloads"),
    }[kept]
    found = getattr(place, name)

    def slowly(*args: Any) -> Any:
        answer = found(*args)
        monkeypatch.undo()
        remove.start()
        remove.join(0.2)  # the removal waits for the look-up, or has happened
        return answer

    monkeypatch.setattr(place, name, slowly)
    looked_up = ops.stress_names.f if packet is None else packet.two
    remove.join()
    assert looked_up not in vars(ops.stress_names if packet is None else packet).values()

"""Forks beside threads: what a thread held when another forked is free and whole in the child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

BEGIN = """
import os, signal, sys, threading, time, warnings
import polyop, polyop.forks
from polyop.dispatch.lock import LOCK
from polyop.library import Library
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
def fork(child):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # a child that hangs is killed
        try:
            child()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(3)
    return os.waitpid(pid, 0)[1]
def define(name):
    library = Library(name, "FRAGMENT")
    library.define("f(Tensor x) -> Tensor")
    library.impl("f", lambda x: x * 2.0, "CPU")
    assert getattr(polyop.ops, name).f(polyop.ones(2)).tolist() == [2.0, 2.0]
    return library
"""
HELD = """
in_it, out = threading.Event(), threading.Event()
def hold():
    with LOCK:
        in_it.set()
        {how}
thread = threading.Thread(target=hold)
thread.start()
in_it.wait()
start = time.monotonic()
print(fork(lambda: define("forked")), time.monotonic() - start < 60)
out.set()
thread.join()
define("parent")
done = []
LOCK.between(lambda: done.append(1))
print(done)
"""
MANY = """
stop = threading.Event()
def define_all(k):
    n = 0
    while not stop.is_set():
        library = define(f"many_{k}_{n}")
        library._destroy()
        polyop.multiply.op.changed()
        n += 1
threads = [threading.Thread(target=define_all, args=(k,)) for k in range(3)]
for one in threads:
    one.start()
found = []
def forks():
    for n in range(8):
        found.append(fork(lambda: define("child")))
forking = [threading.Thread(target=forks) for _ in range(2)]
for one in forking:
    one.start()
for one in forking:
    one.join()
stop.set()
for one in threads:
    one.join()
print(found == [0] * 16, polyop.forks._held)
"""


def ran(program: str) -> str:
    """Run a program in a process of its own, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_fork_waits_for_a_registration() -> None:
    """S4: a child that is forked while another thread registers finds the registry free."""
    assert ran(HELD.format(how="time.sleep(0.3)")) == "0 True\n[1]\n"


def test_a_fork_does_not_wait_for_ever() -> None:
    """S4: where a thread keeps the lock, the fork goes on, and the child's lock is a new one."""
    program = "polyop.forks.PATIENCE = 0.2\n" + HELD.format(how="out.wait()")
    assert ran(program) == "0 True\n[1]\n"


def test_many_forks_beside_many_registrations() -> None:
    """S4: threads that fork and threads that register at the same time lose nothing."""
    assert ran(MANY) == "True {}\n"


def test_a_fork_waits_for_an_import() -> None:
    """S4: a child that is forked while another thread brings in a part of the package goes on."""
    program = """
def first():
    polyop.compile(lambda x: x + 1.0)(polyop.ones(3))
    polyop.vmap(lambda x: x * 2.0)(polyop.ones(3))
thread = threading.Thread(target=first)
thread.start()
time.sleep(0.01)
print(fork(first))
thread.join()
"""
    assert ran(program) == "0\n"


def test_a_fork_inside_a_registration() -> None:
    """S4: a thread that forks while it registers goes on, in both processes."""
    program = """
done = []
with LOCK:
    status = fork(lambda: (define("inside"), LOCK.between(lambda: done.append(1))))
    define("outside")
    LOCK.between(lambda: done.append(2))
print(status, done)
"""
    assert ran(program) == "0 [2]\n"


def test_forks_beside_threads_that_draw() -> None:
    """S4: a child that is forked while other threads draw random numbers draws its own."""
    program = """
stop = threading.Event()
one = polyop.Generator(1)
def draw():
    while not stop.is_set():
        polyop.rand(1000)
        polyop.rand(100000, generator=one)
threads = [threading.Thread(target=draw) for _ in range(3)]
for thread in threads:
    thread.start()
print([fork(lambda: polyop.rand(2) + polyop.rand(2, generator=one)) for _ in range(4)])
stop.set()
for thread in threads:
    thread.join()
"""
    assert ran(program) == "[0, 0, 0, 0]\n"


@pytest.mark.parametrize("patience", [20.0, 0.2])
def test_a_fork_beside_the_first_call_of_a_compiled_function(patience: float) -> None:
    """S4: the child calls the function too, also where the fork did not wait for the other."""
    program = f"""
polyop.forks.PATIENCE = {patience}
parent, in_it = os.getpid(), threading.Event()
@polyop.compile
def twice(x):
    in_it.set()
    os.getpid() != parent or time.sleep(1.0)
    return x * 2.0
thread = threading.Thread(target=lambda: twice(polyop.ones(2)))
thread.start()
in_it.wait()
def child():
    assert twice(polyop.ones(2)).tolist() == [2.0, 2.0]
print(fork(child))
thread.join()
"""
    assert ran(program) == "0\n"


def test_locks_of_objects_that_are_gone() -> None:
    """S4: a fork waits for the locks of objects that there are; others are not kept."""
    program = """
import gc
def count():
    gc.collect()
    return len(polyop.forks._locks())
before = count()
made = [polyop.Generator() for _ in range(9)]
between = count()
del made
print(between - before, count() - before)
"""
    assert ran(program) == "9 0\n"

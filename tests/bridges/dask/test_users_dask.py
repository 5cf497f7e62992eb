"""Operators of scripts and notebooks on the way to workers, and calls that do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.bridges.dask.identity import digest_of
from polyop.errors import MetadataMismatchError

#: A script whose operators call a function and each other, and read a value.
SCRIPT = """
import dask.array as da
import numpy as np
import polyop
from polyop import Tensor

SCALE = {scale}

def scaled(a):
    return a * SCALE

@polyop.custom_op("userscript::once", mutates_args=(), tags="pointwise")
def once(x: Tensor) -> Tensor:
    return polyop.from_numpy(scaled(x.numpy()))

@polyop.custom_op("userscript::twice", mutates_args=(), tags="pointwise")
def twice(x: Tensor) -> Tensor:
    return once(once(x))

@polyop.custom_op("userscript::again", mutates_args=(), tags="pointwise")
def again(x: Tensor, n: int) -> Tensor:
    return once(again(x, n - 1)) if n else x.clone()

for op in (once, twice):
    op.register_fake(lambda x: polyop.empty_like(x))
again.register_fake(lambda x, n: polyop.empty_like(x))
"""
SEND = """
import cloudpickle, sys
x = da.ones(4, chunks=2)
sys.stdout.buffer.write(cloudpickle.dumps([once(x), twice(x), again(x, 3)]))
"""
READ = """
import pickle, sys
print([x.compute(scheduler="sync").tolist()[0] for x in pickle.load(sys.stdin.buffer)])
"""


def python(code: str, given: bytes = b"") -> bytes:
    """Run code in a process of its own, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_what_a_script_defines_travels_with_all_that_it_calls() -> None:
    """S45: functions, values and operators that a kernel of a script uses go where it goes."""
    sent = python(SCRIPT.format(scale=3) + SEND)
    assert python(READ, sent).decode().strip() == "[3.0, 9.0, 27.0]"


def test_a_worker_that_has_read_the_script_has_no_other_kernels(tmp_path: Path) -> None:
    """S44: what the client defines now is what runs, not what the script said when it was read."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(scale=3))
    # This is how worker processes read the script of their client.
    worker = f"import runpy; runpy.run_path({str(script)!r}, run_name='__mp_main__')\n"
    for scale, wanted in ((5, "[5.0, 25.0, 125.0]"), (3, "[3.0, 9.0, 27.0]")):
        sent = python(SCRIPT.format(scale=scale) + SEND)
        assert python(worker + READ, sent).decode().strip() == wanted
    again = python(SCRIPT.format(scale=3) + "SCALE = 7" + SEND)
    assert python(worker + READ, again).decode().strip() == "[7.0, 49.0, 343.0]"


def test_equal_scripts_have_equal_tokens_in_every_process() -> None:
    """S45: names of calls are those of another process, unless something that is read differs."""
    tell = "\nprint([f(da.ones(4, chunks=2)).name for f in (once, twice)])"
    one, other = (python(SCRIPT.format(scale=3) + tell) for _ in range(2))
    assert one == other != python(SCRIPT.format(scale=4) + tell)


def test_a_fake_rule_that_was_mended_is_sent_again() -> None:
    """S44: a worker that has the old rule would refuse what is right now."""

    @polyop.custom_op("users_dask::mended", mutates_args=(), tags="pointwise")
    def mended(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() > 0)

    mended.register_fake(lambda x: polyop.empty_like(x))
    wrong = digest_of(mended._opoverload)
    mended.register_fake(lambda x: polyop.empty_like(x, dtype=polyop.bool))
    assert digest_of(mended._opoverload) != wrong
    assert mended(da.ones(4, chunks=2)).compute().dtype == bool


def test_the_padded_form_of_a_module_is_made_where_it_runs() -> None:
    """S66: a worker makes padded forms, and functional twins, when a call names one."""
    send = """
import cloudpickle, sys, polyop, dask.array as da
from tests.bridges.dask import operators as ops
x = da.from_array([0.0, 2.0, 3.0], chunks=3)
made = [polyop.library.padded(ops.nonzero)(x, max=5)[1], ops.add_to.functional(x, x)[1]]
sys.stdout.buffer.write(cloudpickle.dumps(made))
"""
    read = """
import pickle, sys
print([x.compute(scheduler="sync").tolist() for x in pickle.load(sys.stdin.buffer)])
"""
    assert python(read, python(send)).decode().strip() == "[2, 4.0]"


def test_a_pointwise_tag_that_is_wrong_is_refused_at_the_call() -> None:
    """S196: a result without all axes of the blocks is refused, and no task is made."""

    @polyop.custom_op("users_dask::row", mutates_args=(), tags="pointwise")
    def row(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy().sum(0))

    row.register_fake(lambda x: x.new_empty(x.shape[1:]))
    with pytest.raises(MetadataMismatchError, match="users_dask::row has another shape in blocks"):
        row(da.ones((4, 6), chunks=2))
    np.testing.assert_allclose(row(np.ones((4, 6))), np.full(6, 4.0))

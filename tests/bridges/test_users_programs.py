"""Programs that were saved, in processes that have only imported the modules of their operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.forked import run_forked

USERS = "from tests.bridges import users\n"
#: A function that writes, and that asks how many there are.
FUNCTION = """
import numpy as np
import polyop
from tests.bridges import users

padded = polyop.library.padded(users.places)
scale = polyop.ops.users.scale.into

def f(x, y):
    total = x * 0
    users.add_to(x, total)
    users.add_to(y, total)
    made = x * 0
    size = scale(x, 3.0, out=made)
    return total, size, made, *padded(x, max=4, fill=-1)
"""
WANTED = [[2.0, 0.0, 3.0], 9.0, [3.0, 0.0, 6.0], [0, 2, -1, -1], 2]
CALL = """
import json
import numpy as np
x, y = np.array([1.0, 0.0, 2.0], np.float32), np.ones(3, np.float32) * np.array([1, 0, 1])
y = y.astype(np.float32)
print(json.dumps([np.asarray(a).tolist() for a in call(x, y)]))
"""


def python(code: str) -> Any:
    """Run code in a process of its own, and give what it prints last."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return _printed(subprocess.run(command, capture_output=True, text=True, check=False))


def _printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


def test_a_program_of_ours_finds_what_is_made_of_its_operators(tmp_path: Path) -> None:
    """S174, S206: functional twins and padded forms are made when a file names them."""
    place = str(tmp_path / "program.polyop")
    save = f"""
from polyop.export import export, save
x = polyop.ones(3)
save(export(f, (x, polyop.ones(3))), {place!r})
"""
    python(FUNCTION + save)
    load = f"""
from polyop.export import load
import polyop
program = load({place!r}).module()
def call(x, y):
    return [t.numpy() for t in program(polyop.from_numpy(x), polyop.from_numpy(y))]
"""
    assert python(USERS + load + CALL) == WANTED


def test_a_program_of_jax_finds_what_is_made_of_its_operators(tmp_path: Path) -> None:
    """S174: so does an exported program of JAX, which imports the module itself."""
    pytest.importorskip("jax")
    place = tmp_path / "program.jax"
    save = f"""
import jax
from pathlib import Path
from jax import export

def pure(x, y):
    total = users.add_to.functional(y, users.add_to.functional(x, x * 0))
    size, made = scale.functional(x, 3.0, out=x * 0)
    return total, size, made, *padded(x, max=4, fill=-1)

safe = [export.DisabledSafetyCheck.custom_call("polyop")]
kind = jax.ShapeDtypeStruct(export.symbolic_shape("n"), np.float32)
program = export.export(jax.jit(pure), disabled_checks=safe)(kind, kind)
Path({str(place)!r}).write_bytes(program.serialize())
"""
    python(FUNCTION + save)
    load = f"""
from pathlib import Path
import polyop.bridges.jax.ffi
from jax import export
call = export.deserialize(bytearray(Path({str(place)!r}).read_bytes())).call
"""
    assert python(load + CALL) == WANTED


def test_a_program_of_pytorch_finds_its_operators(tmp_path: Path) -> None:
    """S174: so does an exported program of PyTorch, written and without writes."""
    pytest.importorskip("torch")
    place = str(tmp_path / "program.pt2")
    for again in ("", ".run_decompositions({})"):
        save = f"""
import torch

class Model(torch.nn.Module):
    def forward(self, x, y):
        return f(x, y)

x = torch.arange(3.0)
torch.export.save(torch.export.export(Model(), (x, torch.ones(3))){again}, {place!r})
"""
        _printed(run_forked(FUNCTION + save))
        load = f"""
import torch
program = torch.export.load({place!r}).module()
def call(x, y):
    return program(torch.from_numpy(x), torch.from_numpy(y))
"""
        # PyTorch looks for operators as soon as it reads the file.
        assert _printed(run_forked(FUNCTION + load + CALL)) == WANTED


def test_a_file_says_which_module_its_twins_come_of(tmp_path: Path) -> None:
    """S213: where nothing is imported, the error names the module of the operator that writes."""
    place = str(tmp_path / "program.polyop")
    python(
        FUNCTION
        + f"""
from polyop.export import export, save
x = polyop.ones(3)
save(export(lambda x: users.add_to(x, y := x * 0) or y, (x,)), {place!r})
"""
    )
    said = python(f"""
import json
from polyop.export import load
from polyop.errors import ProgramFileError
try:
    load({place!r})
except ProgramFileError as error:
    print(json.dumps([error.op, error.fix]))
""")
    assert said == ["users::add_to.functional", "import tests.bridges.users first"]

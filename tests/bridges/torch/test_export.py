"""Programs that PyTorch exports are saved, and run in a process that has only the operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES
from tests.bridges.torch.operators import crop, nonzero, sin, sine
from tests.bridges.torch.test_compiled import BACKENDS
from tests.forked import run_forked

pytestmark = COMPILES
Dim: Any = torch.export.Dim

OPERATORS = """
import numpy as np
import polyop
from polyop import Tensor

@polyop.custom_op("export_away::rows", mutates_args=())
def rows(x: Tensor, first: int, count: int) -> Tensor:
    return polyop.from_numpy(x.numpy()[first : first + count].copy())

@rows.register_fake
def rows_fake(x, first, count):
    polyop.check(first + count <= x.shape[0], lambda: "too many rows")
    return x.new_empty(count, x.shape[1])

@polyop.custom_op("export_away::positive", mutates_args=())
def positive(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy()[x.numpy() > 0])

@positive.register_fake
def positive_fake(x):
    return x.new_empty(polyop.library.get_ctx().new_dynamic_size())

@polyop.custom_op("export_away::halve", mutates_args=("x",))
def halve(x: Tensor, times: int = 1, *, of: float = 2.0) -> Tensor:
    x.numpy()[...] /= of**times
    return polyop.from_numpy(np.asarray(x.numpy().sum()))

@halve.register_fake
def halve_fake(x, times=1, *, of=2.0):
    return x.new_empty([])
"""
MODELS = """
import sys
import torch
from export_away_ops import halve, positive, rows
Dim = torch.export.Dim

class Model(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)

def static(x):
    return rows(x, 1, 2) * 2

def dynamic(x):
    return rows(x, 1, x.shape[0] - 2) + 1

def data(x):
    found = positive(x)
    return positive(found * 2 - 1), found.sum()

def writes(x):
    y = x * 1
    first = halve(y, 2)
    halve(y[0], of=0.5)
    return y, first

def writes_argument(x):
    halve(x)
    return x + 1

GIVEN = torch.arange(8.0).reshape(4, 2) - 2
LONGER = torch.arange(12.0).reshape(6, 2) - 3
ALL = {f.__name__: f for f in (static, dynamic, data, writes, writes_argument)}
"""
SAVE = """
from export_away_models import *
for name, f in ALL.items():
    shapes = None if name == "static" else ({0: Dim("n", min=4, max=64)},)
    for strict in (False, True):
        model = Model(f)
        program = torch.export.export(model, (GIVEN.clone(),), dynamic_shapes=shapes, strict=strict)
        torch.export.save(program, f"{name}_{strict}.pt2")
        torch.export.save(program.run_decompositions(), f"{name}_{strict}_plain.pt2")
"""
LOAD = """
from export_away_models import *
for name, f in ALL.items():
    for file in (f"{name}_{s}{kind}.pt2" for s in (False, True) for kind in ("", "_plain")):
        module = torch.export.load(file).module()
        for given in (GIVEN,) if name == "static" else (GIVEN, LONGER):
            mine, theirs = given.clone(), given.clone()
            torch.testing.assert_close(module(mine), f(theirs))
            torch.testing.assert_close(mine, theirs)
print("right")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of operators, and programs that were saved."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "export_away_ops.py").write_text(OPERATORS)
    (folder / "export_away_models.py").write_text(MODELS)
    done = run_forked(SAVE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_another_process_runs_saved_programs(saved: Path) -> None:
    """S213, S214: programs of static and dynamic sizes, of sizes from data, and with writes, as
    exported and as decomposed, give what the functions give, where the module is imported.
    """
    done = run_forked(LOAD, cwd=saved)
    assert done.stdout.strip() == "right", done.stderr


def test_a_missing_operator_is_named(saved: Path) -> None:
    """S214: where the module is not imported, loading says which operator is missing."""
    for imported in ("import torch", "import torch, polyop"):
        program = f"{imported}\ntorch.export.load('static_False.pt2')"
        done = run_forked(program, cwd=saved)
        assert done.returncode != 0
        assert "export_away" in done.stderr


# -- compiled -------------------------------------------------------------------------------------


def compiled(f: Any, backend: str, **more: Any) -> tuple[Any, list[Any]]:
    """Compile a function, and give the list of the graphs that are made."""
    graphs: list[Any] = []
    inner = torch._dynamo.lookup_backend(backend)  # type: ignore[attr-defined]

    def counting(graph: Any, given: Any, **options: Any) -> Any:
        graphs.append(graph)
        return inner(graph, given)

    run: Any = torch.compile(f, backend=counting, fullgraph=True, **more)
    return run, graphs


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_graph_for_every_size(backend: str) -> None:
    """S150: one graph serves every size, with sizes that are computed of sizes, and gradients."""

    def f(x: Any) -> Any:
        return (crop(x, [1, 0, x.shape[2] - 1, x.shape[1] - 2]) * sin(x)[:, 2:, 2:]).sum() * 2

    run, graphs = compiled(f, backend, dynamic=True)
    for n in (5, 7, 9):
        x, y = (torch.rand(2, n, n + 1).requires_grad_() for _ in range(2))
        y.data.copy_(x.data)
        run(x).backward()
        f(y).backward()
        torch.testing.assert_close(x.grad, y.grad)
    assert len(graphs) == 1


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_graph_for_every_count(backend: str) -> None:
    """S144: sizes from data go through other operators, and one graph serves every count."""

    def f(x: Any) -> Any:
        found = nonzero(x)
        return found.to(x.dtype).sum() + nonzero(found[:, 0] - 1).shape[0]

    run, graphs = compiled(f, backend)
    for values in ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]):
        x = torch.tensor(values)
        torch.testing.assert_close(run(x), f(x))
    assert len(graphs) == 1


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("backend", BACKENDS)
def test_writes_into_views_and_arguments(backend: str) -> None:
    """S174: what is written is seen through every view, in the caller's tensors too."""

    def f(x: Any, out: Any) -> Any:
        part = out[1:]
        sine(x[1:], part)
        sine(part * 1, out[:2])
        return out.sum() + part[0]

    run, _ = compiled(f, backend)
    x = torch.rand(3)
    mine, theirs = torch.zeros(3), torch.zeros(3)
    torch.testing.assert_close(run(x, mine), f(x, theirs))
    torch.testing.assert_close(mine, theirs)

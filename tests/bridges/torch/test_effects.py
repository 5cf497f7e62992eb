"""An operator with an effect is called as often, and in the order, that the program says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES
from tests.bridges.torch.test_compiled import BACKENDS, HAS_COMPILER

import polyop
from polyop import Tensor

EffectType: Any = polyop.library.EffectType
pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]
Z = torch.ones(2, dtype=torch.float64)
SEEN: list[int] = []


def note_kernel(x: Tensor, n: int) -> Tensor:
    SEEN.append(n)
    return polyop.from_numpy(x.numpy() * 2)


def log_kernel(x: Tensor, n: int) -> None:
    SEEN.append(n)


def operators(space: str) -> tuple[Any, Any]:
    """Define an operator with a result and one without; their effect is declared later."""
    note = polyop.custom_op(f"{space}::note", note_kernel, mutates_args=(), replace=True)
    note.register_fake(lambda x, n: polyop.empty_like(x))
    note.register_autograd(lambda ctx, grad: (grad * 2, None))
    log = polyop.custom_op(f"{space}::log", log_kernel, mutates_args=(), replace=True)
    log.register_fake(lambda x, n: None)
    return note, log


NOTE, LOG = operators("effect_tests")
for _op in (NOTE, LOG):
    polyop.library.register_effect(_op, EffectType.ORDERED)


def program(x: Any) -> Any:
    NOTE(x, 1)
    LOG(x, 2)
    NOTE(x, 1)
    LOG(x, 2)
    return NOTE(x, 1) + 1


@pytest.fixture(autouse=True)
def _unseen() -> None:
    SEEN.clear()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_call_is_dropped_merged_or_moved(backend: str) -> None:
    """S189: equal calls, and calls whose results nobody reads, all run, in their order."""
    run = torch.compile(program, backend=backend, fullgraph=True)
    assert run(Z).tolist() == [3.0, 3.0]
    assert SEEN == [1, 2, 1, 2, 1]


def test_gradients_flow_through() -> None:
    """S189, S117: an operator with an effect has its gradient in compiled regions."""
    x = Z.clone().requires_grad_()
    run: Any = torch.compile(program, backend="aot_eager", fullgraph=True)
    run(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]
    assert SEEN == [1, 2, 1, 2, 1]


class Model(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return program(x)


def test_exported_programs_keep_the_calls() -> None:
    """S190: exporting, and decomposing, keep calls with effects."""
    exported = torch.export.export(Model(), (Z,))
    for one in (exported, exported.run_decompositions()):
        SEEN.clear()
        assert one.module()(Z).tolist() == [3.0, 3.0]
        assert SEEN == [1, 2, 1, 2, 1]


def test_an_effect_declared_after_a_compilation() -> None:
    """S46, S189: what was compiled, and kept on disk, before the effect is not taken again."""
    note, log = operators("effect_late")

    def f(x: Any) -> Any:
        note(x, 1)
        log(x, 2)
        return note(x, 1) + 1

    backend = "inductor" if HAS_COMPILER else "aot_eager"
    torch.compile(f, backend=backend, fullgraph=True)(Z)
    assert len(SEEN) == 1
    polyop.library.register_effect(note, EffectType.ORDERED)
    polyop.library.register_effect(log, EffectType.ORDERED)
    torch._dynamo.reset()
    SEEN.clear()
    torch.compile(f, backend=backend, fullgraph=True)(Z)
    assert SEEN == [1, 2, 1]


def test_a_version_that_takes_no_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """S189: where PyTorch cannot be told of an effect, compiling is refused by name."""
    note, _ = operators("effect_refused")
    polyop.library.register_effect(note, EffectType.ORDERED)
    monkeypatch.delattr(torch.library, "EffectType", raising=False)
    run: Any = torch.compile(lambda x: note(x, 1), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="effect_refused::note has an effect, and this version"):
        run(Z)
    assert note(Z, 1).tolist() == [2.0, 2.0] and SEEN == [1]

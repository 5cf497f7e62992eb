"""What PyTorch keeps on disk is not taken for what an edited rule would make."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.forked import QUICK, run_forked

PROGRAM = """
import torch, polyop
def factor():
    return {helper}
@polyop.custom_op("cached::op", mutates_args=())
def op(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 1)
@polyop.custom_op("cached::times", mutates_args=())
def times(x: polyop.Tensor, by: float) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * by)
for made in (op, times):
    made.register_fake(lambda x, by=1.0: polyop.empty_like(x))
op.register_autograd(lambda ctx, grad: times(grad, factor() * {own}))
x = torch.ones(2, requires_grad=True)
run = torch.compile(lambda x: op(x), fullgraph=True, backend="{backend}")
run(x).backward(torch.ones(2))  # no kernel of PyTorch's own: none is built in C++
counters = torch._dynamo.utils.counters
print(x.grad.tolist(), counters["aot_autograd"]["autograd_cache_hit"])
"""


@pytest.mark.parametrize("backend", ["inductor"])
def test_an_edited_gradient_is_the_one_that_runs(tmp_path: Path, backend: str) -> None:
    """S66: programs on disk are those of the same rules; an edit, be it in a helper, makes anew."""

    def run(own: int, helper: int) -> str:
        text = PROGRAM.format(own=own, helper=helper, backend=backend)
        env = {**QUICK, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = run_forked(text, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(2, 1) == "[2.0, 2.0] 0"
    assert run(2, 1) == "[2.0, 2.0] 1"
    assert run(3, 1) == "[3.0, 3.0] 0"
    assert run(3, 2) == "[6.0, 6.0] 0"

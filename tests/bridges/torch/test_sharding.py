"""Distributed tensors of PyTorch go through operators along their loops, and only these."""

from __future__ import annotations

import subprocess
import sys
from textwrap import indent

import pytest
import torch.distributed

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this PyTorch has no gloo",
)

PROGRAM = r"""
import sys
import traceback
import numpy as np
import torch
import torch.distributed as dist
import polyop
from polyop import Tensor

SEEN = []

@polyop.custom_op("shared::early", mutates_args=())
def early(a: Tensor) -> Tensor:
    return polyop.from_numpy(a.numpy() * 2)

early.register_fake(lambda a: polyop.empty_like(a))
polyop.library.register_index(early, "()->()")
assert early(torch.ones(2)).tolist() == [2, 2]  # known to PyTorch before distributed tensors are

from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

@polyop.custom_op("shared::product", mutates_args=())
def product(a: Tensor, b: Tensor) -> Tensor:
    SEEN.append((tuple(a.shape), tuple(b.shape)))
    return polyop.from_numpy(np.matmul(a.numpy(), b.numpy()))

def setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)

def backward(ctx, grad):
    a, b = ctx.saved_tensors
    return product(grad, b.mT), product(a.mT, grad)

product.register_autograd(backward, setup_context=setup)
polyop.library.register_index(product, "(m,n),(n,k)->(m,k)")

@polyop.custom_op("shared::parts", mutates_args=())
def parts(a: Tensor, by: int, b: Tensor, *, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    x = a.numpy() * by + shift
    return polyop.from_numpy(x.sum(-1)), polyop.from_numpy(x + b.numpy())

polyop.library.register_index(parts, "(n),(n)->(),(n)")

@polyop.custom_op("shared::bare", mutates_args=())
def bare(a: Tensor) -> Tensor:
    return polyop.from_numpy(a.numpy() * 2)

bare.register_fake(lambda a: polyop.empty_like(a))


def same(result, wanted, placement):
    assert result.placements == (placement,), result.placements
    torch.testing.assert_close(result.full_tensor(), wanted)


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    a, b = torch.rand(4, 3, 5), torch.rand(4, 5, 2)
    whole, cut = [Replicate()], [Shard(0)]

    def say(law, verdict):  # two processes write to one stream
        with open(f"{folder}/said_{rank}", "a") as file:
            file.write(f"LAW {law} {verdict}\n")

    def laid(t, placements):
        return distribute_tensor(t, mesh, placements)

    BODY
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
    print("right")
"""

BODIES = {
    "loops are cut": """
    same(product(laid(a, cut), laid(b, cut)), a @ b, Shard(0))
    assert SEEN == [((2, 3, 5), (2, 5, 2))]
    same(early(laid(a, [Shard(2)])), a * 2, Shard(2))
    same(product(laid(a[:3], cut), laid(b[:3], cut)), a[:3] @ b[:3], Shard(0))  # 2 and 1
    """,
    "a loop that is repeated stays whole": """
    same(product(laid(a, cut), laid(b[0], whole)), a @ b[0], Shard(0))
    same(product(laid(a, cut), laid(b[:1], whole)), a @ b[:1], Shard(0))
    assert SEEN == [((2, 3, 5), (5, 2)), ((2, 3, 5), (1, 5, 2))]
    """,
    "named axes are made whole": """
    found = product(laid(a, [Shard(1)]), laid(b, [Shard(1)]))
    torch.testing.assert_close(found.full_tensor(), a @ b)
    assert all(x[1:] == (3, 5) and y[1:] == (5, 2) for x, y in SEEN), SEEN
    same(product(laid(a[0], [Shard(1)]), laid(b[0], [Shard(0)])), a[0] @ b[0], Replicate())
    """,
    "results and static arguments": """
    x, y = a[0, :2], b[0, 0]
    x = torch.rand(6, 5)
    y = torch.rand(5)
    total, moved = parts(laid(x, cut), 3, laid(y, whole), shift=0.5)
    same(total, (x * 3 + 0.5).sum(-1), Shard(0))
    same(moved, x * 3 + 0.5 + y, Shard(0))
    """,
    "gradients are sharded alike": """
    x, y = laid(a, cut).requires_grad_(), laid(b, cut).requires_grad_()
    product(x, y).sum().backward()
    p, q = a.clone().requires_grad_(), b.clone().requires_grad_()
    (p @ q).sum().backward()
    same(x.grad, p.grad, Shard(0))
    same(y.grad, q.grad, Shard(0))
    assert len(SEEN) == 3 and all(s[0][0] == 2 for s in SEEN), SEEN
    """,
    "without an index signature nothing is cut": """
    same(bare(laid(a, whole)), a * 2, Replicate())
    try:
        bare(laid(a, cut))
    except RuntimeError as error:
        assert "shared::bare has no index signature" in str(error)
        assert "register_index" in str(error)
    else:
        raise AssertionError("a kernel saw half of a tensor")
    """,
}


TRY = """
    try:
{body}
    except BaseException:
        say({law!r}, "BROKEN " + traceback.format_exc())
    else:
        say({law!r}, "HOLDS")
    SEEN.clear()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What both processes say of each law."""
    folder = tmp_path_factory.mktemp("shared")
    bodies = [
        TRY.format(body=indent(body.strip("\n"), "    "), law=law) for law, body in BODIES.items()
    ]
    program = folder / "program.py"
    program.write_text(PROGRAM.replace("    BODY", "".join(bodies)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.strip().endswith("right"), done.stderr[-3000:]
    return "".join((folder / f"said_{rank}").read_text() for rank in (0, 1))


@pytest.mark.parametrize("law", BODIES, ids=lambda law: law.replace(" ", "-"))
def test_over_two_processes(law: str, said: str) -> None:
    """S56: in two processes, each kernel sees its part of the loops and whole named axes; results
    are those of one process, and say how they lie.
    """
    assert said.count(f"LAW {law} HOLDS") == 2, said

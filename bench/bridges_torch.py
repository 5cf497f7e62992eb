"""What a call through PyTorch's bridge costs, beside a hand-written `Library` operator.

Prints ratios; nothing is asserted. Both have the same NumPy kernel, gradient and fake rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import polyop


@polyop.custom_op("bridge_bench::sin", mutates_args=())
def sin(x: polyop.Tensor) -> polyop.Tensor:
    """The operator of ours."""
    return polyop.from_numpy(np.sin(x.numpy()))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


sin.register_fake(lambda x: polyop.empty_like(x))
sin.register_autograd(
    lambda ctx, grad: grad * polyop.cos(ctx.saved_tensors[0]), setup_context=_setup
)

LIBRARY: Any = torch.library.Library("bridge_bench_hand", "DEF")
LIBRARY.define("sin(Tensor x) -> Tensor")
LIBRARY.impl("sin", lambda x: torch.from_numpy(np.sin(x.detach().numpy())), "CPU")
torch.library.register_fake("bridge_bench_hand::sin", torch.empty_like, lib=LIBRARY)
torch.library.register_autograd(
    "bridge_bench_hand::sin",
    lambda ctx, grad: grad * torch.cos(ctx.saved_tensors[0]),
    setup_context=_setup,
    lib=LIBRARY,
)


def best(run: Callable[[], Any], times: int = 300) -> float:
    """Give the least time of several rounds, in microseconds."""
    rounds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(times):
            run()
        rounds.append((time.perf_counter() - start) / times * 1e6)
    return min(rounds)


def main() -> None:
    """Print a row for each kind of call."""
    hand = torch.ops.bridge_bench_hand.sin.default
    x = torch.rand(16)
    y = torch.rand(16, requires_grad=True)
    cases: dict[str, Callable[[Any], Any]] = {
        "no grad": lambda f: f(x),
        "grad": lambda f: f(y),
        "with backward": lambda f: f(y).sum().backward(),
    }
    for name, case in cases.items():
        ours, theirs = (best(lambda c=case, g=f: c(g)) for f in (sin, hand))
        print(f"{name:14} {ours:7.1f} us, by hand {theirs:7.1f} us, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()

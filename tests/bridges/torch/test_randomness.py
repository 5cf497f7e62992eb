"""Random operators in `torch.func.vmap` draw as its `randomness` says, and calls are not merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES

import polyop
from polyop import Tensor
from polyop.errors import VmapError

pytestmark = [
    *COMPILES,
    pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning"),
    pytest.mark.usefixtures("forgotten"),
]
BATCH, SHARED = torch.ones(3, 16), torch.ones(16)


@polyop.custom_op("randomness_tests::noise", mutates_args=(), tags="nondeterministic_seeded")
def noise(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() * polyop.rand(*x.shape).numpy())


noise.register_fake(lambda x: polyop.empty_like(x))
noise.register_autograd(
    lambda ctx, g: g * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
)


@polyop.custom_op("randomness_tests::fill", mutates_args={"x"}, tags="nondeterministic_seeded")
def fill(x: Tensor) -> None:
    x.numpy()[...] = polyop.rand(*x.shape).numpy()


def bare(x: Any) -> Any:
    return torch.ops.randomness_tests.noise(x)


def count(rows: Any) -> int:
    return len({tuple(row.tolist()) for row in rows.detach()})


def sample(f: Any, kind: str) -> Callable[[Any], Any]:
    """Give the function of a sample: of its own values, or of shared ones."""
    slope = SHARED.clone().requires_grad_()
    return {
        "own": f,
        "shared": lambda x: f(SHARED) + 0 * x,
        "recorded": lambda x: f(slope) + 0 * x,
        "gradient": lambda x: torch.func.grad(lambda u: noise(u).sum())(SHARED) + 0 * x,
        "jvp": lambda x: torch.func.jvp(noise, (SHARED,), (SHARED,))[1] + 0 * x,
    }[kind]


KINDS = ["own", "shared", "recorded", "gradient", "jvp"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [noise, bare])
def test_randomness_is_obeyed(f: Any, kind: str) -> None:
    """S160: refused, one draw for all samples, or one for each; also where they share arguments."""
    one = sample(f, kind)
    with pytest.raises(VmapError, match="does not say how"):
        torch.func.vmap(one)(BATCH)
    assert count(torch.func.vmap(one, randomness="same")(BATCH)) == 1
    assert count(torch.func.vmap(one, randomness="different")(BATCH)) == 3


def test_levels_have_each_their_own_randomness() -> None:
    """S160: one draw for the samples of the inner vmap, others for those of the outer."""

    def outer(x: Any) -> Any:
        return (
            torch.func.vmap(lambda y: noise(SHARED) + 0 * y, randomness="same")(BATCH[:2]) + 0 * x
        )

    found = torch.func.vmap(outer, randomness="different")(BATCH)
    assert [count(rows) for rows in found] == [1, 1, 1]
    assert count(found[:, 0]) == 3


def test_writes_of_random_numbers() -> None:
    """S160: each sample's own memory gets a draw; memory that all share gets one for all."""
    for randomness, n in (("same", 1), ("different", 3)):
        rows = BATCH.clone()
        torch.func.vmap(lambda x: (fill(x), x * 1)[1], randomness=randomness)(rows)
        assert count(rows) == n
    with pytest.raises(VmapError, match="which all samples share"):
        torch.func.vmap(lambda x: (fill(SHARED.clone()), x)[1], randomness="different")(BATCH)


@pytest.mark.parametrize("kind", ["own", "shared", "recorded"])
def test_randomness_is_obeyed_in_compiled_code(kind: str) -> None:
    """S160: a compiled vmap draws as one that is not; what a trace cannot say is refused."""
    for randomness, n in (("same", 1), ("different", 3)):
        program = torch.compile(
            torch.func.vmap(sample(noise, kind), randomness=randomness), backend="aot_eager"
        )
        if (kind, randomness) == ("own", "same"):
            with pytest.raises(Exception, match="cannot draw the same"):
                program(BATCH)
        else:
            assert count(program(BATCH)) == n


@pytest.mark.parametrize("slope", [False, True])
def test_compiled_calls_are_not_merged(slope: bool) -> None:
    """S160: equal calls draw each for itself, where a gradient is asked for too."""
    x = SHARED.clone().requires_grad_(slope)
    found = torch.compile(lambda x: noise(x) - noise(x), backend="aot_eager")(x)
    assert found.abs().max() > 0

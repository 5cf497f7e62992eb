"""PyTorch's own checks, on authors' samples."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from tests.bridges.marks import COMPILES
from tests.bridges.torch.operators import cube, mix

import polyop
from polyop import Tensor
from polyop.bridge import torch_checks
from polyop.errors import GradcheckError, OpCheckError, UsageError

pytestmark = COMPILES
OPCHECKS = {
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
}
SMOOTH = {"crop", "paste", "solve_tridiagonal", "softplus"}
EXAMPLES = [
    ("crop", "crop"), ("crop", "paste"), ("nonzero", "nonzero"), ("sine", "sine"),
    ("solve", "solve_tridiagonal"), ("softplus_c", "softplus"), ("window", "hann"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), EXAMPLES, ids=lambda word: word)
def test_examples(module: str, name: str) -> None:
    """S202 to S205: opcheck, gradcheck and gradgradcheck hold on the author's own samples."""
    found = torch_checks(getattr(import_module(module), name))
    assert set(found) == {*OPCHECKS, "gradcheck", "gradgradcheck"}
    assert {found[check] for check in OPCHECKS} == {"SUCCESS"}
    gradients = {found["gradcheck"], found["gradgradcheck"]}
    assert (gradients == {"SUCCESS"}) == (name in SMOOTH), found


def test_samples_that_are_given() -> None:
    """S205: samples have positional and keyword arguments, lists, and absent tensors."""
    x = polyop.tensor([0.5, 1.5], dtype=polyop.float64, requires_grad=True)
    found = torch_checks(mix, [([[x, x * 2], None], {"mode": "any"}), [[x], x[0]]])
    assert set(found.values()) == {"SUCCESS"}
    assert set(torch_checks(cube, [[x]]).values()) == {"SUCCESS"}


@polyop.custom_op("check_tests::wrong", mutates_args=())
def wrong(x: Tensor) -> Tensor:
    """Has a gradient that is none, once one is registered."""
    return polyop.from_numpy(np.sin(x.numpy()))


@wrong.register_fake
def wrong_fake(x: Any) -> Any:
    return polyop.empty_like(x)


def test_what_is_wrong_is_said() -> None:
    """S201: a gradient that differs, a fake that differs, and samples that lack are named."""
    x = polyop.tensor([0.5, 1.5], dtype=polyop.float64, requires_grad=True)
    with pytest.raises(UsageError, match="check_tests::wrong has no samples"):
        torch_checks(wrong)
    assert "has no backward rule" in torch_checks(wrong, [[polyop.rand(2)]])["gradcheck"]
    wrong.register_autograd(lambda ctx, grad: grad * 3)
    for given in (x, x.to(polyop.float32).detach()):
        with pytest.raises(GradcheckError, match="gradcheck finds fault .* check_tests::wrong"):
            torch_checks(wrong, [[given]])
    wrong.register_fake(lambda x: x.new_empty([3]))
    with pytest.raises(OpCheckError, match="opcheck finds fault with check_tests::wrong"):
        torch_checks(wrong, [[x]])

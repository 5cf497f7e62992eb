"""The keywords of PyTorch's functions, and what they say here."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import autograd, func, library
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError, GradcheckError, UsageError
from polyop.hop.operator import HigherOrderOperator

PAIRS: dict[str, tuple[Any, Any]] = {
    "grad": (torch.autograd.grad, autograd.grad),
    "backward": (torch.autograd.backward, autograd.backward),
    "gradcheck": (torch.autograd.gradcheck, autograd.gradcheck),
    "gradgradcheck": (torch.autograd.gradgradcheck, autograd.gradgradcheck),
    **{name: (getattr(torch.func, name), getattr(func, name)) for name in (
        "grad", "grad_and_value", "vjp", "jvp", "jacfwd", "hessian", "linearize", "vmap",
    )},
    "get_kernel": (torch.library.get_kernel, library.get_kernel),
    "opcheck": (torch.library.opcheck, library.opcheck),
    **{f"CustomOpDef.{name}": (
        getattr(torch._library.custom_ops.CustomOpDef, name), getattr(library.CustomOpDef, name),
    ) for name in ("register_vmap", "register_autocast", "register_effect", "set_kernel_enabled")},
    **{f"OpOverload.{name}": (getattr(torch._ops.OpOverload, name), getattr(OpOverload, name))
       for name in ("py_impl", "has_kernel_for_dispatch_key", "has_kernel_for_any_dispatch_key")},
    **{f"HigherOrderOperator.{name}": (
        getattr(torch._ops.HigherOrderOperator, name), getattr(HigherOrderOperator, name),
    ) for name in ("py_impl", "fallthrough", "has_kernel_for_dispatch_key")},
}  # fmt: skip


def said(fn: Any) -> tuple[list[str], dict[str, Any]]:
    """The parameters that have a place, in order, and all that have a name, with defaults."""
    found = inspect.signature(fn).parameters.values()
    placed = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
    return placed, {p.name: p.default for p in found}


@pytest.mark.parametrize("name", PAIRS)
def test_keywords_places_and_defaults_are_pytorch_s(name: str) -> None:
    """S39, S55, S61, S134, S138, S139: a call in PyTorch's words means the same here."""
    (theirs, defaults), (ours, here) = map(said, PAIRS[name])
    assert ours[: len(theirs)] == theirs
    assert set(defaults) <= set(here)
    if name != "opcheck":  # there are more laws here
        assert {key: here[key] for key in defaults} == defaults


def leaf() -> Any:
    return polyop.asarray(np.array([1.0, 2.0])).requires_grad_()


def test_the_sixth_argument_of_grad_is_not_allow_unused() -> None:
    """S138: by place, as in PyTorch; `only_inputs` is True, or an error."""
    x, other = leaf(), leaf()
    with pytest.raises(AutogradError):
        autograd.grad((x * x).sum(), other, None, None, False, True)
    assert autograd.grad((x * x).sum(), other, None, None, False, True, True) == (None,)
    with pytest.raises(UsageError, match="only_inputs"):
        autograd.grad((x * x).sum(), x, only_inputs=False)


def test_gradients_have_a_former_name() -> None:
    """S138: `grad_variables` is `grad_tensors`; both together are refused."""
    x, start = leaf(), polyop.asarray(np.array([1.0, 3.0]))
    with pytest.raises(UsageError, match="two names"):
        autograd.backward(x * 2, start, grad_variables=start)
    autograd.backward(x * 2, grad_variables=start)
    assert x.grad.tolist() == [2.0, 6.0]


def test_strict_refuses_constants() -> None:
    """S134: `jvp` with `strict` says which result does not depend on the inputs."""
    x = polyop.ones(2)
    found = func.jvp(lambda x: (x * 2, polyop.ones(2)), (x,), (x,))[1]
    assert [t.tolist() for t in found] == [[2.0, 2.0], [0.0, 0.0]]
    assert func.jvp(lambda x: x * 2, (x,), (x,), strict=True)[1].tolist() == [2.0, 2.0]
    with pytest.raises(AutogradError, match="does not depend") as told:
        func.jvp(lambda x: (x * 2, polyop.ones(2)), (x,), (x,), strict=True)
    assert told.value.argument == "result[1]"


class Wrong(autograd.Function):
    """Doubles, and says otherwise under `vmap`."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return Slope.apply(g)


class Slope(autograd.Function):
    """Doubles single gradients, and triples those of a batch."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return x * 3, in_dims[0]


def test_batches_of_gradients_are_checked() -> None:
    """S139: `check_batched_grad` finds a vmap rule that gives other gradients."""
    assert autograd.gradcheck(Wrong.apply, (leaf(),))
    with pytest.raises(GradcheckError, match="a batch of gradients differs"):
        autograd.gradcheck(Wrong.apply, (leaf(),), check_batched_grad=True)
    checks = {"check_batched_grad": True, "check_grad_dtypes": True}
    forward = {"check_forward_ad": True, "check_batched_forward_grad": True}
    assert autograd.gradcheck(lambda x, y: (x * y, polyop.sin(x)), (leaf(), leaf()), **checks)
    assert autograd.gradcheck(polyop.sin, (leaf(),), **checks, **forward)
    assert autograd.gradcheck(polyop.sin, (leaf(),), check_backward_ad=False, **forward)


def test_second_gradients_are_checked_as_pytorch_s_are() -> None:
    """S139: the options of `gradgradcheck`."""
    options = {"gen_non_contig_grad_outputs": True, "check_batched_grad": True}
    assert autograd.gradgradcheck(polyop.sin, (leaf(),), **options)
    assert autograd.gradgradcheck(
        polyop.sin, (leaf(),), check_fwd_over_rev=True, check_rev_over_rev=False, fast_mode=True
    )


def test_what_has_no_meaning_here_is_refused() -> None:
    """S139: `masked`, and a check of nothing."""
    for check in (autograd.gradcheck, autograd.gradgradcheck):
        with pytest.raises(UsageError, match="sparse"):
            check(polyop.sin, (leaf(),), masked=True)
    with pytest.raises(UsageError, match="checks backward, or forward mode"):
        autograd.gradcheck(polyop.sin, (leaf(),), check_backward_ad=False)
    with pytest.raises(UsageError, match="batches of tangents"):
        autograd.gradcheck(polyop.sin, (leaf(),), check_batched_forward_grad=True)

"""PyTorch's own checks on an author's samples: `opcheck`, `gradcheck` and `gradgradcheck`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd.gradcheck import GradcheckError as TorchGradcheckError

from polyop import tree
from polyop.bridges.torch.arrays import each, our_values, placed, split, torch_values
from polyop.bridges.torch.bridge import Bridge, bridge_of, call
from polyop.bridges.torch.schema import TORCH
from polyop.dispatch.bind import bind
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator
from polyop.errors import GradcheckError, MissingGradientError, OpCheckError, UsageError
from polyop.layers.autograd.recorders import recorder_of
from polyop.payloads.exchange import from_numpy
from polyop.tensor.tensor import Tensor

SUCCESS = "SUCCESS"


def torch_checks(op: Any, samples: Iterable[Any] | None = None) -> dict[str, str]:
    """Run PyTorch's own checks of an operator on samples.

    Args:
        op: the operator, in any form.
        samples: lists of arguments, or pairs of such a list and keyword arguments, with tensors
            of polyop; without any, the operator's own.

    Returns:
        By name of a check, `"SUCCESS"`, or why it does not apply.

    Raises:
        OpCheckError: `torch.library.opcheck` found something.
        GradcheckError: a gradient differs from finite differences.
        UsageError: there are no samples.
    """
    found = as_operator(op)
    bridge = bridge_of(found)
    given = [_bound(bridge, sample) for sample in _samples(bridge, samples)]
    verdicts: dict[str, str] = {}
    for values in given:
        verdicts.update(_opcheck(bridge, values))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        said = [_gradients(bridge, check, values) for values in given]
        verdicts[check.__name__] = SUCCESS if SUCCESS in said else said[0]
    return verdicts


def _samples(bridge: Bridge, samples: Iterable[Any] | None) -> list[Any]:
    op = bridge.op
    own = op.rule("samples") if samples is None else samples
    found = list(own() if callable(own) else own or ())
    if not found:
        raise UsageError(
            f"{op.name()} has no samples",
            op=op._schema,
            source=op.source,
            fix=f"register them with @{op._opname}.samples, or give some",
        )
    return found


def _bound(bridge: Bridge, sample: Any) -> list[Any]:
    """Give all arguments, in PyTorch's words; tensors require grad as in the sample."""
    args, named = sample if isinstance(sample, tuple) and len(sample) == 2 else (sample, {})
    values = torch_values(bridge.plan, bind(bridge.op, tuple(args), dict(named)))
    return [
        v if p.kind == "static" else each(_tensor, v)
        for p, v in zip(bridge.plan.places, values, strict=True)
    ]


def _tensor(given: Tensor | None) -> torch.Tensor | None:
    if given is None:
        return None
    made: torch.Tensor = from_numpy(TORCH, given.detach().numpy().copy())
    return made.requires_grad_(given.requires_grad)


def _opcheck(bridge: Bridge, values: Sequence[Any]) -> dict[str, str]:
    try:
        found = torch.library.opcheck(bridge.target, tuple(values))
    except Exception as error:
        raise OpCheckError(
            f"torch.library.opcheck finds fault with {bridge.op.name()}",
            op=bridge.op._schema,
            seen=str(error).strip()[:2000],
            source=bridge.op.source,
        ) from error
    return {str(name): str(verdict) for name, verdict in found.items()}


def _gradients(bridge: Bridge, check: Callable[..., bool], values: Sequence[Any]) -> str:
    """Compare a gradient with finite differences."""
    op = bridge.op
    if op._schema.is_mutable:
        return "it writes its arguments"
    if recorder_of(op) is None:
        return "its results have no gradient"
    row, kept = split(bridge.plan, values)
    wanted = [i for i, t in enumerate(row) if t.requires_grad]
    wanted = wanted or [i for i, t in enumerate(row) if t.is_floating_point()]
    if not wanted:
        return "no argument is a tensor of floats"
    steps = EXACT if all(row[i].dtype in _DOUBLE for i in wanted) else COARSE
    row = [t.detach() for t in row]
    if steps is COARSE and _takes(op, bridge, kept, exact := [_exact(t) for t in row]):
        row = exact

    def function(*moved: Any) -> Any:
        whole = list(row)
        for i, t in zip(wanted, moved, strict=True):
            whole[i] = t
        out = call(op, our_values(bridge.plan, placed(kept, whole)))
        return tuple(t for t in tree.leaves(out) if _flows(t))

    return _compared(bridge, partial(check, **steps), check.__name__, function, row, wanted)


#: Steps and tolerances for samples of doubles, and for others, where kernels may round to singles.
EXACT: dict[str, float] = {}
COARSE: dict[str, float] = {"eps": 1e-2, "atol": 1e-2, "rtol": 1e-2}
_DOUBLE = frozenset((torch.float64, torch.complex128))


def _takes(op: OpOverload, bridge: Bridge, kept: Sequence[Any], row: Sequence[Any]) -> bool:
    """Tell whether an operator takes doubles, in which differences lose less."""
    try:
        call(op, our_values(bridge.plan, placed(kept, row)))
    except Exception:  # whatever its kernel says about them
        return False
    return True


def _compared(  # noqa: PLR0917 - what `_gradients` found
    bridge: Bridge, check: Callable[..., bool], name: str, function: Any, row: Any, wanted: Any
) -> str:
    op = bridge.op
    given = tuple(row[i].clone().requires_grad_() for i in wanted)
    try:
        if not function(*given):
            return "its results have no gradient"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of singles, where there is no choice
            check(function, given)
    except TorchGradcheckError as error:
        raise GradcheckError(
            f"torch.autograd.{name} finds fault with the gradient of {op.name()}",
            op=op._schema,
            seen=str(error).strip()[:2000],
            source=op.rule_source("backward"),
        ) from error
    except MissingGradientError as error:
        return error.problem
    return SUCCESS


def _exact(t: torch.Tensor) -> torch.Tensor:
    if t.is_complex():
        return t.to(torch.complex128)
    return t.to(torch.float64) if t.is_floating_point() else t


def _flows(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and t.requires_grad

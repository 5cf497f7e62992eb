"""Gradient texts evaluated on bare arrays, and PyTorch's gradients beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import polyop.assembly  # noqa: F401
from polyop.ops import broadcasting, comparison, elementwise, rounding, select
from polyop.ops.define import ON_ARRAYS, operator_of

MODULES = (broadcasting, comparison, elementwise, rounding, select)


def overloads() -> list[Any]:
    """Give every overload of the operators of these files."""
    found = {}
    for module in MODULES:
        for value in vars(module).values():
            if hasattr(value, "op"):
                for op in operator_of(value).packet.op_overloads():
                    found[op.name()] = op
    return [found[name] for name in sorted(found)]


def gradient(op: Any, name: str, g: Any, r: Any, values: dict[str, Any]) -> Any:
    """Evaluate the gradient of one argument, as a layer does: summed, and of its dtype."""
    text = op.rule("formula").text[name]
    with np.errstate(all="ignore"):
        found = np.asarray(eval(text, {**ON_ARRAYS, "g": g, "r": r, **values}))
    x = values[name]
    found = ON_ARRAYS["sum_to"](np.broadcast_to(found, r.shape), x.shape)
    return (found.real if x.dtype.kind != "c" else found).astype(x.dtype)


def operator(name: str, overload: str = "default") -> Any:
    """Give an overload of a built-in operator."""
    entry = next(vars(m)[name] for m in MODULES if hasattr(vars(m).get(name), "op"))
    return getattr(operator_of(entry).packet, overload)


def torch_gradients(fn: Any, g: Any, values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Give PyTorch's result, and its gradients for the arrays that can have one."""
    given = {
        k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in values.items()
    }
    leaves = {k: v for k, v in given.items() if isinstance(v, torch.Tensor)}
    leaves = {k: v for k, v in leaves.items() if v.is_floating_point() or v.is_complex()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    result = fn(*given.values())
    grads = torch.autograd.grad(
        result, list(leaves.values()), torch.from_numpy(np.asarray(g)), allow_unused=True
    )
    arrays = [
        np.zeros_like(values[k]) if v is None else v.resolve_conj().numpy(force=True)
        for k, v in zip(leaves, grads, strict=True)
    ]
    return result.detach().numpy(), dict(zip(leaves, arrays, strict=True))

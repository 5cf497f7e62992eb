"""An author's kernels for PyTorch's own tensors, run by PyTorch's operator."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from polyop.bridges.own_kernels import call_own, checked
from polyop.bridges.told import told
from polyop.bridges.torch.agreed import TRACED, agree
from polyop.bridges.torch.arrays import each, of_array, our_values
from polyop.bridges.torch.draws import drawing
from polyop.bridges.torch.kernel import Kernel, chosen, filled
from polyop.bridges.torch.schema import TORCH, Translation, name_of
from polyop.bridges.torch.written import write_kernel
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.library_kernels import has_kernels, library_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Kernel as Registered
from polyop.errors import ArgumentError, ReturnError


def kernel_of(op: OpOverload, plan: Translation) -> Callable[..., Any]:
    """Give what PyTorch's operator runs: an author's kernel for its tensors goes before NumPy's."""
    on_numpy = write_kernel(op, plan, Kernel(op, plan))
    found = OwnKernel(op, plan, on_numpy) if has_kernels(op, "torch") else on_numpy
    return drawing(op, found)


class OwnKernel:
    """Chooses the author's kernel for the device of a call's tensors."""

    def __init__(self, op: OpOverload, plan: Translation, otherwise: Callable[..., Any]) -> None:
        self.op = op
        self.plan = plan
        self.otherwise = otherwise

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run it on the tensors themselves; what it writes counts as written."""
        values = filled(self.plan, args, named)
        tensors = [t for v in values for t in _tensors(v)]
        own = library_kernel(self.op, "torch", tensors[0].device.type) if tensors else None
        if own is None:
            return self.otherwise(*args, **named)
        out = self._run(own, values)
        written = [
            t for p, v in zip(self.plan.places, values, strict=True) if p.written
            for t in _tensors(v)
        ]  # fmt: skip
        if written:
            torch.autograd.graph.increment_version(written)
        return out

    def _run(self, own: Registered, values: list[Any]) -> Any:
        try:
            out = run_under(PLAIN, call_own, self.op, own, values)
        except Exception as error:
            told(error, self.op, "torch", own.source)
            raise
        rows = checked(self.op, own, TORCH, values, out)
        if not rows:
            return None
        if self.op in TRACED:
            given = [each(_over, v) for v in our_values(self.plan, values)]
            agree(self.op, given, [each(_over, row) for row in rows])
        whole = tuple(rows) if len(rows) > 1 else rows[0]
        return chosen(self.plan.forms, whole, lambda t: _in_order(self.op, own, t))


def _in_order(op: OpOverload, own: Registered, t: torch.Tensor) -> torch.Tensor:
    """Give a result whose elements are in order.

    Raises:
        ReturnError: it is sparse, quantized, or of a dtype that NumPy has not.
    """
    try:
        TORCH.check(t)
        TORCH.dtype(t)
    except ArgumentError as error:
        raise ReturnError(
            f"the kernel of {op.name()} for PyTorch returns what fakes cannot say: {error.problem}",
            op=op._schema,
            declared=error.declared,
            seen=error.seen,
            source=own.source,
            fix=error.fix,
        ) from None
    return t.contiguous()


def _tensors(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [t for t in values if isinstance(t, torch.Tensor)]


def _over(value: Any) -> Any:
    return of_array(value) if isinstance(value, torch.Tensor) else value


#: Where PyTorch's dispatcher looks for kernels on nested tensors; it looks nowhere else.
NESTED_KEYS = ("NestedTensorCPU", "NestedTensorCUDA")
#: The class of those with a jagged layout: by a name that PyTorch does not promise.
_JAGGED = getattr(sys.modules.get("torch.nested._internal.nested_tensor"), "NestedTensor", None)


def take_nested(op: OpOverload, plan: Translation, target: Any, library: Any) -> None:
    """Let calls with nested tensors reach an author's kernel for PyTorch, or be refused by name.

    Without it PyTorch says of a call only that no kernel is there. The author's kernel is looked
    for at each call, so that nothing has to be told when one comes.
    """
    kernel = OwnKernel(op, plan, Kernel(op, plan))
    for key in NESTED_KEYS:
        library.impl(name_of(op), drawing(op, kernel), key)
    register: Any = getattr(torch.library, "register_torch_dispatch", None)
    if register is not None and _JAGGED is not None:
        register(target, _JAGGED, partial(_jagged, drawing(op, kernel)), lib=library)


def _jagged(kernel: Callable[..., Any], cls: type, func: Any, types: Any, *given: Any) -> Any:
    """Answer for the class of jagged tensors, whose own answer is an error without words."""
    args, named = given
    return kernel(*args, **(named or {}))


def refresh(op: OpOverload, plan: Translation, library: Any) -> None:
    """Let PyTorch's operator, which it has already, run the kernels that came since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel takes another's place is what is wanted
        library.impl(name_of(op), kernel_of(op, plan), "CompositeExplicitAutograd")

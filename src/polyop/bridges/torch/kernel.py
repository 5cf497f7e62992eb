"""The kernel and the fake rule of PyTorch's operator: ours, on NumPy's arrays and on fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from polyop.bridges.calls import AT_KERNEL
from polyop.bridges.told import told
from polyop.bridges.torch.agreed import TRACED, agree, in_a_row
from polyop.bridges.torch.arrays import each, our_values
from polyop.bridges.torch.arrays import of_array as held
from polyop.bridges.torch.schema import TORCH, Translation
from polyop.dispatch.body import Form
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import AliasError, MutationError, ReturnError
from polyop.payloads.exchange import to_numpy
from polyop.payloads.refused import check_argument
from polyop.schema.model import MISSING
from polyop.tensor.tensor import Tensor, of_array

Arrays = list["np.ndarray[Any, Any]"]


def filled(plan: Translation, args: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    """Give all arguments: PyTorch leaves out the last ones that are equal to their defaults."""
    values = list(args)
    for place, default in list(zip(plan.places, plan.defaults, strict=True))[len(values) :]:
        value = named.get(place.name, default)
        values.append(list(value) if value.__class__ is tuple else value)
    return [None if v is MISSING else v for v in values]


def ours(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call our operator with arguments in the order of its schema."""
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    return op.entry(*values[:n], **dict(zip(names, values[n:], strict=True)))


class Kernel:
    """Runs an operator's kernel on the data of PyTorch's tensors."""

    def __init__(self, op: OpOverload, plan: Translation) -> None:
        self.op = op
        self.plan = plan

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the kernel; what it writes counts as written to PyTorch too."""
        values = filled(self.plan, args, named)
        check(self.op, self.plan, values)
        written = [
            t
            for p, v in zip(self.plan.places, values, strict=True)
            if p.written
            for t in (v if isinstance(v, list | tuple) else [v])
            if t is not None
        ]
        for t in written:
            refuse_shared(self.op, t)
        tensors = [t for v in values for t in tensors_in(v)]
        on_cpu = all(t.device.type == "cpu" for t in tensors)
        out = self._on_cpu(values, written) if on_cpu else self._as_they_are(values)
        if written:
            torch.autograd.graph.increment_version(written)
        return out

    def _on_cpu(self, values: Sequence[Any], written: Sequence[Any]) -> Any:
        inputs: Arrays = []
        backs: list[tuple[Any, Any]] = []

        def array(t: Any) -> Any:
            if t is None:
                return None
            found = to_numpy(t, what=self.op.name())
            if t.is_conj() or t.is_neg():
                backs.append((t, found))  # a copy, for NumPy has no such views
            inputs.append(found)
            return of_array(found)

        given = [
            v if p.kind == "static" else each(array, v)
            for p, v in zip(self.plan.places, values, strict=True)
        ]
        out = self._run(our_values(self.plan, given))
        for t, found in backs:
            if any(t is w for w in written):
                t.copy_(TORCH.from_numpy(found, None))
        return self._results(out, lambda t: new_tensor(self.op, t, inputs))

    def _as_they_are(self, values: Sequence[Any]) -> Any:
        given = [
            v if p.kind == "static" else each(held, v)
            for p, v in zip(self.plan.places, values, strict=True)
        ]
        token = AT_KERNEL.set(self.op)
        try:
            out = self._run(our_values(self.plan, given))
        finally:
            AT_KERNEL.reset(token)
        return self._results(out, lambda t: t.payload.array.contiguous())

    def _run(self, values: Sequence[Any]) -> Any:
        try:
            out = run_under(PLAIN, ours, self.op, values)
        except Exception as error:
            told(error, self.op, "torch")
            raise
        if self.op in TRACED:
            agree(self.op, values, in_a_row(self.op, out))
        return out

    def _results(self, out: Any, convert: Any) -> Any:
        return chosen(self.plan.forms, out, convert)


def check(op: OpOverload, plan: Translation, values: Sequence[Any]) -> None:
    """Refuse tensors that are sparse, quantized, or of a dtype that NumPy has not.

    Raises:
        ArgumentError: one is; it is named.
    """
    for place, value in zip(plan.places, values, strict=True):
        for t in tensors_in(value):
            check_argument(op, place.name, TORCH, t)


def refuse_shared(op: OpOverload, t: torch.Tensor) -> None:
    """Refuse to write a tensor whose elements are one in memory.

    Raises:
        MutationError: it was expanded.
    """
    sizes = zip(t.shape, t.stride(), strict=True)
    if any(n > 1 and step == 0 for n, step in sizes) and t.numel():
        raise MutationError(
            f"{op.name()} writes a tensor whose elements share memory",
            op=op._schema,
            declared="one place in memory for each element",
            seen=f"shape {tuple(t.shape)}, strides {t.stride()}",
            source=op.source,
            fix="write a clone of it",
        )


def chosen(forms: Sequence[Form], out: Any, convert: Any) -> Any:
    """Give the results that PyTorch's operator has, converted."""
    results = [out] if len(forms) == 1 else list(out or ())
    kept = [
        each(convert, r) for (kind, _), r in zip(forms, results, strict=False) if kind != "argument"
    ]
    return kept[0] if len(kept) == 1 else tuple(kept) if kept else None


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Give the tensors that a value is, or holds in lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors_in(v)]
    return []


def new_tensor(op: OpOverload, result: Tensor, inputs: Arrays) -> torch.Tensor:
    """Make PyTorch's tensor of a result: in order, and of memory that no argument has."""
    found = result.payload
    if found.__class__ is not np.ndarray:
        raise ReturnError(f"the kernel of {op.name()} gave a tensor without data", op=op._schema)
    if any(np.may_share_memory(found, array) for array in inputs):
        raise AliasError(
            f"the kernel of {op.name()} returned memory of an argument",
            op=op._schema,
            source=op.source,
            fix="return a copy",
        )
    whole = found.flags.c_contiguous and found.flags.writeable and found.dtype.isbuiltin == 1
    return torch.from_numpy(found) if whole and found.ndim else _copied(found)


def _copied(found: Any) -> torch.Tensor:
    made: torch.Tensor = TORCH.from_numpy(found, None)
    # Of a dtype that NumPy has not it is a view, which could not be written after.
    return made if found.dtype.isbuiltin == 1 else made.clone()

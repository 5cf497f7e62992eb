"""Arguments in two pieces, the tensors in a row and the rest, and results likewise.

PyTorch's functions see tensors only among their own arguments, not inside of lists. So every rule
gets a row of tensors, and a `Call` that knows where each belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from polyop.bridges.torch.schema import TORCH, Translation
from polyop.dispatch.context import PLAIN
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError, MutationError, ReturnError
from polyop.payloads.exchange import from_numpy
from polyop.payloads.held import Held, of_held
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor

#: What rules run under: every layer of ours has acted, or has nothing to do.
QUIET = PLAIN.in_kernel


class At(NamedTuple):
    """Stands for a tensor among arguments: its number in the row."""

    number: int


class Call:
    """One call without its tensors.

    Attributes:
        op: the operator.
        plan: its schema in PyTorch's words.
        target: the operator of `torch.library`.
        values: the arguments, an `At` for each tensor.
        layout: for each result there, None for a tensor, the length of a list.
        single: calls the operator with all arguments, as one sample of a batch.
    """

    __slots__ = ("layout", "op", "plan", "single", "target", "values")

    def __init__(
        self, op: OpOverload, plan: Translation, target: Any, values: Sequence[Any]
    ) -> None:
        self.op = op
        self.plan = plan
        self.target = target
        self.single: Callable[..., Any] = target
        self.values = values
        self.layout: list[int | None] = []

    def run(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Run the operator on a row of tensors, and give the results in a row."""
        out = self.target(*placed(self.values, row))
        return self.in_a_row(out)

    def in_a_row(self, out: Any) -> tuple[Any, ...]:
        """Give the results in a row, and remember how they lie."""
        count = len(self.plan.results)
        results = [out] if count == 1 else list(out or ())
        self.layout = [len(r) if isinstance(r, list | tuple) else None for r in results]
        return tuple(t for r in results for t in (r if isinstance(r, list | tuple) else [r]))

    def laid_out(self, row: Sequence[Any]) -> list[Any]:
        """Give what belongs to the results, which is in a row, as one value for each result."""
        found, rest = [], list(row)
        for length in self.layout:
            n = 1 if length is None else length
            found.append(rest[0] if length is None else rest[:n])
            rest = rest[n:]
        return found

    def answer(self, row: Sequence[Any]) -> Any:
        """Give the results, which are in a row, as the operator does."""
        found = self.laid_out(row)
        return found[0] if len(found) == 1 else tuple(found) if found else None

    def ours(self, row: Sequence[Any]) -> list[Any]:
        """Give the arguments as a rule of ours gets them."""
        tensors = [of_array(t) for t in row]
        return our_values(self.plan, placed(self.values, tensors))

    def mirrored(self, row: Sequence[Any], absent: Any = None) -> list[Any]:
        """Give what belongs to the tensors as one value for each argument, lists for lists."""
        return [
            _mirrored(p.kind, v, row, absent)
            for p, v in zip(self.plan.places, self.values, strict=True)
        ]


def _mirrored(kind: str, value: Any, row: Sequence[Any], absent: Any) -> Any:
    if kind == "static":
        return absent
    if isinstance(value, list):
        return [absent if v is None else row[v.number] for v in value]
    return absent if value is None else row[value.number]


def split(plan: Translation, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Give the tensors of arguments in a row, and the arguments with an `At` for each."""
    row: list[Any] = []
    kept: list[Any] = []
    for place, value in zip(plan.places, values, strict=True):
        if place.kind == "static" or value is None:
            kept.append(value)
        elif isinstance(value, list | tuple):
            kept.append([None if v is None else _add(row, v) for v in value])
        else:
            kept.append(_add(row, value))
    return row, kept


def _add(row: list[Any], value: Any) -> At:
    row.append(value)
    return At(len(row) - 1)


def placed(values: Sequence[Any], row: Sequence[Any]) -> list[Any]:
    """Give the arguments with the tensors of a row in their places."""
    return [
        row[v.number]
        if v.__class__ is At
        else [row[w.number] if w.__class__ is At else w for w in v]
        if v.__class__ is list
        else v
        for v in values
    ]


def our_values(plan: Translation, values: Sequence[Any]) -> list[Any]:
    """Give PyTorch's values as ours; tensors stay."""
    return [v if p.taken is None else p.taken(v) for p, v in zip(plan.places, values, strict=True)]


def torch_values(plan: Translation, values: Sequence[Any]) -> list[Any]:
    """Give our values as PyTorch's; tensors stay."""
    return [v if p.given is None else p.given(v) for p, v in zip(plan.places, values, strict=True)]


# -- tensors of ours ------------------------------------------------------------------------


def of_array(array: torch.Tensor | None) -> Tensor | None:
    """Make a tensor of ours over one of PyTorch."""
    return None if array is None else of_held(Held(array, TORCH))


def array_of(op: OpOverload, what: str, value: Any, like: Any) -> Any:
    """Give PyTorch's tensor of one that a rule of ours made.

    Raises:
        ReturnError: it is no tensor with data.
    """
    if value is None:
        return None
    payload = getattr(value, "payload", None)
    if payload.__class__ is Held and payload.library is TORCH:
        return payload.array
    if payload.__class__ is np.ndarray:
        return from_numpy(TORCH, payload, like)
    raise ReturnError(
        f"the {what} rule of {op.name()} gave no tensor of PyTorch",
        op=op._schema,
        declared="a tensor made of the arguments, by operators",
        seen="a tensor without data" if payload.__class__ is Meta else repr(value)[:120],
        source=op.rule_source(what),
        fix="compute it from the arguments, with operators",
    )


def arrays_of(op: OpOverload, plan: Translation, values: Sequence[Any]) -> list[Any]:
    """Give PyTorch's arrays of tensors of ours: NumPy's are copied, or lent where one is written.

    Raises:
        MutationError: PyTorch cannot share what is written, or only traces the others.
    """
    leaves = [t for v in values for t in _leaves(v)]
    among = [t.payload.array for t in leaves if getattr(t, "payload", None).__class__ is Held]
    written = _numpy_written(plan, values) if op._schema.is_mutable else []

    def array(name: str, t: Any) -> Any:
        payload = getattr(t, "payload", None)
        numpys = written if payload.__class__ is np.ndarray else ()
        if any(np.may_share_memory(payload, w) for w in numpys):
            return _lent(op, name, payload, among)
        return array_of(op, "kernel", t, among[0])

    return [
        v if p.kind == "static" else each(partial(array, p.name), v)
        for p, v in zip(plan.places, values, strict=True)
    ]


def check_writable(op: OpOverload, written: Tensor, values: Sequence[Any]) -> None:
    """Refuse to write a tensor if its views, or its base, would not see it.

    Raises:
        MutationError: it is a view that cannot be written, or another argument is a copy of it.
    """
    held = written.payload
    if held.__class__ is not Held:
        return
    held.check_writable()
    for t in [t for v in values for t in _leaves(v) if getattr(t, "payload", held) is not held]:
        other = t.payload
        if other.__class__ is Held and other.writes is held.writes and (held.taken or other.taken):
            raise MutationError(
                f"{op.name()} writes a tensor of which another argument is a view, and PyTorch "
                "has no such view: each has memory of its own",
                op=op._schema,
                seen=f"{held!r}, and {other!r}",
                source=op.source,
                fix="give a clone of the view",
            )


def _numpy_written(plan: Translation, values: Sequence[Any]) -> list[Any]:
    """Give the arrays of NumPy that a call writes."""
    pairs = zip(plan.places, values, strict=True)
    tensors = [t for p, v in pairs if p.written for t in _leaves(v) if t is not None]
    return [t.payload for t in tensors if t.payload.__class__ is np.ndarray]


def _lent(op: OpOverload, name: str, array: Any, among: Sequence[Any]) -> torch.Tensor:
    """Give a tensor of PyTorch in the memory of an array of NumPy."""
    if not all(map(TORCH.is_concrete, among)):
        declared = "what is written is PyTorch's too"
        _refuse_lending(op, name, array, "would write what PyTorch traces into", declared)
    known = array.dtype.isbuiltin == 1
    bits = array if known else array.view(f"i{array.itemsize}")
    try:
        made = torch.from_numpy(bits) if array.flags.writeable else None
    except (TypeError, ValueError):  # of negative strides, or in another order of bytes
        made = None
    if made is None:
        declared = "writeable memory, without negative strides"
        _refuse_lending(op, name, array, "cannot share with PyTorch", declared)
    return made if known else made.view(TORCH.native(array.dtype))


def _refuse_lending(op: OpOverload, name: str, array: Any, what: str, declared: str) -> NoReturn:
    raise MutationError(
        f"{op.name()} {what} its argument {name!r}, an array of NumPy",
        op=op._schema,
        argument=name,
        declared=declared,
        seen=f"shape {array.shape}, strides {array.strides}, writeable: {array.flags.writeable}",
        source=op.source,
        fix=f"give polyop.from_array(torch.from_numpy({name}.numpy().copy()))",
    )


def joined(op: OpOverload, plan: Translation, values: Sequence[Any]) -> list[Any]:
    """Give arguments whose arrays are all PyTorch's: NumPy's are converted.

    Raises:
        ArgumentError: NumPy's array is written, which the copy would hide.
    """
    like = next(iter(t for v in values for t in _leaves(v) if isinstance(t, torch.Tensor)), None)
    return [
        _joined(op, p.name, p.written, v, like) if p.kind != "static" else v
        for p, v in zip(plan.places, values, strict=True)
    ]


def _leaves(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _joined(op: OpOverload, name: str, written: bool, value: Any, like: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_joined(op, name, written, v, like) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    if written:
        raise ArgumentError(
            f"{op.name()} writes {name!r}, an array of NumPy, in a call with tensors of PyTorch",
            op=op._schema,
            argument=name,
            declared="all arrays of one library, where one is written",
            seen="numpy.ndarray",
            fix=f"give torch.from_numpy({name}), which shares its memory",
        )
    return from_numpy(TORCH, value, like)


def each(fn: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to a tensor, or to those of a list."""
    return [each(fn, v) for v in value] if isinstance(value, list | tuple) else fn(value)

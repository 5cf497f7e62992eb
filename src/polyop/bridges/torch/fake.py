"""The fake rule of PyTorch's operator: ours, on our tensors without data, with PyTorch's sizes.

Sizes may be PyTorch's symbols, which have no hash; so these descriptions are never remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from polyop.bridges.torch.anew import met
from polyop.bridges.torch.arrays import each, our_values
from polyop.bridges.torch.draws import is_random
from polyop.bridges.torch.effects import keep_apart, say_effect
from polyop.bridges.torch.kernel import check, chosen, filled, tensors_in
from polyop.bridges.torch.parts import Parts
from polyop.bridges.torch.schema import (
    Translation,
    our_device,
    our_dtype,
    torch_device,
    torch_dtype,
)
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError, FakeError, MissingFakeError, UsageError
from polyop.layers.fake.handlers import plan_of
from polyop.layers.fake.kernels import decomposition
from polyop.layers.fake.mode import FakeTensorMode
from polyop.schema.base_values import Known
from polyop.symbolic.check import CHECKS, spell
from polyop.tensor.meta import Meta, MetaSpace
from polyop.tensor.tensor import Tensor, of_meta


class Space(MetaSpace):
    """Where nothing is remembered."""

    __slots__ = ()

    def meta(self, shape: Any, dtype: Any, strides: Any = None, device: Any = None) -> Meta:
        """Make a meta."""
        return Meta(tuple(shape), dtype, strides, device or our_device(torch.device("cpu")), self)


class Sizes:
    """Makes PyTorch's sizes where a rule asks for one that depends on data."""

    def create_unbacked(self, *, min: int = 0, max: int | None = None, origin: str = "") -> Any:
        """Give a new size of PyTorch.

        Raises:
            FakeError: PyTorch does not trace, so that there are no such sizes.
        """
        ctx: Any = torch.library.get_ctx()
        if ctx is None:
            raise FakeError(
                "the size of a result depends on data, and a batch of no samples has none",
                fix="register a vmap rule, or leave out empty batches",
            )
        # PyTorch has no bound that is a size itself; what is left out says less, and nothing wrong.
        least, most = (None if isinstance(n, torch.SymInt) else n for n in (min, max))
        return ctx.new_dynamic_size(min=least or 0, max=most)


class TorchFakes(FakeTensorMode):
    """What a fake rule runs under while PyTorch traces."""

    def __init__(self) -> None:
        super().__init__()
        self.shape_env: Any = Sizes()
        self.space = Space(self)
        self.memo = self.space.memo

    def describe(self, t: torch.Tensor) -> Tensor:
        """Describe a tensor of PyTorch."""
        # Elements lie in order to a rule, as those of its results do.
        meta = self.space.meta(tuple(t.shape), our_dtype(t.dtype), None, our_device(t.device))
        return of_meta(meta)


class Fake:
    """Runs an operator's fake rule on PyTorch's fakes."""

    def __init__(self, op: OpOverload, plan: Translation) -> None:
        self.op = op
        self.plan = plan

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Give fakes of the results: in order, of memory of their own."""
        op, plan = self.op, self.plan
        say_effect(op)  # now, before it is in a graph
        if is_random(op):
            keep_apart(op)
        met(op)
        values = filled(plan, args, named)
        check(op, plan, values)
        written = [v for p, v in zip(plan.places, values, strict=True) if p.written]
        refuse_meta(op, plan, values, written)
        if not plan.results:
            return None
        rule = plan_of(op)
        if rule is None and decomposition(op) is not None:
            out = chosen(plan.forms, Parts(op, plan).run(values), _in_order)
            refuse_meta(op, plan, values, out)
            return out
        if rule is None:
            op.missing("fake", MissingFakeError)
        mode = TorchFakes()
        given = [
            v if p.kind == "static" else each(lambda t: t if t is None else mode.describe(t), v)
            for p, v in zip(plan.places, values, strict=True)
        ]
        out = chosen(plan.forms, rule.run(mode.space, our_values(plan, given)), _empty)
        refuse_meta(op, plan, values, out)
        return out


def refuse_meta(op: OpOverload, plan: Translation, values: Sequence[Any], made: Any) -> None:
    """Refuse tensors without data beside others, if what comes of the call has data.

    PyTorch asks the fake rule alone once an argument is on the device `meta`: a result elsewhere
    would be whatever was in memory, and a write would not happen.

    Args:
        op: the operator.
        plan: its schema in PyTorch's words.
        values: the arguments.
        made: the results, or what is written.

    Raises:
        ArgumentError: an argument is on that device, and a result, or what is written, is not.
    """
    for place, value in zip(plan.places, values, strict=True):
        if any(t.is_meta for t in tensors_in(value)):
            other = next((t.device for t in tensors_in(made) if not t.is_meta), None)
            if other is not None:
                _refuse_meta(op, place.name, other)


def _refuse_meta(op: OpOverload, name: str, other: torch.device) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} cannot take its argument {name!r}: it is on the device meta, where tensors "
        f"have no data, and what the call gives is on {other}",
        op=op._schema,
        argument=name,
        declared=f"a tensor on {other}",
        seen="a tensor on meta",
        source=op.source,
        fix="give tensors on one device",
    )


def _empty(meta: Meta) -> torch.Tensor:
    dtype, device = torch_dtype(meta.dtype), torch_device(meta.device)
    shape: Any = meta.shape  # with PyTorch's symbols
    return torch.empty(shape, dtype=dtype, device=device)


def _in_order(t: torch.Tensor) -> torch.Tensor:
    return torch.empty(t.shape, dtype=t.dtype, device=t.device)


def _check(condition: torch.SymBool, message: str | Callable[[], str]) -> None:
    """Require a condition on PyTorch's sizes.

    Raises:
        UsageError: it is known not to hold.
    """
    try:
        require: Any = torch._check
        require(condition, lambda: spell(message) or f"{condition} does not hold")
    except RuntimeError as error:
        raise UsageError(spell(message) or str(error), seen=condition) from error


# PyTorch's sizes and conditions are sizes and conditions to schemas and checks too.
CHECKS[torch.SymBool] = _check
if torch.SymInt not in Known.sym_int:
    Known.sym_int = (*Known.sym_int, torch.SymInt)
    Known.sym_float = (*Known.sym_float, torch.SymFloat)
    Known.sym_bool = (*Known.sym_bool, torch.SymBool)

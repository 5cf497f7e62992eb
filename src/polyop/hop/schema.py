"""The schema of one call of a higher-order operator, built from examples (S177)."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import Device
from polyop.errors import SubgraphError
from polyop.hop.operator import HigherOrderOperator
from polyop.schema.model import MISSING, AliasInfo, Argument, FunctionSchema, alias
from polyop.schema.types import (
    ANY,
    BOOL,
    COMPLEX,
    DEVICE,
    FLOAT,
    INT,
    NONETYPE,
    SCALARTYPE,
    STR,
    SYMINT,
    TENSOR,
    Type,
)
from polyop.symbolic import SymBool, SymFloat, SymInt
from polyop.tensor.tensor import Tensor

#: The type of a value, by its class; `bool` before `int`, which it is too.
_TYPES: tuple[tuple[type | tuple[type, ...], Type], ...] = (
    (Tensor, TENSOR), ((bool, SymBool), BOOL), (int, INT), (SymInt, SYMINT),
    ((float, SymFloat), FLOAT), (complex, COMPLEX), (str, STR), (type(None), NONETYPE),
    (Device, DEVICE), (np.dtype, SCALARTYPE),
)  # fmt: skip


class HopSchemaGenerator:
    """Builds the schema of one call from its leaves, in order.

    Args:
        hop: the operator.

    Example:
        >>> import polyop
        >>> made = HopSchemaGenerator("example")
        >>> made.add_arg("x", polyop.ones(2), is_mutated=True)
        >>> made.add_output(polyop.ones(2))
        >>> print(made.gen_schema())
        higher_order::example(Tensor(a0!) x) -> Tensor
    """

    def __init__(self, hop: HigherOrderOperator | str) -> None:
        self.name = str(hop)
        self._arguments: list[Argument] = []
        self._returns: list[Argument] = []

    def add_arg(
        self,
        name: str,
        example: Any,
        *,
        default_value: Any = MISSING,
        is_mutated: bool = False,
        kw_only: bool = False,
    ) -> None:
        """Add an argument.

        Raises:
            SubgraphError: the example is a container, or is written and no tensor; the name is
                taken.
        """
        if any(name == a.name for a in self._arguments):
            self._refuse(name, "is there already", example, "give each argument its own name")
        kind = self._type(name, example)
        written: AliasInfo | None = None
        if is_mutated:
            if kind is not TENSOR:
                self._refuse(name, "is written, and is no Tensor", example, "only tensors are")
            written = alias(f"a{len(self._arguments)}", write=True)
        self._arguments.append(Argument(name, kind, written, default_value, kw_only))

    def add_output(self, example: Any) -> None:
        """Add a result.

        Raises:
            SubgraphError: the example is a container.
        """
        self._returns.append(Argument("", self._type(f"result {len(self._returns)}", example)))

    def gen_schema(self) -> FunctionSchema:
        """Give the schema."""
        keywords = [a for a in self._arguments if a.kwarg_only]
        places = [a for a in self._arguments if not a.kwarg_only]
        name = f"higher_order::{self.name}"
        return FunctionSchema(name, "", 1, (*places, *keywords), tuple(self._returns))

    def _type(self, name: str, example: Any) -> Type:
        if isinstance(example, (list, tuple, dict)):
            self._refuse(name, "is not flattened", example, "add each of its leaves by itself")
        return next((t for classes, t in _TYPES if isinstance(example, classes)), ANY)

    def _refuse(self, name: str, what: str, example: Any, fix: str) -> None:
        raise SubgraphError(
            f"an example for the schema of {self.name} {what}",
            op=self.name, argument=name, seen=f"{type(example).__name__} {example!r:.60}", fix=fix,
        )  # fmt: skip

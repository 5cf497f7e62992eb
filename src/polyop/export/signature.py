"""What goes into a program and what comes out, as data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

#: What a program may rely on of a tensor besides its kind and sizes.
ASKED = (
    "_base", "grad", "is", "is_contiguous", "is_leaf", "requires_grad", "reshape", "stride",
    "tangent",
)  # fmt: skip


class InputSpec(NamedTuple):
    """One leaf of a program's arguments.

    Attributes:
        path: how a reader writes it, such as `batch['image']`.
        kind: a tensor, a size or an opaque object of the graph, or a constant that it was made
            for.
        value: of a constant; of an object, the name of its class.
        requires_grad: whether a tensor may need a gradient.
        asked: in what else a tensor must be as in the capture, for the function asked for it:
            the attributes that it read, `"is"` where it may compare tensors by identity, and
            `"reshape"` where it writes through what may be a view or a copy, and `"tangent"`
            where an `autograd.Function` has a derivative that the graph does not know.
    """

    path: str
    kind: Literal["tensor", "size", "object", "constant"]
    value: Any = None
    requires_grad: bool = False
    asked: tuple[str, ...] = ()


class OutputSpec(NamedTuple):
    """One leaf of a program's results.

    Attributes:
        kind: a result of the graph, an input that is given back, or a constant.
        value: the number of the graph's result or of the input; the constant.
    """

    kind: Literal["result", "input", "constant"]
    value: Any = None


@dataclass(frozen=True)
class Signature:
    """Inputs and results of a program, each flat and in order.

    The graph takes the inputs that are no constants. It gives the new value of
    each written input, then its results.

    Attributes:
        inputs: the leaves of the arguments.
        outputs: the leaves of the results.
        written: the numbers of the inputs that the function writes.
        parameters: attributes of the graph's module that require grad.
        constants: its other tensors, and its opaque objects.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    written: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()

    @property
    def of_graph(self) -> tuple[int, ...]:
        """Give the numbers of the inputs that the graph takes."""
        return tuple(i for i, spec in enumerate(self.inputs) if spec.kind != "constant")

    def for_asked(self, asked: Collection[str]) -> Signature:
        """Give the signature of the same program for inputs that also give the same answers."""
        inputs = tuple(
            spec._replace(asked=tuple(sorted({*spec.asked, *asked})))
            if spec.kind == "tensor"
            else spec
            for spec in self.inputs
        )
        return replace(self, inputs=inputs)

    def for_gradients(self, values: Sequence[Any]) -> Signature:
        """Give the signature of the same program for inputs that require grad where they can."""
        known = dict(zip(self.of_graph, values, strict=True))
        inputs = tuple(
            spec._replace(requires_grad=True)
            if spec.kind == "tensor" and known[i].dtype.kind in "fcV"
            else spec
            for i, spec in enumerate(self.inputs)
        )
        return replace(self, inputs=inputs)

    def __str__(self) -> str:
        lines = [f"input {spec.path}: {_text(spec)}" for spec in self.inputs]
        lines += [f"parameter {name}" for name in self.parameters]
        lines += [f"constant {name}" for name in self.constants]
        lines += [f"writes {self.inputs[i].path}" for i in self.written]
        lines += [f"output {i}: {self._output(spec)}" for i, spec in enumerate(self.outputs)]
        return "\n".join(lines)

    def _output(self, spec: OutputSpec) -> str:
        if spec.kind == "input":
            return f"the input {self.inputs[spec.value].path}"
        return spec.kind if spec.kind == "result" else repr(spec.value)


def _text(spec: InputSpec) -> str:
    if spec.kind == "object":
        return f"object {spec.value}"
    return f"always {spec.value!r}" if spec.kind == "constant" else spec.kind


class Dimension(NamedTuple):
    """A symbol of a program: its range, and the user's name for it, where there is one."""

    symbol: str
    name: str
    lo: int
    hi: int | None
    hint: int

    @property
    def label(self) -> str:
        """Give the name that the user knows."""
        return self.name or self.symbol

    @property
    def bound(self) -> str:
        """Write the range as Python compares."""
        return f"{self.lo} <= {self.label}" + ("" if self.hi is None else f" <= {self.hi}")
